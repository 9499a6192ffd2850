//! The board on one text screen, for a person with a camera and no serial cable.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::board::Board;
use crate::toml::size_text;

impl Board {
    /// Lines for a screen of 80 columns and 25 rows: the whole board file is longer and goes over the serial port.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut lines = Vec::new();
        lines.push(format!("processor   {}", self.processor));
        lines.push(match &self.clock {
            Some(clock) => format!("TSC         {}, measured {} Hz", clock.text(), clock.measured),
            None => String::from("TSC         could not be measured"),
        });
        lines.push(format!("cores       {}", self.cores_line()));
        let caches = self.caches.iter().map(|cache| {
            format!("L{} {} x{}", cache.level, size_text(cache.size), cache.cores.len())
        });
        lines.push(format!("caches      {}", caches.collect::<Vec<_>>().join(", ")));
        let bytes = self.memory.iter().map(crate::memory::Range::size).sum();
        lines.push(format!("memory      {} in {} ranges", size_text(bytes), self.memory.len()));
        let io_apics = self.io_apics.iter().map(|io_apic| {
            let guess = if io_apic.guessed { "?" } else { "" };
            format!("{:#x} ({}{guess} pins)", io_apic.address, io_apic.pins)
        });
        lines.push(format!("I/O APICs   {}", io_apics.collect::<Vec<_>>().join(", ")));
        lines.push(format!(
            "PCI         {} functions, {} IOMMUs",
            self.pci.len(),
            self.iommus.len()
        ));
        let in_memory =
            self.memory_uart.iter().map(|uart| format!("{:#x} in memory", uart.address));
        let ports = self.uarts.iter().map(|port| format!("{port:#x}")).chain(in_memory);
        lines.push(format!("UARTs       {}", ports.collect::<Vec<_>>().join(", ")));
        let refusals = self.refusals();
        if refusals.is_empty() {
            lines.push(String::from("Bulkhead    can run here, as far as could be read"));
        }
        for refusal in refusals {
            lines.push(format!(
                "Bulkhead    cannot run here: {}. Remedy: {}",
                refusal.why, refusal.remedy
            ));
        }
        lines.extend(self.notes.iter().map(|note| format!("note        {note}")));
        lines.join("\n") + "\n"
    }

    fn cores_line(&self) -> String {
        let distinct = |key: fn(&crate::topology::Core) -> (u32, u32)| {
            let mut seen: Vec<_> = self.cores.iter().map(key).collect();
            seen.sort_unstable();
            seen.dedup();
            seen.len()
        };
        format!(
            "{} logical, {} cores, {} packages; APIC ids {}",
            self.cores.len(),
            distinct(|core| (core.package, core.core)),
            distinct(|core| (core.package, 0)),
            self.cores.iter().map(|core| format!("{}", core.apic_id)).collect::<Vec<_>>().join(" ")
        )
    }
}
