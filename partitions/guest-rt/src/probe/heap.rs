//! The heap: a fixed piece of the image, given out by a well-kept allocator.
#![expect(unsafe_code, reason = "hands the piece to the allocator")]

use core::sync::atomic::{AtomicBool, Ordering};

use linked_list_allocator::LockedHeap;

/// Enough for the facts of 1,024 cores (1 KiB each) and 8,192 PCI functions (400 bytes each), and the text.
const BYTES: usize = 8 << 20;

#[repr(align(4096))]
struct Piece(core::cell::UnsafeCell<[u8; BYTES]>);

// SAFETY: only `set_up` takes the address, once, and hands the bytes to the allocator, which has a lock.
unsafe impl Sync for Piece {}

static PIECE: Piece = Piece(core::cell::UnsafeCell::new([0; BYTES]));
static GIVEN: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static HEAP: LockedHeap = LockedHeap::empty();

/// Gives the allocator its memory; the first call counts.
pub(super) fn set_up() {
    if !GIVEN.swap(true, Ordering::AcqRel) {
        // SAFETY: the piece lives for ever, nothing else uses it, and this happens once.
        unsafe { HEAP.lock().init(PIECE.0.get().cast::<u8>(), BYTES) };
    }
}
