//! The time of day: the machine's clock, read once at boot, and the TSC from there on; and the registers of an MC146818 in which a
//! partition reads it.
//!
//! The registers follow the format that the partition asks for (register B: binary or decimal, 24 or 12 hours). An update takes no
//! time, so the flag that announces one is never up. Setting the time, alarms and periodic interrupts are not there: such writes change
//! nothing.

use core::sync::atomic::{AtomicU8, Ordering};

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const A: u8 = 0x0A;
const B: u8 = 0x0B;
const D: u8 = 0x0D;
/// Where PCs keep the century; the compiler's FADT says so.
const CENTURY: u8 = 0x32;

/// Register A: the usual time base and rate.
const A_VALUE: u8 = 0x26;
/// Register D: the time is valid.
const VALID: u8 = 0x80;
/// Register B: set (the clock is being set), binary numbers, 24 hours.
const SET: u8 = 0x80;
const BINARY: u8 = 0x04;
const HOURS_24: u8 = 0x02;
/// In 12-hour format.
const AFTERNOON: u8 = 0x80;

/// Index bits that choose a register; bit 7 masks NMIs on a PC.
const INDEX: u8 = 0x7F;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY_LENGTH: u64 = 24 * HOUR;

/// The time of day as a function of the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// Seconds since 1970-01-01 00:00 of the machine's clock, at [`Self::at`].
    pub unix: u64,
    /// A TSC.
    pub at: u64,
    /// TSC ticks in a second, not 0.
    pub hz: u64,
}

impl WallClock {
    /// Seconds since 1970-01-01 00:00 at TSC `now`.
    #[must_use]
    pub const fn seconds(&self, now: u64) -> u64 {
        let ticks = now.saturating_sub(self.at);
        match ticks.checked_div(self.hz) {
            Some(seconds) => self.unix.saturating_add(seconds),
            None => self.unix,
        }
    }
}

/// A date of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Date {
    year: u64,
    /// 1 to 12.
    month: u8,
    /// 1 to 31.
    day: u8,
}

/// Days from 0000-03-01 to 1970-01-01. Years are counted from March, so that the leap day is a year's last.
const EPOCH: u64 = 719_468;
/// Days in 400 years.
const ERA: u64 = 146_097;

impl Date {
    /// The date `days` behind 1970-01-01.
    const fn from_days(days: u64) -> Self {
        let days = days + EPOCH;
        let (era, day_of_era) = (days / ERA, days % ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Of any five months from March on, three have 31 days: 153 in all.
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + (month <= 2) as u64;
        Self { year, month: month as u8, day: day as u8 }
    }

    /// Days since 1970-01-01; not before that day.
    const fn days(&self) -> u64 {
        let year = self.year - (self.month <= 2) as u64;
        let (era, year_of_era) = (year / 400, year % 400);
        let month_from_march = (self.month as u64 + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + self.day as u64 - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (era * ERA + day_of_era).saturating_sub(EPOCH)
    }
}

/// Registers of the machine's clock, as they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct Reading {
    pub seconds: u8,
    pub minutes: u8,
    pub hours: u8,
    pub day: u8,
    pub month: u8,
    pub year: u8,
    /// Register B, which says the format of the others.
    pub b: u8,
}

impl Reading {
    /// The registers in the order of the fields above, for whoever reads them.
    pub const REGISTERS: [u8; 7] = [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, B];

    /// From the values of [`Self::REGISTERS`].
    #[must_use]
    pub const fn from_registers(values: [u8; 7]) -> Self {
        let [seconds, minutes, hours, day, month, year, b] = values;
        Self { seconds, minutes, hours, day, month, year, b }
    }

    /// Seconds since 1970-01-01 00:00, in the century from 2000 on; `None` for what is no time, as a board without such a clock reads.
    #[must_use]
    pub fn unix(&self) -> Option<u64> {
        let number = |value: u8, most: u8| {
            let value = if self.b & BINARY != 0 { value } else { from_decimal(value)? };
            (value <= most).then_some(value)
        };
        let date = Date {
            year: 2000 + u64::from(number(self.year, 99)?),
            month: number(self.month, 12).filter(|month| *month > 0)?,
            day: number(self.day, 31).filter(|day| *day > 0)?,
        };
        let hours = if self.b & HOURS_24 != 0 {
            number(self.hours, 23)?
        } else {
            let twelve = number(self.hours & !AFTERNOON, 12).filter(|hours| *hours > 0)? % 12;
            if self.hours & AFTERNOON != 0 { twelve + 12 } else { twelve }
        };
        let of_day = u64::from(hours) * HOUR
            + u64::from(number(self.minutes, 59)?) * MINUTE
            + u64::from(number(self.seconds, 59)?);
        Some(date.days() * DAY_LENGTH + of_day)
    }
}

/// A decimal number of two digits, four bits each.
const fn from_decimal(value: u8) -> Option<u8> {
    let (tens, ones) = (value >> 4, value & 0xF);
    if tens < 10 && ones < 10 { Some(tens * 10 + ones) } else { None }
}

/// The real-time clock of a partition.
pub struct Rtc {
    index: AtomicU8,
    b: AtomicU8,
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}

impl Rtc {
    /// As a PC's firmware leaves it: decimal numbers, 24 hours.
    #[must_use]
    pub const fn new() -> Self {
        Self { index: AtomicU8::new(0), b: AtomicU8::new(HOURS_24) }
    }

    /// The same again.
    pub fn reset(&self) {
        self.select(0);
        self.b.store(HOURS_24, Ordering::Relaxed);
    }

    /// OUT to the index port.
    pub fn select(&self, index: u8) {
        self.index.store(index & INDEX, Ordering::Relaxed);
    }

    /// OUT to the data port: the format can be chosen, and nothing else.
    pub fn write(&self, byte: u8) {
        if self.index.load(Ordering::Relaxed) == B {
            self.b.store(byte & (SET | BINARY | HOURS_24), Ordering::Relaxed);
        }
    }

    /// IN from the data port at TSC `now`.
    pub fn read(&self, clock: &WallClock, now: u64) -> u8 {
        let b = self.b.load(Ordering::Relaxed);
        let unix = clock.seconds(now);
        let of_day = unix % DAY_LENGTH;
        let date = Date::from_days(unix / DAY_LENGTH);
        let number = |value: u64| {
            let value = value as u8;
            if b & BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
        };
        match self.index.load(Ordering::Relaxed) {
            SECONDS => number(of_day % MINUTE),
            MINUTES => number(of_day / MINUTE % 60),
            HOURS if b & HOURS_24 != 0 => number(of_day / HOUR),
            HOURS => {
                let hours = of_day / HOUR;
                let half = if hours < 12 { 0 } else { AFTERNOON };
                number((hours + 11) % 12 + 1) | half
            }
            // 1970-01-01 was a Thursday; Sunday is 1.
            WEEKDAY => number((unix / DAY_LENGTH + 4) % 7 + 1),
            DAY => number(u64::from(date.day)),
            MONTH => number(u64::from(date.month)),
            YEAR => number(date.year % 100),
            CENTURY => number(date.year / 100),
            A => A_VALUE,
            B => b,
            D => VALID,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLOCK: WallClock = WallClock { unix: 0, at: 100, hz: 10 };

    fn at(rtc: &Rtc, unix: u64, index: u8) -> u8 {
        rtc.select(index);
        rtc.read(&CLOCK, 100 + unix * 10 + 9)
    }

    /// What Linux reads, by the names of its `struct rtc_time`.
    fn read(rtc: &Rtc, unix: u64) -> Reading {
        Reading::from_registers(Reading::REGISTERS.map(|register| at(rtc, unix, register)))
    }

    #[test]
    fn known_dates() {
        let rtc = Rtc::new();
        // 2024-02-29 23:59:58, a Thursday.
        let unix = 1_709_251_198;
        let expected = [0x58, 0x59, 0x23, 0x05, 0x29, 0x02, 0x24, 0x20];
        let registers = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];
        assert_eq!(registers.map(|register| at(&rtc, unix, register)), expected);
        // Two seconds on.
        let expected = [0x00, 0x00, 0x00, 0x06, 0x01, 0x03, 0x24, 0x20];
        assert_eq!(registers.map(|register| at(&rtc, unix + 2, register)), expected);
        // 2000-01-01 12:00, in the other format.
        rtc.select(B);
        rtc.write(BINARY);
        let expected = [0, 0, 12 | AFTERNOON, 7, 1, 1, 0, 20];
        assert_eq!(registers.map(|register| at(&rtc, 946_728_000, register)), expected);
        assert_eq!(at(&rtc, 946_684_800, HOURS), 12, "midnight is twelve in the morning");
    }

    #[test]
    fn the_time_runs_with_the_tsc_and_not_before_it() {
        assert_eq!(CLOCK.seconds(0), 0);
        assert_eq!(CLOCK.seconds(109), 0);
        assert_eq!(CLOCK.seconds(110), 1);
        assert_eq!(WallClock { hz: 0, ..CLOCK }.seconds(1000), 0);
    }

    #[test]
    fn it_is_valid_never_updates_and_cannot_be_set() {
        let rtc = Rtc::new();
        assert_eq!((at(&rtc, 0, A) & 0x80, at(&rtc, 0, D)), (0, 0x80));
        rtc.select(SECONDS);
        rtc.write(33);
        assert_eq!(at(&rtc, 0, SECONDS), 0);
        rtc.select(B);
        rtc.write(0xFF);
        assert_eq!(at(&rtc, 0, B), 0x86, "no interrupts");
        assert_eq!(at(&rtc, 0, 0x80 | B), 0x86, "bit 7 is not the index's");
        rtc.reset();
        assert_eq!(at(&rtc, 0, B), 2);
    }

    #[test]
    fn a_board_without_a_clock_has_no_time() {
        assert_eq!(Reading::from_registers([0xFF; 7]).unix(), None);
        assert_eq!(Reading::from_registers([0; 7]).unix(), None, "month 0");
        let december = [0x59, 0x59, 0x23, 0x31, 0x12, 0x99, 2];
        assert_eq!(Reading::from_registers(december).unix(), Some(4_102_444_799));
        let odd = [0x5A, 0x59, 0x23, 0x31, 0x12, 0x99, 2];
        assert_eq!(Reading::from_registers(odd).unix(), None, "0x5A is no decimal number");
    }

    proptest! {
        #[test]
        fn what_it_shows_reads_back(unix in 946_684_800_u64..4_102_444_800, format in 0_u8..4) {
            let rtc = Rtc::new();
            rtc.select(B);
            rtc.write(format << 1);
            prop_assert_eq!(read(&rtc, unix).unix(), Some(unix));
        }
    }
}
