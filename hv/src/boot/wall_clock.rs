//! The time of day, read once out of the machine's real-time clock.
#![expect(unsafe_code, reason = "reads the ports of the real-time clock")]

use hv_core::pc::clock::{Reading, WallClock};
use x86_64::instructions::port::Port;

use crate::cpu;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

/// Pairs of readings before a clock is given up of which no two agree: it is none.
const ATTEMPTS: usize = 100;

/// What a board without a clock starts with: 2000-01-01 00:00.
const UNKNOWN: u64 = 946_684_800;

/// The time of day from here on. The clock updates itself once a second, and what is read meanwhile is torn: so two readings in a row
/// have to agree.
pub fn read(tsc_hz: u64) -> WallClock {
    let mut before = registers();
    for _ in 0..ATTEMPTS {
        let now = registers();
        if now == before {
            let unix = Reading::from_registers(now).unix().unwrap_or(UNKNOWN);
            return WallClock { unix, at: cpu::tsc(), hz: tsc_hz };
        }
        before = now;
    }
    WallClock { unix: UNKNOWN, at: cpu::tsc(), hz: tsc_hz }
}

fn registers() -> [u8; Reading::REGISTERS.len()] {
    Reading::REGISTERS.map(|register| {
        // SAFETY: the two ports belong to the real-time clock, which no partition gets; reading a register of the time has no effect.
        unsafe {
            Port::new(INDEX).write(register);
            Port::new(DATA).read()
        }
    })
}
