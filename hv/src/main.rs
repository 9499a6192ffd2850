//! The enforcer: a Type-1 hypervisor that executes the static partition table.
//!
//! `boot` brings the machine from the boot loader's hand-over to the point where every core of the table calls
//! `run::core_main`; `run` and `vmx` are what happens from there on.
#![no_std]
#![no_main]

mod boot;
mod cpu;
mod log;
mod memory;
mod panic;
mod run;
mod serial;
mod table;
mod text;
mod vmx;

use hv_screen as screen;
