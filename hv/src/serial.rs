//! The serial port, polled: plain text at boot, packets once the partitions run.
#![expect(unsafe_code, reason = "takes over the I/O ports of a 16550")]

use bulkhead_table::Uart;
use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};

/// Polls of the line status before a port that takes nothing is given up: seconds on a real port, and more than the
/// 17 ms that a full FIFO takes at 9600 baud on an emulator that spends one tick an instruction.
const PATIENCE: u32 = 1_000_000;

/// Nobody ever waits for this lock: one core uses the port at a time, and a panic takes it by force.
static PORT: Mutex<Option<Uart16550<PioBackend>>> = Mutex::new(None);

/// Sets the port to 8N1 at the declared baud rate. Returns false when no 16550 answers there; every later
/// write then goes nowhere.
pub fn init(uart: &Uart) -> bool {
    let config = Config { baud_rate: BaudRate::from_integer(uart.baud), ..Config::DEFAULT };
    // SAFETY: the board file gives this port to the hypervisor, and no partition gets it.
    let Ok(mut port) = (unsafe { Uart16550::new_port(uart.port) }) else {
        return false;
    };
    if port.init(config).is_err() {
        return false;
    }
    if let Some(mut slot) = PORT.try_lock() {
        *slot = Some(port);
    }
    true
}

/// Gives the port as many bytes as its FIFO takes now, without waiting; returns how many.
pub fn try_write(bytes: &[u8]) -> usize {
    let Some(mut slot) = PORT.try_lock() else {
        return 0;
    };
    slot.as_mut().map_or(0, |port| port.send_bytes(bytes))
}

/// What makes bytes that arrived worthless: the FIFO overflowed, or the line was not as agreed. PC16550D data sheet, line status register.
const DAMAGE: LSR = LSR::OVERRUN_ERROR
    .union(LSR::PARITY_ERROR)
    .union(LSR::FRAMING_ERROR)
    .union(LSR::BREAK_INTERRUPT);

/// What has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Bytes that were read.
    pub count: usize,
    /// Bytes were lost or damaged since the last read: among these, or in front of them.
    pub is_damaged: bool,
}

/// Takes what has arrived, as far as it fits and without waiting.
pub fn try_read(bytes: &mut [u8]) -> Arrived {
    let Some(mut slot) = PORT.try_lock() else {
        return Arrived::default();
    };
    slot.as_mut().map_or(Arrived::default(), |port| {
        let count = port.receive_bytes(bytes);
        // Reading the line status clears these bits; the driver keeps those that it met while it sent and received.
        Arrived { count, is_damaged: port.lsr().intersects(DAMAGE) }
    })
}

/// Writes plain text and waits until the FIFO took it all. Lines end in `\r\n`. A port that takes nothing for long
/// loses the rest.
pub fn write_text(text: &str) {
    let mut rest = text.as_bytes();
    let mut patience = PATIENCE;
    while !rest.is_empty() && patience > 0 && is_present() {
        let taken = try_write(rest);
        rest = rest.get(taken..).unwrap_or_default();
        patience = if taken > 0 { PATIENCE } else { patience - 1 };
    }
}

/// Waits, within bounds, until the last byte has left the wire.
pub fn wait_until_sent() {
    for _ in 0..PATIENCE {
        let Some(mut slot) = PORT.try_lock() else {
            return;
        };
        let Some(port) = slot.as_mut() else {
            return;
        };
        if port.lsr().contains(LSR::TRANSMITTER_EMPTY) {
            return;
        }
    }
}

/// Whether there is a port to write to and nobody holds it.
fn is_present() -> bool {
    PORT.try_lock().is_some_and(|slot| slot.is_some())
}

/// Takes the port from whoever holds it: for a panic, after which nobody uses it any more.
pub fn seize() {
    if PORT.is_locked() {
        // SAFETY: the holder is this core, which does not return to it, or a core whose torn line is a lesser evil
        // than a silent panic: the guarded state is a port number and saved status bits, valid in any order of writes.
        unsafe { PORT.force_unlock() };
    }
}
