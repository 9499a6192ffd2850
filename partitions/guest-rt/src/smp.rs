//! More than one CPU: starting the others, on the bare machine and in a partition with several cores alike.
//!
//! What guest-rt keeps for itself is the first CPU's: [`Deadline`](crate::Deadline), [`Alarm`](crate::Alarm) and the attempts of
//! `hostile` are used on one CPU at a time.
#![expect(unsafe_code, reason = "copies start-up code, and is jumped to by it")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crate::apic::{self, IpiKind, send_ipi};
use crate::interrupts;
use crate::machine::halt_for_ever;
use crate::start_up::{self, Signal};

global_asm!(include_str!("smp.s"), secondary = sym secondary);

/// Starts of CPUs in a guest's life at most, that of the first included. Each has tables and a stack of its own.
pub(crate) const STARTS: usize = 8;

/// Page number of the start-up code: below 1 MiB, in memory that every PC has free once its firmware is done.
const PAGE: u8 = 8;
/// Where in it smp.s wants the address of the page tables' root.
const ROOT_AT: usize = 16;
const STACK_BYTES: usize = 32 * 1024;

#[repr(align(16))]
struct Stack(#[expect(dead_code, reason = "only its address is used")] [u8; STACK_BYTES]);

// Written by the CPUs only, so they must not lie in read-only memory.
static mut STACKS: [Stack; STARTS] = [const { Stack([0; STACK_BYTES]) }; STARTS];

/// `fn(u32)` that the CPU to come is to run.
static MAIN: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
/// Starts so far, without the first CPU's.
static STARTED: AtomicUsize = AtomicUsize::new(0);
/// CPUs that have arrived, a second arrival counted again.
static ARRIVED: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static guest_secondary_begin: u8;
    static guest_secondary_end: u8;
    static mut guest_secondary_stack: u64;
}

/// Starts the CPU with the APIC id `id`: INIT, start-up, and `main` with its id. The CPU has its local APIC in x2APIC mode and
/// otherwise as INIT leaves it, that is switched off by software, and interrupts off. When `main` returns, it halts for good.
/// `tsc_khz` is the clock to wait by. Returns whether the CPU arrived.
///
/// A CPU that runs is reset by this. One is started at a time, by the first, and seven times in all.
pub fn start_cpu(id: u32, tsc_khz: u64, main: fn(u32)) -> bool {
    let start = STARTED.fetch_add(1, Ordering::AcqRel) + 1;
    if start >= STARTS {
        return false;
    }
    MAIN.store(main as *mut (), Ordering::Release);
    let top = &raw const STACKS as u64 + ((start + 1) * STACK_BYTES) as u64;
    // SAFETY: the variable is read by the CPU that is started below, and by no other.
    unsafe { (&raw mut guest_secondary_stack).write_volatile(top) };
    copy_start_up_code();
    let before = ARRIVED.load(Ordering::Acquire);
    let send = |signal| {
        send_ipi(
            id,
            match signal {
                Signal::Init => IpiKind::Init,
                Signal::Startup => IpiKind::Startup(PAGE),
            },
        );
        Some(())
    };
    start_up::start(tsc_khz, send, || ARRIVED.load(Ordering::Acquire) != before)
}

/// How often a CPU other than the first has arrived so far.
#[must_use]
pub fn arrivals() -> u64 {
    ARRIVED.load(Ordering::Acquire)
}

fn copy_start_up_code() {
    let begin = &raw const guest_secondary_begin;
    let length = &raw const guest_secondary_end as usize - begin as usize;
    let (root, _) = x86_64::registers::control::Cr3::read_raw();
    let target = (usize::from(PAGE) << 12) as *mut u8;
    // SAFETY: the page is the guest's own, mapped one to one, and nothing of the guest lies below 1 MiB once the boot information
    // was read. The page tables lie below 4 GiB, as all of the guest does.
    unsafe {
        core::ptr::copy_nonoverlapping(begin, target, length);
        target.add(ROOT_AT).cast::<u32>().write_unaligned(root.start_address().as_u64() as u32);
    }
}

/// Where smp.s hands over.
extern "C" fn secondary() -> ! {
    interrupts::set_up(STARTED.load(Ordering::Acquire));
    apic::enter_x2apic();
    let main = MAIN.load(Ordering::Acquire);
    ARRIVED.fetch_add(1, Ordering::AcqRel);
    // SAFETY: only `start_cpu` stores here, and it stores a `fn(u32)` before it starts this CPU.
    let main: fn(u32) = unsafe { core::mem::transmute(main) };
    main(apic::apic_id());
    halt_for_ever()
}
