//! The right to use apt-get, and its runs.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use super::{Probe, is_there, search_path};
use crate::error::{Error, Result};
use crate::process;
use crate::progress::Step;

/// The right to use apt-get as root.
pub struct Apt {
    /// What stands before it: nothing, or sudo.
    prefix: Vec<&'static str>,
    /// What a person would type.
    by_hand: String,
}

impl Apt {
    /// Finds apt-get and the right to use it. A password is asked for now, while no spinner runs over the prompt. `what` names the
    /// deed in an error, `by_hand` what a person would type.
    ///
    /// # Errors
    /// The machine has no apt-get, or this user may not install.
    pub fn find(what: &str, by_hand: String) -> Result<Self> {
        let path = search_path();
        if !is_there(&Probe::Program("apt-get"), &path) {
            let cause = "this machine has no apt-get: it is not a Debian";
            let remedy = format!("do by this machine's own means what there is:  {by_hand}");
            return Err(Error::failed(what, cause, remedy));
        }
        let remedy = format!("run:  {by_hand}");
        let prefix = privilege(&path).ok_or_else(|| {
            let cause = "neither root, nor a sudo that can ask for its password";
            Error::failed(what, cause, &remedy)
        })?;
        if prefix == ASKING {
            eprintln!("bulkhead: sudo asks for your password, to run apt-get.");
            process::run_shown(Command::new("sudo").arg("-v"), what, &remedy)?;
        }
        Ok(Self { prefix, by_hand })
    }

    /// Runs apt-get as a step that is called `what`.
    ///
    /// # Errors
    /// It fails.
    pub fn run<S: AsRef<OsStr>>(&self, what: String, arguments: &[S]) -> Result<()> {
        let failed = format!("{what} failed");
        let step = Step::begin(what, false);
        let remedy = format!("look at what apt-get says, then run:  {}", self.by_hand);
        process::run(&mut apt(&self.prefix, arguments), &failed, &remedy)?;
        step.done();
        Ok(())
    }
}

/// A sudo that asks for a password.
const ASKING: [&str; 1] = ["sudo"];

/// What to put before apt-get; `None` when this user may not install. A sudo that wants a password asks on the terminal.
fn privilege(path: &[PathBuf]) -> Option<Vec<&'static str>> {
    if rustix::process::geteuid().is_root() {
        return Some(vec![]);
    }
    if !is_there(&Probe::Program("sudo"), path) {
        return None;
    }
    let silent = Command::new("sudo").args(["-n", "true"]).output();
    if silent.is_ok_and(|output| output.status.success()) {
        return Some(vec!["sudo", "-n"]);
    }
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty");
    terminal.is_ok().then(|| ASKING.to_vec())
}

fn apt<S: AsRef<OsStr>>(prefix: &[&str], arguments: &[S]) -> Command {
    // `env` behind sudo: sudo drops the variables of its caller.
    let words: Vec<&str> = prefix
        .iter()
        .copied()
        .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_keeps_the_variable() {
        let command = format!("{:?}", apt(&["sudo", "-n"], &["update"]));
        assert_eq!(
            command,
            r#""sudo" "-n" "env" "DEBIAN_FRONTEND=noninteractive" "apt-get" "update""#
        );
    }
}
