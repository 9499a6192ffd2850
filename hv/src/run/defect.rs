//! The loss of a core: a defect of the hypervisor or of the machine ends it, and costs the other cores nothing.
//!
//! The core leaves its last words in a slot of its own, ends the partitions that it ran, and parks. The housekeeping tells the words, and
//! reads the core's figures at the end of the run, as those of any other core that parked.
#![expect(unsafe_code, reason = "reads the words of a core that wrote its last")]

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use bulkhead_table::{PartitionId, Role};
use hv_core::wire::{Fate, MAX_PAYLOAD};

use super::cell::CoreCell;
use super::{interrupts, module, percpu};
use crate::cpu::instructions as machine;
use crate::table::{CORES, TABLE};

/// Last words of a core, cut where they do not fit, and when they were said.
pub struct Words {
    bytes: [u8; MAX_PAYLOAD],
    length: usize,
    /// TSC.
    pub tsc: u64,
}

impl Words {
    /// The text. UTF-8, but perhaps cut within a character.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let count = room.len().min(text.len());
        for (place, byte) in room.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        self.length += count;
        Ok(())
    }
}

static WORDS: [CoreCell<Words>; CORES] =
    [const { CoreCell::new(Words { bytes: [0; MAX_PAYLOAD], length: 0, tsc: 0 }) }; CORES];
/// By core: its words are all there, and nobody took them yet.
static SPOKEN: [AtomicBool; CORES] = [const { AtomicBool::new(false) }; CORES];
/// By core: how often it panicked. A second time is a defect of the first one's handling, of which less is tried each time.
static PANICS: [AtomicU8; CORES] = [const { AtomicU8::new(0) }; CORES];

/// The partitions run, and this core is not the one that owns the serial port: its index in the table. `None` otherwise.
pub fn core_to_lose() -> Option<usize> {
    percpu::core_index().filter(|core| module::epoch() != 0 && *core != module::KEEPER)
}

/// Ends this core, `core` of the table, for good.
pub fn lose(core: usize, words: fmt::Arguments<'_>) -> ! {
    let earlier = PANICS.get(core).map_or(u8::MAX, |count| count.fetch_add(1, Ordering::Relaxed));
    if earlier == 0
        && let (Some(slot), Some(spoken)) = (WORDS.get(core), SPOKEN.get(core))
    {
        // SAFETY: the slot is this core's own, and this runs once; the reader waits for the flag.
        let slot = unsafe { slot.get() };
        slot.tsc = machine::tsc();
        let _cut_and_never_fails = slot.write_fmt(words);
        spoken.store(true, Ordering::Release);
    }
    if earlier <= 1 {
        end_partitions(core);
    }
    module::park()
}

/// Ends the partitions with a vCPU on this core.
fn end_partitions(core: usize) {
    let Some(lost) = TABLE.cores.get(core) else {
        return;
    };
    interrupts::end_window(core);
    let dedicated = matches!(lost.role, Role::Dedicated(_));
    let of_core = |(_, partition): &(usize, &bulkhead_table::Partition)| {
        partition.vcpu_on(lost.cpu).is_some()
    };
    for (id, _) in TABLE.partitions.iter().enumerate().filter(of_core) {
        let id = id as PartitionId;
        if module::end(id, Fate::Lost) {
            interrupts::tell_all_but(core, id, dedicated);
        }
    }
}

/// Last words of a core that nobody took yet, and its index in the table.
pub fn take_words() -> Option<(usize, &'static Words)> {
    let core = SPOKEN.iter().position(|spoken| spoken.load(Ordering::Relaxed))?;
    SPOKEN.get(core)?.swap(false, Ordering::Acquire).then_some(())?;
    // SAFETY: the core raised the flag behind its last word and writes no more; only the housekeeping calls this.
    WORDS.get(core).map(|slot| (core, unsafe { &*slot.address().cast_const() }))
}
