//! The probe: boots on the bare machine and says its board over the serial port, and in short on the screen.
//!
//! It gathers facts only; what they mean is concluded by `bulkhead-board`, the same crate that concludes it on Linux.
#![no_std]
#![no_main]

extern crate alloc;

mod acpi_tables;
mod clock;
mod pci_functions;

use alloc::format;
use alloc::vec::Vec;

use bulkhead_board::abilities::{FEATURE_CONTROL, has_vmx, vmx_registers};
use bulkhead_board::facts::{
    COM, Core, Firmware, IoApicPins, MemoryKind, MemoryRange, QUERIES, Vmx,
};
use bulkhead_board::{Board, Facts, NAME, acpi, log, power, topology};
use guest_rt::probe::cores::StartPage;
use guest_rt::probe::{Boot, physical};
use guest_rt::{Verdict, cpuid, hostile, print, println};

guest_rt::probe_entry!(main);

fn main(boot: &Boot) -> Verdict {
    if let Some(display) = boot.display {
        hv_screen::init(display);
        hv_screen::write_text("Bulkhead looks at this machine ...\n");
    }
    let facts = gather(boot);
    let board = Board::conclude(NAME, &facts);
    let file = board.to_toml("as the probe image");
    println!("\n{}", log::BEGIN);
    print!("{file}");
    println!("{} {:08x}", log::END, log::sum(&file));
    hv_screen::write_text(&board.summary());
    hv_screen::write_text(
        "\nThe whole board file went over COM1: 115200 baud, 8N1. Switch the machine off.\n",
    );
    Verdict::pass("the board was said")
}

fn gather(boot: &Boot) -> Facts {
    let mut facts = Facts { memory: memory(boot), ..Facts::default() };
    facts.firmware = Some(if boot.uefi { Firmware::Uefi } else { Firmware::Bios });
    facts.cores.push(own_core());
    facts.tables = acpi_tables::read(boot.root_table, &mut facts.notes);
    facts.tsc_hz = clock::measure(&facts.tables, &mut facts.notes);
    ask_other_cores(boot, &mut facts);
    facts.pci = pci_functions::read();
    let madt = acpi::find(&facts.tables, b"APIC").map(acpi::madt).unwrap_or_default();
    facts.io_apics = madt
        .io_apics
        .iter()
        .filter_map(|io_apic| {
            let pins = physical::io_apic_pins(io_apic.address)?;
            Some(IoApicPins { address: io_apic.address, pins })
        })
        .collect();
    facts.uarts = COM.into_iter().filter(|port| physical::has_uart(*port)).collect();
    let registers =
        vmx_registers(facts.cores.first(), |register| Some(physical::read_msr(register)));
    if !registers.is_empty() {
        facts.vmx = Vmx::Registers(registers);
    }
    // Not every processor has these: an exception is an answer.
    let read = |register| hostile::read_msr(register).ok();
    if has_vmx(facts.cores.first()) {
        facts.feature_control.extend(read(FEATURE_CONTROL));
    }
    facts.power = power::registers(facts.cores.first(), read);
    facts
}

fn memory(boot: &Boot) -> Vec<MemoryRange> {
    let kind = |number: u32| match number {
        1 => MemoryKind::Usable,
        3 => MemoryKind::AcpiTables,
        4 => MemoryKind::AcpiStorage,
        5 => MemoryKind::Broken,
        _ => MemoryKind::Reserved,
    };
    let range = |(start, size, number): &(u64, u64, u32)| MemoryRange {
        start: *start,
        size: *size,
        kind: kind(*number),
    };
    let boot_services = |(start, size): &(u64, u64)| MemoryRange {
        start: *start,
        size: *size,
        kind: MemoryKind::BootServices,
    };
    let all = boot.memory.iter().map(range);
    all.chain(boot.boot_services.iter().map(boot_services)).collect()
}

fn own_core() -> Core {
    let answer = |(leaf, sub): &(u32, u32)| {
        let found = cpuid(*leaf, *sub);
        [found.eax, found.ebx, found.ecx, found.edx]
    };
    Core::from_answers(QUERIES.iter().map(answer))
}

/// Starts each other core of the MADT and lets it answer for itself.
fn ask_other_cores(boot: &Boot, facts: &mut Facts) {
    let own = facts.cores.first().map(topology::apic_id);
    let madt = acpi::find(&facts.tables, b"APIC").map(acpi::madt).unwrap_or_default();
    let others: Vec<u32> = madt.processors.into_iter().filter(|id| Some(*id) != own).collect();
    if others.is_empty() {
        return;
    }
    let (Some(tsc_hz), Some(page)) = (facts.tsc_hz, StartPage::choose(&boot.memory)) else {
        facts
            .notes
            .push("no clock, or no page below 640 KiB, to start the other cores with".into());
        return;
    };
    for id in others {
        match page.ask(id, QUERIES, tsc_hz) {
            Some(answers) => facts.cores.push(Core::from_answers(answers)),
            None => facts.notes.push(format!("the core with APIC id {id} does not start")),
        }
    }
}
