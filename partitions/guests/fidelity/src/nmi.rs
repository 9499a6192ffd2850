//! The blocking of NMIs: a second one waits until the first's handler has returned, across preemptions too.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::hostile::{Fault, write_interrupt_command};
use guest_rt::{apic_id, on_nmi, tsc};

use crate::random::Random;

/// NMIs of this round that came.
static CAME: AtomicU64 = AtomicU64::new(0);
/// NMIs that came while another's handler ran.
static NESTED: AtomicU64 = AtomicU64::new(0);
/// TSC until which the first handler runs.
static UNTIL: AtomicU64 = AtomicU64::new(0);

/// Longest time that a handler runs, in ticks: some frames.
const LONGEST: u64 = 30_000;

/// Sends an NMI whose handler sends another and then runs for a random time. Calls `differs` unless they came one behind the other.
///
/// # Errors
/// The machine refuses the command that sends one.
pub fn check(random: &mut Random, mut differs: impl FnMut(&'static str)) -> Result<(), Fault> {
    on_nmi(handle);
    CAME.store(0, Ordering::Relaxed);
    NESTED.store(0, Ordering::Relaxed);
    UNTIL.store(tsc() + random.below(LONGEST), Ordering::Relaxed);
    send()?;
    // The command takes effect at the next instruction, but nothing here hangs on which one.
    while tsc() < UNTIL.load(Ordering::Relaxed) {
        core::hint::spin_loop();
    }
    if NESTED.load(Ordering::Relaxed) != 0 {
        differs("nmi-blocking");
    }
    if CAME.load(Ordering::Relaxed) != 2 {
        differs("pending-nmi");
    }
    Ok(())
}

fn send() -> Result<(), Fault> {
    const NMI: u64 = 1 << 14 | 4 << 8;
    write_interrupt_command(u64::from(apic_id()) << 32 | NMI)
}

fn handle() {
    if CAME.fetch_add(1, Ordering::Relaxed) != 0 {
        return;
    }
    // That it is not refused was seen outside; one that is lost is missed there.
    let _sent = send();
    while tsc() < UNTIL.load(Ordering::Relaxed) {
        if CAME.load(Ordering::Relaxed) != 1 {
            NESTED.store(1, Ordering::Relaxed);
        }
    }
}
