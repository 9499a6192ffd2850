//! Turbo, frequency and idle states: what the hypervisor could own on this machine. Who is to own them is a choice that stays a person's.
//!
//! What the hypervisor does at boot is decided by the same lines (`hv_core::power`), with what the registers hold then.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use hv_core::power::{C1E, TURBO_OFF, base_ratio, guaranteed_request, without_turbo};
use hv_defs::msr;

use crate::facts::Core;

/// CPUID.06H:EAX: turbo is engaged; the processor can choose its frequency by itself (HWP). SDM 2A, CPUID.
const TURBO: u32 = 1 << 1;
const HWP: u32 = 1 << 7;
/// CPUID.01H:ECX: SpeedStep.
const SPEED_STEP: u32 = 1 << 7;
/// IA32_MISC_ENABLE: SpeedStep is on. SDM 4 table 2-2.
const SPEED_STEP_ON: u64 = 1 << 16;
/// IA32_PM_ENABLE: HWP owns the frequency. SDM 3B 15.4.2.
const HWP_ON: u64 = 1 << 0;

/// EBX, EDX and ECX of CPUID leaf 0: whose numbers of registers these are.
const INTEL: [u32; 3] = [0x756E_6547, 0x4965_6E69, 0x6C65_746E];
/// AuthenticAMD, in the same order.
const AMD: [u32; 3] = [0x6874_7541, 0x6974_6E65, 0x444D_4163];

/// The registers that tell; IA32_HWP_CAPABILITIES only once HWP is on. SDM 3B 15.4.2.
const REGISTERS: [u32; 5] =
    [msr::PLATFORM_INFO, msr::PERF_CTL, msr::MISC_ENABLE, msr::POWER_CTL, msr::PM_ENABLE];

/// Whether a core is one of Intel's.
pub(crate) fn is_intel(core: &Core) -> bool {
    let [_, b, c, d] = core.leaf(0, 0);
    [b, d, c] == INTEL
}

/// Whether a core is one of AMD's.
pub(crate) fn is_amd(core: &Core) -> bool {
    let [_, b, c, d] = core.leaf(0, 0);
    [b, d, c] == AMD
}

/// The registers of power with their values. `read` reads one where there is such a register and it may be read. A machine that answers
/// for one that no processor has would answer for any: nothing that it says counts.
pub fn registers(boot: Option<&Core>, read: impl Fn(u32) -> Option<u64>) -> Vec<(u32, u64)> {
    if !boot.is_some_and(is_intel) || read(msr::NOBODYS).is_some() {
        return Vec::new();
    }
    let read = |register: u32| Some((register, read(register)?));
    let mut known: Vec<_> = REGISTERS.into_iter().filter_map(read).collect();
    if known.iter().any(|(register, value)| *register == msr::PM_ENABLE && value & HWP_ON != 0) {
        known.extend(read(msr::HWP_CAPABILITIES));
    }
    known
}

/// Whether the hypervisor could own something, and what says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key of `[power]`, and the hypervisor's word for it.
    pub key: &'static str,
    /// See `key`.
    pub word: &'static str,
    /// Whether the machine can.
    pub can: bool,
    /// A sentence without its full stop.
    pub why: String,
}

/// What is concluded for `turbo`, `frequency` and `idle`.
#[must_use]
pub fn conclude(core: &Core, registers: &[(u32, u64)]) -> [Found; 3] {
    let read = |register: u32| {
        registers.iter().find(|(known, _)| *known == register).map(|(_, value)| *value)
    };
    let found = |key, word, outcome: Result<String, String>| Found {
        key,
        word,
        can: outcome.is_ok(),
        why: outcome.unwrap_or_else(|why| why),
    };
    [
        found("turbo", "off", turbo(core, read)),
        found("frequency", "base", frequency(core, read)),
        found("idle", "c1", idle(read)),
    ]
}

fn unseen(register: &str) -> String {
    format!("{register} was not seen")
}

fn turbo(core: &Core, read: impl Fn(u32) -> Option<u64>) -> Result<String, String> {
    if core.leaf(6, 0)[0] & TURBO != 0 {
        return Ok("the processor raises its clock by itself (CPUID.06H:EAX.1)".to_string());
    }
    let value = read(msr::MISC_ENABLE).ok_or_else(|| {
        format!(
            "CPUID shows no turbo, and {}, where one that is switched off would show",
            unseen("IA32_MISC_ENABLE")
        )
    })?;
    without_turbo(value, false)
        .map(|_| {
            format!(
                "turbo is there and switched off now (IA32_MISC_ENABLE.{})",
                TURBO_OFF.trailing_zeros()
            )
        })
        .ok_or_else(|| "the processor has no turbo".to_string())
}

fn frequency(core: &Core, read: impl Fn(u32) -> Option<u64>) -> Result<String, String> {
    if core.leaf(6, 0)[0] & HWP != 0 {
        let enabled = read(msr::PM_ENABLE).ok_or_else(|| unseen("IA32_PM_ENABLE"))?;
        if enabled & HWP_ON != 0 {
            return hardware_controlled(read(msr::HWP_CAPABILITIES));
        }
    }
    if core.leaf(1, 0)[2] & SPEED_STEP == 0 {
        return Err("the processor shows neither HWP that is on nor SpeedStep".to_string());
    }
    let enabled = read(msr::MISC_ENABLE).ok_or_else(|| unseen("IA32_MISC_ENABLE"))?;
    if enabled & SPEED_STEP_ON == 0 {
        return Err("SpeedStep is off (IA32_MISC_ENABLE.16); the firmware's set-up may have a switch for it".to_string());
    }
    let told = read(msr::PLATFORM_INFO).zip(read(msr::PERF_CTL));
    let (info, control) = told.ok_or_else(|| unseen("MSR_PLATFORM_INFO or IA32_PERF_CTL"))?;
    let base = base_ratio(info, control).ok_or("MSR_PLATFORM_INFO tells no ratio of the TSC")?;
    let ratio = base >> 8 & 0xFF;
    Ok(format!(
        "SpeedStep is on, and the TSC counts {ratio} times the bus clock (MSR_PLATFORM_INFO)"
    ))
}

fn hardware_controlled(capabilities: Option<u64>) -> Result<String, String> {
    let capabilities = capabilities.ok_or_else(|| unseen("IA32_HWP_CAPABILITIES"))?;
    let request = guaranteed_request(capabilities)
        .ok_or("HWP is on, and guarantees no performance (IA32_HWP_CAPABILITIES)")?;
    let (highest, lowest) = (capabilities & 0xFF, capabilities >> 24 & 0xFF);
    Ok(format!(
        "the processor chooses its performance by itself (HWP), from {lowest} to {highest}, and guarantees {}",
        request & 0xFF
    ))
}

fn idle(read: impl Fn(u32) -> Option<u64>) -> Result<String, String> {
    let value = read(msr::POWER_CTL).ok_or_else(|| unseen("MSR_POWER_CTL"))?;
    let now = if value & C1E == 0 { "off" } else { "on" };
    Ok(format!(
        "C1E, in which a core that waits is slow to come back, is {now} and can be switched (MSR_POWER_CTL.1)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Leaf;

    const MISC_ENABLE: u64 = 0x85_0089;

    fn core(turbo: bool, hwp: bool, speed_step: bool) -> Core {
        let leaf = |leaf, registers| Leaf { leaf, sub: 0, registers };
        let six = (u32::from(turbo) * TURBO) | (u32::from(hwp) * HWP);
        let leaves = [
            leaf(0, [6, INTEL[0], INTEL[2], INTEL[1]]),
            leaf(1, [0, 0, u32::from(speed_step) * SPEED_STEP, 0]),
            leaf(6, [six, 0, 0, 0]),
        ];
        Core { leaves: leaves.into() }
    }

    /// Of an industrial PC whose firmware turned HWP on.
    const MODERN: [(u32, u64); 4] = [
        (msr::MISC_ENABLE, MISC_ENABLE),
        (msr::POWER_CTL, 0x24_0057),
        (msr::PM_ENABLE, 1),
        (msr::HWP_CAPABILITIES, 0x010A_162A),
    ];
    /// Of one with SpeedStep.
    const OLDER: [(u32, u64); 4] = [
        (msr::PLATFORM_INFO, 0x8_0000_2400),
        (msr::PERF_CTL, 0x2D00),
        (msr::MISC_ENABLE, MISC_ENABLE),
        (msr::POWER_CTL, 0),
    ];

    fn told(core: &Core, registers: &[(u32, u64)]) -> [(bool, String); 3] {
        conclude(core, registers).map(|found| (found.can, found.why))
    }

    #[track_caller]
    fn want(told: &(bool, String), can: bool, part: &str) {
        assert!(told.0 == can && told.1.contains(part), "{told:?}");
    }

    #[test]
    fn what_the_hypervisor_can_own_is_told_with_what_says_so() {
        let [turbo, frequency, idle] = told(&core(true, true, true), &MODERN);
        want(&turbo, true, "CPUID.06H:EAX.1");
        want(&frequency, true, "from 1 to 42, and guarantees 22");
        want(&idle, true, "is on and");
        let [turbo, frequency, idle] = told(&core(false, false, true), &OLDER);
        want(&turbo, false, "no turbo");
        want(&frequency, true, "36 times the bus clock");
        want(&idle, true, "is off and");
    }

    #[test]
    fn turbo_that_is_switched_off_is_still_there() {
        let off = [(msr::MISC_ENABLE, MISC_ENABLE | TURBO_OFF)];
        want(&told(&core(false, false, false), &off)[0], true, "IA32_MISC_ENABLE.38");
    }

    #[test]
    fn what_was_not_seen_is_no_proposal() {
        for found in told(&core(false, true, true), &[]) {
            want(&found, false, "was not seen");
        }
        want(&told(&core(true, false, false), &[])[1], false, "neither HWP");
        let off = [(msr::MISC_ENABLE, 1)];
        want(&told(&core(true, false, true), &off)[1], false, "SpeedStep is off");
        let silent = [(msr::PM_ENABLE, 1), (msr::HWP_CAPABILITIES, 0x2A)];
        want(&told(&core(true, true, true), &silent)[1], false, "guarantees no performance");
        // HWP that is off leaves the frequency to SpeedStep.
        let mut asleep = OLDER.to_vec();
        asleep.push((msr::PM_ENABLE, 0));
        want(&told(&core(true, true, true), &asleep)[1], true, "36 times");
    }

    #[test]
    fn registers_are_asked_for_where_their_numbers_mean_something() {
        let core = core(true, true, true);
        let all = |register: u32| (register != msr::NOBODYS).then_some(1);
        let asked: Vec<u32> =
            registers(Some(&core), all).iter().map(|(number, _)| *number).collect();
        assert_eq!(asked, [REGISTERS.as_slice(), &[msr::HWP_CAPABILITIES]].concat());
        let asleep = |register: u32| (register != msr::NOBODYS).then_some(0);
        assert_eq!(registers(Some(&core), asleep).len(), REGISTERS.len());
        assert_eq!(registers(Some(&core), |_| Some(0)), [], "it answers for any number");
        assert_eq!(registers(Some(&Core::default()), all), [], "another maker's");
        assert_eq!(registers(None, all), []);
        assert_eq!(registers(Some(&core), |_| None), []);
    }
}
