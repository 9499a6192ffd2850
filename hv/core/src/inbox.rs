//! What other cores have for a vCPU: interrupts that wait until its own core looks.
//!
//! Any core may post at any time; only the owning core drains. Both are wait-free: a fixed number of atomic operations,
//! whatever the others do. As on a bare machine, interrupts of the same vector that nobody took yet merge into one.
//!
//! A post writes the news first and the summary behind it; a drain takes the summary first and the news behind it. So the
//! owner that sees the summary sees the news, and news that come in between are found twice at most, the second
//! time as nothing.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::ipi::Kind;

/// Words of the request bitmap.
const WORDS: usize = 4;
/// Bits of the summary from 0 to 3 are words of requests.
const NMI: u32 = 1 << 4;
const START: u32 = 1 << 5;

/// States of `start`: nothing, an INIT, an INIT with a start-up behind it, a start-up alone. The vector is in the low byte.
const INIT: u32 = 1 << 8;
const START_UP: u32 = 1 << 9;

/// The inbox of one vCPU.
#[derive(Debug)]
pub struct Inbox {
    summary: AtomicU32,
    start: AtomicU32,
    requests: [AtomicU64; WORDS],
}

/// What was in an inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Requested vectors: bit v of word v / 64.
    pub requests: [u64; WORDS],
    /// An NMI.
    pub nmi: bool,
    /// An INIT; it comes before [`Self::start_up`].
    pub init: bool,
    /// A start-up interrupt with this vector.
    pub start_up: Option<u8>,
}

impl Inbox {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            summary: AtomicU32::new(0),
            start: AtomicU32::new(0),
            requests: [const { AtomicU64::new(0) }; WORDS],
        }
    }

    /// Leaves an interrupt for the owner. The total order (`SeqCst`) is for what the sender reads next: whether the
    /// owner is running now. The owner says that it runs before it drains; so one of the two sees the other.
    pub fn post(&self, kind: Kind) {
        let bit = match kind {
            Kind::Fixed(vector) => self.request(vector),
            Kind::Nmi => NMI,
            Kind::Init => {
                // What was asked for before a reset is gone with it.
                self.start.store(INIT, Ordering::Release);
                START
            }
            Kind::StartUp(vector) => {
                self.start_up(vector);
                START
            }
        };
        self.summary.fetch_or(bit, Ordering::SeqCst);
    }

    fn request(&self, vector: u8) -> u32 {
        let index = usize::from(vector >> 6);
        if let Some(word) = self.requests.get(index) {
            word.fetch_or(1 << (vector & 63), Ordering::Release);
        }
        1 << index
    }

    /// The first start-up interrupt counts; a processor that was started ignores the second (SDM 3A 9.4.3). Where both
    /// exchanges fail, one is there already, or an INIT came behind this one and swallows it.
    fn start_up(&self, vector: u8) {
        let asked = START_UP | u32::from(vector);
        let exchange =
            |from, to| self.start.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        if exchange(INIT, INIT | asked).is_err() {
            let _swallowed = exchange(0, asked);
        }
    }

    /// Whether something is there. One load: for the way into a guest.
    #[inline(always)]
    pub fn has_news(&self) -> bool {
        self.summary.load(Ordering::SeqCst) != 0
    }

    /// Takes what is there. Only the owning core calls this.
    pub fn drain(&self) -> News {
        let summary = self.summary.swap(0, Ordering::SeqCst);
        let mut news = News { nmi: summary & NMI != 0, ..News::default() };
        for (index, (taken, word)) in news.requests.iter_mut().zip(&self.requests).enumerate() {
            if summary & 1 << index != 0 {
                *taken = word.swap(0, Ordering::Acquire);
            }
        }
        if summary & START != 0 {
            let start = self.start.swap(0, Ordering::AcqRel);
            news.init = start & INIT != 0;
            news.start_up = (start & START_UP != 0).then_some(start as u8);
        }
        news
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl News {
    /// Whether there are no news.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::vec::Vec;

    #[test]
    fn what_was_posted_is_drained_once() {
        let inbox = Inbox::new();
        assert!(!inbox.has_news());
        for vector in [16, 63, 64, 200, 255, 200] {
            inbox.post(Kind::Fixed(vector));
        }
        inbox.post(Kind::Nmi);
        assert!(inbox.has_news());
        let news = inbox.drain();
        assert_eq!(news.requests, [1 << 16 | 1 << 63, 1, 0, 1 << 8 | 1 << 63]);
        assert!(news.nmi && !news.init && news.start_up.is_none());
        assert!(inbox.drain().is_empty());
        assert!(!inbox.has_news());
    }

    #[test]
    fn the_first_start_up_behind_an_init_counts() {
        let inbox = Inbox::new();
        let start = |kinds: &[Kind]| {
            kinds.iter().for_each(|kind| inbox.post(*kind));
            let news = inbox.drain();
            (news.init, news.start_up)
        };
        use Kind::{Init, StartUp};
        assert_eq!(start(&[Init, StartUp(8), StartUp(9)]), (true, Some(8)));
        assert_eq!(start(&[StartUp(8)]), (false, Some(8)));
        assert_eq!(start(&[StartUp(8), Init]), (true, None), "a start before the reset is lost");
        assert_eq!(start(&[Init, StartUp(8), Init, StartUp(0)]), (true, Some(0)));
    }

    /// Several cores post while the owner drains: nothing is lost, and nothing comes that nobody sent.
    #[test]
    fn nothing_is_lost_between_cores() {
        const SENDERS: u8 = 3;
        const EACH: usize = if cfg!(miri) { 20 } else { 20_000 };
        static INBOX: Inbox = Inbox::new();
        static DONE: [AtomicBool; SENDERS as usize] =
            [const { AtomicBool::new(false) }; SENDERS as usize];
        /// By sender: how many rounds the owner has answered.
        static ANSWERED: [AtomicU64; SENDERS as usize] =
            [const { AtomicU64::new(0) }; SENDERS as usize];
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                thread::spawn(move || {
                    let own = usize::from(sender);
                    for round in 0..EACH {
                        // Vectors of one sender share a word with those of the others.
                        INBOX.post(Kind::Fixed(16 + sender * 80));
                        INBOX.post(Kind::Fixed(17 + sender));
                        while ANSWERED[own].load(Ordering::Acquire) <= round as u64 {
                            thread::yield_now();
                        }
                    }
                    DONE[own].store(true, Ordering::Release);
                })
            })
            .collect();
        let mut counts = [0_usize; 256];
        while DONE.iter().any(|done| !done.load(Ordering::Acquire)) {
            let news = INBOX.drain();
            for (vector, count) in counts.iter_mut().enumerate() {
                *count += (news.requests[vector / 64] >> (vector % 64) & 1) as usize;
            }
            for sender in 0..usize::from(SENDERS) {
                // A round is over when both of its interrupts came.
                let both = counts[16 + sender * 80].min(counts[17 + sender]);
                ANSWERED[sender].store(both as u64, Ordering::Release);
            }
            thread::yield_now();
        }
        for sender in senders {
            sender.join().unwrap();
        }
        assert!(INBOX.drain().is_empty());
        assert_eq!(counts.iter().sum::<usize>(), usize::from(SENDERS) * 2 * EACH);
        for sender in 0..usize::from(SENDERS) {
            assert_eq!(counts[16 + sender * 80], EACH);
            assert_eq!(counts[17 + sender], EACH);
        }
    }
}
