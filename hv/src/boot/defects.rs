//! What is wrong with the board: each defect is one sentence, all are told, then the machine halts.

use core::fmt;

use crate::cpu;
use crate::text::say;

/// Counts defects while it prints them.
pub struct Defects {
    found: u32,
}

impl Defects {
    /// None so far.
    pub const fn new() -> Self {
        Self { found: 0 }
    }

    /// Tells one defect: what differs, and what would mend it. The sentence starts in lower case and has no full stop.
    pub fn add(&mut self, sentence: fmt::Arguments<'_>) {
        self.add_plainly(format_args!("Bulkhead refuses this board: {sentence}."));
    }

    /// Tells one defect in a line of its own words.
    pub fn add_plainly(&mut self, line: fmt::Arguments<'_>) {
        self.found += 1;
        say!("{line}");
    }

    /// Tells one last defect and halts the machine.
    pub fn refuse(&mut self, sentence: fmt::Arguments<'_>) -> ! {
        self.add(sentence);
        self.halt()
    }

    /// Halts the machine when there are any.
    pub fn halt_if_any(&self) {
        if self.found > 0 {
            self.halt();
        }
    }

    fn halt(&self) -> ! {
        // No boot module is needed any more.
        crate::serial::open_memory();
        let noun = if self.found == 1 { "defect" } else { "defects" };
        say!("Bulkhead halts: {} {noun}, named above; no partition was started.", self.found);
        cpu::halt()
    }
}
