//! Incidents in words: what the hypervisor recorded in a few numbers, with names and lines from the image's manifest.

use hv_core::exit::{Denial, Violation};
use hv_core::health::{Incident, Party, What};

use crate::manifest::{Extent, Manifest, Place};
use crate::screen::grouped;

/// How grave an incident is, in the words of the log's levels.
#[must_use]
pub const fn level(what: &What) -> &'static str {
    match what {
        What::Violation { .. } | What::EntryFailed { .. } => "error",
        What::LateWindow { .. }
        | What::MissedWindows { .. }
        | What::MachineNmi { .. }
        | What::Unknown(_) => "warn",
        What::Refusal { .. } | What::Restart { .. } | What::Off => "info",
    }
}

/// An incident as the report and the metrics name it.
#[must_use]
pub fn name(what: &What) -> String {
    match what {
        What::LateWindow { .. } => "late window".into(),
        What::MissedWindows { .. } => "missed windows".into(),
        What::Violation { .. } => "violation".into(),
        What::Refusal { .. } => "refusal".into(),
        What::Restart { .. } => "restart".into(),
        What::Off => "off".into(),
        What::EntryFailed { .. } => "failed entry".into(),
        What::MachineNmi { .. } => "NMI of the machine".into(),
        What::Unknown(code) => format!("incident {code}"),
    }
}

/// Who somebody is, by the names of `manifest`.
#[must_use]
pub fn party(party: Party, manifest: Option<&Manifest>) -> String {
    match (party, manifest) {
        (Party::Hypervisor, _) => "the hypervisor".into(),
        (Party::Partition(id), Some(manifest)) => manifest.partition_name(id),
        (Party::Partition(id), None) => format!("partition {id}"),
    }
}

/// An incident as a sentence.
#[must_use]
pub fn words(incident: &Incident, manifest: Option<&Manifest>) -> String {
    let (subject, offender) =
        (party(incident.subject, manifest), party(incident.offender, manifest));
    let frame = grouped(incident.frame);
    let place = place(incident.subject, manifest);
    let whom = match place {
        Some(place) => format!("partition {subject} ({})", place.place),
        None => subject.clone(),
    };
    match incident.what {
        What::LateWindow { ticks } => format!(
            "a window of {subject} in frame {frame} began {} ticks late, by the doing of {offender}",
            grouped(ticks)
        ),
        What::MissedWindows { count } => format!(
            "{} windows passed whole from frame {frame} on, by the doing of {offender}",
            grouped(count)
        ),
        What::Violation { violation, rip } => {
            format!("{whom} is stopped: {}", violated(violation, rip, place))
        }
        What::Refusal { denial, detail, rip } => {
            format!("{whom} tried {}", refused(denial, detail, rip))
        }
        What::Restart { number, fault } => {
            let why = if fault { ", by a triple fault" } else { "" };
            format!("{whom} starts again (restart {number}{why})")
        }
        What::Off => format!("{whom} switched itself off"),
        What::EntryFailed { error } => format!(
            "{whom} is stopped: VM entry failed with VM-instruction error {error} (SDM 3D 31.4), a defect of the hypervisor; please report it"
        ),
        What::MachineNmi { count, cpu } => format!(
            "{} non-maskable interrupts of the machine came to cpu{cpu}, where no partition owns them",
            grouped(count)
        ),
        What::Unknown(code) => {
            format!("event {code} of {subject} in frame {frame}, by the doing of {offender}")
        }
    }
}

fn place(of: Party, manifest: Option<&Manifest>) -> Option<&Place> {
    let Party::Partition(id) = of else { return None };
    manifest?.partitions.get(usize::from(id))
}

/// What the guest did, who owns what it touched, and the line of the file that rules it.
fn violated(violation: Violation, rip: u64, place: Option<&Place>) -> String {
    match violation {
        Violation::Memory { address, write, fetch } => {
            let verb = match (write, fetch) {
                (_, true) => "fetched from",
                (true, false) => "wrote to",
                (false, false) => "read",
            };
            let whose = place.map_or_else(String::new, |place| whose(address, place));
            format!("at RIP {rip:#x} it {verb} guest-physical {address:#x}{whose}")
        }
        Violation::TripleFault => format!("triple fault at RIP {rip:#x}"),
        Violation::TaskSwitch => {
            format!("hardware task switch at RIP {rip:#x}, which no partition has")
        }
        Violation::InvalidState => {
            format!("the processor cannot enter its state; RIP {rip:#x}")
        }
        Violation::PaePaging => format!(
            "it turned on legacy PAE paging and changed cache control in one write; RIP {rip:#x}"
        ),
        Violation::Reset => "a reset signal reached its core from outside".into(),
        Violation::MachineCheck => format!("machine check at RIP {rip:#x}"),
        Violation::Unknown(code) => {
            format!("exit reason {code:#x}, which has no action; RIP {rip:#x}")
        }
    }
}

/// Whose the address is, in a partition's own view, and which line says so.
fn whose(address: u64, place: &Place) -> String {
    let holds = |extent: &&Extent| extent.owned && (extent.start..extent.end).contains(&address);
    if let Some(own) = place.memory.iter().find(holds) {
        let line = own.line.as_ref().map_or_else(String::new, |line| format!(" ({line})"));
        return format!(": {}{line}", own.note);
    }
    let Some(nobodys) = place.memory.last() else {
        return ", which nobody gave it".into();
    };
    let line = nobodys.line.as_ref().unwrap_or(&place.place);
    format!(
        ", which nobody gave it; its memory ends at {:#x}; `memory` at {line} grants more",
        nobodys.start
    )
}

fn refused(denial: Denial, detail: u64, rip: u64) -> String {
    let what = match denial {
        Denial::Port => {
            return format!(
                "I/O port {detail:#x}, where it has no device: it reads all ones; more of this kind are counted and not told"
            );
        }
        Denial::Msr => {
            return format!(
                "MSR {detail:#x}, which is not its: #GP; more of this kind are counted and not told"
            );
        }
        Denial::Interrupt => "an interrupt command or a local vector table entry",
        Denial::Memory => "guest-physical memory",
        Denial::Hypercall => "a hypercall",
        Denial::ControlRegister => "a control register's value",
        Denial::Instruction => "an instruction",
    };
    format!("{what} that it may not, at RIP {rip:#x}; more of this kind are counted and not told")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let extent = |start, end, owned, note: &str, line: Option<&str>| Extent {
            start,
            end,
            owned,
            note: note.into(),
            line: line.map(Into::into),
        };
        let place = Place {
            name: "plc".into(),
            place: "demo.toml:23".into(),
            memory: vec![
                extent(0, 0x80_0000, true, "own memory", Some("demo.toml:25")),
                extent(0x80_0000, 0x80_1000, true, "it may only read there", Some("demo.toml:30")),
                extent(0x80_0000, u64::MAX, false, "", Some("demo.toml:25")),
            ],
            ..Place::default()
        };
        Manifest { partitions: vec![place], ..Manifest::default() }
    }

    fn told(what: What) -> String {
        words(&Incident::own(what, 0, 7), Some(&manifest()))
    }

    #[test]
    fn a_violation_names_owner_and_line() {
        let touched = |address, write, fetch| {
            let violation = Violation::Memory { address, write, fetch };
            told(What::Violation { violation, rip: 0x10_0000 })
        };
        assert_eq!(
            touched(0x90_0000, false, false),
            "partition plc (demo.toml:23) is stopped: at RIP 0x100000 it read guest-physical 0x900000, which nobody gave it; its memory ends at 0x800000; `memory` at demo.toml:25 grants more"
        );
        assert_eq!(
            touched(0x80_0008, true, false),
            "partition plc (demo.toml:23) is stopped: at RIP 0x100000 it wrote to guest-physical 0x800008: it may only read there (demo.toml:30)"
        );
        assert!(touched(0x90_0000, false, true).contains("fetched from"));
    }

    #[test]
    fn each_incident_has_words_of_its_own() {
        let whats = [
            What::LateWindow { ticks: 1234 },
            What::MissedWindows { count: 2 },
            What::Violation { violation: Violation::TripleFault, rip: 1 },
            What::Refusal { denial: Denial::Port, detail: 0x64, rip: 1 },
            What::Refusal { denial: Denial::Msr, detail: 0x9B, rip: 1 },
            What::Refusal { denial: Denial::Hypercall, detail: 0, rip: 0x1234 },
            What::Restart { number: 3, fault: true },
            What::Off,
            What::EntryFailed { error: 7 },
            What::Unknown(99),
        ];
        let told: std::collections::BTreeSet<String> = whats.into_iter().map(told).collect();
        assert_eq!(told.len(), whats.len());
        for part in
            ["1,234 ticks late", "port 0x64", "MSR 0x9b", "0x1234", "(restart 3, by a triple"]
        {
            assert!(told.iter().any(|words| words.contains(part)), "{part} is missing");
        }
        let stranger = words(&Incident::own(What::Off, 9, 0), None);
        assert_eq!(stranger, "partition 9 switched itself off");
    }
}
