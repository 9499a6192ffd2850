//! Moves the guest images into the hypervisor's range, away from the partitions' memory, and proves that they are the
//! ones in the table.
#![expect(unsafe_code, reason = "moves boot modules through physical memory")]

use bulkhead_table::{Partition, Range};
use heapless::Vec;
use sha2::{Digest, Sha256};

use super::info::Module;
use super::machine::Staged;
use crate::memory::{self, PAGE};
use crate::table::{PARTITIONS, TABLE};
use crate::text::say;

/// By partition.
pub type Images = [Staged; PARTITIONS];

/// A module that will be moved.
#[derive(Clone, Copy)]
struct Move {
    partition: usize,
    from: Range,
    to: u64,
}

/// Stages the image of every partition that has the right one; tells each partition that has not, and each module that
/// belongs to none.
pub fn stage(modules: &[Module]) -> Images {
    let moves = plan(modules);
    carry_out(&moves);
    let mut images = [Staged::Refused; PARTITIONS];
    for step in &moves {
        let place = Range { start: step.to, size: step.from.size };
        if let (Some(partition), Some(image)) =
            (TABLE.partitions.get(step.partition), images.get_mut(step.partition))
            && is_proven(partition, &place)
        {
            *image = Staged::Ready(place);
        }
    }
    images
}

/// Says that a partition does not start, and why. The others do.
fn refuse(partition: &Partition, why: core::fmt::Arguments<'_>) {
    say!("Bulkhead refuses partition {} ({}): {why}.", partition.name, partition.place);
}

/// Where each wanted module goes: one behind the other, in the order in which they lie now.
fn plan(modules: &[Module]) -> Vec<Move, PARTITIONS> {
    let mut moves: Vec<Move, PARTITIONS> = Vec::new();
    for (index, partition) in TABLE.partitions.iter().enumerate() {
        if let Some(from) = choose(partition, modules) {
            let step = Move { partition: index, from, to: 0 };
            let at = moves.iter().filter(|known| known.from.start < from.start).count();
            // Cannot be full: there is at most one for each partition.
            let _fits = moves.insert(at, step);
        }
    }
    name_unknown(modules);
    let staging = memory::staging();
    let mut next = staging.start;
    moves.retain_mut(|step| {
        step.to = next;
        let fits = Range { start: next, size: step.from.size }.end() <= staging.end();
        if fits {
            next = (next + step.from.size).next_multiple_of(PAGE);
        } else if let Some(partition) = TABLE.partitions.get(step.partition) {
            refuse(
                partition,
                format_args!(
                    "its image of {} bytes does not fit behind the hypervisor and the images before it, where {} bytes are left; enlarge [hypervisor] size in the board file",
                    step.from.size,
                    staging.end().saturating_sub(next)
                ),
            );
        }
        fits
    });
    moves
}

/// The module of a partition, if it can be its image.
fn choose(partition: &Partition, modules: &[Module]) -> Option<Range> {
    let mut named = modules.iter().filter(|module| module.name == partition.name);
    let Some(module) = named.next() else {
        refuse(
            partition,
            format_args!(
                "the boot loader handed over no module of that name; build the disk image again"
            ),
        );
        return None;
    };
    if named.next().is_some() {
        refuse(
            partition,
            format_args!(
                "the boot loader handed over more than one module of that name; build the disk image again"
            ),
        );
        return None;
    }
    let image =
        Range { start: memory::image_start(), size: memory::image_end() - memory::image_start() };
    if module.place.overlaps(&image) {
        refuse(
            partition,
            format_args!(
                "the boot loader put its module at {:#x}, on top of the hypervisor",
                module.place.start
            ),
        );
        return None;
    }
    if module.place.size != partition.image.size {
        refuse(
            partition,
            format_args!(
                "its module has {} bytes and the image that was proven has {}; build the disk image again",
                module.place.size, partition.image.size
            ),
        );
        return None;
    }
    Some(module.place)
}

fn name_unknown(modules: &[Module]) {
    for module in modules {
        if !TABLE.partitions.iter().any(|partition| module.name == partition.name) {
            say!(
                "Bulkhead: the boot module \"{}\" belongs to no partition; it is left alone.",
                module.name
            );
        }
    }
}

/// Moves the modules. Sources and destinations are in the same order and disjoint among themselves, so those that go up
/// only ever land on others that go up, and those that go down on others that go down: the former from the last on,
/// the latter from the first on, and none is overwritten before it has moved.
fn carry_out(moves: &[Move]) {
    moves.iter().rev().filter(|step| step.to > step.from.start).for_each(Move::carry_out);
    moves.iter().filter(|step| step.to < step.from.start).for_each(Move::carry_out);
}

impl Move {
    fn carry_out(&self) {
        // SAFETY: the source is a boot module outside the hypervisor's image, the destination lies in the hypervisor's
        // range behind its image, which the memory map says is usable RAM; both are identity-mapped below 4 GiB, and
        // `copy` allows overlap.
        unsafe {
            core::ptr::copy(
                self.from.start as *const u8,
                self.to as *mut u8,
                self.from.size as usize,
            );
        }
    }
}

/// Whether what was staged is the image in the table.
fn is_proven(partition: &Partition, place: &Range) -> bool {
    // SAFETY: the range was just written, lies in the hypervisor's range, and nothing writes to it any more.
    let bytes =
        unsafe { core::slice::from_raw_parts(place.start as *const u8, place.size as usize) };
    let proven = Sha256::digest(bytes).as_slice() == partition.image.digest;
    if !proven {
        refuse(
            partition,
            format_args!(
                "its module is not the image that was proven (SHA-256 differs); build the disk image again"
            ),
        );
    }
    proven
}
