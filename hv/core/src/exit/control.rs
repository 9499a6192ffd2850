//! Rules of the control registers: CR0, CR4, CR8 and XCR0.

use super::action::{Action, GENERAL_PROTECTION, Operation, Violation};
use super::counters::Denial;
use super::{Registers, VcpuState, stop};

/// CR4.OSXSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;

const CR0_PE: u64 = 1;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
/// CR0.PG.
pub(crate) const CR0_PG: u64 = 1 << 31;
/// The bits of CR0 that are defined. SDM 3A 2.5.
const CR0_DEFINED: u64 = 0xE005_003F;
/// CR4.PAE.
pub(crate) const CR4_PAE: u64 = 1 << 5;
const CR4_PCIDE: u64 = 1 << 17;
const EFER_LME: u64 = 1 << 8;
/// EFER.LMA.
pub(crate) const EFER_LMA: u64 = 1 << 10;
/// The process-context identifier in CR3. SDM 3A 4.10.1.
const CR3_PCID: u64 = 0xFFF;

/// A control register of which a write exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// CR0.
    Cr0,
    /// CR4.
    Cr4,
}

/// The guest's control registers as the machine has them, when it writes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlState {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// The guest executes 64-bit code.
    pub code_64: bool,
}

/// What a write of CR0 loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlLoad {
    /// CR0 as the guest reads it. CD and NW stay clear in the machine.
    pub cr0: u32,
    /// What becomes of paging.
    pub paging: Paging,
}

/// What a write of CR0 does to paging. Any change flushes the guest's translations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// It stays as it is.
    Same,
    /// It is turned on or off, and EFER stays as it is.
    Turned,
    /// It is turned on, and with it IA-32e mode: EFER.LMA is set.
    EntersLong,
    /// It is turned off, and with it IA-32e mode: EFER.LMA is cleared.
    LeavesLong,
}

/// A write of CR0 or CR4 that touches bits which are not the guest's.
pub(super) fn write(
    register: Control,
    value: u64,
    state: &ControlState,
    vcpu: &mut VcpuState,
) -> Action {
    match register {
        Control::Cr0 => write_cr0(value, state, vcpu),
        Control::Cr4 => write_cr4(value, state, vcpu),
    }
}

/// SDM 3A 2.5 (CR0), 10.8.5 (IA-32e mode).
fn write_cr0(value: u64, state: &ControlState, vcpu: &mut VcpuState) -> Action {
    let is_bad = value >> 32 != 0
        || (value & CR0_PG != 0 && value & CR0_PE == 0)
        || (value & CR0_NW != 0 && value & CR0_CD == 0);
    let turns = (value ^ state.cr0) & CR0_PG != 0;
    let turns_on = turns && value & CR0_PG != 0;
    let turns_off = turns && !turns_on;
    let has_pae = state.cr4 & CR4_PAE != 0;
    let is_long = state.efer & EFER_LME != 0;
    if is_bad
        || (turns_off && (state.code_64 || state.cr4 & CR4_PCIDE != 0))
        || (turns_on && is_long && !has_pae)
    {
        return GENERAL_PROTECTION;
    }
    if turns_on && !is_long && has_pae {
        return stop(vcpu, Violation::PaePaging);
    }
    // The guest reads the cache control bits as it wrote them. The machine keeps them clear.
    if value & (CR0_CD | CR0_NW) != 0 {
        vcpu.deny(Denial::ControlRegister, 0);
    }
    let paging = match (turns_on, turns_off) {
        (false, false) => Paging::Same,
        (true, _) if is_long => Paging::EntersLong,
        (_, true) if state.efer & EFER_LMA != 0 => Paging::LeavesLong,
        _ => Paging::Turned,
    };
    Action::only(Operation::LoadCr0(ControlLoad { cr0: (value & CR0_DEFINED) as u32, paging }))
}

/// SDM 3A 2.5 (CR4), 4.10.1 (PCIDE).
fn write_cr4(value: u64, state: &ControlState, vcpu: &mut VcpuState) -> Action {
    if value & !vcpu.cr4_allowed != 0 {
        vcpu.deny(Denial::ControlRegister, 0);
        return GENERAL_PROTECTION;
    }
    let is_active = state.efer & EFER_LMA != 0;
    let changed = value ^ state.cr4;
    if (is_active && value & CR4_PAE == 0)
        || (!is_active && value & CR4_PCIDE != 0)
        || (changed & value & CR4_PCIDE != 0 && state.cr3 & CR3_PCID != 0)
    {
        return GENERAL_PROTECTION;
    }
    if changed & CR4_PAE != 0 && state.cr0 & CR0_PG != 0 {
        return stop(vcpu, Violation::PaePaging);
    }
    // A write of OSXSAVE exits although the guest may set the bit. So CPUID, which shows it, need not read CR4.
    vcpu.cpuid.set_osxsave(value & CR4_OSXSAVE != 0);
    Action::only(Operation::LoadCr4(value))
}

/// A move to CR8. SDM 3A 11.8.6.
pub(super) fn write_task_priority(value: u64, vcpu: &mut VcpuState) -> Action {
    if value > 15 {
        return GENERAL_PROTECTION;
    }
    vcpu.apic.set_tpr((value as u8) << 4);
    Action::APIC_CHANGED
}

/// A move from CR8 to a general-purpose register.
pub(super) fn read_task_priority(register: u8, vcpu: &VcpuState) -> Action {
    let value = u64::from(vcpu.apic.tpr() >> 4);
    Action::only(Operation::LoadRegister { register, value })
}

/// XSETBV.
pub(super) fn write_extended(registers: &Registers, vcpu: &mut VcpuState) -> Action {
    let value = registers.edx_eax();
    if registers.rcx as u32 != 0 || !xcr0_is_valid(value, vcpu.xcr0_allowed) {
        vcpu.deny(Denial::ControlRegister, 0);
        return GENERAL_PROTECTION;
    }
    vcpu.cpuid.set_xcr0(value);
    Action::only(Operation::LoadXcr0(value))
}

/// The rules of SDM 1 13.3: x87 always, AVX needs SSE, the three AVX-512 components together and with AVX,
/// the two MPX components together.
#[must_use]
pub const fn xcr0_is_valid(value: u64, allowed: u64) -> bool {
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const BOUNDS: u64 = 0b11 << 3;
    const AVX_512: u64 = 0b111 << 5;
    let avx_512 = value & AVX_512;
    let bounds = value & BOUNDS;
    value & 1 == 1
        && value & !allowed == 0
        && (value & AVX == 0 || value & SSE != 0)
        && (avx_512 == 0 || (avx_512 == AVX_512 && value & AVX != 0))
        && (bounds == 0 || bounds == BOUNDS)
}
