//! Where a guest on [`Platform::Pc`](crate::Platform::Pc) finds what it starts from: all of it is in its boot information, a page
//! each. That of a Linux lies in low memory, that of every other guest where a PC has its firmware.
//!
//! Addresses are guest-physical.

use crate::PAGE_SIZE;

/// The code that goes from the hypervisor's start state over to the guest's boot protocol, and its segment descriptors.
pub const TRAMPOLINE: u64 = 0x1000;

/// What the protocol hands over; for Linux its `boot_params` (Documentation/arch/x86/zero-page.rst).
pub const PARAMETERS: u64 = 0x2000;

/// The command line, with a zero behind it.
pub const COMMAND_LINE: u64 = 0x3000;

/// The ACPI tables, from the root pointer (RSDP) on. Their page is theirs alone in the guest's memory map.
pub const ACPI: u64 = 0x4000;

/// Page tables that the trampoline builds here: memory of the guest, no bytes of the boot information.
pub const PAGE_TABLES: u64 = ACPI + PAGE_SIZE;

/// Behind the last of them: one of the fourth level, one of the third, and four of the second for 4 GiB.
pub const PAGE_TABLES_END: u64 = PAGE_TABLES + 6 * PAGE_SIZE;

/// Where the boot information of every guest but a Linux begins: so all of low memory is the guest's, and it finds the root pointer of
/// ACPI where it looks for it (from here to 1 MiB: ACPI 6.5, 5.2.5.1).
pub const FIRMWARE: u64 = 0xE_0000;

/// Where such a guest has what lies at `address` for a Linux, from [`TRAMPOLINE`] on.
#[must_use]
pub const fn in_firmware(address: u64) -> u64 {
    FIRMWARE + (address - TRAMPOLINE)
}

/// End of low memory: a kibibyte below 640 KiB, where a PC's firmware keeps its data.
pub const LOW_END: u64 = 0x9_FC00;

/// Where memory goes on behind the hole of video and firmware.
pub const HIGH: u64 = 0x10_0000;

/// End of a guest's RAM below 4 GiB: behind it are the addresses of devices, the local APIC's among them.
pub const RAM_END: u64 = 3 << 30;

/// Where RAM goes on behind them.
pub const HIGH_RAM: u64 = 4 << 30;

/// I/O port of the ACPI sleep control register.
pub const SLEEP_CONTROL: u16 = 0x600;

/// I/O port of the ACPI sleep status register.
pub const SLEEP_STATUS: u16 = 0x601;

/// The `SLP_TYP` of soft-off.
pub const SOFT_OFF: u8 = 5;

/// I/O port of the reset register.
pub const RESET: u16 = 0x604;

/// What is written there to start again.
pub const RESET_VALUE: u8 = 1;

/// First I/O port of the console, a 16550.
pub const CONSOLE: u16 = 0x3F8;

/// First I/O port of the real-time clock.
pub const CLOCK: u16 = 0x70;

/// The page that the guest and the hypervisor share, so that a console needs no exit: the guest writes what it says and reads what was
/// typed as it likes, the hypervisor looks at it in its housekeeping time. The last page where a PC has its firmware, which no memory map
/// calls RAM.
pub const CONSOLE_PAGE: u64 = HIGH - PAGE_SIZE;

/// What stands where in [`CONSOLE_PAGE`]: offsets in bytes; numbers are `u32`, little-endian, and count bytes since the start, wrapping.
pub mod console_page {
    /// The guest writes [`OPEN`] here, last of all, once it uses the page; from then on it gets what is typed here, and nothing at
    /// its serial port.
    pub const STATE: usize = 0;
    /// See [`STATE`].
    pub const OPEN: u32 = u32::from_le_bytes(*b"open");
    /// How many bytes the guest has said. The guest's.
    pub const SAID: usize = 4;
    /// How many of those the hypervisor has taken. The hypervisor's.
    pub const TAKEN: usize = 8;
    /// How many bytes were typed. The hypervisor's.
    pub const TYPED: usize = 12;
    /// How many of those the guest has read. The guest's.
    pub const READ: usize = 16;
    /// The latest bytes that were typed, byte `n` at `n` modulo their number.
    pub const TYPED_BYTES: usize = 1024;
    /// How many.
    pub const TYPED_LENGTH: usize = 1024;
    /// The same of what the guest said.
    pub const SAID_BYTES: usize = 2048;
    /// How many.
    pub const SAID_LENGTH: usize = 2048;
}
