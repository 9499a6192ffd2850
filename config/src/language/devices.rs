//! The part of a board file that describes what stands around the cores: timers, interrupts, devices, abilities.
//! `bulkhead probe` writes it.

use super::{Form, Section, may, must};

/// `[timers]`.
pub const TIMERS: Section = Section {
    header: "[timers]",
    meaning: "Timers of the chipset; the hypervisor measures the TSC against the PM timer.",
    keys: &[
        may("pm-timer", Form::Address, "I/O port of the power-management timer"),
        may("pm-timer-bits", Form::Number, "how far it counts: 24 or 32 bits"),
        may("hpet", Form::Address, "address of the registers of the HPET"),
    ],
    later: &[],
};

/// `[abilities]`.
pub const ABILITIES: Section = Section {
    header: "[abilities]",
    meaning: "What the processor can do. A board that lacks what the hypervisor needs is refused before it boots.",
    keys: &[
        must("processor", Form::Names, "what CPUID tells"),
        may("vt-x", Form::Names, "what the VMX capability registers tell"),
    ],
    later: &[],
};

/// `[[cache-allocation]]`.
pub const CACHE_ALLOCATION: Section = Section {
    header: "[[cache-allocation]]",
    meaning: "A level of caches whose ways can be given to classes of service.",
    keys: &[
        must("level", Form::Number, "2 or 3"),
        must("ways", Form::Number, "parts that can be given"),
        must("classes", Form::Number, "classes of service"),
    ],
    later: &[],
};

/// `[[io-apic]]`.
pub const IO_APIC: Section = Section {
    header: "[[io-apic]]",
    meaning: "An I/O APIC: where interrupt lines arrive.",
    keys: &[
        must("id", Form::Number, "its APIC id"),
        must("address", Form::Address, "address of its registers"),
        must("first-interrupt", Form::Number, "number of the interrupt at its first pin"),
        must("pins", Form::Number, "how many pins it has"),
    ],
    later: &[],
};

/// `[[override]]`.
pub const OVERRIDE: Section = Section {
    header: "[[override]]",
    meaning: "An ISA interrupt that arrives at another pin than its number says, or not edge-triggered and active high.",
    keys: &[
        must("irq", Form::Number, "the ISA interrupt, 0 to 15"),
        must("interrupt", Form::Number, "the interrupt as which it arrives"),
        must("trigger", Form::Name, "`edge` or `level`"),
        must("polarity", Form::Name, "`high` or `low`"),
    ],
    later: &[],
};

/// `[[pci]]`.
pub const PCI: Section = Section {
    header: "[[pci]]",
    meaning: "A PCI function.",
    keys: &[
        must("address", Form::Text, "segment, bus, device and function: `0000:00:1f.2`"),
        must("id", Form::Text, "vendor and device: `8086:2922`"),
        must("class", Form::Text, "class, subclass and interface: `010601`"),
        may("msi", Form::Number, "MSI vectors that it can raise"),
        may("msi-x", Form::Number, "entries of its MSI-X table"),
        may("bar", Form::Tables(&PCI_BAR), "what it decodes, `[[pci.bar]]`"),
    ],
    later: &[],
};

/// `[[pci.bar]]`.
pub const PCI_BAR: Section = Section {
    header: "[[pci.bar]]",
    meaning: "A base address register, as firmware set it.",
    keys: &[
        must("index", Form::Number, "which one, from 0; one of 64 bits takes the next one too"),
        must("space", Form::Name, "`memory` or `ports`"),
        must("start", Form::Address, "first address or port"),
        must("size", Form::Size, "how many bytes or ports; a power of two"),
    ],
    later: &[],
};

/// `[[reserved]]`.
pub const RESERVED: Section = Section {
    header: "[[reserved]]",
    meaning: "Memory that firmware keeps: nothing of the system may lie there.",
    keys: &[
        must("start", Form::Address, "first byte"),
        must("size", Form::Size, "length"),
        must(
            "kind",
            Form::Name,
            "`firmware`, `acpi-tables`, `acpi-storage`, `broken`, or `dma`: devices reach it",
        ),
        may("devices", Form::Functions, "for `dma`: which devices; without it, all"),
    ],
    later: &[],
};

/// `[[iommu]]`.
pub const IOMMU: Section = Section {
    header: "[[iommu]]",
    meaning: "An IOMMU and the PCI functions whose memory accesses go through it.",
    keys: &[
        must("registers", Form::Address, "address of its registers"),
        must("segment", Form::Number, "PCI segment that it serves"),
        may("rest", Form::Flag, "it serves all functions of its segment that no other one names"),
        may(
            "devices",
            Form::Functions,
            "functions that it names; a bridge stands for what is behind it",
        ),
    ],
    later: &[],
};
