//! The boot loader's part of an image: menus, the stripped boot copy of a kernel, the disk itself.

use std::path::Path;
use std::process::Command;

use object::elf::{FileHeader64, PT_LOAD, SHN_UNDEF};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, pod};

use crate::error::{Error, Result};
use crate::{paths, process};

/// GRUB modules that the menus use, for both firmwares; what they depend on comes with them. The partition
/// schemes are those that GRUB's own start file asks for.
const MODULES: &str = "normal multiboot2 linux boot iso9660 fat test all_video part_acorn part_amiga part_apple \
    part_bsd part_dfly part_dvh part_gpt part_msdos part_plan part_sun part_sunpc";

/// The hypervisor as it boots by BIOS, below `/boot`.
pub const BY_BIOS: &str = "bulkhead-bios.elf";

/// The hypervisor as it boots by UEFI, below `/boot`.
pub const BY_UEFI: &str = "bulkhead.elf";

/// A guest that boots alone, below `/boot`.
pub const GUEST: &str = "guest.elf";

/// A kernel that boots alone, below `/boot`.
pub const KERNEL: &str = "kernel";
/// Its RAM disk.
pub const RAM_DISK: &str = "initrd";

/// Under UEFI there is no text screen: a kernel gets a framebuffer. Under BIOS it gets the VGA text screen.
const PREAMBLE: &str = "set timeout=0
if [ \"$grub_platform\" = efi ]; then
    insmod all_video
    set gfxpayload=1024x768x32,auto
    set hypervisor=/boot/bulkhead.elf
else
    set gfxpayload=text
    set hypervisor=/boot/bulkhead-bios.elf
fi
";

/// Multiboot2 header: magic number, and how far into a file GRUB looks for it, at multiples of eight.
const HEADER_MAGIC: u32 = 0xE852_50D6;
const HEADER_WITHIN: usize = 32 << 10;

/// Multiboot2 header tag that asks for a framebuffer, and a tag type that no loader knows.
const FRAMEBUFFER_TAG: u16 = 5;
const IGNORED_TAG: u16 = 0x7FFF;

/// The menu that starts the hypervisor with one module for each partition.
#[must_use]
pub fn hypervisor_menu(partitions: &[&str]) -> String {
    let modules: String =
        partitions.iter().map(|name| format!("module2 /boot/{name}.bin {name}\n")).collect();
    format!("{PREAMBLE}multiboot2 $hypervisor\n{modules}boot\n")
}

/// The menu that starts a guest alone, with its arguments.
#[must_use]
pub fn native_menu(arguments: &str) -> String {
    let words: Vec<String> = arguments.split_whitespace().map(quoted).collect();
    format!("{PREAMBLE}multiboot2 /boot/guest.elf {}\nboot\n", words.join(" "))
}

/// The menu that starts a kernel alone, with its command line.
#[must_use]
pub fn native_kernel_menu(command_line: &str, has_ram_disk: bool) -> String {
    let words: Vec<String> = command_line.split_whitespace().map(quoted).collect();
    let disk = if has_ram_disk { format!("initrd /boot/{RAM_DISK}\n") } else { String::new() };
    format!("{PREAMBLE}linux /boot/{KERNEL} {}\n{disk}boot\n", words.join(" "))
}

/// A word that GRUB's shell takes as it stands.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The part of an ELF file that a boot loader reads: everything up to the end of its last segment, without
/// section headers. The debug information stays on the host.
///
/// # Errors
/// Not a 64-bit ELF file. `whose` names it.
pub fn boot_copy(elf: &[u8], whose: &str) -> Result<Vec<u8>> {
    let refuse = |cause: String| {
        Error::refused(
            format!("the ELF file of {whose} cannot boot"),
            cause,
            "build it for x86_64-unknown-none",
        )
    };
    let header = FileHeader64::<Endianness>::parse(elf)
        .map_err(|cause| refuse(format!("not a 64-bit ELF: {cause}")))?;
    let endian = header.endian().map_err(|cause| refuse(cause.to_string()))?;
    let segments =
        header.program_headers(endian, elf).map_err(|cause| refuse(cause.to_string()))?;
    let table_end = header.e_phoff.get(endian)
        + u64::from(header.e_phentsize.get(endian)) * u64::from(header.e_phnum.get(endian));
    let end = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD)
        .map(|segment| segment.p_offset(endian).saturating_add(segment.p_filesz(endian)))
        .fold(table_end, u64::max);
    let end = usize::try_from(end).ok().filter(|end| *end <= elf.len());
    let end = end.ok_or_else(|| refuse("a segment lies behind the end of the file".to_string()))?;
    let mut stripped = *header;
    stripped.e_shoff.set(endian, 0);
    stripped.e_shnum.set(endian, 0);
    stripped.e_shstrndx.set(endian, SHN_UNDEF);
    let front = pod::bytes_of(&stripped);
    let mut copy = elf[..end].to_vec();
    copy[..front.len()].copy_from_slice(front);
    Ok(copy)
}

/// The same kernel without its optional wish for a framebuffer. For BIOS, where the text screen serves: with that
/// wish GRUB 2.06 sets a VBE mode even for `gfxpayload=text`, and then crashes in Bochs before it hands over.
/// The tag stays in place as an optional one that no loader knows. A kernel without such a wish stays as it is.
#[must_use]
pub fn without_framebuffer(kernel: &[u8]) -> Vec<u8> {
    let mut copy = kernel.to_vec();
    if let Some(at) = framebuffer_tag(kernel) {
        copy[at..at + 2].copy_from_slice(&IGNORED_TAG.to_le_bytes());
    }
    copy
}

/// Where the optional framebuffer tag of a kernel's multiboot2 header lies.
fn framebuffer_tag(kernel: &[u8]) -> Option<usize> {
    let start = (0..HEADER_WITHIN).step_by(8).find(|at| long(kernel, *at) == Some(HEADER_MAGIC))?;
    let end = start + usize::try_from(long(kernel, start + 8)?).ok()?;
    let mut at = start + 16;
    while at < end {
        // A tag: type and flags of 16 bits each, then its size.
        let head = long(kernel, at)?;
        let size = usize::try_from(long(kernel, at + 4)?).ok()?.max(8);
        if head == u32::from(FRAMEBUFFER_TAG) | 1 << 16 {
            return Some(at);
        }
        at = at.checked_add(size)?.checked_next_multiple_of(8)?;
    }
    None
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

/// Writes the menu into the staging folder and packs it as a disk image.
///
/// # Errors
/// A file cannot be written, or grub-mkrescue fails.
pub fn make(staging: &Path, menu: &str, image: &Path) -> Result<()> {
    pack(staging, menu, &[&format!("--install-modules={MODULES}")], image)
}

/// As [`make`], with these modules, and for UEFI only.
///
/// # Errors
/// As [`make`].
pub fn make_for_uefi(staging: &Path, menu: &str, modules: &str, image: &Path) -> Result<()> {
    pack(staging, menu, &["-d", FOR_UEFI, &format!("--install-modules={modules}")], image)
}

/// GRUB's files for UEFI.
const FOR_UEFI: &str = "/usr/lib/grub/x86_64-efi";

/// Packs the staging folder and the menu as a hybrid image: a disk or a CD.
///
/// # Errors
/// A file cannot be written, or grub-mkrescue fails.
fn pack(staging: &Path, menu: &str, options: &[&str], image: &Path) -> Result<()> {
    let folder = staging.join("boot/grub");
    paths::create(&folder)?;
    paths::write(&folder.join("grub.cfg"), menu.as_bytes())?;
    if let Some(folder) = image.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        paths::create(folder)?;
    }
    let mut command = Command::new("grub-mkrescue");
    command
        .args(["--fonts=", "--locales=", "--themes="])
        .args(options)
        .arg("-o")
        .arg(image)
        .arg(staging);
    let what = format!("cannot write the image {}", image.display());
    process::run(
        &mut command,
        &what,
        "look at what grub-mkrescue says; it needs xorriso and mtools",
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_is_a_module() {
        let menu = hypervisor_menu(&["motion", "plc"]);
        assert!(menu.contains("multiboot2 $hypervisor\nmodule2 /boot/motion.bin motion\n"));
        assert!(menu.ends_with("module2 /boot/plc.bin plc\nboot\n"));
    }

    #[test]
    fn arguments_reach_a_native_guest_unchanged() {
        let menu = native_menu("period=100us name=it's tsc_khz=50000");
        assert!(
            menu.contains(r"guest.elf 'period=100us' 'name=it'\''s' 'tsc_khz=50000'"),
            "{menu}"
        );
    }

    #[test]
    fn a_native_kernel_gets_its_command_line_and_ram_disk() {
        let menu = native_kernel_menu("console=ttyS0 -- sh -c 'a b'", true);
        assert!(menu.contains("linux /boot/kernel 'console=ttyS0' '--' 'sh' '-c'"), "{menu}");
        assert!(menu.ends_with("initrd /boot/initrd\nboot\n"));
        assert!(!native_kernel_menu("quiet", false).contains("initrd"));
    }

    #[test]
    fn the_boot_copy_keeps_the_segments() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let copy = boot_copy(&own, "us").unwrap();
        assert!(copy.len() < own.len());
        let header = FileHeader64::<Endianness>::parse(copy.as_slice()).unwrap();
        let endian = header.endian().unwrap();
        assert_eq!(header.e_shnum.get(endian), 0);
        for segment in header.program_headers(endian, copy.as_slice()).unwrap() {
            if segment.p_type(endian) == PT_LOAD {
                segment.data(endian, copy.as_slice()).unwrap();
            }
        }
    }

    fn kernel(tag: [u16; 2]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        for word in [HEADER_MAGIC, 0, 48, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([6_u16, 0].map(u16::to_le_bytes).concat());
        bytes.extend(8_u32.to_le_bytes());
        bytes.extend(tag.map(u16::to_le_bytes).concat());
        bytes.extend([20_u32, 1024, 768, 32].map(u32::to_le_bytes).concat());
        bytes
    }

    #[test]
    fn only_an_optional_wish_for_a_framebuffer_goes() {
        let before = kernel([FRAMEBUFFER_TAG, 1]);
        let after = without_framebuffer(&before);
        assert_eq!(after[64 + 24..64 + 28], [0xFF, 0x7F, 1, 0]);
        assert_eq!(before.iter().zip(&after).filter(|(one, other)| one != other).count(), 2);
        for tag in [[FRAMEBUFFER_TAG, 0], [4, 1]] {
            assert_eq!(without_framebuffer(&kernel(tag)), kernel(tag));
        }
    }

    #[test]
    fn a_broken_header_is_left_alone() {
        for length in 0..kernel([FRAMEBUFFER_TAG, 1]).len() - 20 {
            let cut = kernel([FRAMEBUFFER_TAG, 1])[..length].to_vec();
            assert_eq!(without_framebuffer(&cut), cut);
        }
    }

    #[test]
    fn what_is_no_elf_does_not_boot() {
        let error = boot_copy(b"not an ELF file at all", "motion").unwrap_err().to_string();
        assert!(error.contains("motion") && error.contains("64-bit ELF"), "{error}");
    }
}
