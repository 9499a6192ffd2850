//! Listens to a machine that runs an image: decodes, collects and shows what it says, and knows its last word.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::collect::Collector;
use crate::decode::{Decoder, Event};
use crate::elf::LogElf;
use crate::error::Result;
use crate::manifest::Manifest;
use crate::progress::Step;
use crate::report::{RanOn, Report};
use crate::run::{Exit, Run};
use crate::screen::Screen;
use crate::{code_size, paths};

/// How long the line is quiet before a machine that has said its last word counts as halted.
const QUIET: Duration = Duration::from_secs(1);

/// How the hypervisor starts a sentence that it says before it halts for good.
const REFUSAL: &str = "Bulkhead halts";

/// Who hears of a run besides its report.
#[derive(Clone, Debug, Default)]
pub struct Audience {
    /// Shows no progress and no log.
    pub quiet: bool,
    /// Gets every event as it comes. One that does not listen any more is no error.
    pub watch: Option<Sender<Event>>,
}

impl Audience {
    /// Tells something that the machine did not say itself: to who watches, else on standard error.
    pub fn tell(&self, text: &str) {
        match &self.watch {
            Some(watch) => {
                let _gone = watch.send(Event::Text(format!("bulkhead: {text}")));
            }
            None => eprintln!("bulkhead: {text}"),
        }
    }
}

/// A run as it is heard.
pub struct Listener<'a> {
    decoder: Decoder<'a>,
    collector: Collector<'a>,
    screen: Screen,
    audience: Audience,
    booting: Option<Step>,
    serial: Vec<u8>,
    events: Vec<Event>,
    last_heard: Instant,
    last_word: Option<LastWord>,
    starts: usize,
    /// Greetings and answers to what was typed, for [`Self::news_of_typing`].
    typing: Vec<Event>,
}

/// Behind it nothing follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWord {
    /// The last packet of a run, or a native guest's verdict.
    Orderly,
    /// The hypervisor refused the machine.
    Refusal,
}

impl<'a> Listener<'a> {
    /// For one boot of the image that `manifest` describes; `boot` says what is going on until the hypervisor speaks.
    #[must_use]
    pub fn new(
        manifest: &'a Manifest,
        elf: Option<&'a LogElf>,
        boot: String,
        audience: &Audience,
    ) -> Self {
        Self {
            decoder: Decoder::new(elf),
            collector: Collector::new(manifest),
            screen: Screen::new(Some(manifest), audience.quiet),
            audience: audience.clone(),
            booting: Some(Step::begin(boot, audience.quiet)),
            serial: Vec::new(),
            events: Vec::new(),
            last_heard: Instant::now(),
            last_word: None,
            starts: 0,
            typing: Vec::new(),
        }
    }

    /// Takes what came over the line.
    ///
    /// # Errors
    /// It is of another build than the image's.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.serial.extend(bytes);
        let mut events = Vec::new();
        let fed = self.decoder.feed(bytes, &mut events);
        self.take(events);
        fed
    }

    fn take(&mut self, events: Vec<Event>) {
        for event in events {
            if let Some(step) = self.booting.take_if(|_| is_ours(&event)) {
                step.done();
            }
            self.collector.event(&event);
            self.screen.show(&event);
            self.last_word = self.last_word.or_else(|| self.last_word_in(&event));
            self.starts += usize::from(matches!(event, Event::Hello { .. }));
            if matches!(event, Event::Hello { .. } | Event::Typed(_)) {
                self.typing.push(event.clone());
            }
            if let Some(watch) = &self.audience.watch {
                let _gone = watch.send(event.clone());
            }
            self.events.push(event);
        }
        self.last_heard = Instant::now();
    }

    fn last_word_in(&self, event: &Event) -> Option<LastWord> {
        match event {
            Event::Text(line) if line.starts_with(REFUSAL) => Some(LastWord::Refusal),
            Event::Text(_) if self.collector.native_is_over() => Some(LastWord::Orderly),
            Event::End => Some(LastWord::Orderly),
            _ => None,
        }
    }

    /// Keeps what this partition says as it is, from now on, for [`Self::tapped`].
    pub fn tap(&mut self, partition: u8) {
        self.decoder.tap(partition);
    }

    /// What a tapped partition said since the last call.
    pub fn tapped(&mut self, partition: u8) -> Vec<u8> {
        self.decoder.tapped(partition)
    }

    /// What the hypervisor said about typing since the last call: greetings, and answers to what was typed.
    pub fn news_of_typing(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.typing)
    }

    /// The machine's last word, once it has been quiet behind it.
    #[must_use]
    pub fn ended(&self) -> Option<LastWord> {
        self.last_word.filter(|_| self.quiet_for() >= QUIET)
    }

    /// How long nothing has come.
    #[must_use]
    pub fn quiet_for(&self) -> Duration {
        self.last_heard.elapsed()
    }

    /// Whether firmware and boot loader are through: the hypervisor spoke.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.booting.is_none()
    }

    /// How often the hypervisor has greeted: more than once when the machine started anew by itself.
    #[must_use]
    pub const fn starts(&self) -> usize {
        self.starts
    }

    /// What is wrong with the line, and the remedy; `None` while nothing much is.
    #[must_use]
    pub fn diagnosis(&self) -> Option<String> {
        self.decoder.diagnosis().map(|diagnosis| diagnosis.to_string())
    }

    /// The latest line that was said, for errors.
    #[must_use]
    pub fn latest(&self) -> String {
        let line = self.events.iter().rev().find_map(|event| match event {
            Event::Text(line) | Event::Console { line, .. } => Some(line.clone()),
            Event::Log { message, .. } => Some(message.clone()),
            Event::Diagnosis(diagnosis) => Some(diagnosis.to_string()),
            Event::Incident { incident, .. } => Some(self.screen.incident(incident)),
            _ => None,
        });
        line.unwrap_or_else(|| "nothing".to_string())
    }

    /// The run on that machine is over.
    #[must_use]
    pub fn finish(mut self, exit: Exit, machine: &RanOn) -> Run {
        let mut events = Vec::new();
        self.decoder.finish(&mut events);
        self.take(events);
        self.give_up();
        for defect in self.collector.defects() {
            self.audience.tell(&format!("a report line that does not read as one: {defect}"));
        }
        let report = self.report(machine);
        let words = |event: &Event| match event {
            Event::Incident { incident, .. } => Some(self.screen.incident(incident)),
            _ => None,
        };
        let incidents = self.events.iter().filter_map(words).collect();
        let (serial, events) = (self.serial, self.events);
        Run { exit, report, serial, events, incidents, untyped: Vec::new() }
    }

    /// Ends the progress line of a machine that never spoke.
    pub fn give_up(&mut self) {
        if let Some(step) = self.booting.take() {
            step.clear();
        }
    }

    fn report(&self, machine: &RanOn) -> Report {
        let mut report = self.collector.report(machine, self.decoder.counts());
        report.log.diagnosis = self.diagnosis();
        if let Ok(root) = paths::root() {
            report.lines_of_code = code_size::per_room(&root);
        }
        report
    }
}

/// Whether an event comes from behind the firmware and the boot loader.
fn is_ours(event: &Event) -> bool {
    match event {
        Event::Text(line) => line.starts_with("Bulkhead") || line.starts_with("@bulkhead"),
        Event::Garbled { .. } | Event::Diagnosis(_) => false,
        _ => true,
    }
}
