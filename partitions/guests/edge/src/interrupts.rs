//! Interrupt commands: to nobody, to this CPU, to all of the partition; and what the other CPUs do.
#![expect(unsafe_code, reason = "writes the first instructions of a CPU that is started")]

use guest_rt::hostile::{self, write_interrupt_command, write_msr};
use guest_rt::{apic_id, enable_interrupts, on_interrupt, on_nmi};

use crate::acts::refused;
use crate::{Act, World};

const VECTOR: u8 = 0x41;
const ASSERT: u64 = 1 << 14;
const LOGICAL: u64 = 1 << 11;
const NMI: u64 = 4 << 8;
const INIT: u64 = 5 << 8;
const START_UP: u64 = 6 << 8;
const TO_SELF: u64 = 1 << 18;
const TO_ALL: u64 = 2 << 18;
const TO_OTHERS: u64 = 3 << 18;
const SELF_IPI: u32 = 0x83F;
const SPURIOUS: u32 = 0x80F;
/// The APIC is on; its spurious vector.
const APIC_ON: u64 = 0x1FF;
/// A processor that no partition here has.
const NOBODY: u32 = 0x77;
/// An illegal vector.
const ILLEGAL: u64 = 5;
/// The page where CPUs start that a command starts.
const PAGE: u64 = 9;

/// Every command.
pub const ACTS: [Act; 17] = [
    ("ipi-self-register", |_| refused(write_msr(SELF_IPI, VECTOR.into()))),
    ("ipi-self", |_| fixed(TO_SELF)),
    ("ipi-own-id", |_| fixed(to(apic_id()))),
    ("ipi-own-logical-id", |_| fixed(LOGICAL | logical(apic_id()))),
    ("ipi-next", |_| fixed(to(apic_id() + 1))),
    ("ipi-cluster", |_| fixed(LOGICAL | 0xFF << 32)),
    ("ipi-all", |_| fixed(TO_ALL)),
    ("ipi-broadcast", |_| fixed(to(u32::MAX))),
    ("ipi-others", |_| fixed(TO_OTHERS)),
    ("ipi-illegal", |_| refused(write_interrupt_command(TO_SELF | ASSERT | ILLEGAL))),
    ("ipi-to-nobody", |_| fixed(to(NOBODY))),
    ("nmi-own-id", |_| refused(write_interrupt_command(to(apic_id()) | ASSERT | NMI))),
    ("nmi-others", |_| refused(write_interrupt_command(TO_OTHERS | ASSERT | NMI))),
    ("smi-others", |_| refused(write_interrupt_command(TO_OTHERS | ASSERT | 2 << 8))),
    ("many-in-a-row", many_in_a_row),
    ("init-others", |_| refused(write_interrupt_command(TO_OTHERS | ASSERT | INIT))),
    ("restart-others", restart_others),
];

/// Handlers, and the page where others start.
pub fn set_up() {
    on_interrupt(VECTOR, |_| ());
    on_nmi(|| ());
    // SAFETY: the page is the guest's own, mapped one to one, and holds nothing: below 1 MiB only the page before it is in use.
    unsafe { ((PAGE << 12) as *mut [u8; 3]).write_volatile(FOR_EVER) };
}

/// `cli`, and a jump to itself.
const FOR_EVER: [u8; 3] = [0xFA, 0xEB, 0xFE];

/// What another CPU does: it takes interrupts for ever.
pub fn spin(_: u32) {
    refused(hostile::write_msr(SPURIOUS, APIC_ON));
    enable_interrupts();
    loop {
        core::hint::spin_loop();
    }
}

const fn to(id: u32) -> u64 {
    (id as u64) << 32
}

/// SDM 3A 11.12.10.2.
const fn logical(id: u32) -> u64 {
    to((id >> 4) << 16 | 1 << (id & 15))
}

fn fixed(destination: u64) {
    refused(write_interrupt_command(destination | ASSERT | u64::from(VECTOR)));
}

/// Commands as fast as they go, until behind the window's end.
fn many_in_a_row(world: &World) {
    while guest_rt::tsc() < world.end {
        fixed(TO_OTHERS);
    }
}

/// INIT and start-up at once, which no system does: the second must not overtake the first.
fn restart_others(_: &World) {
    for mode in [INIT, START_UP | PAGE] {
        refused(write_interrupt_command(TO_OTHERS | ASSERT | mode));
    }
}
