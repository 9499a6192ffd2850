//! Descriptor tables, exceptions and interrupt handlers.
#![expect(unsafe_code, reason = "loads descriptor tables, runs on interrupt frames")]

use core::arch::{asm, global_asm};
use core::fmt;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use crate::apic::{SPURIOUS_VECTOR, end_of_interrupt};
use crate::guest::{Verdict, finish};
use crate::println;
use crate::smp::STARTS;

global_asm!(include_str!("vectors.s"), exception = sym exception, interrupt = sym interrupt, recovery = sym RECOVERY);

/// The vector of [`crate::Deadline`]. The highest class below the error and spurious vectors.
pub(crate) const DEADLINE_VECTOR: u8 = 0xF0;

/// Bytes of one stub in vectors.s.
const STUB_BYTES: u64 = 16;
/// Bytes of the stack for exceptions that must not trust the current one.
const FAULT_STACK_BYTES: usize = 8192;
/// Vectors that run on that stack: NMI and double fault.
const ON_FAULT_STACK: [u8; 2] = [2, 8];

unsafe extern "C" {
    static guest_stubs: u8;
    static guest_deadline_stub: u8;
    static guest_ring3_return: u8;
}

/// What a handler needs to resume: pushed by vectors.s and by the CPU.
#[repr(C)]
pub(crate) struct Frame {
    registers: [u64; 15],
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// An interrupt gate (SDM 3A, 7.14.1).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Gate {
    offset_low: u16,
    selector: u16,
    options: u16,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Gate>() == 16);

impl Gate {
    fn new(handler: u64, selector: SegmentSelector, stack: u16, ring: u16) -> Self {
        Self {
            offset_low: handler as u16,
            selector: selector.0,
            options: 0x8E00 | ring << 13 | stack, // present, 64-bit interrupt gate
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

/// Segments of ring 3, for guests that test the hypervisor.
#[cfg_attr(not(feature = "hostile"), expect(dead_code, reason = "used by hostile guests"))]
pub(crate) struct UserSegments {
    pub(crate) code: u16,
    pub(crate) data: u16,
}

/// The vector by which ring 3 comes back to ring 0.
const RETURN_VECTOR: u8 = 0xF1;

#[repr(align(16))]
struct FaultStack(
    #[expect(dead_code, reason = "only its address is used")] [u8; FAULT_STACK_BYTES],
);

// Written by the CPU only, so it must not lie in read-only memory.
static mut FAULT_STACKS: [FaultStack; STARTS] =
    [const { FaultStack([0; FAULT_STACK_BYTES]) }; STARTS];
static mut RING0_STACK: FaultStack = FaultStack([0; FAULT_STACK_BYTES]);

static TASK_STATES: [Once<TaskStateSegment>; STARTS] = [const { Once::new() }; STARTS];
static SEGMENTS: [Once<(GlobalDescriptorTable, UserSegments, SegmentSelector)>; STARTS] =
    [const { Once::new() }; STARTS];
/// A whole table of gates.
pub(crate) type Gates = [Gate; 256];

static GATES: Once<Gates> = Once::new();

/// `fn(u64)` by vector; null: none.
static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];

/// `fn()` for NMIs; null: none.
static NMI_HANDLER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Where an exception resumes instead of ending the guest; 0: nowhere. See [`crate::hostile`].
pub(crate) static RECOVERY: AtomicU64 = AtomicU64::new(0);
/// The last exception that was recovered from: bit 63, vector in bits 39-32, error code in bits 31-0.
pub(crate) static FAULT: AtomicU64 = AtomicU64::new(0);
/// Set in [`RECOVERY`] to run the same instruction again and again.
pub(crate) const RETRY_FOR_EVER: u64 = u64::MAX;

/// Loads segment and interrupt tables on a CPU. `start` is 0 for the first and grows with each that is started, the same once more
/// included: a task state that was loaded once cannot be loaded again.
pub(crate) fn set_up(start: usize) {
    let number = start % STARTS;
    let task_state = TASK_STATES[number].call_once(|| {
        let mut task_state = TaskStateSegment::new();
        let stacks = VirtAddr::from_ptr(&raw const FAULT_STACKS);
        task_state.interrupt_stack_table[0] = stacks + ((number + 1) * FAULT_STACK_BYTES) as u64;
        task_state.privilege_stack_table[0] =
            VirtAddr::from_ptr(&raw const RING0_STACK) + FAULT_STACK_BYTES as u64;
        task_state
    });
    SEGMENTS[number].call_once(|| {
        let mut segments = GlobalDescriptorTable::new();
        segments.append(Descriptor::kernel_code_segment());
        let data = segments.append(Descriptor::user_data_segment());
        let code = segments.append(Descriptor::user_code_segment());
        let task = segments.append(Descriptor::tss_segment(task_state));
        (segments, UserSegments { code: code.0, data: data.0 }, task)
    });
    let gates = GATES.call_once(|| core::array::from_fn(|vector| gate(vector as u8)));
    if let Some((segments, _, task)) = SEGMENTS[number].get() {
        segments.load();
        // SAFETY: selector 8 is the code segment of the table just loaded, and the task selector names its
        // task state; both tables live for ever.
        unsafe {
            CS::set_reg(KERNEL_CODE);
            load_tss(*task);
        }
    }
    load_gates(gates);
}

/// The first segment of the table.
const KERNEL_CODE: SegmentSelector = SegmentSelector(0x08);

/// The segments of ring 3; `None` before [`set_up`].
#[cfg(feature = "hostile")]
pub(crate) fn user_segments() -> Option<&'static UserSegments> {
    SEGMENTS[0].get().map(|(_, user, _)| user)
}

fn gate(vector: u8) -> Gate {
    let stub = match vector {
        DEADLINE_VECTOR => &raw const guest_deadline_stub as u64,
        RETURN_VECTOR => &raw const guest_ring3_return as u64,
        _ => &raw const guest_stubs as u64 + u64::from(vector) * STUB_BYTES,
    };
    let stack = u16::from(ON_FAULT_STACK.contains(&vector));
    let ring = if vector == RETURN_VECTOR { 3 } else { 0 };
    Gate::new(stub, KERNEL_CODE, stack, ring)
}

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// Gates for exceptions as ever, and one stub for each vector that the local APIC delivers (16 to 255).
#[cfg(feature = "hostile")]
pub(crate) fn with_interrupts_to(stub: u64) -> Gates {
    core::array::from_fn(|vector| match vector {
        ..16 => gate(vector as u8),
        _ => Gate::new(stub, KERNEL_CODE, 0, 0),
    })
}

/// The usual gates, but for debug exceptions, which go to `stub` on the stack whose top is [`fault_stack_top`].
#[cfg(feature = "hostile")]
pub(crate) fn with_debug_on_fault_stack(stub: u64) -> Gates {
    core::array::from_fn(|vector| match vector {
        1 => Gate::new(stub, KERNEL_CODE, 1, 0),
        _ => gate(vector as u8),
    })
}

/// Top of the first CPU's stack for exceptions that must not trust the current one.
#[cfg(feature = "hostile")]
pub(crate) fn fault_stack_top() -> u64 {
    &raw const FAULT_STACKS as u64 + FAULT_STACK_BYTES as u64
}

/// Loads the gates that [`set_up`] loaded.
#[cfg(feature = "hostile")]
pub(crate) fn load_own_gates() {
    if let Some(gates) = GATES.get() {
        load_gates(gates);
    }
}

pub(crate) fn load_gates(gates: &'static Gates) {
    let pointer =
        TablePointer { limit: (size_of::<Gates>() - 1) as u16, base: gates.as_ptr() as u64 };
    // SAFETY: each gate leads to a stub, and the table lives for ever.
    unsafe {
        asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags))
    };
}

/// Calls `handler` with the TSC at its entry whenever `vector` interrupts, with interrupts off; the end of interrupt
/// is signalled behind it. Replaces the handler before it.
///
/// # Panics
/// When the vector is an exception's or guest-rt's own (32 to 239 are free).
pub fn on_interrupt(vector: u8, handler: fn(u64)) {
    assert!(
        (32..DEADLINE_VECTOR).contains(&vector),
        "vector {vector} is not free; choose one from 32 to 239"
    );
    HANDLERS[usize::from(vector)].store(handler as *mut (), Ordering::Release);
}

/// Calls `handler` at each NMI, on a stack of its own, with further NMIs held off until it returns. Without one an NMI ends the guest.
pub fn on_nmi(handler: fn()) {
    NMI_HANDLER.store(handler as *mut (), Ordering::Release);
}

/// Whether the exception was an NMI for which there is a handler, which then has run.
fn handled_as_nmi(vector: u64) -> bool {
    const NMI: u64 = 2;
    let handler = NMI_HANDLER.load(Ordering::Acquire);
    if vector != NMI || handler.is_null() {
        return false;
    }
    // SAFETY: only `on_nmi` stores here, and it stores a `fn()`.
    let handler: fn() = unsafe { core::mem::transmute(handler) };
    handler();
    true
}

/// Panics unless the vector is the guest's to use. Behind the others stand stubs that must not run at any other
/// time than theirs.
pub(crate) fn check_free(vector: u8) {
    assert!(
        (32..DEADLINE_VECTOR).contains(&vector),
        "vector {vector} is not free; choose one from 32 to 239"
    );
}

/// Called by vectors.s for each interrupt.
extern "C" fn interrupt(vector: u32, tsc: u64) {
    if vector == u32::from(SPURIOUS_VECTOR) {
        return;
    }
    let handler = HANDLERS
        .get(vector as usize)
        .map_or(core::ptr::null_mut(), |it| it.load(Ordering::Acquire));
    if handler.is_null() {
        println!("interrupt {vector:#x} has no handler; register one by on_interrupt");
        finish(Verdict::fail("an interrupt without a handler"));
    }
    // SAFETY: only `on_interrupt` stores here, and it stores a `fn(u64)`.
    let handler: fn(u64) = unsafe { core::mem::transmute(handler) };
    handler(tsc);
    end_of_interrupt();
}

/// RFLAGS.TF.
const TRAP_FLAG: u64 = 1 << 8;

/// Called by vectors.s for each exception.
extern "C" fn exception(frame: &mut Frame) {
    if handled_as_nmi(frame.vector) {
        return;
    }
    match RECOVERY.load(Ordering::Relaxed) {
        0 => {
            println!("{}", Described(frame));
            finish(Verdict::fail("an exception"));
        }
        RETRY_FOR_EVER => {}
        resume_at => {
            FAULT
                .store(1 << 63 | frame.vector << 32 | frame.error & 0xFFFF_FFFF, Ordering::Relaxed);
            frame.rip = resume_at;
            // What steps is over with the attempt.
            frame.rflags &= !TRAP_FLAG;
            RECOVERY.store(0, Ordering::Relaxed);
        }
    }
}

/// An exception in words.
struct Described<'a>(&'a Frame);

impl fmt::Display for Described<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frame { vector, error, rip, rsp, rflags, .. } = self.0;
        let name = name(*vector);
        write!(
            out,
            "exception {vector} ({name}) at rip={rip:#x}: error={error:#x} rsp={rsp:#x} rflags={rflags:#x}"
        )?;
        if *vector == 14 {
            let address = x86_64::registers::control::Cr2::read_raw();
            write!(out, " address={address:#x}")?;
        }
        Ok(())
    }
}

/// Mnemonics of SDM 3A, table 7-1.
const fn name(vector: u64) -> &'static str {
    match vector {
        0 => "#DE divide error",
        1 => "#DB debug",
        2 => "NMI",
        3 => "#BP breakpoint",
        4 => "#OF overflow",
        5 => "#BR bound range",
        6 => "#UD invalid opcode",
        7 => "#NM no FPU",
        8 => "#DF double fault",
        10 => "#TS invalid TSS",
        11 => "#NP segment not present",
        12 => "#SS stack fault",
        13 => "#GP general protection",
        14 => "#PF page fault",
        16 => "#MF x87 error",
        17 => "#AC alignment check",
        18 => "#MC machine check",
        19 => "#XM SIMD error",
        20 => "#VE virtualization",
        21 => "#CP control protection",
        _ => "reserved",
    }
}
