//! Calls the compiler (`config`) and turns what it says into what people, images and errors need.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use bulkhead_config::{Compiled, Diagnostics, ImageRequest, Input, Plan, PlannedRole};
use serde_json::json;

use crate::elf::hex;
use crate::error::{Error, Result};
use crate::manifest::{Extent, FORMAT, Manifest, Place};
use crate::measure::Format;

/// The guest images that a system file asks for.
///
/// # Errors
/// The system file is rejected.
pub fn requests<'p>(input: impl Into<Input<'p>>) -> Result<Vec<ImageRequest>> {
    bulkhead_config::requests(input).map_err(|found| rejected(&found))
}

/// The proven system, with its guests' images in `images`. Warnings go to standard error.
///
/// # Errors
/// The system file is rejected.
pub fn compile<'p>(input: impl Into<Input<'p>>, images: &Path) -> Result<Compiled> {
    let compiled = bulkhead_config::compile(input, images).map_err(|found| rejected(&found))?;
    warn(compiled.warnings());
    Ok(compiled)
}

/// The proven plan of a system whose guests need not be built.
///
/// # Errors
/// The system file is rejected.
pub fn plan<'p>(input: impl Into<Input<'p>>) -> Result<Plan> {
    proven(input.into()).map_err(|found| rejected(&found))
}

/// Like [`plan`]; for a program, what is wrong goes to standard output as `check` prints it.
///
/// # Errors
/// The system file is rejected.
pub fn plan_for<'p>(input: impl Into<Input<'p>>, format: Format) -> Result<Plan> {
    let input = input.into();
    if format == Format::Human {
        return plan(input);
    }
    proven(input).map_err(|found| {
        println!("{}", verdict_json(false, &found));
        counted(&found)
    })
}

fn proven(input: Input<'_>) -> std::result::Result<Plan, Diagnostics> {
    let (system, board) = (located(input.system), input.board.map(located));
    bulkhead_config::check_without_images(Input { system: &system, board: board.as_deref() })
}

/// The file itself, whatever link leads there: the paths in it count from its folder. One that is missing keeps its path,
/// and the compiler says so.
fn located(file: &Path) -> PathBuf {
    let absolute = || std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    std::fs::canonicalize(file).unwrap_or_else(|_| absolute())
}

/// For those who have read the list already.
fn counted(found: &Diagnostics) -> Error {
    let mistakes = found.list().iter().filter(|each| each.severity == "error").count();
    let noun = if mistakes == 1 { "mistake" } else { "mistakes" };
    Error::Rejected(format!("the system is rejected: {mistakes} {noun}"))
}

fn rejected(found: &Diagnostics) -> Error {
    Error::Rejected(format!("the system is rejected\n{}{}", rendered(found), more(found)))
}

/// Where more is said about the first of them.
fn more(found: &Diagnostics) -> String {
    let first = found.list().into_iter().next().map(|each| each.code);
    first.map(|code| format!("\n`bulkhead explain {code}` says more")).unwrap_or_default()
}

pub(crate) fn rendered(found: &Diagnostics) -> String {
    found.render(std::io::stderr().is_terminal())
}

/// Shows warnings on standard error.
pub fn warn(warnings: &Diagnostics) {
    if !warnings.is_empty() {
        eprintln!("{}", rendered(warnings));
    }
}

/// `bulkhead check`: proves the system file and prints its plan. Guests are not built for that: what only their
/// bytes can show (too large for their memory, no ELF) is said by `build`.
///
/// # Errors
/// The system file is rejected.
pub fn check<'p>(input: impl Into<Input<'p>>, json: bool) -> Result<()> {
    let outcome = proven(input.into());
    if json {
        let (accepted, found) = match &outcome {
            Ok(plan) => (true, plan.warnings()),
            Err(found) => (false, found),
        };
        println!("{}", verdict_json(accepted, found));
    }
    match outcome {
        Ok(plan) => {
            if !json {
                warn(plan.warnings());
                println!("{}", plan.report());
            }
            Ok(())
        }
        Err(found) if json => Err(counted(&found)),
        Err(found) => Err(rejected(&found)),
    }
}

fn verdict_json(accepted: bool, found: &Diagnostics) -> String {
    json!({ "accepted": accepted, "diagnostics": found.list() }).to_string()
}

/// What the image's manifest takes from the compiled system.
#[must_use]
pub fn facts(compiled: &Compiled) -> Manifest {
    let plan = compiled.plan();
    Manifest {
        format: FORMAT,
        system: plan.system_name().to_string(),
        board: plan.board_name().to_string(),
        cores: plan.board_cores(),
        memory_end: plan.memory_top(),
        tsc_hz: plan.tsc_hz(),
        digest: hex(&compiled.digest()),
        partitions: places(plan),
        when_finished: when_finished(plan),
        ..Manifest::default()
    }
}

fn places(plan: &Plan) -> Vec<Place> {
    let shared = |cpu| {
        plan.cores()
            .iter()
            .any(|core| core.cpu == cpu && matches!(core.role, PlannedRole::Shared(_)))
    };
    let extent = |found: bulkhead_config::Found| Extent {
        start: found.start,
        end: found.end,
        owned: found.verdict == bulkhead_config::Verdict::Partition,
        note: found.note,
        line: found.line,
    };
    let place = |(id, partition): (u16, &bulkhead_config::PlannedPartition)| Place {
        memory: plan.found_by(id).into_iter().map(extent).collect(),
        name: partition.name.clone(),
        place: partition.place.clone(),
        cpus: partition.cpus.clone(),
        shared: partition.cpus.iter().any(|cpu| shared(*cpu)),
    };
    (0..).zip(plan.partitions()).map(place).collect()
}

/// Names of the partitions whose end ends the system.
fn when_finished(plan: &Plan) -> Vec<String> {
    let name = |id: &u16| plan.partitions().get(usize::from(*id)).map(|p| p.name.clone());
    plan.when_finished().iter().filter_map(name).collect()
}

/// The arguments of a partition's guest, as one line; empty for a partition that the system lacks.
#[must_use]
pub fn arguments<'c>(compiled: &'c Compiled, partition: &str) -> &'c str {
    let found = compiled.plan().partitions().iter().find(|planned| planned.name == partition);
    found.map_or("", |planned| planned.arguments.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_file_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wrong.toml");
        std::fs::write(&path, "[system]\nname = 7\n").unwrap();
        for json in [false, true] {
            assert!(matches!(check(&path, json), Err(Error::Rejected(_))));
        }
        let Err(error) = requests(&path) else { panic!("accepted") };
        assert!(error.to_string().contains("wrong.toml"), "{error}");
    }

    #[test]
    fn a_missing_file_is_rejected_as_a_wrong_one_is() {
        for json in [false, true] {
            let error = check(Path::new("no/such/system.toml"), json).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }

    #[test]
    fn programs_read_one_list_of_diagnostics() {
        let found = requests_of_nothing();
        let json: serde_json::Value = serde_json::from_str(&verdict_json(false, &found)).unwrap();
        assert_eq!(json["accepted"], false);
        assert_eq!(json["diagnostics"][0]["code"], "BH0112");
        assert_eq!(counted(&found).to_string(), "the system is rejected: 1 mistake");
    }

    fn requests_of_nothing() -> Diagnostics {
        bulkhead_config::requests(Path::new("no/such/system.toml")).unwrap_err()
    }
}
