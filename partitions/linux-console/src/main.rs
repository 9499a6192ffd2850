//! Runs a program of a Linux guest on a terminal whose other end is a page that guest and hypervisor share: what is said there and what
//! is typed there costs no exit, where a serial port costs one for each byte.
//!
//! `linux-console PROGRAM [WORDS]`; its exit code is the program's. Without the hypervisor there is no such page, and the program gets
//! this one's own terminal.
#![expect(unsafe_code, reason = "maps the shared page, and gives a child process its terminal")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test stops where it cannot go on"))]

mod page;
mod terminal;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use page::Page;
use terminal::Terminal;

/// How long it sleeps when nobody has anything to say: what a key waits for at most.
const NAP: Duration = Duration::from_millis(10);

/// Bytes that are carried at a time.
const PIECE: usize = 512;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("linux-console: write the program to run: linux-console sh");
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(words);
    let outcome = match Page::find() {
        Ok(Some(page)) => on_page(command, &page),
        Ok(None) => Err(command.exec()),
        Err(cause) => {
            eprintln!(
                "linux-console: no shared page ({cause}): the program stays on this terminal"
            );
            Err(command.exec())
        }
    };
    outcome.unwrap_or_else(|cause| {
        eprintln!("linux-console: cannot run the program: {cause}");
        ExitCode::FAILURE
    })
}

/// Runs it to its end, with its terminal in the page.
fn on_page(mut command: Command, page: &Page) -> std::io::Result<ExitCode> {
    let terminal = Terminal::open()?;
    let mut child = terminal.spawn(&mut command)?;
    page.open();
    let mut ended = None;
    loop {
        let moved = carry(&terminal, page)?;
        if moved {
            continue;
        }
        // Asked before the last look at the terminal: what the program said at its end is carried.
        match ended {
            Some(status) => return Ok(code_of(status)),
            None => ended = child.try_wait()?,
        }
        if ended.is_none() {
            terminal.wait(NAP);
        }
    }
}

/// Carries what there is, both ways; whether there was something.
fn carry(terminal: &Terminal, page: &Page) -> std::io::Result<bool> {
    let mut bytes = [0; PIECE];
    let said = terminal.read(&mut bytes)?;
    page.say(said, || std::thread::sleep(NAP));
    let moved = !said.is_empty();
    let taken = terminal.write(page.typed(&mut bytes))?;
    page.take(taken);
    Ok(moved || taken > 0)
}

fn code_of(status: std::process::ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
