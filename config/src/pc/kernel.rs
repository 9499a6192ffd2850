//! Reads a Linux kernel in the form in which distributions ship it, the bzImage: boot protocol 2.12 and later
//! (Documentation/arch/x86/boot.rst).
//!
//! The file may come from anywhere and say anything: each figure in it is checked before it is used.

use crate::image::Refusal;
use crate::rules::Rule;

/// Oldest boot protocol that says whether there is a 64-bit entry: 2.12, of Linux 3.8.
const OLDEST: u16 = 0x020C;

/// Bytes of a sector, in which the setup part is counted, and of a paragraph, in which the rest is.
const SECTOR: usize = 512;
const PARAGRAPH: usize = 16;
/// Sectors of the setup part where the header says zero.
const OLD_SECTORS: u8 = 4;

/// The setup header: where it begins, and what lies where in the file and in `boot_params` alike.
pub(crate) const HEADER: usize = 0x1F1;
const SETUP_SECTORS: usize = HEADER;
const SIZE: usize = 0x1F4;
const BOOT_FLAG: usize = 0x1FE;
const HEADER_LENGTH: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const LOAD_FLAGS: usize = 0x211;
const RAMDISK_MAX: usize = 0x22C;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE: usize = 0x234;
const FEATURES: usize = 0x236;
const COMMAND_LINE_SIZE: usize = 0x238;
const PAYLOAD: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24C;
const PREFERRED: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// The header ends behind `init_size` at least, and in front of what follows it in `boot_params`.
const SHORTEST_HEADER: usize = INIT_SIZE + 4;
pub(crate) const LONGEST_HEADER: usize = 0x290;

/// LOADED_HIGH: the protected-mode part goes to 1 MiB or above. XLF_KERNEL_64: there is a 64-bit entry at 0x200.
const LOADED_HIGH: u8 = 1;
const KERNEL_64: u16 = 1;
/// Where the 64-bit entry lies in the protected-mode part.
pub(crate) const ENTRY_64: u64 = 0x200;

/// Smallest and largest sensible alignment: a page, 1 GiB.
const ALIGNMENTS: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// A kernel that can be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel<'d> {
    /// The setup header, from [`HEADER`] on.
    pub header: &'d [u8],
    /// The protected-mode part, whole.
    pub code: &'d [u8],
    /// Where it likes to lie.
    pub preferred: u64,
    /// On which bound it must lie.
    pub alignment: u64,
    /// Whether it may lie elsewhere than at `preferred`.
    pub relocatable: bool,
    /// Bytes from its start that it needs before it knows its memory.
    pub init_size: u64,
    /// Longest command line, without the zero behind it.
    pub longest_command_line: u64,
    /// Last address that a RAM disk may take.
    pub ramdisk_max: u64,
}

fn half(file: &[u8], at: usize) -> Option<u16> {
    file.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn long(file: &[u8], at: usize) -> Option<u32> {
    file.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn word(file: &[u8], at: usize) -> Option<u64> {
    file.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

fn broken(message: impl Into<String>) -> Refusal {
    Refusal::new(
        Rule::KernelBroken,
        message,
        "copy or unpack the kernel again; `file` shows what it is",
    )
}

/// The kernel in the bytes of a file.
pub(crate) fn read(file: &[u8]) -> Result<Kernel<'_>, Refusal> {
    recognised(file)?;
    able(file)?;
    let cut = || broken("the kernel ends in the middle of its setup header");
    let end = MAGIC + usize::from(*file.get(HEADER_LENGTH).ok_or_else(cut)?);
    if !(SHORTEST_HEADER..=LONGEST_HEADER).contains(&end) {
        return Err(broken(format!("the setup header of the kernel ends at {end:#x}")));
    }
    let code = code(file)?;
    let kernel = Kernel {
        header: file.get(HEADER..end).ok_or_else(cut)?,
        code,
        preferred: word(file, PREFERRED).ok_or_else(cut)?,
        alignment: long(file, KERNEL_ALIGNMENT).ok_or_else(cut)?.into(),
        relocatable: *file.get(RELOCATABLE).ok_or_else(cut)? != 0,
        init_size: long(file, INIT_SIZE).ok_or_else(cut)?.into(),
        longest_command_line: long(file, COMMAND_LINE_SIZE).ok_or_else(cut)?.into(),
        ramdisk_max: long(file, RAMDISK_MAX).ok_or_else(cut)?.into(),
    };
    consistent(&kernel)?;
    Ok(kernel)
}

/// Whether it is a bzImage at all.
fn recognised(file: &[u8]) -> Result<(), Refusal> {
    let no = |message: &str, remedy: &str| Err(Refusal::new(Rule::KernelForm, message, remedy));
    if file.starts_with(b"\x7fELF") {
        return no(
            "the kernel is an ELF file, as `vmlinux` is",
            "name the bzImage: `vmlinuz` in /boot, arch/x86/boot/bzImage in a kernel tree; a guest that is no Linux goes to `image`",
        );
    }
    if file.is_empty() || half(file, BOOT_FLAG) != Some(0xAA55) {
        return no(
            "the kernel is no bzImage: it lacks the boot flag 0xAA55 at 0x1fe",
            "name the bzImage: `vmlinuz` in /boot, arch/x86/boot/bzImage in a kernel tree",
        );
    }
    if file.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return no(
            "the kernel is no bzImage: it lacks the signature `HdrS` at 0x202",
            "name a bzImage; a kernel before 2.4 and a boot sector have no such header",
        );
    }
    Ok(())
}

/// Whether it speaks the protocol, and has a 64-bit entry.
fn able(file: &[u8]) -> Result<(), Refusal> {
    let cut = || broken("the kernel ends in the middle of its setup header");
    let version = half(file, VERSION).ok_or_else(cut)?;
    if version < OLDEST {
        return Err(Refusal::new(
            Rule::KernelTooOld,
            format!("the kernel speaks boot protocol {}.{:02}", version >> 8, version & 0xFF),
            "take Linux 3.8 or later: boot protocol 2.12 says first whether a kernel has a 64-bit entry",
        ));
    }
    if half(file, FEATURES).ok_or_else(cut)? & KERNEL_64 == 0 {
        return Err(Refusal::new(
            Rule::Kernel32Bit,
            "the kernel has no 64-bit entry",
            "take a kernel for x86-64 (amd64): a kernel for i386 starts in another way",
        ));
    }
    if file.get(LOAD_FLAGS).ok_or_else(cut)? & LOADED_HIGH == 0 {
        return Err(broken("the kernel has a 64-bit entry, and wants to be loaded below 1 MiB"));
    }
    Ok(())
}

/// The protected-mode part.
fn code(file: &[u8]) -> Result<&[u8], Refusal> {
    let cut = || broken("the kernel ends in the middle of its setup header");
    let sectors = match *file.get(SETUP_SECTORS).ok_or_else(cut)? {
        0 => OLD_SECTORS,
        sectors => sectors,
    };
    let start = (usize::from(sectors) + 1) * SECTOR;
    let length = long(file, SIZE).ok_or_else(cut)? as usize * PARAGRAPH;
    let there = file.len().saturating_sub(start);
    let payload = long(file, PAYLOAD).ok_or_else(cut)? as usize;
    let behind = payload.saturating_add(long(file, PAYLOAD_LENGTH).ok_or_else(cut)? as usize);
    // A program that is no Linux and starts as one, such as Memtest86+, has nothing compressed; its last paragraph need not be whole.
    let is_plain = behind == 0;
    let least = if is_plain { length.saturating_sub(PARAGRAPH - 1) } else { length };
    if length <= ENTRY_64 as usize || there < least {
        return Err(broken(format!(
            "the kernel is cut off: its header says {length} bytes behind the setup part, and the file has {there}"
        )));
    }
    let code = file.get(start..start + length.min(there)).ok_or_else(cut)?;
    if is_plain {
        return Ok(code);
    }
    if behind > code.len() {
        return Err(broken("the compressed part of the kernel ends behind the kernel"));
    }
    match code.get(payload..behind) {
        Some(payload) if is_compressed(payload) => Ok(code),
        _ => Err(broken("what should be the compressed part of the kernel is none")),
    }
}

/// Begins as one of the compressions of kernels does (include/linux/decompress, or an ELF file as it is).
fn is_compressed(payload: &[u8]) -> bool {
    const MAGICS: [&[u8]; 8] = [
        b"\x1F\x8B",
        b"BZh",
        b"\x5D\0\0",
        b"\xFD7zXZ\0",
        b"\x89LZO",
        b"\x02\x21\x4C\x18",
        b"\x28\xB5\x2F\xFD",
        b"\x7fELF",
    ];
    MAGICS.iter().any(|magic| payload.starts_with(magic))
}

fn consistent(kernel: &Kernel<'_>) -> Result<(), Refusal> {
    let aligned = kernel.alignment.is_power_of_two()
        && ALIGNMENTS.contains(&kernel.alignment)
        && kernel.preferred.is_multiple_of(kernel.alignment);
    if !aligned {
        return Err(broken(format!(
            "the kernel wants to lie at {:#x} on a bound of {:#x}",
            kernel.preferred, kernel.alignment
        )));
    }
    if kernel.init_size < kernel.code.len() as u64 {
        return Err(broken(format!(
            "the kernel says that it needs {:#x} bytes, and is longer itself",
            kernel.init_size
        )));
    }
    Ok(())
}
