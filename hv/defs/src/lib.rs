//! Names of bits, as the manuals give them: data only, no behaviour beyond look-ups.
//!
//! SDM means Intel's Software Developer's Manual (order 325462, edition of 2023-24, where the VMX chapters
//! are 24-34 of volume 3C).
#![no_std]
#![forbid(unsafe_code)]

pub mod apic;
pub mod cpuid;
pub mod ept;
pub mod exit;
pub mod msr;
pub mod paging;
pub mod vmcs;
