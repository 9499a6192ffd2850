//! x87, SSE, AVX and AVX-512 state, as XSAVE lays it out. For guests that test the hypervisor: the compiler uses none of these
//! registers here, so a guest may fill them as it likes.
#![expect(unsafe_code, reason = "executes XSAVE and XRSTOR")]

use core::arch::asm;

use crate::hostile::{Fault, read_cr4, write_cr4, write_extended_control};
use crate::machine::cpuid;

/// x87 and SSE, which lie in the legacy area. SDM 1 13.4.1.
pub const LEGACY: u64 = 0b11;
/// Every component that this module knows: x87, SSE, AVX, the three of AVX-512.
pub const KNOWN: u64 = 0b1110_0111;
/// Bytes of an [`Area`]; x87 to AVX-512 take 2,688. SDM 1 13.5.
pub const BYTES: usize = 4096;
/// Where the header starts, whose first eight bytes say which components are not in their initial state. SDM 1 13.4.2.
pub const HEADER: usize = 512;

/// CR4.OSFXSR, CR4.OSXMMEXCPT and CR4.OSXSAVE.
const CR4_BITS: u64 = 1 << 9 | 1 << 10 | 1 << 18;
const CPUID_XSAVE: u32 = 1 << 26;
const EXTENDED_STATE: u32 = 0xD;

/// An XSAVE area in the standard format.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Area(pub [u8; BYTES]);

impl Area {
    /// Every component in its initial state. SDM 1 13.6.
    #[must_use]
    pub const fn initial() -> Self {
        let mut bytes = [0; BYTES];
        // The x87 control word and MXCSR as they are after FNINIT and reset. SDM 1 8.1.5, 11.6.4.
        bytes[0] = 0x7F;
        bytes[1] = 0x03;
        bytes[24] = 0x80;
        bytes[25] = 0x1F;
        Self(bytes)
    }

    /// Says which components are to be loaded from the area; the others get their initial state. SDM 1 13.4.2.
    pub fn set_in_use(&mut self, components: u64) {
        self.0[HEADER..HEADER + 8].copy_from_slice(&components.to_le_bytes());
    }
}

/// Switches on every component that CPUID offers and this module knows, and returns them as XCR0 has them. 0 where there is
/// no XSAVE.
///
/// # Errors
/// The [`Fault`] by which what CPUID offers was refused.
pub fn enable() -> Result<u64, Fault> {
    if cpuid(1, 0).ecx & CPUID_XSAVE == 0 {
        return Ok(0);
    }
    write_cr4(read_cr4() | CR4_BITS)?;
    let offered = u64::from(cpuid(EXTENDED_STATE, 0).eax) & KNOWN;
    write_extended_control(0, offered)?;
    Ok(offered)
}

/// Where a component above SSE lies in an [`Area`]: offset and size in bytes.
#[must_use]
pub fn place(component: u32) -> (usize, usize) {
    let found = cpuid(EXTENDED_STATE, component);
    (found.ebx as usize, found.eax as usize)
}

/// Saves `components`, of which each must be on in XCR0.
pub fn save(area: &mut Area, components: u64) {
    // SAFETY: the area is aligned and larger than all known components.
    unsafe {
        asm!("xsave64 [{}]", in(reg) area.0.as_mut_ptr(),
             in("eax") components as u32, in("edx") (components >> 32) as u32, options(nostack));
    }
}

/// Loads `components`, of which each must be on in XCR0, from an area that holds nothing reserved.
pub fn restore(area: &Area, components: u64) {
    // SAFETY: the area is aligned and large enough; this target keeps nothing in the registers that change.
    unsafe {
        asm!("xrstor64 [{}]", in(reg) area.0.as_ptr(),
             in("eax") components as u32, in("edx") (components >> 32) as u32, options(nostack));
    }
}
