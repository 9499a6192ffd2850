//! What a person reads on the screen of a board without a serial port: each incident, and at the end how each partition stands.
//! The same is in the log's memory, for programs.

use core::fmt::Write;

use bulkhead_table::{Partition, PartitionId};
use heapless::String;
use hv_core::health::{Incident, Party, What};
use hv_core::wire::Fate;

use crate::run::cell::CoreCell;
use crate::run::module;
use crate::screen;
use crate::table::TABLE;
use crate::text::say;

/// Whether the screen is all that a person sees.
pub const NEEDED: bool = TABLE.board.uart.is_none();

/// Longest line that is noted, in bytes; what is longer is cut.
const LINE: usize = 160;

/// The latest incident that is not on the screen yet. Of several that come at once the last one is shown; the log has all.
static INCIDENT: CoreCell<Option<Incident>> = CoreCell::new(None);

/// Takes an incident, as it stands in the log; [`step`] shows it.
pub fn take_incident(bytes: &[u8]) {
    if NEEDED {
        // SAFETY: only the core with housekeeping gets here, and the reference ends with this line.
        *unsafe { INCIDENT.get() } = Incident::from_bytes(bytes);
    }
}

/// Does a small part of what the screen still lacks: writes one line, or draws one character. False when it lacks nothing.
pub fn step() -> bool {
    if !NEEDED {
        return false;
    }
    // SAFETY: as in `take_incident`.
    match unsafe { INCIDENT.get() }.take() {
        Some(event) => {
            note(&event);
            true
        }
        None => screen::refresh(),
    }
}

fn note(event: &Incident) {
    let mut line = String::<LINE>::new();
    // A line that is too long is cut.
    let _cut = write_incident(&mut line, event);
    screen::note_text(&line);
    screen::note_text("\n");
}

fn write_incident(line: &mut String<LINE>, event: &Incident) -> core::fmt::Result {
    let (subject, offender, frame) = (name(event.subject), name(event.offender), event.frame);
    match event.what {
        What::LateWindow { ticks } => {
            write!(
                line,
                "Frame {frame}: a window of {subject} was {ticks} ticks late, by {offender}."
            )
        }
        What::MissedWindows { count } => {
            write!(line, "Frame {frame}: {subject} missed {count} windows, by {offender}.")
        }
        What::Violation { rip, .. } => {
            write!(line, "{subject} did what it may not, at {rip:#x}, and is stopped.")
        }
        What::Refusal { rip, .. } => {
            write!(line, "{subject} was refused something, at {rip:#x}.")
        }
        What::Restart { number, .. } => write!(line, "{subject} starts again, for time {number}."),
        What::Off => write!(line, "{subject} switched itself off."),
        What::EntryFailed { error } => {
            write!(line, "The processor refused {subject} (error {error}); it is stopped.")
        }
        What::MachineNmi { count, cpu } => {
            write!(line, "{count} NMIs of the machine came to cpu{cpu}, where nobody owns them.")
        }
        What::Unknown(code) => write!(line, "Incident {code} of {subject}, by {offender}."),
    }
}

fn name(party: Party) -> &'static str {
    match party {
        Party::Hypervisor => "the hypervisor",
        Party::Partition(id) => {
            TABLE.partitions.get(usize::from(id)).map_or("no partition", |known| known.name)
        }
    }
}

/// Says how each partition stands at the end. Only once nobody else runs.
pub fn say_end() {
    if NEEDED {
        for (id, partition) in (0..).zip(TABLE.partitions) {
            say_fate(id, partition);
        }
    }
}

fn say_fate(id: PartitionId, partition: &Partition) {
    let stands = match module::fate(usize::from(id)) {
        Fate::Running => "had not finished",
        Fate::Passed => "passed",
        Fate::Failed => "FAILED",
        Fate::Stopped => "was STOPPED after a violation or a fault",
        Fate::Refused => "was REFUSED: its image is not the one that was proven",
        Fate::Off => "switched itself off",
        Fate::Lost => "was LOST with a core",
    };
    say!("Bulkhead: partition {} ({}) {stands}.", partition.name, partition.place);
}
