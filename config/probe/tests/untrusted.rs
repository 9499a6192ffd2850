//! Firmware's bytes are not trusted: no bytes make a decoder panic, and what it says of good tables is right.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use bulkhead_board::acpi::{self, Polarity, Trigger};
use bulkhead_board::facts::{
    Core, Facts, Firmware, IoApicPins, Leaf, MemoryKind, MemoryRange, PciFunction, QUERIES, Vmx,
};
use bulkhead_board::memory;
use bulkhead_board::pci::{self, Space};
use bulkhead_board::{Board, Range, log};
use proptest::prelude::*;

/// A table with this body, its length and checksum right.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.extend((36 + body.len() as u32).to_le_bytes());
    table.resize(36, 0);
    table.extend(body);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = 0_u8.wrapping_sub(sum);
    table
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    // Small numbers are likelier: they make entries whose lengths add up.
    proptest::collection::vec(prop_oneof![3 => 0_u8..40, 1 => any::<u8>()], 0..most)
}

fn memory_range() -> impl Strategy<Value = MemoryRange> {
    let place = prop_oneof![0_u64..1 << 34, any::<u64>()];
    let kind = proptest::sample::select(MemoryKind::ALL.to_vec());
    (place.clone(), place, kind).prop_map(|(start, size, kind)| MemoryRange { start, size, kind })
}

fn core() -> impl Strategy<Value = Core> {
    let registers = proptest::collection::vec(any::<[u32; 4]>(), QUERIES.len());
    registers.prop_map(|registers| Core {
        leaves: QUERIES
            .iter()
            .zip(registers)
            .map(|((leaf, sub), registers)| Leaf { leaf: *leaf, sub: *sub, registers })
            .collect(),
    })
}

fn function() -> impl Strategy<Value = PciFunction> {
    (any::<(u16, u8, u8, u8)>(), bytes(257), any::<[u64; 6]>())
        .prop_map(|(address, config, bar_sizes)| PciFunction { address, config, bar_sizes })
}

/// MSR_PLATFORM_INFO, IA32_PERF_CTL, IA32_MISC_ENABLE, MSR_POWER_CTL, IA32_PM_ENABLE, IA32_HWP_CAPABILITIES, or another.
fn power_register() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => proptest::sample::select(vec![0xCE, 0x199, 0x1A0, 0x1FC, 0x770, 0x771]),
        1 => any::<u32>()
    ]
}

fn facts() -> impl Strategy<Value = Facts> {
    let tables = (bytes(200), bytes(200), bytes(200), bytes(200), bytes(200)).prop_map(
        |(madt, fadt, hpet, dmar, ivrs)| {
            vec![
                table(b"APIC", &madt),
                table(b"FACP", &fadt),
                table(b"HPET", &hpet),
                table(b"DMAR", &dmar),
                table(b"IVRS", &ivrs),
            ]
        },
    );
    (
        proptest::collection::vec(core(), 0..4),
        proptest::collection::vec(memory_range(), 0..12),
        tables,
        proptest::collection::vec(function(), 0..6),
        proptest::collection::vec(any::<(u64, u32)>(), 0..3),
        any::<Option<u64>>(),
        proptest::collection::vec((power_register(), any::<u64>()), 0..6),
    )
        .prop_map(|(cores, memory, tables, pci, io_apics, tsc_hz, power)| Facts {
            cores,
            memory,
            tables,
            pci,
            io_apics: io_apics
                .into_iter()
                .map(|(address, pins)| IoApicPins { address, pins })
                .collect(),
            tsc_hz,
            uarts: vec![0x3F8],
            firmware: Some(Firmware::Uefi),
            vmx: Vmx::Registers(vec![(0x481, u64::MAX)]),
            feature_control: vec![5],
            power,
            notes: vec!["a note".into()],
        })
}

proptest! {
    #[test]
    fn no_facts_panic(facts in facts()) {
        let board = Board::conclude("fuzzed", &facts);
        let file = board.to_toml("in a test");
        prop_assert!(file.starts_with('#'));
        prop_assert!(!board.summary().is_empty());
        let sent = format!("{}\r\n{}{} {:08x}\r\n", log::BEGIN, file.replace('\n', "\r\n"), log::END, log::sum(&file));
        prop_assert_eq!(log::take(&sent).unwrap(), file);
    }

    #[test]
    fn facts_read_back(facts in facts()) {
        prop_assert_eq!(Facts::parse(&facts.to_text()).unwrap(), facts);
    }

    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _refused = Facts::parse(&text);
        let _refused = log::take(&text);
    }

    #[test]
    fn no_bytes_panic(bytes in bytes(400)) {
        let _anything = (acpi::madt(&bytes), acpi::pm_timer(&bytes), acpi::hpet(&bytes));
        let _anything = (acpi::dmar(&bytes), acpi::ivrs(&bytes), acpi::segments(&bytes));
        let _anything = (acpi::console(&bytes), acpi::debug_ports(&bytes));
        prop_assert_eq!(acpi::find(std::slice::from_ref(&bytes), b"APIC").is_some(), false);
    }

    #[test]
    fn memory_ascends_on_bounds_and_holds_nothing_that_is_not_ours(
        map in proptest::collection::vec(memory_range(), 0..20),
        taken in proptest::collection::vec((0_u64..1 << 34, 1_u64..1 << 24), 0..3),
        firmware in proptest::sample::select(vec![None, Some(Firmware::Bios), Some(Firmware::Uefi)]),
    ) {
        let taken: Vec<_> = taken.iter().map(|(start, size)| Range { start: *start, end: start + size }).collect();
        let memory = memory::conclude(&map, &taken, firmware);
        for pair in memory.usable.windows(2) {
            prop_assert!(pair[0].end < pair[1].start);
        }
        for range in &memory.usable {
            prop_assert!(range.start >= 1 << 20 && range.start < range.end && range.end.is_multiple_of(1 << 20));
            prop_assert!(range.start == 1 << 20 || range.start.is_multiple_of(2 << 20));
            prop_assert!(memory.ram.iter().any(|ram| ram.contains(range)));
            prop_assert!(!memory.reserved.iter().any(|(other, _)| other.overlaps(range)));
            prop_assert!(!taken.iter().any(|other| other.overlaps(range)));
        }
        let lost = memory.ram.iter().map(Range::size).sum::<u64>() - memory.usable.iter().map(Range::size).sum::<u64>();
        let told = |note: &String| note.contains("are left out") || note.contains("is left out of the RAM");
        prop_assert!(lost == 0 || memory.notes.iter().any(told), "{:?}", memory.notes);
    }

    #[test]
    fn a_bar_has_the_size_that_its_mask_says(shift in 4_u32..40) {
        let mask = !((1_u64 << shift) - 1);
        prop_assert_eq!(pci::bar_size(mask as u32 | 0b100, (mask >> 32) as u32), 1 << shift);
        if shift < 32 {
            prop_assert_eq!(pci::bar_size(mask as u32, 0), 1 << shift);
        }
    }
}

#[test]
fn a_madt_is_read() {
    let mut body = vec![0; 8];
    body.extend([0, 8, 0, 2, 1, 0, 0, 0]); // enabled
    body.extend([0, 8, 1, 3, 0, 0, 0, 0]); // not
    body.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    body.extend([1, 12, 5, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 9, 9, 0, 0, 0, 0x0F, 0]);
    body.extend([1, 200, 0]); // breaks off
    let tables = [table(b"APIC", &body)];
    let madt = acpi::madt(acpi::find(&tables, b"APIC").unwrap());
    assert_eq!(madt.processors, [2, 256]);
    assert_eq!((madt.io_apics[0].id, madt.io_apics[0].address), (5, 0xFEC0_0000));
    let each = madt.overrides[0];
    assert_eq!((each.irq, each.trigger, each.polarity), (9, Trigger::Level, Polarity::Low));
    assert_eq!((madt.io_apics.len(), madt.overrides.len()), (1, 1));
    assert!(madt.flaws[0].contains("its last 3 bytes are left out"), "{:?}", madt.flaws);
}

#[test]
fn a_damaged_table_is_not_taken() {
    let mut tables = [table(b"HPET", &[0; 20])];
    assert!(acpi::find(&tables, b"HPET").is_some());
    tables[0][40] ^= 1;
    assert!(acpi::find(&tables, b"HPET").is_none());
}

#[test]
fn a_scope_behind_a_bridge_is_followed() {
    let scope = [1, 10, 0, 0, 0, 0, 0x1C, 0, 0, 0];
    let mut drhd = vec![0, 0, 16 + 10, 0, 0, 0, 0, 0];
    drhd.extend(0xFED9_0000_u64.to_le_bytes());
    drhd.extend(scope);
    let mut body = vec![0; 12];
    body.extend(drhd);
    let function = |address, bridge_to: u8| {
        let mut config = vec![0; 256];
        config[..4].copy_from_slice(&[0x86, 0x80, 1, 0]);
        (config[0x0E], config[0x19]) = (u8::from(bridge_to != 0), bridge_to);
        PciFunction { address, config, bar_sizes: [0; 6] }
    };
    let facts = Facts {
        tables: vec![table(b"DMAR", &body)],
        pci: vec![function((0, 0, 0x1C, 0), 3), function((0, 3, 0, 0), 0)],
        ..Facts::default()
    };
    let board = Board::conclude("x", &facts);
    assert_eq!(board.iommus[0].devices, [pci::Address(0, 3, 0, 0)], "{:?}", board.notes);
}

#[test]
fn message_interrupts_and_bars_are_read() {
    let mut config = vec![0; 256];
    config[..4].copy_from_slice(&[0x86, 0x80, 0xD3, 0x10]);
    config[6] = 0x10;
    config[0x34] = 0x40;
    config[0x40..0x44].copy_from_slice(&[5, 0x50, 0b0100, 0]); // MSI, four vectors
    config[0x50..0x54].copy_from_slice(&[0x11, 0x50, 4, 0]); // MSI-X, five, and a loop
    config[0x10..0x14].copy_from_slice(&0xFEB0_000C_u32.to_le_bytes()); // 64 bits
    config[0x14] = 1;
    config[0x18..0x1C].copy_from_slice(&0xC001_u32.to_le_bytes());
    config[0x20..0x24].copy_from_slice(&0xFEB0_0006_u32.to_le_bytes()); // a kind that there is not
    config[0x24..0x28].copy_from_slice(&0xFEB0_0004_u32.to_le_bytes()); // 64 bits, and no second half
    config[0x30..0x34].copy_from_slice(&0xFEC1_0001_u32.to_le_bytes()); // a ROM that is switched on
    let bar_sizes = [0x1000, 0, 0x20, 0x10, 0x10, 0x10];
    let function = PciFunction { address: (0, 0, 2, 0), config, bar_sizes };
    let device = pci::decode(&function).unwrap();
    assert_eq!((device.msi, device.msi_x), (4, 5));
    let bars: Vec<_> = device.bars.iter().map(|bar| (bar.index, bar.space, bar.start)).collect();
    assert_eq!(bars, [(0, Space::Memory, 0x1_FEB0_0000), (2, Space::Ports, 0xC000)]);
    let left_out: Vec<u8> = device.left_out.iter().map(|(index, _)| *index).collect();
    assert_eq!((left_out, device.rom), (vec![3, 4, 5], Some(0xFEC1_0000)));
}
