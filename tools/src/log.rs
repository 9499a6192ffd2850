//! `bulkhead log`: decodes a serial port, a file or standard input.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hv_core::wire::{HEADER, MAX_PAYLOAD, decode};

use crate::decode::Decoder;
use crate::elf::{LogElf, hex};
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::screen::Screen;
use crate::{interrupt, paths};

/// Most bytes that are looked through for a first packet before the ELF is looked for.
const LOOK_AHEAD: usize = 1 << 20;

/// Bytes of one read.
const PIECE: usize = 4096;

/// How often a quiet port is asked whether the user wants to end.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where a log comes from.
enum Source {
    /// A serial port: never ends by itself.
    Port(Box<dyn serialport::SerialPort>),
    /// A file or standard input.
    Stream(Box<dyn Read>),
}

/// Decodes `source` (standard input without one) to its end, or until the user interrupts.
///
/// # Errors
/// No such source; an ELF of another build; no ELF of the log's build among those built here.
pub fn show(source: Option<&Path>, baud: u32, elf: Option<&Path>) -> Result<()> {
    interrupt::install();
    let mut source = open(source, baud)?;
    let mut first = Vec::new();
    let path = match elf {
        Some(path) => Some(path.to_path_buf()),
        None => find_elf(&mut source, &mut first)?,
    };
    let elf = path.as_deref().map(LogElf::load).transpose()?;
    let manifest = path.as_deref().and_then(manifest_beside);
    if path.is_some() && manifest.is_none() {
        eprintln!(
            "bulkhead: no readable IMAGE.json beside the ELF: partitions are shown by number"
        );
    }
    let screen = Screen::new(manifest.as_ref(), false);
    let mut decoder = Decoder::new(elf.as_ref());
    let mut events = Vec::new();
    decoder.feed(&first, &mut events)?;
    loop {
        events.drain(..).for_each(|event| screen.show(&event));
        let Some(bytes) = source.next()? else { break };
        decoder.feed(&bytes, &mut events)?;
    }
    decoder.finish(&mut events);
    events.iter().for_each(|event| screen.show(event));
    let counts = decoder.counts();
    if counts.garbled + counts.lost > 0 {
        eprintln!(
            "bulkhead: {} runs of bytes were garbled on the line; the hypervisor dropped {} messages",
            counts.garbled, counts.lost
        );
    }
    Ok(())
}

fn open(source: Option<&Path>, baud: u32) -> Result<Source> {
    use std::os::unix::fs::FileTypeExt;
    let Some(path) = source.filter(|path| *path != Path::new("-")) else {
        return Ok(Source::Stream(Box::new(io::stdin())));
    };
    let data = fs::metadata(path).map_err(|cause| Error::file("open", path, &cause))?;
    if !data.file_type().is_char_device() {
        let file = fs::File::open(path).map_err(|cause| Error::file("open", path, &cause))?;
        return Ok(Source::Stream(Box::new(file)));
    }
    let port = serialport::new(path.to_string_lossy(), baud).timeout(PATIENCE).open();
    let port = port.map_err(|cause| {
        Error::refused(
            format!("cannot open the serial port {}", path.display()),
            cause,
            "check the name and your rights (group dialout), and that no other program holds it",
        )
    })?;
    Ok(Source::Port(port))
}

impl Source {
    /// The next bytes; `None` at the end, or when the user interrupts.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut piece = vec![0; PIECE];
        loop {
            if interrupt::requested() {
                return Ok(None);
            }
            let got = match self {
                Self::Port(port) => port.read(&mut piece),
                Self::Stream(stream) => stream.read(&mut piece),
            };
            match got {
                Ok(0) if matches!(self, Self::Stream(_)) => return Ok(None),
                Ok(0) => {}
                Ok(count) => {
                    piece.truncate(count);
                    return Ok(Some(piece));
                }
                Err(cause)
                    if matches!(
                        cause.kind(),
                        io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(cause) => {
                    return Err(Error::failed(
                        "the log broke off",
                        cause,
                        "check the cable and the adapter, and run it again",
                    ));
                }
            }
        }
    }
}

/// Reads until a packet names its build, and looks for that build among the images built here. What was read is
/// kept in `first`. `None` when the source ended without a packet.
fn find_elf(source: &mut Source, first: &mut Vec<u8>) -> Result<Option<PathBuf>> {
    let screen = Screen::new(None, false);
    let mut shown = 0;
    loop {
        if let Some(build) = build_of(first) {
            return elf_of(&build, &known_manifests()).map(Some);
        }
        if first.len() > LOOK_AHEAD {
            first.drain(..first.len() - PIECE);
        }
        let Some(bytes) = source.next()? else {
            return Ok(None);
        };
        first.extend(bytes);
        // A board that refuses says so in plain text and never sends a packet: show that at once.
        shown = show_text(first, shown, &screen);
    }
}

/// Shows whole lines of plain text in front of the first zero, and removes them.
fn show_text(first: &mut Vec<u8>, shown: usize, screen: &Screen) -> usize {
    let zero = first.iter().position(|byte| *byte == 0).unwrap_or(first.len());
    let Some(end) = first[..zero].iter().rposition(|byte| *byte == b'\n') else {
        return shown;
    };
    let mut events = Vec::new();
    let mut decoder = Decoder::new(None);
    // Text alone cannot be of a wrong build.
    if decoder.feed(&first[..=end], &mut events).is_ok() {
        events.iter().for_each(|event| screen.show(event));
        first.drain(..=end);
    }
    shown + end + 1
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
        show_text(&mut first, 0, &Screen::new(None, true));
        assert_eq!(first, b"half");
    }

    #[test]
    fn a_missing_source_is_named() {
        assert!(show(Some(Path::new("/no/such/log")), 115_200, None).is_err());
    }
}
