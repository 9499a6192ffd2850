//! `cargo verify`: every check of the tree, in order of cost, with a closing summary.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::image::{BuildOptions, BuiltImage, build_image};
use crate::provision::{self, BARE_TARGET, Need};
use crate::{bare, interrupt, linux, paths, process};

/// How one check went.
struct Outcome {
    name: &'static str,
    failure: Option<String>,
    took: Duration,
}

/// Runs every check and says at the end which failed. A failed check does not hide the ones behind it.
///
/// # Errors
/// The machine cannot be set up, or a check failed.
pub fn verify(long: bool) -> Result<()> {
    interrupt::install();
    provision::ensure(Need::Verify, false)?;
    provision::ensure_lints()?;
    let mut outcomes = Vec::new();
    host(&mut outcomes)?;
    bare(&mut outcomes)?;
    emulator(&mut outcomes, long)?;
    summary(&outcomes)
}

/// What runs on the host.
fn host(outcomes: &mut Vec<Outcome>) -> Result<()> {
    check(outcomes, "format", || cargo(&["fmt", "--all", "--check"], &[]))?;
    check(outcomes, "lints, host", || {
        cargo(&["clippy", "--all-targets", "--", "-D", "warnings"], &[])
    })?;
    check(outcomes, "documentation", || {
        cargo(&["doc", "--no-deps", "--document-private-items"], &[("RUSTDOCFLAGS", "-Dwarnings")])
    })?;
    check(outcomes, "tests, host", || {
        let rooms = [
            "bulkhead-audit",
            "bulkhead-board",
            "bulkhead-config",
            "bulkhead-table",
            "hv-core",
            "hv-defs",
            "bulkhead",
            "guest-rt",
        ];
        let mut words = vec!["test"];
        words.extend(rooms.iter().flat_map(|room| ["--package", room]));
        cargo(&words, &[])
    })
}

/// What is built for the bare machine.
fn bare(outcomes: &mut Vec<Outcome>) -> Result<()> {
    let system = paths::root()?.join("partitions/demo.toml");
    let mut built = None;
    check(outcomes, "image of the demo", || {
        let options = BuildOptions { system: system.clone(), ..BuildOptions::default() };
        built = Some(build_image(&options)?);
        Ok(())
    })?;
    check(outcomes, "lints, bare machine", || match &built {
        Some(built) => lint_bare(&system, built),
        None => Err(Error::failed(
            "not run",
            "the demo's image did not build, and the hypervisor's table comes from it",
            "mend that first",
        )),
    })
}

fn lint_bare(system: &Path, built: &BuiltImage) -> Result<()> {
    let images = built.images.display().to_string();
    let system = system.display().to_string();
    let settings = [("BULKHEAD_SYSTEM", system.as_str()), ("BULKHEAD_IMAGES", images.as_str())];
    let host_rooms =
        ["bulkhead-audit", "bulkhead-config", "hil-tests", "linux-console", "bulkhead"];
    let mut words =
        vec!["clippy", "--workspace", "--profile", bare::PROFILE, "--target", BARE_TARGET];
    words.extend(host_rooms.iter().flat_map(|room| ["--exclude", room]));
    words.extend(["--", "-D", "warnings"]);
    cargo(&words, &settings)
}

/// Tells the build of the tests that Debian's kernels could not be fetched. `hil-tests/build.rs` reads it.
const NO_KERNELS: &str = "BULKHEAD_NO_KERNELS";

/// Two tests run emulators at a time, and a third may build its image beside them.
const TEST_THREADS: &str = "--test-threads=3";

/// What boots. The tests that take minutes carry `#[ignore]`.
fn emulator(outcomes: &mut Vec<Outcome>, long: bool) -> Result<()> {
    let mut settings = Vec::new();
    let mut words = vec!["test", "--package", "hil-tests", "--", TEST_THREADS];
    if long {
        settings.push(("BULKHEAD_LONG", "1"));
        words.push("--include-ignored");
    } else if let Err(error) = linux::kernels(None, false) {
        println!(
            "\nThe test of Debian's kernels is ignored: the kernels could not be fetched.\n{error}"
        );
        settings.push((NO_KERNELS, "1"));
    }
    check(outcomes, "tests, emulators", || cargo(&words, &settings))
}

fn cargo(words: &[&str], settings: &[(&str, &str)]) -> Result<()> {
    let line = format!("cargo {}", words.join(" "));
    let mut command = process::cargo();
    command.args(words).envs(settings.iter().copied()).current_dir(paths::root()?);
    process::run_shown(&mut command, &line, "mend what it names above")
}

/// Runs one check; only an interrupt ends the whole.
fn check(
    outcomes: &mut Vec<Outcome>,
    name: &'static str,
    run: impl FnOnce() -> Result<()>,
) -> Result<()> {
    println!("\n== {name}");
    let began = Instant::now();
    let failure = match run() {
        Ok(()) => None,
        Err(error @ Error::Interrupted(_)) => return Err(error),
        Err(error) => {
            println!("{error}");
            Some(error.to_string().lines().next().unwrap_or_default().to_string())
        }
    };
    outcomes.push(Outcome { name, failure, took: began.elapsed() });
    Ok(())
}

fn summary(outcomes: &[Outcome]) -> Result<()> {
    println!("\n== summary");
    for outcome in outcomes {
        let word = if outcome.failure.is_none() { "ok    " } else { "FAILED" };
        let note = outcome.failure.as_deref().map(|text| format!("  {text}")).unwrap_or_default();
        println!("   {word} {:22} {:6.1} s{note}", outcome.name, outcome.took.as_secs_f64());
    }
    let failed = outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    if failed == 0 {
        return Ok(());
    }
    Err(Error::Verdict(format!("{failed} of {} checks failed", outcomes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_whole_and_hides_nothing() {
        let mut outcomes = Vec::new();
        check(&mut outcomes, "good", || Ok(())).unwrap();
        check(&mut outcomes, "bad", || Err(Error::Verdict("broken".into()))).unwrap();
        check(&mut outcomes, "good again", || Ok(())).unwrap();
        assert_eq!(outcomes.len(), 3);
        assert!(summary(&outcomes).unwrap_err().to_string().contains("1 of 3"));
        assert!(summary(&outcomes[..1]).is_ok());
    }

    #[test]
    fn an_interrupt_ends_the_whole() {
        let interrupted = check(&mut vec![], "any", || Err(Error::Interrupted("x".into())));
        assert!(matches!(interrupted, Err(Error::Interrupted(_))));
    }
}
