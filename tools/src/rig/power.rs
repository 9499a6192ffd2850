//! Runs a rig's commands: within their time, and with their words in the error when they fail.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::{Error, Result};
use crate::interrupt;

/// How often a command is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes of a failed command's output that its error quotes.
const QUOTED: u64 = 2000;

/// A command of a rig.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// Program and arguments.
    pub words: &'a [String],
    /// Where it runs.
    pub folder: &'a Path,
    /// What it may take.
    pub timeout: Duration,
    /// What it is for, as errors say it: `cannot switch off the board`.
    pub deed: &'a str,
    /// Its key in the rig file.
    pub key: &'a str,
    /// Whether the user's interrupt ends it. A power switch is left to finish: the board is to be off in the end.
    pub may_be_interrupted: bool,
}

/// Runs a command to its end, within its time.
///
/// # Errors
/// It cannot be started, fails, or takes too long; then it and what it started are ended.
pub fn run(job: &Job<'_>) -> Result<()> {
    let failed = |cause: String| {
        let remedy = format!("try the command of `{}` by hand: {}", job.key, job.words.join(" "));
        Error::failed(job.deed, cause, remedy)
    };
    let [program, arguments @ ..] = job.words else {
        return Err(failed("the command is empty".to_string()));
    };
    let mut output = tempfile::tempfile().map_err(|cause| failed(cause.to_string()))?;
    let pipe = || output.try_clone().map_err(|cause| failed(cause.to_string()));
    let (out, errors) = (pipe()?, pipe()?);
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(job.folder)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|cause| failed(format!("cannot start {program}: {cause}")))?;
    match wait(&mut child, job) {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => {
            Err(failed(format!("{program} ended with {status}\n{}", tail(&mut output))))
        }
        Ok(None) => {
            end(&mut child);
            if job.may_be_interrupted {
                interrupt::check(job.deed)?;
            }
            Err(failed(format!("{program} did not end within {:.1} s", job.timeout.as_secs_f64())))
        }
        Err(cause) => {
            end(&mut child);
            Err(failed(cause.to_string()))
        }
    }
}

/// Waits for the end; `None` when the time is over or the user interrupts.
fn wait(child: &mut Child, job: &Job<'_>) -> std::io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    while began.elapsed() < job.timeout && !(job.may_be_interrupted && interrupt::requested()) {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK);
    }
    Ok(None)
}

/// Ends the command and everything that it started in its group.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Fails only when all of it has already ended.
        let _already_ended = kill_process_group(group, Signal::KILL);
    }
    let _reaped = child.wait();
}

fn tail(output: &mut std::fs::File) -> String {
    let length = output.metadata().map_or(0, |data| data.len());
    let mut text = Vec::new();
    let read = output
        .seek(SeekFrom::Start(length.saturating_sub(QUOTED)))
        .and_then(|_| output.read_to_end(&mut text));
    match read {
        Ok(_) => String::from_utf8_lossy(&text).trim().to_string(),
        Err(cause) => format!("(its output cannot be read: {cause})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> Result<()> {
        let words = ["sh", "-c", script].map(str::to_string);
        run(&job(&words, timeout))
    }

    fn job(words: &[String], timeout: Duration) -> Job<'_> {
        let deed = "cannot switch the board on";
        Job {
            words,
            folder: Path::new("/"),
            timeout,
            deed,
            key: "power.on",
            may_be_interrupted: false,
        }
    }

    #[test]
    fn a_failure_quotes_the_command() {
        let error =
            sh("echo relay not found >&2; exit 4", Duration::from_secs(5)).unwrap_err().to_string();
        for word in ["cannot switch the board on", "relay not found", "exit status: 4", "power.on"]
        {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn one_that_hangs_is_ended_in_time() {
        let began = Instant::now();
        let error = sh("sleep 60 & sleep 60", Duration::from_millis(300)).unwrap_err().to_string();
        assert!(error.contains("did not end within 0.3 s"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_missing_program_is_named() {
        let words = ["no-such-relay".to_string()];
        let error = run(&job(&words, LOOK)).unwrap_err().to_string();
        assert!(error.contains("no-such-relay") && error.contains("power.on"), "{error}");
    }
}
