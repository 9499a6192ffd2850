//! The end of a core that found a defect of our own or of the machine: one sentence, then silence.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::text::say;

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Only the first panic speaks: a second one would be about the first, or garble it.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    if !PANICKED.swap(true, Ordering::AcqRel) {
        crate::serial::seize();
        crate::serial::open_memory();
        crate::screen::seize();
        let place = info.location().map_or(("?", 0), |place| (place.file(), place.line()));
        say!(
            "\r\nBulkhead stops the core with APIC id {}: {} ({}:{})",
            crate::cpu::apic_id(),
            info.message(),
            place.0,
            place.1
        );
    }
    crate::cpu::halt()
}
