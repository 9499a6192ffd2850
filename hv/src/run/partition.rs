//! Makes a partition ready to run: its EPT, its memory, its vCPU.
#![expect(unsafe_code, reason = "copies guest images to guest memory and hands out static pages")]

use core::mem::MaybeUninit;

use bulkhead_table::{Partition, PartitionId};
use hv_core::cpuid::{CpuidPolicy, Facts, Leaf};
use hv_core::exit::{ConsoleRing, Counters, VcpuState};
use hv_core::msr::{self, CoreKind, MsrState};
use hv_core::paging::{self, Access, Format, LargePages, Mapping, Memory, PageTable};
use hv_core::ring::Ring;
use hv_core::vapic::VirtualApic;

use super::cell::CoreCell;
use super::machine;
use crate::cpu::stacks::Stacks;
use crate::table::{CORES, EPT_PAGES, PARTITIONS, TABLE};
use crate::vmx::controls;
use crate::vmx::setup::{self, Page, Pages, Start};
use crate::vmx::vcpu::{self, Parts, Vcpu};

/// The consoles, by partition.
pub static CONSOLES: [ConsoleRing; PARTITIONS] = [const { Ring::new() }; PARTITIONS];

static VCPUS: [CoreCell<MaybeUninit<Vcpu>>; PARTITIONS] =
    [const { CoreCell::new(MaybeUninit::uninit()) }; PARTITIONS];
static VMCS: [CoreCell<Page>; PARTITIONS] = [const { CoreCell::new(Page([0; 512])) }; PARTITIONS];
static VMXON: [CoreCell<Page>; CORES] = [const { CoreCell::new(Page([0; 512])) }; CORES];
static MSR_BITMAPS: [CoreCell<Page>; CORES] = [const { CoreCell::new(Page([0; 512])) }; CORES];
static EPT: [CoreCell<PageTable>; EPT_PAGES] =
    [const { CoreCell::new(PageTable([0; 512])) }; EPT_PAGES];
/// Every port exits: none is granted. SDM 3C 25.6.4.
static IO_BITMAP: Page = Page([u64::MAX; 512]);

/// Bytes of static memory that one core and its one partition take: figures for the report.
pub const PER_CPU_BYTES: usize = 2 * size_of::<Page>()
    + size_of::<Page>()
    + size_of::<Vcpu>()
    + size_of::<ConsoleRing>()
    + size_of::<Ring<{ crate::log::RING }>>()
    + size_of::<Stacks>();

/// Why a partition cannot be made ready; each is a defect of ours or of the board, never of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, defmt::Format)]
pub enum Unready {
    /// The processor refused a VMX region.
    Vmx,
    /// The EPT could not be built from the table.
    Ept,
}

/// Enters VMX operation on this core and fills its MSR bitmap.
///
/// # Errors
/// [`Unready::Vmx`] when the processor refuses.
pub fn enable_core(core: usize, kind: CoreKind) -> Result<(), Unready> {
    let (Some(region), Some(bitmap)) = (VMXON.get(core), MSR_BITMAPS.get(core)) else {
        return Err(Unready::Vmx);
    };
    // SAFETY: both pages are indexed by this core, which runs this once.
    let (region, bitmap) = unsafe { (region.get(), bitmap.get()) };
    msr::bitmap(kind, &mut bitmap.0);
    vcpu::prepare_extended_state();
    setup::enable(region).map_err(|_| Unready::Vmx)
}

/// What a vCPU is made for.
pub struct Place {
    /// Index of the core in the table.
    pub core: usize,
    /// Kind of the core.
    pub kind: CoreKind,
    /// Top of the core's stack.
    pub host_stack: u64,
}

/// Loads the guest's memory and makes its vCPU, with its VMCS filled.
///
/// # Errors
/// An [`Unready`] that names what failed.
pub fn make(id: PartitionId, image: &[u8], place: &Place) -> Result<(), Unready> {
    let index = usize::from(id);
    let (Some(partition), Some(cell), Some(region)) =
        (TABLE.partitions.get(index), VCPUS.get(index), VMCS.get(index))
    else {
        return Err(Unready::Vmx);
    };
    load_memory(partition, image);
    let ept_root = build_ept(index, partition)?;
    let state = decisions(id, place);
    let cr4_allowed = state.cr4_allowed;
    let settings = match place.kind {
        CoreKind::Dedicated => controls::dedicated(),
        CoreKind::Shared => controls::shared(),
    };
    let parts = Parts {
        vmcs: region.address() as u64,
        host_stack: place.host_stack,
        state,
        boot_info: partition.boot_info_at,
    };
    // SAFETY: this partition belongs to this core alone, and it is made once, before the epoch.
    let vcpu = unsafe { cell.get() }.write(Vcpu::new(parts, settings.processor));
    // SAFETY: as above.
    let region = unsafe { region.get() };
    let pages = Pages {
        io_bitmaps: [&raw const IO_BITMAP as u64; 2],
        msr_bitmap: MSR_BITMAPS.get(place.core).ok_or(Unready::Vmx)?.address() as u64,
        ept_root,
    };
    let start = Start { entry: partition.image.entry, vpid: id + 1, cr4_allowed };
    setup::fill(vcpu, region, &settings, &pages, &start).map_err(|_| Unready::Vmx)
}

/// The vCPU of a partition that was made.
///
/// # Safety
/// As [`CoreCell::get`]; and [`make`] succeeded for it.
pub unsafe fn vcpu(id: PartitionId) -> Option<&'static mut Vcpu> {
    // SAFETY: the caller's contract.
    VCPUS.get(usize::from(id)).map(|cell| unsafe { cell.get().assume_init_mut() })
}

fn decisions(id: PartitionId, place: &Place) -> VcpuState {
    let apic_id = TABLE
        .cores
        .get(place.core)
        .and_then(|core| TABLE.board.apic_ids.get(usize::from(core.cpu)))
        .copied()
        .unwrap_or(0);
    let xcr0_allowed = vcpu::xcr0_allowed();
    let host = |leaf: u32, sub: u32| {
        let found = core::arch::x86_64::__cpuid_count(leaf, sub);
        Leaf { eax: found.eax, ebx: found.ebx, ecx: found.ecx, edx: found.edx }
    };
    let cpuid = CpuidPolicy::build(
        host,
        &Facts {
            apic_id,
            tsc_khz: (TABLE.board.tsc_hz / 1000) as u32,
            partition: id,
            kind: place.kind,
            xcr0_allowed,
        },
    );
    VcpuState {
        partition: id,
        kind: place.kind,
        cpuid,
        xcr0_allowed,
        cr4_allowed: cr4_allowed(),
        msr: MsrState { apic_id, bootstrap: true },
        apic: VirtualApic::new(apic_id),
        window: None,
        console: &CONSOLES[usize::from(id) % PARTITIONS],
        counters: Counters::new(),
    }
}

/// CR4 bits that a guest may set: those of SDM 3A 2.5 up to SMAP, without MCE, VMXE and SMXE, as far as the
/// processor has them (SDM 3D A.8).
fn cr4_allowed() -> u64 {
    const OFFERED: u64 = 0x37_0FFF & !(1 << 6);
    const IA32_VMX_CR4_FIXED1: u32 = 0x489;
    // SAFETY: the MSR exists where CPUID reports VMX.
    let fixed = unsafe { x86_64::registers::model_specific::Msr::new(IA32_VMX_CR4_FIXED1).read() };
    OFFERED & fixed
}

/// Clears the partition's memory, then copies image and boot information to where the table says. The compiler proved that both
/// lie inside.
fn load_memory(partition: &Partition, image: &[u8]) {
    for region in partition.memory {
        // SAFETY: the range is the partition's alone (the compiler's proof), usable RAM (the board check's), and mapped for the
        // hypervisor at its own address.
        unsafe { core::ptr::write_bytes(region.host as *mut u8, 0, region.size as usize) };
    }
    copy_in(partition, partition.image.load_at, image);
    copy_in(partition, partition.boot_info_at, partition.boot_info);
}

fn copy_in(partition: &Partition, guest: u64, bytes: &[u8]) {
    let length = bytes.len() as u64;
    let home = partition.memory.iter().find(|region| {
        guest >= region.guest && guest.saturating_add(length) <= region.guest + region.size
    });
    if let Some(region) = home {
        let target = (region.host + (guest - region.guest)) as *mut u8;
        // SAFETY: the target lies inside one region of this partition, as just checked, and cannot overlap the staged image, which
        // lies in the hypervisor's own range.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }
}

/// Most regions that one partition can have.
const MAX_REGIONS: usize = 8;

fn build_ept(index: usize, partition: &Partition) -> Result<u64, Unready> {
    let first: usize = TABLE.partitions.iter().take(index).map(|other| other.ept_pages).sum();
    let pages = EPT.get(first..first + partition.ept_pages).ok_or(Unready::Ept)?;
    let base = pages.as_ptr().cast::<PageTable>().cast_mut();
    // SAFETY: these cells are contiguous pages that belong to this partition, by the prefix sum; `CoreCell` and `PageTable` have the
    // same layout; only this core builds them, once.
    let pool = unsafe { core::slice::from_raw_parts_mut(base, pages.len()) };
    let mut mappings = heapless::Vec::<Mapping, MAX_REGIONS>::new();
    for region in partition.memory {
        let mapping = Mapping {
            virt: region.guest,
            phys: region.host,
            size: region.size,
            access: Access {
                read: region.rights.read,
                write: region.rights.write,
                execute: region.rights.execute,
            },
            memory: Memory::WriteBack,
        };
        mappings.push(mapping).map_err(|_| Unready::Ept)?;
    }
    paging::build(Format::Ept, LargePages::Up2M, &mappings, pool, base as u64)
        .map_err(|_| Unready::Ept)?;
    crate::vmx::instructions::invept_all();
    Ok(base as u64)
}

/// TSC now, noted as the partition's first entry unless it had one.
pub fn note_first_entry(vcpu: &mut Vcpu) {
    if vcpu.first_entry == 0 {
        vcpu.first_entry = machine::tsc();
    }
}
