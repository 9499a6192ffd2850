//! Down to real mode and back: an operating system's start in small, and what BIOS calls of old do.
#![expect(unsafe_code, reason = "leaves 64-bit mode")]

use core::arch::global_asm;

global_asm!(include_str!("real_mode.s"));

/// The page below 1 MiB that real mode runs in; real_mode.s has it as a segment.
const PAGE: usize = 0x9000;
/// Where in it what was seen lies.
const SEEN: usize = PAGE + 0xF00;
/// First of the three vectors that are taken there: software interrupt, interrupt to itself, timer.
const FIRST_VECTOR: usize = 0x41;
/// Segment of the page.
const SEGMENT: u32 = (PAGE >> 4) as u32;

unsafe extern "C" {
    fn guest_real_mode();
    static guest_real_mode_begin: u8;
    static guest_real_mode_end: u8;
    static guest_real_mode_handlers: [u16; 3];
}

/// What was seen in real mode.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How often a software interrupt came through the table at address 0.
    pub software_interrupts: u32,
    /// The same of an interrupt to itself.
    pub own_interrupts: u32,
    /// The same of the timer, while the processor was halted.
    pub timer_interrupts: u32,
    /// Line status of the serial port at 0x3F8.
    pub port: u32,
    /// EAX of CPUID's leaf 0.
    pub leaves: u32,
    /// The lower half of IA32_APIC_BASE.
    pub apic_base: u32,
    /// CR0.
    pub control: u32,
}

/// Goes there and back. The pages at 0 and at 0x9000 are used; nobody else uses the timer meanwhile.
#[must_use]
pub fn round_trip() -> Seen {
    let begin = &raw const guest_real_mode_begin;
    let length = &raw const guest_real_mode_end as usize - begin as usize;
    // SAFETY: both pages are the guest's own RAM, mapped one to one, and nothing else of it lies there; the code returns with every
    // register that a call preserves, and with the tables that were loaded.
    unsafe {
        core::ptr::write_bytes(PAGE as *mut u8, 0, 0x1000);
        core::ptr::copy_nonoverlapping(begin, PAGE as *mut u8, length);
        let handlers = (&raw const guest_real_mode_handlers).read_unaligned();
        for (handler, vector) in handlers.into_iter().zip(FIRST_VECTOR..) {
            let place = (4 * vector) as *mut u32;
            place.write_volatile(u32::from(handler) | SEGMENT << 16);
        }
        guest_real_mode();
        (SEEN as *const Seen).read_volatile()
    }
}
