//! The hypervisor's own page tables: identity-mapped, no page both writable and executable, nothing at address 0,
//! nothing below a stack, and no memory of a partition.
//!
//! Each core has its own root. It maps the hypervisor's text and common data, and of the pages that are private to a core (stacks, guests'
//! registers) its own only. So a core that speculates past a check finds no secret of a partition that runs elsewhere. What has to be read or
//! written of a partition (its image at boot and at a restart, a console page) is mapped in the core's window for that moment: [`map`].
#![expect(unsafe_code, reason = "switches page tables and names the linker's symbols")]

use core::sync::atomic::{AtomicPtr, Ordering};

use bulkhead_table::Range;
use heapless::Vec;
use hv_core::paging::{
    self, Access, Format, LargePages, MapError, Mapping, Memory, PageTable, last_entry,
};
use spin::{Mutex, Once};
use x86_64::instructions::tlb;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{Efer, EferFlags, Msr};
use x86_64::structures::paging::PhysFrame;
use x86_64::{PhysAddr, VirtAddr};

use crate::cpu::stacks::{STACKS, Stacks};
use crate::run::cell::CoreCell;
use crate::run::percpu;
use crate::screen::Display;
use crate::table::{CORES, EPT_PAGES, TABLE, VCPUS};

/// Bytes of a page.
pub const PAGE: u64 = bulkhead_table::PAGE_SIZE;

/// Largest image, as linker.ld asserts: a fixed part, and the nested page tables, which grow with the partitions' memory.
const IMAGE_LIMIT: u64 = (8 << 20) + EPT_PAGES as u64 * PAGE;

// The linker learns the limit by this symbol, whose address it is.
core::arch::global_asm!(
    ".global __hv_image_limit",
    ".set __hv_image_limit, {limit}",
    limit = const IMAGE_LIMIT,
);

/// Largest piece of video memory that is mapped.
const DISPLAY_LIMIT: u64 = 64 << 20;

/// SDM 3A 12.12.4: memory types as after reset, where entry 0 is write-back and entry 3 uncacheable.
const IA32_PAT: u32 = 0x277;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

const GIB: u64 = 1 << 30;
const TWO_MIB: u64 = 2 << 20;

/// Bytes of pages that only one core has: stacks, the registers of vCPUs, and the window's addresses.
const PRIVATE_BYTES: u64 =
    (CORES * size_of::<Stacks>() + VCPUS * VCPU_BYTES) as u64 + 2 * WINDOW_BYTES;

/// Most bytes of such pages that one vCPU takes.
pub const VCPU_BYTES: usize = 5 * PAGE as usize;

/// Tables of one core that no other has: the way to its pages, which lie in the first GiB, and one table for each 2 MiB of them.
const OWN_TABLES: usize = 3 + PRIVATE_BYTES.div_ceil(TWO_MIB) as usize + 1;

/// Bytes of the tables that one core has of its own: a figure for the report.
pub const OWN_TABLE_BYTES: usize = OWN_TABLES * size_of::<PageTable>();

/// Text, read-only data, data on both sides of the private pages, each vCPU's counters among those, the log, the display.
const MAPPINGS: usize = 2 + 2 + VCPUS + 1 + 1;

/// Enough for any such list: the image spans a bounded number of 2-MiB pages, and the display has at most two ends inside one;
/// directories and their parents by what they cover, plus what the display and the log add.
const TABLES: usize =
    1 + 3 + (IMAGE_LIMIT.div_ceil(GIB) + 3) as usize + (IMAGE_LIMIT / TWO_MIB + 2) as usize + 2 + 4;

static POOL: Mutex<[PageTable; TABLES]> = Mutex::new([const { PageTable([0; 512]) }; TABLES]);
/// By core: its own tables. The last are those of no core, which map every core's pages.
static OWN: [CoreCell<[PageTable; OWN_TABLES]>; CORES + 1] =
    [const { CoreCell::new([const { PageTable([0; 512]) }; OWN_TABLES]) }; CORES + 1];
static BUILT: Once<()> = Once::new();

unsafe extern "C" {
    static __hv_private: u8;
    static __hv_window: u8;
    static __hv_private_end: u8;
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

/// What is left of the hypervisor's range behind its image, without the memory of the log: the staged modules' place.
pub fn staging() -> Range {
    let start = image_end();
    let end = TABLE.hypervisor.end().saturating_sub(TABLE.board.log_memory.size);
    Range { start, size: end.saturating_sub(start) }
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
            let (size, largest) = (end - start, LargePages::Up2M);
            let mapping = Mapping { virt: start, phys: start, size, access, memory, largest };
            assert!(self.0.push(mapping).is_ok(), "MAPPINGS counts every mapping that is added");
        }
    }

    /// The image without the pages that only one core has, but with those among them from which any core reads.
    fn add_image(&mut self, counters: impl Iterator<Item = Range>) {
        let (text_end, rodata_end) =
            (&raw const __hv_text_end as u64, &raw const __hv_rodata_end as u64);
        let (private, private_end) =
            (&raw const __hv_private as u64, &raw const __hv_private_end as u64);
        self.add(image_start(), text_end, READ_EXECUTE, Memory::WriteBack);
        self.add(text_end, rodata_end, READ, Memory::WriteBack);
        self.add(rodata_end, private, READ_WRITE, Memory::WriteBack);
        for range in counters {
            self.add(range.start, range.end(), READ_WRITE, Memory::WriteBack);
        }
        self.add(private_end, image_end(), READ_WRITE, Memory::WriteBack);
    }

    /// Adds what the log goes to: the registers of a serial port in memory, or the memory of a board without one.
    fn add_log(&mut self) {
        let memory = TABLE.board.log_memory;
        self.add(memory.start, memory.end(), READ_WRITE, Memory::WriteBack);
        if let Some(uart) = TABLE.board.uart.filter(|uart| uart.in_memory) {
            let start = uart.base & !(PAGE - 1);
            let end = (uart.base + uart.extent()).next_multiple_of(PAGE);
            self.add(start, end, READ_WRITE, Memory::Uncached);
        }
    }

    /// Adds the display's memory; false when it is too large, or lies where the table says that RAM is.
    fn add_display(&mut self, display: &Display) -> bool {
        let (start, size) = display.memory();
        let memory = Range { start, size };
        let partitions = TABLE.partitions.iter().flat_map(|partition| partition.memory);
        let partitions = partitions.map(|region| Range { start: region.host, size: region.size });
        let clashes = partitions.chain([TABLE.hypervisor]).any(|own| own.overlaps(&memory));
        let log = self.0.iter().any(|m| Range { start: m.virt, size: m.size }.overlaps(&memory));
        if size > DISPLAY_LIMIT || start == 0 || clashes || log {
            return false;
        }
        self.add(start, memory.end(), READ_WRITE, Memory::Uncached);
        true
    }
}

/// Pages of vCPUs that need a place in the tables.
pub struct VcpuPages<C, P> {
    /// From these any core reads counters.
    pub counters: C,
    /// These only one core reaches: its index in the table, and the pages.
    pub private: P,
}

/// Builds the page tables of all cores; [`activate`] switches to them. Nothing of a partition's memory is in them, nor are the images that
/// wait for a restart: a core reaches these through its window ([`map`]). Returns whether the display is among what they map.
pub fn build(
    display: Option<&Display>,
    vcpus: VcpuPages<impl Iterator<Item = Range>, impl Iterator<Item = (usize, Range)> + Clone>,
) -> bool {
    let mut plan = Plan(Vec::new());
    plan.add_image(vcpus.counters);
    plan.add_log();
    let display_is_mapped = display.is_some_and(|display| plan.add_display(display));
    let mut pool = POOL.lock();
    let address = pool.as_ptr() as u64;
    let mappings = plan.0.iter().copied();
    let built = paging::build(Format::Host, LargePages::Up2M, mappings, &mut *pool, address);
    let base = (&pool[..], address);
    let built = built.and_then(|_| {
        for (core, own) in OWN.iter().enumerate() {
            let every = core == CORES;
            let stacks = STACKS
                .iter()
                .enumerate()
                .flat_map(|(of, stacks)| stacks.ranges().map(|range| (of, range)));
            let pages = stacks.chain(vcpus.private.clone());
            let pages = pages.filter(|(of, _)| every || *of == core).map(|(_, range)| range);
            // SAFETY: nobody uses these tables yet, and only the boot core gets here.
            let own = unsafe { own.get() };
            build_own(base, pages, own)?;
        }
        Ok(())
    });
    match built {
        Ok(()) => BUILT.call_once(|| ()),
        Err(error) => panic!("the hypervisor's own page tables cannot be built: {error}"),
    };
    display_is_mapped
}

/// Builds the tables of one core, its window closed.
fn build_own(
    base: (&[PageTable], u64),
    pages: impl Iterator<Item = Range>,
    own: &mut [PageTable; OWN_TABLES],
) -> Result<(), MapError> {
    let address = own.as_ptr() as u64;
    let window = Range { start: &raw const __hv_window as u64, size: WINDOW_BYTES };
    let mapping = |range: Range| Mapping {
        virt: range.start,
        phys: range.start,
        size: range.size,
        access: READ_WRITE,
        memory: Memory::WriteBack,
        largest: LargePages::None,
    };
    let pages = pages.chain([window]).map(mapping);
    paging::extend(base, pages, (&mut own[..], address))?;
    for page in 0..WINDOW_BYTES / PAGE {
        if let Some((table, entry)) = last_entry(own, address, window.start + page * PAGE) {
            own[table].0[entry] = 0;
        }
    }
    Ok(())
}

/// Switches this core, with this index in the table, to its tables, with their rights enforced on the hypervisor too.
pub fn activate(core: usize) {
    let Some(own) = OWN.get(core).filter(|_| BUILT.is_completed()) else {
        panic!("a core came up before its page tables were built");
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
        load_root(own);
    }
    use_window_of(core, own);
}

/// From now on this core's window opens in these tables: those that it runs on.
fn use_window_of(core: usize, own: &CoreCell<[PageTable; OWN_TABLES]>) {
    let Some(entries) = WINDOW_ENTRIES.get(core) else {
        return;
    };
    // SAFETY: only this core uses these tables, and no reference to them is alive.
    let tables = unsafe { own.get() };
    let address = tables.as_ptr() as u64;
    if let Some((table, entry)) = last_entry(tables, address, &raw const __hv_window as u64) {
        let entry = tables.get_mut(table).and_then(|table| table.0.get_mut(entry));
        entries.store(entry.map_or(core::ptr::null_mut(), |entry| entry), Ordering::Relaxed);
    }
}

/// Gives this core every other core's pages as well: the registers and figures of all vCPUs. No guest runs any more, on any core.
pub fn see_all_cores() {
    // SAFETY: these tables map all that this core's own map, at the same addresses.
    unsafe { load_root(&OWN[CORES]) };
    if let Some(core) = percpu::core_index() {
        use_window_of(core, &OWN[CORES]);
    }
}

/// # Safety
/// The tables map all code, data and stack that this core uses.
unsafe fn load_root(tables: &CoreCell<[PageTable; OWN_TABLES]>) {
    let frame = PhysFrame::containing_address(PhysAddr::new(tables.address() as u64));
    // SAFETY: the caller's contract.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}

/// Pages of one side of a window: a piece of [`hv_core::load`] need not begin on a page.
const SIDE_PAGES: u64 = 2;
/// Bytes of addresses of a window: both sides.
const WINDOW_BYTES: u64 = 2 * SIDE_PAGES * PAGE;

/// By core: the entry that maps the first page of its window, in its own tables.
static WINDOW_ENTRIES: [AtomicPtr<u64>; CORES] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; CORES];

/// The two sides of a core's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What is written.
    Target = 0,
    /// What is read meanwhile.
    Source = 1,
}

/// Physical memory that this core reaches as long as this lives.
pub struct Mapped {
    entry: *mut u64,
    page: u64,
    pages: u64,
    within: u64,
}

/// Maps `length` bytes of physical memory from `start` on, on one side of this core's window: at most a page more than a piece. `None`
/// where they are too many, or the side is in use.
pub fn map(side: Side, start: u64, length: u64) -> Option<Mapped> {
    let entries = WINDOW_ENTRIES.get(percpu::core_index()?)?.load(Ordering::Relaxed);
    let within = start % PAGE;
    let pages = within.checked_add(length)?.div_ceil(PAGE);
    if entries.is_null() || pages == 0 || pages > SIDE_PAGES {
        return None;
    }
    let first = side as u64 * SIDE_PAGES;
    let mapped = Mapped {
        entry: entries.wrapping_add(first as usize),
        page: &raw const __hv_window as u64 + first * PAGE,
        pages,
        within,
    };
    // SAFETY: the entry is one of the window's in this core's own tables.
    if unsafe { mapped.entry.read_volatile() } != 0 {
        // Not this one's to close.
        core::mem::forget(mapped);
        return None;
    }
    mapped.set(|page| paging::data_page(start - within + page * PAGE));
    Some(mapped)
}

impl Mapped {
    /// Where the first byte is to be found.
    pub fn address(&self) -> *mut u8 {
        (self.page + self.within) as *mut u8
    }

    /// Writes the entries of all pages. INVLPG follows each: it forgets what the entry said before, and serializes. SDM 3A 4.10.4.1.
    fn set(&self, entry: impl Fn(u64) -> u64) {
        for page in 0..self.pages {
            // SAFETY: these entries are the window's, in this core's own tables: nothing but this value reaches memory through them.
            unsafe { self.entry.wrapping_add(page as usize).write_volatile(entry(page)) };
            // The constructor that checks would panic, and these addresses are the window's own.
            tlb::flush(VirtAddr::new_truncate(self.page + page * PAGE));
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.set(|_| 0);
    }
}
