//! Registers that no control block switches: switched by hand, for both vendors from one list.
#![expect(unsafe_code, reason = "switches machine registers")]

use core::arch::asm;

use hv_core::cpuid::SpeculationMsrs;
use hv_defs::msr;
use x86_64::registers::control::{Cr2, Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

/// MSRs that the guest may write and the VMCS does not carry: KERNEL_GS_BASE, STAR, LSTAR, CSTAR, FMASK, TSC_AUX.
const SWITCHED_MSRS: [u32; 6] =
    [0xC000_0102, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0103];

/// Bytes of the XSAVE area: what x87, SSE, AVX and AVX-512 take in the standard format (SDM 1 13.5). A processor that wants more gets
/// the first two only: see [`xcr0_allowed`].
const XSAVE_BYTES: usize = 2688;

/// An XSAVE area. SDM 1 13.4.
#[repr(C, align(64))]
struct XsaveArea([u8; XSAVE_BYTES]);

/// The registers of one vCPU.
pub struct Switched {
    /// IA32_SPEC_CTRL, where the processor has it.
    speculation: Option<u64>,
    msrs: [u64; SWITCHED_MSRS.len()],
    debug: [u64; 4],
    dr6: u64,
    cr2: u64,
    xcr0: u64,
    xsave: XsaveArea,
}

impl Switched {
    /// Notes the XCR0 that the guest runs with from now on, and loads it.
    pub fn set_xcr0(&mut self, value: u64) {
        self.xcr0 = value;
        write_xcr0(value);
    }

    /// Whether the processor has IA32_SPEC_CTRL.
    pub const fn has_speculation_control(&self) -> bool {
        self.speculation.is_some()
    }

    /// As after power-up.
    pub const fn new(has_speculation_control: bool) -> Self {
        let mut xsave = XsaveArea([0; XSAVE_BYTES]);
        // MXCSR's reset value (SDM 1 11.6.4) in the legacy area; the header stays zero, so XRSTOR gives every
        // component its initial state.
        xsave.0[24] = 0x80;
        xsave.0[25] = 0x1F;
        Self {
            speculation: if has_speculation_control { Some(0) } else { None },
            msrs: [0; SWITCHED_MSRS.len()],
            debug: [0; 4],
            dr6: DR6_RESET,
            cr2: 0,
            xcr0: 1,
            xsave,
        }
    }

    /// From the machine, behind [`Self::take_speculation_control`].
    pub fn save(&mut self, xcr0_allowed: u64) {
        for (slot, number) in self.msrs.iter_mut().zip(SWITCHED_MSRS) {
            // SAFETY: architectural MSRs of every 64-bit processor with RDTSCP; reading has no effect.
            *slot = unsafe { Msr::new(number).read() };
        }
        // SAFETY: reading debug registers and CR2 has no effect; DR7 is 0x400 since the exit (SDM 3C 28.5.1), so none traps.
        unsafe {
            asm!("mov {}, dr0", out(reg) self.debug[0], options(nomem, nostack));
            asm!("mov {}, dr1", out(reg) self.debug[1], options(nomem, nostack));
            asm!("mov {}, dr2", out(reg) self.debug[2], options(nomem, nostack));
            asm!("mov {}, dr3", out(reg) self.debug[3], options(nomem, nostack));
            asm!("mov {}, dr6", out(reg) self.dr6, options(nomem, nostack));
        }
        self.cr2 = Cr2::read_raw();
        write_xcr0(xcr0_allowed);
        // SAFETY: the area is 64-byte aligned and larger than the allowed components need, which
        // `xsave_fits` checked at set-up.
        unsafe {
            asm!("xsave64 [{}]", in(reg) self.xsave.0.as_mut_ptr(),
                 in("eax") xcr0_allowed as u32, in("edx") (xcr0_allowed >> 32) as u32,
                 options(nostack));
        }
    }

    /// Debug registers and CR2 as INIT leaves them, in the machine: the vCPU has its core.
    pub fn reset_debug(&mut self) {
        self.debug = [0; 4];
        self.dr6 = DR6_RESET;
        self.cr2 = 0;
        self.load_debug();
    }

    /// Gives the guest its IA32_SPEC_CTRL.
    pub fn load_speculation_control(&self) {
        if let Some(value) = self.speculation {
            // SAFETY: the processor has the register, and the value was read from it, or is 0, as after reset.
            unsafe { Msr::new(msr::SPEC_CTRL).write(value) };
        }
    }

    /// Keeps the guest's value and writes 0, as after reset.
    pub fn take_speculation_control(&mut self) {
        if let Some(value) = &mut self.speculation {
            let mut control = Msr::new(msr::SPEC_CTRL);
            // SAFETY: the processor has the register, as `new` was told; 0 restricts nothing.
            unsafe {
                *value = control.read();
                control.write(0);
            }
        }
    }

    fn load_debug(&self) {
        // SAFETY: the hypervisor sets no breakpoint (DR7 is 0x400 in root mode), so the addresses are inert until the guest runs.
        unsafe {
            asm!("mov dr0, {}", in(reg) self.debug[0], options(nomem, nostack));
            asm!("mov dr1, {}", in(reg) self.debug[1], options(nomem, nostack));
            asm!("mov dr2, {}", in(reg) self.debug[2], options(nomem, nostack));
            asm!("mov dr3, {}", in(reg) self.debug[3], options(nomem, nostack));
            asm!("mov dr6, {}", in(reg) self.dr6, options(nomem, nostack));
            asm!("mov cr2, {}", in(reg) self.cr2, options(nomem, nostack));
        }
    }

    /// Into the machine.
    pub fn load(&mut self, xcr0_allowed: u64) {
        self.load_speculation_control();
        for (value, number) in self.msrs.iter().zip(SWITCHED_MSRS) {
            // SAFETY: each value was read from the same MSR, or is 0, which all six accept; the hypervisor uses none of them.
            unsafe { Msr::new(number).write(*value) };
        }
        self.load_debug();
        write_xcr0(xcr0_allowed);
        // SAFETY: the area came from XSAVE with the same components, or is the clean area of `new`; the hypervisor is soft-float, so no
        // vector register of its own is lost.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) self.xsave.0.as_ptr(),
                 in("eax") xcr0_allowed as u32, in("edx") (xcr0_allowed >> 32) as u32,
                 options(nostack));
        }
        write_xcr0(self.xcr0);
    }
}

/// DR6 after reset. SDM 3B 18.2.3.
const DR6_RESET: u64 = 0xFFFF_0FF0;

/// Loads XCR0.
fn write_xcr0(value: u64) {
    // SAFETY: the value is the allowed mask, or was checked by `hv_core::exit::xcr0_is_valid`; the hypervisor uses no vector register.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
             options(nomem, nostack));
    }
}

/// The MSRs that this processor has against speculation.
pub fn speculation_msrs() -> SpeculationMsrs {
    SpeculationMsrs::from_leaf(core::arch::x86_64::__cpuid_count(7, 0).edx)
}

/// Prepares a core for the guests' extended states: CR4.OSXSAVE on.
pub fn prepare_extended_state() {
    // SAFETY: XSAVE was verified at boot; the bit only makes XSETBV and XSAVE usable.
    unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::OSXSAVE)) };
}

/// XCR0 components that guests may use here: x87, SSE, AVX, AVX-512, as far as the processor has them and
/// they fit the area.
pub fn xcr0_allowed() -> u64 {
    const OFFERED: u64 = 0b1110_0111;
    let leaf = core::arch::x86_64::__cpuid_count(0xD, 0);
    let supported = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & OFFERED;
    if xsave_fits(supported) { supported } else { supported & 0b11 }
}

fn xsave_fits(components: u64) -> bool {
    (2..63).filter(|bit| components & (1 << bit) != 0).all(|bit| {
        let leaf = core::arch::x86_64::__cpuid_count(0xD, bit);
        u64::from(leaf.eax) + u64::from(leaf.ebx) <= XSAVE_BYTES as u64
    })
}
