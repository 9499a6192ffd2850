//! Frequency, turbo and idle states: the values of the registers that own them, decided without touching one.

/// IA32_MISC_ENABLE: turbo is off. CPUID.06H:EAX.1 then denies that there is any. SDM 4 table 2-2, SDM 3B 15.3.2.2.
pub const TURBO_OFF: u64 = 1 << 38;

/// MSR_POWER_CTL: C1 lowers the voltage and the frequency too (C1E), which takes time to take back. SDM 4, MSR_POWER_CTL.
pub const C1E: u64 = 1 << 1;

/// IA32_MISC_ENABLE with turbo off; `None` where the processor has no turbo to be switched off, and no such bit. `engaged` is
/// CPUID.06H:EAX.1.
#[must_use]
pub const fn without_turbo(misc_enable: u64, engaged: bool) -> Option<u64> {
    if engaged || misc_enable & TURBO_OFF != 0 { Some(misc_enable | TURBO_OFF) } else { None }
}

/// IA32_HWP_REQUEST that allows the guaranteed performance and nothing else, out of IA32_HWP_CAPABILITIES; energy counts nothing (bits
/// 31-24). `None` where the processor guarantees none. SDM 3B 15.4.3, 15.4.4.
#[must_use]
pub const fn guaranteed_request(capabilities: u64) -> Option<u64> {
    let guaranteed = capabilities >> 8 & 0xFF;
    if guaranteed == 0 { None } else { Some(guaranteed << 16 | guaranteed << 8 | guaranteed) }
}

/// IA32_PERF_CTL with the ratio at which the TSC counts, out of MSR_PLATFORM_INFO; `None` where that tells none. SDM 3B 15.1.1, SDM 4,
/// MSR_PLATFORM_INFO bits 15-8.
#[must_use]
pub const fn base_ratio(platform_info: u64, performance_control: u64) -> Option<u64> {
    let ratio = platform_info >> 8 & 0xFF;
    if ratio == 0 { None } else { Some(performance_control & !0xFFFF | ratio << 8) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turbo_goes_off_where_there_is_one() {
        assert_eq!(without_turbo(0x85_0089, true), Some(0x40_0085_0089));
        // Firmware switched it off: CPUID denies it, and the bit says why.
        assert_eq!(without_turbo(0x40_0085_0089, false), Some(0x40_0085_0089));
        assert_eq!(without_turbo(0x85_0089, false), None);
    }

    #[test]
    fn what_is_guaranteed_is_least_and_most_and_wanted() {
        // Highest 0x2A, guaranteed 0x16, efficient 0x0A, lowest 1.
        assert_eq!(guaranteed_request(0x010A_162A), Some(0x16_1616));
        assert_eq!(guaranteed_request(0x010A_002A), None);
    }

    #[test]
    fn the_ratio_is_the_one_of_the_tsc_and_the_rest_stays() {
        // 3.6 GHz of 100 MHz; bit 32 of the control is another's.
        assert_eq!(base_ratio(0x8_0000_2400, 0x1_0000_2D00), Some(0x1_0000_2400));
        assert_eq!(base_ratio(0, 0x2D00), None);
    }
}
