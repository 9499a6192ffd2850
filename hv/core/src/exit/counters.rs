//! What a vCPU counts: exits by kind, denied accesses by kind, and the exits of its measured span.

/// Defines an enum of kinds without gaps, with a name for each.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$entry:meta])* $kind:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$entry])* $kind,)*
        }

        impl $name {
            /// Every kind, in the order of their numbers.
            pub const ALL: [Self; [$($text,)*].len()] = [$(Self::$kind,)*];

            /// The kind of this number; `None` where there is none.
            #[must_use]
            pub fn from_code(code: u32) -> Option<Self> {
                Self::ALL.get(usize::try_from(code).ok()?).copied()
            }

            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// Kinds of exits, the same for both vendors. Their numbers index the counters, the log's records and the baselines.
    ExitKind {
        /// CPUID.
        Cpuid = "CPUID",
        /// VMCALL or VMMCALL.
        Hypercall = "hypercall",
        /// RDMSR.
        ReadMsr = "RDMSR",
        /// WRMSR.
        WriteMsr = "WRMSR",
        /// IN, OUT and their string forms.
        Port = "I/O port",
        /// XSETBV.
        ExtendedControl = "XSETBV",
        /// A move to or from CR0, CR4 or CR8.
        ControlRegister = "control register",
        /// An access to guest-physical memory that the nested page tables refuse.
        Memory = "memory",
        /// INVD or WBINVD.
        CacheFlush = "INVD or WBINVD",
        /// An instruction that no partition has.
        Absent = "absent instruction",
        /// RDPMC.
        ReadCounter = "RDPMC",
        /// An intercepted exception.
        Exception = "exception",
        /// An NMI.
        Nmi = "NMI",
        /// A maskable interrupt of the machine.
        Interrupt = "interrupt",
        /// A write to SELF_IPI behind which software has to act.
        SelfIpi = "self-IPI",
        /// The guest can take an interrupt.
        InterruptWindow = "interrupt window",
        /// The guest can take an NMI.
        NmiWindow = "NMI window",
        /// The hypervisor's timer.
        Timer = "timer",
        /// INIT or a start-up IPI from outside.
        Reset = "reset signal",
        /// A triple fault.
        TripleFault = "triple fault",
        /// A hardware task switch.
        TaskSwitch = "task switch",
        /// A guest state that the processor refused.
        InvalidState = "invalid state",
        /// Any other.
        Unknown = "unknown",
    }
}

/// Number of kinds of exits.
pub const EXIT_KINDS: usize = ExitKind::ALL.len();

kinds! {
    /// Kinds of denied access, as [`crate::wire::StatKey::Denied`] numbers them.
    Denial {
        /// An I/O port.
        Port = "port",
        /// An MSR.
        Msr = "MSR",
        /// An interrupt command or a local vector table entry.
        Interrupt = "ICR or LVT write",
        /// Guest-physical memory.
        Memory = "memory",
        /// A hypercall.
        Hypercall = "hypercall",
        /// A control register.
        ControlRegister = "control register",
        /// An instruction.
        Instruction = "instruction",
    }
}

/// Number of kinds of denial.
pub const DENIALS: usize = Denial::ALL.len();

/// The counters of one vCPU.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Exits by [`ExitKind`].
    pub exits: [u64; EXIT_KINDS],
    /// Denied accesses by [`Denial`].
    pub denied: [u64; DENIALS],
    /// [`Self::exits`] when the measured span was opened.
    span_base: [u64; EXIT_KINDS],
    span_is_open: bool,
    /// Exits inside the last measured span by kind, the two calls that mark it left out.
    pub span: Option<[u64; EXIT_KINDS]>,
}

impl Counters {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            exits: [0; EXIT_KINDS],
            denied: [0; DENIALS],
            span_base: [0; EXIT_KINDS],
            span_is_open: false,
            span: None,
        }
    }

    /// Counts one exit.
    #[inline(always)]
    pub const fn count(&mut self, kind: ExitKind) {
        let counter = &mut self.exits[kind as usize];
        *counter = counter.wrapping_add(1);
    }

    /// Opens the measured span.
    pub fn open_span(&mut self) {
        self.span_base = self.exits;
        self.span_is_open = true;
    }

    /// Closes the span and returns the number of exits in it; `None` when none was open.
    pub fn close_span(&mut self) -> Option<u64> {
        if !core::mem::take(&mut self.span_is_open) {
            return None;
        }
        let mut span = self.exits;
        for (count, base) in span.iter_mut().zip(&self.span_base) {
            *count = count.wrapping_sub(*base);
        }
        // One of them is the very call that closes it.
        let call = &mut span[ExitKind::Hypercall as usize];
        *call = call.saturating_sub(1);
        self.span = Some(span);
        Some(span.iter().fold(0, |sum, count| sum.wrapping_add(*count)))
    }

    /// Adds what another vCPU of the same partition counted; an open span is left out.
    pub fn add(&mut self, other: &Self) {
        let add = |sums: &mut [u64], counts: &[u64]| {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum = sum.wrapping_add(*count);
            }
        };
        add(&mut self.exits, &other.exits);
        add(&mut self.denied, &other.denied);
        if let Some(span) = &other.span {
            add(self.span.get_or_insert([0; EXIT_KINDS]), span);
        }
    }

    /// Counts one denied access.
    #[inline(always)]
    pub const fn deny(&mut self, denial: Denial) {
        let counter = &mut self.denied[denial as usize];
        *counter = counter.wrapping_add(1);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
