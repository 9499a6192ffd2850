//! Where the log goes: a serial port, polled, or memory on a board without one. Plain text at boot, packets once the
//! partitions run.
#![expect(unsafe_code, reason = "takes over the registers of a 16550, and the memory of the log")]

use bulkhead_table::{LOG_MEMORY, Uart};
use heapless::Vec;
use hv_core::memory_log::MemoryLog;
use hv_core::serial::{Access, access};
use spin::Mutex;
use uart_16550::backend::Backend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};
use x86_64::instructions::port::Port;

use crate::table::TABLE;

/// Polls of the line status before a port that takes nothing is given up: seconds on a real port, and more than the
/// 17 ms that a full FIFO takes at 9600 baud on an emulator that spends one tick an instruction.
const PATIENCE: u32 = 1_000_000;

/// Nobody ever waits for this lock: one core uses the line at a time, and a panic takes it by force.
static PORT: Mutex<Option<Line>> = Mutex::new(None);

/// What the log is written to.
enum Line {
    /// A 16550.
    Port(Uart16550<Registers>),
    /// [`SAID`], as long as the memory of the log may not be written: boot modules may still lie there.
    Early,
    /// Memory that survives a warm reset.
    Memory(MemoryLog<'static>),
}

/// Bytes that are kept until the memory of the log may be written; more is lost. A board with a serial port keeps none.
const EARLY: usize = if TABLE.board.uart.is_none() { 8 << 10 } else { 0 };

/// What was said until then.
static SAID: Mutex<Vec<u8, EARLY>> = Mutex::new(Vec::new());

/// The registers of the table's serial port.
struct Registers(&'static Uart);

impl Backend for Registers {
    unsafe fn read(&mut self, register: u8) -> u8 {
        // SAFETY: the board file gives these registers to the hypervisor, and no partition gets them; those in memory are mapped
        // uncached, by the boot tables under the MTRRs and by `memory` afterwards, and aligned: the compiler proved it.
        unsafe {
            match access(self.0, register) {
                Access::Port(port) => Port::new(port).read(),
                Access::Byte(address) => (address as *const u8).read_volatile(),
                Access::Word(address) => (address as *const u32).read_volatile() as u8,
            }
        }
    }

    unsafe fn write(&mut self, register: u8, value: u8) {
        // SAFETY: as above.
        unsafe {
            match access(self.0, register) {
                Access::Port(port) => Port::new(port).write(value),
                Access::Byte(address) => (address as *mut u8).write_volatile(value),
                Access::Word(address) => (address as *mut u32).write_volatile(value.into()),
            }
        }
    }
}

/// Sets the line up: the serial port at 8N1 and the declared baud rate, or the memory of a board without one. Returns
/// false when no 16550 answers; every later write then goes nowhere.
pub fn init() -> bool {
    let line = match TABLE.board.uart {
        Some(uart) => set_up_port(uart).map(Line::Port),
        None => has_memory().then_some(Line::Early),
    };
    let works = line.is_some();
    if let Some(mut slot) = PORT.try_lock() {
        *slot = line;
    }
    works
}

fn set_up_port(uart: &'static Uart) -> Option<Uart16550<Registers>> {
    /// Enables and clears both FIFOs.
    const FIFO_CONTROL: u8 = 2;
    const CLEAR: u8 = 0b111;
    let divisor = uart.divisor()?;
    // The driver wants a clock that the baud rate divides without a rest.
    let frequency = uart.baud.checked_mul(16)?.checked_mul(divisor.into())?;
    let baud_rate = BaudRate::from_integer(uart.baud);
    // SAFETY: as for `Registers`.
    let mut port = unsafe { Uart16550::new_with_backend(Registers(uart)) };
    if uart.in_memory {
        // Such a port may ignore its line control while it is busy with what firmware left in it.
        // SAFETY: a register of a 16550.
        unsafe { port.backend_mut().write(FIFO_CONTROL, CLEAR) };
        (0..PATIENCE).find(|_| port.lsr().contains(LSR::TRANSMITTER_EMPTY))?;
    }
    port.init(Config { baud_rate, frequency, ..Config::DEFAULT }).ok()?;
    Some(port)
}

/// Whether the table's memory for the log is behind this image.
fn has_memory() -> bool {
    let memory = TABLE.board.log_memory;
    memory.size == LOG_MEMORY && crate::memory::image_end() <= memory.start
}

/// From now on the log is in memory, with what was said before; without effect on a board with a serial port. Call it once
/// the boot modules are staged, or no longer matter.
pub fn open_memory() {
    if let Some(mut slot) = PORT.try_lock()
        && let Some(Line::Early) = slot.as_ref()
    {
        let mut log = take_memory();
        if let (Some(log), Some(said)) = (log.as_mut(), SAID.try_lock()) {
            log.write(&said);
        }
        *slot = log.map(Line::Memory);
    }
}

/// Marks a log in memory as one that came to its orderly end.
pub fn end_memory() {
    if let Some(mut slot) = PORT.try_lock()
        && let Some(Line::Memory(log)) = slot.as_mut()
    {
        log.end();
    }
}

/// The memory of the table that keeps the log.
fn take_memory() -> Option<MemoryLog<'static>> {
    let memory = TABLE.board.log_memory;
    // SAFETY: the range is the last of the hypervisor's own, behind its image; `memory::staging` leaves it out, and only this
    // line writes there. Both the boot tables and the final ones map it. It is taken once, in the place of `Line::Early`.
    let bytes =
        unsafe { core::slice::from_raw_parts_mut(memory.start as *mut u8, LOG_MEMORY as usize) };
    MemoryLog::begin(bytes, crate::boot::build_id())
}

/// Gives the line as many bytes as it takes now, without waiting: what fits into the port's FIFO, or all. Returns how many.
#[inline(never)]
pub fn try_write(bytes: &[u8]) -> usize {
    let Some(mut slot) = PORT.try_lock() else {
        return 0;
    };
    match slot.as_mut() {
        Some(Line::Port(port)) => port.send_bytes(bytes),
        Some(Line::Early) => {
            // What does not fit is lost: it waits for no room.
            let _fits = SAID.try_lock().map(|mut said| said.extend_from_slice(bytes));
            bytes.len()
        }
        Some(Line::Memory(log)) => {
            log.write(bytes);
            bytes.len()
        }
        None => 0,
    }
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

/// Takes what has arrived, as far as it fits and without waiting. Not in line, as [`try_write`].
#[inline(never)]
pub fn try_read(bytes: &mut [u8]) -> Arrived {
    let Some(mut slot) = PORT.try_lock() else {
        return Arrived::default();
    };
    let Some(Line::Port(port)) = slot.as_mut() else {
        return Arrived::default();
    };
    let count = port.receive_bytes(bytes);
    // Reading the line status clears these bits; the driver keeps those that it met while it sent and received.
    Arrived { count, is_damaged: port.lsr().intersects(DAMAGE) }
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
        let Some(Line::Port(port)) = slot.as_mut() else {
            return;
        };
        if port.lsr().contains(LSR::TRANSMITTER_EMPTY) {
            return;
        }
    }
}

/// Whether there is a line to write to and nobody holds it.
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
