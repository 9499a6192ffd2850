//! The enforcer: a Type-1 hypervisor that executes the static partition table.
//!
//! `boot` brings the machine from the boot loader's hand-over to the point where every core of the table calls
//! `run::core_main`; `run` and `vmx` are what happens from there on.
#![no_std]
#![no_main]

mod backend;
mod boot;
mod cpu;
mod log;
mod memory;
mod panic;
mod run;
mod serial;
mod svm;
mod switched;
mod table;
mod text;
mod vcpu;
mod vmx;

use boot::processor::Virtualization;
use hv_screen as screen;
use svm::Svm;
use vmx::Vmx;

/// Where every core of the table goes once the board is verified; `core` indexes the table's cores. Both back ends are in the program, and
/// CPUID chooses.
fn core_main(core: usize, machine: &'static boot::Machine) -> ! {
    match Virtualization::found() {
        Some(Virtualization::AmdV) => run::core_main::<Svm>(core, machine),
        _ => run::core_main::<Vmx>(core, machine),
    }
}

/// The NMI handler. Under AMD-V no NMI needs more than a note: see [`svm`].
fn on_nmi() {
    if run::nmi() {
        match Virtualization::found() {
            Some(Virtualization::AmdV) => <Svm as backend::Backend>::exit_soon(),
            _ => <Vmx as backend::Backend>::exit_soon(),
        }
    }
}
