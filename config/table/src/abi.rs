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
//! @bulkhead value NAME VALUE UNIT
//! @bulkhead verdict pass|fail TEXT
//! ```
//!
//! NAME has no spaces; VALUE and COUNT are decimal; `bin` lines carry each non-empty bin of the
//! histogram in ascending order; UNIT is a word such as `ticks`. One `verdict` line closes a guest's report.

/// Hypervisor CPUID leaf: EAX = highest hypervisor leaf, EBX/ECX/EDX = [`CPUID_SIGNATURE`].
pub const CPUID_BASE: u32 = 0x4000_0000;

/// EBX, ECX, EDX of [`CPUID_BASE`], as twelve bytes of text.
pub const CPUID_SIGNATURE: [u8; 12] = *b"BulkheadHv\0\0";

/// Leaf with EAX = version of this interface ([`VERSION`]), EBX = partition id, ECX = kind of core
/// ([`core_kind`]), EDX = 0.
pub const CPUID_INTERFACE: u32 = 0x4000_0001;

/// Timing leaf, as VMware and KVM define it: EAX = TSC frequency in kHz, EBX = APIC timer input frequency in
/// kHz (0: unknown), ECX = EDX = 0.
pub const CPUID_TIMING: u32 = 0x4000_0010;

/// Version of the guest interface.
pub const VERSION: u32 = 1;

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
    /// than asked when the ring is full; the guest sends the rest again.
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
}

/// Negative results of hypercalls, as they stand in RAX.
pub mod status {
    /// No such call.
    pub const UNKNOWN_CALL: u64 = -1_i64 as u64;
    /// Not allowed here or now.
    pub const DENIED: u64 = -2_i64 as u64;
    /// An argument is out of range.
    pub const INVALID: u64 = -3_i64 as u64;
}

/// Values of RBX in [`call::FINISH`].
pub mod verdict {
    /// All that the guest promised to show held.
    pub const PASS: u64 = 0;
    /// Something did not.
    pub const FAIL: u64 = 1;
}

/// Most bytes that one [`call::CONSOLE`] carries.
pub const CONSOLE_BYTES: usize = 48;

/// How a report line starts.
pub const REPORT_PREFIX: &str = "@bulkhead ";
