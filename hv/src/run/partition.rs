//! Makes a partition ready to run: its nested page tables, its memory, its vCPUs.
#![expect(unsafe_code, reason = "hands out static pages, and places them among the private ones")]

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use bulkhead_table::{PAGE_SIZE, Partition, PartitionId, Range};
use hv_core::cpuid::{CpuidPolicy, Facts, Leaf};
use hv_core::exit::{ConsoleRing, Counters, EXIT_KINDS, ScheduleRights, VcpuState};
use hv_core::ipi::Errand;
use hv_core::load::Load;
use hv_core::mappings::{SchedulePages, View};
use hv_core::msr::{CoreKind, MsrState};
use hv_core::paging::{self, PageTable};
use hv_core::ring::Ring;
use hv_core::vapic::{ApicPage, VirtualApic};
use hv_core::wire::LiveCounts;

use super::cell::CoreCell;
use super::{incidents, interrupts, pc, restart, shared, window};
use crate::backend::{Backend, Handlers, Page, Refused, Settings, Setup};
use crate::cpu::instructions as machine;
use crate::cpu::stacks::Stacks;
use crate::memory::{self, VcpuPages};
use crate::switched;
use crate::table::{CORES, EPT_PAGES, TABLE, VCPUS as VCPU_COUNT};
use crate::vcpu::{self, MsrMaps, Parts, Vcpu};

/// The consoles, by vCPU: each has one producer, the core of its vCPU. Which vCPU's it is says whose the bytes are.
static CONSOLES: [ConsoleRing; VCPU_COUNT] = [const { Ring::new() }; VCPU_COUNT];

// SAFETY: linker.ld gives the section zeroed memory, whole pages, and nothing else goes there but other statics. So for the two below.
#[unsafe(link_section = ".bss.private.vcpus")]
static VCPUS: [CoreCell<MaybeUninit<Vcpu>>; VCPU_COUNT] =
    [const { CoreCell::new(MaybeUninit::uninit()) }; VCPU_COUNT];
static MADE: [AtomicBool; VCPU_COUNT] = [const { AtomicBool::new(false) }; VCPU_COUNT];
// SAFETY: as above.
#[unsafe(link_section = ".bss.private.blocks")]
static BLOCKS: [CoreCell<Page>; VCPU_COUNT] = [const { CoreCell::new(Page([0; 512])) }; VCPU_COUNT];
// SAFETY: as above.
#[unsafe(link_section = ".bss.private.apic")]
static APIC_PAGES: [CoreCell<ApicPage>; VCPU_COUNT] =
    [const { CoreCell::new(ApicPage::new()) }; VCPU_COUNT];
/// By core: what the processor keeps for itself while virtualization is on.
static REGIONS: [CoreCell<Page>; CORES] = [const { CoreCell::new(Page([0; 512])) }; CORES];
/// By core: its MSR permission maps.
static MSR_MAPS: [CoreCell<[Page; 2]>; CORES] =
    [const { CoreCell::new([Page([0; 512]), Page([0; 512])]) }; CORES];
static EPT: [CoreCell<PageTable>; EPT_PAGES] =
    [const { CoreCell::new(PageTable([0; 512])) }; EPT_PAGES];
/// Every port exits: none is granted. SDM 3C 25.6.4.
static PORT_MAP: Page = Page([u64::MAX; 512]);

/// Bytes of static memory that one core and its one partition take: figures for the report.
pub const PER_CPU_BYTES: usize = 4 * size_of::<Page>()
    + size_of::<ApicPage>()
    + size_of::<Vcpu>()
    + size_of::<ConsoleRing>()
    + size_of::<Ring<{ crate::log::RING }>>()
    + incidents::BYTES
    + size_of::<Stacks>()
    + memory::OWN_TABLE_BYTES;

const _: () = assert!(
    size_of::<Vcpu>() + size_of::<Page>() + size_of::<ApicPage>() <= memory::VCPU_BYTES,
    "memory.rs counts the private pages of a vCPU"
);

/// The pages of vCPUs: those that only the vCPU's own core reaches (registers, VMCS, virtual APIC), and those from which any core reads
/// counters.
pub fn vcpu_pages()
-> VcpuPages<impl Iterator<Item = Range>, impl Iterator<Item = (usize, Range)> + Clone> {
    let range = |start: u64, size: usize| Range { start, size: size as u64 };
    let private = (0..VCPU_COUNT).filter_map(move |index| {
        let pages = [
            range(VCPUS.get(index)?.address() as u64, vcpu::STATE),
            range(BLOCKS.get(index)?.address() as u64, size_of::<Page>()),
            range(APIC_PAGES.get(index)?.address() as u64, size_of::<ApicPage>()),
        ];
        Some((interrupts::home(index)?, pages))
    });
    let private = private.flat_map(|(core, pages)| pages.map(|range| (core, range)));
    let counters = VCPUS.iter().map(move |cell| {
        range(cell.address() as u64 + vcpu::STATE as u64, size_of::<Vcpu>() - vcpu::STATE)
    });
    VcpuPages { counters, private }
}

/// Why a partition cannot be made ready; each is a defect of ours or of the board, never of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, defmt::Format)]
pub enum Unready {
    /// The processor refused a control block.
    Processor,
    /// The nested page tables could not be built from the table.
    Nested,
}

/// Switches virtualization on, on this core, and fills its MSR permission maps.
///
/// # Errors
/// [`Unready::Processor`] when the processor refuses.
pub fn enable_core<B: Backend>(core: usize, kind: CoreKind) -> Result<(), Unready> {
    let (Some(region), Some(maps)) = (REGIONS.get(core), MSR_MAPS.get(core)) else {
        return Err(Unready::Processor);
    };
    // SAFETY: the pages are indexed by this core, which runs this once.
    let (region, maps) = unsafe { (region.get(), maps.get()) };
    switched::prepare_extended_state();
    B::enable(kind, region, maps).map_err(|Refused| Unready::Processor)
}

/// Which vCPU, among those of all partitions: an index into the pools above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuIndex(u16);

impl VcpuIndex {
    /// The vCPU of `id` that runs on board CPU `cpu`.
    pub fn on_cpu(id: PartitionId, cpu: u16) -> Option<Self> {
        let partition = TABLE.partitions.get(usize::from(id))?;
        Some(Self(partition.first_vcpu + partition.vcpu_on(cpu)? as u16))
    }

    /// Where its guest reads its schedule.
    pub fn schedule_page(self) -> Option<&'static window::Page> {
        window::page(usize::from(self.0))
    }

    /// vCPU `vcpu` of a partition, which has so many.
    pub const fn nth(partition: &Partition, vcpu: usize) -> Option<Self> {
        if vcpu < partition.cpus.len() {
            Some(Self(partition.first_vcpu + vcpu as u16))
        } else {
            None
        }
    }

    /// What it says by hypercall.
    pub fn console(self) -> Option<&'static ConsoleRing> {
        CONSOLES.get(usize::from(self.0))
    }

    /// Every vCPU of a partition, vCPU 0 first.
    pub fn of(partition: &Partition) -> impl Iterator<Item = Self> {
        let first = partition.first_vcpu;
        (first..first + partition.cpus.len() as u16).map(Self)
    }
}

/// What a vCPU is made for.
pub struct Place {
    /// Index of the core in the table.
    pub core: usize,
    /// Board CPU number of the core.
    pub cpu: u16,
    /// Top of the core's stack.
    pub host_stack: u64,
    /// See [`Vcpu::entry_failed`].
    pub entry_failed: extern "C" fn(*mut Vcpu) -> *mut Vcpu,
}

/// Makes the vCPU of partition `id` on this core, with its control block filled; its exits go to `H`. The core of vCPU 0 also loads the
/// memory that all vCPUs of the partition share; nobody runs before the epoch, so the others need not wait for it.
///
/// # Errors
/// An [`Unready`] that names what failed.
pub fn make<B: Backend, H: Handlers>(
    id: PartitionId,
    image: &Range,
    place: &Place,
) -> Result<(), Unready> {
    let partition = TABLE.partitions.get(usize::from(id)).ok_or(Unready::Processor)?;
    let number = partition.vcpu_on(place.cpu).ok_or(Unready::Processor)?;
    let index = usize::from(partition.first_vcpu) + number;
    let (Some(cell), Some(block), Some(maps)) =
        (VCPUS.get(index), BLOCKS.get(index), MSR_MAPS.get(place.core))
    else {
        return Err(Unready::Processor);
    };
    let pool = nested_pool(usize::from(id), partition).ok_or(Unready::Nested)?;
    let settings = B::settings(H::KIND);
    if number == 0 {
        load_memory(partition, image);
        build_nested(partition, pool, &settings)?;
    }
    B::flush_nested();
    let maps = maps.address() as u64;
    let parts = Parts {
        block: block.address() as u64,
        entry_failed: place.entry_failed,
        core: place.core,
        most_timer_lead: shared::MOST_TIMER_LEAD,
        host_stack: place.host_stack,
        state: decisions::<H>(id, partition, number, &settings)?,
        number: number as u32,
        timer_shift: settings.timer_shift,
        controls: settings.controls,
        apic_virtualization: settings.apic_virtualization,
        start: vcpu::Start { entry: partition.image.entry, boot_info: partition.boot_info_at },
        inbox: interrupts::inbox(partition, number).ok_or(Unready::Processor)?,
        msr_maps: MsrMaps { apic_on: maps, apic_off: maps + PAGE_SIZE },
    };
    // SAFETY: this vCPU belongs to this core alone, and it is made once, before the epoch.
    let (vcpu, block) = unsafe { (cell.get().write(Vcpu::new(parts)), block.get()) };
    let setup = Setup {
        nested_root: pool.as_ptr() as u64,
        port_map: &raw const PORT_MAP as u64,
        tag: index as u16 + 1,
        entry: partition.image.entry,
    };
    B::fill::<H>(vcpu, block, &setup).map_err(|Refused| Unready::Processor)?;
    if let Some(made) = MADE.get(index) {
        made.store(true, Ordering::Release);
    }
    Ok(())
}

/// A vCPU, if it was made.
///
/// # Safety
/// As [`CoreCell::get`].
pub unsafe fn vcpu(index: VcpuIndex) -> Option<&'static mut Vcpu> {
    let index = usize::from(index.0);
    if !MADE.get(index)?.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: the caller's contract; `make` filled the cell before it set the flag.
    VCPUS.get(index).map(|cell| unsafe { cell.get().assume_init_mut() })
}

/// What a vCPU counted so far; `None` when it was not made. Any core may ask at any time.
pub fn counted(index: VcpuIndex) -> Option<LiveCounts> {
    let index = usize::from(index.0);
    if !MADE.get(index)?.load(Ordering::Acquire) {
        return None;
    }
    let vcpu = VCPUS.get(index)?.address().cast::<Vcpu>();
    // SAFETY: `make` filled the cell before it set the flag, and it stays. No reference is made to what another core may be writing:
    // each counter is an aligned word, which the machine reads as it was before or after a write.
    unsafe {
        Some(LiveCounts {
            exits: sum(&raw const (*vcpu).state.counters.exits),
            denied: sum(&raw const (*vcpu).state.counters.denied),
        })
    }
}

/// Adds how many exits of each kind a vCPU took so far; nothing when it was not made. Any core may ask at any time. A few instructions for each
/// kind: eight vCPUs are read in half of the time that a packet may take.
pub fn add_exits(index: VcpuIndex, sums: &mut [u64; EXIT_KINDS]) {
    let index = usize::from(index.0);
    let made = MADE.get(index).is_some_and(|made| made.load(Ordering::Acquire));
    let Some(cell) = VCPUS.get(index).filter(|_| made) else {
        return;
    };
    let vcpu = cell.address().cast::<Vcpu>();
    // SAFETY: as in [`counted`].
    let first = unsafe { &raw const (*vcpu).state.counters.exits }.cast::<u64>();
    for (kind, sum) in sums.iter_mut().enumerate() {
        // SAFETY: as in [`counted`]; the kind is below the array's length.
        *sum = sum.wrapping_add(unsafe { first.add(kind).read_volatile() });
    }
}

/// The sum of words that another core may be writing.
///
/// # Safety
/// The words are there.
unsafe fn sum<const N: usize>(words: *const [u64; N]) -> u64 {
    let first = words.cast::<u64>();
    // SAFETY: the caller's contract; the index stays below the array's length.
    (0..N).fold(0, |sum, at| u64::wrapping_add(sum, unsafe { first.add(at).read_volatile() }))
}

/// Guest-physical address of a vCPU's schedule page; 0 on a dedicated core.
fn schedule_page_at(partition: &Partition, vcpu: usize) -> u64 {
    match partition.schedule_at {
        0 => 0,
        first => first + vcpu as u64 * PAGE_SIZE,
    }
}

/// What decisions about vCPU `number` of a partition are made from.
fn decisions<H: Handlers>(
    id: PartitionId,
    partition: &Partition,
    number: usize,
    settings: &Settings,
) -> Result<VcpuState, Unready> {
    let index = usize::from(partition.first_vcpu) + number;
    let (Some(apic_page), Some(console)) = (APIC_PAGES.get(index), CONSOLES.get(index)) else {
        return Err(Unready::Processor);
    };
    // SAFETY: the page is the vCPU's, which is made once, on its own core.
    let apic_page = unsafe { apic_page.get() };
    let peers = interrupts::peers(partition, number);
    let xcr0_allowed = switched::xcr0_allowed();
    let host = |leaf: u32, sub: u32| {
        let found = core::arch::x86_64::__cpuid_count(leaf, sub);
        Leaf { eax: found.eax, ebx: found.ebx, ecx: found.ecx, edx: found.edx }
    };
    let facts = Facts {
        apic_id: peers.own_id(),
        tsc_khz: (TABLE.board.tsc_hz / 1000) as u32,
        partition: id,
        vcpu: number as u16,
        vcpus: partition.cpus.len() as u16,
        schedule_page: schedule_page_at(partition, number),
        kind: H::KIND,
        xcr0_allowed,
        random_numbers: settings.random_numbers,
        platform: partition.platform,
    };
    Ok(VcpuState {
        partition: id,
        kind: H::KIND,
        cpuid: CpuidPolicy::build(host, &facts),
        xcr0_allowed,
        cr4_allowed: CR4_OFFERED & settings.cr4_possible,
        msr: MsrState::new(peers),
        apic: VirtualApic::new(apic_page, peers),
        window: None,
        rights: schedule_rights(partition),
        pc: pc::of(id),
        console,
        counters: Counters::new(),
        errand: Errand::NONE,
        violation: None,
        refusal: None,
    })
}

/// CR4 bits that a guest may set where the processor has them: those of SDM 3A 2.5 up to SMAP, without MCE, VMXE and SMXE.
const CR4_OFFERED: u64 = 0x37_0FFF & !(1 << 6);

fn schedule_rights(partition: &Partition) -> ScheduleRights {
    let plans = if partition.may_switch_plan { TABLE.plans.len() as u16 } else { 0 };
    ScheduleRights { plans, donates_to: partition.donates_to.copied() }
}

/// Clears the partition's memory, then copies image and boot information to where the table says. The compiler proved that both
/// lie inside.
fn load_memory(partition: &Partition, image: &Range) {
    let mut load = Load::begin();
    // Ends: the table's sizes are finite.
    while let Some(piece) = load.next(partition) {
        restart::put(&piece, partition, image);
    }
}

/// The pages of a partition's nested page tables; the first is the root.
fn nested_pool(id: usize, partition: &Partition) -> Option<&'static [CoreCell<PageTable>]> {
    let first: usize = TABLE.partitions.iter().take(id).map(|other| other.ept_pages).sum();
    EPT.get(first..first + partition.ept_pages)
}

fn build_nested(
    partition: &Partition,
    pages: &'static [CoreCell<PageTable>],
    settings: &Settings,
) -> Result<(), Unready> {
    let base = pages.as_ptr().cast::<PageTable>().cast_mut();
    // SAFETY: these cells are contiguous pages that belong to this partition, by the prefix sum; `CoreCell` and `PageTable` have the
    // same layout; only the core of its vCPU 0 builds them, once.
    let pool = unsafe { core::slice::from_raw_parts_mut(base, pages.len()) };
    // The pool is cut for pages of 2 MiB; larger ones need fewer tables.
    paging::build(settings.nested, settings.largest, view(partition).mappings(), pool, base as u64)
        .map(|_| ())
        .map_err(|_| Unready::Nested)
}

/// The memory that a partition sees.
fn view(partition: &Partition) -> View<'_> {
    let schedule = (partition.schedule_at != 0).then(|| SchedulePages {
        guest: partition.schedule_at,
        host: window::page_address(usize::from(partition.first_vcpu)),
        pages: partition.cpus.len(),
    });
    View { memory: partition.memory, schedule, large_code_pages: TABLE.board.large_code_pages }
}

/// TSC now, noted as the partition's first entry unless it had one.
pub fn note_first_entry(vcpu: &mut Vcpu) {
    if vcpu.first_entry == 0 {
        vcpu.first_entry = machine::tsc();
    }
}
