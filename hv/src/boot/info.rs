//! Copies what is needed of the Multiboot2 boot information, before anything can overwrite it. The boot loader is
//! not trusted: what does not fit or is out of range is said and left out.
#![expect(
    unsafe_code,
    reason = "reads the boot information at the address that the boot loader gave"
)]

use bulkhead_table::Range;
use heapless::{String, Vec};
use hv_core::acpi::Roots;
use hv_core::memory_map::MemoryMap;
use hv_core::multiboot::{self, Area, Information};

use crate::screen::Display;
use crate::table::PARTITIONS;
use crate::text::say;

/// Addresses that the boot tables map.
pub const REACHABLE: u64 = 1 << 32;

/// Longest name of a module that is kept; a partition's name is never longer than 63 bytes.
const NAME: usize = 64;

/// Modules that are kept: one for each partition and some that are only named as unknown.
const MODULES: usize = PARTITIONS + 8;

/// A module as the boot loader placed it.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its command line: the name of the partition.
    pub name: String<NAME>,
    /// Where it lies.
    pub place: Range,
}

/// What boot needs to know once the boot information may be overwritten.
pub struct BootInfo {
    /// ACPI's root tables.
    pub roots: Roots,
    /// Where text can be shown.
    pub display: Option<Display>,
    /// The modules, in the boot loader's order.
    pub modules: Vec<Module, MODULES>,
    /// A page of conventional RAM for the code that starts other cores.
    pub conventional_page: Option<u64>,
}

/// The boot information at this physical address; `None` where none can be. It holds until the guest images are staged.
pub fn load(address: u64) -> Option<Information<'static>> {
    const ALIGNMENT: u64 = 8;
    if address == 0 || !address.is_multiple_of(ALIGNMENT) || address > REACHABLE - ALIGNMENT {
        return None;
    }
    // SAFETY: the boot loader said by its magic number that its information lies here; the boot tables map it, and the
    // address is aligned.
    let size = unsafe { (address as *const u32).read_volatile() };
    if size > multiboot::LARGEST || address + u64::from(size) > REACHABLE {
        return None;
    }
    // SAFETY: as above; the information ends below 4 GiB, and nothing writes to it before the images are staged.
    let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, size as usize) };
    Some(Information::new(bytes)).filter(Information::is_whole)
}

/// The memory map of the boot information.
pub fn memory_map(
    information: &Information<'static>,
) -> MemoryMap<impl Iterator<Item = Area> + Clone + use<>> {
    MemoryMap::new(information.areas())
}

impl BootInfo {
    /// Copies the boot information.
    pub fn copy(information: &Information<'static>) -> Self {
        let (new, old) = information.root_pointers();
        Self {
            roots: Roots::of(new, old),
            display: find_display(information),
            modules: copy_modules(information),
            conventional_page: memory_map(information).conventional_page(),
        }
    }
}

fn find_display(information: &Information<'static>) -> Option<Display> {
    let display = Display::of(information, REACHABLE).unwrap_or_else(|found| {
        say!(
            "Bulkhead: the framebuffer at {:#x} has no direct colours of 16 to 32 bits below 4 GiB; the screen stays dark.",
            found.address
        );
        None
    });
    display.filter(|display| {
        let (start, size) = display.memory();
        let in_ram = memory_map(information).touches_ram(&Range { start, size });
        if in_ram {
            say!("Bulkhead: the display's memory at {start:#x} is RAM; the screen stays dark.");
        }
        !in_ram
    })
}

fn copy_modules(information: &Information<'_>) -> Vec<Module, MODULES> {
    let mut modules = Vec::new();
    for found in information.modules() {
        let name = found.name.and_then(|name| String::try_from(name).ok());
        let (Some(name), Some(size)) = (name, found.end.checked_sub(found.start)) else {
            say!(
                "Bulkhead: the boot module at {:#x} has no readable name or no size; it is left out.",
                found.start
            );
            continue;
        };
        let place = Range { start: found.start.into(), size: size.into() };
        if let Err(module) = modules.push(Module { name, place }) {
            say!(
                "Bulkhead: there are more boot modules than partitions; {} is left out.",
                module.name
            );
        }
    }
    modules
}
