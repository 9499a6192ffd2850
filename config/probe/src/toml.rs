//! The board file.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{Display, Write};

use crate::board::Board;
use crate::memory::HYPERVISOR_START;
use crate::pci::Device;
use crate::power::Found;
use crate::refusals::{self, Refusal};

/// Begins each note in the head of a board file, and each reason for which the compiler refuses it.
const NOTE: &str = "Note: ";
const REFUSED: &str = "Refused ";

/// Longest line of a comment.
const WIDTH: usize = 116;

/// Appends; writing to a string never fails.
macro_rules! put {
    ($out:expr, $($part:tt)*) => {{
        let _never_fails = writeln!($out, $($part)*);
    }};
}

impl Board {
    /// The board file. `how` ends the sentence "Made by `bulkhead probe` ".
    #[must_use]
    pub fn to_toml(&self, how: &str) -> String {
        let mut out = String::new();
        self.head(&mut out, how);
        self.clock_section(&mut out);
        self.hypervisor_section(&mut out);
        self.serial_section(&mut out);
        self.power_section(&mut out);
        self.cores_section(&mut out);
        self.memory_section(&mut out);
        self.abilities_section(&mut out);
        self.timers_section(&mut out);
        self.interrupts_section(&mut out);
        self.devices_section(&mut out);
        self.iommus_section(&mut out);
        out
    }

    fn head(&self, out: &mut String, how: &str) {
        comment(out, &format!("Made by `bulkhead probe` {how}. Processor: {}.", self.processor));
        comment(
            out,
            "Facts were read of the machine. What is a choice says so: look at those, and at the notes, before you use it.",
        );
        for Refusal { code, why, remedy } in self.refusals() {
            comment(out, &format!("{REFUSED}({code}): {why}. Remedy: {remedy}."));
        }
        for note in &self.notes {
            comment(out, &format!("{NOTE}{note}."));
        }
        put!(out, "\n[board]\nname = {}", quoted(&self.name));
    }

    fn clock_section(&self, out: &mut String) {
        put!(out, "\n[clock]");
        let Some(clock) = &self.clock else {
            comment(
                out,
                "The time-stamp counter could not be measured. Write what the kernel or the data sheet says.",
            );
            comment(out, "tsc = \"3 GHz\"");
            return;
        };
        clock.reason.lines().for_each(|line| comment(out, line));
        put!(out, "tsc = {}", quoted(&clock.text()));
        comment(out, "A choice: what a crystal may be off.");
        put!(out, "tolerance = \"0.1 %\"");
        comment(out, "A choice: how far the counters of two cores may be apart.");
        put!(out, "skew = {}", quoted(&clock.duration(100)));
        comment(
            out,
            "A choice: the time kept free before each window. Measure the switch on the machine.",
        );
        put!(out, "switch-budget = {}", quoted(&clock.duration(20_000)));
    }

    fn hypervisor_section(&self, out: &mut String) {
        put!(out, "\n[hypervisor]");
        comment(out, "The size is a choice: it must hold the hypervisor and every guest image.");
        put!(
            out,
            "start = \"{HYPERVISOR_START:#x}\"\nsize = {}",
            quoted(&size_text(refusals::hypervisor_size(self)))
        );
    }

    fn serial_section(&self, out: &mut String) {
        put!(out, "");
        match (self.uarts.split_first(), self.memory_uart) {
            (Some((port, more)), _) => {
                put!(out, "[serial]");
                if !more.is_empty() {
                    let more = list(more, |port| format!("{port:#x}"));
                    comment(out, &format!("16550s answer at {more} too."));
                }
                put!(out, "port = {port:#x}");
            }
            (None, Some(uart)) => {
                put!(out, "[serial]");
                comment(
                    out,
                    "Its registers lie in memory, by what firmware or its PCI class says: nothing was tried on it.",
                );
                put!(out, "address = \"{:#x}\"", uart.address);
                put!(out, "stride = {}\nwidth = {}", uart.stride, uart.width);
            }
            (None, None) => {
                comment(out, "No 16550 was found: there is no section [serial].");
                return;
            }
        }
        comment(out, "A choice.");
        put!(out, "baud = 115200");
    }

    /// Comments only: whoever uses the board decides, and a word that the processor lacks is refused at boot.
    fn power_section(&self, out: &mut String) {
        put!(out, "");
        comment(
            out,
            "A choice: who owns turbo, frequency and idle states. Without a section [power] they stay as firmware leaves them. On a board \
             for real-time work the hypervisor should: a core that changes its clock, or is slow to wake, is late. It refuses at boot, by \
             name, what it finds there that it cannot own.",
        );
        if self.power.iter().any(|found| found.can) {
            comment(
                out,
                "As the machine stood when it was read, it can own this; take the `#` off these lines:",
            );
            put!(out, "# [power]");
        }
        for Found { key, word, why, .. } in self.power.iter().filter(|found| found.can) {
            put!(out, "# {key} = \"{word}\"   # {why}");
        }
        for Found { key, word, why, .. } in self.power.iter().filter(|found| !found.can) {
            comment(out, &format!("Not proposed: `{key} = \"{word}\"`, because {why}."));
        }
    }

    fn cores_section(&self, out: &mut String) {
        put!(out, "");
        comment(out, "The cores, numbered from 0 in this order. Core 0 is the one that boots.");
        for core in &self.cores {
            put!(out, "[[core]]\napic-id = {}", core.apic_id);
            if self.placed {
                put!(out, "package = {}", core.package);
                put!(out, "core = {}\nthread = {}", core.core, core.thread);
            }
        }
        if !self.caches.is_empty() {
            put!(out, "");
            comment(out, "Caches of data, and the cores that share each.");
        }
        for cache in &self.caches {
            let size = quoted(&size_text(cache.size));
            put!(out, "[[cache]]\nlevel = {}\nsize = {size}", cache.level);
            put!(out, "cores = [{}]", list(&cache.cores, usize::to_string));
        }
    }

    fn memory_section(&self, out: &mut String) {
        put!(out, "");
        comment(
            out,
            "Usable RAM from 1 MiB on: below lie firmware data and the page where cores start. What firmware may lay out otherwise at the next \
             boot is left out.",
        );
        for range in &self.memory {
            put!(
                out,
                "[[memory]]\nstart = \"{:#x}\"\nsize = {}",
                range.start,
                quoted(&size_text(range.size()))
            );
        }
        if !self.reserved.is_empty() {
            put!(out, "");
            comment(out, "What firmware keeps for itself; `dma` is where it lets devices reach.");
        }
        for reserved in &self.reserved {
            let size = quoted(&size_text(reserved.range.size()));
            put!(out, "[[reserved]]\nstart = \"{:#x}\"\nsize = {size}", reserved.range.start);
            put!(out, "kind = \"{}\"", reserved.kind);
            if !reserved.devices.is_empty() {
                put!(out, "devices = [{}]", addresses(&reserved.devices));
            }
        }
    }

    fn abilities_section(&self, out: &mut String) {
        let names = |names: &[&str]| list(names, |name| quoted(name));
        put!(out, "\n[abilities]\nprocessor = [{}]", names(&self.abilities));
        match &self.vt_x {
            Some(known) => put!(out, "vt-x = [{}]", names(known)),
            None if self.abilities.contains(&"vt-x") => {
                comment(
                    out,
                    "What VT-x can do could not be read. The hypervisor verifies it at boot.",
                );
            }
            None => {}
        }
        if !self.cache_allocation.is_empty() {
            put!(out, "");
            comment(out, "Caches whose ways can be given to classes of service (Intel RDT).");
        }
        for divided in &self.cache_allocation {
            put!(out, "[[cache-allocation]]\nlevel = {}", divided.level);
            put!(out, "ways = {}\nclasses = {}", divided.ways, divided.classes);
        }
    }

    fn timers_section(&self, out: &mut String) {
        if !self.fadt_read {
            return;
        }
        put!(out, "\n[timers]");
        if let Some(timer) = self.pm_timer {
            put!(out, "pm-timer = {:#x}\npm-timer-bits = {}", timer.port, timer.bits);
        }
        if let Some(hpet) = self.hpet {
            put!(out, "hpet = \"{hpet:#x}\"");
        }
    }

    fn interrupts_section(&self, out: &mut String) {
        if !self.io_apics.is_empty() {
            put!(out, "");
            comment(
                out,
                "I/O APICs, and ISA interrupts that arrive otherwise than by their number.",
            );
        }
        for io_apic in &self.io_apics {
            put!(out, "[[io-apic]]\nid = {}\naddress = \"{:#x}\"", io_apic.id, io_apic.address);
            put!(out, "first-interrupt = {}", io_apic.first_interrupt);
            if io_apic.guessed {
                comment(out, "Could not be read: a guess.");
            }
            put!(out, "pins = {}", io_apic.pins);
        }
        for each in &self.overrides {
            put!(out, "[[override]]\nirq = {}\ninterrupt = {}", each.irq, each.interrupt);
            put!(
                out,
                "trigger = \"{}\"\npolarity = \"{}\"",
                each.trigger.name(),
                each.polarity.name()
            );
        }
    }

    fn devices_section(&self, out: &mut String) {
        if !self.pci.is_empty() {
            put!(out, "");
            comment(
                out,
                "PCI functions. `id` is vendor and device, `class` is class, subclass and interface.",
            );
        }
        self.pci.iter().for_each(|device| pci_function(out, device));
    }

    fn iommus_section(&self, out: &mut String) {
        if !self.iommus.is_empty() {
            put!(out, "");
            comment(
                out,
                "IOMMUs and the functions that each serves; `rest` is what no other one names.",
            );
        }
        for iommu in &self.iommus {
            put!(
                out,
                "[[iommu]]\nregisters = \"{:#x}\"\nsegment = {}",
                iommu.registers,
                iommu.segment
            );
            if iommu.rest {
                put!(out, "rest = true");
            }
            if !iommu.devices.is_empty() {
                put!(out, "devices = [{}]", addresses(&iommu.devices));
            }
        }
    }
}

fn pci_function(out: &mut String, device: &Device) {
    let (vendor, id) = device.id;
    put!(out, "[[pci]]\naddress = \"{}\"\nid = \"{vendor:04x}:{id:04x}\"", device.address);
    put!(out, "class = \"{:06x}\"", device.class);
    if device.msi > 0 {
        put!(out, "msi = {}", device.msi);
    }
    if device.msi_x > 0 {
        put!(out, "msi-x = {}", device.msi_x);
    }
    for bar in &device.bars {
        put!(out, "[[pci.bar]]\nindex = {}\nspace = \"{}\"", bar.index, bar.space.name());
        put!(out, "start = \"{:#x}\"\nsize = {}", bar.start, quoted(&size_text(bar.size)));
    }
}

/// What a board file tells a person before it is used: the reasons for which the compiler refuses it, and the notes.
#[must_use]
pub fn told(board_file: &str) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for line in board_file.lines().map_while(|line| line.strip_prefix("# ")) {
        if line.starts_with(NOTE) || line.starts_with(REFUSED) {
            told.push(line.to_string());
        } else if let Some(begun) = told.last_mut() {
            *begun += " ";
            *begun += line;
        }
    }
    told
}

/// A comment, broken at spaces.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() > 1 && line.len() + 1 + word.len() > WIDTH {
            put!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    put!(out, "{line}");
}

/// A TOML string. What comes from firmware is reduced to printable ASCII before; quotes and backslashes are left out.
fn quoted(text: &str) -> String {
    let plain: String =
        text.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect();
    format!("\"{plain}\"")
}

fn list<T>(items: &[T], shown: impl Fn(&T) -> String) -> String {
    items.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn addresses(devices: &[impl Display]) -> String {
    list(devices, |address| quoted(&address.to_string()))
}

/// A number of bytes in the largest unit that divides it.
pub(crate) fn size_text(bytes: u64) -> String {
    for (name, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{} {name}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}
