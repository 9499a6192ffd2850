//! The console that needs no exit: a page of the partition's memory in which its guest and the hypervisor leave bytes for each other
//! ([`bulkhead_table::pc::CONSOLE_PAGE`]).
//!
//! The guest may write anything anywhere in it at any time. So each number is read once and masked, and a nonsensical one costs the
//! guest its own bytes and nothing else.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use bulkhead_table::pc::console_page::{
    OPEN, READ, SAID, SAID_BYTES, SAID_LENGTH, STATE, TAKEN, TYPED, TYPED_BYTES, TYPED_LENGTH,
};

/// Numbers in front of the bytes.
const NUMBERS: usize = TYPED_BYTES / 4;

/// The page, as both sides see it. Any content is one.
#[repr(C, align(4096))]
pub struct ConsolePage {
    numbers: [AtomicU32; NUMBERS],
    typed: [AtomicU8; TYPED_LENGTH],
    said: [AtomicU8; SAID_LENGTH],
}

const _: () = assert!(
    size_of::<ConsolePage>() == bulkhead_table::PAGE_SIZE as usize
        && SAID_BYTES == TYPED_BYTES + TYPED_LENGTH
        && TYPED_LENGTH.is_power_of_two()
        && SAID_LENGTH.is_power_of_two()
);

impl ConsolePage {
    fn number(&self, offset: usize) -> &AtomicU32 {
        &self.numbers[offset / 4]
    }

    /// Whether the guest uses it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.number(STATE).load(Ordering::Acquire) == OPEN
    }

    /// Takes what the guest said, as much as `bytes` holds; empty when that is nothing.
    pub fn take<'b>(&self, bytes: &'b mut [u8]) -> &'b [u8] {
        if !self.is_open() {
            return &[];
        }
        let said = self.number(SAID).load(Ordering::Acquire);
        let waiting = said.wrapping_sub(self.number(TAKEN).load(Ordering::Relaxed));
        // More than fit cannot wait: the guest overwrote its own, or writes nonsense. What stands there is taken, once.
        let waiting = waiting.min(SAID_LENGTH as u32);
        let taken = said.wrapping_sub(waiting);
        let count = (waiting as usize).min(bytes.len());
        for (offset, byte) in (0_u32..).zip(bytes.iter_mut().take(count)) {
            let at = taken.wrapping_add(offset) as usize % SAID_LENGTH;
            *byte = self.said[at].load(Ordering::Relaxed);
        }
        self.number(TAKEN).store(taken.wrapping_add(count as u32), Ordering::Release);
        bytes.get(..count).unwrap_or_default()
    }

    /// Leaves typed bytes for the guest: all of them, or none where they do not fit. Returns whether they did.
    pub fn type_bytes(&self, bytes: &[u8]) -> bool {
        let typed = self.number(TYPED).load(Ordering::Relaxed);
        let waiting = typed.wrapping_sub(self.number(READ).load(Ordering::Acquire)) as usize;
        if waiting > TYPED_LENGTH || bytes.len() > TYPED_LENGTH - waiting {
            return false;
        }
        for (offset, byte) in (0_u32..).zip(bytes) {
            let at = typed.wrapping_add(offset) as usize % TYPED_LENGTH;
            self.typed[at].store(*byte, Ordering::Relaxed);
        }
        self.number(TYPED).store(typed.wrapping_add(bytes.len() as u32), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn page() -> ConsolePage {
        ConsolePage {
            numbers: [const { AtomicU32::new(0) }; NUMBERS],
            typed: [const { AtomicU8::new(0) }; TYPED_LENGTH],
            said: [const { AtomicU8::new(0) }; SAID_LENGTH],
        }
    }

    /// As a guest does.
    fn say(page: &ConsolePage, bytes: &[u8]) {
        let said = page.number(SAID).load(Ordering::Relaxed);
        for (offset, byte) in (0_u32..).zip(bytes) {
            let at = said.wrapping_add(offset) as usize % SAID_LENGTH;
            page.said[at].store(*byte, Ordering::Relaxed);
        }
        page.number(SAID).store(said.wrapping_add(bytes.len() as u32), Ordering::Release);
    }

    #[test]
    fn what_is_said_arrives_once_the_guest_says_that_it_is_there() {
        let page = page();
        let mut room = [0; 4];
        say(&page, b"hello");
        assert_eq!(page.take(&mut room), b"", "nobody said that this is a console");
        page.number(STATE).store(OPEN, Ordering::Release);
        assert_eq!(page.take(&mut room), b"hell");
        assert_eq!(page.take(&mut room), b"o");
        assert_eq!(page.take(&mut room), b"");
    }

    #[test]
    fn what_is_typed_waits_for_the_guest() {
        let page = page();
        for _ in 0..TYPED_LENGTH / 4 {
            assert!(page.type_bytes(b"xxxx"));
        }
        assert!(!page.type_bytes(b"y"), "full");
        page.number(READ).store(1, Ordering::Release);
        assert!(!page.type_bytes(b"yz"), "nothing in part");
        assert!(page.type_bytes(b"y"));
        assert_eq!(page.typed[0].load(Ordering::Relaxed), b'y');
        page.number(READ).store(TYPED_LENGTH as u32 + 9, Ordering::Release);
        assert!(!page.type_bytes(b"y"), "a guest that read more than there was");
    }

    proptest! {
        #[test]
        fn bytes_come_in_order_across_every_bound(start in any::<u32>(), pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..40)) {
            let page = page();
            for number in [SAID, TAKEN] {
                page.number(number).store(start, Ordering::Relaxed);
            }
            page.number(STATE).store(OPEN, Ordering::Release);
            let mut room = [0; 64];
            for piece in pieces {
                say(&page, &piece);
                let mut got = Vec::new();
                loop {
                    let taken = page.take(&mut room);
                    if taken.is_empty() {
                        break;
                    }
                    got.extend_from_slice(taken);
                }
                prop_assert_eq!(got, piece);
            }
        }

        #[test]
        fn nonsense_costs_the_guest_its_own_bytes(numbers in proptest::array::uniform5(any::<u32>())) {
            let page = page();
            for (at, number) in numbers.into_iter().enumerate() {
                page.numbers[at].store(number, Ordering::Relaxed);
            }
            page.number(STATE).store(OPEN, Ordering::Release);
            let mut room = [0; 64];
            let mut bytes = 0;
            for _ in 0..=SAID_LENGTH {
                bytes += page.take(&mut room).len();
            }
            prop_assert!(bytes <= SAID_LENGTH, "{bytes} bytes came out of the page");
            page.type_bytes(&[1]);
        }
    }
}
