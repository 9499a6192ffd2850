//! Checks all that it is handed when it is started by Multiboot 1, Multiboot2 or PVH on a PC, and goes down to real mode and back.
//!
//! Arguments: `by=multiboot2|multiboot1|pvh`, how it expects to be started; `memory=N`, its memory in MiB; `module`, whether it expects
//! its own as a module; `walk=N`, that it writes to its memory every N bytes, reads all of that again, and then reads at 3 GiB, where
//! nothing is.
#![no_std]
#![no_main]

mod tables;
mod told;
mod walk;

use guest_rt::hostile::{read_memory, write_memory};
use guest_rt::real_mode::{Seen, round_trip};
use guest_rt::{Guest, Protocol, Verdict, println, report_value};
use told::{Range, Told};

guest_rt::entry!(main);

const MIB: u64 = 1 << 20;
const LOW_END: u64 = 0x9_FC00;
/// What the module holds.
const MODULE: &[u8] = b"a module";

/// Where it was started, and what it was told.
struct Start {
    memory: u64,
    line: &'static str,
    module: bool,
    told: Told,
}

/// A check and what holds where it passes.
type Check = (&'static str, fn(&Start) -> bool);

const CHECKS: [Check; 7] = [
    ("the memory below 640 KiB and above 1 MiB is told in KiB", |start| {
        let upper = start.memory.min(3 << 30) - MIB;
        start.told.lower_and_upper.is_none_or(|told| told == [LOW_END >> 10, upper >> 10])
    }),
    ("the memory map has all of the memory, and ascends", maps_the_memory),
    ("the ends of the memory hold what is written there", keeps_what_is_written),
    ("the command line is the partition's", |start| {
        let byte = |at: usize| byte(start.told.line + at as u64);
        start.line.bytes().enumerate().all(|(at, own)| byte(at) == own)
            && byte(start.line.len()) == 0
    }),
    ("the tables of ACPI are whole, and outside the memory", |start| {
        tables::are_whole(start.told.acpi) && tables::found_by_searching() == Some(start.told.acpi)
    }),
    ("there is the module that should be", has_its_module),
    ("the way to real mode and back", |_| goes_to_real_mode(round_trip())),
];

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["by", "memory", "module", "walk"]);
    let by = guest.choice("by", &["multiboot2", "multiboot1", "pvh"]);
    let handover = guest.handover();
    println!("started by {:?}, information at {:#x}", handover.protocol, handover.address);
    let expected = match by {
        "multiboot1" => Protocol::Multiboot1,
        "pvh" => Protocol::Pvh,
        _ => Protocol::Multiboot2,
    };
    if handover.protocol != expected {
        return Verdict::fail("started by another protocol");
    }
    let told = match handover.protocol {
        Protocol::Multiboot2 => told::by_multiboot2(handover.address),
        Protocol::Multiboot1 => told::by_multiboot1(handover.address),
        Protocol::Pvh => told::by_pvh(handover.address),
    };
    guest_rt::hostile::map_up_to(told.ram().map(Range::end).max().unwrap_or(0));
    let start = Start {
        memory: guest.number("memory", 8) * MIB,
        line: guest.command_line(),
        module: guest.argument("module").is_some(),
        told,
    };
    let mut failed = 0;
    for (promise, check) in CHECKS {
        if !check(&start) {
            println!("not so: {promise}");
            failed += 1;
        }
    }
    report_value!("checks-failed", failed, "checks");
    if failed > 0 {
        return Verdict::fail("not started as was promised");
    }
    if guest.argument("walk").is_some() {
        let (behind_image, _) = guest.spare_memory();
        return walk::all(&start.told, behind_image, guest.number("walk", 0));
    }
    Verdict::pass("started as was promised")
}

/// Reads a byte; where there is nothing, zero.
fn byte(address: u64) -> u8 {
    read_memory(address).map_or(0, |word| word as u8)
}

fn maps_the_memory(start: &Start) -> bool {
    let ascends = start.told.map().is_sorted_by(|(one, _), (other, _)| one.end() <= other.start);
    let ram: u64 = start.told.ram().map(|range| range.size).sum();
    // Between 639 KiB and 1 MiB is no RAM.
    ascends && ram == start.memory - (MIB - LOW_END)
}

fn keeps_what_is_written(start: &Start) -> bool {
    let last = |range: Range| range.end() - 8;
    start.told.ram().map(last).all(|at| write_memory(at, at).is_ok() && read_memory(at) == Ok(at))
}

fn has_its_module(start: &Start) -> bool {
    match start.told.module {
        None => !start.module,
        Some(module) => {
            let same = MODULE.iter().zip(module.start..).all(|(own, at)| byte(at) == *own);
            start.module && same && module.size == MODULE.len() as u64
        }
    }
}

/// Each interrupt came once, and what exits was answered as anywhere.
fn goes_to_real_mode(seen: Seen) -> bool {
    let Seen { software_interrupts, own_interrupts, timer_interrupts, .. } = seen;
    println!("real mode: {seen:x?}");
    (software_interrupts, own_interrupts, timer_interrupts) == (1, 1, 1)
        && seen.port & 0x60 == 0x60
        && seen.leaves >= 0x16
        && seen.apic_base & 0xC00 == 0xC00
        && seen.control & 1 == 0
}
