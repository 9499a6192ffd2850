//! The serial port, probed access by access as `autoconfig` of Linux' driver 8250 does.

use crate::{read, write};

const PORT: u16 = 0x3F8;
const DATA: u16 = PORT;
const INTERRUPT_ENABLE: u16 = PORT + 1;
const FIFO: u16 = PORT + 2;
const LINE_CONTROL: u16 = PORT + 3;
const MODEM_CONTROL: u16 = PORT + 4;
const LINE_STATUS: u16 = PORT + 5;
const MODEM_STATUS: u16 = PORT + 6;

const LOOP: u8 = 0x10;
const TRANSMITTER_READY: u8 = 0x20;
const EIGHT_BITS: u8 = 3;

/// Interrupt enable has four bits, the FIFOs work, and no register shows that it is something newer.
pub fn is_plain_16550() -> bool {
    write(INTERRUPT_ENABLE, 0);
    let none = read(INTERRUPT_ENABLE);
    write(INTERRUPT_ENABLE, 0x4F);
    let all = read(INTERRUPT_ENABLE);
    write(INTERRUPT_ENABLE, 0);
    write(LINE_CONTROL, 0xBF);
    write(FIFO, 0);
    write(LINE_CONTROL, 0);
    write(FIFO, 1);
    let fifos = read(FIFO) >> 6;
    write(LINE_CONTROL, 0x80);
    let newer = read(FIFO) == 0;
    write(FIFO, 0x21);
    let larger = read(FIFO) >> 5 == 7;
    write(LINE_CONTROL, EIGHT_BITS);
    write(FIFO, 1);
    (none, all, fifos, newer, larger) == (0, 0x0F, 3, false, false)
}

/// Modem lines and bytes go round, and no byte comes out.
pub fn loops() -> bool {
    write(MODEM_CONTROL, LOOP | 0x0A);
    let lines = read(MODEM_STATUS) & 0xF0;
    write(DATA, 0xA5);
    let arrived = read(LINE_STATUS) & 1 == 1 && read(DATA) == 0xA5;
    write(MODEM_CONTROL, 0x03);
    lines == 0x90 && arrived && read(LINE_STATUS) & 1 == 0
}

/// Sends a line, and asks for each byte whether there is room.
pub fn sends() -> bool {
    for byte in *b"sent through the serial port\r\n" {
        while read(LINE_STATUS) & TRANSMITTER_READY == 0 {
            core::hint::spin_loop();
        }
        write(DATA, byte);
    }
    true
}
