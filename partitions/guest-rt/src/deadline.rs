//! Waiting for an instant, and alarms at an instant, by the local APIC's timer.
#![expect(unsafe_code, reason = "waits in assembly for its own interrupt stub")]

use core::arch::asm;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::interrupts::{DEADLINE_VECTOR, on_interrupt};
use crate::machine::disable_interrupts;
use crate::timer;

/// How [`Deadline::wait`] spends its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Halted.
    Halted,
    /// In a loop.
    Spinning,
}

/// Waits for absolute instants, and learns within three instructions when it was woken.
#[derive(Debug)]
pub struct Deadline {
    wait: Wait,
}

impl Deadline {
    /// Points the timer here. An [`Alarm`] takes it away again when it is set.
    #[must_use]
    pub fn new(wait: Wait) -> Self {
        timer::prepare(DEADLINE_VECTOR);
        Self { wait }
    }

    /// Waits until the TSC reaches `deadline` and returns the TSC as the first instruction of the
    /// interrupt handler read it. A deadline that has passed interrupts at once. In one-shot mode that is never
    /// before the deadline; in TSC-deadline mode it is when the processor says. Other interrupts are taken
    /// meanwhile; interrupts are off afterwards.
    #[inline(always)]
    #[must_use]
    pub fn wait(&self, deadline: u64) -> u64 {
        disable_interrupts(); // the stub must find nothing but the wait below
        // 0 would disarm, and the wait never end
        if timer::set(DEADLINE_VECTOR, deadline.max(1)) {
            self.woken()
        } else {
            self.wait_by_counts(deadline)
        }
    }

    #[inline(never)]
    fn wait_by_counts(&self, deadline: u64) -> u64 {
        loop {
            timer::count(DEADLINE_VECTOR, deadline);
            let woken = self.woken();
            if woken >= deadline {
                return woken;
            }
        }
    }

    #[inline(always)]
    fn woken(&self) -> u64 {
        match self.wait {
            Wait::Halted => wait_halted(),
            Wait::Spinning => wait_spinning(),
        }
    }
}

// `guest_deadline_stub` overwrites RAX, RCX, RDX and puts the TSC into RSI. Its interrupt is raised by the
// timer alone, which is armed for it just before one of these two, and neither returns before it
// came: so it never interrupts other code. (Nobody else can raise it: `check_free` keeps
// the vector from every other use.)

#[inline(always)]
fn wait_halted() -> u64 {
    let woken: u64;
    // SAFETY: the registers that the stub changes are declared. `sti` lets no interrupt in before the `hlt`
    // behind it, so none is slept through.
    unsafe {
        asm!(
            "xor esi, esi",
            "2: sti",
            "hlt",
            "cli",
            "test rsi, rsi",
            "jz 2b",
            out("rsi") woken, out("rax") _, out("rcx") _, out("rdx") _,
        );
    }
    woken
}

#[inline(always)]
pub(crate) fn wait_spinning() -> u64 {
    let woken: u64;
    // SAFETY: the registers that the stub changes are declared.
    unsafe {
        asm!(
            "xor esi, esi",
            "sti",
            "2: test rsi, rsi",
            "jz 2b",
            "cli",
            out("rsi") woken, out("rax") _, out("rcx") _, out("rdx") _,
        );
    }
    woken
}

/// In one-shot mode: the handler of the alarm that was set last, a `fn(u64)`.
static HANDLER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Calls a function at an instant while the guest goes on with interrupts enabled.
#[derive(Debug)]
pub struct Alarm {
    vector: u8,
    handler: fn(u64),
}

impl Alarm {
    /// The alarm raises `vector` (32 to 239, of which none is taken by guest-rt), whose `handler` gets the TSC
    /// at which it was entered.
    #[must_use]
    pub fn new(vector: u8, handler: fn(u64)) -> Self {
        on_interrupt(vector, if timer::counts() { counted } else { handler });
        Self { vector, handler }
    }

    /// Sets the alarm to the TSC value `deadline`, in place of the one before.
    pub fn set(&self, deadline: u64) {
        let deadline = deadline.max(1);
        if !timer::set(self.vector, deadline) {
            HANDLER.store(self.handler as *mut (), Ordering::Relaxed);
            timer::count(self.vector, deadline);
        }
    }

    /// Withdraws the alarm.
    pub fn clear(&self) {
        timer::stop();
    }
}

/// What every alarm calls in one-shot mode: the timer may have come before its time.
fn counted(tsc: u64) {
    let handler = HANDLER.load(Ordering::Relaxed);
    if timer::goes_on(tsc) || handler.is_null() {
        return;
    }
    // SAFETY: only `Alarm::set` stores here, and it stores a `fn(u64)`.
    let handler: fn(u64) = unsafe { core::mem::transmute(handler) };
    handler(tsc);
}
