//! The run as a trace file that Perfetto and chrome://tracing open: windows as slices on their core, what went wrong as instants,
//! figures as counters. Written as the events come (Chrome's JSON trace format, its times in microseconds).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::model::Model;
use crate::decode::Event;
use crate::error::{Error, Result};
use crate::incident;
use hv_core::health::{Incident, Party, What};
use hv_core::trace::WindowRecord;
use hv_core::wire::Live;

/// The track group of the cores.
const CORES: u32 = 1;

/// The track group of the partitions' consoles.
const CONSOLES: u32 = 2;

/// A trace file that is being written.
pub struct Trace {
    path: PathBuf,
    file: BufWriter<File>,
    /// Tracks that have their name already.
    named: BTreeSet<(u32, u64)>,
    first: bool,
}

impl Trace {
    /// Begins a file in place of what is there.
    ///
    /// # Errors
    /// The file system says no.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|cause| Error::file("write", path, &cause))?;
        let mut trace = Self {
            path: path.to_path_buf(),
            file: BufWriter::new(file),
            named: BTreeSet::new(),
            first: true,
        };
        trace.write("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
        for (group, name) in [(CORES, "cores"), (CONSOLES, "consoles")] {
            trace.put(
                &json!({"ph": "M", "name": "process_name", "pid": group, "args": {"name": name}}),
            )?;
        }
        Ok(trace)
    }

    /// Takes one event, which `model` knows already.
    ///
    /// # Errors
    /// The file system says no.
    pub fn event(&mut self, event: &Event, model: &Model) -> Result<()> {
        match event {
            Event::Windows { cpu, records } => {
                for record in records {
                    self.window(*cpu, record, model)?;
                }
                Ok(())
            }
            Event::Incident { cpu, tsc, incident } => self.incident(*cpu, *tsc, incident, model),
            Event::Defect { cpu, tsc, words } => {
                self.name(CORES, u64::from(*cpu), &format!("cpu{cpu}"))?;
                self.instant("lost core", words, (CORES, u64::from(*cpu)), *tsc, json!({}), model)
            }
            Event::Live { partition, tsc, live } => self.live(*partition, *tsc, live, model),
            Event::Log { cpu, tsc, message, level, .. } => {
                self.name(CORES, u64::from(*cpu), &format!("cpu{cpu}"))?;
                let args = json!({"level": level});
                self.instant("log", message, (CORES, u64::from(*cpu)), *tsc, args, model)
            }
            Event::Console { partition, tsc, line } => {
                let id = u64::from(*partition);
                self.name(CONSOLES, id, &model.name(u16::from(*partition)))?;
                self.instant("console", line, (CONSOLES, id), *tsc, json!({}), model)
            }
            _ => Ok(()),
        }
    }

    /// Ends the file; `model` says what a tick is.
    ///
    /// # Errors
    /// The file system says no.
    pub fn finish(mut self, model: &Model) -> Result<()> {
        let clock = json!({"tsc_hz": model.tsc_hz, "build": model.build, "table": model.digest});
        self.write(&format!("\n],\"otherData\":{clock}}}\n"))?;
        self.file.flush().map_err(|cause| Error::file("write", &self.path, &cause))
    }

    fn window(&mut self, cpu: u8, record: &WindowRecord, model: &Model) -> Result<()> {
        self.name(CORES, u64::from(cpu), &format!("cpu{cpu}"))?;
        let name = party(record.ran, model);
        let ticks = record.left.saturating_sub(record.entered);
        self.put(&json!({
            "ph": "X",
            "cat": "window",
            "name": name,
            "pid": CORES,
            "tid": cpu,
            "ts": microseconds(record.entered, model),
            "dur": microseconds(ticks, model),
            "args": {
                "frame": record.frame,
                "plan": record.plan,
                "window": record.window,
                "entered": record.entered,
                "left": record.left,
            },
        }))
    }

    fn incident(&mut self, cpu: u8, tsc: u64, incident: &Incident, model: &Model) -> Result<()> {
        self.name(CORES, u64::from(cpu), &format!("cpu{cpu}"))?;
        let words = incident::words(incident, model.manifest.as_ref());
        let (category, args) = match incident.what {
            What::LateWindow { ticks: many }
            | What::MissedWindows { count: many }
            | What::MachineNmi { count: many, .. } => {
                let args = json!({
                    "subject": party(incident.subject, model),
                    "offender": party(incident.offender, model),
                    "frame": incident.frame,
                    "ticks": many,
                });
                ("health", args)
            }
            what => ("log", json!({"level": incident::level(&what)})),
        };
        self.instant(category, &words, (CORES, u64::from(cpu)), tsc, args, model)
    }

    fn live(&mut self, partition: u8, tsc: u64, live: &Live, model: &Model) -> Result<()> {
        let name = model.name(u16::from(partition));
        if live.windows > 0 {
            let args = json!({"run": live.windows, "late": live.late});
            self.counter(&format!("windows of {name}"), tsc, &args, model)?;
        }
        match live.counts {
            Some(counts) => {
                let args = json!({"exits": counts.exits, "denied": counts.denied});
                self.counter(&format!("exits of {name}"), tsc, &args, model)
            }
            None => Ok(()),
        }
    }

    fn counter(&mut self, name: &str, tsc: u64, args: &Value, model: &Model) -> Result<()> {
        let ts = microseconds(tsc, model);
        self.put(&json!({"ph": "C", "name": name, "pid": CORES, "ts": ts, "args": args}))
    }

    fn instant(
        &mut self,
        category: &str,
        name: &str,
        (group, track): (u32, u64),
        tsc: u64,
        args: Value,
        model: &Model,
    ) -> Result<()> {
        let ts = microseconds(tsc, model);
        self.put(&json!({
            "ph": "i", "s": "t", "cat": category, "name": name, "pid": group, "tid": track, "ts": ts, "args": args,
        }))
    }

    /// Names a track, once.
    fn name(&mut self, group: u32, track: u64, name: &str) -> Result<()> {
        if !self.named.insert((group, track)) {
            return Ok(());
        }
        self.put(&json!({"ph": "M", "name": "thread_name", "pid": group, "tid": track, "args": {"name": name}}))
    }

    fn put(&mut self, event: &Value) -> Result<()> {
        let comma = if std::mem::take(&mut self.first) { "" } else { ",\n" };
        self.write(&format!("{comma}{event}"))
    }

    fn write(&mut self, text: &str) -> Result<()> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|cause| Error::file("write", &self.path, &cause))
    }
}

fn party(party: Party, model: &Model) -> String {
    match party {
        Party::Partition(id) => model.name(id),
        Party::Hypervisor => "hypervisor".to_string(),
    }
}

/// Ticks as the format wants them; before the clock's frequency is known, a tick stands as a nanosecond.
fn microseconds(ticks: u64, model: &Model) -> f64 {
    let hz = if model.tsc_hz == 0 { 1_000_000_000 } else { model.tsc_hz };
    ticks as f64 * 1e6 / hz as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::model::tests::model;

    #[test]
    fn each_event_is_there_in_its_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let mut model = model();
        let mut trace = Trace::create(&path).unwrap();
        let record =
            |frame, ran| WindowRecord { frame, entered: 100, left: 150, plan: 0, window: 1, ran };
        let late = Incident {
            what: What::LateWindow { ticks: 9 },
            subject: Party::Partition(0),
            offender: Party::Hypervisor,
            frame: 3,
        };
        let events = [
            Event::Windows {
                cpu: 2,
                records: vec![record(1, Party::Partition(0)), record(2, Party::Hypervisor)],
            },
            Event::Incident { cpu: 2, tsc: 50_000_000, incident: late },
            Event::Console { partition: 0, tsc: 1, line: "a \"line\"".into() },
        ];
        for event in &events {
            model.event(event);
            trace.event(event, &model).unwrap();
        }
        trace.finish(&model).unwrap();
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let of = |phase: &str| -> Vec<Value> {
            let events = file["traceEvents"].as_array().unwrap().iter();
            events.filter(|event| event["ph"] == phase).cloned().collect()
        };
        let windows = of("X");
        assert_eq!(windows.len(), 2);
        assert_eq!(
            (&windows[0]["name"], &windows[1]["name"]),
            (&json!("motion"), &json!("hypervisor"))
        );
        assert_eq!((&windows[0]["ts"], &windows[0]["dur"]), (&json!(2.0), &json!(1.0)));
        let instants = of("i");
        assert_eq!((&instants[0]["ts"], &instants[0]["cat"]), (&json!(1e6), &json!("health")));
        assert!(instants[0]["name"].as_str().unwrap().contains("9 ticks late"));
        assert_eq!(instants[1]["name"], json!("a \"line\""));
        assert_eq!(of("M").len(), 4, "two groups, a core, a console");
        assert_eq!(file["otherData"]["tsc_hz"], json!(50_000_000));
    }
}
