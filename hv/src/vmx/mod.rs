//! The VT-x back end: VMX operation, VMCS set-up, entry and exit, and nothing that decides.

pub mod controls;
pub mod entry;
pub mod exits;
pub mod instructions;
pub mod setup;
pub mod vcpu;

pub use controls::missing_controls;
