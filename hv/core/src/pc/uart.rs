//! A 16550A serial port without an interrupt line, as software finds it by probing. PC16550D data sheet, table II.
//!
//! What it sends goes into the partition's [`Output`] at once: a transmitter that says that it is empty takes a burst of 16 bytes, and
//! one whose output is backed up says that it is not, so that software waits and nothing is lost. What is typed to the partition waits on the
//! line, outside the receiver's FIFO: clearing that loses nothing. The divisor and the format are kept and mean nothing.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use super::output::Output;
use crate::stream::Stream;

/// Bytes that were typed and wait for the partition.
pub const TYPED: usize = 256;

/// Registers, as offsets from the first port.
mod register {
    pub const DATA: u16 = 0;
    pub const INTERRUPT_ENABLE: u16 = 1;
    pub const INTERRUPT_OR_FIFO: u16 = 2;
    pub const LINE_CONTROL: u16 = 3;
    pub const MODEM_CONTROL: u16 = 4;
    pub const LINE_STATUS: u16 = 5;
    pub const MODEM_STATUS: u16 = 6;
    pub const SCRATCH: u16 = 7;
}

/// Interrupt enable: the four sources.
const SOURCES: u8 = 0x0F;
const ON_DATA: u8 = 1;
const ON_EMPTY: u8 = 1 << 1;
/// Interrupt identification: the sources that occur here, none, and that the FIFOs are on.
const DATA_IS_THERE: u8 = 0x04;
const TRANSMITTER_IS_EMPTY: u8 = 0x02;
const NOTHING: u8 = 0x01;
const FIFOS: u8 = 0xC0;
/// FIFO control: on.
const FIFO_ENABLE: u8 = 1;
/// Line control: the first two ports are the divisor's.
const DIVISOR: u8 = 1 << 7;
/// Modem control: the bits that exist, and the loop from the transmitter to the receiver.
const MODEM_BITS: u8 = 0x1F;
const LOOP: u8 = 1 << 4;
/// Line status.
const READY: u8 = 1;
const EMPTY: u8 = 1 << 5 | 1 << 6;
/// Modem status: clear to send, data set ready, carrier: somebody is there, always.
const CONNECTED: u8 = 1 << 4 | 1 << 5 | 1 << 7;
/// Format after reset of ours: 8 bits, no parity, one stop bit.
const EIGHT_BITS: u8 = 3;

/// A byte of state.
#[derive(Default)]
struct Register(AtomicU8);

impl Register {
    const fn new(value: u8) -> Self {
        Self(AtomicU8::new(value))
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, value: u8) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// The serial port of a partition.
pub struct Uart {
    /// What it sent.
    pub output: Output,
    /// What waits for it. Any of its vCPUs may read it.
    pub typed: Stream<TYPED>,
    /// Bytes that it sent without asking whether there was room, and that were lost.
    lost: AtomicU32,
    interrupt_enable: Register,
    fifo_control: Register,
    line_control: Register,
    modem_control: Register,
    scratch: Register,
    divisor: [Register; 2],
    /// The transmitter became empty, and nobody was told yet.
    news: AtomicBool,
    /// A byte in the loop, and whether there is one.
    looped: [Register; 2],
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// As after power-up, with nothing on the line.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            output: Output::new(),
            typed: Stream::new(),
            lost: AtomicU32::new(0),
            interrupt_enable: Register::new(0),
            fifo_control: Register::new(0),
            line_control: Register::new(EIGHT_BITS),
            modem_control: Register::new(0),
            scratch: Register::new(0),
            divisor: [Register::new(1), Register::new(0)],
            news: AtomicBool::new(false),
            looped: [Register::new(0), Register::new(0)],
        }
    }

    /// What power-up does. What is on the line stays.
    pub fn reset(&self) {
        let [low, high] = &self.divisor;
        let [_, waits] = &self.looped;
        for (register, value) in [
            (&self.interrupt_enable, 0),
            (&self.fifo_control, 0),
            (&self.line_control, EIGHT_BITS),
            (&self.modem_control, 0),
            (&self.scratch, 0),
            (low, 1),
            (high, 0),
            (waits, 0),
        ] {
            register.set(value);
        }
        self.news.store(false, Ordering::Relaxed);
    }

    /// Bytes that were lost since the last call, because the partition did not ask whether there was room.
    pub fn take_lost(&self) -> u32 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// IN from the port at this offset.
    pub fn read(&self, offset: u16) -> u8 {
        let divisor = self.line_control.get() & DIVISOR != 0;
        match offset {
            register::DATA if divisor => self.divisor[0].get(),
            register::DATA => self.receive(),
            register::INTERRUPT_ENABLE if divisor => self.divisor[1].get(),
            register::INTERRUPT_ENABLE => self.interrupt_enable.get(),
            register::INTERRUPT_OR_FIFO => self.identify(),
            register::LINE_CONTROL => self.line_control.get(),
            register::MODEM_CONTROL => self.modem_control.get(),
            register::LINE_STATUS => self.line_status(),
            register::MODEM_STATUS => self.modem_status(),
            register::SCRATCH => self.scratch.get(),
            _ => u8::MAX,
        }
    }

    /// OUT to the port at this offset. `now` is the TSC.
    pub fn write(&self, offset: u16, byte: u8, now: u64) {
        let divisor = self.line_control.get() & DIVISOR != 0;
        match offset {
            register::DATA if divisor => self.divisor[0].set(byte),
            register::DATA => self.send(byte, now),
            register::INTERRUPT_ENABLE if divisor => self.divisor[1].set(byte),
            register::INTERRUPT_ENABLE => self.enable_interrupts(byte & SOURCES),
            register::INTERRUPT_OR_FIFO => self.fifo_control.set(byte & FIFO_ENABLE),
            register::LINE_CONTROL => self.line_control.set(byte),
            register::MODEM_CONTROL => self.modem_control.set(byte & MODEM_BITS),
            register::SCRATCH => self.scratch.set(byte),
            _ => {}
        }
    }

    fn loops(&self) -> bool {
        self.modem_control.get() & LOOP != 0
    }

    fn receive(&self) -> u8 {
        if self.loops() {
            let [byte, waits] = &self.looped;
            waits.set(0);
            return byte.get();
        }
        self.typed.read().unwrap_or(0)
    }

    fn send(&self, byte: u8, now: u64) {
        if self.loops() {
            let [slot, waits] = &self.looped;
            slot.set(byte);
            waits.set(1);
        } else if !self.output.send(byte, now) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.news.store(true, Ordering::Relaxed);
    }

    fn has_data(&self) -> bool {
        if self.loops() { self.looped[1].get() != 0 } else { self.typed.waiting() > 0 }
    }

    fn is_empty(&self) -> bool {
        self.loops() || self.output.has_room()
    }

    fn line_status(&self) -> u8 {
        let ready = if self.has_data() { READY } else { 0 };
        let empty = if self.is_empty() { EMPTY } else { 0 };
        ready | empty
    }

    /// In the loop the four modem lines are the four modem controls.
    fn modem_status(&self) -> u8 {
        if !self.loops() {
            return CONNECTED;
        }
        let control = self.modem_control.get();
        let line = |from: u8, to: u8| (control >> from & 1) << to;
        line(0, 5) | line(1, 4) | line(2, 6) | line(3, 7)
    }

    fn enable_interrupts(&self, sources: u8) {
        self.interrupt_enable.set(sources);
        if sources & ON_EMPTY != 0 {
            self.news.store(true, Ordering::Relaxed);
        }
    }

    /// What would interrupt, if there were a line. Software that polls goes by it. Being told that the transmitter is empty is told once.
    fn identify(&self) -> u8 {
        let fifos = if self.fifo_control.get() & FIFO_ENABLE != 0 { FIFOS } else { 0 };
        let enabled = self.interrupt_enable.get();
        let source = if enabled & ON_DATA != 0 && self.has_data() {
            DATA_IS_THERE
        } else if enabled & ON_EMPTY != 0
            && self.is_empty()
            && self.news.swap(false, Ordering::Relaxed)
        {
            TRANSMITTER_IS_EMPTY
        } else {
            NOTHING
        };
        fifos | source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pc::output::{BURST, PIECE};
    use proptest::prelude::*;

    fn sent(uart: &Uart) -> std::vec::Vec<u8> {
        let mut all = std::vec::Vec::new();
        let mut bytes = [0; PIECE];
        while let Some((bytes, _)) = uart.output.take(u64::MAX, 0, &mut bytes) {
            all.extend_from_slice(bytes);
        }
        all
    }

    /// The probe of Linux 6.1 (`autoconfig` and `autoconfig_16550a` in drivers/tty/serial/8250), access by access.
    #[test]
    fn linux_takes_it_for_a_plain_16550a() {
        let uart = Uart::new();
        let (read, write) =
            (|offset| uart.read(offset), |offset, byte| uart.write(offset, byte, 0));
        write(1, 0);
        let none = read(1) & 0x0F;
        write(1, 0x0F);
        assert_eq!((none, read(1) & 0x0F), (0, 0x0F), "an interrupt enable register is there");
        write(1, 0);
        let (line, modem) = (read(3), read(4));
        write(4, 0x10 | 0x0A);
        assert_eq!(read(6) & 0xF0, 0x90, "the loop works");
        write(4, modem);
        write(3, 0xBF);
        write(2, 0);
        write(3, 0);
        write(2, 1);
        assert_eq!(read(2) >> 6, 3, "working FIFOs");
        write(3, 0x80);
        assert_ne!(read(2), 0, "no 16650");
        write(3, 0xBF);
        assert_ne!(read(2), 0, "no 16850");
        write(3, 0);
        let before = read(4);
        write(3, 0xE0);
        assert_eq!(
            (read(2) ^ before) & 0x10,
            0,
            "the register in this bank does not change with the loop,"
        );
        write(3, 0);
        write(4, before ^ 0x10);
        write(3, 0xE0);
        assert_eq!((read(2) ^ before) & 0x10, 0, "so it is no NS16550");
        write(3, 0);
        write(4, before);
        write(2, 0x21);
        assert_eq!(read(2) >> 5, 6, "no 16750");
        write(2, 1);
        write(3, 0x80);
        write(2, 0x21);
        assert_eq!(read(2) >> 5, 6, "nor with the divisor's bit");
        write(3, 0);
        write(1, 0x40);
        assert_eq!(read(1), 0, "no XScale");
        write(3, line);
        assert_eq!(sent(&uart), [], "nothing of it went out");
    }

    #[test]
    fn the_transmitter_without_an_interrupt_is_no_bug_to_linux() {
        let uart = Uart::new();
        uart.write(1, 2, 0);
        assert_eq!(
            (uart.read(5) & 0x40, uart.read(2)),
            (0x40, 0x02),
            "serial8250_do_startup looks at both"
        );
        assert_eq!(uart.read(2), 0x01, "told once");
        uart.write(0, b'x', 0);
        assert_eq!(uart.read(2), 0x02, "and again behind a byte");
    }

    #[test]
    fn a_full_line_pushes_back_and_loses_nothing() {
        let uart = Uart::new();
        let mut count = 0;
        while uart.read(5) & 0x20 != 0 {
            (0..BURST).for_each(|_| uart.write(0, b'x', 0));
            count += BURST;
        }
        assert_eq!(uart.read(5) & 0x60, 0);
        uart.write(1, 2, 0);
        assert_eq!(uart.read(2), 0x01, "not empty, so not told");
        assert_eq!((uart.take_lost(), sent(&uart).len()), (0, count));
        assert_eq!(uart.read(5) & 0x60, 0x60);
        assert_eq!(uart.read(2), 0x02, "now it is");
    }

    #[test]
    fn what_does_not_ask_for_room_loses_and_it_is_counted() {
        let uart = Uart::new();
        (0..10_000).for_each(|_| uart.write(0, b'x', 0));
        let kept = sent(&uart).len();
        assert_eq!(uart.take_lost() as usize + kept, 10_000);
        assert_eq!(uart.take_lost(), 0);
    }

    #[test]
    fn what_is_typed_is_read_and_survives_a_cleared_fifo() {
        let uart = Uart::new();
        assert_eq!((uart.read(5) & 1, uart.read(0)), (0, 0));
        assert!(uart.typed.write(b"ls"));
        uart.write(1, 1, 0);
        uart.write(2, 7, 0);
        assert_eq!((uart.read(2), uart.read(5) & 1), (0xC4, 1));
        assert_eq!([uart.read(0), uart.read(0)], *b"ls");
        assert_eq!((uart.read(2), uart.read(5) & 1), (0xC1, 0));
    }

    #[test]
    fn the_loop_carries_bytes_and_they_stay_inside() {
        let uart = Uart::new();
        assert!(uart.typed.write(b"k"));
        uart.write(4, 0x10, 0);
        assert_eq!(uart.read(5) & 1, 0, "the line is cut off");
        uart.write(0, 0xAE, 0);
        assert_eq!((uart.read(5) & 1, uart.read(0), uart.read(5) & 1), (1, 0xAE, 0));
        for (control, status) in [(1, 0x20), (2, 0x10), (4, 0x40), (8, 0x80)] {
            uart.write(4, 0x10 | control, 0);
            assert_eq!(uart.read(6), status);
        }
        uart.write(4, 0, 0);
        assert_eq!((uart.read(6), uart.read(0), sent(&uart).len()), (0xB0, b'k', 0));
    }

    #[test]
    fn the_divisor_hides_two_registers() {
        let uart = Uart::new();
        uart.write(1, 5, 0);
        uart.write(3, 0x83, 0);
        uart.write(0, 0x0C, 0);
        uart.write(1, 0xFF, 0);
        assert_eq!((uart.read(0), uart.read(1)), (0x0C, 0xFF));
        uart.write(3, 3, 0);
        assert_eq!((uart.read(1), sent(&uart).len()), (5, 0));
        uart.reset();
        assert_eq!((uart.read(1), uart.read(3)), (0, 3));
    }

    proptest! {
        #[test]
        fn nothing_that_a_guest_does_makes_it_odd(accesses in proptest::collection::vec((0_u16..10, any::<u8>(), any::<bool>()), 0..300)) {
            let uart = Uart::new();
            for (offset, byte, read) in accesses {
                if read {
                    uart.read(offset);
                } else {
                    uart.write(offset, byte, 0);
                }
                prop_assert_eq!(uart.read(5) & !0x61, 0);
                prop_assert_eq!(uart.read(4) & !0x1F, 0);
            }
        }
    }
}
