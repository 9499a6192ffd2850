//! What a vCPU may know of its time: its schedule page, which its guest can only read.
//!
//! Words are atomic because another vCPU of the partition may read the page while it is written; on x86 each is a plain store.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use bulkhead_table::abi::SchedulePage;

use crate::table::VCPUS;

/// Words of a page.
const WORDS: usize = 512;

/// A schedule page in the machine's memory: [`SchedulePage`], then zeros.
#[repr(C, align(4096))]
pub struct Page([AtomicU64; WORDS]);

static PAGES: [Page; VCPUS] = [const { Page([const { AtomicU64::new(0) }; WORDS]) }; VCPUS];

/// Host-physical address of the page of the vCPU with this index; the pages of a partition's vCPUs lie one behind the other.
pub fn page_address(vcpu: usize) -> u64 {
    PAGES.get(vcpu).map_or(0, |page| &raw const *page as u64)
}

/// The page of the vCPU with this index.
pub fn page(vcpu: usize) -> Option<&'static Page> {
    PAGES.get(vcpu)
}

/// A field that is a pair of halves starts at an even half.
const fn word(offset: usize) -> usize {
    assert!(offset.is_multiple_of(8), "a word is aligned");
    offset / 8
}

const VERSION_AND_VCPU: usize = word(offset_of!(SchedulePage, version));
const SEQUENCE: usize = word(offset_of!(SchedulePage, sequence));
const EPOCH: usize = word(offset_of!(SchedulePage, epoch));
const FRAME_LENGTH: usize = word(offset_of!(SchedulePage, frame_length));
const FRAME: usize = word(offset_of!(SchedulePage, frame));
const WINDOW_START: usize = word(offset_of!(SchedulePage, window_start));
const WINDOW_END: usize = word(offset_of!(SchedulePage, window_end));
const NEXT_START: usize = word(offset_of!(SchedulePage, next_start));
const NEXT_END: usize = word(offset_of!(SchedulePage, next_end));
const PLAN_AND_NEXT: usize = word(offset_of!(SchedulePage, plan));
const PLAN_FROM: usize = word(offset_of!(SchedulePage, plan_from));
const LATE: usize = word(offset_of!(SchedulePage, late));
const TIMERS_OUTSIDE: usize = word(offset_of!(SchedulePage, timers_outside));
const DONATED: usize = word(offset_of!(SchedulePage, donated));

const _: () = assert!(
    offset_of!(SchedulePage, vcpu) == offset_of!(SchedulePage, version) + 4
        && offset_of!(SchedulePage, next_plan) == offset_of!(SchedulePage, plan) + 4
);

const fn halves(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

impl Page {
    fn set(&self, word: usize, value: u64) {
        if let Some(word) = self.0.get(word) {
            // Release: a reader that sees the sequence number behind the words sees the words.
            word.store(value, Ordering::Release);
        }
    }

    /// How often the guest was told a window, and how many of its windows were late as of the latest. Any core may ask at any time.
    pub fn told(&self) -> (u64, u64) {
        let word = |word: usize| self.0[word].load(Ordering::Relaxed);
        (word(SEQUENCE) / 2, word(LATE))
    }

    /// Tells the guest. Only the core of the vCPU calls this, while the vCPU does not run; `sequence` is ignored.
    pub fn tell(&self, news: &SchedulePage) {
        let sequence = self.0[SEQUENCE].load(Ordering::Relaxed);
        self.set(SEQUENCE, sequence.wrapping_add(1));
        self.set(VERSION_AND_VCPU, halves(news.version, news.vcpu));
        self.set(EPOCH, news.epoch);
        self.set(FRAME_LENGTH, news.frame_length);
        self.set(FRAME, news.frame);
        self.set(WINDOW_START, news.window_start);
        self.set(WINDOW_END, news.window_end);
        self.set(NEXT_START, news.next_start);
        self.set(NEXT_END, news.next_end);
        self.set(PLAN_AND_NEXT, halves(news.plan, news.next_plan));
        self.set(PLAN_FROM, news.plan_from);
        self.set(LATE, news.late);
        self.set(TIMERS_OUTSIDE, news.timers_outside);
        self.set(DONATED, news.donated);
        self.set(SEQUENCE, sequence.wrapping_add(2));
    }
}
