//! Consoles of a run: who hears and types at which partition, over the one line to the hypervisor, in an emulator or to a board.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::console::{Console, Typed};
use crate::decode::Event;
use crate::error::{Error, Result};
use crate::listen::Listener;
use crate::manifest::Manifest;
use crate::run::RunOptions;
use crate::typed::Link;

/// The consoles of one boot, and the line.
pub struct Talk {
    consoles: Vec<Console>,
    link: Link,
    began: Instant,
}

/// What is to be done behind a look at the consoles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// These bytes go down the line; often none.
    Send(Vec<u8>),
    /// The user leaves.
    Leave,
}

impl Talk {
    /// The consoles that `options` ask for.
    ///
    /// # Errors
    /// There is no such partition; a partition is named twice; the terminal's mode cannot be set.
    pub fn open(options: &RunOptions, manifest: &Manifest) -> Result<Self> {
        let mut consoles = Vec::new();
        if let Some(name) = &options.console {
            consoles.push(Console::open(id_of(name, manifest)?)?);
        }
        consoles.extend(scripted(options, manifest)?);
        Ok(Self { consoles, link: Link::new(nonce()), began: Instant::now() })
    }

    /// The same for another boot: what is typed beforehand is typed from its beginning.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn begin_again(&mut self, options: &RunOptions, manifest: &Manifest) -> Result<()> {
        self.consoles.retain(|console| !console.is_scripted());
        self.consoles.extend(scripted(options, manifest)?);
        self.link = Link::new(nonce());
        Ok(())
    }

    /// Has the listener keep what these consoles say, as it is.
    pub fn tap(&self, listener: &mut Listener<'_>) {
        for console in &self.consoles {
            listener.tap(console.partition());
        }
    }

    /// Hands on what partitions said, and says what goes down the line.
    ///
    /// # Errors
    /// As [`Link::answered`], [`Link::greeted`] and [`Link::poll`].
    pub fn turn(&mut self, listener: &mut Listener<'_>) -> Result<Turn> {
        if self.consoles.is_empty() {
            return Ok(Turn::Send(Vec::new()));
        }
        let now = self.began.elapsed();
        for event in listener.news_of_typing() {
            match event {
                Event::Hello { typed, .. } => self.link.greeted(typed)?,
                Event::Typed(reply) => self.link.answered(&reply, now)?,
                _ => {}
            }
        }
        for console in &mut self.consoles {
            let to = console.partition();
            console.hear(&listener.tapped(to));
            match console.poll(self.link.is_free(to)) {
                Typed::Leave => return Ok(Turn::Leave),
                Typed::Send(bytes) if bytes.is_empty() => {}
                Typed::Send(bytes) => self.link.give(to, &bytes, now),
            }
        }
        self.link.poll(now).map(Turn::Send)
    }

    /// What was to be typed and was not, in sentences.
    #[must_use]
    pub fn untyped(&self, manifest: &Manifest) -> Vec<String> {
        let told = |console: &Console| {
            let id = console.partition();
            let why = if self.link.is_full(id) {
                "its input is full, and it does not read it"
            } else if !self.link.is_free(id) {
                "the run ended before the hypervisor had taken it"
            } else {
                "it showed no prompt, or none that stayed"
            };
            format!("not all was typed to {}: {why}", manifest.partition_name(id.into()))
        };
        let is_left = |console: &&Console| {
            console.waits() || (console.is_scripted() && !self.link.is_free(console.partition()))
        };
        self.consoles.iter().filter(is_left).map(told).collect()
    }
}

/// Consoles at which lines are typed that were given beforehand.
fn scripted(options: &RunOptions, manifest: &Manifest) -> Result<Vec<Console>> {
    let mut consoles = Vec::new();
    let mut names: Vec<&str> = options.typed.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        if options.console.as_deref() == Some(name) {
            return Err(Error::refused(
                format!("cannot type to {name} twice"),
                "its console is open here already",
                "leave out one of --console and --type for it",
            ));
        }
        let to = options.typed.iter().filter(|(to, _)| to == name);
        let lines = to.map(|(_, line)| line.as_str());
        consoles.push(Console::scripted(id_of(name, manifest)?, lines));
    }
    Ok(consoles)
}

/// The id of the partition with this name.
fn id_of(name: &str, manifest: &Manifest) -> Result<u8> {
    let refuse = |cause: &str, remedy: &str| {
        Err(Error::refused(format!("cannot open the console of {name}"), cause, remedy))
    };
    if manifest.native.is_some() {
        return refuse(
            "a guest without the hypervisor has the serial port for itself",
            "leave --console and --type out",
        );
    }
    let found = manifest.partitions.iter().zip(0_u8..).find(|(place, _)| place.name == name);
    let Some((_, id)) = found else {
        let names: Vec<&str> =
            manifest.partitions.iter().map(|place| place.name.as_str()).collect();
        let remedy = format!("name one of: {}", names.join(", "));
        return refuse("the system has no such partition", &remedy);
    };
    Ok(id)
}

/// A number that another sender on the same line does not choose.
fn nonce() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.subsec_nanos()
        ^ (since.as_secs() as u32).rotate_left(16)
        ^ std::process::id().rotate_left(8)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use hv_core::pc::typed::{Delivery, PROTOCOL, Receiver};
    use hv_core::wire::{self, Kind, MAX_ENCODED, Packet};

    use super::*;
    use crate::emulator::line::Line as Terminal;
    use crate::manifest::Place;
    use crate::rig::Serial;
    use crate::rig::line::{Heard, Line};

    fn manifest() -> Manifest {
        let place = |name: &str| Place { name: name.into(), ..Place::default() };
        Manifest { partitions: vec![place("office"), place("line")], ..Manifest::default() }
    }

    fn typed(lines: &[(&str, &str)]) -> RunOptions {
        let typed = lines.iter().map(|(name, line)| ((*name).into(), (*line).into())).collect();
        RunOptions { typed, quiet: true, ..RunOptions::default() }
    }

    fn send(terminal: &mut Terminal, kind: Kind, source: u8, payload: &[u8]) {
        let packet = Packet { kind, source, build: [1; 4], tsc: 1, payload };
        terminal.write(wire::encode(&packet, &mut [0; MAX_ENCODED]).unwrap()).unwrap();
    }

    /// A board behind a line that loses one byte in 37: it greets, and both partitions show a prompt behind each line. Returns what they got.
    fn board(mut terminal: Terminal, over: &AtomicBool) -> [Vec<u8>; 2] {
        let mut greeting = vec![0; 60];
        greeting.push(PROTOCOL);
        send(&mut terminal, Kind::Hello, 0, &greeting);
        let (mut receiver, mut got) = (Receiver::<2>::new(), [vec![], vec![]]);
        let mut prompts = vec![0, 1];
        let mut count = 0;
        while !over.load(Ordering::Relaxed) {
            for partition in prompts.drain(..) {
                send(&mut terminal, Kind::Console, partition, b"\xFF# ");
            }
            for byte in terminal.read().unwrap() {
                count += 1;
                let reply = (count % 37 != 0).then(|| {
                    receiver.take(byte, |to, bytes| {
                        got[usize::from(to)].extend(bytes);
                        prompts.extend(bytes.ends_with(b"\n").then_some(to));
                        Delivery::Taken
                    })
                });
                if let Some(reply) = reply.flatten() {
                    send(&mut terminal, Kind::Typed, 0, &reply.to_bytes());
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        got
    }

    #[test]
    fn lines_are_typed_down_a_serial_line_that_loses_bytes() {
        let terminal = Terminal::open().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let serial = Serial { device: terminal.path().to_path_buf(), baud: 115_200 };
        let mut line = Line::open(&serial, &folder.path().join("log")).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let end = over.clone();
        let board = std::thread::spawn(move || board(terminal, &end));
        let manifest = manifest();
        let options = typed(&[
            ("line", "ls -l /a/path/that/takes/more/than/one/frame"),
            ("office", "uname"),
            ("line", "poweroff"),
        ]);
        let mut talk = Talk::open(&options, &manifest).unwrap();
        let mut listener = Listener::new(&manifest, None, "boot".into(), &options.audience());
        talk.tap(&mut listener);
        let began = Instant::now();
        while !talk.untyped(&manifest).is_empty() && began.elapsed() < Duration::from_secs(60) {
            if let Heard::Bytes(bytes) = line.listen().unwrap() {
                listener.hear(&bytes).unwrap();
            }
            let Turn::Send(bytes) = talk.turn(&mut listener).unwrap() else {
                panic!("nobody left")
            };
            assert_eq!(line.send(&bytes), None);
        }
        over.store(true, Ordering::Relaxed);
        let got = board.join().unwrap();
        assert_eq!(talk.untyped(&manifest), Vec::<String>::new());
        let wanted = ["uname\n", "ls -l /a/path/that/takes/more/than/one/frame\npoweroff\n"];
        assert_eq!(got.map(|bytes| String::from_utf8(bytes).unwrap()), wanted);
    }

    #[test]
    fn what_cannot_be_typed_at_is_refused_by_name() {
        let told = |options: &RunOptions, manifest: &Manifest| match Talk::open(options, manifest) {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        };
        assert!(told(&typed(&[("motion", "x")]), &manifest()).contains("office, line"));
        let native = Manifest { native: Some("line".into()), ..manifest() };
        assert!(told(&typed(&[("line", "x")]), &native).contains("without the hypervisor"));
    }

    #[test]
    fn what_was_not_typed_is_told_with_its_cause() {
        let talk = Talk::open(&typed(&[("office", "x")]), &manifest()).unwrap();
        let told = talk.untyped(&manifest());
        assert_eq!(told, ["not all was typed to office: it showed no prompt, or none that stayed"]);
    }
}
