//! Reads the facts of the machine that runs this, from what Linux shows below /sys, /proc and /dev.
//!
//! Most of it wants root. What cannot be read is a note in the board file, not an error: half a board file is where a
//! person starts from.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bulkhead_board::abilities::vmx_registers;
use bulkhead_board::acpi::WANTED;
use bulkhead_board::facts::{
    COM, Core, IoApicPins, MemoryKind, MemoryRange, PciFunction, QUERIES, Vmx,
};
use bulkhead_board::{Facts, power};
use rustix::fs::OFlags;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Longest configuration space that is kept: every MSI ability lies in the first 256 bytes.
const CONFIG: usize = 256;

/// Reads everything below `root`: `/`, or a folder that stands for it.
#[must_use]
pub fn gather(root: &Path) -> Facts {
    let mut reader = Reader { root, facts: Facts::default() };
    reader.cores();
    reader.memory();
    reader.tables();
    reader.pci();
    reader.kernel_log();
    reader.uarts();
    reader.vmx();
    reader.power();
    reader.facts
}

struct Reader<'r> {
    root: &'r Path,
    facts: Facts,
}

impl Reader<'_> {
    fn note(&mut self, text: impl Into<String>) {
        self.facts.notes.push(text.into());
    }

    fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read(self.root.join(path)).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_string())
    }

    /// Names in a folder, those with numbers in their order.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        names
    }

    /// Asks each core itself: a processor may have cores of two kinds. CPU 0 is the boot core.
    fn cores(&mut self) {
        let online = self.text("sys/devices/system/cpu/online").unwrap_or_default();
        for cpu in numbers_of(&online) {
            match ask(cpu) {
                Ok(core) => self.facts.cores.push(core),
                Err(cause) => self.note(format!("CPU {cpu} could not be asked: {cause}")),
            }
        }
    }

    /// The firmware's own map where the kernel shows it, else what the kernel made of it.
    fn memory(&mut self) {
        let folder = "sys/firmware/memmap";
        for name in self.names(folder) {
            let part = |what: &str| self.text(format!("{folder}/{name}/{what}"));
            let number = |what: &str| hexadecimal(&part(what)?);
            let (start, end) = (number("start"), number("end"));
            if let (Some(start), Some(end)) = (start, end) {
                let kind = kind_of(&part("type").unwrap_or_default());
                let size = end.saturating_sub(start).saturating_add(1);
                self.facts.memory.push(MemoryRange { start, size, kind });
            }
        }
        if self.facts.memory.is_empty() {
            let map = self.text("proc/iomem").unwrap_or_default();
            self.facts.memory = map.lines().filter_map(iomem_line).collect();
        }
        if self.facts.memory.is_empty() {
            self.note("neither /sys/firmware/memmap nor /proc/iomem could be read; run it as root");
        }
    }

    fn tables(&mut self) {
        let folder = self.root.join("sys/firmware/acpi/tables");
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().is_file()
                && let Ok(table) = fs::read(entry.path())
                && WANTED.iter().any(|signature| table.starts_with(*signature))
            {
                self.facts.tables.push(table);
            }
        }
        if self.facts.tables.is_empty() {
            self.note("/sys/firmware/acpi/tables could not be read; run it as root");
        }
        self.facts.tables.sort();
    }

    fn pci(&mut self) {
        let folder = "sys/bus/pci/devices";
        let mut short = false;
        for name in self.names(folder) {
            let Some(address) = pci_address(&name) else { continue };
            let mut config = Vec::new();
            let path = self.root.join(format!("{folder}/{name}/config"));
            if let Ok(file) = fs::File::open(path) {
                // What was read before an error is as good as it gets.
                let _short = file.take(CONFIG as u64).read_to_end(&mut config);
            }
            short |= config.len() < CONFIG;
            let resources = self.text(format!("{folder}/{name}/resource")).unwrap_or_default();
            let bar_sizes = bar_sizes(&resources);
            self.facts.pci.push(PciFunction { address, config, bar_sizes });
        }
        if short {
            self.note("configuration space beyond 64 bytes could not be read, so MSI is missing; run it as root");
        }
    }

    /// What only the kernel's log tells: pins of the I/O APICs, the measured clock.
    fn kernel_log(&mut self) {
        let log = self.kernel_lines();
        self.facts.io_apics = log.iter().filter_map(|line| io_apic_line(line)).collect();
        self.facts.tsc_hz = tsc_of(&log);
        if self.facts.io_apics.is_empty() {
            self.note("the kernel's log does not tell the pins of the I/O APICs (it may have wrapped, or wants root)");
        }
        if self.facts.tsc_hz.is_none() {
            self.note("the kernel's log does not tell the frequency of the TSC (it may have wrapped, or wants root)");
        }
    }

    fn kernel_lines(&self) -> Vec<String> {
        let mut options = fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            options.read(true),
            OFlags::NONBLOCK.bits() as i32,
        );
        let Ok(mut file) = options.open(self.root.join("dev/kmsg")) else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        // A read gives one record; it fails once there is none (EAGAIN), and on records that were overwritten (EPIPE).
        loop {
            match file.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                    let message = text.split_once(';').map_or("", |(_, message)| message);
                    lines.push(message.lines().next().unwrap_or_default().to_string());
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => {}
                Err(_) => break,
            }
        }
        lines
    }

    fn uarts(&mut self) {
        for name in self.names("sys/class/tty").into_iter().filter(|name| name.starts_with("ttyS"))
        {
            let part = |what: &str| self.text(format!("sys/class/tty/{name}/{what}"));
            // Type 0 is a port of the driver's list where nothing answered.
            let there = part("type").is_some_and(|kind| kind != "0");
            let port = part("port").and_then(|port| hexadecimal(&port));
            if let (true, Some(port)) = (there, port.and_then(|port| u16::try_from(port).ok()))
                && port != 0
            {
                self.facts.uarts.push(port);
            }
        }
        self.facts.uarts.sort_unstable_by_key(|port| COM.iter().position(|com| com == port));
    }

    fn power(&mut self) {
        match self.msr() {
            Some(read) => self.facts.power = power::registers(self.facts.cores.first(), read),
            None => self.note(
                "the registers of turbo, frequency and idle states could not be read; load the driver (modprobe msr) and run it as root",
            ),
        }
    }

    fn vmx(&mut self) {
        let registers = self.msr().map(|read| vmx_registers(self.facts.cores.first(), read));
        let registers = registers.unwrap_or_default();
        if !registers.is_empty() {
            self.facts.vmx = Vmx::Registers(registers);
            return;
        }
        let cpuinfo = self.text("proc/cpuinfo").unwrap_or_default();
        if let Some(flags) = cpuinfo.lines().find_map(|line| line.strip_prefix("vmx flags")) {
            let flags = flags.trim_start_matches([' ', '\t', ':']);
            self.facts.vmx =
                Vmx::LinuxFlags(flags.split_whitespace().map(str::to_string).collect());
        }
    }

    /// Reads registers of the boot core through the `msr` driver, where it is loaded: it answers with an error where there is none of that
    /// number.
    fn msr(&self) -> Option<impl Fn(u32) -> Option<u64> + use<>> {
        let file = fs::File::open(self.root.join("dev/cpu/0/msr")).ok()?;
        Some(move |register: u32| {
            let mut value = [0; 8];
            file.read_exact_at(&mut value, u64::from(register)).ok()?;
            Some(u64::from_le_bytes(value))
        })
    }
}

/// `0-3,8` as numbers.
fn numbers_of(list: &str) -> Vec<usize> {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?)
    };
    list.split(',').filter_map(part).flatten().take(CpuSet::MAX_CPU).collect()
}

/// The leaves of one CPU: this thread goes there, asks, and comes back.
fn ask(cpu: usize) -> Result<Core, rustix::io::Errno> {
    let before = rustix::thread::sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only)?;
    let answers: Vec<_> = QUERIES.iter().map(|(leaf, sub)| cpuid(*leaf, *sub)).collect();
    sched_setaffinity(None, &before)?;
    Ok(Core::from_answers(answers))
}

/// EAX, EBX, ECX and EDX.
fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let found = std::arch::x86_64::__cpuid_count(leaf, sub);
    [found.eax, found.ebx, found.ecx, found.edx]
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

/// The kernel's words for the kinds of memory.
fn kind_of(name: &str) -> MemoryKind {
    match name {
        "System RAM" => MemoryKind::Usable,
        "ACPI Tables" => MemoryKind::AcpiTables,
        "ACPI Non-volatile Storage" => MemoryKind::AcpiStorage,
        "Unusable memory" => MemoryKind::Broken,
        _ => MemoryKind::Reserved,
    }
}

/// A line of /proc/iomem that stands for itself, and not inside another: `00100000-1ffeffff : System RAM`.
fn iomem_line(line: &str) -> Option<MemoryRange> {
    let (place, name) = line.split_once(" : ")?;
    let (start, end) = place.split_once('-')?;
    let known =
        ["System RAM", "Reserved", "ACPI Tables", "ACPI Non-volatile Storage", "Unusable memory"];
    let (start, end) = (hexadecimal(start)?, hexadecimal(end)?);
    (!line.starts_with(' ') && known.contains(&name) && end > start).then_some(MemoryRange {
        start,
        size: end - start + 1,
        kind: kind_of(name),
    })
}

/// `0000:00:1f.2`.
fn pci_address(name: &str) -> Option<(u16, u8, u8, u8)> {
    let (segment, rest) = name.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let small = |text| u8::from_str_radix(text, 16).ok();
    Some((u16::from_str_radix(segment, 16).ok()?, small(bus)?, small(device)?, small(function)?))
}

/// The first six lines of `resource`: start, end and flags of each base address register.
fn bar_sizes(resources: &str) -> [u64; 6] {
    let mut sizes = [0; 6];
    for (size, line) in sizes.iter_mut().zip(resources.lines()) {
        let mut words = line.split_whitespace().filter_map(hexadecimal);
        if let (Some(start), Some(end), Some(flags)) = (words.next(), words.next(), words.next())
            && flags != 0
        {
            *size = end.saturating_sub(start).saturating_add(1);
        }
    }
    sizes
}

/// `IOAPIC[0]: apic_id 0, version 32, address 0xfec00000, GSI 0-23`.
fn io_apic_line(line: &str) -> Option<IoApicPins> {
    let (_, rest) = line.strip_prefix("IOAPIC[")?.split_once("address ")?;
    let (address, interrupts) = rest.split_once(", GSI ")?;
    let (first, last) = interrupts.split_once('-')?;
    let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    Some(IoApicPins {
        address: hexadecimal(address)?,
        pins: last.checked_sub(first)?.checked_add(1)?,
    })
}

/// The kernel's last word on the TSC: `tsc: Refined TSC clocksource calibration: 2999.998 MHz`, else `tsc: Detected`.
fn tsc_of(log: &[String]) -> Option<u64> {
    let megahertz = |line: &str, mark: &str| {
        let (_, rest) = line.split_once(mark)?;
        let (whole, fraction) = rest.trim().split_once(' ')?.0.split_once('.')?;
        let fraction: String = fraction.chars().chain("000000".chars()).take(6).collect();
        Some(whole.parse::<u64>().ok()?.checked_mul(1_000_000)? + fraction.parse::<u64>().ok()?)
    };
    ["tsc: Refined TSC clocksource calibration:", "tsc: Detected"]
        .iter()
        .find_map(|mark| log.iter().rev().find_map(|line| megahertz(line, mark)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lines_are_understood() {
        assert_eq!(
            io_apic_line("IOAPIC[0]: apic_id 0, version 32, address 0xfec00000, GSI 0-23"),
            Some(IoApicPins { address: 0xFEC0_0000, pins: 24 })
        );
        assert_eq!(io_apic_line("IOAPIC[0]: apic_id 0, GSI 24-3"), None);
        let log = [
            "tsc: Detected 3000.000 MHz processor",
            "tsc: Refined TSC clocksource calibration: 2995.2 MHz",
        ];
        assert_eq!(tsc_of(&log.map(String::from)), Some(2_995_200_000));
        assert_eq!(tsc_of(&[String::from(log[0])]), Some(3_000_000_000));
        assert_eq!(tsc_of(&[]), None);
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(numbers_of("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(numbers_of("nonsense"), [0_usize; 0]);
        assert_eq!(numbers_of("0-18446744073709551615").len(), CpuSet::MAX_CPU);
    }

    #[test]
    fn lines_of_iomem_stand_for_themselves() {
        let line = iomem_line("00100000-1ffeffff : System RAM").unwrap();
        assert_eq!(
            (line.start, line.size, line.kind),
            (0x10_0000, 0x1FEF_0000, MemoryKind::Usable)
        );
        assert_eq!(iomem_line("  01000000-01ffffff : Kernel code"), None);
        assert_eq!(
            iomem_line("00000000-00000000 : Reserved"),
            None,
            "what a user sees without rights"
        );
    }

    #[test]
    fn pci_files_are_read() {
        assert_eq!(pci_address("0000:00:1f.2"), Some((0, 0, 0x1F, 2)));
        assert_eq!(pci_address("0000:00:1f"), None);
        let text = "0x00000000fea00000 0x00000000fea1ffff 0x0000000000040200\n0x0 0x0 0x0\n0x0000c000 0x0000c03f 0x40101";
        assert_eq!(bar_sizes(text), [0x2_0000, 0, 0x40, 0, 0, 0]);
    }

    #[test]
    fn this_machine_can_be_read() {
        let facts = gather(Path::new("/"));
        assert!(!facts.cores.is_empty());
        assert_eq!(Facts::parse(&facts.to_text()).unwrap(), facts);
    }
}
