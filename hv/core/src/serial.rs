//! Where the registers of a serial port are, and how each is accessed: at an I/O port, as a byte in memory, or as the
//! low byte of a word in memory, for ports that take no narrower access.

use bulkhead_table::Uart;

/// One access to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// At this I/O port.
    Port(u16),
    /// As a byte at this physical address.
    Byte(u64),
    /// As 32 bits at this physical address; the register is their lowest byte.
    Word(u64),
}

/// How this register of a 16550 is accessed. The compiler proved that all of them lie where the table says.
#[must_use]
pub const fn access(uart: &Uart, register: u8) -> Access {
    /// A 16550 has no more registers than these bits number.
    const REGISTERS: u8 = Uart::REGISTERS as u8 - 1;
    let offset = (register & REGISTERS) as u64 * uart.stride as u64;
    match (uart.in_memory, uart.width) {
        (false, _) => Access::Port((uart.base + offset) as u16),
        (true, 4) => Access::Word(uart.base + offset),
        (true, _) => Access::Byte(uart.base + offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Uart = Uart {
        base: 0x3F8,
        in_memory: false,
        stride: 1,
        width: 1,
        clock: Uart::CLOCK,
        baud: 115_200,
    };

    const WORDS: Uart = Uart {
        base: 0xFE03_2000,
        in_memory: true,
        stride: 4,
        width: 4,
        clock: 100_000_000,
        baud: 115_200,
    };

    #[test]
    fn registers_lie_a_stride_apart() {
        assert_eq!(access(&PORTS, 5), Access::Port(0x3FD));
        assert_eq!(access(&WORDS, 0), Access::Word(0xFE03_2000));
        assert_eq!(access(&WORDS, 7), Access::Word(0xFE03_201C));
        let bytes = Uart { width: 1, ..WORDS };
        assert_eq!(access(&bytes, 5), Access::Byte(0xFE03_2014));
        assert_eq!(access(&Uart { stride: 8, ..bytes }, 1), Access::Byte(0xFE03_2008));
    }

    #[test]
    fn the_divisor_is_the_nearest_that_comes_within_two_percent() {
        let with = |clock, baud| Uart { clock, baud, ..PORTS }.divisor();
        assert_eq!(with(Uart::CLOCK, 115_200), Some(1));
        assert_eq!(with(Uart::CLOCK, 9_600), Some(12));
        assert_eq!(with(Uart::CLOCK, 1), None);
        assert_eq!(with(Uart::CLOCK, 100_000), None);
        assert_eq!(with(Uart::CLOCK, 230_400), None);
        assert_eq!(with(100_000_000, 115_200), Some(54));
        assert_eq!(with(48_000_000, 115_200), Some(26));
        assert_eq!(with(14_745_600, 921_600), Some(1));
        assert_eq!(with(Uart::CLOCK, 0), None);
        assert_eq!(with(0, 9_600), None);
        assert_eq!(with(u32::MAX, u32::MAX), None);
    }
}
