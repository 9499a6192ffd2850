//! Writes the archive that Linux unpacks into its first root file system: cpio in its "newc" form
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The same entries give the same bytes: no times, no owners, numbers in the order of the entries.

/// The types of files, in a mode.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;

/// The name behind which there is nothing more.
const LAST: &str = "TRAILER!!!";

/// An archive that grows.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: Vec<String>,
}

/// What an entry says of itself beside its name and bytes.
struct Kind {
    mode: u32,
    device: (u32, u32),
}

impl Archive {
    /// Adds a folder, and those around it, once.
    pub fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.folders.iter().any(|known| known == path) {
            return;
        }
        if let Some((around, _)) = path.rsplit_once('/') {
            self.folder(around);
        }
        self.folders.push(path.to_string());
        self.entry(path, &Kind { mode: DIRECTORY | 0o755, device: (0, 0) }, &[]);
    }

    /// Adds a file; one that may be executed has `executable`.
    pub fn file(&mut self, path: &str, bytes: &[u8], executable: bool) {
        let mode = FILE | if executable { 0o755 } else { 0o644 };
        self.named(path, &Kind { mode, device: (0, 0) }, bytes);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.named(path, &Kind { mode: LINK | 0o777, device: (0, 0) }, target.as_bytes());
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.named(path, &Kind { mode: DEVICE | 0o600, device: (major, minor) }, &[]);
    }

    fn named(&mut self, path: &str, kind: &Kind, bytes: &[u8]) {
        let path = path.trim_matches('/');
        if let Some((around, _)) = path.rsplit_once('/') {
            self.folder(around);
        }
        self.entry(path, kind, bytes);
    }

    fn entry(&mut self, name: &str, kind: &Kind, bytes: &[u8]) {
        self.entries += 1;
        let fields = [
            self.entries,
            kind.mode,
            0,
            0,
            1,
            0,
            bytes.len() as u32,
            0,
            0,
            kind.device.0,
            kind.device.1,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    /// Names and contents end on a bound of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The bytes of the whole.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(LAST, &Kind { mode: 0, device: (0, 0) }, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of each entry, read back.
    fn entries(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let (mut found, mut at) = (Vec::new(), 0);
        loop {
            let field = |index: usize| {
                let start = at + 6 + 8 * index;
                let text = std::str::from_utf8(&bytes[start..start + 8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            assert_eq!((field(2), field(3), field(5)), (0, 0, 0), "owner, group, time");
            let name_end = at + 110 + field(11) as usize;
            let name = String::from_utf8(bytes[at + 110..name_end - 1].to_vec()).unwrap();
            if name == LAST {
                return found;
            }
            let start = name_end.next_multiple_of(4);
            let end = start + field(6) as usize;
            found.push((name, field(1), bytes[start..end].to_vec()));
            at = end.next_multiple_of(4);
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut archive = Archive::default();
        archive.file("/usr/bin/tool", b"\x7fELF", true);
        archive.file("usr/etc", b"text", false);
        archive.link("sh", "usr/bin/tool");
        archive.device("dev/console", 5, 1);
        let found = entries(&archive.finish());
        let names: Vec<_> = found.iter().map(|entry| (entry.0.as_str(), entry.1)).collect();
        let wanted = [
            ("usr", 0o40755),
            ("usr/bin", 0o40755),
            ("usr/bin/tool", 0o100_755),
            ("usr/etc", 0o100_644),
            ("sh", 0o120_777),
            ("dev", 0o40755),
            ("dev/console", 0o20600),
        ];
        assert_eq!(names, wanted);
        assert_eq!((&found[2].2[..], &found[4].2[..]), (&b"\x7fELF"[..], &b"usr/bin/tool"[..]));
    }

    #[test]
    fn the_same_goes_in_the_same_comes_out() {
        let build = || {
            let mut archive = Archive::default();
            archive.file("init", b"#!/bin/sh\n", true);
            archive.finish()
        };
        assert_eq!(build(), build());
    }
}
