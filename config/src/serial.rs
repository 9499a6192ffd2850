//! Checks the serial port of a board: where its registers are, and whether it can run at its baud rate.

use bulkhead_table::{LOG_MEMORY, Uart};

use crate::board::are_taken;
use crate::diagnostics::{Finding, Findings};
use crate::rules::Rule;
use crate::schema::{BoardFile, Serial};
use crate::source::At;
use crate::units::frequency_text;

/// What the boot code reaches.
const REACHABLE: u64 = 1 << 32;

/// Distances of registers, and bits of an access, that there are.
const STRIDES: [u64; 4] = [1, 2, 4, 8];
const WIDTHS: [u64; 2] = [8, 32];

/// The serial port; `Some(None)` where the board has none, `None` where it is not sound, which is then reported.
pub(crate) fn check(board: &BoardFile, findings: &mut Findings) -> Option<Option<Uart>> {
    let Some(serial) = &board.serial else {
        tell_losses(board, findings);
        return Some(None);
    };
    if !serial.sound {
        return None;
    }
    let uart = match (&serial.port, &serial.address) {
        (Some(port), None) => at_ports(serial, port, findings),
        (None, Some(address)) => in_memory(serial, address, findings),
        (Some(port), Some(address)) => {
            let finding = Finding::new(
                Rule::SerialPlace,
                "the serial port is at an I/O port, and in memory too",
                "keep `port` or `address`, whichever `bulkhead probe` shows on the machine",
            );
            findings
                .push(finding.at(address.place, "in memory").with(port.place, "at an I/O port"));
            None
        }
        (None, None) => {
            let finding = Finding::new(
                Rule::SerialPlace,
                "the serial port is nowhere",
                "write `port`, or `address` where its registers lie in memory; a board without a serial port has no `[serial]`",
            );
            findings.push(finding.at(serial.place, "neither `port` nor `address`"));
            None
        }
    }?;
    divided(serial, uart, findings).map(Some)
}

/// Says what a board without a serial port lacks.
fn tell_losses(board: &BoardFile, findings: &mut Findings) {
    let Some(name) = &board.name else { return };
    let own = board.hypervisor.as_ref().and_then(|own| own.start.as_ref().zip(own.size.as_ref()));
    let end = own.map_or(0, |(start, size)| start.value.saturating_add(size.value));
    let memory = match end.checked_sub(LOG_MEMORY) {
        Some(start) => format!("memory {start:#x} to {end:#x}"),
        None => "memory".to_owned(),
    };
    let finding = Finding::new(
        Rule::NoSerialPort,
        format!("the board has no serial port: the log stays on the screen and in {memory}"),
        "without one there is no live log, no console of a partition, no typed input, and nothing for `measure` and `monitor`; \
         read the memory after a warm reset and give the file to `bulkhead log`, or add `[serial]` where the board has a port",
    );
    findings.push(finding.at(name.place, "no `[serial]` in its file"));
}

fn uart(serial: &Serial, base: u64) -> Option<Uart> {
    let clock = serial.clock.as_ref().map_or(Some(Uart::CLOCK), |at| at.value.try_into().ok())?;
    let baud = u32::try_from(serial.baud.as_ref()?.value).ok()?;
    Some(Uart { base, in_memory: false, stride: 1, width: 1, clock, baud })
}

fn at_ports(serial: &Serial, port: &At<u64>, findings: &mut Findings) -> Option<Uart> {
    for (key, at) in [("stride", &serial.stride), ("width", &serial.width)] {
        if let Some(at) = at {
            let finding = Finding::new(
                Rule::SerialPlace,
                format!("`{key}` says nothing of a serial port at I/O ports"),
                "take it out: these registers are bytes, one behind the other",
            );
            findings
                .push(finding.at(at.place, "only with `address`").with(port.place, "at I/O ports"));
            return None;
        }
    }
    let last = port.value + Uart::REGISTERS - 1;
    if last > u64::from(u16::MAX) || are_taken(port.value, last) {
        let finding = Finding::new(
            Rule::SerialPorts,
            format!("the serial port takes the I/O ports {:#x} to {last:#x}", port.value),
            "write its first port, such as 0x3f8 (COM1): its eight ports are below 0x10000, and none is the chipset's own",
        );
        findings.push(finding.at(port.place, "no place for a serial port"));
        return None;
    }
    uart(serial, port.value)
}

fn in_memory(serial: &Serial, address: &At<u64>, findings: &mut Findings) -> Option<Uart> {
    let stride = one_of(serial.stride.as_ref(), "stride", 1, &STRIDES, findings)?;
    let width = one_of(serial.width.as_ref(), "width", 8, &WIDTHS, findings)? / 8;
    let place = serial.width.as_ref().or(serial.stride.as_ref()).unwrap_or(address).place;
    let mut refuse = |message: String, remedy: &str, place, label: &str| {
        findings.push(Finding::new(Rule::SerialRegisters, message, remedy).at(place, label));
    };
    if width > stride {
        refuse(
            format!("accesses of {} bits reach into the next register", width * 8),
            "write a `stride` of 4 or 8, or a `width` of 8",
            place,
            "wider than a register",
        );
        return None;
    }
    let end = address.value.saturating_add(Uart::REGISTERS * stride);
    if address.value == 0 || !address.value.is_multiple_of(stride) || end > REACHABLE {
        refuse(
            format!("the registers of the serial port lie at {:#x}", address.value),
            "write the address that `bulkhead probe` shows: not 0, a multiple of `stride`, and below 4 GiB; firmware's set-up may move it there",
            address.place,
            "no place for its registers",
        );
        return None;
    }
    let uart = uart(serial, address.value)?;
    // Both are at most 8.
    Some(Uart { in_memory: true, stride: stride as u8, width: width as u8, ..uart })
}

/// The value of a key, which is one of a few.
fn one_of(
    written: Option<&At<u64>>,
    key: &str,
    without: u64,
    values: &[u64],
    findings: &mut Findings,
) -> Option<u64> {
    let Some(at) = written else {
        return Some(without);
    };
    if values.contains(&at.value) {
        return Some(at.value);
    }
    let words: Vec<String> = values.iter().map(u64::to_string).collect();
    let finding = Finding::new(
        Rule::SerialRegisters,
        format!("`{key}` is {}", at.value),
        format!("write one of {}", words.join(", ")),
    );
    findings.push(finding.at(at.place, "no serial port has that"));
    None
}

/// A port that can run at its baud rate.
fn divided(serial: &Serial, uart: Uart, findings: &mut Findings) -> Option<Uart> {
    if uart.divisor().is_some() {
        return Some(uart);
    }
    let baud = serial.baud.as_ref()?;
    let clock = frequency_text(uart.clock.into());
    let remedy = if serial.clock.is_some() {
        format!(
            "write a rate that is a sixteenth of {clock} divided by a whole number, or correct `clock`"
        )
    } else {
        "write 115200, or 115200 divided by a whole number (57600, 38400, 19200, 9600)".to_owned()
    };
    let message = format!("a 16550 with a clock of {clock} cannot run at {} baud", baud.value);
    let finding = Finding::new(Rule::BadBaud, message, remedy)
        .at(baud.place, "more than 2 % from any rate that it has");
    findings.push(match &serial.clock {
        Some(clock) => finding.with(clock.place, "its clock"),
        None => finding,
    });
    None
}
