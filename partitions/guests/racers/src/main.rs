//! Two vCPUs of one partition race on all that it shares with the hypervisor: console calls, serial port, clock, and the end.
//!
//! What they say has the shape of records and packets of the hypervisor: figures and ends of other partitions. None of that may come out as
//! anything but bytes of this partition's console. Arguments: `other=ID`, the APIC id of the second vCPU; `rounds=40`.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::hostile::{self, Fault, Width, port_in, port_out};
use guest_rt::{Guest, Verdict, finish, println, report_value, start_cpu};

guest_rt::entry!(main);

const UART: u16 = 0x3F8;
const LINE_STATUS: u16 = UART + 5;
const TRANSMITTER_READY: u32 = 0x20;
const CLOCK_INDEX: u16 = 0x70;
const CLOCK_DATA: u16 = 0x71;

/// A figure as the hypervisor keeps it: partition 0 failed. Around it what stands in front of a record in a ring, with and without a source.
const FORGED: [u8; 48] = {
    const FATE: [u8; 16] = [7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
    const HEAD: [u8; 8] = [16, 5, 0, 5, 16, 5, 0, 0];
    let mut bytes = [16; 48];
    let mut at = 0;
    while at < 16 {
        bytes[11 + at] = FATE[at];
        bytes[11 + 27 - 16 + at] = FATE[at];
        at += 1;
    }
    let mut at = 0;
    while at < HEAD.len() {
        bytes[at] = HEAD[at];
        at += 1;
    }
    bytes[47] = b'\n';
    bytes
};

/// Rounds that both have to do; the first vCPU says how many.
static ROUNDS: AtomicU64 = AtomicU64::new(0);
/// vCPUs that are through with them.
static THROUGH: AtomicU64 = AtomicU64::new(0);

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["other", "rounds"]);
    ROUNDS.store(guest.number("rounds", 40), Ordering::Release);
    let other = guest.number("other", 0) as u32;
    if !start_cpu(other, guest.tsc_khz(), |_| race(1)) {
        return Verdict::fail("the second vCPU did not start");
    }
    race(0);
    finish(Verdict::pass("raced"))
}

/// All of one vCPU's part. The two meet before the end, so that both finish the partition at once.
fn race(vcpu: u64) {
    for round in 0..ROUNDS.load(Ordering::Acquire) {
        println!(
            "racer {vcpu} round {round}: a line that takes more than one call to say, told by {vcpu}"
        );
        hostile::say(&FORGED[(round % 13) as usize..]);
        let line = if vcpu == 0 { b"zero sends\n" } else { b"one, sends\n" };
        line.iter().for_each(|byte| send(*byte));
        let _any = port_in(UART, Width::Byte);
        let _refused = port_out(CLOCK_INDEX, Width::Byte, (round % 14) as u32);
        let _time = port_in(CLOCK_DATA, Width::Byte);
    }
    if vcpu == 0 {
        report_value!("rounds", ROUNDS.load(Ordering::Acquire), "rounds");
    }
    THROUGH.fetch_add(1, Ordering::AcqRel);
    while THROUGH.load(Ordering::Acquire) < 2 {
        core::hint::spin_loop();
    }
    if vcpu == 1 {
        hostile::end(true);
    }
}

/// Sends a byte when the port says that it has room.
fn send(byte: u8) {
    while port_in(LINE_STATUS, Width::Byte).unwrap_or(0) & TRANSMITTER_READY == 0 {
        core::hint::spin_loop();
    }
    let _refused: Result<(), Fault> = port_out(UART, Width::Byte, u32::from(byte));
}
