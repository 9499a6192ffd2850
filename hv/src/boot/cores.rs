//! Starts the other cores of the table, one at a time, verifies each, and holds all until the board is verified.
#![expect(unsafe_code, reason = "writes the real-mode trampoline and sends start-up IPIs")]

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use heapless::Vec;
use spin::Once;
use x2apic::lapic::LocalApic;

use super::clock::Clock;
use super::defects::Defects;
use super::entry::{self, AP_STACK_TOP};
use super::processor::{self, apic_id_of};
use super::skew::{self, Skew};
use crate::cpu::{self, apic, stacks::STACKS};
use crate::memory::{self, PAGE};
use crate::table::{CORES, TABLE};

/// Waits of the start-up sequence in microseconds. SDM 3A 9.4.4.
const AFTER_INIT: u64 = 10_000;
const AFTER_STARTUP: u64 = 200;
/// How long a core may take to come up, in microseconds.
const STARTUP_LIMIT: u64 = 100_000;
/// How long a core may take to verify itself, in microseconds.
const VERIFY_LIMIT: u64 = 500_000;

/// Abilities that are told of one core.
const MISSING: usize = 48;

/// What a core found missing in itself.
type Missing = Vec<&'static str, MISSING>;

/// Index in the table of the core that is coming up.
static STARTING: AtomicUsize = AtomicUsize::new(0);
static ARRIVED: [AtomicBool; CORES] = [const { AtomicBool::new(false) }; CORES];
static VERIFIED: [Once<Missing>; CORES] = [const { Once::new() }; CORES];
static RELEASED: AtomicBool = AtomicBool::new(false);

/// Physical address of the trampoline, once it was copied.
static TRAMPOLINE: Once<u64> = Once::new();

/// Copies the real-mode code to this page of conventional RAM, while the boot tables still map it. A system of one core needs none.
pub fn copy_trampoline(page: Option<u64>) {
    let code = entry::trampoline();
    if CORES == 1 {
        return;
    }
    let Some(page) = page else {
        return;
    };
    // SAFETY: the page is usable RAM below 640 KiB, nothing of ours lies there, everything that the boot loader put
    // there was copied, and the code is shorter than a page.
    unsafe {
        core::ptr::copy_nonoverlapping(
            code.as_ptr(),
            page as *mut u8,
            code.len().min(PAGE as usize),
        )
    };
    TRAMPOLINE.call_once(|| page);
}

/// Puts the boot core's APIC in order, starts the other cores of the table and verifies them; returns the largest
/// difference found between a TSC and the boot core's. Stops at the first core that does not come up.
pub fn start_all(clock: &Clock, defects: &mut Defects) -> u64 {
    let mut apic = match apic::init() {
        Ok(apic) => apic,
        Err(why) => {
            defects.add(format_args!("the boot core's APIC cannot be set up: {why}"));
            return 0;
        }
    };
    let mut largest = 0;
    for core in 1..CORES {
        match start(core, &mut apic, clock, defects) {
            Some(skew) => largest = largest.max(skew.magnitude()),
            None => break,
        }
    }
    largest
}

/// Starts and verifies one core; `None`, told as a defect, when it does not come up.
fn start(core: usize, apic: &mut LocalApic, clock: &Clock, defects: &mut Defects) -> Option<Skew> {
    let (Some(id), Some(entry), Some(stacks), Some(verified)) =
        (apic_id_of(core), TABLE.cores.get(core), STACKS.get(core), VERIFIED.get(core))
    else {
        defects.add(format_args!("the table's core {core} has no APIC id"));
        return None;
    };
    let cpu = entry.cpu;
    let Some(page) = TRAMPOLINE.get() else {
        defects.add(format_args!(
            "core {cpu} cannot be started: the memory map has no usable page below 640 KiB"
        ));
        return None;
    };
    STARTING.store(core, Ordering::Release);
    AP_STACK_TOP.store(stacks.main_top(), Ordering::Release);
    if !wake(core, id, (page / PAGE) as u8, apic, clock) {
        defects.add(format_args!(
            "core {cpu} (APIC id {id}) does not come up after INIT and two start-up IPIs"
        ));
        return None;
    }
    let skew = skew::measure();
    let finished = wait(clock, VERIFY_LIMIT, || verified.is_completed());
    let (Some(skew), true) = (skew, finished) else {
        defects.add(format_args!("core {cpu} (APIC id {id}) came up and then stopped answering"));
        return None;
    };
    for name in verified.get().into_iter().flatten() {
        defects.add(format_args!("core {cpu} (APIC id {id}) lacks {name}"));
    }
    verify_skew(cpu, skew, defects);
    Some(skew)
}

fn verify_skew(cpu: u16, skew: Skew, defects: &mut Defects) {
    if !skew.is_within(TABLE.board.tsc_skew) {
        defects.add(format_args!(
            "core {cpu}'s TSC is {} to {} ticks ahead of the boot core's, and the board file allows a skew of {} ticks; firmware must leave the TSCs synchronised",
            skew.low, skew.high, TABLE.board.tsc_skew
        ));
    }
}

/// INIT, then at most two start-up IPIs. Returns whether the core arrived.
fn wake(core: usize, id: u32, page: u8, apic: &mut LocalApic, clock: &Clock) -> bool {
    let arrived = || ARRIVED.get(core).is_some_and(|arrived| arrived.load(Ordering::Acquire));
    apic::fence();
    // SAFETY: the target is a core of the table that was not started yet; the trampoline is in place.
    unsafe { apic.send_init_ipi(id) };
    clock.wait(AFTER_INIT);
    for limit in [AFTER_STARTUP, STARTUP_LIMIT] {
        apic::fence();
        // SAFETY: as above; a core that runs already ignores it.
        unsafe { apic.send_sipi(page, id) };
        if wait(clock, limit, arrived) {
            return true;
        }
    }
    false
}

/// Waits until `done`, at most this many microseconds.
fn wait(clock: &Clock, microseconds: u64, done: impl Fn() -> bool) -> bool {
    let limit = cpu::tsc() + clock.microseconds(microseconds);
    while !done() {
        if cpu::tsc() > limit {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// Where a started core arrives in 64-bit mode, on its own stack, on the boot tables.
pub extern "C" fn application_core_main() -> ! {
    let core = STARTING.load(Ordering::Acquire);
    memory::activate(core);
    cpu::load_descriptors(core);
    if let Some(arrived) = ARRIVED.get(core) {
        arrived.store(true, Ordering::Release);
    }
    let answered = skew::answer();
    let missing = verify_self();
    if let Some(verified) = VERIFIED.get(core)
        && answered
    {
        verified.call_once(|| missing);
    }
    while !RELEASED.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    crate::core_main(core, super::machine())
}

fn verify_self() -> Missing {
    let mut missing = Missing::new();
    processor::missing_abilities(&mut |name| {
        // More than fit are as good a reason to refuse as those that do.
        let _fits = missing.push(name);
    });
    if missing.is_empty() && apic::init().is_err() {
        let _fits = missing.push("an APIC that can be set up");
    }
    missing
}

/// Lets every started core go to the run loop.
pub fn release() {
    RELEASED.store(true, Ordering::Release);
}
