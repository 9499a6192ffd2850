//! The console: hypercalls under the hypervisor, else COM1 at 115200 baud, 8N1, polled.

use core::fmt::{self, Write};

use bulkhead_table::abi::CONSOLE_BYTES;

use crate::guest::{self, under_hypervisor};
use crate::hypercall;
use crate::machine::{port_in, port_out};

/// COM1.
const UART: u16 = 0x3F8;
/// Registers of a 16550, as offsets: data (divisor low), interrupt enable (divisor high), FIFO control, line
/// control, modem control, line status.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
/// Line status: the transmitter takes a byte.
const TRANSMITTER_READY: u8 = 0x20;
/// Line status: the last byte has left the line.
const TRANSMITTER_IDLE: u8 = 0x40;

/// Prints to the console; the macros `print!` and `println!` call this. Waits while the hypervisor's
/// ring is full.
pub fn print(text: fmt::Arguments<'_>) {
    let mut chunk = Chunk { bytes: [0; CONSOLE_BYTES], length: 0 };
    // Neither the chunk nor the console fails, and a failing `Display` has already printed its part.
    let _ = chunk.write_fmt(text);
    chunk.send();
}

/// Programs the UART of the bare machine. Its state at reset is not 8N1 everywhere.
pub(crate) fn set_up_uart() {
    port_out(UART + INTERRUPT_ENABLE, 0);
    port_out(UART + LINE_CONTROL, 0x80); // the next two reach the divisor
    port_out(UART + DATA, 1); // 115200 baud
    port_out(UART + INTERRUPT_ENABLE, 0);
    port_out(UART + LINE_CONTROL, 0x03); // 8N1
    port_out(UART + FIFO_CONTROL, 0x07);
    port_out(UART + MODEM_CONTROL, 0x03);
}

/// As many bytes as one hypercall carries.
struct Chunk {
    bytes: [u8; CONSOLE_BYTES],
    length: usize,
}

impl Chunk {
    fn send(&mut self) {
        let bytes = &self.bytes[..self.length];
        if under_hypervisor() {
            hypervisor_write(bytes);
        } else {
            bytes.iter().for_each(|byte| uart_write(*byte));
        }
        self.length = 0;
    }
}

impl Write for Chunk {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.bytes[self.length] = byte;
            self.length += 1;
            if self.length == CONSOLE_BYTES {
                self.send();
            }
        }
        Ok(())
    }
}

fn uart_write(byte: u8) {
    if byte == b'\n' {
        uart_write(b'\r');
    }
    uart_wait_for(TRANSMITTER_READY);
    port_out(UART + DATA, byte);
}

fn uart_wait_for(status: u8) {
    while port_in(UART + LINE_STATUS) & status == 0 {
        core::hint::spin_loop();
    }
}

/// Waits until all that was printed has left the bare machine's UART, so that switching off cuts nothing.
pub(crate) fn drain_uart() {
    uart_wait_for(TRANSMITTER_IDLE);
}

/// Says bytes by hypercalls, and waits while the hypervisor has no room for them.
pub(crate) fn hypervisor_write(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let taken = hypercall::console(bytes.len(), words(bytes));
        match usize::try_from(taken).ok().and_then(|taken| bytes.get(taken..)) {
            Some(rest) => bytes = rest,
            // A status: this hypervisor takes no console output, so there is no one to tell.
            None => guest::finish_silently(false),
        }
        core::hint::spin_loop();
    }
}

/// The bytes as the six argument registers carry them.
fn words(bytes: &[u8]) -> [u64; 6] {
    let mut words = [0; 6];
    for (word, part) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut eight = [0; 8];
        eight[..part.len()].copy_from_slice(part);
        *word = u64::from_le_bytes(eight);
    }
    words
}
