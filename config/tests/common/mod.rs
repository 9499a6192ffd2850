//! What the tests share: ELF files made in code, and a folder in which a system is compiled.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test takes what it needs, and stops where it cannot go on"
)]

pub mod scale;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use bulkhead_config::{Compiled, Diagnostics, ImageRequest, Plan, Rule};
use tempfile::TempDir;

/// A segment of an ELF file to be.
#[derive(Clone, Debug)]
pub struct Segment {
    pub kind: u32,
    pub virtual_start: u64,
    pub physical_start: u64,
    pub bytes: Vec<u8>,
    pub memory_size: u64,
    /// 1 execute, 2 write, 4 read.
    pub flags: u32,
}

/// An ELF file to be.
#[derive(Clone, Debug)]
pub struct Elf {
    pub bits: u8,
    pub kind: u16,
    pub machine: u16,
    pub entry: u64,
    pub segments: Vec<Segment>,
}

pub const LOAD: u32 = 1;
pub const DYNAMIC: u32 = 2;
const NOTE: u32 = 4;
const X86_64: u16 = 62;
const I386: u16 = 3;
const ARM64: u16 = 183;
const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;

pub fn segment(at: u64, bytes: &[u8], memory_size: u64) -> Segment {
    Segment {
        kind: LOAD,
        virtual_start: at,
        physical_start: at,
        bytes: bytes.to_vec(),
        memory_size,
        flags: 7,
    }
}

impl Elf {
    /// A guest at 1 MiB: code, a gap, data, and 4 KiB of zeros.
    pub fn good() -> Self {
        Self {
            bits: 64,
            kind: EXECUTABLE,
            machine: X86_64,
            entry: 0x10_0000,
            segments: vec![
                segment(0x10_0000, &[0xF4; 64], 64),
                segment(0x10_1000, b"data", 0x1004),
            ],
        }
    }

    /// The bytes of the file.
    pub fn build(&self) -> Vec<u8> {
        let wide = self.bits == 64;
        let word = |out: &mut Vec<u8>, value: u64| {
            let bytes = value.to_le_bytes();
            out.extend(&bytes[..if wide { 8 } else { 4 }]);
        };
        let (header, entry_size) = if wide { (64_u64, 56_u64) } else { (52, 32) };
        let mut out = vec![0x7F, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1];
        out.resize(16, 0);
        out.extend(self.kind.to_le_bytes());
        out.extend(self.machine.to_le_bytes());
        out.extend(1_u32.to_le_bytes());
        word(&mut out, self.entry);
        word(&mut out, header);
        word(&mut out, 0);
        out.extend(0_u32.to_le_bytes());
        for half in [header, entry_size, self.segments.len() as u64, 0, 0, 0] {
            out.extend((half as u16).to_le_bytes());
        }
        let mut offset = header + entry_size * self.segments.len() as u64;
        for segment in &self.segments {
            out.extend(segment.kind.to_le_bytes());
            if wide {
                out.extend(segment.flags.to_le_bytes());
            }
            word(&mut out, offset);
            word(&mut out, segment.virtual_start);
            word(&mut out, segment.physical_start);
            word(&mut out, segment.bytes.len() as u64);
            word(&mut out, segment.memory_size);
            if !wide {
                out.extend(segment.flags.to_le_bytes());
            }
            word(&mut out, 1);
            offset += segment.bytes.len() as u64;
        }
        for segment in &self.segments {
            out.extend(&segment.bytes);
        }
        out
    }
}

/// A bzImage to be: the fields of its header that tests change.
#[derive(Clone, Debug)]
pub struct Bzimage {
    pub version: u16,
    pub features: u16,
    pub relocatable: u8,
    pub alignment: u32,
    pub preferred: u64,
    pub init_size: u32,
    pub longest_line: u32,
    /// Protected-mode part; its first bytes are given, the rest is zero.
    pub code: usize,
    pub payload: &'static [u8],
}

/// Where the compressed part lies in the protected-mode part.
const PAYLOAD: u32 = 0x400;

impl Bzimage {
    /// A kernel that likes 2 MiB, and needs 4 MiB to start.
    pub const fn good() -> Self {
        Self {
            version: 0x20F,
            features: 1,
            relocatable: 1,
            alignment: 0x20_0000,
            preferred: 0x20_0000,
            init_size: 0x40_0000,
            longest_line: 2047,
            code: 0x1000,
            payload: b"\xFD7zXZ\0kernel",
        }
    }

    /// The bytes of the file.
    pub fn build(&self) -> Vec<u8> {
        let mut out = vec![0; 1024];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1F1, &[1]);
        put(0x1F4, &(self.code as u32 / 16).to_le_bytes());
        put(0x1FE, b"\x55\xAA\xEB\x6AHdrS");
        put(0x206, &self.version.to_le_bytes());
        put(0x211, &[1]);
        put(0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
        put(0x230, &self.alignment.to_le_bytes());
        put(0x234, &[self.relocatable]);
        put(0x236, &self.features.to_le_bytes());
        put(0x238, &self.longest_line.to_le_bytes());
        put(0x248, &PAYLOAD.to_le_bytes());
        put(0x24C, &(self.payload.len() as u32).to_le_bytes());
        put(0x258, &self.preferred.to_le_bytes());
        put(0x260, &self.init_size.to_le_bytes());
        let mut code = vec![0x90; self.code];
        code[PAYLOAD as usize..PAYLOAD as usize + self.payload.len()].copy_from_slice(self.payload);
        out.extend(code);
        out
    }
}

/// Kernels and RAM disks that the tests' systems name, by file name.
fn kernels() -> Vec<(&'static str, Vec<u8>)> {
    let good = Bzimage::good();
    let mut truncated = good.build();
    truncated.truncate(2000);
    let mut sector = vec![0xF4; 512];
    sector[510..].copy_from_slice(b"\x55\xAA");
    vec![
        ("good.bzimage", good.build()),
        ("truncated.bzimage", truncated),
        ("sector.bzimage", sector),
        ("hollow.bzimage", Bzimage { payload: b"", ..good.clone() }.build()),
        ("odd.bzimage", Bzimage { alignment: 0x30_0000, ..good.clone() }.build()),
        ("i386.bzimage", Bzimage { features: 0, ..good.clone() }.build()),
        ("old.bzimage", Bzimage { version: 0x20A, ..good.clone() }.build()),
        ("fixed.bzimage", Bzimage { relocatable: 0, ..good.clone() }.build()),
        ("terse.bzimage", Bzimage { longest_line: 15, ..good }.build()),
        ("good.initrd", b"070701".to_vec()),
        ("empty.initrd", Vec::new()),
        ("three-mib.initrd", vec![7; 3 << 20]),
    ]
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A Multiboot header with these flags, and what follows it.
fn multiboot(flags: u32, behind: &[u32]) -> Vec<u8> {
    let sum = 0_u32.wrapping_sub(0x1BAD_B002 + flags);
    words(&[&[0x1BAD_B002, flags, sum], behind].concat())
}

/// A Multiboot2 header with one tag and the last.
fn multiboot2(kind: u16, content: &[u32]) -> Vec<u8> {
    let tag = [u32::from(kind), 8 + 4 * content.len() as u32];
    let body = words(&[&tag, content, &vec![0; content.len() % 2], &[0, 8]].concat());
    let length = 16 + body.len() as u32;
    [words(&[0xE852_50D6, 0, length, 0_u32.wrapping_sub(0xE852_50D6 + length)]), body].concat()
}

/// Guests that start by other protocols than the hypervisor's own, in forms that Zephyr, NuttX and others come in, and broken ones.
fn protocols() -> Vec<(&'static str, Vec<u8>)> {
    let with = |header: &[u8], change: &dyn Fn(&mut Elf)| {
        let mut elf = Elf::good();
        elf.segments[0].bytes[..header.len()].copy_from_slice(header);
        change(&mut elf);
        elf.build()
    };
    let narrow = |elf: &mut Elf| (elf.bits, elf.machine) = (32, I386);
    let pvh = |address: &[u8]| {
        let mut note = words(&[4, address.len() as u32, 18]);
        note.extend(b"Xen\0");
        note.extend(address);
        let mut elf = Elf::good();
        elf.segments.push(Segment { kind: NOTE, ..segment(0, &note, 0) });
        elf.build()
    };
    let raw = |addresses: &[u32]| {
        let mut file = multiboot(3 | 1 << 16, addresses);
        file.resize(256, 0xF4);
        file
    };
    vec![
        ("multiboot.elf", with(&multiboot(3, &[]), &narrow)),
        ("pvh.elf", pvh(&0x10_0010_u32.to_le_bytes())),
        ("pvh-short.elf", pvh(b"\x10\0\x10")),
        ("pvh-outside.elf", pvh(&0x10_0040_u32.to_le_bytes())),
        ("video.elf", with(&multiboot(7, &[]), &narrow)),
        ("framebuffer.elf", with(&multiboot2(5, &[1024, 768, 32]), &|_| {})),
        ("cut-header.elf", with(&multiboot2(2, &[0x10_0000]), &|_| {})),
        ("no-addresses.bin", multiboot(3, &[0; 5])),
        ("raw.bin", raw(&[0x10_0000, 0x10_0000, 0x10_0100, 0x10_3000, 0x10_0020])),
        ("wrong-addresses.bin", raw(&[0x10_0000, 0x10_0000, 0x10_0101, 0, 0x10_0020])),
        ("entry-outside.bin", raw(&[0x10_0000, 0x10_0000, 0x10_0080, 0, 0x10_0080])),
        (
            "high.elf",
            with(&multiboot(3, &[]), &|elf| {
                elf.segments[1].virtual_start += 1 << 32;
                elf.segments.insert(0, segment(0, &[0xF4; 32], 32));
            }),
        ),
        (
            "two-headers.elf",
            with(&[multiboot2(1, &[15]), multiboot(3, &[])].concat(), &|elf| {
                elf.segments.insert(0, segment(0x1000, &[0xF4; 32], 32));
                elf.entry = 0x1008;
            }),
        ),
    ]
}

/// The images that the tests' systems name, by file name.
pub fn images() -> &'static [(&'static str, Vec<u8>)] {
    static MADE: LazyLock<Vec<(&str, Vec<u8>)>> =
        LazyLock::new(|| [elf_images(), protocols(), kernels()].concat());
    &MADE
}

/// Boards and fragments that the tests' systems name, by their path from the system file. The corpus is written for a switch budget of
/// 20 us, whatever a shipped board needs.
fn surroundings() -> &'static [(PathBuf, String)] {
    static READ: LazyLock<Vec<(PathBuf, String)>> = LazyLock::new(|| {
        let folders = [
            ("tests/reject/boards", "boards"),
            ("../partitions/boards", "boards"),
            ("tests/reject/shared", "shared"),
        ];
        let texts = folders.into_iter().flat_map(|(source, target)| {
            toml_files(source).into_iter().map(move |(path, text)| {
                let text = text.replace("switch-budget = \"25 us\"", "switch-budget = \"20 us\"");
                (Path::new(target).join(path.file_name().unwrap()), text)
            })
        });
        texts.collect()
    });
    &READ
}

fn elf_images() -> Vec<(&'static str, Vec<u8>)> {
    let good = Elf::good();
    let with = |change: &dyn Fn(&mut Elf)| {
        let mut elf = good.clone();
        change(&mut elf);
        elf.build()
    };
    vec![
        ("good.elf", good.build()),
        ("i386.elf", with(&|elf| (elf.bits, elf.machine) = (32, I386))),
        ("arm.elf", with(&|elf| elf.machine = ARM64)),
        ("text.elf", b"#!/bin/sh\necho not an ELF file\n".to_vec()),
        ("pie.elf", with(&|elf| elf.kind = SHARED)),
        ("dynamic.elf", with(&|elf| elf.segments[1].kind = DYNAMIC)),
        ("truncated.elf", {
            let mut bytes = good.build();
            bytes.truncate(200);
            bytes
        }),
        ("hostile.elf", with(&|elf| elf.segments[1].physical_start = u64::MAX - 16)),
        ("overlapping.elf", with(&|elf| elf.segments[1].physical_start = 0x10_0020)),
        ("huge.elf", with(&|elf| elf.segments[1].memory_size = 1 << 40)),
        ("sparse.elf", with(&|elf| elf.segments[1].physical_start = 0x1800_0000)),
        ("no-entry.elf", with(&|elf| elf.entry = 0x10_0040)),
        ("data-entry.elf", with(&|elf| elf.segments[0].flags = 6)),
        ("low.elf", with(&|elf| elf.segments[1].physical_start = 0x1FF0)),
        ("empty.elf", with(&|elf| elf.segments.clear())),
        ("rom.elf", with(&|elf| elf.segments[1].physical_start = 0xE_0800)),
        (
            "tiny.elf",
            with(&|elf| {
                elf.segments = vec![segment(0x8000, &[0xF4; 16], 16)];
                elf.entry = 0x8000;
            }),
        ),
        (
            "three-mib.elf",
            with(&|elf| elf.segments[1] = segment(0x10_1000, &[1; 3 << 20], 3 << 20)),
        ),
    ]
}

/// A folder with boards, images, and a system file.
pub struct Case {
    pub folder: TempDir,
    pub system: PathBuf,
}

impl Case {
    /// The system of this text, beside the boards of the tests and of the project, and the fragments of the tests.
    pub fn new(name: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["boards", "shared"] {
            fs::create_dir_all(folder.path().join(part)).unwrap();
        }
        for (path, text) in surroundings() {
            fs::write(folder.path().join(path), text).unwrap();
        }
        for (name, bytes) in images() {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        fs::create_dir_all(folder.path().join("made")).unwrap();
        fs::write(folder.path().join("made/Makefile"), "# Never run.\n").unwrap();
        fs::create_dir_all(folder.path().join("twofold")).unwrap();
        fs::write(folder.path().join("twofold/Makefile"), "# Never run.\n").unwrap();
        fs::write(folder.path().join("twofold/Cargo.toml"), "# Never built.\n").unwrap();
        fs::create_dir_all(folder.path().join("empty")).unwrap();
        let system = folder.path().join(name);
        fs::write(&system, text).unwrap();
        Self { folder, system }
    }

    /// Compiles, with finished ELF files laid down as `bulkhead build` does it.
    pub fn compile(&self) -> Result<Compiled, Diagnostics> {
        let requests = bulkhead_config::requests(&self.system)?;
        bulkhead_config::compile(&self.system, &self.built(&requests))
    }

    /// What is told of it when this rule is switched off.
    pub fn findings_without(&self, rule: Rule) -> Diagnostics {
        let images = self.folder.path().join("named");
        fs::create_dir_all(&images).unwrap();
        for (file, image) in self.named_images() {
            let image = self.folder.path().join(image);
            let built = images.join(file);
            if image.is_file() {
                fs::copy(image, built).unwrap();
            } else if image.is_dir() {
                fs::write(built, Elf::good().build()).unwrap();
            }
        }
        bulkhead_config::findings_without(rule, &self.system, &images)
    }

    /// What is built and what it is built from, also where the compiler refuses the system.
    fn named_images(&self) -> Vec<(String, String)> {
        let mut named = Vec::new();
        for path in [self.system.clone(), self.folder.path().join("shared/lines.toml")] {
            let text = fs::read_to_string(path).unwrap();
            let (document, _) = toml::de::DeTable::parse_recoverable(&text);
            let partitions = document.get_ref().get("partition");
            let partitions = partitions.and_then(|value| value.get_ref().as_table());
            for (name, section) in partitions.into_iter().flatten() {
                let Some(section) = section.get_ref().as_table() else { continue };
                for (key, ending) in [("image", "elf"), ("kernel", "kernel"), ("initrd", "initrd")]
                {
                    let file = section.get(key).and_then(|file| file.get_ref().as_str());
                    named.extend(
                        file.map(|file| (format!("{}.{ending}", name.get_ref()), file.to_owned())),
                    );
                }
            }
        }
        named
    }

    fn built(&self, requests: &[ImageRequest]) -> PathBuf {
        let images = self.folder.path().join("built");
        fs::create_dir_all(&images).unwrap();
        let there = |request: &&ImageRequest| request.kind.is_finished() && request.path.is_file();
        for request in requests.iter().filter(there) {
            fs::copy(&request.path, images.join(request.file_name())).unwrap();
        }
        images
    }

    /// A message without the name of the temporary folder.
    pub fn neutral(&self, message: &str) -> String {
        message.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

/// The systems that ship and those of `accept`, which all compile: path and text.
pub fn system_texts() -> Vec<(PathBuf, String)> {
    ["tests/accept", "../partitions"].into_iter().flat_map(toml_files).collect()
}

/// The TOML files of a folder of this crate, in order, with their text.
pub fn toml_files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    files.sort();
    files
}

/// The plan of a system of this text, which may name `boards/wide.toml` too.
pub fn plan_of(text: &str) -> Plan {
    let case = Case::new("line.toml", text);
    fs::write(case.folder.path().join("boards/wide.toml"), WIDE_BOARD).unwrap();
    bulkhead_config::check_without_images(&case.system).unwrap_or_else(|error| panic!("{error}"))
}

/// A board with more cores than the page has columns for.
const WIDE_BOARD: &str = include_str!("../seeing/wide.toml");

/// 60 partitions on four cores in windows, and four on cores of their own.
pub fn many_partitions() -> Plan {
    let mut text = String::from(
        "[system]\nname = \"many\"\nboard = \"boards/wide.toml\"\n[schedule]\nframe = \"10 ms\"\n[housekeeping]\ncore = 4\n",
    );
    for index in 0..64 {
        text += &format!("[partition.cell-{index}]\nimage = \"good.elf\"\nmemory = \"2 MiB\"\n");
        if index >= 60 {
            text += &format!("cores = [{}]\n", index - 55);
            continue;
        }
        let (core, start, length) = (index % 4, 20 + index / 4 * 600, 30 + index * 9);
        text += &format!("cores = [{core}]\n[[partition.cell-{index}.window]]\n");
        text += &format!("start = \"{start} us\"\nlength = \"{length} us\"\n");
    }
    plan_of(&text)
}
