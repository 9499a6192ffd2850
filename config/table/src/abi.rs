//! What a guest and the hypervisor say to each other: CPUID leaves, hypercalls, console lines.
//!
//! # Hypercalls
//! `VMCALL` (later `VMMCALL`) with the number in RAX; arguments in RBX, RDI, RSI, RDX, R8, R9, R10 as each
//! call states; the result in RAX. Other registers are preserved unless the call says that it returns
//! in them. An unknown number returns [`status::UNKNOWN_CALL`]. Privilege level 0 only: from
//! another level the call returns [`status::DENIED`].
//!
//! # Report lines
//! A guest reports what it measured on its console, in lines that start with [`REPORT_PREFIX`]; they
//! read the same with and without a hypervisor:
//!
//! ```text
//! @bulkhead histogram NAME UNIT count=N min=N median=N p99_9=N max=N
//! @bulkhead bin NAME VALUE COUNT
//! @bulkhead slice NAME TSC MIN MAX
//! @bulkhead worst NAME VALUE TSC
//! @bulkhead value NAME VALUE UNIT
//! @bulkhead verdict pass|fail TEXT
//! ```
//!
//! NAME has no spaces; VALUE and COUNT are decimal; `bin` lines carry each non-empty bin of the
//! histogram in ascending order; `slice` lines its extremes over time, each from TSC on, and `worst` its largest value and when
//! it came; UNIT is a word such as `ticks`. One `verdict` line closes a guest's report.

/// Hypervisor CPUID leaf: EAX = highest hypervisor leaf, EBX/ECX/EDX = [`CPUID_SIGNATURE`].
pub const CPUID_BASE: u32 = 0x4000_0000;

/// What the leaves from [`CPUID_BASE`] on are counted from in a partition with the platform of a PC, which finds KVM at
/// [`CPUID_BASE`]: the next place where systems look for a hypervisor.
pub const CPUID_BASE_OF_PC: u32 = 0x4000_0100;

/// EBX, ECX, EDX of [`CPUID_BASE`], as twelve bytes of text.
pub const CPUID_SIGNATURE: [u8; 12] = *b"BulkheadHv\0\0";

/// Leaf with EAX = version of this interface ([`VERSION`]), EBX = partition id, ECX = kind of core
/// ([`core_kind`]), EDX = 0.
pub const CPUID_INTERFACE: u32 = 0x4000_0001;

/// Timing leaf, as VMware and KVM define it: EAX = TSC frequency in kHz, EBX = APIC timer input frequency in
/// kHz (0: unknown), ECX = EDX = 0.
pub const CPUID_TIMING: u32 = 0x4000_0010;

/// Leaf with EAX = the vCPU's number within its partition, EBX = number of the partition's vCPUs, ECX and EDX = low and high half of
/// the guest-physical address of the vCPU's own [`SchedulePage`]; 0 on a dedicated core, which has none.
pub const CPUID_VCPU: u32 = 0x4000_0002;

/// Version of the guest interface.
pub const VERSION: u32 = 2;

/// Values of ECX in [`CPUID_INTERFACE`].
pub mod core_kind {
    /// The core is the partition's alone.
    pub const DEDICATED: u32 = 0;
    /// The partition runs in windows of a major frame.
    pub const SHARED: u32 = 1;
}

/// Hypercall numbers (RAX).
pub mod call {
    /// Writes to the partition's console. RBX = number of bytes, 1 to 48; the bytes, in little-endian
    /// order, in RDI, RSI, RDX, R8, R9, R10. Returns in RAX how many bytes were taken, from the first on: fewer
    /// than asked when the ring is full or the end of the window is near; the guest sends the rest again.
    pub const CONSOLE: u64 = 1;
    /// Opens the measured span: the hypervisor notes the partition's exit count. Returns 0.
    pub const SPAN_BEGIN: u64 = 2;
    /// Closes the measured span. Returns 0; RBX = exits taken between the two calls, neither
    /// call counted. Without an open span returns [`super::status::DENIED`].
    pub const SPAN_END: u64 = 3;
    /// The guest's own windows. Returns 0 and RBX = epoch (TSC), RDI = length of the major frame in ticks,
    /// RSI = start within the frame and RDX = length of the window that is running now. On a dedicated core
    /// returns [`super::status::DENIED`].
    pub const WINDOW: u64 = 4;
    /// The partition has finished. RBX = verdict ([`super::verdict`]). Does not return.
    pub const FINISH: u64 = 5;
    /// Asks for plan RBX on all time-shared cores. Returns 0 and RBX = number of the frame from which it holds: the running one and
    /// two, so that no core misses the edge. [`super::status::DENIED`] without `may-switch-plan`,
    /// [`super::status::INVALID`] for a plan that is none, [`super::status::BUSY`] while an earlier request
    /// waits for its frame.
    pub const SWITCH_PLAN: u64 = 6;
    /// What became of a request. Returns 0 and RBX = the plan that runs now, RDI = the plan that was asked for last, RSI = the frame
    /// from which that one holds (0: since the start), RDX = number of the running frame.
    /// [`super::status::DENIED`] on a dedicated core.
    pub const PLAN: u64 = 7;
    /// Gives up the rest of this window. Returns 0 at the start of this vCPU's next window. On a dedicated core returns
    /// [`super::status::DENIED`].
    pub const YIELD: u64 = 8;
    /// Sleeps until the first window of this vCPU in frame RBX or later; windows before that are left idle, and no interrupt wakes it
    /// earlier. Returns 0 then; at once for a frame that has begun. On a dedicated core returns [`super::status::DENIED`].
    pub const SLEEP_UNTIL_FRAME: u64 = 9;
    /// Gives the rest of this window to the partition that `donates-to` names; its vCPU on this core runs in it. Returns 0 at the
    /// start of this vCPU's own next window. [`super::status::DENIED`] without `donates-to`. A receiver that cannot run leaves
    /// the core idle.
    pub const DONATE: u64 = 10;
}

/// Negative results of hypercalls, as they stand in RAX.
pub mod status {
    /// No such call.
    pub const UNKNOWN_CALL: u64 = -1_i64 as u64;
    /// Not allowed here or now.
    pub const DENIED: u64 = -2_i64 as u64;
    /// An argument is out of range.
    pub const INVALID: u64 = -3_i64 as u64;
    /// Not now: an earlier request is still on its way. Ask again.
    pub const BUSY: u64 = -4_i64 as u64;
}

/// Values of RBX in [`call::FINISH`].
pub mod verdict {
    /// All that the guest promised to show held.
    pub const PASS: u64 = 0;
    /// Something did not.
    pub const FAIL: u64 = 1;
}

/// What a vCPU of a time-shared core may know of its time, in a page of its own that it can only read. Written before each of its
/// windows begins, while it does not run; another vCPU of the partition that reads it meanwhile finds [`Self::sequence`] odd or
/// changed, and reads again. Instants are TSC values, the guest's own clock. All fields little-endian, in this order without gaps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedulePage {
    /// [`VERSION`].
    pub version: u32,
    /// Number of the vCPU within its partition.
    pub vcpu: u32,
    /// Odd while the page is being written; grows by two with each window.
    pub sequence: u64,
    /// TSC at which frame 0 began.
    pub epoch: u64,
    /// Length of the major frame.
    pub frame_length: u64,
    /// Number of the frame of the running window.
    pub frame: u64,
    /// Declared start of the running window.
    pub window_start: u64,
    /// End of the running window.
    pub window_end: u64,
    /// Start of this vCPU's next window as the plans stand now; `u64::MAX` when it has none in that frame's plan.
    pub next_start: u64,
    /// End of that window; `u64::MAX` when there is none.
    pub next_end: u64,
    /// The plan of the running frame.
    pub plan: u32,
    /// The plan that holds from [`Self::plan_from`] on; equals [`Self::plan`] once it does.
    pub next_plan: u32,
    /// Frame from which [`Self::next_plan`] holds.
    pub plan_from: u64,
    /// Windows of this vCPU that were entered late or missed, so far.
    pub late: u64,
    /// Timer interrupts of this vCPU that came due outside its windows and were pending at the next start, so far.
    pub timers_outside: u64,
    /// 1 when the running time is donated by another partition, else 0.
    pub donated: u64,
}

const _: () = assert!(size_of::<SchedulePage>() == 14 * 8);

/// EAX of an exit that a hypervisor built with its feature `floor` answers with nothing but the way back: what an exit costs at the
/// least. To every other hypervisor it is an unknown CPUID leaf.
pub const FLOOR_MARK: u32 = 0x4FFF_F100;

/// Most bytes that one [`call::CONSOLE`] carries.
pub const CONSOLE_BYTES: usize = 48;

/// How a report line starts.
pub const REPORT_PREFIX: &str = "@bulkhead ";
