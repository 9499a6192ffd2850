//! A terminal without a system: shows a prompt, takes what is typed, and says each line back, as an operating system's console does.
//!
//! Arguments: `lines=3`, after which it ends; `by=port|page`, the serial port or the console page; `pause=0us` between two bytes that it
//! reads, so that its input fills.
#![no_std]
#![no_main]

use guest_rt::ConsolePage;
use guest_rt::hostile::{Width, port_in, port_out};
use guest_rt::{Guest, Verdict, report_value, tsc};

guest_rt::entry!(main);

const UART: u16 = 0x3F8;
const LINE_STATUS: u16 = UART + 5;
const DATA_IS_THERE: u32 = 1;
const TRANSMITTER_READY: u32 = 0x20;

/// Longest line.
const LINE: usize = 2048;

/// A console that bytes come from and go to.
trait Terminal {
    /// The next byte that was typed.
    fn read(&self) -> Option<u8>;
    /// Says bytes, and waits while there is no room.
    fn say(&self, bytes: &[u8]);
}

struct Port;

impl Terminal for Port {
    fn read(&self) -> Option<u8> {
        let is_there = port_in(LINE_STATUS, Width::Byte).unwrap_or(0) & DATA_IS_THERE != 0;
        is_there.then(|| port_in(UART, Width::Byte).unwrap_or(0) as u8)
    }

    fn say(&self, bytes: &[u8]) {
        for byte in bytes {
            while port_in(LINE_STATUS, Width::Byte).unwrap_or(0) & TRANSMITTER_READY == 0 {
                core::hint::spin_loop();
            }
            let _refused = port_out(UART, Width::Byte, u32::from(*byte));
        }
    }
}

impl Terminal for ConsolePage {
    fn read(&self) -> Option<u8> {
        Self::read(self)
    }

    fn say(&self, bytes: &[u8]) {
        Self::say(self, bytes);
    }
}

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["lines", "by", "pause"]);
    let lines = guest.number("lines", 3);
    let pause = guest.ticks("pause", "0us");
    let bytes = match guest.choice("by", &["port", "page"]) {
        "page" => talk(&ConsolePage::open(), lines, pause),
        _ => talk(&Port, lines, pause),
    };
    report_value!("typed", bytes, "bytes");
    Verdict::pass("took every line")
}

/// Takes so many lines; returns how many bytes they had.
fn talk(terminal: &impl Terminal, lines: u64, pause: u64) -> u64 {
    let mut line = [0_u8; LINE];
    let mut bytes = 0;
    for number in 1..=lines {
        terminal.say(b"> ");
        let length = take_line(terminal, &mut line, pause);
        bytes += length as u64;
        terminal.say(b"got ");
        terminal.say(line.get(..length).unwrap_or_default());
        terminal.say(if number == lines { b"\r\nbye\r\n" } else { b"\r\n" });
    }
    bytes
}

/// Takes a line without its end; echoes nothing, so that a prompt stays a prompt.
fn take_line(terminal: &impl Terminal, line: &mut [u8], pause: u64) -> usize {
    let mut length = 0;
    loop {
        let Some(byte) = terminal.read() else {
            core::hint::spin_loop();
            continue;
        };
        if byte == b'\n' {
            return length;
        }
        if let Some(slot) = line.get_mut(length) {
            *slot = byte;
            length += 1;
        }
        let until = tsc() + pause;
        while tsc() < until {
            core::hint::spin_loop();
        }
    }
}
