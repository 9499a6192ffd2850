//! Runs other programs to their end and turns their failure into a sentence.

use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};
use crate::interrupt;

/// Lines of a failed program's output that its error quotes.
const QUOTED_LINES: usize = 60;

/// Runs `command` silently and returns its standard output. `what` names the deed in the error, `remedy`
/// says what to do about a failure.
///
/// # Errors
/// The program is missing, fails, or the user interrupts.
pub fn run(command: &mut Command, what: &str, remedy: &str) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().map_err(|cause| {
        Error::failed(what, format!("cannot start {command:?}: {cause}"), remedy)
    })?;
    interrupt::check(what)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let cause = format!("{} ended with {}\n{}", program(command), output.status, tail(&output));
    Err(Error::failed(what, cause, remedy))
}

/// Runs `command` with its output on ours.
///
/// # Errors
/// The program is missing, fails, or the user interrupts.
pub fn run_shown(command: &mut Command, what: &str, remedy: &str) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().map_err(|cause| {
        Error::failed(what, format!("cannot start {command:?}: {cause}"), remedy)
    })?;
    interrupt::check(what)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::failed(what, format!("{} ended with {status}", program(command)), remedy))
}

/// The toolchain's own cargo: the one that runs us, so that nested builds use the same one.
#[must_use]
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn tail(output: &Output) -> String {
    // Cargo prints machine-readable lines on standard output; people read the other one.
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_quotes_the_program() {
        let error = run(
            Command::new("sh").args(["-c", "echo out; echo broken pipe >&2; exit 3"]),
            "cannot draw water",
            "mend the pipe",
        )
        .unwrap_err()
        .to_string();
        for part in ["cannot draw water", "broken pipe", "exit status: 3", "mend the pipe"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("no-such-program-here"), "w", "r").unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"));
    }
}
