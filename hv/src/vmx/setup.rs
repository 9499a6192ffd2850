//! Fills a vCPU's VMCS: controls, host state, and a guest that starts as a Multiboot2 kernel does.
#![expect(unsafe_code, reason = "writes VMCS fields and enters VMX operation")]

use hv_core::exit::control::CR4_OSXSAVE;
use hv_defs::vmcs::{EPTP_WRITE_BACK_4_LEVELS, entry_control, field, rights};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{Efer, FsBase, GsBase, Msr};
use x86_64::registers::segmentation::{CS, DS, ES, FS, GS, SS, Segment};

use super::controls::{self, Controls};
use super::entry;
use super::instructions::{self as vmx, Failed};
use crate::backend::{Handlers, Page, Setup};
use crate::vcpu::Vcpu;

const IA32_PAT: u32 = 0x277;
/// IA32_PAT after reset. SDM 3A 12.12.4.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;

/// Enters VMX root operation on this core. The board check saw to IA32_FEATURE_CONTROL.
///
/// # Errors
/// [`Failed`] when the processor refuses.
pub fn enable(region: &'static mut Page) -> Result<(), Failed> {
    region.0[0] = u64::from(super::controls::revision());
    // SAFETY: VMX was verified at boot and the bit has no effect before VMXON. SDM 3C 24.7.
    unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS)) };
    // SAFETY: the region is a static page of this core's own with its revision in place; memory is identity-mapped.
    unsafe { vmx::vmxon(&raw const *region as u64) }
}

fn set(field: u32, value: u64) {
    // SAFETY: only called from this file, which fills a VMCS whose guest starts anew; each value is argued at its call.
    unsafe { vmx::write(field, value) };
}

/// Clears, loads and fills the VMCS of `vcpu`, whose exits go to `H`.
///
/// # Errors
/// [`Failed`] when the processor refuses the region.
pub fn fill<H: Handlers>(
    vcpu: &Vcpu,
    region: &'static mut Page,
    setup: &Setup,
) -> Result<(), Failed> {
    region.0[0] = u64::from(super::controls::revision());
    // SAFETY: the region is a static page of this vCPU's own, identity-mapped, with its revision in place.
    unsafe {
        vmx::vmclear(vcpu.block)?;
        vmx::vmptrld(vcpu.block)?;
    }
    fill_controls(&controls::of(H::KIND), vcpu, setup);
    fill_host(vcpu, entry::exit_stub::<H>());
    fill_guest_segments(&MULTIBOOT2_SEGMENTS);
    fill_guest_registers(GUEST_CR0, setup.entry);
    fill_guest_msrs();
    Ok(())
}

fn fill_controls(controls: &Controls, vcpu: &Vcpu, setup: &Setup) {
    set(field::PIN_CONTROLS, u64::from(controls.pin)); // SDM 3C 25.6.1
    set(field::PROCESSOR_CONTROLS, u64::from(controls.processor)); // SDM 3C 25.6.2
    set(field::SECONDARY_CONTROLS, u64::from(controls.secondary)); // SDM 3C 25.6.2
    set(field::EXIT_CONTROLS, u64::from(controls.exit)); // SDM 3C 25.7.1
    set(field::ENTRY_CONTROLS, u64::from(controls.entry)); // SDM 3C 25.8.1
    // #AC and #DB: a guest can raise either without end inside one instruction, and no timer or
    // NMI would get through; #MC: the machine's, not the guest's. SDM 3C 25.6.3
    set(field::EXCEPTION_BITMAP, (1 << 1) | (1 << 17) | (1 << 18));
    // Mask and match of 0 meet every page fault, so the bitmap's bit 14, which is 0, decides: none exits. SDM 3C 25.6.3
    set(field::PAGE_FAULT_MASK, 0);
    set(field::PAGE_FAULT_MATCH, 0);
    set(field::IO_BITMAP_A, setup.port_map); // SDM 3C 25.6.4
    set(field::IO_BITMAP_B, setup.port_map); // SDM 3C 25.6.4
    set(field::MSR_BITMAP, vcpu.msr_maps.apic_on); // SDM 3C 25.6.9
    set(field::EPT_POINTER, setup.nested_root | EPTP_WRITE_BACK_4_LEVELS); // SDM 3C 25.6.11
    if vcpu.apic_virtualization {
        set(field::VIRTUAL_APIC_ADDRESS, vcpu.state.apic.page_address()); // SDM 3C 25.6.8
        // Unused where the processor delivers interrupts, which looks at the priority itself; its upper bits must be 0. SDM 3C 25.6.8
        set(field::TPR_THRESHOLD, 0);
        // Every interrupt is edge-triggered and nobody waits for its end. SDM 3C 25.6.8, 30.1.4
        (0..4).for_each(|word| set(field::EOI_EXIT_BITMAP + 2 * word, 0));
        set(field::GUEST_INTERRUPT_STATUS, 0); // SDM 3C 25.4.2
    }
    set(field::VPID, u64::from(setup.tag)); // SDM 3C 25.6.12
    set(field::CR3_TARGET_COUNT, 0); // SDM 3C 25.6.7
    set(field::EXIT_MSR_STORE_COUNT, 0); // SDM 3C 25.7.2
    set(field::EXIT_MSR_LOAD_COUNT, 0); // SDM 3C 25.7.2
    set(field::ENTRY_MSR_LOAD_COUNT, 0); // SDM 3C 25.8.2
    // CD, NW and NE are not the guest's: it reads what it wrote, from the shadow. SDM 3C 25.6.6
    set(field::CR0_MASK, (1 << 30) | (1 << 29) | (1 << 5));
    // What is not the guest's to set, and OSXSAVE, which CPUID follows. SDM 3C 25.6.6
    set(field::CR4_MASK, !vcpu.state.cr4_allowed | CR4_OSXSAVE);
    set(field::VMCS_LINK_POINTER, u64::MAX); // SDM 3C 25.4.2
}

fn fill_host(vcpu: &Vcpu, exit_stub: u64) {
    let tr = task_register();
    // SDM 3C 25.5: what the processor loads on each exit is what this core runs with now.
    set(field::HOST_CR0, Cr0::read_raw());
    set(field::HOST_CR3, Cr3::read_raw().0.start_address().as_u64());
    set(field::HOST_CR4, Cr4::read_raw());
    set(field::HOST_CS_SELECTOR, u64::from(CS::get_reg().0));
    set(field::HOST_SS_SELECTOR, u64::from(SS::get_reg().0));
    set(field::HOST_DS_SELECTOR, u64::from(DS::get_reg().0));
    set(field::HOST_ES_SELECTOR, u64::from(ES::get_reg().0));
    set(field::HOST_FS_SELECTOR, u64::from(FS::get_reg().0));
    set(field::HOST_GS_SELECTOR, u64::from(GS::get_reg().0));
    set(field::HOST_TR_SELECTOR, u64::from(tr));
    set(field::HOST_FS_BASE, FsBase::read().as_u64());
    set(field::HOST_GS_BASE, GsBase::read().as_u64());
    set(field::HOST_TR_BASE, task_segment_base(tr));
    set(field::HOST_GDTR_BASE, sgdt().base.as_u64());
    set(field::HOST_IDTR_BASE, sidt().base.as_u64());
    set(field::HOST_SYSENTER_CS, 0);
    set(field::HOST_SYSENTER_ESP, 0);
    set(field::HOST_SYSENTER_EIP, 0);
    set(field::HOST_EFER, Efer::read_raw());
    // SAFETY: IA32_PAT exists on every 64-bit processor.
    set(field::HOST_PAT, unsafe { Msr::new(IA32_PAT).read() });
    set(field::HOST_RSP, vcpu.behind_registers());
    set(field::HOST_RIP, exit_stub);
}

fn task_register() -> u16 {
    let selector: u16;
    // SAFETY: STR only reads the selector.
    unsafe { core::arch::asm!("str {:x}", out(reg) selector, options(nomem, nostack)) };
    selector
}

/// Base of the 64-bit TSS that `selector` names in the current GDT. SDM 3A 8.2.3.
fn task_segment_base(selector: u16) -> u64 {
    let descriptor = (sgdt().base.as_u64() + u64::from(selector & !7)) as *const u64;
    // SAFETY: the task register was loaded from this GDT, so its 16-byte descriptor lies there.
    let (low, high) = unsafe { (descriptor.read(), descriptor.add(1).read()) };
    (low >> 16 & 0xFF_FFFF) | (low >> 32 & 0xFF00_0000) | (high << 32)
}

/// Selector, base, limit and rights fields of each segment register.
const SEGMENTS: [[u32; 4]; 8] = [
    [field::GUEST_CS_SELECTOR, field::GUEST_CS_BASE, field::GUEST_CS_LIMIT, field::GUEST_CS_RIGHTS],
    [field::GUEST_SS_SELECTOR, field::GUEST_SS_BASE, field::GUEST_SS_LIMIT, field::GUEST_SS_RIGHTS],
    [field::GUEST_DS_SELECTOR, field::GUEST_DS_BASE, field::GUEST_DS_LIMIT, field::GUEST_DS_RIGHTS],
    [field::GUEST_ES_SELECTOR, field::GUEST_ES_BASE, field::GUEST_ES_LIMIT, field::GUEST_ES_RIGHTS],
    [field::GUEST_FS_SELECTOR, field::GUEST_FS_BASE, field::GUEST_FS_LIMIT, field::GUEST_FS_RIGHTS],
    [field::GUEST_GS_SELECTOR, field::GUEST_GS_BASE, field::GUEST_GS_LIMIT, field::GUEST_GS_RIGHTS],
    [
        field::GUEST_LDTR_SELECTOR,
        field::GUEST_LDTR_BASE,
        field::GUEST_LDTR_LIMIT,
        field::GUEST_LDTR_RIGHTS,
    ],
    [field::GUEST_TR_SELECTOR, field::GUEST_TR_BASE, field::GUEST_TR_LIMIT, field::GUEST_TR_RIGHTS],
];

/// What a segment register holds: selector, base, limit, rights.
type SegmentValue = (u64, u64, u64, u32);

const FLAT_DATA: SegmentValue = (0x10, 0, 0xFFFF_FFFF, rights::DATA_32);
const NO_LDT: SegmentValue = (0, 0, 0, rights::UNUSABLE);

/// Flat 32-bit segments, as Multiboot2 3.3 asks; no LDT; a TSS that is never used. SDM 3C 25.4.1, 27.3.1.2.
const MULTIBOOT2_SEGMENTS: [SegmentValue; 8] = [
    (0x08, 0, 0xFFFF_FFFF, rights::CODE_32),
    FLAT_DATA,
    FLAT_DATA,
    FLAT_DATA,
    FLAT_DATA,
    FLAT_DATA,
    NO_LDT,
    (0, 0, 0x67, rights::BUSY_TSS),
];

fn fill_guest_segments(values: &[SegmentValue; 8]) {
    for ([selector, base, limit, access], value) in SEGMENTS.into_iter().zip(values) {
        set(selector, value.0);
        set(base, value.1);
        set(limit, value.2);
        set(access, u64::from(value.3));
    }
}

/// CR0 at a guest's start: protected mode, paging off, ET and NE as every processor of this kind has them.
const GUEST_CR0: u64 = 0x31;
/// CR4 bits that the hypervisor holds set under every guest, hidden by the shadow: VMXE, which VMX demands, and MCE, without which a
/// machine check would reset the board instead of reaching us.
pub const CR4_HELD: u64 = 1 << 13 | 1 << 6;
/// DR7 after reset. SDM 3B 18.2.4.
const DR7_RESET: u64 = 0x400;
/// RFLAGS after reset: bit 1, which is always set.
const RFLAGS_RESET: u64 = 2;

/// Limit of the descriptor tables after reset and INIT. SDM 3A 9.1.1, table 9-1.
const TABLE_LIMIT: u64 = 0xFFFF;
/// CR0.NE, which VMX demands and the shadow shows as the guest has it. SDM 3D A.7.
const NUMERIC_ERROR: u64 = 1 << 5;

/// Everything that a guest's start defines but segments and MSRs. SDM 3C 25.4.1, 25.4.2; shadows: 25.6.6.
fn fill_guest_registers(cr0: u64, rip: u64) {
    set(field::GUEST_CR0, cr0 | NUMERIC_ERROR);
    set(field::CR0_SHADOW, cr0);
    set(field::GUEST_CR3, 0);
    set(field::GUEST_CR4, CR4_HELD);
    set(field::CR4_SHADOW, 0);
    set(field::GUEST_EFER, 0);
    set(field::GUEST_GDTR_BASE, 0);
    set(field::GUEST_GDTR_LIMIT, TABLE_LIMIT);
    set(field::GUEST_IDTR_BASE, 0);
    set(field::GUEST_IDTR_LIMIT, TABLE_LIMIT);
    set(field::GUEST_DR7, DR7_RESET);
    set(field::GUEST_RSP, 0);
    set(field::GUEST_RIP, rip);
    set(field::GUEST_RFLAGS, RFLAGS_RESET);
    set(field::GUEST_PENDING_DEBUG, 0);
    set(field::GUEST_INTERRUPTIBILITY, 0);
    set(field::GUEST_ACTIVITY, 0);
    set(field::ENTRY_INTERRUPTION_INFO, 0); // SDM 3C 25.8.3
}

/// MSRs as after power-up; INIT leaves them alone.
fn fill_guest_msrs() {
    set(field::GUEST_SYSENTER_CS, 0);
    set(field::GUEST_SYSENTER_ESP, 0);
    set(field::GUEST_SYSENTER_EIP, 0);
    set(field::GUEST_DEBUGCTL, 0);
    set(field::GUEST_PAT, PAT_RESET);
}

/// Has the guest of the current VMCS begin as at its first start, at `entry`.
pub fn refresh(entry: u64) {
    fill_guest_segments(&MULTIBOOT2_SEGMENTS);
    fill_guest_registers(GUEST_CR0, entry);
    fill_guest_msrs();
    begin_outside_long_mode();
}

/// The guest has left 64-bit mode behind, and its translations are those of another life.
fn begin_outside_long_mode() {
    let controls = vmx::read(field::ENTRY_CONTROLS) & !u64::from(entry_control::IA32E_GUEST);
    set(field::ENTRY_CONTROLS, controls); // SDM 3C 25.8.1
    vmx::invvpid(vmx::read(field::VPID) as u16);
}

/// Has the guest of the current VMCS begin as behind INIT and a start-up interrupt with `vector`: real mode, at that page. It is an
/// unrestricted guest, so the processor runs real mode itself. SDM 3A 9.1.1 table 9-1, 11.4.4; SDM 3C 27.3.1.2.
pub fn start_up(vector: u8) {
    const LIMIT: u64 = 0xFFFF;
    const DATA: SegmentValue = (0, 0, LIMIT, rights::DATA_16);
    let code = (u64::from(vector) << 8, u64::from(vector) << 12, LIMIT, rights::CODE_16);
    let (local, task) = ((0, 0, LIMIT, rights::LDT), (0, 0, LIMIT, rights::BUSY_TSS));
    fill_guest_segments(&[code, DATA, DATA, DATA, DATA, DATA, local, task]);
    // INIT keeps CD and NW, and clears the rest but ET.
    const EXTENSION_TYPE: u64 = 1 << 4;
    const CACHE_CONTROL: u64 = 1 << 30 | 1 << 29;
    let kept = vmx::read(field::CR0_SHADOW) & CACHE_CONTROL;
    fill_guest_registers(EXTENSION_TYPE, 0);
    set(field::CR0_SHADOW, EXTENSION_TYPE | kept);
    begin_outside_long_mode();
}
