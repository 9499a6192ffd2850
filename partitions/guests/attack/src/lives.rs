//! Attacks that take more than one life or CPU: a CPU or the whole partition starts again with every interrupt pending, and two CPUs end the
//! partition in two ways at once.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::hostile::{self, Width, port_out};
use guest_rt::pending::{self, Hidden};
use guest_rt::{Guest, Verdict, println, start_cpu, tsc};

/// The reset register of a PC partition, as its FADT names it, and what is written to it.
const RESET: u16 = 0x604;
const RESET_VALUE: u32 = 1;

/// Restarts the partition for ever, each time with every vector pending. A life that gets an interrupt of the one before fails. The
/// argument `hidden` counts the ways of [`Hidden::ALL`].
pub fn pending_restart(guest: &Guest) -> Verdict {
    if pending::count() > 0 {
        return Verdict::fail("interrupts of the life before came");
    }
    let way = guest.number("hidden", 0) as usize;
    let Some(hidden) = Hidden::ALL.get(way).copied() else {
        return Verdict::fail("`hidden` counts from 0 to 3");
    };
    println!("attack: hidden {hidden:?}");
    pending::leave(hidden);
    let answer = port_out(RESET, Width::Byte, RESET_VALUE);
    println!("attack: {answer:?}");
    Verdict::fail("the reset register did not restart the partition")
}

/// Lives of the other CPU: [`start_cpu`] starts no more.
const STARTS: u64 = 7;
/// Ticks that a life of the other CPU may take, windows of others included.
const PATIENCE: u64 = 50_000_000;

/// Interrupts of a former life that came to the other CPU.
static CAME: AtomicU64 = AtomicU64::new(0);
/// Lives of it that have left everything pending.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// Resets the other CPU again and again, each time with every vector pending there.
pub fn pending_init(guest: &Guest) -> Verdict {
    let other = guest.number("other", 0) as u32;
    for life in 0..STARTS {
        if !start_cpu(other, guest.tsc_khz(), live_and_leave) {
            println!("attack: life {life} of CPU {other} did not begin");
            return Verdict::fail("the other CPU did not start");
        }
        let begun = tsc();
        while LEFT.load(Ordering::Acquire) == life {
            if tsc() - begun > PATIENCE {
                println!("attack: life {life} of CPU {other} did not get through");
                return Verdict::fail("the other CPU was lost");
            }
            core::hint::spin_loop();
        }
    }
    match CAME.load(Ordering::Acquire) {
        0 => Verdict::pass("no interrupt outlived a reset of its CPU"),
        came => {
            println!("attack: {came} interrupts of former lives came");
            Verdict::fail("an interrupt outlived a reset of its CPU")
        }
    }
}

/// A life of the other CPU.
fn live_and_leave(_: u32) {
    pending::switch_on();
    CAME.fetch_add(pending::count(), Ordering::AcqRel);
    let life = LEFT.load(Ordering::Acquire) as usize;
    pending::leave(Hidden::ALL[life % Hidden::ALL.len()]);
    LEFT.fetch_add(1, Ordering::AcqRel);
    loop {
        core::hint::spin_loop();
    }
}

/// The instant at which both CPUs act; 0 while it is not set.
static INSTANT: AtomicU64 = AtomicU64::new(0);
/// An address that is not the guest's.
static OUTSIDE: AtomicU64 = AtomicU64::new(0);
/// Ticks from the decision to the instant: the other CPU sees it by then.
const NOTICE: u64 = 200_000;

/// The other CPU breaks out of the partition's memory, and this one says `lead` ticks later that all is well.
pub fn race_finish(guest: &Guest) -> Verdict {
    let (start, size) = guest.spare_memory();
    OUTSIDE.store(start + size, Ordering::Relaxed);
    let lead = guest.number("lead", 0);
    if !race(guest, lead, |_| {
        await_instant();
        let _answer = hostile::read_memory(OUTSIDE.load(Ordering::Relaxed));
    }) {
        return Verdict::fail("the other CPU did not start");
    }
    hostile::finish_at_once()
}

/// The other CPU switches the partition off, and this one restarts it at about the same time; which comes first is the clock's choice in each
/// life.
pub fn race_restart(guest: &Guest) -> Verdict {
    // Once in a while the restart comes so late that it comes behind the end.
    let lead = tsc() / 5 % 8 * 50;
    if !race(guest, lead, |_| {
        await_instant();
        let _answer = port_out(SLEEP_CONTROL, Width::Byte, SLEEP_TYPE_5);
    }) {
        return Verdict::fail("the other CPU did not start");
    }
    let answer = port_out(RESET, Width::Byte, RESET_VALUE);
    println!("attack: {answer:?}");
    Verdict::fail("the partition neither ended nor restarted")
}

/// The register by which a PC switches itself off, as its FADT names it, and what is written to it.
const SLEEP_CONTROL: u16 = 0x600;
const SLEEP_TYPE_5: u32 = 0x34;

/// Starts the other CPU with `act`, which awaits the instant, and returns `lead` ticks behind that. False where the CPU did not start.
fn race(guest: &Guest, lead: u64, act: fn(u32)) -> bool {
    let other = guest.number("other", 0) as u32;
    if !start_cpu(other, guest.tsc_khz(), act) {
        return false;
    }
    let instant = tsc() + NOTICE;
    INSTANT.store(instant, Ordering::Release);
    while tsc() < instant + lead {
        core::hint::spin_loop();
    }
    true
}

fn await_instant() {
    let instant = || INSTANT.load(Ordering::Acquire);
    while instant() == 0 || tsc() < instant() {
        core::hint::spin_loop();
    }
}
