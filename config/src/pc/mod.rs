//! What an operating system that knows nothing of this hypervisor finds on its small PC when it starts: the code that goes over to
//! its boot protocol, parameters, command line, ACPI tables, memory map; and where kernel and RAM disk lie.
//!
//! Linux is started by its 64-bit boot protocol (Documentation/arch/x86/boot.rst). The RAM disk is staged right below the kernel, so
//! that both are one piece without a long gap.

mod acpi;
mod elf;
mod kernel;
mod trampoline;

use bulkhead_table::{PAGE_SIZE, Range, pc};

use crate::image::{self, About, FlatImage, LONGEST_IMAGE, Refusal};
use crate::rules::Rule;
use crate::units::size_text;
use kernel::Kernel;

/// The lowest address for a RAM disk: with it, a kernel that likes 16 MiB stays there.
const LOWEST_RAMDISK: u64 = 2 << 20;

/// Fields of `boot_params`: Documentation/arch/x86/zero-page.rst, boot.rst.
const ACPI_ROOT: usize = 0x070;
const MAP_LENGTH: usize = 0x1E8;
const VIDEO_MODE: usize = 0x1FA;
const LOADER: usize = 0x210;
const LOAD_FLAGS: usize = 0x211;
const CODE_START: usize = 0x214;
const RAMDISK: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const COMMAND_LINE: usize = 0x228;
const MAP: usize = 0x2D0;

/// A boot loader without a number of its own; a normal text mode; the flag that says that there is a heap for the setup part.
const UNKNOWN_LOADER: u8 = 0xFF;
const NORMAL_MODE: u16 = 0xFFFF;
const CAN_USE_HEAP: u8 = 0x80;

/// Kinds of entries of the memory map (E820): ACPI 6.5, table 15.4.
const RAM: u32 = 1;
const RESERVED: u32 = 2;
const ACPI_TABLES: u32 = 3;

/// The partition that a kernel is to run in.
pub(crate) struct Surroundings<'p> {
    /// Bytes of memory, from guest-physical 0 on.
    pub memory: u64,
    /// APIC ids by vCPU.
    pub processors: Vec<u32>,
    /// The kernel's command line.
    pub command_line: &'p str,
    /// Schedule pages, which are no RAM.
    pub schedule: Option<Range>,
}

/// Where the pieces of a Linux lie, guest-physical.
struct Layout {
    ramdisk: Range,
    kernel: u64,
}

/// What is staged for a Linux, and its boot information.
pub(crate) fn linux(
    kernel: &[u8],
    ramdisk: Option<&[u8]>,
    around: &Surroundings<'_>,
) -> Result<FlatImage, Refusal> {
    let kernel = kernel::read(kernel)?;
    command_line(&kernel, around.command_line)?;
    if ramdisk.is_some_and(<[u8]>::is_empty) {
        let remedy = "make it again: `bulkhead initrd` does; or take the key out";
        let refusal = Refusal::new(Rule::RamdiskEmpty, "the initial RAM disk is empty", remedy);
        return Err(refusal.about(About::Ramdisk));
    }
    let ramdisk = ramdisk.unwrap_or_default();
    let layout = layout(&kernel, ramdisk.len() as u64, around.memory)?;
    let load_at = if ramdisk.is_empty() { layout.kernel } else { layout.ramdisk.start };
    let mut bytes = ramdisk.to_vec();
    bytes.resize((layout.kernel - load_at) as usize, 0);
    bytes.extend_from_slice(kernel.code);
    let boot_info = boot_info(&kernel, &layout, around)?;
    Ok(FlatImage { bytes, load_at, entry: pc::TRAMPOLINE, boot_info: Some(boot_info) })
}

/// What is staged for an ELF file on a small PC: started as every guest is, or by the protocol that it carries a header or a note for.
pub(crate) fn elf(file: &[u8], around: &Surroundings<'_>) -> Result<FlatImage, Refusal> {
    let flat = image::flatten(file, around.memory)?;
    let (entry, magic, parameters) = match elf::protocol(file) {
        elf::Protocol::Multiboot2 => return Ok(flat),
        elf::Protocol::Multiboot1 => (flat.entry, MULTIBOOT1_LOADER, multiboot1(around)),
        elf::Protocol::Pvh(entry) => (entry, 0, pvh(around)),
    };
    let brought = entry >= flat.load_at && entry - flat.load_at < flat.bytes.len() as u64;
    if !brought || flat.load_at < pc::PAGE_TABLES_END {
        return Err(Refusal::new(
            Rule::ImageOnBootInfo,
            format!("the guest image lies at {:#x} and starts at {entry:#x}", flat.load_at),
            "link it at 1 MiB: what a PC guest starts from lies below",
        ));
    }
    // Below 3 GiB, as all of a partition's memory.
    let code = trampoline::protected_mode(entry as u32, magic, pc::PARAMETERS as u32);
    let boot_info = low_memory(code.map_err(not_encoded)?, parameters, around);
    Ok(FlatImage { entry: pc::TRAMPOLINE, boot_info: Some(boot_info), ..flat })
}

/// Multiboot specification 0.6.96, section 3.2: what EAX holds; 3.3: fields of the information, and which are valid.
const MULTIBOOT1_LOADER: u32 = 0x2BAD_B002;
const MULTIBOOT1_VALID: u32 = 1 | 1 << 2 | 1 << 6 | 1 << 9;
const LOADER_NAME: &[u8] = b"Bulkhead\0";
const NAME_AT: usize = 0x80;
/// Where the memory map of either lies in the page of the parameters.
const OTHER_MAP: usize = 0x100;

/// The information of Multiboot 1.
fn multiboot1(around: &Surroundings<'_>) -> Vec<u8> {
    let mut map = Vec::new();
    for (range, kind) in memory_map(around) {
        map.extend(20_u32.to_le_bytes());
        map.extend([range.start, range.size].map(u64::to_le_bytes).concat());
        map.extend(kind.to_le_bytes());
    }
    let mut page = vec![0; PAGE_SIZE as usize];
    let mut put = |at: usize, value: u64| {
        page[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
    };
    put(0, MULTIBOOT1_VALID.into());
    put(4, pc::LOW_END >> 10);
    put(8, (around.memory - pc::HIGH) >> 10);
    put(16, pc::COMMAND_LINE);
    put(44, map.len() as u64);
    put(48, pc::PARAMETERS + OTHER_MAP as u64);
    put(64, pc::PARAMETERS + NAME_AT as u64);
    page[NAME_AT..NAME_AT + LOADER_NAME.len()].copy_from_slice(LOADER_NAME);
    page[OTHER_MAP..OTHER_MAP + map.len()].copy_from_slice(&map);
    page
}

/// The start information of PVH, version 1: xen/include/public/arch-x86/hvm/start_info.h.
fn pvh(around: &Surroundings<'_>) -> Vec<u8> {
    const MAGIC: u32 = 0x336E_C578;
    let map = memory_map(around);
    let mut page = [MAGIC, 1, 0, 0].map(u32::to_le_bytes).concat();
    let map_at = pc::PARAMETERS + OTHER_MAP as u64;
    page.extend([0, pc::COMMAND_LINE, pc::ACPI, map_at].map(u64::to_le_bytes).concat());
    page.extend([map.len() as u32, 0].map(u32::to_le_bytes).concat());
    page.resize(OTHER_MAP, 0);
    for (range, kind) in map {
        page.extend([range.start, range.size].map(u64::to_le_bytes).concat());
        page.extend([kind, 0].map(u32::to_le_bytes).concat());
    }
    page.resize(PAGE_SIZE as usize, 0);
    page
}

fn command_line(kernel: &Kernel<'_>, line: &str) -> Result<(), Refusal> {
    if line.len() as u64 <= kernel.longest_command_line {
        return Ok(());
    }
    let refusal = Refusal::new(
        Rule::CommandLineTooLong,
        format!("the command line is {} bytes long", line.len()),
        format!("this kernel takes {} at most", kernel.longest_command_line),
    );
    Err(refusal.about(About::CommandLine))
}

fn layout(kernel: &Kernel<'_>, ramdisk: u64, memory: u64) -> Result<Layout, Refusal> {
    let alone = kernel.preferred.max(pc::HIGH.next_multiple_of(kernel.alignment));
    let needed = alone.saturating_add(kernel.init_size);
    if needed > memory {
        return Err(Refusal::new(
            Rule::KernelDoesNotFit,
            format!(
                "the kernel needs the memory from {alone:#x} to {needed:#x} to start, and the partition's of {} ends at {memory:#x}",
                size_text(memory)
            ),
            format!("give it memory of {} or more", size_text(needed.next_multiple_of(2 << 20))),
        ));
    }
    let below = if ramdisk == 0 { 0 } else { LOWEST_RAMDISK.saturating_add(ramdisk) };
    let at = alone.max(below.next_multiple_of(kernel.alignment));
    let ramdisk_refused = |message: String, remedy: String| {
        Err(Refusal::new(Rule::RamdiskDoesNotFit, message, remedy).about(About::Ramdisk))
    };
    let text = format!("the initial RAM disk of {} does not fit", size_text(ramdisk));
    if at > kernel.preferred && !kernel.relocatable {
        return ramdisk_refused(
            format!("{text} below this kernel, which has to lie at {:#x}", kernel.preferred),
            "make it smaller, or take a kernel with CONFIG_RELOCATABLE".to_owned(),
        );
    }
    let end = at.saturating_add(kernel.init_size);
    if end > memory {
        return ramdisk_refused(
            format!("{text} the partition's memory of {} beside the kernel", size_text(memory)),
            format!(
                "give it memory of {} or more, or make it smaller",
                size_text(end.next_multiple_of(2 << 20))
            ),
        );
    }
    let staged = at - LOWEST_RAMDISK.min(at) + kernel.code.len() as u64;
    if ramdisk > 0 && (at - 1 > kernel.ramdisk_max || staged > LONGEST_IMAGE) {
        return ramdisk_refused(
            format!("{text} with the kernel: {} are the most", size_text(LONGEST_IMAGE)),
            "make it smaller".to_owned(),
        );
    }
    let start = (at - ramdisk) / PAGE_SIZE * PAGE_SIZE;
    Ok(Layout { ramdisk: Range { start, size: ramdisk }, kernel: at })
}

/// All that lies in low memory, from [`pc::TRAMPOLINE`] on.
fn boot_info(
    kernel: &Kernel<'_>,
    layout: &Layout,
    around: &Surroundings<'_>,
) -> Result<Vec<u8>, Refusal> {
    let entry = layout.kernel + kernel::ENTRY_64;
    let code = trampoline::long_mode(entry, pc::PARAMETERS).map_err(not_encoded)?;
    Ok(low_memory(code, parameters(kernel, layout, around), around))
}

fn not_encoded(error: iced_x86::IcedError) -> Refusal {
    let remedy = "report it: this is a mistake of the compiler";
    Refusal::new(Rule::KernelBroken, format!("its start cannot be encoded: {error}"), remedy)
}

/// The pieces of low memory, from [`pc::TRAMPOLINE`] on.
fn low_memory(code: Vec<u8>, parameters: Vec<u8>, around: &Surroundings<'_>) -> Vec<u8> {
    let mut line = around.command_line.as_bytes().to_vec();
    line.push(0);
    let pieces = [
        (pc::TRAMPOLINE, code),
        (pc::PARAMETERS, parameters),
        (pc::COMMAND_LINE, line),
        (pc::ACPI, acpi::tables(&around.processors)),
    ];
    let mut bytes = Vec::new();
    for (at, piece) in pieces {
        bytes.resize((at - pc::TRAMPOLINE) as usize, 0);
        bytes.extend(piece);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// The `boot_params` of Linux, a page.
fn parameters(kernel: &Kernel<'_>, layout: &Layout, around: &Surroundings<'_>) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE as usize];
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(kernel::HEADER, kernel.header);
    put(ACPI_ROOT, &pc::ACPI.to_le_bytes());
    put(VIDEO_MODE, &NORMAL_MODE.to_le_bytes());
    put(LOADER, &[UNKNOWN_LOADER]);
    let flags = kernel.header.get(LOAD_FLAGS - kernel::HEADER).copied().unwrap_or_default();
    put(LOAD_FLAGS, &[flags & !CAN_USE_HEAP]);
    // Below 3 GiB, as all of a partition's memory: addresses have 32 bits here.
    put(CODE_START, &(layout.kernel as u32).to_le_bytes());
    if layout.ramdisk.size > 0 {
        put(RAMDISK, &(layout.ramdisk.start as u32).to_le_bytes());
        put(RAMDISK_SIZE, &(layout.ramdisk.size as u32).to_le_bytes());
    }
    put(COMMAND_LINE, &(pc::COMMAND_LINE as u32).to_le_bytes());
    let map = memory_map(around);
    put(MAP_LENGTH, &[map.len() as u8]);
    for (entry, at) in map.iter().zip((MAP..).step_by(20)) {
        let (range, kind) = entry;
        put(at, &range.start.to_le_bytes());
        put(at + 8, &range.size.to_le_bytes());
        put(at + 16, &kind.to_le_bytes());
    }
    page
}

/// The memory map, ascending: what is not in it is not there.
fn memory_map(around: &Surroundings<'_>) -> Vec<(Range, u32)> {
    let piece = |start: u64, end: u64, kind| (Range { start, size: end - start }, kind);
    let tables_end = pc::ACPI + PAGE_SIZE;
    let mut map = vec![
        piece(0, pc::ACPI, RAM),
        piece(pc::ACPI, tables_end, ACPI_TABLES),
        piece(tables_end, pc::LOW_END, RAM),
        piece(0xA_0000, pc::HIGH, RESERVED),
        piece(pc::HIGH, around.memory, RAM),
    ];
    map.extend(around.schedule.map(|pages| (pages, RESERVED)));
    map
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A bzImage that likes 16 MiB and needs 8 MiB there, as the protocol describes one.
    fn bzimage() -> Vec<u8> {
        let mut file = vec![0; 1024 + 0x2000];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1F1, &[1]);
        put(0x1F4, &0x200_u32.to_le_bytes());
        put(0x1FE, b"\x55\xAA\xEB\x6AHdrS\x0F\x02");
        put(0x211, &[0x81]);
        put(0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
        put(0x230, &0x20_0000_u32.to_le_bytes());
        put(0x234, &[1, 21, 1, 0]);
        put(0x238, &2047_u32.to_le_bytes());
        put(0x248, &[0x400_u32, 16].map(u32::to_le_bytes).concat());
        put(0x258, &(16 * MIB).to_le_bytes());
        put(0x260, &(8 * MIB as u32).to_le_bytes());
        put(1024 + 0x400, b"\x28\xB5\x2F\xFD");
        file
    }

    fn around(memory: u64) -> Surroundings<'static> {
        let schedule = Some(Range { start: 0xFEB0_0000, size: 0x2000 });
        Surroundings { memory, processors: vec![2, 3], command_line: "console=ttyS0", schedule }
    }

    fn started(disk: &[u8], memory: u64) -> FlatImage {
        linux(&bzimage(), Some(disk), &around(memory)).unwrap()
    }

    fn long(info: &[u8], at: u64) -> u32 {
        let at = (at - pc::TRAMPOLINE) as usize;
        u32::from_le_bytes(info[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn kernel_and_ram_disk_lie_where_the_parameters_say() {
        let disk: Vec<u8> = (0..5000_u32).map(|byte| byte as u8).collect();
        let image = started(&disk, 64 * MIB);
        let info = image.boot_info.unwrap();
        let field = |at: usize| u64::from(long(&info, pc::PARAMETERS + at as u64));
        assert_eq!((field(CODE_START), field(RAMDISK_SIZE)), (16 * MIB, 5000));
        assert_eq!(field(RAMDISK), 16 * MIB - 0x2000);
        assert_eq!((image.load_at, image.entry), (field(RAMDISK), pc::TRAMPOLINE));
        assert_eq!(image.bytes[..5000], disk);
        let kernel = (16 * MIB - image.load_at) as usize;
        assert_eq!(image.bytes[kernel..], bzimage()[1024..]);
        let line = (field(COMMAND_LINE) - pc::TRAMPOLINE) as usize;
        assert_eq!(&info[line..line + 14], b"console=ttyS0\0");
        assert_eq!(info[(pc::PARAMETERS - pc::TRAMPOLINE) as usize + LOADER..][..2], [0xFF, 0x01]);
        assert_eq!(field(ACPI_ROOT), pc::ACPI);
    }

    #[test]
    fn a_large_ram_disk_moves_the_kernel_up() {
        let image = started(&vec![1; 15 << 20], 64 * MIB);
        let info = image.boot_info.unwrap();
        assert_eq!(u64::from(long(&info, pc::PARAMETERS + CODE_START as u64)), 18 * MIB);
        assert_eq!(image.load_at, 3 * MIB);
    }

    #[test]
    fn the_memory_map_has_what_the_partition_has() {
        let info = started(&[1], 64 * MIB).boot_info.unwrap();
        let at = (pc::PARAMETERS - pc::TRAMPOLINE) as usize;
        let entries: Vec<_> =
            info[at + MAP..].chunks_exact(20).take(info[at + MAP_LENGTH].into()).collect();
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
        let map: Vec<_> = entries.iter().map(|e| (word(&e[..8]), word(&e[8..16]), e[16])).collect();
        let wanted = [
            (0, 0x4000, 1),
            (0x4000, 0x1000, 3),
            (0x5000, 0x9_AC00, 1),
            (0xA_0000, 0x6_0000, 2),
            (0x10_0000, 63 * MIB, 1),
            (0xFEB0_0000, 0x2000, 2),
        ];
        assert_eq!(map, wanted);
    }

    #[test]
    fn one_byte_less_of_memory_is_refused() {
        let with = |memory| linux(&bzimage(), Some(&[1]), &around(memory));
        assert!(with(24 * MIB).is_ok());
        assert_eq!(with(24 * MIB - 1).unwrap_err().rule, Rule::KernelDoesNotFit);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// No bytes make the reader panic, and what it accepts lies in the memory.
        #[test]
        fn a_changed_kernel_is_refused_or_fits(
            changes in prop::collection::vec((0x1F0_usize..0x270, any::<u8>()), 1..6),
            cut in 0_usize..0x2400,
            memory in (1_u64..64).prop_map(|mib| mib * MIB),
        ) {
            let mut file = bzimage();
            changes.iter().for_each(|(at, byte)| file[*at] = *byte);
            for file in [&file[..], &file[..cut]] {
                if let Ok(image) = linux(file, Some(&[7; 100]), &around(memory)) {
                    prop_assert!(image.load_at >= pc::HIGH);
                    prop_assert!(image.load_at + image.bytes.len() as u64 <= memory);
                }
            }
        }

        #[test]
        fn no_file_makes_the_reader_panic(file in prop::collection::vec(any::<u8>(), 0..2048)) {
            prop_assert!(linux(&file, None, &around(64 * MIB)).is_err());
        }
    }
}
