//! The small PC that an operating system finds around its processors: a serial port, a clock, a way to restart and a way to switch
//! off, each at its usual port. Everything else that a PC has reads as absent.
//!
//! | Port | Device |
//! |---|---|
//! | 0x3F8 to 0x3FF | [`uart`]: a 16550 without an interrupt line; its line is the partition's console |
//! | 0x70, 0x71 | [`clock`]: the real-time clock of an MC146818, which can be read and not set |
//! | 0x80 | the port that software writes to for a short pause: dropped, and not counted |
//! | 0x600, 0x601 | sleep control and status of ACPI (hardware-reduced): sleep type 5 switches the partition off |
//! | 0x604 | reset register of ACPI: 1 restarts the partition |
//!
//! The devices are the partition's and not a vCPU's: their state is atomic. vCPUs on several cores that use a device at once garble its
//! registers and mix its bytes, as they would a real one's, and nothing else: no byte is lost, doubled or given another time.

pub mod clock;
pub mod output;
pub mod page;
pub mod typed;
pub mod uart;

use bulkhead_table::pc::{RESET_VALUE, SOFT_OFF};
use hv_defs::apic::{LVT_CMCI, LVT_LINT0, delivery, lvt};

use crate::exit::PortAccess;
use clock::{Rtc, WallClock};
use uart::Uart;

/// Ports of the devices. Those that the compiler's ACPI tables name stand in the contract with it. ACPI 6.4 4.8.3.6 (reset register),
/// 4.8.3.7 (sleep control and status).
pub mod port {
    pub use bulkhead_table::pc::{
        CLOCK as RTC_INDEX, CONSOLE as UART, RESET, SLEEP_CONTROL, SLEEP_STATUS,
    };

    /// Last port of the serial port.
    pub const UART_LAST: u16 = UART + 7;
    /// Data of the real-time clock.
    pub const RTC_DATA: u16 = RTC_INDEX + 1;
    /// Written for a short pause.
    pub const DELAY: u16 = 0x80;
}

/// Sleep control: enable, and where the type stands. ACPI 6.4 table 4.18.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 7;

/// The devices of one partition.
#[derive(Default)]
pub struct Devices {
    /// The serial port.
    pub uart: Uart,
    rtc: Rtc,
}

/// The small PC as a vCPU sees it.
#[derive(Clone, Copy)]
pub struct Pc {
    /// Its partition's devices.
    pub devices: &'static Devices,
    /// The time of day.
    pub clock: WallClock,
}

/// What follows from an access to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A device answered; RAX is in place.
    Done,
    /// No device is there.
    Absent,
    /// The partition switched itself off.
    Off,
    /// The partition restarts.
    Restart,
}

impl Devices {
    /// As after power-up.
    #[must_use]
    pub const fn new() -> Self {
        Self { uart: Uart::new(), rtc: Rtc::new() }
    }

    /// Puts all devices into their state at power-up. What is on the line, either way, stays.
    pub fn reset(&self) {
        self.uart.reset();
        self.rtc.reset();
    }
}

impl Pc {
    /// Answers IN and OUT, `rax` being the guest's RAX. `now` is the TSC. Devices have registers of one byte: a wider access finds
    /// none.
    pub fn access(&self, access: PortAccess, rax: &mut u64, now: u64) -> Outcome {
        if access.width != 1 || access.string {
            return Outcome::Absent;
        }
        if access.input {
            let Some(byte) = self.read(access.port, now) else {
                return Outcome::Absent;
            };
            *rax = *rax & !0xFF | u64::from(byte);
            return Outcome::Done;
        }
        self.write(access.port, *rax as u8, now)
    }

    fn read(&self, port: u16, now: u64) -> Option<u8> {
        Some(match port {
            port::UART..=port::UART_LAST => self.devices.uart.read(port - port::UART),
            port::RTC_DATA => self.devices.rtc.read(&self.clock, now),
            port::SLEEP_CONTROL | port::SLEEP_STATUS | port::RESET => 0,
            _ => return None,
        })
    }

    fn write(&self, port: u16, byte: u8, now: u64) -> Outcome {
        match port {
            port::UART..=port::UART_LAST => self.devices.uart.write(port - port::UART, byte, now),
            port::RTC_INDEX => self.devices.rtc.select(byte),
            port::RTC_DATA => self.devices.rtc.write(byte),
            port::SLEEP_CONTROL if switches_off(byte) => return Outcome::Off,
            port::RESET if byte == RESET_VALUE => return Outcome::Restart,
            port::DELAY | port::SLEEP_CONTROL | port::SLEEP_STATUS | port::RESET => {}
            _ => return Outcome::Absent,
        }
        Outcome::Done
    }
}

const fn switches_off(control: u8) -> bool {
    control & SLEEP_ENABLE != 0 && control >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK == SOFT_OFF
}

/// What an operating system that was not told otherwise expects of MSRs, and a bare guest does not get.
pub mod msr {
    use super::{LVT_CMCI, LVT_LINT0, delivery, lvt};

    /// The entry for corrected machine checks, which an APIC of seven entries has: masked for ever, because the machine-check banks are
    /// not the partition's.
    #[must_use]
    pub const fn read(number: u32) -> Option<u64> {
        if number == LVT_CMCI { Some(lvt::MASKED) } else { None }
    }

    /// Whether the write asks for what is so already.
    #[must_use]
    pub const fn is_idle_write(number: u32, value: u64) -> bool {
        number == LVT_CMCI && value & lvt::MASKED != 0 && value >> 32 == 0
    }

    /// The value to judge instead of `value`. Software that finds no I/O APIC opens LINT0 to the legacy interrupt controller (ExtINT);
    /// there is none, so an entry that is masked does as much.
    #[must_use]
    pub const fn as_wired(number: u32, value: u64) -> u64 {
        if number == LVT_LINT0 && value & delivery::MASK == delivery::EXTINT {
            value | lvt::MASKED
        } else {
            value
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLOCK: WallClock = WallClock { unix: 0, at: 0, hz: 1 };

    fn pc() -> Pc {
        Pc { devices: std::boxed::Box::leak(std::boxed::Box::default()), clock: CLOCK }
    }

    fn out(pc: &Pc, port: u16, byte: u8) -> Outcome {
        let access = PortAccess { port, width: 1, input: false, string: false };
        pc.access(access, &mut u64::from(byte), 0)
    }

    fn input(pc: &Pc, port: u16) -> Option<u64> {
        let access = PortAccess { port, width: 1, input: true, string: false };
        let mut rax = 0x1122_3344_5566_7788;
        (pc.access(access, &mut rax, 0) == Outcome::Done).then_some(rax)
    }

    #[test]
    fn only_the_right_values_end_or_restart_it() {
        let pc = pc();
        for byte in 0..=u8::MAX {
            let reset = if byte == 1 { Outcome::Restart } else { Outcome::Done };
            assert_eq!(out(&pc, 0x604, byte), reset, "{byte:#x}");
            let off = byte & 0x3C == 0x34;
            let sleep = if off { Outcome::Off } else { Outcome::Done };
            assert_eq!(out(&pc, 0x600, byte), sleep, "{byte:#x}");
            assert_eq!(out(&pc, 0x601, byte), Outcome::Done);
        }
        assert_eq!(input(&pc, 0x600), Some(0x1122_3344_5566_7700));
    }

    #[test]
    fn the_list_of_ports_is_whole() {
        let pc = pc();
        let answers = |port| input(&pc, port).is_some();
        let here: std::vec::Vec<u16> = (0..=u16::MAX).filter(|port| answers(*port)).collect();
        assert_eq!(
            here,
            [
                &[0x71][..],
                &[0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF],
                &[0x600, 0x601, 0x604]
            ]
            .concat()
        );
        let takes = |port| out(&pc, port, 0) != Outcome::Absent;
        let here: std::vec::Vec<u16> = (0..=u16::MAX).filter(|port| takes(*port)).collect();
        assert_eq!(
            here,
            [
                &[0x70, 0x71, 0x80][..],
                &[0x3F8, 0x3F9, 0x3FA, 0x3FB, 0x3FC, 0x3FD, 0x3FE, 0x3FF],
                &[0x600, 0x601, 0x604]
            ]
            .concat()
        );
    }

    #[test]
    fn lint0_is_open_to_nobody() {
        assert_eq!(msr::as_wired(0x835, 0x700), 0x1_0700);
        assert_eq!(msr::as_wired(0x835, 0x400), 0x400, "an NMI is not the controller's");
        assert_eq!(msr::as_wired(0x836, 0x700), 0x700, "LINT1 has no such use");
        assert_eq!(msr::read(0x82F), Some(0x1_0000));
        assert_eq!(msr::read(0x835), None);
        assert!(msr::is_idle_write(0x82F, 0x1_0000) && !msr::is_idle_write(0x82F, 0xF2));
    }

    proptest! {
        #[test]
        fn wide_and_string_accesses_find_no_device(port in any::<u16>(), width in prop_oneof![Just(2_u8), Just(4)], input in any::<bool>()) {
            let pc = pc();
            let mut rax = 0x34;
            let wide = PortAccess { port, width, input, string: false };
            prop_assert_eq!(pc.access(wide, &mut rax, 0), Outcome::Absent);
            let string = PortAccess { port, width: 1, input, string: true };
            prop_assert_eq!(pc.access(string, &mut rax, 0), Outcome::Absent);
            prop_assert_eq!(rax, 0x34);
        }
    }
}
