//! The driver of 16550s over registers of 32 bits in memory, as serial ports of chipsets and PCI cards have them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]
#![expect(unsafe_code, reason = "the driver calls its registers unsafe")]

use bulkhead_table::Uart;
use hv_core::serial::{Access, access};
use uart_16550::backend::Backend;
use uart_16550::{BaudRate, Config, Uart16550};

const WORDS: Uart = Uart {
    base: 0xFE03_2000,
    in_memory: true,
    stride: 4,
    width: 4,
    clock: 100_000_000,
    baud: 115_200,
};

/// A 16550 behind registers of words: what was sent, and its divisor. Anything but an access of 32 bits on one of its eight
/// registers fails the test.
#[derive(Default)]
struct Fake {
    line_control: u8,
    divisor: u16,
    scratch: u8,
    modem: u8,
    /// What the driver wrote into the FIFO control register.
    fifos: u8,
    sent: Vec<u8>,
}

impl Fake {
    fn register(&self, access: Access) -> u64 {
        let Access::Word(address) = access else { panic!("{access:?}") };
        let offset = address - WORDS.base;
        assert!(offset.is_multiple_of(4) && offset < 32, "{address:#x}");
        offset / 4
    }

    fn latches(&self) -> bool {
        self.line_control & 0x80 != 0
    }
}

impl Backend for Fake {
    unsafe fn read(&mut self, register: u8) -> u8 {
        match self.register(access(&WORDS, register)) {
            0 if self.latches() => self.divisor as u8,
            1 if self.latches() => (self.divisor >> 8) as u8,
            // The interrupt identification register says in its highest bits that the FIFOs are on.
            2 if self.fifos & 1 != 0 => 0xC1,
            2 => 1,
            3 => self.line_control,
            4 => self.modem,
            5 => 0x60,
            7 => self.scratch,
            _ => 0,
        }
    }

    unsafe fn write(&mut self, register: u8, value: u8) {
        match self.register(access(&WORDS, register)) {
            0 if self.latches() => self.divisor = self.divisor & 0xFF00 | u16::from(value),
            1 if self.latches() => self.divisor = self.divisor & 0xFF | u16::from(value) << 8,
            0 => self.sent.push(value),
            2 => self.fifos = value,
            3 => self.line_control = value,
            4 => self.modem = value,
            7 => self.scratch = value,
            _ => {}
        }
    }
}

#[test]
fn the_driver_runs_a_port_of_words() {
    let divisor = WORDS.divisor().unwrap();
    let frequency = WORDS.baud * 16 * u32::from(divisor);
    let baud_rate = BaudRate::from_integer(WORDS.baud);
    // SAFETY: the fake touches no hardware.
    let mut port = unsafe { Uart16550::new_with_backend(Fake::default()) };
    port.init(Config { frequency, baud_rate, ..Config::DEFAULT }).unwrap();
    assert_eq!(port.send_bytes(b"log"), 3);
    let fake = port.backend_mut();
    assert_eq!((fake.divisor, fake.line_control), (54, 3));
    assert_eq!(fake.sent, b"log");
}
