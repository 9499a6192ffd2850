//! The end of a core that found a defect of our own or of the machine: one sentence, then silence.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::run::defect;
use crate::text::say;

static PANICKED: AtomicBool = AtomicBool::new(false);

/// While the partitions run, the core leaves its sentence to the housekeeping, and the others go on. The core that keeps house has nobody to
/// leave it to, and during boot nobody listens yet: the core speaks itself. Only the first of those speaks: a second one would be about the
/// first, or garble it.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    let place = info.location().map_or(("?", 0), |place| (place.file(), place.line()));
    if let Some(core) = defect::core_to_lose() {
        defect::lose(core, format_args!("{} ({}:{})", info.message(), place.0, place.1));
    }
    if !PANICKED.swap(true, Ordering::AcqRel) {
        crate::serial::seize();
        crate::serial::open_memory();
        crate::screen::seize();
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
