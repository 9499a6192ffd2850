//! Names of bits, as the manuals give them: data only, no behaviour beyond look-ups.
//!
//! SDM means Intel's Software Developer's Manual (order 325462, edition of 2023-24, where the VMX chapters
//! are 24-34 of volume 3C). APM means AMD's Architecture Programmer's Manual (volume 2, order 24593, where
//! SVM is chapter 15; volume 3, order 24594).
#![no_std]
#![forbid(unsafe_code)]

pub mod apic;
pub mod cpuid;
pub mod ept;
pub mod exit;
pub mod msr;
pub mod paging;
pub mod svm;
pub mod vmcb;
pub mod vmcs;
