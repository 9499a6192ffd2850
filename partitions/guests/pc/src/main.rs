//! Probes the platform of a PC as Linux 6.1 does, and ends or restarts as an operating system does.
//!
//! Arguments: `end=verdict|off|reset|fault`, what it does once all was as expected: finish as every guest, switch itself off,
//! write the reset register, or cause a triple fault. The last two start it again, for ever.
#![no_std]
#![no_main]

mod clock;
mod processor;
mod uart;

use guest_rt::hostile::{Fault, Width, port_in, port_out};
use guest_rt::{Guest, Verdict, finish, println, report_value};

guest_rt::entry!(main);

/// ACPI's registers, as the FADT of a PC partition names them, and what is written to them.
const SLEEP_CONTROL: u16 = 0x600;
const SLEEP_TYPE_5: u32 = 0x34;
const RESET: u16 = 0x604;
const RESET_VALUE: u32 = 1;

/// A check and what holds where it passes.
type Check = (&'static str, fn() -> bool);

const CLOCK_RUNS: &str = "the clock is there, and runs by seconds";

const CHECKS: [Check; 10] = [
    ("the serial port is a plain 16550A", uart::is_plain_16550),
    ("the loop of the serial port works", uart::loops),
    ("the serial port sends", uart::sends),
    (CLOCK_RUNS, clock::runs),
    ("the clock speaks both formats", clock::has_both_formats),
    ("KVM is there, with its two features and its hint", processor::sees_kvm),
    ("the frequency of the TSC is told", processor::knows_its_frequency),
    ("x2APIC mode is on", processor::is_in_x2apic_mode),
    ("LINT0 opens to a legacy controller and stays masked", processor::opens_lint0),
    ("devices that are not there read all ones", absent_devices_read_all_ones),
];

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["end"]);
    let end = guest.choice("end", &["verdict", "off", "reset", "fault"]);
    let mut failed = 0;
    // A second of waiting would make a guest that starts again over and over a rare one.
    let again = matches!(end, "reset" | "fault");
    for (promise, check) in CHECKS {
        let skipped = again && promise == CLOCK_RUNS;
        if !skipped && !check() {
            println!("not so: {promise}");
            failed += 1;
        }
    }
    report_value!("checks-failed", failed, "checks");
    if failed > 0 {
        return Verdict::fail("the platform is not as promised");
    }
    match end {
        "off" => leave(SLEEP_CONTROL, SLEEP_TYPE_5),
        "reset" => leave(RESET, RESET_VALUE),
        "fault" => guest_rt::hostile::triple_fault(),
        _ => Verdict::pass("the platform is a PC"),
    }
}

/// Writes a register behind which nothing comes.
fn leave(register: u16, value: u32) -> ! {
    let _ = port_out(register, Width::Byte, value);
    finish(Verdict::fail("the register that ends or restarts the partition did not"))
}

/// Reads a byte; every port can be read.
fn read(port: u16) -> u8 {
    port_in(port, Width::Byte).map_or(0, |byte| byte as u8)
}

fn write(port: u16, byte: u8) {
    let _refused: Result<(), Fault> = port_out(port, Width::Byte, u32::from(byte));
}

/// Keyboard controller, PCI configuration, interrupt controller, interval timer, a second serial port.
fn absent_devices_read_all_ones() -> bool {
    [0x64, 0xCFC, 0x21, 0x40, 0x2FD].into_iter().all(|port| read(port) == 0xFF)
        && port_in(0xCF8, Width::Double) == Ok(u32::MAX)
}
