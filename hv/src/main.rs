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
mod switched;
mod table;
mod text;
mod vcpu;
mod vmx;

use hv_screen as screen;
use vmx::Vmx;

/// Where every core of the table goes once the board is verified; `core` indexes the table's cores.
fn core_main(core: usize, machine: &'static boot::Machine) -> ! {
    run::core_main::<Vmx>(core, machine)
}

/// The NMI handler.
fn on_nmi() {
    run::nmi::<Vmx>();
}
