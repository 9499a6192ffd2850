//! The decisions of the hypervisor, free of hardware: they run in the hypervisor, in the compiler
//! (where pools are sized with the same rules) and in host tests.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on says so"))]

#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod cpuid;
pub mod errata;
pub mod exit;
pub mod fate;
pub mod fetch;
pub mod health;
pub mod hygiene;
pub mod inbox;
pub mod ipi;
pub mod load;
pub mod mappings;
pub mod memory_log;
pub mod memory_map;
pub mod msr;
pub mod multiboot;
pub mod pace;
pub mod paging;
pub mod pc;
pub mod port;
pub mod power;
pub mod ring;
pub mod schedule;
pub mod serial;
pub mod stream;
pub mod trace;
pub mod vapic;
pub mod wire;
