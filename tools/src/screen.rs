//! Shows the events of a run to people, line by line, each partition's console told apart.

use std::io::{IsTerminal, Write, stdout};

use hv_core::health::Incident;

use crate::decode::Event;
use crate::incident;
use crate::manifest::Manifest;

/// Colours of the partitions' names, in turn (ANSI foreground codes that read on dark and light).
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];

/// A printer of events.
pub struct Screen {
    manifest: Option<Manifest>,
    width: usize,
    coloured: bool,
    silent: bool,
}

impl Screen {
    /// For a log of the image that `manifest` describes; `silent` prints nothing.
    #[must_use]
    pub fn new(manifest: Option<&Manifest>, silent: bool) -> Self {
        let coloured = stdout().is_terminal();
        let mut screen = Self { manifest: None, width: "bulkhead".len(), coloured, silent };
        if let Some(manifest) = manifest {
            screen.name_partitions(manifest);
        }
        screen
    }

    /// From here on partitions have the names that `manifest` gives them.
    pub fn name_partitions(&mut self, manifest: &Manifest) {
        let longest = manifest.partitions.iter().map(|place| place.name.len()).max().unwrap_or(0);
        self.width = longest.max("bulkhead".len());
        self.manifest = Some(manifest.clone());
    }

    /// The same with lines that carry no colours, for a reader that paints them itself.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { coloured: false, ..self }
    }

    /// Prints one event. Figures and histogram bins are left to the report.
    pub fn show(&self, event: &Event) {
        if self.silent {
            return;
        }
        if let Some(line) = self.line(event) {
            // A closed pipe ends the show, not the run.
            let _closed = writeln!(stdout(), "{line}");
        }
    }

    /// An event as a line; `None` for one that is left to the report.
    #[must_use]
    pub fn line(&self, event: &Event) -> Option<String> {
        Some(match event {
            Event::Text(line) if is_bin(line) => return None,
            Event::Text(line) => self.row("boot", 90, line),
            Event::Hello { build, digest, tsc_hz, .. } => {
                let text = format!(
                    "build {}, table {}, {} MHz",
                    short(build),
                    short(digest),
                    tsc_hz / 1_000_000
                );
                self.row("bulkhead", 1, &text)
            }
            Event::Log { cpu, tsc, level, message, place } => {
                let place = place
                    .as_ref()
                    .map(|(file, line)| format!("  ({file}:{line})"))
                    .unwrap_or_default();
                let text = format!("cpu{cpu} {} {level:5} {message}{place}", grouped(*tsc));
                self.row("bulkhead", 1, &text)
            }
            Event::Console { line, .. } if is_bin(line) => return None,
            Event::Console { partition, line, .. } => {
                let colour = COLOURS[usize::from(*partition) % COLOURS.len()];
                self.row(&self.name(*partition), colour, line)
            }
            Event::Lost { cpu, count } => self.row(
                "bulkhead",
                31,
                &format!("cpu{cpu} dropped {count} messages: its ring was full"),
            ),
            Event::Defect { cpu, tsc, words } => {
                let text = format!("cpu{cpu} {} {}", grouped(*tsc), lost_core(words));
                self.row("bulkhead", 31, &text)
            }
            Event::Garbled { bytes, cause, .. } => {
                self.row("garbled", 31, &format!("{bytes} bytes on the line: {cause}"))
            }
            Event::Incident { cpu, tsc, incident } if incident.what.is_of_time() => {
                let text = format!("cpu{cpu} {} {}", grouped(*tsc), self.incident(incident));
                self.row("health", 33, &text)
            }
            Event::Incident { cpu, tsc, incident } => {
                let (level, words) = (incident::level(&incident.what), self.incident(incident));
                self.row("bulkhead", 1, &format!("cpu{cpu} {} {level:5} {words}", grouped(*tsc)))
            }
            Event::Diagnosis(diagnosis) => self.row("garbled", 31, &diagnosis.to_string()),
            Event::Stat(_)
            | Event::Live { .. }
            | Event::Exits { .. }
            | Event::Windows { .. }
            | Event::Typed(_) => return None,
            Event::End => self.row("bulkhead", 1, "all logs are drained; the machine goes down"),
        })
    }

    /// What went wrong, as a sentence.
    #[must_use]
    pub fn incident(&self, incident: &Incident) -> String {
        incident::words(incident, self.manifest.as_ref())
    }

    fn name(&self, partition: u8) -> String {
        let id = u16::from(partition);
        let unnamed = || format!("partition {id}");
        self.manifest.as_ref().map_or_else(unnamed, |manifest| manifest.partition_name(id))
    }

    fn row(&self, who: &str, colour: u8, text: &str) -> String {
        let width = self.width;
        if self.coloured {
            format!("\u{1b}[{colour}m{who:>width$} │\u{1b}[0m {text}")
        } else {
            format!("{who:>width$} │ {text}")
        }
    }
}

/// That a core was lost, and its last words.
#[must_use]
pub fn lost_core(words: &str) -> String {
    format!(
        "the core is lost to a defect of the hypervisor or of the machine, and the others go on; please report it: {words}"
    )
}

fn is_bin(line: &str) -> bool {
    ["@bulkhead bin ", "@bulkhead slice ", "@bulkhead worst "].iter().any(|it| line.starts_with(it))
}

fn short(bytes: &[u8]) -> String {
    crate::elf::hex(&bytes[..bytes.len().min(4)])
}

/// A number with its digits in groups of three.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Place;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }

    #[test]
    fn each_line_names_its_partition() {
        let manifest = Manifest {
            partitions: vec![Place { name: "motion".into(), ..Place::default() }],
            ..Manifest::default()
        };
        let screen = Screen::new(Some(&manifest), false).plain();
        let say = |partition, line: &str| {
            screen.line(&Event::Console { partition, tsc: 0, line: line.into() })
        };
        assert_eq!(say(0, "hi").unwrap(), "  motion │ hi");
        assert_eq!(say(4, "hi").unwrap(), "partition 4 │ hi");
        assert_eq!(say(0, "@bulkhead bin x 1 1"), None);
    }
}
