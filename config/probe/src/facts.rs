//! What was read of a machine, before anything is concluded from it; and a text form, for bug reports and tests.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;
use core::str::SplitWhitespace;

/// What a CPUID leaf returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// EAX when it was asked.
    pub leaf: u32,
    /// ECX when it was asked.
    pub sub: u32,
    /// EAX, EBX, ECX, EDX.
    pub registers: [u32; 4],
}

/// The CPUID leaves of one core. A leaf that was not asked reads zero, as one that the core lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Core {
    /// Leaves as they were asked.
    pub leaves: Vec<Leaf>,
}

impl Core {
    /// From the answers to [`QUERIES`], in order: EAX, EBX, ECX and EDX of each. A leaf beyond the processor's last one repeats another:
    /// it counts as zero.
    pub fn from_answers(answers: impl IntoIterator<Item = [u32; 4]>) -> Self {
        let leaf = |((leaf, sub), registers): (&(u32, u32), [u32; 4])| Leaf {
            leaf: *leaf,
            sub: *sub,
            registers,
        };
        let mut core = Self { leaves: QUERIES.iter().zip(answers).map(leaf).collect() };
        let [last, last_extended] = [0, EXTENDED].map(|base| core.leaf(base, 0)[0]);
        for leaf in &mut core.leaves {
            if leaf.leaf > if leaf.leaf < EXTENDED { last } else { last_extended } {
                leaf.registers = [0; 4];
            }
        }
        core
    }

    /// EAX, EBX, ECX and EDX of a leaf.
    #[must_use]
    pub fn leaf(&self, leaf: u32, sub: u32) -> [u32; 4] {
        let found = self.leaves.iter().find(|known| known.leaf == leaf && known.sub == sub);
        found.map_or([0; 4], |known| known.registers)
    }
}

/// The first of the extended leaves; it tells the last of them, as leaf 0 tells the last of the others.
const EXTENDED: u32 = 0x8000_0000;

/// COM1 to COM4, in the order in which one would use them; a port that is none of them comes behind them.
pub const COM: [u16; 4] = [0x3F8, 0x2F8, 0x3E8, 0x2E8];

/// Leaves and sub-leaves that are asked of each core.
pub const QUERIES: &[(u32, u32)] = &[
    (0, 0),
    (1, 0),
    (4, 0),
    (4, 1),
    (4, 2),
    (4, 3),
    (4, 4),
    (6, 0),
    (7, 0),
    (0xB, 0),
    (0xB, 1),
    (0xB, 2),
    (0x10, 0),
    (0x10, 1),
    (0x10, 2),
    (0x15, 0),
    (0x16, 0),
    (0x1F, 0),
    (0x1F, 1),
    (0x1F, 2),
    (0x1F, 3),
    (0x1F, 4),
    (0x1F, 5),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0002, 0),
    (0x8000_0003, 0),
    (0x8000_0004, 0),
    (0x8000_0007, 0),
    (0x8000_0008, 0),
    (0x8000_000A, 0),
    (0x8000_001D, 0),
    (0x8000_001D, 1),
    (0x8000_001D, 2),
    (0x8000_001D, 3),
    (0x8000_001D, 4),
    (0x8000_001E, 0),
];

/// What firmware says of a memory range. ACPI 15, table 15.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryKind {
    /// RAM for everybody.
    Usable,
    /// Neither RAM for the system nor free for devices.
    Reserved,
    /// ACPI tables; RAM once they were read, which an operating system never quite knows.
    AcpiTables,
    /// Firmware's own across sleep.
    AcpiStorage,
    /// RAM with defects.
    Broken,
    /// RAM that UEFI's boot services used: free once they ended, and laid out anew at each boot. UEFI 2.10, 7.2.
    BootServices,
}

impl MemoryKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Usable,
        Self::Reserved,
        Self::AcpiTables,
        Self::AcpiStorage,
        Self::Broken,
        Self::BootServices,
    ];

    /// Whether it is RAM for everybody once firmware handed over.
    #[must_use]
    pub const fn is_ram(self) -> bool {
        matches!(self, Self::Usable | Self::BootServices)
    }

    /// Whether a board file lists it as reserved, under its name.
    #[must_use]
    pub const fn is_firmwares(self) -> bool {
        !self.is_ram()
    }

    /// As facts name it, and the board file where it lists it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Reserved => "firmware",
            Self::AcpiTables => "acpi-tables",
            Self::AcpiStorage => "acpi-storage",
            Self::Broken => "broken",
            Self::BootServices => "boot-services",
        }
    }
}

/// The kind of firmware that booted the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// A BIOS, or UEFI that plays one.
    Bios,
    /// UEFI.
    Uefi,
}

impl Firmware {
    const ALL: [Self; 2] = [Self::Bios, Self::Uefi];

    /// As facts name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

/// A range of the firmware's memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// A PCI function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciFunction {
    /// Segment, bus, device, function.
    pub address: (u16, u8, u8, u8),
    /// Configuration space from its first byte on: 256 bytes, or 64 where no more could be read.
    pub config: Vec<u8>,
    /// Bytes that each base address register decodes; 0 where it decodes none.
    pub bar_sizes: [u64; 6],
}

/// An I/O APIC's number of pins, which only its own register tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicPins {
    /// Address of its registers.
    pub address: u64,
    /// Pins.
    pub pins: u32,
}

/// What was read of VT-x.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Vmx {
    /// Nothing could be read.
    #[default]
    Unknown,
    /// Capability registers from 0x480 on that could be read, as (register, value).
    Registers(Vec<(u32, u64)>),
    /// The names that Linux gives in /proc/cpuinfo, line `vmx flags`.
    LinuxFlags(Vec<String>),
}

/// Everything that was read of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The cores that answered, the boot core first.
    pub cores: Vec<Core>,
    /// What firmware booted it; `None` where that could not be read.
    pub firmware: Option<Firmware>,
    /// The firmware's memory map, in its own order.
    pub memory: Vec<MemoryRange>,
    /// ACPI tables, each whole with its header, in the order of firmware's root table.
    pub tables: Vec<Vec<u8>>,
    /// PCI functions.
    pub pci: Vec<PciFunction>,
    /// Pins of the I/O APICs.
    pub io_apics: Vec<IoApicPins>,
    /// First I/O ports of the 16550s that answered.
    pub uarts: Vec<u16>,
    /// The time-stamp counter as it was measured, in hertz.
    pub tsc_hz: Option<u64>,
    /// VT-x.
    pub vmx: Vmx,
    /// IA32_FEATURE_CONTROL of the cores that have it: whether firmware locked VT-x off. SDM 3C 24.7.
    pub feature_control: Vec<u64>,
    /// The boot core's registers of frequency, turbo and idle states that could be read, as (register, value).
    pub power: Vec<(u32, u64)>,
    /// What could not be read and why, in words.
    pub notes: Vec<String>,
}

/// Why a text is not facts: the number of the line, from 1, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    /// What was wanted.
    pub wanted: &'static str,
}

impl core::fmt::Display for BadLine {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "line {}: {} is wanted", self.line, self.wanted)
    }
}

impl core::error::Error for BadLine {}

impl Facts {
    /// The text form: a line for each fact, a word first that says of what kind, then numbers in hexadecimal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out =
            String::from("# Raw facts of a machine, as `bulkhead probe --facts` reads them.\n");
        // Writing to a string never fails.
        let _never_fails = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> core::fmt::Result {
        for (number, core) in self.cores.iter().enumerate() {
            writeln!(out, "core {number:x}")?;
            for Leaf { leaf, sub, registers: [a, b, c, d] } in &core.leaves {
                writeln!(out, "leaf {leaf:x} {sub:x} {a:x} {b:x} {c:x} {d:x}")?;
            }
        }
        if let Some(firmware) = self.firmware {
            writeln!(out, "firmware {}", firmware.name())?;
        }
        for MemoryRange { start, size, kind } in &self.memory {
            writeln!(out, "memory {start:x} {size:x} {}", kind.name())?;
        }
        for table in &self.tables {
            writeln!(out, "table {}", hex(table))?;
        }
        for PciFunction { address: (segment, bus, device, function), config, bar_sizes } in
            &self.pci
        {
            writeln!(out, "pci {segment:x} {bus:x} {device:x} {function:x} {}", hex(config))?;
            let [a, b, c, d, e, f] = bar_sizes;
            writeln!(out, "bars {a:x} {b:x} {c:x} {d:x} {e:x} {f:x}")?;
        }
        for IoApicPins { address, pins } in &self.io_apics {
            writeln!(out, "io-apic {address:x} {pins:x}")?;
        }
        for port in &self.uarts {
            writeln!(out, "uart {port:x}")?;
        }
        if let Some(hz) = self.tsc_hz {
            writeln!(out, "tsc {hz:x}")?;
        }
        match &self.vmx {
            Vmx::Unknown => {}
            Vmx::Registers(registers) => {
                writeln!(out, "vmx-registers")?;
                for (register, value) in registers {
                    writeln!(out, "vmx {register:x} {value:x}")?;
                }
            }
            Vmx::LinuxFlags(flags) => writeln!(out, "vmx-flags {}", flags.join(" "))?,
        }
        for value in &self.feature_control {
            writeln!(out, "feature-control {value:x}")?;
        }
        for (register, value) in &self.power {
            writeln!(out, "power {register:x} {value:x}")?;
        }
        for note in &self.notes {
            writeln!(out, "note {}", note.replace('\n', " "))?;
        }
        Ok(())
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// The first line that is none of it.
    pub fn parse(text: &str) -> Result<Self, BadLine> {
        let mut facts = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            facts.parse_line(line).map_err(|wanted| BadLine { line: number + 1, wanted })?;
        }
        Ok(facts)
    }

    fn parse_line(&mut self, line: &str) -> Result<(), &'static str> {
        let mut words = line.split_whitespace();
        match words.next().unwrap_or_default() {
            "core" => self.cores.push(Core::default()),
            "leaf" => self.parse_leaf(&mut words)?,
            "firmware" => {
                let name = words.next().unwrap_or_default();
                let known = Firmware::ALL.into_iter().find(|firmware| firmware.name() == name);
                self.firmware = Some(known.ok_or("`bios` or `uefi`")?);
            }
            "memory" => self.parse_memory(&mut words)?,
            "table" => self.tables.push(parse_hex(words.next())?),
            "pci" => self.parse_pci(&mut words)?,
            "bars" => {
                let sizes = numbers(&mut words)?;
                self.pci.last_mut().ok_or("a line `pci` before it")?.bar_sizes = sizes;
            }
            "io-apic" => {
                let [address, pins] = numbers(&mut words)?;
                let pins = u32::try_from(pins).map_err(|_| "a number of pins")?;
                self.io_apics.push(IoApicPins { address, pins });
            }
            "uart" => self.uarts.push(number(&mut words)?.try_into().map_err(|_| "a port")?),
            "tsc" => self.tsc_hz = Some(number(&mut words)?),
            "vmx-registers" => self.vmx = Vmx::Registers(Vec::new()),
            "vmx" => self.parse_vmx(&mut words)?,
            "vmx-flags" => self.vmx = Vmx::LinuxFlags(words.map(ToString::to_string).collect()),
            "feature-control" => self.feature_control.push(number(&mut words)?),
            "power" => self.power.push(register(&mut words)?),
            "note" => self.notes.push(line.strip_prefix("note").unwrap_or_default().trim().into()),
            _ => return Err("a word that says what fact the line is"),
        }
        Ok(())
    }

    fn parse_leaf(&mut self, words: &mut SplitWhitespace<'_>) -> Result<(), &'static str> {
        let parts: [u64; 6] = numbers(words)?;
        let mut small = [0_u32; 6];
        for (small, part) in small.iter_mut().zip(parts) {
            *small = u32::try_from(part).map_err(|_| "a number of 32 bits")?;
        }
        let [leaf, sub, registers @ ..] = small;
        let core = self.cores.last_mut().ok_or("a line `core` before it")?;
        core.leaves.push(Leaf { leaf, sub, registers });
        Ok(())
    }

    fn parse_memory(&mut self, words: &mut SplitWhitespace<'_>) -> Result<(), &'static str> {
        let [start, size] = numbers(words)?;
        let name = words.next().unwrap_or_default();
        let kind = MemoryKind::ALL.into_iter().find(|kind| kind.name() == name);
        self.memory.push(MemoryRange { start, size, kind: kind.ok_or("a kind of memory")? });
        Ok(())
    }

    fn parse_pci(&mut self, words: &mut SplitWhitespace<'_>) -> Result<(), &'static str> {
        const WANTED: &str = "segment, bus, device and function";
        let [segment, bus, device, function] = numbers(words)?;
        let segment = u16::try_from(segment).map_err(|_| WANTED)?;
        let small = |part: u64| u8::try_from(part).map_err(|_| WANTED);
        self.pci.push(PciFunction {
            address: (segment, small(bus)?, small(device)?, small(function)?),
            config: parse_hex(words.next())?,
            bar_sizes: [0; 6],
        });
        Ok(())
    }

    fn parse_vmx(&mut self, words: &mut SplitWhitespace<'_>) -> Result<(), &'static str> {
        let read = register(words)?;
        let Vmx::Registers(registers) = &mut self.vmx else {
            return Err("a line `vmx-registers` before it");
        };
        registers.push(read);
        Ok(())
    }
}

fn number(words: &mut SplitWhitespace<'_>) -> Result<u64, &'static str> {
    let word = words.next().unwrap_or_default();
    u64::from_str_radix(word, 16).map_err(|_| "a hexadecimal number")
}

fn numbers<const N: usize>(words: &mut SplitWhitespace<'_>) -> Result<[u64; N], &'static str> {
    let mut parts = [0; N];
    for part in &mut parts {
        *part = number(words)?;
    }
    Ok(parts)
}

/// A model-specific register and its value.
fn register(words: &mut SplitWhitespace<'_>) -> Result<(u32, u64), &'static str> {
    let [register, value] = numbers(words)?;
    Ok((u32::try_from(register).map_err(|_| "a number of 32 bits")?, value))
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes {
        let _never_fails = write!(out, "{byte:02x}");
    }
    out
}

fn parse_hex(word: Option<&str>) -> Result<Vec<u8>, &'static str> {
    const WANTED: &str = "bytes of two hexadecimal digits each";
    let digits = word.unwrap_or_default().as_bytes();
    let pair = |pair: &[u8]| {
        let text = core::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
        u8::from_str_radix(text, 16).ok()
    };
    digits.chunks(2).map(|digits| pair(digits).ok_or(WANTED)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A processor whose last leaves are 7 and 0x8000_0001 repeats another behind them, as real ones do.
    #[test]
    fn leaves_beyond_the_last_one_are_zero() {
        let answer = |(leaf, _): &(u32, u32)| match leaf {
            0 => [7, 1, 2, 3],
            0x8000_0000 => [0x8000_0001, 0, 0, 0],
            _ => [9; 4],
        };
        let core = Core::from_answers(QUERIES.iter().map(answer));
        assert_eq!(core.leaf(0, 0), [7, 1, 2, 3]);
        for (leaf, sub) in [(7, 0), (0x8000_0001, 0)] {
            assert_eq!(core.leaf(leaf, sub), [9; 4], "{leaf:#x}");
        }
        for (leaf, sub) in [(0xB, 1), (0x1F, 0), (0x8000_0002, 0), (0x8000_001E, 0)] {
            assert_eq!(core.leaf(leaf, sub), [0; 4], "{leaf:#x}");
        }
    }
}
