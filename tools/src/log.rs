//! `bulkhead log`: decodes a serial port, a file or standard input.

use std::fs;
use std::path::{Path, PathBuf};

use hv_core::wire::{HEADER, MAX_PAYLOAD, decode};

use crate::decode::{Counts, Decoder, Event};
use crate::diagnose::Diagnosis;
use crate::elf::{LogElf, hex};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::screen::Screen;
use crate::source::{PIECE, Source};
use crate::{interrupt, paths};

/// Most bytes that are looked through for a first packet before the ELF is looked for.
const LOOK_AHEAD: usize = 1 << 20;

/// What is said where an ELF has no description of its image.
pub const NO_IMAGE: &str = "no readable IMAGE.json beside the ELF: partitions are shown by number";

/// Who reads a log.
pub trait Reader {
    /// The description of the image that wrote it was found; comes before the first event of the hypervisor.
    fn image(&mut self, manifest: Manifest);
    /// There is none: partitions have numbers for names.
    fn no_image(&mut self);
    /// It said this.
    fn event(&mut self, event: Event);
}

/// Decodes `source` (standard input without one) to its end, or until the user interrupts.
///
/// # Errors
/// No such source; an ELF of another build; no ELF of the log's build among those built here.
pub fn show(source: Option<&Path>, baud: u32, elf: Option<&Path>) -> Result<()> {
    interrupt::install();
    let mut source = Source::open(source, baud)?;
    let Heard { counts, diagnosis } = read(&mut source, elf, &mut Screen::new(None, false))?;
    if counts.garbled + counts.lost > 0 {
        eprintln!(
            "bulkhead: {} runs of bytes were garbled on the line; the hypervisor dropped {} messages",
            counts.garbled, counts.lost
        );
    }
    judge(diagnosis)
}

/// Fails when nothing, or almost nothing, could be decoded.
///
/// # Errors
/// The cause, and what to do about it.
pub fn judge(diagnosis: Option<Diagnosis>) -> Result<()> {
    match diagnosis.filter(|diagnosis| diagnosis.is_total) {
        None => Ok(()),
        Some(Diagnosis { cause, remedy, .. }) => {
            Err(Error::failed("almost nothing of this log could be decoded", cause, remedy))
        }
    }
}

/// What was heard of a log, besides its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// How much.
    pub counts: Counts,
    /// What is wrong with the line; `None` where nothing much is.
    pub diagnosis: Option<Diagnosis>,
}

impl Reader for Screen {
    fn image(&mut self, manifest: Manifest) {
        self.name_partitions(&manifest);
    }

    fn no_image(&mut self) {
        eprintln!("bulkhead: {NO_IMAGE}");
    }

    fn event(&mut self, event: Event) {
        self.show(&event);
    }
}

/// Reads `source` to its end for `reader`; without `elf`, the build that the log names is looked for among those built here.
///
/// # Errors
/// As [`show`].
pub fn read(source: &mut Source, elf: Option<&Path>, reader: &mut dyn Reader) -> Result<Heard> {
    let mut first = Vec::new();
    let path = match elf {
        Some(path) => Some(path.to_path_buf()),
        None => find_elf(source, &mut first, reader)?,
    };
    let elf = path.as_deref().map(LogElf::load).transpose()?;
    match path.as_deref().map(manifest_beside) {
        Some(Some(manifest)) => reader.image(manifest),
        Some(None) => reader.no_image(),
        None => {}
    }
    let mut decoder = Decoder::new(elf.as_ref());
    let mut events = Vec::new();
    decoder.feed(&first, &mut events)?;
    loop {
        events.drain(..).for_each(|event| reader.event(event));
        let Some(bytes) = source.more()? else { break };
        decoder.feed(&bytes, &mut events)?;
    }
    decoder.finish(&mut events);
    events.into_iter().for_each(|event| reader.event(event));
    Ok(Heard { counts: decoder.counts(), diagnosis: decoder.diagnosis() })
}

/// Reads until a packet names its build, and looks for that build among the images built here. What was read is
/// kept in `first`. `None` when the source ended without a packet.
fn find_elf(
    source: &mut Source,
    first: &mut Vec<u8>,
    reader: &mut dyn Reader,
) -> Result<Option<PathBuf>> {
    let mut is_told = false;
    loop {
        if let Some(build) = build_of(first) {
            return elf_of(&build, &known_manifests()).map(Some);
        }
        if first.len() > LOOK_AHEAD {
            first.drain(..first.len() - PIECE);
        }
        let Some(bytes) = source.more()? else {
            return Ok(None);
        };
        first.extend(bytes);
        // A board that refuses says so in plain text and never sends a packet: show that at once.
        show_text(first, reader);
        // On a line that is read wrong no packet ever comes: say so while it is heard.
        if !is_told && first.len() >= PIECE {
            let diagnosis = diagnose(first);
            is_told = diagnosis.is_some();
            diagnosis.into_iter().for_each(|it| reader.event(Event::Diagnosis(it)));
        }
    }
}

/// What is wrong with a line on which these bytes came.
fn diagnose(bytes: &[u8]) -> Option<Diagnosis> {
    let mut decoder = Decoder::new(None);
    // A packet of another version ends the decoding, and is told when it is decoded in earnest.
    decoder.feed(bytes, &mut Vec::new()).ok()?;
    decoder.finish(&mut Vec::new());
    decoder.diagnosis()
}

/// Shows whole lines of plain text in front of the first zero, and removes them.
fn show_text(first: &mut Vec<u8>, reader: &mut dyn Reader) {
    let zero = first.iter().position(|byte| *byte == 0).unwrap_or(first.len());
    let Some(end) = first[..zero].iter().rposition(|byte| *byte == b'\n') else {
        return;
    };
    let mut events = Vec::new();
    let mut decoder = Decoder::new(None);
    // Text alone cannot be of a wrong build.
    if decoder.feed(&first[..=end], &mut events).is_ok() {
        events.into_iter().for_each(|event| reader.event(event));
        first.drain(..=end);
    }
}

/// The build that the first whole packet among `bytes` names.
fn build_of(bytes: &[u8]) -> Option<[u8; 4]> {
    let mut chunks = bytes.split(|byte| *byte == 0).collect::<Vec<_>>();
    // Behind the last zero a packet may still be on its way.
    chunks.pop();
    chunks.iter().find_map(|chunk| {
        let mut scratch = [0; HEADER + MAX_PAYLOAD + 2];
        decode(chunk, &mut scratch).ok().map(|packet| packet.build)
    })
}

/// Images built here: the path of each ELF, and its build id.
fn known_manifests() -> Vec<(PathBuf, String)> {
    let Ok(folder) = paths::target().map(|target| target.join("bulkhead")) else {
        return vec![];
    };
    let systems = fs::read_dir(folder).into_iter().flatten().flatten();
    systems
        .flat_map(|system| fs::read_dir(system.path()).into_iter().flatten().flatten())
        .filter_map(|entry| {
            let image = entry.path().to_str()?.strip_suffix(".json").map(PathBuf::from)?;
            let manifest = Manifest::load(&image).ok()?;
            Some((Manifest::elf_path(&image), manifest.build_id))
        })
        .collect()
}

fn elf_of(build: &[u8; 4], known: &[(PathBuf, String)]) -> Result<PathBuf> {
    let build = hex(build);
    let found = known.iter().find(|(path, id)| id.starts_with(&build) && path.is_file());
    found.map(|(path, _)| path.clone()).ok_or_else(|| {
        Error::refused(
            "cannot decode this log",
            format!("it was written by build {build}, which is none of those built in this tree"),
            "give --elf IMAGE.elf, the file beside the image that runs there",
        )
    })
}

fn manifest_beside(elf: &Path) -> Option<Manifest> {
    let image = PathBuf::from(elf.to_str()?.strip_suffix(".elf")?);
    Manifest::load(&image).ok()
}

#[cfg(test)]
mod tests {
    use hv_core::wire::{Kind, MAX_ENCODED, Packet, encode};

    use super::*;

    #[test]
    fn the_first_whole_packet_names_the_build() {
        let packet =
            Packet { kind: Kind::End, source: 0, build: [1, 2, 3, 4], tsc: 0, payload: b"" };
        let mut buffer = [0; MAX_ENCODED];
        let mut stream = b"text\n\0garbage".to_vec();
        stream.extend(encode(&packet, &mut buffer).unwrap());
        assert_eq!(build_of(&stream), Some([1, 2, 3, 4]));
        stream.truncate(stream.len() - 1);
        assert_eq!(build_of(&stream), None);
    }

    #[test]
    fn an_unknown_build_is_named() {
        let known = [(PathBuf::from("/no/such.elf"), "01020304ff".to_string())];
        let error = elf_of(&[1, 2, 3, 4], &known).unwrap_err().to_string();
        assert!(error.contains("01020304"), "{error}");
    }

    #[test]
    fn plain_text_is_shown_before_any_packet() {
        let mut first = b"Bulkhead halts: no VT-x\nhalf".to_vec();
        show_text(&mut first, &mut Screen::new(None, true));
        assert_eq!(first, b"half");
    }

    #[test]
    fn a_log_that_does_not_decode_fails_with_a_cause() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wrong-baud.log");
        let noise: Vec<u8> =
            (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(&path, noise).unwrap();
        let error = show(Some(&path), 115_200, None).unwrap_err();
        assert_ne!(error.exit_code(), 0);
        let error = error.to_string();
        assert!(error.contains("baud rate") && error.contains("remedy"), "{error}");
        fs::write(&path, "Bulkhead halts: no VT-x\n").unwrap();
        show(Some(&path), 115_200, None).unwrap();
    }

    #[test]
    fn a_missing_source_is_named() {
        assert!(show(Some(Path::new("/no/such/log")), 115_200, None).is_err());
    }
}
