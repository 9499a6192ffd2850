//! The calls to the hypervisor; see `bulkhead_table::abi` for their registers.
#![expect(unsafe_code, reason = "VMCALL")]

use core::arch::asm;

use bulkhead_table::abi::{call, status};

use crate::guest::under_hypervisor;
use crate::machine::cpuid;
use crate::schedule::Window;

/// Registers that a call returns in.
struct Returned {
    rax: u64,
    rbx: u64,
    rdi: u64,
    rsi: u64,
    rdx: u64,
}

unsafe extern "C" {
    /// The addresses of all hypercalls of the guest, which each of them leaves in a section of its own; see `guest.ld`.
    static __hypercall_sites: u64;
    static __hypercall_sites_end: u64;
}

/// The hypercall of AMD-V. APM 3, VMMCALL; VMCALL is as long.
const VMMCALL: [u8; 3] = [0x0F, 0x01, 0xD9];

/// Makes every hypercall of this guest a VMMCALL, where the processor is not Intel's. The instruction is chosen once, because a branch would
/// cost each call.
pub(crate) fn choose_instruction() {
    const INTEL: [u8; 4] = *b"Genu";
    if cpuid(0, 0).ebx.to_le_bytes() == INTEL {
        return;
    }
    let (mut site, end) = (&raw const __hypercall_sites, &raw const __hypercall_sites_end);
    while site < end {
        // SAFETY: between the two lie addresses of hypercalls only. The guest's memory is mapped one to one and writable, no other CPU runs
        // yet, and CPUID serialized ahead of the first call.
        unsafe {
            (*site as *mut [u8; 3]).write_volatile(VMMCALL);
            site = site.add(1);
        }
    }
    let _serialized = cpuid(0, 0);
}

/// Executes VMCALL or VMMCALL. Only under the hypervisor: elsewhere it is an invalid instruction.
#[inline(always)]
fn vmcall(number: u64, rbx: u64, words: [u64; 6]) -> Returned {
    let [rdi, rsi, rdx, r8, r9, r10] = words;
    let mut returned = Returned { rax: number, rbx, rdi, rsi, rdx };
    // SAFETY: a hypercall of this interface reads and writes registers only. RBX cannot be named as an operand,
    // so it is exchanged with one that can.
    unsafe {
        asm!(
            "xchg rbx, {rbx}",
            "771: vmcall\n.pushsection .hypercall_sites, \"a\"\n.quad 771b\n.popsection",
            "xchg rbx, {rbx}",
            rbx = inout(reg) returned.rbx,
            inout("rax") returned.rax,
            inout("rdi") returned.rdi,
            inout("rsi") returned.rsi,
            inout("rdx") returned.rdx,
            in("r8") r8,
            in("r9") r9,
            in("r10") r10,
            options(nostack),
        );
    }
    returned
}

/// Offers 1 to 48 console bytes and returns how many were taken, or a status.
pub(crate) fn console(length: usize, words: [u64; 6]) -> u64 {
    vmcall(call::CONSOLE, length as u64, words).rax
}

/// Ends the partition.
pub(crate) fn finish(verdict: u64) {
    vmcall(call::FINISH, verdict, [0; 6]);
}

/// Opens the measured span in which the hypervisor counts exits. Natively does nothing.
#[inline(always)]
pub fn span_begin() {
    if under_hypervisor() {
        vmcall(call::SPAN_BEGIN, 0, [0; 6]);
    }
}

/// Closes the measured span and returns the exits within it; `None` natively and without an open span.
#[inline(always)]
pub fn span_end() -> Option<u64> {
    if !under_hypervisor() {
        return None;
    }
    let returned = vmcall(call::SPAN_END, 0, [0; 6]);
    (returned.rax == 0).then_some(returned.rbx)
}

/// The window that is running now; `None` natively and on a dedicated core.
#[must_use]
pub fn window() -> Option<Window> {
    if !under_hypervisor() {
        return None;
    }
    let Returned { rax, rbx: epoch, rdi: frame, rsi: start, rdx: length } =
        vmcall(call::WINDOW, 0, [0; 6]);
    (rax == 0).then_some(Window { epoch, frame, start, length })
}

/// Why a call of a partition that knows its time was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such call here: the bare machine, or an older hypervisor.
    Unknown,
    /// The system file does not allow it, or the core is a dedicated one.
    Denied,
    /// No such plan or frame.
    Invalid,
    /// An earlier request waits for its frame.
    Busy,
}

/// Calls and sorts the answers.
fn ask(number: u64, rbx: u64) -> Result<Returned, Refused> {
    if !under_hypervisor() {
        return Err(Refused::Unknown);
    }
    let returned = vmcall(number, rbx, [0; 6]);
    match returned.rax {
        0 => Ok(returned),
        status::DENIED => Err(Refused::Denied),
        status::INVALID => Err(Refused::Invalid),
        status::BUSY => Err(Refused::Busy),
        _ => Err(Refused::Unknown),
    }
}

/// Asks for a plan, by its place in the system file's list. Returns the frame from which it holds, on all cores.
///
/// # Errors
/// [`Refused`]: nothing changes.
pub fn switch_plan(plan: u64) -> Result<u64, Refused> {
    ask(call::SWITCH_PLAN, plan).map(|returned| returned.rbx)
}

/// What became of a request for a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanState {
    /// The plan that runs.
    pub running: u64,
    /// The plan that was asked for last.
    pub requested: u64,
    /// The frame from which that one holds.
    pub from: u64,
    /// Number of the running frame.
    pub frame: u64,
}

/// The plans as they stand.
///
/// # Errors
/// [`Refused::Denied`] on a dedicated core.
pub fn plan_state() -> Result<PlanState, Refused> {
    let Returned { rbx: running, rdi: requested, rsi: from, rdx: frame, .. } = ask(call::PLAN, 0)?;
    Ok(PlanState { running, requested, from, frame })
}

/// Gives up the rest of this window; returns at the start of the next one.
///
/// # Errors
/// [`Refused`]: the window goes on.
pub fn yield_window() -> Result<(), Refused> {
    ask(call::YIELD, 0).map(|_| ())
}

/// Sleeps until the first window in this frame or a later one.
///
/// # Errors
/// [`Refused`]: the window goes on.
pub fn sleep_until_frame(frame: u64) -> Result<(), Refused> {
    ask(call::SLEEP_UNTIL_FRAME, frame).map(|_| ())
}

/// Gives the rest of this window to the partition that the system file names; returns at the start of the next own one.
///
/// # Errors
/// [`Refused`]: the window goes on.
pub fn donate_window() -> Result<(), Refused> {
    ask(call::DONATE, 0).map(|_| ())
}
