//! Copies what is needed of the Multiboot2 boot information, before anything can overwrite it. The boot loader is
//! not trusted: what does not fit or is out of range is said and left out.
#![expect(
    unsafe_code,
    reason = "reads the boot information at the address that the boot loader gave"
)]

use bulkhead_table::Range;
use heapless::{String, Vec};
use multiboot2::{BootInformation, BootInformationHeader};

use super::firmware::RootTable;
use super::memory_map::MemoryMap;
use crate::screen::Display;
use crate::table::PARTITIONS;
use crate::text::say;

/// Addresses that the boot tables map.
const REACHABLE: u64 = 1 << 32;

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

/// What boot needs to know.
pub struct BootInfo {
    /// Usable RAM.
    pub memory: MemoryMap,
    /// ACPI's root table.
    pub root_table: Option<RootTable>,
    /// Where text can be shown.
    pub display: Option<Display>,
    /// The modules, in the boot loader's order.
    pub modules: Vec<Module, MODULES>,
}

impl BootInfo {
    /// Copies the boot information at this physical address. Halts when there is none to read.
    pub fn read(address: u64) -> Self {
        // SAFETY: the boot loader said by its magic number that its information lies here, below 4 GiB, which the boot
        // tables map; the crate checks the structure.
        let loaded = unsafe { BootInformation::load(address as *const BootInformationHeader) };
        match loaded {
            Ok(information) => Self {
                memory: copy_memory_map(&information),
                root_table: find_root_table(&information),
                display: find_display(&information),
                modules: copy_modules(&information),
            },
            Err(error) => {
                panic!("the boot loader's Multiboot2 information cannot be read: {error}")
            }
        }
    }
}

fn copy_memory_map(information: &BootInformation<'_>) -> MemoryMap {
    let mut memory = MemoryMap::new();
    if let Some(tag) = information.memory_map_tag() {
        for area in tag.memory_areas() {
            if area.typ() == multiboot2::MemoryAreaType::Available {
                memory.add(Range { start: area.start_address(), size: area.size() });
            }
        }
    }
    memory
}

/// The newer root table when the boot loader hands over both.
fn find_root_table(information: &BootInformation<'_>) -> Option<RootTable> {
    let new = information.rsdp_v2_tag().filter(|tag| tag.checksum_is_valid());
    let old = information.rsdp_v1_tag().filter(|tag| tag.checksum_is_valid());
    match (new, old) {
        (Some(tag), _) if tag.xsdt_address() != 0 => {
            Some(RootTable { revision: tag.revision(), address: tag.xsdt_address() })
        }
        (_, Some(tag)) => Some(RootTable { revision: 0, address: tag.rsdt_address() }),
        _ => None,
    }
}

fn find_display(information: &BootInformation<'_>) -> Option<Display> {
    Display::of(information, REACHABLE).unwrap_or_else(|found| {
        say!(
            "Bulkhead: the framebuffer at {:#x} has no direct colours of 16 to 32 bits below 4 GiB; the screen stays dark.",
            found.address
        );
        None
    })
}

fn copy_modules(information: &BootInformation<'_>) -> Vec<Module, MODULES> {
    let mut modules = Vec::new();
    for tag in information.module_tags() {
        let (start, end) = (u64::from(tag.start_address()), u64::from(tag.end_address()));
        let name = tag.cmdline().ok().and_then(|name| String::try_from(name.trim()).ok());
        let (Some(name), Some(size)) = (name, end.checked_sub(start)) else {
            say!(
                "Bulkhead: the boot module at {start:#x} has no readable name or no size; it is left out."
            );
            continue;
        };
        let module = Module { name, place: Range { start, size } };
        if let Err(module) = modules.push(module) {
            say!(
                "Bulkhead: there are more boot modules than partitions; {} is left out.",
                module.name
            );
        }
    }
    modules
}
