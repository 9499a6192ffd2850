//! Takes turbo, frequency and idle states over from firmware, as far as the board file says.
//!
//! The hypervisor itself sleeps by HLT only, and offers MWAIT to nobody: so no core gets deeper than C1.
#![expect(unsafe_code, reason = "writes the registers that own frequency and idle states")]

use core::arch::x86_64::__cpuid;

use hv_core::power;
use hv_defs::msr;
use x86_64::registers::model_specific::Msr;

use crate::cpu::guarded;
use crate::table::TABLE;

/// SDM 2A, CPUID leaf 6 EAX.
const TURBO: u32 = 1 << 1;
const HWP: u32 = 1 << 7;
/// SDM 2A, CPUID leaf 1 ECX.
const SPEED_STEP: u32 = 1 << 7;
/// IA32_MISC_ENABLE: SpeedStep is on. SDM 4 table 2-2.
const SPEED_STEP_ON: u64 = 1 << 16;
/// IA32_PM_ENABLE: HWP owns the frequency, and IA32_PERF_CTL nothing any more. SDM 3B 15.4.2.
const HWP_ON: u64 = 1 << 0;

/// Does on the core that runs this what the board file asks for, and tells what it cannot.
pub fn take_over(need: &mut dyn FnMut(bool, &'static str)) {
    let wanted = TABLE.board.power;
    need(
        !wanted.turbo_off || turn_turbo_off(),
        "a turbo that can be switched off (IA32_MISC_ENABLE.38), which `turbo = \"off\"` of the board file's [power] needs",
    );
    need(
        !wanted.base_frequency || hold_frequency(),
        "a frequency that can be held (HWP, or SpeedStep with MSR_PLATFORM_INFO), which `frequency = \"base\"` of the board file's [power] needs; SpeedStep may be off in the firmware's set-up",
    );
    need(
        !wanted.c1_only || turn_c1e_off(),
        "a C1E that can be switched off (MSR_POWER_CTL.1), which `idle = \"c1\"` of the board file's [power] needs",
    );
}

fn turn_turbo_off() -> bool {
    let value = guarded::read_msr(msr::MISC_ENABLE);
    let value = value.and_then(|value| power::without_turbo(value, __cpuid(6).eax & TURBO != 0));
    value.is_some_and(|value| set(msr::MISC_ENABLE, value)) && __cpuid(6).eax & TURBO == 0
}

fn hold_frequency() -> bool {
    let hwp_owns = __cpuid(6).eax & HWP != 0
        && guarded::read_msr(msr::PM_ENABLE).is_some_and(|value| value & HWP_ON != 0);
    if hwp_owns {
        let request = guarded::read_msr(msr::HWP_CAPABILITIES).and_then(power::guaranteed_request);
        return request.is_some_and(|request| set(msr::HWP_REQUEST, request));
    }
    let steps = __cpuid(1).ecx & SPEED_STEP != 0
        && guarded::read_msr(msr::MISC_ENABLE).is_some_and(|value| value & SPEED_STEP_ON != 0);
    let control = guarded::read_msr(msr::PLATFORM_INFO)
        .zip(guarded::read_msr(msr::PERF_CTL))
        .and_then(|(info, control)| power::base_ratio(info, control));
    steps && control.is_some_and(|control| set(msr::PERF_CTL, control))
}

fn turn_c1e_off() -> bool {
    guarded::read_msr(msr::POWER_CTL).is_some_and(|value| set(msr::POWER_CTL, value & !power::C1E))
}

/// Writes a register that was read before, and returns whether it holds that now: firmware may have locked it.
fn set(number: u32, value: u64) -> bool {
    // SAFETY: the register exists, and the value differs from what it held in fields that CPUID, or the register itself, says are there.
    unsafe { Msr::new(number).write(value) };
    guarded::read_msr(number) == Some(value)
}
