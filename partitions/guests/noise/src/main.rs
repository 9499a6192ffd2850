//! A neighbour that does its worst, for ever. It never finishes.
//!
//! Arguments: `mode=all|idle|loop|console|exits|vmcall|memory|movsb|cli|hlt|pause|wbinvd|ports|ipi|cr3|xsave`; `all` goes round every
//! mode but `idle`, `loop` and `console`, which do not end, and spends `phase=500us` on each.
#![no_std]
#![no_main]

use guest_rt::extended_state::{self, Area};
use guest_rt::hostile::{self, IpiKind, Width};
use guest_rt::{
    Alarm, Guest, Verdict, apic_id, cpuid, disable_interrupts, halt_for_ever, println, tsc,
    wait_for_interrupt,
};

guest_rt::entry!(main);

/// How long one phase of `all` lasts, unless the command line says otherwise.
const PHASE: &str = "500us";
/// Most bytes of memory that are overwritten in one go.
const MEMORY_BYTES: u64 = 1 << 20;
/// Most bytes that one instruction moves.
const COPY_BYTES: u64 = 2 << 20;
/// APIC ids that are bombarded.
const TARGETS: u32 = 16;
/// The vector of its own timer.
const TIMER_VECTOR: u8 = 0x40;
/// LVT entries of the local APIC, by MSR: timer, thermal, performance, LINT0, LINT1, error.
const LVT_ENTRIES: [u32; 6] = [0x832, 0x833, 0x834, 0x835, 0x836, 0x837];
/// What an entry reads that delivers nothing.
const LVT_MASKED: u64 = 1 << 16;
/// Delivery modes that reach outside a partition or are reserved: SMI, reserved, INIT, ExtINT.
const BAD_DELIVERY_MODES: [u64; 4] = [2, 3, 5, 7];

/// One way to be a nuisance; called again and again.
type Nuisance = fn(&Guest);

const PHASES: [(&str, Nuisance); 12] = [
    ("exits", exits),
    ("vmcall", hypercalls),
    ("memory", memory),
    ("movsb", copy),
    ("cli", without_interrupts),
    ("hlt", halted),
    ("pause", pauses),
    ("wbinvd", caches),
    ("ports", ports),
    ("ipi", ipis),
    ("cr3", page_tables),
    ("xsave", vectors),
];

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["mode", "phase"]);
    let mut modes =
        ["all", "idle", "loop", "console"].into_iter().chain(PHASES.map(|(name, _)| name));
    let modes: [&str; PHASES.len() + 4] = core::array::from_fn(|_| modes.next().unwrap_or(""));
    let mode = guest.choice("mode", &modes);
    println!("noise: mode={mode}");
    match mode {
        "idle" => halt_for_ever(),
        "loop" => hostile::loop_for_ever(),
        "console" => talk(),
        "all" => every_phase(guest),
        one => PHASES.iter().filter(|(name, _)| *name == one).for_each(|(_, nuisance)| {
            loop {
                nuisance(guest);
            }
        }),
    }
    Verdict::fail("noise has no such phase")
}

/// Says more than the serial port can carry.
fn talk() -> ! {
    loop {
        println!("noise: {} ticks, and nobody wants to know", tsc());
    }
}

fn every_phase(guest: &Guest) {
    let phase = guest.ticks("phase", PHASE);
    loop {
        for (_, nuisance) in PHASES {
            let end = tsc() + phase;
            while tsc() < end {
                nuisance(guest);
            }
        }
    }
}

/// Exits as fast as they go.
fn exits(_: &Guest) {
    for leaf in 0..64 {
        core::hint::black_box(cpuid(leaf, 0));
    }
}

/// Calls the hypervisor as fast as it goes, for nothing.
fn hypercalls(_: &Guest) {
    for _ in 0..64 {
        // It has a status for an answer; there is none natively. Neither matters here.
        let _ = hostile::unknown_hypercall();
    }
}

/// Streams through all the memory that it has.
fn memory(guest: &Guest) {
    let (start, size) = guest.spare_memory();
    let bytes = size.min(MEMORY_BYTES) & !7;
    // Its own spare memory: no fault can answer, and none would matter here.
    let _ = hostile::fill_memory(start, bytes, tsc());
}

/// Moves megabytes byte by byte in one instruction.
fn copy(guest: &Guest) {
    let (start, size) = guest.spare_memory();
    let bytes = (size / 2).min(COPY_BYTES);
    // Its own spare memory, as above.
    let _ = hostile::copy_memory(start, start + bytes, bytes);
}

/// Computes with interrupts off.
fn without_interrupts(_: &Guest) {
    disable_interrupts();
    for _ in 0..1000 {
        core::hint::black_box(tsc());
    }
}

/// Halts with a timer that wakes it.
fn halted(_: &Guest) {
    let alarm = Alarm::new(TIMER_VECTOR, |_| ());
    alarm.set(tsc() + 500);
    wait_for_interrupt();
}

/// Spins as one waits for a lock.
fn pauses(_: &Guest) {
    for _ in 0..1000 {
        core::hint::spin_loop();
    }
}

/// Throws the caches away.
fn caches(_: &Guest) {
    // Refused or not: either is the hypervisor's to bear.
    let _ = hostile::write_back_caches();
}

/// Reads and writes ports that are not its own: PCI configuration, reset, keyboard controller, timer, interrupt controllers,
/// UART, and every other one.
fn ports(_: &Guest) {
    let well_known =
        [0xCF8, 0xCFC, 0xCF9, 0x64, 0x60, 0x92, 0x40, 0x43, 0x20, 0x21, 0xA1, 0x3F8, 0x8900];
    for port in well_known.into_iter().chain((tsc() as u16..).take(64)) {
        for width in [Width::Byte, Width::Word, Width::Double] {
            must_read_all_ones(port, width);
            // 0x0E resets the machine by port 0xCF9, 0xFE by port 0x64.
            let _ = hostile::port_out(port, width, if port == 0x64 { 0xFE } else { 0x0E });
        }
    }
}

fn must_read_all_ones(port: u16, width: Width) {
    // A refusal by exception is as good as an empty bus.
    if let Ok(value) = hostile::port_in(port, width) {
        assert!(value == width.all_ones(), "port {port:#x} answered {value:#x}: it is not closed");
    }
}

/// Tries to interrupt, reset and stop every other CPU, and itself by other ways than its own.
fn ipis(_: &Guest) {
    let kinds =
        [IpiKind::Fixed(0x40), IpiKind::Nmi, IpiKind::Init, IpiKind::Startup(8), IpiKind::Smi];
    for target in (0..TARGETS).filter(|target| *target != apic_id()) {
        for kind in kinds {
            // Refused by exception or dropped: either way the target must not notice.
            let _ = hostile::send_ipi(target, kind);
        }
    }
    for entry in LVT_ENTRIES {
        // Put back afterwards: its own timer has to go on.
        let before = hostile::read_msr(entry).unwrap_or(LVT_MASKED);
        for mode in BAD_DELIVERY_MODES {
            let _ = hostile::write_msr(entry, mode << 8);
        }
        let _ = hostile::write_msr(entry, before);
    }
}

/// Goes to and fro between two page tables.
fn page_tables(_: &Guest) {
    let (one, other) = (hostile::read_cr3(), hostile::second_page_tables());
    for _ in 0..64 {
        // Both map the same, so neither can be refused, and nothing depends on which of them stays.
        let _ = hostile::write_cr3(other);
        let _ = hostile::write_cr3(one);
    }
}

/// Fills, saves and restores all vector registers that it is offered.
fn vectors(_: &Guest) {
    let Ok(components @ 1..) = extended_state::enable() else {
        return;
    };
    let mut area = Area::initial();
    area.set_in_use(components);
    for _ in 0..16 {
        extended_state::save(&mut area, components);
        extended_state::restore(&area, components);
    }
}
