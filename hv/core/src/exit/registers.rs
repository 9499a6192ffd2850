//! The general-purpose registers of a guest, in the order in which the exit stubs store them.

/// The general-purpose registers of a guest that an exit can be about, in the order in which the exit stub stores them, the last one
/// first. They are those that a call of the System V ABI may change, and RBX. So a decision cannot touch the others, and the stub
/// need not store them for the exits that software takes most. RSP is switched by the hardware.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct Registers {
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
}

const _: () = assert!(size_of::<Registers>() == 10 * 8);

/// The other general-purpose registers, which calls preserve: stored only when more is to be done than to answer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct Preserved {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
}

const _: () = assert!(size_of::<Preserved>() == 5 * 8);

impl Registers {
    /// EDX:EAX as RDMSR, WRMSR and XSETBV use them.
    #[must_use]
    pub const fn edx_eax(&self) -> u64 {
        (self.rdx << 32) | (self.rax & 0xFFFF_FFFF)
    }

    /// Stores a value as RDMSR returns it: both halves zero-extended.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.rax = value & 0xFFFF_FFFF;
        self.rdx = value >> 32;
    }
}
