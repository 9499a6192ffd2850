//! Puts a RAM disk together: busybox, a first program, and given programs with the libraries that they are linked to.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, elf};

use super::archive::Archive;
use crate::error::{Error, Result};
use crate::paths;

/// The first program.
const INIT: &str = include_str!("init");

/// Where libraries lie below a root, in the order in which they are looked for.
const LIBRARY_FOLDERS: [&str; 5] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "usr/lib"];

/// Where they go in the RAM disk, and the folder by which programs name their dynamic linker: one and the same.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
const LINKER_FOLDER: &str = "lib64";

/// A file for the RAM disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub source: PathBuf,
    /// Where it goes.
    pub target: String,
}

impl Wanted {
    /// As a person writes it: `FILE`, which goes to /bin, or `FILE=/where/it/goes`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if let Some((source, target)) = text.split_once('=') {
            return Self { source: source.into(), target: target.to_string() };
        }
        let source = PathBuf::from(text);
        let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { source, target: format!("bin/{name}") }
    }
}

/// The RAM disk with this busybox and these files; libraries are looked for below each of `roots`.
///
/// # Errors
/// A file cannot be read, or a library is nowhere.
pub fn build(busybox: &Path, files: &[Wanted], roots: &[PathBuf]) -> Result<Vec<u8>> {
    with_init(INIT, busybox, files, roots)
}

/// The same with another first program, a script.
///
/// # Errors
/// As [`build`].
pub fn with_init(
    init: &str,
    busybox: &Path,
    files: &[Wanted],
    roots: &[PathBuf],
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp", "etc", "usr/bin"] {
        archive.folder(folder);
    }
    // The kernel gives it to the first program before anything is mounted.
    archive.device("dev/console", 5, 1);
    archive.file("init", init.as_bytes(), true);
    archive.file("bin/busybox", &paths::read(busybox)?, true);
    let mut libraries = Libraries { roots, found: BTreeSet::new() };
    for wanted in files {
        let bytes = paths::read(&wanted.source)?;
        libraries.of(&wanted.source, &bytes)?;
        archive.file(&wanted.target, &bytes, is_executable(&wanted.source, &bytes));
    }
    if !libraries.found.is_empty() {
        archive.link(LINKER_FOLDER, LIBRARIES);
    }
    for library in &libraries.found {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("{LIBRARIES}/{name}"), &paths::read(library)?, true);
    }
    compressed(&archive.finish())
}

/// By gzip, which each kernel of Debian's unpacks: the image is staged, hashed and copied at each start. Without a date, so that the same
/// files give the same bytes.
fn compressed(archive: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed = encoder.write_all(archive).and_then(|()| encoder.finish());
    packed.map_err(|cause| {
        let remedy = "leave files out of the RAM disk";
        Error::failed("cannot compress the RAM disk", cause, remedy)
    })
}

/// An ELF file, a script, or what its owner may execute.
fn is_executable(path: &Path, bytes: &[u8]) -> bool {
    let mode = std::fs::metadata(path).map_or(0, |data| data.permissions().mode());
    bytes.starts_with(b"\x7fELF") || bytes.starts_with(b"#!") || mode & 0o100 != 0
}

/// The libraries of programs, and theirs.
struct Libraries<'r> {
    roots: &'r [PathBuf],
    found: BTreeSet<PathBuf>,
}

impl Libraries<'_> {
    fn of(&mut self, program: &Path, bytes: &[u8]) -> Result<()> {
        for name in needed(bytes) {
            let Some(path) = self.find(&name) else {
                return Err(Error::refused(
                    format!("cannot put {} into the RAM disk", program.display()),
                    format!("it is linked to {name}, which is in none of the folders of libraries"),
                    "install the package with that library, or link the program statically",
                ));
            };
            if self.found.insert(path.clone()) {
                self.of(&path, &paths::read(&path)?)?;
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let name = Path::new(name).file_name()?;
        let folders =
            self.roots.iter().flat_map(|root| LIBRARY_FOLDERS.map(|folder| root.join(folder)));
        folders.map(|folder| folder.join(name)).find(|path| path.is_file())
    }
}

/// Names of the libraries that an ELF file asks for, its dynamic linker first; none for anything else.
fn needed(bytes: &[u8]) -> Vec<String> {
    dynamic_names(bytes).unwrap_or_default()
}

fn dynamic_names(bytes: &[u8]) -> Option<Vec<String>> {
    let header = elf::FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let headers = header.program_headers(endian, bytes).ok()?;
    let mut names = Vec::new();
    for header in headers {
        if let Some(linker) = header.interpreter(endian, bytes).ok()? {
            names.push(String::from_utf8_lossy(linker).into_owned());
        }
    }
    let sections = header.sections(endian, bytes).ok()?;
    let (entries, strings) = sections.dynamic(endian, bytes).ok()??;
    let strings = sections.strings(endian, bytes, strings).ok()?;
    for entry in entries {
        if entry.d_tag(endian) == elf::DT_NEEDED {
            let name = entry.string(endian, strings).ok()?;
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_file_goes_to_bin_unless_it_says_where() {
        let wanted = |text: &str| (Wanted::parse(text).target, Wanted::parse(text).source);
        assert_eq!(wanted("/x/tool"), ("bin/tool".to_string(), "/x/tool".into()));
        assert_eq!(wanted("a.cfg=/etc/b"), ("/etc/b".to_string(), "a.cfg".into()));
    }

    /// This test itself is a program with libraries.
    #[test]
    fn a_program_brings_its_libraries() {
        let own = std::env::current_exe().unwrap();
        let names = needed(&paths::read(&own).unwrap());
        assert!(names.iter().any(|name| name.contains("ld-linux")), "{names:?}");
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
        let wanted = [Wanted::parse(&own.display().to_string())];
        let packed = build(&own, &wanted, &["/".into()]).unwrap();
        assert_eq!(packed, build(&own, &wanted, &["/".into()]).unwrap());
        let mut disk = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut disk).unwrap();
        for part in ["gnu/libc.so.6\0", "gnu/ld-linux-x86-64.so.2\0", "lib64\0", "init\0"] {
            assert!(disk.windows(part.len()).any(|piece| piece == part.as_bytes()), "{part}");
        }
        let lost = build(&own, &wanted, &[]).unwrap_err().to_string();
        assert!(lost.contains("ld-linux"), "{lost}");
    }

    #[test]
    fn what_is_no_program_needs_nothing() {
        assert!(needed(b"#!/bin/sh\n").is_empty() && needed(b"").is_empty());
        assert!(needed(b"\x7fELF\x02\x01\x01").is_empty());
    }
}
