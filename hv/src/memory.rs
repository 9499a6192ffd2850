//! The hypervisor's own page tables: identity-mapped, no page both writable and executable, nothing at address 0,
//! nothing below a stack.
#![expect(unsafe_code, reason = "switches page tables and names the linker's symbols")]

use bulkhead_table::Range;
use heapless::Vec;
use hv_core::paging::{self, Access, Format, LargePages, Mapping, Memory, PageTable};
use spin::{Mutex, Once};
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{Efer, EferFlags, Msr};
use x86_64::structures::paging::PhysFrame;

use crate::cpu::stacks;
use crate::screen::Display;
use crate::table::{CORES, PARTITIONS, TABLE};

/// Bytes of a page.
pub const PAGE: u64 = bulkhead_table::PAGE_SIZE;

/// Largest image, as linker.ld asserts.
const IMAGE_LIMIT: u64 = 8 << 20;
/// Largest piece of video memory that is mapped.
const DISPLAY_LIMIT: u64 = 64 << 20;

/// SDM 3A 12.12.4: memory types as after reset, where entry 0 is write-back and entry 3 uncacheable.
const IA32_PAT: u32 = 0x277;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

const GIB: u64 = 1 << 30;
const TWO_MIB: u64 = 2 << 20;

/// Regions of all partitions together.
const REGIONS: usize = {
    let mut regions = 0;
    let mut index = 0;
    while index < PARTITIONS {
        regions += TABLE.partitions[index].memory.len();
        index += 1;
    }
    regions
};

/// First byte behind all memory of the table.
const END: u64 = {
    let mut end = TABLE.hypervisor.end();
    let mut index = 0;
    while index < PARTITIONS {
        let memory = TABLE.partitions[index].memory;
        let mut region = 0;
        while region < memory.len() {
            let last = memory[region].host + memory[region].size;
            if last > end {
                end = last;
            }
            region += 1;
        }
        index += 1;
    }
    end
};

/// Text, read-only data, data cut at each guard page, staging, the partitions' regions, the display.
const MAPPINGS: usize = 2 + (CORES * stacks::GUARDS_PER_CORE + 1) + 1 + REGIONS + 1;

/// Enough for any such list: each mapping but those of the image has at most two ends inside a 2-MiB page, the image
/// spans a bounded number of them; directories and their parents by what they cover, plus what the display adds.
const TABLES: usize = 1
    + (END.div_ceil(512 * GIB) + 2) as usize
    + (END.div_ceil(GIB) + 2) as usize
    + (IMAGE_LIMIT / TWO_MIB + 1) as usize
    + 2 * (1 + REGIONS + 1);

static POOL: Mutex<[PageTable; TABLES]> = Mutex::new([const { PageTable([0; 512]) }; TABLES]);
static ROOT: Once<u64> = Once::new();

unsafe extern "C" {
    static __hv_start: u8;
    static __hv_text_end: u8;
    static __hv_rodata_end: u8;
    static __hv_end: u8;
}

/// First byte of the hypervisor's image.
pub fn image_start() -> u64 {
    &raw const __hv_start as u64
}

/// First byte behind the hypervisor's image, its zeroed data counted; page-aligned.
pub fn image_end() -> u64 {
    &raw const __hv_end as u64
}

/// What is left of the hypervisor's range behind its image: the staged modules' place.
pub fn staging() -> Range {
    let start = image_end();
    Range { start, size: TABLE.hypervisor.end().saturating_sub(start) }
}

const READ: Access = Access { read: true, write: false, execute: false };
const READ_EXECUTE: Access = Access { read: true, write: false, execute: true };
const READ_WRITE: Access = Access { read: true, write: true, execute: false };

/// The list of what is mapped.
struct Plan(Vec<Mapping, MAPPINGS>);

impl Plan {
    /// Adds an identity mapping; an empty one is left out.
    fn add(&mut self, start: u64, end: u64, access: Access, memory: Memory) {
        if end > start {
            let mapping = Mapping { virt: start, phys: start, size: end - start, access, memory };
            assert!(self.0.push(mapping).is_ok(), "MAPPINGS counts every mapping that is added");
        }
    }

    fn add_image(&mut self) {
        let (text_end, rodata_end) =
            (&raw const __hv_text_end as u64, &raw const __hv_rodata_end as u64);
        self.add(image_start(), text_end, READ_EXECUTE, Memory::WriteBack);
        self.add(text_end, rodata_end, READ, Memory::WriteBack);
        let mut start = rodata_end;
        for guard in stacks::guards() {
            self.add(start, guard, READ_WRITE, Memory::WriteBack);
            start = guard + PAGE;
        }
        self.add(start, image_end(), READ_WRITE, Memory::WriteBack);
    }

    fn add_table_memory(&mut self) {
        let staging = staging();
        self.add(staging.start, staging.end(), READ_WRITE, Memory::WriteBack);
        for region in TABLE.partitions.iter().flat_map(|partition| partition.memory) {
            self.add(region.host, region.host + region.size, READ_WRITE, Memory::WriteBack);
        }
    }

    /// Adds the display's memory; false when it is too large, or lies where the table says that RAM is.
    fn add_display(&mut self, display: &Display) -> bool {
        let (start, size) = display.memory();
        let memory = Range { start, size };
        let clashes = |m: &Mapping| Range { start: m.virt, size: m.size }.overlaps(&memory);
        if size > DISPLAY_LIMIT || start == 0 || self.0.iter().any(clashes) {
            return false;
        }
        self.add(start, memory.end(), READ_WRITE, Memory::Uncached);
        true
    }
}

/// Builds the page tables for all cores; [`activate`] switches to them. Returns whether the display is among
/// what they map.
pub fn build(display: Option<&Display>) -> bool {
    let mut plan = Plan(Vec::new());
    plan.add_image();
    plan.add_table_memory();
    let display_is_mapped = display.is_some_and(|display| plan.add_display(display));
    let mut pool = POOL.lock();
    let address = pool.as_ptr() as u64;
    match paging::build(Format::Host, LargePages::Up2M, &plan.0, &mut *pool, address) {
        Ok(_tables) => ROOT.call_once(|| address),
        Err(error) => panic!("the hypervisor's own page tables cannot be built: {error}"),
    };
    display_is_mapped
}

/// Switches this core to the tables that [`build`] built, with their rights enforced on the hypervisor too.
pub fn activate() {
    let Some(root) = ROOT.get() else {
        panic!("a core came up before the page tables were built");
    };
    let smep = raw_cpuid::CpuId::new()
        .get_extended_feature_info()
        .is_some_and(|features| features.has_smep());
    // SAFETY: the tables map this code, this stack and all data at the same addresses as before; NXE is set before a
    // table that uses it is loaded, and no page is a user page, so SMEP changes nothing for our own code. The memory
    // types in use, entries 0 and 3, mean the same in any PAT that firmware leaves.
    unsafe {
        Msr::new(IA32_PAT).write(PAT_RESET);
        Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE));
        Cr4::update(|flags| flags.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, smep));
        Cr0::update(|flags| flags.insert(Cr0Flags::WRITE_PROTECT));
        Cr3::write(PhysFrame::containing_address(PhysAddr::new(*root)), Cr3Flags::empty());
    }
}
