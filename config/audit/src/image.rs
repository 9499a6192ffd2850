//! Proves the image around the table: the hypervisor's two copies, the menu, the modules.

use bulkhead_table::{PAGE_SIZE, Range};
use sha2::{Digest, Sha256};

use crate::claims::{Claim, apart};
use crate::elf::{Program, Segment};
use crate::iso::Disk;
use crate::menu::{Entry, Menu};
use crate::model::{Partition, System};
use crate::proof::{Party, Proof};
use crate::rules::Rule;
use crate::{Unreadable, decode};

/// The menu that the boot loader reads.
const MENU: &str = "/boot/grub/grub.cfg";

/// The optional wish for a framebuffer in a multiboot2 header, and the tag that stands in its place for BIOS:
/// type and flags of 16 bits each.
const FRAMEBUFFER: [u8; 4] = [5, 0, 1, 0];
const NO_FRAMEBUFFER: [u8; 4] = [0xFF, 0x7F, 1, 0];

/// What an image holds, read but not proven.
pub(crate) struct Evidence<'i> {
    disk: Disk<'i>,
    menu: Menu,
    uefi: &'i [u8],
    bios: &'i [u8],
    program: Program<'i>,
    bios_table: System,
    /// The table of the hypervisor that boots by UEFI.
    pub system: System,
}

impl<'i> Evidence<'i> {
    /// Reads what is needed for any proof.
    pub fn read(image: &'i [u8]) -> Result<Self, Unreadable> {
        let disk = Disk::open(image)?;
        let menu = Menu::read(disk.file(MENU)?)?;
        let (uefi, bios) = (disk.file(&menu.uefi)?, disk.file(&menu.bios)?);
        let (program, system) = hypervisor_of(uefi, &menu.uefi)?;
        let (_, bios_table) = hypervisor_of(bios, &menu.bios)?;
        Ok(Self { disk, menu, uefi, bios, program, bios_table, system })
    }

    /// Proves all of it.
    pub fn prove(&self, promised: Option<&str>, proof: &mut Proof) {
        self.one_program(proof);
        digest(&self.system, promised, proof);
        hypervisor(&self.system, &self.program, proof);
        staging(&self.system, &self.program, proof);
        self.modules(proof);
    }

    fn one_program(&self, proof: &mut Proof) {
        let about = || vec![Party::thing(&self.menu.uefi), Party::thing(&self.menu.bios)];
        proof.fact(Rule::OneProgram, self.system == self.bios_table, || {
            (format!("{} and {} hold different tables", self.menu.uefi, self.menu.bios), about())
        });
        proof.fact(Rule::OneProgram, differ_in_the_wish_only(self.uefi, self.bios), || {
            (format!("{} and {} are different programs", self.menu.uefi, self.menu.bios), about())
        });
    }

    fn modules(&self, proof: &mut Proof) {
        for partition in &self.system.partitions {
            let own: Vec<&Entry> =
                self.menu.modules.iter().filter(|entry| entry.name == partition.name).collect();
            proof.fact(Rule::Menu, own.len() == 1, || {
                let (party, count) = (partition.party(), own.len());
                (format!("the menu hands over {count} modules for {party}, not one"), vec![party])
            });
            for entry in own {
                self.module(partition, entry, proof);
            }
        }
        for entry in &self.menu.modules {
            let known = self.system.partitions.iter().any(|each| each.name == entry.name);
            proof.fact(Rule::Menu, known, || {
                let message = format!(
                    "the menu hands over {} for {}, which is no partition",
                    entry.path, entry.name
                );
                (message, Vec::new())
            });
        }
    }

    fn module(&self, partition: &Partition, entry: &Entry, proof: &mut Proof) {
        let wrong = match self.disk.file(&entry.path) {
            Err(Unreadable(cause)) => Some(cause),
            Ok(bytes) if bytes.len() as u64 != partition.image.size => {
                let (is, was) = (bytes.len(), partition.image.size);
                Some(format!("{} has {is} bytes, and the table says {was}", entry.path))
            }
            Ok(bytes) => {
                let same = Sha256::digest(bytes).as_slice() == partition.image.digest;
                (!same).then(|| format!("the SHA-256 of {} is not the table's", entry.path))
            }
        };
        proof.fact(Rule::Module, wrong.is_none(), || {
            let party = partition.party();
            (format!("the module of {party}: {}", wrong.unwrap_or_default()), vec![party])
        });
        let bytes = self.disk.file(&entry.path).unwrap_or_default();
        proof.fact(Rule::BootInfoPlace, covers_zeros(partition, bytes), || {
            let (party, at) = (partition.party(), partition.boot_info_at);
            let message =
                format!("the boot information of {party} at {at:#x} covers bytes of its image");
            (message, vec![party])
        });
    }
}

/// Whether the boot information of a partition covers nothing of its module but zeros.
fn covers_zeros(partition: &Partition, module: &[u8]) -> bool {
    let image = Range { start: partition.image.load_at, size: module.len() as u64 };
    let info = Range { start: partition.boot_info_at, size: partition.boot_info.len() as u64 };
    let start = info.start.max(image.start).saturating_sub(image.start);
    let end = info.end().min(image.end()).saturating_sub(image.start).max(start);
    let covered = module.get(start as usize..end as usize).unwrap_or_default();
    covered.iter().all(|byte| *byte == 0)
}

/// The hypervisor in the file at `path`, and its table.
fn hypervisor_of<'i>(bytes: &'i [u8], path: &str) -> Result<(Program<'i>, System), Unreadable> {
    let read = Program::read(bytes).and_then(|program| {
        let system = decode::table(&program)?;
        Ok((program, system))
    });
    read.map_err(|Unreadable(cause)| Unreadable(format!("the hypervisor {path}: {cause}")))
}

/// Whether two copies are the same but for the one tag that is a wish for a framebuffer.
fn differ_in_the_wish_only(uefi: &[u8], bios: &[u8]) -> bool {
    if uefi.len() != bios.len() {
        return false;
    }
    let Some(first) = uefi.iter().zip(bios).position(|(one, other)| one != other) else {
        return true;
    };
    let tag = |bytes: &[u8]| bytes.get(first..first + FRAMEBUFFER.len()).map(<[u8]>::to_vec);
    let rest = |bytes: &[u8]| bytes.get(first + FRAMEBUFFER.len()..).map(<[u8]>::to_vec);
    tag(uefi).as_deref() == Some(&FRAMEBUFFER)
        && tag(bios).as_deref() == Some(&NO_FRAMEBUFFER)
        && rest(uefi) == rest(bios)
}

fn digest(system: &System, promised: Option<&str>, proof: &mut Proof) {
    let own: String = system.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    proof.fact(Rule::Digest, system.digest != [0; 32], || {
        ("the table carries no digest of its sources".to_owned(), Vec::new())
    });
    if let Some(promised) = promised {
        proof.fact(Rule::Digest, own == promised, || {
            (
                format!("the table was made from {own}, and the manifest promises {promised}"),
                Vec::new(),
            )
        });
    }
}

fn hypervisor(system: &System, program: &Program<'_>, proof: &mut Proof) {
    let party = |segment: &Segment<'_>| {
        let (start, end) = (segment.range.start, segment.range.end());
        Party::thing(format!("the hypervisor's segment {start:#x}-{end:#x}"))
    };
    let mut pages = Vec::new();
    for segment in program.segments.iter().filter(|segment| segment.range.size > 0) {
        let inside = system.hypervisor.contains(&segment.range);
        let sound = inside && segment.virtual_start == segment.range.start;
        proof.fact(Rule::HypervisorImage, sound, || {
            let message = format!("{} is not where the hypervisor's range is", party(segment));
            (message, vec![party(segment)])
        });
        proof.fact(Rule::HypervisorImage, !(segment.write && segment.execute), || {
            let message = format!("{} is writable and executable", party(segment));
            (message, vec![party(segment)])
        });
        pages.push(Claim::new(whole_pages(&segment.range), party(segment)));
    }
    apart(proof, Rule::HypervisorImage, "the hypervisor's memory", pages);
    let entered = |segment: &Segment<'_>| {
        let loaded = Range { start: segment.virtual_start, size: segment.bytes.len() as u64 };
        segment.execute && loaded.contains(&Range { start: program.entry, size: 1 })
    };
    proof.fact(Rule::HypervisorImage, program.segments.iter().any(entered), || {
        let message =
            format!("the hypervisor is entered at {:#x}, where it has no code", program.entry);
        (message, Vec::new())
    });
}

/// The pages that a range touches: no two segments may share one, since rights are by page.
fn whole_pages(range: &Range) -> Range {
    let start = range.start / PAGE_SIZE * PAGE_SIZE;
    let end = range.end().checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
    Range { start, size: end - start }
}

fn staging(system: &System, program: &Program<'_>, proof: &mut Proof) {
    let whole = |size: u64| size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
    let images = system.partitions.iter().map(|each| whole(each.image.size));
    let staged = images.fold(0_u64, u64::saturating_add);
    let (own, end) = (program.end(), system.hypervisor.end());
    let end = end.saturating_sub(system.board.log_memory.size);
    proof.fact(Rule::Staging, own.saturating_add(staged) <= end, || {
        let message = format!(
            "the hypervisor's image ends at {own:#x}, its range without the log at {end:#x}: {staged} bytes of staged images do not fit"
        );
        (message, vec![Party::thing("the hypervisor")])
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wish_for_a_framebuffer_may_differ() {
        let with = |tag: [u8; 4], last: u8| [&[1, 2, 3, 4][..], &tag, &[9, last]].concat();
        let uefi = with(FRAMEBUFFER, 9);
        assert!(differ_in_the_wish_only(&uefi, &uefi));
        assert!(differ_in_the_wish_only(&uefi, &with(NO_FRAMEBUFFER, 9)));
        assert!(!differ_in_the_wish_only(&uefi, &with(NO_FRAMEBUFFER, 8)));
        assert!(!differ_in_the_wish_only(&uefi, &with([5, 0, 0, 0], 9)));
        assert!(!differ_in_the_wish_only(&uefi, &uefi[..9]));
    }
}
