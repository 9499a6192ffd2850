//! Reads the facts of the machine that runs this, from what Linux shows below /sys, /proc and /dev.
//!
//! Most of it wants root. What cannot be read is a note in the board file, not an error: half a board file is where a
//! person starts from.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::iomem;
use bulkhead_board::abilities::{FEATURE_CONTROL, has_vmx, vmx_registers};
use bulkhead_board::acpi::WANTED;
use bulkhead_board::facts::{Core, Firmware, IoApicPins, MemoryRange, PciFunction, QUERIES, Vmx};
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
    reader.firmware();
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

    /// UEFI shows itself in /sys; where there is nothing to see, nothing is concluded.
    fn firmware(&mut self) {
        let there = |path: &str| self.root.join(path).exists();
        self.facts.firmware = if there("sys/firmware/efi") {
            Some(Firmware::Uefi)
        } else if there("sys/firmware/acpi") || there("sys/firmware/memmap") {
            Some(Firmware::Bios)
        } else {
            None
        };
    }

    /// The firmware's own map where the kernel shows it, else what the kernel made of it.
    fn memory(&mut self) {
        let folder = "sys/firmware/memmap";
        let mut unread = 0;
        for name in self.names(folder) {
            let part = |what: &str| self.text(format!("{folder}/{name}/{what}"));
            let number = |what: &str| hexadecimal(&part(what)?);
            match (number("start"), number("end"), part("type")) {
                (Some(start), Some(end), Some(kind)) if end >= start => {
                    let size = (end - start).saturating_add(1);
                    self.facts.memory.push(MemoryRange {
                        start,
                        size,
                        kind: iomem::kind_of(&kind),
                    });
                }
                _ => unread += 1,
            }
        }
        if unread > 0 {
            self.note(format!("{unread} ranges of /sys/firmware/memmap could not be read"));
        }
        if !self.facts.memory.is_empty() {
            return;
        }
        let map = iomem::read(&self.text("proc/iomem").unwrap_or_default());
        self.facts.memory = map.ranges;
        self.facts.notes.extend(map.notes);
        if self.facts.memory.is_empty() {
            self.note("neither /sys/firmware/memmap nor /proc/iomem could be read; run it as root");
        }
    }

    /// In the order of their names: of several with one signature the kernel numbers them as firmware's root table has them.
    fn tables(&mut self) {
        let folder = "sys/firmware/acpi/tables";
        let mut unread = Vec::new();
        for name in self.names(folder) {
            let wanted = |signature: &&[u8; 4]| name.as_bytes().starts_with(*signature);
            let path = self.root.join(folder).join(&name);
            if !WANTED.iter().any(wanted) || !path.is_file() {
                continue;
            }
            match fs::read(&path) {
                Ok(table) => self.facts.tables.push(table),
                Err(_) => unread.push(name),
            }
        }
        if !unread.is_empty() {
            self.note(format!(
                "the ACPI tables {} could not be read; run it as root",
                unread.join(", ")
            ));
        } else if self.facts.tables.is_empty() {
            self.note("/sys/firmware/acpi/tables could not be read; run it as root");
        }
    }

    fn pci(&mut self) {
        let folder = "sys/bus/pci/devices";
        let (mut short, mut beyond, mut virtual_functions) = (false, Vec::new(), Vec::new());
        for name in self.names(folder) {
            let Some(address) = pci_address(&name) else {
                beyond.push(name);
                continue;
            };
            let mut config = Vec::new();
            let path = self.root.join(format!("{folder}/{name}/config"));
            if let Ok(file) = fs::File::open(path) {
                // What was read before an error is as good as it gets.
                let _short = file.take(CONFIG as u64).read_to_end(&mut config);
            }
            short |= config.len() < CONFIG;
            if self.text(format!("{folder}/{name}/sriov_numvfs")).is_some_and(|count| count != "0")
            {
                virtual_functions.push(name.clone());
            }
            let resources = self.text(format!("{folder}/{name}/resource")).unwrap_or_default();
            let bar_sizes = bar_sizes(&resources);
            self.facts.pci.push(PciFunction { address, config, bar_sizes });
        }
        if short {
            self.note("configuration space beyond 64 bytes could not be read, so MSI is missing; run it as root");
        }
        if !beyond.is_empty() {
            self.note(unnameable(&beyond));
        }
        if !virtual_functions.is_empty() {
            self.note(format!(
                "SR-IOV is on in {}: what its virtual functions decode is missing, since a board file does not describe it; switch it off and probe again",
                virtual_functions.join(", ")
            ));
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

    /// In the kernel's order: which of them is used is concluded from the facts, here as by the probe image.
    fn uarts(&mut self) {
        let mut elsewhere = Vec::new();
        for name in self.names("sys/class/tty").into_iter().filter(|name| name.starts_with("ttyS"))
        {
            let part = |what: &str| self.text(format!("sys/class/tty/{name}/{what}"));
            // Type 0 is a port of the driver's list where nothing answered.
            if part("type").is_none_or(|kind| kind == "0") {
                continue;
            }
            let port = part("port").and_then(|port| hexadecimal(&port)).unwrap_or(0);
            match u16::try_from(port) {
                Ok(port @ 1..) => self.facts.uarts.push(port),
                _ => elsewhere.push(name),
            }
        }
        if !elsewhere.is_empty() {
            self.note(format!("the serial ports {} answer at no I/O port", elsewhere.join(", ")));
        }
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
        self.feature_control();
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

    /// Whether firmware locked VT-x off: on each core by its register, else by what the kernel says of it.
    fn feature_control(&mut self) {
        /// The lock without VT-x: what the kernel's line means.
        const LOCKED_OFF: u64 = 1;
        if !has_vmx(self.facts.cores.first()) {
            return;
        }
        let cores = 0..self.facts.cores.len();
        let read = |core| self.msr_of(core).and_then(|read| read(FEATURE_CONTROL));
        self.facts.feature_control = cores.filter_map(read).collect();
        if !self.facts.feature_control.is_empty() {
            return;
        }
        let said = |line: &String| line.contains("VMX") && line.contains("disabled by BIOS");
        if self.kernel_lines().iter().any(said) {
            self.facts.feature_control.push(LOCKED_OFF);
            return;
        }
        let cpuinfo = self.text("proc/cpuinfo").unwrap_or_default();
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
        let hides = flags.is_some_and(|flags| !flags.split_whitespace().any(|flag| flag == "vmx"));
        self.note(if hides {
            "CPUID shows VT-x and the kernel does not use it: firmware may have locked it off. Look for \"Intel Virtualization Technology\" in the firmware's set-up, or load the driver (modprobe msr) and probe again as root"
        } else {
            "whether firmware locked VT-x off (IA32_FEATURE_CONTROL) could not be read; load the driver (modprobe msr) and run it as root"
        });
    }

    /// Reads registers of the boot core through the `msr` driver, where it is loaded: it answers with an error where there is none of that
    /// number.
    fn msr(&self) -> Option<impl Fn(u32) -> Option<u64> + use<>> {
        self.msr_of(0)
    }

    /// The same of another core.
    fn msr_of(&self, core: usize) -> Option<impl Fn(u32) -> Option<u64> + use<>> {
        let file = fs::File::open(self.root.join(format!("dev/cpu/{core}/msr"))).ok()?;
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

/// `0000:00:1f.2`.
fn pci_address(name: &str) -> Option<(u16, u8, u8, u8)> {
    let (segment, rest) = name.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let small = |text| u8::from_str_radix(text, 16).ok();
    Some((u16::from_str_radix(segment, 16).ok()?, small(bus)?, small(device)?, small(function)?))
}

/// A sentence on functions whose addresses a board file cannot name.
fn unnameable(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = names.get(..SHOWN.min(names.len())).unwrap_or_default().join(", ");
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    format!(
        "{} PCI functions lie in segments above 0xffff ({shown}{more}), as behind a Volume Management Device (Intel VMD). A board file names segments up to 0xffff, so they are left out; switch VMD off in the firmware's set-up to see them where they are",
        names.len()
    )
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
    fn pci_files_are_read() {
        assert_eq!(pci_address("0000:00:1f.2"), Some((0, 0, 0x1F, 2)));
        assert_eq!(pci_address("0000:00:1f"), None);
        let text = "0x00000000fea00000 0x00000000fea1ffff 0x0000000000040200\n0x0 0x0 0x0\n0x0000c000 0x0000c03f 0x40101";
        assert_eq!(bar_sizes(text), [0x2_0000, 0, 0x40, 0, 0, 0]);
    }

    /// A folder that stands for `/`, with these files.
    fn machine(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn notes(facts: &Facts) -> String {
        facts.notes.join("\n")
    }

    /// The order of the kernel's names is not the order of preference: that is concluded in one place for all who probe.
    #[test]
    fn com1_goes_before_a_port_that_is_no_com_port() {
        let root = machine(&[
            ("sys/class/tty/ttyS0/type", b"4"),
            ("sys/class/tty/ttyS0/port", b"0x30A0"),
            ("sys/class/tty/ttyS1/type", b"4"),
            ("sys/class/tty/ttyS1/port", b"0x2F8"),
            ("sys/class/tty/ttyS2/type", b"4"),
            ("sys/class/tty/ttyS2/port", b"0x3F8"),
            ("sys/class/tty/ttyS3/type", b"0"),
            ("sys/class/tty/ttyS3/port", b"0x3E8"),
            ("sys/class/tty/ttyS4/type", b"4"),
            ("sys/class/tty/ttyS4/port", b"0x0"),
        ]);
        let facts = gather(root.path());
        assert_eq!(facts.uarts, [0x30A0, 0x2F8, 0x3F8]);
        assert!(notes(&facts).contains("the serial ports ttyS4 answer at no I/O port"));
        assert_eq!(bulkhead_board::Board::conclude("x", &facts).uarts, [0x3F8, 0x2F8, 0x30A0]);
    }

    #[test]
    fn functions_that_no_board_file_names_are_told() {
        let config = [0x86, 0x80, 0x0B, 0x9A];
        let names = ["0000:00:00.0", "10000:e0:06.0", "10000:e1:00.0"];
        let paths = names.map(|name| format!("sys/bus/pci/devices/{name}/config"));
        let files: Vec<(&str, &[u8])> =
            paths.iter().map(|path| (path.as_str(), config.as_slice())).collect();
        let facts = gather(machine(&files).path());
        assert_eq!(facts.pci.len(), 1);
        let told = notes(&facts);
        assert!(told.contains("2 PCI functions lie in segments above 0xffff"), "{told}");
        assert!(told.contains("10000:e0:06.0") && told.contains("VMD"), "{told}");
    }

    #[test]
    fn tables_keep_the_order_of_the_root_table() {
        let root = machine(&[
            ("sys/firmware/acpi/tables/APIC2", b"APIC first by its bytes"),
            ("sys/firmware/acpi/tables/APIC1", b"APIC second by its bytes"),
            ("sys/firmware/acpi/tables/DSDT", b"DSDT"),
        ]);
        let facts = gather(root.path());
        let texts: Vec<_> =
            facts.tables.iter().map(|table| String::from_utf8_lossy(table)).collect();
        assert_eq!(texts, ["APIC second by its bytes", "APIC first by its bytes"]);
        assert_eq!(facts.firmware, Some(Firmware::Bios));
    }

    #[test]
    fn this_machine_can_be_read() {
        let facts = gather(Path::new("/"));
        assert!(!facts.cores.is_empty());
        assert_eq!(Facts::parse(&facts.to_text()).unwrap(), facts);
    }
}
