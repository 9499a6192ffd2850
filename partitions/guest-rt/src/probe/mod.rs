//! The whole bare machine, for the probe: a program that is no partition and looks at everything once.
//!
//! Entry ([`probe_entry!`](crate::probe_entry)), what the boot loader says ([`Boot`]), physical memory and ports
//! ([`physical`]), the other cores ([`cores`]), and a heap. Everything that somebody else wrote (the boot loader,
//! firmware) is copied, and copied within bounds.

extern crate alloc;

pub mod cores;
mod heap;
pub mod physical;

use alloc::vec::Vec;

use hv_core::multiboot::{self, Information};
use hv_screen::Display;
use multiboot2::{BootInformation, BootInformationHeader, EFIMemoryAreaType};

use crate::guest::{Machine, Verdict, detect, finish};
use crate::{apic, console, interrupts, println};

/// Names the function `fn(&Boot) -> Verdict` that is the probe.
#[macro_export]
macro_rules! probe_entry {
    ($main:path) => {
        /// Where guest-rt's start-up code hands over.
        #[unsafe(no_mangle)]
        extern "C" fn guest_main(magic: u32, boot_info: u32) -> ! {
            $crate::probe::start(magic, boot_info, $main)
        }
    };
}

/// What the boot loader says of the machine.
pub struct Boot {
    /// Start, size and type of each range of the memory map. The types are those of ACPI 15, table 15.7.
    pub memory: Vec<(u64, u64, u32)>,
    /// Firmware is UEFI.
    pub uefi: bool,
    /// Start and size of what UEFI's boot services used, where the boot loader hands over UEFI's own map. UEFI 2.10, 7.2.
    pub boot_services: Vec<(u64, u64)>,
    /// ACPI's root table: its address, and whether its entries have 64 bits.
    pub root_table: Option<(u64, bool)>,
    /// Where text can be shown.
    pub display: Option<Display>,
}

/// Sets the boot core up, runs `main` and ends with its verdict. Called by [`probe_entry!`](crate::probe_entry) only.
#[doc(hidden)]
pub fn start(magic: u32, boot_info: u32, main: fn(&Boot) -> Verdict) -> ! {
    console::set_up_uart();
    interrupts::set_up(0);
    if detect() != Machine::Native {
        println!(
            "probe: a partition sees only what it was given; boot the probe image on the bare machine"
        );
        finish(Verdict::fail("not on the bare machine"));
    }
    apic::mask_legacy_controllers();
    heap::set_up();
    finish(main(&read_boot_info(magic, boot_info)))
}

fn read_boot_info(magic: u32, address: u32) -> Boot {
    if magic != multiboot2::MAGIC {
        println!(
            "boot: started with EAX={magic:#x}, which is not multiboot2; use GRUB's `multiboot2` command"
        );
        finish(Verdict::fail("not started by multiboot2"));
    }
    #[expect(unsafe_code, reason = "reads the boot information")]
    // SAFETY: the magic says that the loader put the information there; it is mapped one to one.
    let loaded = unsafe { BootInformation::load(address as usize as *const BootInformationHeader) };
    let Ok(information) = loaded else {
        println!("boot: the boot information at {address:#x} is malformed; the loader is at fault");
        finish(Verdict::fail("malformed boot information"));
    };
    let areas = information.memory_map_tag().into_iter().flat_map(|map| map.memory_areas());
    Boot {
        memory: areas
            .map(|area| (area.start_address(), area.size(), u32::from(area.typ())))
            .collect(),
        uefi: information.efi_sdt64_tag().is_some()
            || information.efi_sdt32_tag().is_some()
            || information.efi_ih64_tag().is_some()
            || information.efi_memory_map_tag().is_some(),
        boot_services: boot_services(&information),
        root_table: root_table(&information),
        // A screen that cannot be used stays dark: everything goes over COM1 too.
        display: display(address),
    }
}

fn boot_services(information: &BootInformation<'_>) -> Vec<(u64, u64)> {
    const PAGE: u64 = 4096;
    let used = [EFIMemoryAreaType::BOOT_SERVICES_CODE, EFIMemoryAreaType::BOOT_SERVICES_DATA];
    let areas = information.efi_memory_map_tag().into_iter().flat_map(|map| map.memory_areas());
    areas
        .filter(|area| used.contains(&area.ty))
        .map(|area| (area.phys_start, area.page_count.saturating_mul(PAGE)))
        .collect()
}

/// The display of the boot information at this address.
fn display(address: u32) -> Option<Display> {
    let address = u64::from(address);
    let size = physical::read_register(address)?.min(multiboot::LARGEST);
    let bytes = physical::read(address, size as usize)?;
    Display::of(&Information::new(&bytes), physical::REACHABLE).unwrap_or(None)
}

/// The newer root table when the boot loader hands over both.
fn root_table(information: &BootInformation<'_>) -> Option<(u64, bool)> {
    let new = information.rsdp_v2_tag().filter(|tag| tag.checksum_is_valid());
    let old = information.rsdp_v1_tag().filter(|tag| tag.checksum_is_valid());
    match (new, old) {
        (Some(tag), _) if tag.xsdt_address() != 0 => Some((tag.xsdt_address() as u64, true)),
        (_, Some(tag)) => Some((tag.rsdt_address() as u64, false)),
        _ => None,
    }
}
