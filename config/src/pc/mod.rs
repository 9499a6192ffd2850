//! What an operating system that knows nothing of this hypervisor finds on its small PC when it starts: the code that goes over to
//! its boot protocol, parameters, command line, ACPI tables, memory map; and where kernel and RAM disk lie. Other guests than Linux are
//! in `handover`.
//!
//! Linux is started by its 64-bit boot protocol (Documentation/arch/x86/boot.rst). The RAM disk is staged right below the kernel, so
//! that both are one piece without a long gap.

mod acpi;
mod handover;
mod headers;
mod kernel;
mod trampoline;

use bulkhead_table::{PAGE_SIZE, Range, pc};

use crate::image::{About, BootInfo, FlatImage, LONGEST_IMAGE, Refusal};
use crate::rules::Rule;
use crate::units::size_text;
pub(crate) use handover::image;
pub(crate) use headers::needs_pc;
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
    /// Bytes of memory: from guest-physical 0 up to 3 GiB, and from 4 GiB on.
    pub memory: u64,
    /// Those of its first piece, in which all that is staged has to lie.
    pub first_piece: u64,
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
    let ramdisk = not_empty(ramdisk)?.unwrap_or_default();
    let layout = layout(&kernel, ramdisk.len() as u64, around.first_piece)?;
    let load_at = if ramdisk.is_empty() { layout.kernel } else { layout.ramdisk.start };
    let mut bytes = ramdisk.to_vec();
    bytes.resize((layout.kernel - load_at) as usize, 0);
    bytes.extend_from_slice(kernel.code);
    let info = boot_info(&kernel, &layout, around)?;
    let boot_info = Some(BootInfo { at: pc::TRAMPOLINE, bytes: info });
    Ok(FlatImage { bytes, load_at, entry: pc::TRAMPOLINE, boot_info })
}

/// The RAM disk, if there is one; not without a byte.
fn not_empty(ramdisk: Option<&[u8]>) -> Result<Option<&[u8]>, Refusal> {
    if ramdisk.is_some_and(<[u8]>::is_empty) {
        let remedy = "make it again: `bulkhead initrd` does; or take the key out";
        let refusal = Refusal::new(Rule::RamdiskEmpty, "the initial RAM disk is empty", remedy);
        return Err(refusal.about(About::Ramdisk));
    }
    Ok(ramdisk)
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
    let tables = acpi::tables(pc::ACPI, &around.processors);
    Ok(pieces(code, parameters(kernel, layout, around), around.command_line, tables))
}

fn not_encoded(error: iced_x86::IcedError) -> Refusal {
    let remedy = "report it: this is a mistake of the compiler";
    Refusal::new(Rule::KernelBroken, format!("its start cannot be encoded: {error}"), remedy)
}

/// Boot information: the code that is entered, parameters, command line and tables, a page each.
fn pieces(code: Vec<u8>, parameters: Vec<u8>, line: &str, tables: Vec<u8>) -> Vec<u8> {
    let mut line = line.as_bytes().to_vec();
    line.push(0);
    let pieces = [
        (pc::TRAMPOLINE, code),
        (pc::PARAMETERS, parameters),
        (pc::COMMAND_LINE, line),
        (pc::ACPI, tables),
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
    let map = memory_map(around, pc::ACPI);
    put(MAP_LENGTH, &[map.len() as u8]);
    for (entry, at) in map.iter().zip((MAP..).step_by(20)) {
        let (range, kind) = entry;
        put(at, &range.start.to_le_bytes());
        put(at + 8, &range.size.to_le_bytes());
        put(at + 16, &kind.to_le_bytes());
    }
    page
}

/// The memory map, ascending: what is not in it is not there. The page of the ACPI tables is at `tables`, in low memory or where the
/// firmware is.
fn memory_map(around: &Surroundings<'_>, tables: u64) -> Vec<(Range, u32)> {
    let piece = |start: u64, end: u64, kind| (Range { start, size: end - start }, kind);
    let (tables, tables_end) = (piece(tables, tables + PAGE_SIZE, ACPI_TABLES), tables + PAGE_SIZE);
    let mut map = if tables.0.start < pc::LOW_END {
        vec![
            piece(0, tables.0.start, RAM),
            tables,
            piece(tables_end, pc::LOW_END, RAM),
            piece(0xA_0000, pc::HIGH, RESERVED),
        ]
    } else {
        vec![
            piece(0, pc::LOW_END, RAM),
            piece(0xA_0000, tables.0.start, RESERVED),
            tables,
            piece(tables_end, pc::HIGH, RESERVED),
        ]
    };
    map.push(piece(pc::HIGH, around.memory.min(pc::RAM_END), RAM));
    map.extend(around.schedule.map(|pages| (pages, RESERVED)));
    let above = around.memory.saturating_sub(pc::RAM_END);
    if above > 0 {
        map.push(piece(pc::HIGH_RAM, pc::HIGH_RAM + above, RAM));
    }
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
        Surroundings {
            memory,
            first_piece: memory,
            processors: vec![2, 3],
            command_line: "console=ttyS0",
            schedule,
        }
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
        let info = image.boot_info.unwrap().bytes;
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
        let info = image.boot_info.unwrap().bytes;
        assert_eq!(u64::from(long(&info, pc::PARAMETERS + CODE_START as u64)), 18 * MIB);
        assert_eq!(image.load_at, 3 * MIB);
    }

    #[test]
    fn the_memory_map_has_what_the_partition_has() {
        let info = started(&[1], 64 * MIB).boot_info.unwrap().bytes;
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

    /// As Memtest86+ is.
    #[test]
    fn a_program_that_starts_as_a_kernel_needs_nothing_compressed() {
        let mut file = bzimage();
        file[0x248..0x250].fill(0);
        let starts = |file: &[u8]| linux(file, None, &around(64 * MIB)).is_ok();
        let end = file.len();
        assert!(starts(&file) && starts(&file[..end - 15]) && !starts(&file[..end - 16]));
        file[0x248] = 1;
        assert_eq!(linux(&file, None, &around(64 * MIB)).unwrap_err().rule, Rule::KernelBroken);
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
