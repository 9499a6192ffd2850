//! The library for bare-metal guests: entry, printing, clock, interrupts, more CPUs, schedule, histogram, verdict.
//!
//! A guest is one `main`, which ends with a [`Verdict`]:
//!
//! ```text
//! #![no_std]
//! #![no_main]
//! use guest_rt::{Guest, Verdict, println};
//!
//! guest_rt::entry!(main);
//!
//! fn main(guest: &Guest) -> Verdict {
//!     guest.allow_arguments(&["period"]);
//!     let period = guest.ticks("period", "1ms");
//!     println!("one period is {period} ticks");
//!     Verdict::pass("counted the ticks of a period")
//! }
//! ```
//!
//! The same ELF file boots under Bulkhead and, by GRUB's `multiboot2`, on the bare machine, where it is the
//! yardstick of what the hypervisor costs. There the console is COM1, and the command line has to say
//! `tsc_khz=N`; `native-power-off` ends an emulator with the guest.
//!
//! A guest starts on one CPU, with interrupts off, except while it waits in [`Deadline::wait`] or after
//! [`enable_interrupts`]; [`start_cpu`] starts others. It runs in long mode, ring 0, with 4 GiB mapped one to one. Nothing here
//! allocates.
//!
//! [`arguments`], [`histogram`], [`rate`], [`schedule`], [`tally`] and [`timeline`] are plain logic and are tested on the host; the rest exists on the bare machine only.
#![no_std]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod arguments;
pub mod histogram;
pub mod rate;
pub mod schedule;
pub mod tally;
pub mod timeline;

#[cfg(target_os = "none")]
pub mod apic;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod console_page;
#[cfg(target_os = "none")]
mod deadline;
#[cfg(all(target_os = "none", feature = "hostile"))]
pub mod extended_state;
#[cfg(target_os = "none")]
pub mod gap;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod handover;
#[cfg(all(target_os = "none", feature = "hostile"))]
pub mod hostile;
#[cfg(target_os = "none")]
mod hypercall;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod machine;
#[cfg(all(target_os = "none", feature = "hostile"))]
pub mod pending;
#[cfg(all(target_os = "none", feature = "probe"))]
pub mod probe;
#[cfg(all(target_os = "none", feature = "hostile"))]
pub mod real_mode;
#[cfg(all(target_os = "none", feature = "hostile"))]
pub mod registers;
#[cfg(all(target_os = "none", feature = "hostile"))]
pub mod round_trip;
#[cfg(target_os = "none")]
mod schedule_page;
#[cfg(target_os = "none")]
mod smp;
#[cfg(target_os = "none")]
mod start_up;
#[cfg(target_os = "none")]
pub mod timer;
#[cfg(all(target_os = "none", feature = "hostile"))]
pub mod traps;

#[cfg(target_os = "none")]
pub use bare::*;

/// Everything that exists on the bare machine only.
#[cfg(target_os = "none")]
mod bare {
    pub use crate::apic::{IpiKind, apic_id, send_ipi, send_self_ipi};
    pub use crate::console::print;
    pub use crate::console_page::ConsolePage;
    pub use crate::deadline::{Alarm, Deadline, Wait};
    pub use crate::guest::{Guest, Machine, Verdict, finish, start};
    pub use crate::handover::{Handover, Protocol};
    pub use crate::hypercall::{
        PlanState, Refused, donate_window, plan_state, sleep_until_frame, span_begin, span_end,
        switch_plan, window, yield_window,
    };
    pub use crate::interrupts::{on_interrupt, on_nmi};
    pub use crate::machine::{
        Cpuid, cpuid, disable_interrupts, enable_interrupts, halt, halt_for_ever, tsc,
        wait_for_interrupt,
    };
    pub use crate::schedule_page::Page;
    pub use crate::smp::{arrivals, start_cpu};
    pub use bulkhead_table::abi::SchedulePage;
}

pub use histogram::Histogram;
pub use schedule::Window;
pub use tally::Tally;
pub use timeline::Timeline;

/// Names the function `fn(&Guest) -> Verdict` that is the guest.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// Where guest-rt's start-up code hands over.
        #[unsafe(no_mangle)]
        extern "C" fn guest_main(magic: u32, boot_info: u32) -> ! {
            $crate::start(magic, boot_info, $main)
        }
    };
}

/// Prints to the guest's console.
#[macro_export]
macro_rules! print {
    ($($part:tt)*) => { $crate::print(::core::format_args!($($part)*)) };
}

/// Prints a line to the guest's console.
#[macro_export]
macro_rules! println {
    () => { $crate::print(::core::format_args!("\n")) };
    ($($part:tt)*) => { $crate::print(::core::format_args!("{}\n", ::core::format_args!($($part)*))) };
}

/// Reports one figure on the console: `report_value!("span-exits", 0, "exits")`. The name has no spaces.
#[macro_export]
macro_rules! report_value {
    ($name:expr, $value:expr, $unit:literal) => {
        $crate::println!("@bulkhead value {} {} {}", $name, $value, $unit)
    };
}
