//! Checks what stands around the cores: against itself, and against the board's memory.

use std::collections::BTreeMap;

use bulkhead_board::abilities::{INVARIANT_TSC, VT_X, lacking};
use bulkhead_board::pci::{Address, Chipset};
use bulkhead_table::{Range, Uart};

use super::{Abilities, DMA, Function, Surroundings, has_ability, processor_words, vt_x_words};
use crate::diagnostics::{Finding, Findings};
use crate::reader::list;
use crate::rules::Rule;
use crate::schema::{BoardFile, MOST_PORT};
use crate::source::{At, Place};

/// Bytes of registers: an I/O APIC up to its EOI register, an HPET, an IOMMU's first page.
const IO_APIC_BYTES: u64 = 0x44;
const HPET_BYTES: u64 = 0x400;
const IOMMU_BYTES: u64 = 0x1000;
const PM_TIMER_PORTS: u64 = 4;

/// A run of addresses, ports or interrupts, and whose it is.
pub(crate) struct Claim {
    pub start: u64,
    /// Behind the last.
    pub end: u64,
    pub whose: String,
    pub place: Place,
    part: Part,
}

/// What a claim is a part of.
#[derive(Clone, Copy)]
enum Part {
    /// The chipset, as ACPI names it, or the serial port.
    Chipset(Chipset),
    /// A PCI function of this class.
    Function(Option<u32>),
    /// Interrupts, of which each is one pin.
    Pins,
}

impl Claim {
    fn new(start: &At<u64>, size: u64, whose: impl Into<String>, part: Part) -> Self {
        let end = start.value.saturating_add(size);
        Self { start: start.value, end, whose: whose.into(), place: start.place, part }
    }

    fn chipset(start: &At<u64>, size: u64, whose: &str, what: Chipset) -> Self {
        Self::new(start, size, whose, Part::Chipset(what))
    }

    /// Whether both are one device: a part of the chipset, and the PCI function of its class around it.
    fn is_the_same_device(&self, other: &Self) -> bool {
        let within =
            |inner: &Self, outer: &Self| outer.start <= inner.start && inner.end <= outer.end;
        match (self.part, other.part) {
            (Part::Chipset(what), Part::Function(Some(class))) => {
                what.is_of_class(class) && within(self, other)
            }
            (Part::Function(Some(class)), Part::Chipset(what)) => {
                what.is_of_class(class) && within(other, self)
            }
            _ => false,
        }
    }

    /// Whether it is one of these.
    pub fn holds(&self, number: u64) -> bool {
        (self.start..self.end).contains(&number)
    }
}

/// Checks all of it. `memory` are the board's ranges of RAM.
pub(crate) fn check(board: &BoardFile, memory: &[At<Range>], findings: &mut Findings) {
    let around = &board.surroundings;
    pci(&around.functions, findings);
    let mut registers = registers(around);
    let serial = board.serial.iter();
    let in_memory = serial.clone().filter_map(|serial| Some((serial.address.as_ref()?, serial)));
    registers.extend(in_memory.map(|(at, serial)| {
        let stride = serial.stride.as_ref().map_or(1, |stride| stride.value);
        let size = Uart::REGISTERS * stride;
        Claim::chipset(at, size, "the serial port", Chipset::SerialPort)
    }));
    let serial = serial.filter_map(|serial| serial.port.as_ref());
    let serial = serial
        .map(|at| Claim::chipset(at, Uart::REGISTERS, "the serial port", Chipset::SerialPort));
    let ports = serial.chain(ports(around)).collect();
    outside_memory(&registers, memory, findings);
    disjoint(registers, Rule::RegistersOverlap, "registers", findings);
    disjoint(ports, Rule::PortsOverlap, "I/O ports", findings);
    interrupts(around, findings);
    reserved(around, memory, findings);
    iommus(around, findings);
    if let Some(abilities) = &around.abilities {
        let vouched = board.vouched.as_ref().filter(|written| written.value);
        hypervisor_runs(abilities, vouched.is_some(), findings);
        if let Some(vouched) = vouched.filter(|_| has_ability(board, INVARIANT_TSC)) {
            let message = format!("the file vouches for a clock that `{INVARIANT_TSC}` announces");
            let remedy = "take `vouched` out: the hypervisor asks the processor itself";
            let finding = Finding::new(Rule::VouchedNeedlessly, message, remedy);
            findings.push(finding.at(vouched.place, "not needed"));
        }
    }
    if let Some(place) = around.no_pm_timer {
        let message =
            "the board's `[timers]` name no PM timer, and the hypervisor refuses a machine without";
        let remedy = "write `pm-timer`, the I/O port that firmware's FADT names (`bulkhead probe` shows it), or choose another board";
        findings.push(Finding::new(Rule::TimerMissing, message, remedy).at(place, "no `pm-timer`"));
    }
    cache_allocation(&around.cache_allocation, findings);
}

/// Registers in memory.
pub(crate) fn registers(around: &Surroundings) -> Vec<Claim> {
    let mut registers = Vec::new();
    let io_apics = around.io_apics.iter().filter_map(|io_apic| io_apic.address.as_ref());
    let io_apic = |at| Claim::chipset(at, IO_APIC_BYTES, "an I/O APIC", Chipset::IoApic);
    registers.extend(io_apics.map(io_apic));
    let hpet = |at| Claim::chipset(at, HPET_BYTES, "the HPET", Chipset::Hpet);
    registers.extend(around.hpet.iter().map(hpet));
    let iommus = around.iommus.iter().filter_map(|iommu| iommu.registers.as_ref());
    let iommu = |at| Claim::chipset(at, IOMMU_BYTES, "an IOMMU", Chipset::Iommu);
    registers.extend(iommus.map(iommu));
    registers.extend(decoded(around, true));
    registers
}

/// I/O ports of the chipset and of devices, the serial port's not among them.
pub(crate) fn ports(around: &Surroundings) -> Vec<Claim> {
    let timer = |at| Claim::chipset(at, PM_TIMER_PORTS, "the PM timer", Chipset::PmTimer);
    let pm_timer = around.pm_timer.iter().map(timer);
    pm_timer.chain(decoded(around, false)).collect()
}

/// What the base address registers of PCI functions decode, in memory or as I/O ports.
fn decoded(around: &Surroundings, in_memory: bool) -> Vec<Claim> {
    let mut claims = Vec::new();
    for function in &around.functions {
        let whose = function.address.as_ref().map_or_else(String::new, |at| at.value.to_string());
        for bar in function.bars.iter().filter(|bar| bar.in_memory == Some(in_memory)) {
            let (Some(start), Some(size)) = (&bar.start, &bar.size) else { continue };
            let part = Part::Function(function.class);
            claims.push(Claim::new(start, size.value, format!("the PCI function {whose}"), part));
        }
    }
    claims
}

/// Interrupts that are pins of I/O APICs.
pub(crate) fn pins(around: &Surroundings) -> Vec<Claim> {
    let pins = around.io_apics.iter().filter_map(|io_apic| {
        let (first, pins) = (io_apic.first_interrupt.as_ref()?, io_apic.pins.as_ref()?);
        Some(Claim::new(first, pins.value, "an I/O APIC", Part::Pins))
    });
    pins.collect()
}

fn outside_memory(registers: &[Claim], memory: &[At<Range>], findings: &mut Findings) {
    for claim in registers {
        if let Some(range) = overlapping(claim.start, claim.end, memory, findings) {
            let message = format!("the registers of {} lie in the board's memory", claim.whose);
            let remedy = "correct the address, or shorten the memory: RAM there cannot be reached";
            let finding = Finding::new(Rule::RegistersInMemory, message, remedy);
            findings.push(
                finding
                    .at(claim.place, format!("from {:#x} to {:#x}", claim.start, claim.end))
                    .with(range.place, format!("this memory ends at {:#x}", range.value.end())),
            );
        }
    }
}

/// The range of memory that shares a byte with `start` to `end`.
fn overlapping<'m>(
    start: u64,
    end: u64,
    memory: &'m [At<Range>],
    findings: &mut Findings,
) -> Option<&'m At<Range>> {
    // The ranges ascend and are disjoint: only the first that ends behind `start` can meet it.
    findings.comparisons.add(memory.len().checked_ilog2().map_or(0, |log| log as usize + 1));
    let first = memory.partition_point(|range| range.value.end() <= start);
    memory.get(first).filter(|range| range.value.start < end)
}

/// Reports each claim that begins before one in front of it ends, unless both are one device.
fn disjoint(mut claims: Vec<Claim>, rule: Rule, what: &str, findings: &mut Findings) {
    findings.comparisons.sort(&mut claims, |claim| claim.start);
    let mut furthest: Option<&Claim> = None;
    for claim in &claims {
        if let Some(before) = furthest
            && claim.start < before.end
            && !claim.is_the_same_device(before)
        {
            let message = format!("{what} of {} lie among those of {}", claim.whose, before.whose);
            let remedy = "correct one of the two: `bulkhead probe` shows what the machine has";
            findings.push(
                Finding::new(rule, message, remedy)
                    .at(claim.place, format!("starts at {:#x}", claim.start))
                    .with(before.place, format!("goes up to {:#x}", before.end)),
            );
        }
        if furthest.is_none_or(|before| before.end < claim.end) {
            furthest = Some(claim);
        }
    }
}

fn interrupts(around: &Surroundings, findings: &mut Findings) {
    let pins = pins(around);
    // Where an I/O APIC is not known in full, nor is what it has no pin for.
    let all_known = pins.len() == around.io_apics.len();
    for each in around.overrides.iter().filter(|_| all_known) {
        let Some(interrupt) = &each.interrupt else { continue };
        findings.comparisons.add(pins.len());
        if !pins.iter().any(|claim| (claim.start..claim.end).contains(&interrupt.value)) {
            let message = format!("no I/O APIC has a pin for interrupt {}", interrupt.value);
            let remedy = "correct the number, or list the I/O APIC: its pins count from its `first-interrupt`";
            let finding = Finding::new(Rule::OverrideUnknown, message, remedy);
            findings.push(finding.at(interrupt.place, "leads nowhere"));
        }
    }
    disjoint(pins, Rule::InterruptsOverlap, "interrupts", findings);
    let irqs = around.overrides.iter().filter_map(|each| each.irq.as_ref());
    let pairs = findings.comparisons.repeated(irqs, |irq| irq.value);
    for (first, again) in pairs {
        let message = format!("the ISA interrupt {} is overridden twice", again.value);
        let remedy = "keep the one that firmware's MADT has";
        twice(Rule::OverrideTwice, message, remedy, again.place, first.place, findings);
    }
}

fn twice(
    rule: Rule,
    message: String,
    remedy: &str,
    again: Place,
    first: Place,
    findings: &mut Findings,
) {
    let finding = Finding::new(rule, message, remedy);
    findings.push(finding.at(again, "again here").with(first, "first here"));
}

fn pci(functions: &[Function], findings: &mut Findings) {
    let addresses: Vec<&At<Address>> =
        functions.iter().filter_map(|function| function.address.as_ref()).collect();
    let pairs = findings.comparisons.repeated(addresses.iter().copied(), |at| at.value);
    for (first, again) in pairs {
        let message = format!("the PCI function {} is listed twice", again.value);
        twice(Rule::PciTwice, message, "take one of them out", again.place, first.place, findings);
    }
    let known: BTreeMap<Address, Place> = addresses.iter().map(|at| (at.value, at.place)).collect();
    for (address, place) in &known {
        let Address(segment, bus, device, _) = *address;
        if !known.contains_key(&Address(segment, bus, device, 0)) {
            let message = format!("{address} has no function 0 beside it");
            let remedy = "list function 0 too: a PCI device answers there, or nowhere";
            let finding = Finding::new(Rule::PciNoFunctionZero, message, remedy);
            findings.push(finding.at(*place, "a part of a device"));
        }
    }
    for function in functions {
        message_interrupts(function, findings);
        bars(function, findings);
    }
}

fn message_interrupts(function: &Function, findings: &mut Findings) {
    const MOST_MSI: u64 = 32;
    const MOST_MSI_X: u64 = 2048;
    let mut refuse = |at: &At<u64>, message: &str, remedy: &str| {
        let finding = Finding::new(Rule::MsiCount, message.to_owned(), remedy);
        findings.push(finding.at(at.place, "no such number"));
    };
    if let Some(msi) = &function.msi
        && !(msi.value.is_power_of_two() && msi.value <= MOST_MSI)
    {
        refuse(
            msi,
            &format!("a PCI function does not have {} MSI vectors", msi.value),
            "write 1, 2, 4, 8, 16 or 32, or leave `msi` out where it has none",
        );
    }
    if let Some(entries) = &function.msi_x
        && !(1..=MOST_MSI_X).contains(&entries.value)
    {
        refuse(
            entries,
            &format!("an MSI-X table does not have {} entries", entries.value),
            "write 1 to 2048, or leave `msi-x` out where it has none",
        );
    }
}

fn bars(function: &Function, findings: &mut Findings) {
    const REGISTERS: u64 = 6;
    let indices: Vec<&At<u64>> =
        function.bars.iter().filter_map(|bar| bar.index.as_ref()).collect();
    let pairs = findings.comparisons.repeated(indices.iter().copied(), |index| index.value);
    for (first, again) in pairs {
        let message = format!("the base address register {} is given twice", again.value);
        let remedy = "number them as the configuration space does";
        twice(Rule::BarTwice, message, remedy, again.place, first.place, findings);
    }
    for index in indices.iter().filter(|index| index.value >= REGISTERS) {
        let message = format!("a function has no base address register {}", index.value);
        let finding = Finding::new(Rule::BarTwice, message, "number them from 0 to 5");
        findings.push(finding.at(index.place, "0 to 5"));
    }
    for bar in &function.bars {
        let (Some(start), Some(size)) = (&bar.start, &bar.size) else { continue };
        let in_ports = bar.in_memory == Some(false);
        let message = if !size.value.is_power_of_two() {
            format!("a base address register cannot decode {} bytes", size.value)
        } else if !start.value.is_multiple_of(size.value) {
            format!("{} bytes cannot be decoded from {:#x} on", size.value, start.value)
        } else if in_ports && start.value.saturating_add(size.value) > MOST_PORT + 1 {
            format!("there is no I/O port {:#x}", start.value + size.value - 1)
        } else {
            continue;
        };
        let remedy = "write what `bulkhead probe` shows: a power of two, at a multiple of itself, I/O ports below 0x10000";
        let finding = Finding::new(Rule::BarShape, message, remedy);
        findings.push(finding.at(size.place, "the size").with(start.place, "the start"));
    }
}

fn reserved(around: &Surroundings, memory: &[At<Range>], findings: &mut Findings) {
    for each in &around.reserved {
        if let (Some(devices), Some(kind)) = (&each.devices, &each.kind)
            && kind.value != DMA
        {
            let message = format!("memory of the kind `{}` names devices", kind.value);
            let remedy = "take `devices` out, or write `kind = \"dma\"`";
            let finding = Finding::new(Rule::DevicesWithoutDma, message, remedy);
            findings.push(finding.at(devices.place, "devices").with(kind.place, "the kind"));
        }
        known_functions(each.devices.iter().flat_map(|list| &list.value), around, findings);
        let (Some(start), Some(size)) = (&each.start, &each.size) else { continue };
        let end = start.value.saturating_add(size.value);
        if let Some(range) = overlapping(start.value, end, memory, findings) {
            let message =
                format!("memory from {:#x} on is firmware's and the system's", start.value);
            let remedy = "cut it out of the board's memory: firmware, or a device, writes there";
            let finding = Finding::new(Rule::ReservedInMemory, message, remedy);
            findings.push(
                finding
                    .at(start.place, format!("kept up to {end:#x}"))
                    .with(range.place, format!("this memory ends at {:#x}", range.value.end())),
            );
        }
    }
}

fn known_functions<'a>(
    named: impl Iterator<Item = &'a At<Address>>,
    around: &Surroundings,
    findings: &mut Findings,
) {
    for address in named {
        let mut known = around.functions.iter().filter_map(|function| function.address.as_ref());
        findings.comparisons.add(around.functions.len());
        if !known.any(|at| at.value == address.value) {
            let message = format!("the board has no PCI function {}", address.value);
            let remedy = "list it under `[[pci]]`, or take it out here";
            let finding = Finding::new(Rule::PciUnknown, message, remedy);
            findings.push(finding.at(address.place, "not on the board"));
        }
    }
}

fn iommus(around: &Surroundings, findings: &mut Findings) {
    known_functions(around.iommus.iter().flat_map(|iommu| &iommu.devices), around, findings);
    let named = around.iommus.iter().flat_map(|iommu| &iommu.devices);
    let pairs = findings.comparisons.repeated(named, |at| at.value);
    for (first, again) in pairs {
        let message = format!("two IOMMUs serve the PCI function {}", again.value);
        let remedy = "name it once: its accesses take one way";
        twice(Rule::IommuTwice, message, remedy, again.place, first.place, findings);
    }
    let rests: Vec<(u64, Place)> = around
        .iommus
        .iter()
        .filter_map(|iommu| {
            let rest = iommu.rest.as_ref().filter(|rest| rest.value)?;
            Some((iommu.segment.as_ref()?.value, rest.place))
        })
        .collect();
    let pairs = findings.comparisons.repeated(&rests, |rest| rest.0);
    for (first, again) in pairs {
        let message = format!("two IOMMUs serve the rest of segment {}", again.0);
        let remedy = "leave `rest` to the one that firmware's table marks so";
        twice(Rule::IommuTwice, message, remedy, again.1, first.1, findings);
    }
}

/// Refuses a board that the hypervisor would refuse at boot.
fn hypervisor_runs(abilities: &Abilities, vouched: bool, findings: &mut Findings) {
    let has = |list: &Option<At<Vec<At<String>>>>, name: &str| {
        list.iter().flat_map(|list| &list.value).any(|word| word.value == name)
    };
    let vt_x = VT_X.iter().filter(|ability| ability.needed).map(|ability| ability.name);
    // A misspelt one is told by the reader, and it is not the board that lacks it.
    let known = |list: &Option<At<Vec<At<String>>>>, abilities: &[&str]| {
        list.iter()
            .flat_map(|list| &list.value)
            .all(|word| abilities.contains(&word.value.as_str()))
    };
    if !known(&abilities.processor, &processor_words()) || !known(&abilities.vt_x, &vt_x_words()) {
        return;
    }
    let mut missing = lacking(|name| has(&abilities.processor, name), vouched);
    if abilities.vt_x.is_some() {
        missing.extend(vt_x.filter(|name| !has(&abilities.vt_x, name)));
    }
    if missing.is_empty() {
        return;
    }
    let message = format!("the hypervisor cannot run on this board: it lacks {}", list(&missing));
    let remedy = if missing == [INVARIANT_TSC] {
        "choose another board; or write `vouched = true` in [clock], where the counter is known to run at one rate all the same, as in an emulator"
    } else {
        "choose another board; VT-x, AMD-V and x2APIC may also be switched off in the firmware's set-up: probe again then"
    };
    let Some(place) = abilities.processor.as_ref().map(|list| list.place) else { return };
    findings.push(
        Finding::new(Rule::AbilityMissing, message, remedy).at(place, "not all that is needed"),
    );
}

fn cache_allocation(levels: &[At<u64>], findings: &mut Findings) {
    for level in levels.iter().filter(|level| !(2..=3).contains(&level.value)) {
        let message = format!("caches of level {} cannot be divided", level.value);
        let finding = Finding::new(Rule::CacheAllocationTwice, message, "write 2 or 3");
        findings.push(finding.at(level.place, "2 or 3"));
    }
    let pairs = findings.comparisons.repeated(levels, |level| level.value);
    for (first, again) in pairs {
        let message = format!("caches of level {} are described twice", again.value);
        let remedy = "take one of them out: CPUID tells of each level once";
        twice(Rule::CacheAllocationTwice, message, remedy, again.place, first.place, findings);
    }
}
