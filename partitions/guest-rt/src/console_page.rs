//! The console that needs no exit: a page that a guest with the platform of a PC shares with the hypervisor
//! ([`bulkhead_table::pc::console_page`]).
#![expect(unsafe_code, reason = "reaches a page at its address")]

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use bulkhead_table::pc::CONSOLE_PAGE;
use bulkhead_table::pc::console_page as at;

/// The page, opened: what is typed comes here, and no more at the serial port.
pub struct ConsolePage(());

fn number(offset: usize) -> &'static AtomicU32 {
    // SAFETY: on a PC the page is the guest's memory, mapped one to one and used for nothing else. The offsets of the contract are aligned
    // and inside it; the hypervisor's accesses are atomic too.
    unsafe { &*((CONSOLE_PAGE as usize + offset) as *const AtomicU32) }
}

fn byte(offset: usize) -> &'static AtomicU8 {
    // SAFETY: as in `number`.
    unsafe { &*((CONSOLE_PAGE as usize + offset) as *const AtomicU8) }
}

impl ConsolePage {
    /// Says that the page is used from now on.
    #[must_use]
    pub fn open() -> Self {
        number(at::STATE).store(at::OPEN, Ordering::Release);
        Self(())
    }

    /// The next byte that was typed.
    #[must_use]
    pub fn read(&self) -> Option<u8> {
        let read = number(at::READ).load(Ordering::Relaxed);
        if number(at::TYPED).load(Ordering::Acquire) == read {
            return None;
        }
        let typed =
            byte(at::TYPED_BYTES + read as usize % at::TYPED_LENGTH).load(Ordering::Relaxed);
        number(at::READ).store(read.wrapping_add(1), Ordering::Release);
        Some(typed)
    }

    /// Says bytes, and waits while there is no room for them.
    pub fn say(&self, bytes: &[u8]) {
        for said in bytes {
            let count = number(at::SAID).load(Ordering::Relaxed);
            while count.wrapping_sub(number(at::TAKEN).load(Ordering::Acquire)) as usize
                >= at::SAID_LENGTH
            {
                core::hint::spin_loop();
            }
            byte(at::SAID_BYTES + count as usize % at::SAID_LENGTH).store(*said, Ordering::Relaxed);
            number(at::SAID).store(count.wrapping_add(1), Ordering::Release);
        }
    }
}
