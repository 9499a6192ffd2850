//! The smallest program that carries a table as the hypervisor does: linked by `linker.ld`, found by its note. The tests of
//! `config/audit` build it, because the hypervisor itself takes a whole system to build. It lies in this room because placing
//! a static in a section is `unsafe`, and it never runs.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "places the note in its section and names the entry")]

use core::sync::atomic::{AtomicU64, Ordering};

use bulkhead_table::note::Note;

mod generated {
    include!(env!("TABLE_SOURCE"));
}

// SAFETY: the section holds notes and nothing else, and this is one.
#[used]
#[unsafe(link_section = ".note.bulkhead")]
static NOTE: Note = Note::of(&generated::TABLE);

/// Not zero, so that the file has a data segment.
static WRITTEN: AtomicU64 = AtomicU64::new(7);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// SAFETY: no other symbol of this program has the name.
#[unsafe(no_mangle)]
extern "C" fn bulkhead_start() -> ! {
    loop {
        WRITTEN.fetch_add(1, Ordering::Relaxed);
    }
}
