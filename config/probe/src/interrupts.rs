//! I/O APICs and overrides: each interrupt is one pin, and an override leads to one.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::acpi::{IoApic, Madt, Override};
use crate::devices::Taken;
use crate::facts::Facts;
use crate::left::LeftOut;
use crate::memory::Range;
use crate::pci::Chipset;

/// What nearly every I/O APIC has.
const USUAL_PINS: u32 = 24;
/// Most that its version register can tell.
const MOST_PINS: u32 = 256;
/// Highest interrupt that a board file names.
const MOST_INTERRUPT: u32 = u32::MAX >> 1;
/// Highest ISA interrupt.
const MOST_IRQ: u8 = 15;
/// Registers of an I/O APIC, up to its EOI register.
const BYTES: u64 = 0x44;

/// An I/O APIC with its pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedIoApic {
    /// Its APIC id.
    pub id: u8,
    /// Address of its registers.
    pub address: u64,
    /// The global system interrupt of its first pin.
    pub first_interrupt: u32,
    /// How many pins follow from there; never 0.
    pub pins: u32,
    /// The number of pins was not read.
    pub guessed: bool,
}

/// The I/O APICs of a MADT, in its order.
pub(crate) fn io_apics(
    facts: &Facts,
    madt: &Madt,
    ram: &[Range],
    registers: &mut Taken,
    notes: &mut Vec<String>,
) -> Vec<PlacedIoApic> {
    let mut left = LeftOut::default();
    let mut sound: Vec<IoApic> = Vec::new();
    for io_apic in &madt.io_apics {
        let first = io_apic.first_interrupt;
        let flaw = if first > MOST_INTERRUPT {
            Err("no such interrupt is where its first pin is to be")
        } else if sound.iter().any(|known| known.first_interrupt == first) {
            Err("another I/O APIC begins with the same interrupt")
        } else {
            registers.take(io_apic.address, BYTES, Chipset::IoApic, ram)
        };
        match flaw {
            Ok(()) => sound.push(*io_apic),
            Err(why) => left.add(format!("the I/O APIC at {:#x}", io_apic.address), why),
        }
    }
    left.tell(notes);
    let firsts: BTreeSet<u32> = sound.iter().map(|io_apic| io_apic.first_interrupt).collect();
    sound
        .iter()
        .map(|io_apic| {
            let behind = io_apic.first_interrupt + 1..;
            let next = firsts.range(behind).next().copied().unwrap_or(u32::MAX);
            placed(facts, io_apic, next - io_apic.first_interrupt, notes)
        })
        .collect()
}

/// `room`: how many interrupts there are up to the next I/O APIC.
fn placed(facts: &Facts, io_apic: &IoApic, room: u32, notes: &mut Vec<String>) -> PlacedIoApic {
    let IoApic { id, address, first_interrupt } = *io_apic;
    let read = facts.io_apics.iter().find(|known| known.address == address).map(|known| known.pins);
    let known = read.filter(|pins| (1..=MOST_PINS).contains(pins));
    if let (Some(pins), None) = (read, known) {
        notes.push(format!("the I/O APIC at {address:#x} claims {pins} pins, which none has"));
    }
    if let Some(pins) = known.filter(|pins| *pins > room) {
        notes.push(format!(
            "the I/O APIC at {address:#x} has {pins} pins, and the next one begins {room} interrupts behind its first: the others are left out"
        ));
    }
    PlacedIoApic {
        id,
        address,
        first_interrupt,
        pins: known.unwrap_or(USUAL_PINS).min(room),
        guessed: known.is_none(),
    }
}

/// The overrides of a MADT that lead to a pin, the first of each ISA interrupt.
pub(crate) fn overrides(
    madt: &Madt,
    io_apics: &[PlacedIoApic],
    notes: &mut Vec<String>,
) -> Vec<Override> {
    let mut left = LeftOut::default();
    let mut sound: Vec<Override> = Vec::new();
    for each in &madt.overrides {
        let subject =
            format!("the override of the ISA interrupt {} to {}", each.irq, each.interrupt);
        let leads = |io_apic: &PlacedIoApic| {
            each.interrupt
                .checked_sub(io_apic.first_interrupt)
                .is_some_and(|pin| pin < io_apic.pins)
        };
        let before = sound.iter().find(|known| known.irq == each.irq);
        if each.irq > MOST_IRQ {
            left.add(subject, "there is no such ISA interrupt");
        } else if before == Some(each) {
            left.add(subject, "firmware gives it twice, and both say the same");
        } else if before.is_some() {
            left.add(subject, "firmware gives another one before it, which counts");
        } else if io_apics.iter().any(leads) {
            sound.push(*each);
        } else {
            left.add(subject, "no I/O APIC has this pin");
        }
    }
    left.tell(notes);
    sound
}
