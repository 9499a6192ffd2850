//! From the boot loader's hand-over to the point where every core of the table calls `run::core_main`.
//!
//! The order: copy what the boot loader says, verify the board against the table, stage the guest images, switch to
//! the final page tables, start the other cores, verify those, release all. Nothing of a partition runs before the
//! whole board is verified.

mod amd_v;
mod clock;
mod cores;
mod defects;
mod entry;
mod firmware;
mod info;
mod machine;
mod memory_map;
mod power;
mod processor;
mod skew;
mod staging;
mod wall_clock;

pub use machine::{Machine, build_id, machine};

use crate::run::partition;
use crate::screen::Display;
use crate::table::TABLE;
use crate::text::say;
use crate::{cpu, memory, screen, serial};
use clock::Clock;
use defects::Defects;
use firmware::Firmware;
use hv_core::multiboot::Information;
use info::BootInfo;
use machine::Staged;

/// Index of the boot core in the table.
const BOOT_CORE: usize = 0;

/// The boot core in 64-bit mode, on its own stack, on the boot tables. `information` is the physical address that
/// the boot loader handed over.
extern "C" fn boot_core_main(information: u64) -> ! {
    cpu::load_descriptors(BOOT_CORE);
    let mut defects = Defects::new();
    let serial_works = serial::init();
    let loaded = info::load(information);
    let info = loaded.as_ref().map(BootInfo::copy);
    if let Some(display) = info.as_ref().and_then(|info| info.display) {
        screen::init(display);
    }
    print_banner();
    if !serial_works {
        tell_no_line(&mut defects);
    }
    processor::verify_virtualization(&mut defects);
    defects.halt_if_any();

    let (Some(info), Some(loaded)) = (info, loaded) else {
        defects.refuse(format_args!(
            "the boot loader's Multiboot2 information at {information:#x} cannot be read; boot the disk image as it was built"
        ))
    };
    let clock = verify(&loaded, &info, &mut defects);
    defects.halt_if_any();
    let Some(clock) = clock else { defects.refuse(format_args!("the TSC cannot be measured")) };
    // From here on the boot information may be overwritten.
    let staged = staging::stage(&info.modules);
    serial::open_memory();
    set_up_memory(&info);
    cpu::apic::silence_legacy_controllers();
    let skew = cores::start_all(&clock, &mut defects);
    clock::verify_vouched(&clock, &mut defects);
    defects.halt_if_any();
    release(staged, &clock, skew)
}

fn tell_no_line(defects: &mut Defects) {
    match TABLE.board.uart {
        Some(uart) => defects.add(format_args!(
            "no serial port answers at {} {:#x}, where the board file declares it; correct [serial], or take the section out where the board has no serial port",
            if uart.in_memory { "address" } else { "I/O port" },
            uart.base
        )),
        None => defects.add(format_args!(
            "the hypervisor's image leaves no room for the log in its range, which ends at {:#x}; enlarge [hypervisor] size in the board file",
            TABLE.hypervisor.end()
        )),
    }
}

fn print_banner() {
    let id = build_id();
    say!(
        "\r\nBulkhead {} {}, build {:02x}{:02x}{:02x}{:02x}",
        env!("CARGO_PKG_VERSION"),
        TABLE.system,
        id[0],
        id[1],
        id[2],
        id[3]
    );
}

/// Holds the board against the table, as far as the boot core alone can.
fn verify(loaded: &Information<'static>, info: &BootInfo, defects: &mut Defects) -> Option<Clock> {
    let memory = info::memory_map(loaded);
    processor::verify_boot_core(defects);
    memory_map::verify(&memory, defects);
    let firmware = Firmware::read(&info.roots, &memory, defects);
    firmware.verify_cores(defects);
    clock::verify(firmware.pm_timer(defects)?, defects)
}

/// Switches to the final page tables; a display that they cannot map goes dark, and the serial port says so.
fn set_up_memory(info: &BootInfo) {
    let display: Option<&Display> = info.display.as_ref();
    if !memory::build(display, partition::vcpu_pages()) && display.is_some() {
        screen::switch_off();
        say!(
            "Bulkhead: the display's memory is too large or lies where the table has RAM; the screen stays dark."
        );
    }
    cores::copy_trampoline(info.conventional_page);
    memory::activate(BOOT_CORE);
}

/// Publishes what was found and lets every core go.
fn release(staged: staging::Images, clock: &Clock, tsc_skew: u64) -> ! {
    let machine = machine::publish(Machine {
        entry_tsc: entry::tsc(),
        tsc_hz: clock.tsc_hz,
        tsc_skew,
        clock: wall_clock::read(clock.tsc_hz),
        staged,
    });
    say!(
        "Bulkhead: the board is {}; TSC {} Hz, cores within {} ticks; {} of {} partitions start.",
        TABLE.board.name,
        clock.tsc_hz,
        tsc_skew,
        machine.staged.iter().filter(|staged| matches!(staged, Staged::Ready(_))).count(),
        TABLE.partitions.len()
    );
    serial::wait_until_sent();
    cores::release();
    crate::core_main(BOOT_CORE, machine)
}
