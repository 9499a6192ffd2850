//! Fills a vCPU's VMCB: intercepts, host state, and a guest that starts as a Multiboot2 kernel does.
#![expect(unsafe_code, reason = "writes fields of the block and switches SVM on")]

use core::arch::x86_64::__cpuid_count;

use hv_core::msr::CoreKind;
use hv_defs::svm::EFER_SVME;
use hv_defs::vmcb::{
    Field, attribute, control, intercept1, intercept2, nested, save, segment, virtual_interrupt,
};

use super::{block, entry, guest, instructions};
use crate::backend::{Handlers, Page, Setup};
use crate::vcpu::Vcpu;

/// Switches SVM on, on this core. The first page holds the host's state while a guest runs; the second what VMLOAD brings back.
pub fn enable(region: &'static mut [Page; 2]) {
    let [host_save, host_block] = region;
    // SAFETY: both are this core's own for ever, and memory is mapped one to one.
    unsafe {
        instructions::enable(&raw const *host_save as u64);
        instructions::vmsave(&raw const *host_block as u64);
    }
    instructions::close_gif();
}

/// CR4 bits that this processor lets be set, as far as CPUID shows them. APM 2 3.1.3; the others are on every processor with AMD-V.
pub fn cr4_possible() -> u64 {
    const ALWAYS: u64 = 0x7FF;
    const FSGSBASE: u64 = 1 << 16;
    const PCIDE: u64 = 1 << 17;
    const OSXSAVE: u64 = 1 << 18;
    const SMEP: u64 = 1 << 20;
    const SMAP: u64 = 1 << 21;
    let (features, more) = (__cpuid_count(1, 0).ecx, __cpuid_count(7, 0).ebx);
    let when = |register: u32, bit: u32, flag: u64| if register >> bit & 1 != 0 { flag } else { 0 };
    ALWAYS
        | when(features, 17, PCIDE)
        | when(features, 26, OSXSAVE)
        | when(more, 0, FSGSBASE)
        | when(more, 7, SMEP)
        | when(more, 20, SMAP)
}

fn set(vcpu: &Vcpu, field: Field, value: u64) {
    // SAFETY: only called from this file, which fills a block whose guest starts anew; each value is argued at its call.
    unsafe { block::write(vcpu, field, value) };
}

/// Fills the block of `vcpu`, whose exits go to `H`.
pub fn fill<H: Handlers>(vcpu: &mut Vcpu, page: &'static mut Page, setup: &Setup) {
    page.0.fill(0);
    vcpu.run = entry::runner::<H>();
    fill_controls(vcpu, H::KIND, setup);
    refresh(vcpu);
}

fn fill_controls(vcpu: &Vcpu, kind: CoreKind, setup: &Setup) {
    // Of time-shared cores the machine's interrupts exit, and CR8 is the virtual APIC's. Writes of CR4 exit on both, and those of CR0 that
    // change more than TS and MP. APM 2 15.8, 15.9, 15.13
    let (interrupts, cr8) = match kind {
        CoreKind::Dedicated => (0, 0),
        CoreKind::Shared => (intercept1::INTR | intercept1::HLT, CR8),
    };
    set(vcpu, control::INTERCEPT_CR, u64::from(CR4_WRITE | cr8));
    // #DB, #AC: a guest can raise either without end inside one instruction. #MC: the machine's. APM 2 15.12
    set(vcpu, control::INTERCEPT_EXCEPTIONS, (1 << 1) | (1 << 17) | (1 << 18));
    set(vcpu, control::INTERCEPT_1, u64::from(ALWAYS_1 | interrupts)); // APM 2 15.9
    set(vcpu, control::INTERCEPT_2, u64::from(ALWAYS_2)); // APM 2 15.9
    set(vcpu, control::IOPM_BASE, setup.port_map); // APM 2 15.10.1
    set(vcpu, control::MSRPM_BASE, vcpu.msr_maps.apic_on); // APM 2 15.11
    set(vcpu, control::GUEST_ASID, u64::from(setup.tag)); // APM 2 15.5.1
    set(vcpu, control::NESTED_CONTROL, nested::PAGING); // APM 2 15.25.3
    set(vcpu, control::NESTED_CR3, setup.nested_root); // APM 2 15.25.4
    let masking = match kind {
        CoreKind::Dedicated => 0,
        CoreKind::Shared => virtual_interrupt::MASKING,
    };
    // The virtual interrupt that asks for a window has the highest priority there is. APM 2 15.21.1, 15.21.4
    let priority = virtual_interrupt::PRIORITY | 0xFF << virtual_interrupt::VECTOR_SHIFT;
    set(vcpu, control::VIRTUAL_INTERRUPT, masking | priority);
}

/// Bits of INTERCEPT_CR: reads in the lower half, writes in the upper one. APM 2 table B-1.
const CR4_WRITE: u32 = 1 << (16 + 4);
const CR8: u32 = 1 << (16 + 8) | 1 << 8;

/// VINTR too: the virtual interrupt that asks for a window is never delivered.
const ALWAYS_1: u32 = intercept1::NMI
    | intercept1::INIT
    | intercept1::VINTR
    | intercept1::CR0_SELECTIVE
    | intercept1::RDPMC
    | intercept1::CPUID
    | intercept1::INVD
    | intercept1::INVLPGA
    | intercept1::IO
    | intercept1::MSR
    | intercept1::TASK_SWITCH
    | intercept1::SHUTDOWN;

const ALWAYS_2: u32 = intercept2::VMRUN
    | intercept2::VMMCALL
    | intercept2::VMLOAD
    | intercept2::VMSAVE
    | intercept2::STGI
    | intercept2::CLGI
    | intercept2::SKINIT
    | intercept2::WBINVD
    | intercept2::MONITOR
    | intercept2::MWAIT
    | intercept2::MWAIT_ARMED
    | intercept2::XSETBV
    | intercept2::RDPRU;

/// What a segment register holds: selector, base, limit, attributes.
type SegmentValue = (u16, u64, u32, u16);

const FLAT_CODE: SegmentValue = (0x08, 0, u32::MAX, attribute::CODE_32);
const FLAT_DATA: SegmentValue = (0x10, 0, u32::MAX, attribute::DATA_32);
/// No segment: not present.
const NONE: SegmentValue = (0, 0, 0, 0);

fn set_segment(vcpu: &Vcpu, field: Field, (selector, base, limit, attributes): SegmentValue) {
    set(vcpu, block::part(field, segment::SELECTOR, 2), selector.into());
    set(vcpu, block::part(field, segment::ATTRIBUTES, 2), attributes.into());
    set(vcpu, block::part(field, segment::LIMIT, 4), limit.into());
    set(vcpu, block::part(field, segment::BASE, 8), base);
}

const DATA_SEGMENTS: [Field; 5] = [save::ES, save::SS, save::DS, save::FS, save::GS];

/// CR0 at a guest's start: protected mode, paging off, ET and NE as every processor of this kind has them.
const GUEST_CR0: u64 = 0x31;
/// After reset. APM 2 14.1.3.
const DR6_RESET: u64 = 0xFFFF_0FF0;
const DR7_RESET: u64 = 0x400;
const RFLAGS_RESET: u64 = 2;
const TABLE_LIMIT: u32 = 0xFFFF;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// Everything that a guest's start defines but segments and MSRs. APM 2 14.1.3, 15.5.1.
fn fill_registers(vcpu: &mut Vcpu, cr0: u64, rip: u64) {
    set(vcpu, save::CR0, cr0);
    set(vcpu, save::CR2, 0);
    set(vcpu, save::CR3, 0);
    set(vcpu, save::CR4, 0);
    set(vcpu, save::EFER, EFER_SVME);
    for table in [save::GDTR, save::IDTR] {
        set_segment(vcpu, table, (0, 0, TABLE_LIMIT, 0));
    }
    set(vcpu, save::DR6, DR6_RESET);
    set(vcpu, save::DR7, DR7_RESET);
    set(vcpu, save::RSP, 0);
    set(vcpu, save::RIP, rip);
    set(vcpu, save::RFLAGS, RFLAGS_RESET);
    set(vcpu, save::CPL, 0);
    set(vcpu, control::INTERRUPT_STATE, 0);
    set(vcpu, control::EVENT_INJECTION, 0);
    vcpu.controls = 0;
    guest::ask_for_interrupt_window(vcpu, false);
    guest::flush(vcpu);
}

/// Has the guest begin as at its first start: flat 32-bit segments, as Multiboot2 3.3 asks.
pub fn refresh(vcpu: &mut Vcpu) {
    set_segment(vcpu, save::CS, FLAT_CODE);
    DATA_SEGMENTS.into_iter().for_each(|field| set_segment(vcpu, field, FLAT_DATA));
    set_segment(vcpu, save::LDTR, NONE);
    set_segment(vcpu, save::TR, (0, 0, 0x67, attribute::BUSY_TSS));
    for field in SYSTEM_CALLS {
        set(vcpu, field, 0);
    }
    set(vcpu, save::GUEST_PAT, PAT_RESET);
    set(vcpu, save::DEBUGCTL, 0);
    let entry = vcpu.start.entry;
    fill_registers(vcpu, GUEST_CR0, entry);
}

/// Registers of system calls: 0 after power-up, and INIT leaves them alone.
const SYSTEM_CALLS: [Field; 8] = [
    save::STAR,
    save::LSTAR,
    save::CSTAR,
    save::SFMASK,
    save::KERNEL_GS_BASE,
    save::SYSENTER_CS,
    save::SYSENTER_ESP,
    save::SYSENTER_EIP,
];

/// Has the guest begin as behind INIT and a start-up interrupt with `vector`: real mode, at that page. APM 2 14.1.3, 15.27.8.
pub fn start_up(vcpu: &mut Vcpu, vector: u8) {
    const LIMIT: u32 = 0xFFFF;
    const EXTENSION_TYPE: u64 = 1 << 4;
    let code = (u16::from(vector) << 8, u64::from(vector) << 12, LIMIT, attribute::CODE_16);
    set_segment(vcpu, save::CS, code);
    let data = (0, 0, LIMIT, attribute::DATA_16);
    DATA_SEGMENTS.into_iter().for_each(|field| set_segment(vcpu, field, data));
    set_segment(vcpu, save::LDTR, (0, 0, LIMIT, attribute::LDT));
    set_segment(vcpu, save::TR, (0, 0, LIMIT, attribute::BUSY_TSS));
    fill_registers(vcpu, EXTENSION_TYPE, 0);
}
