//! Partitions that come, go or change: cores, memory, rights, images, arguments.

use bulkhead_table::{PartitionId, Platform};
use sha2::{Digest, Sha256};

use super::{Both, Gravity, Side};
use crate::ImageRequest;
use crate::plan::{PlannedPartition, PlannedRole};
use crate::source::shown;
use crate::units::size_text;
use crate::view::{arguments_key, hygiene_words, image_key, image_name, rights_words};

pub(super) fn compare(both: &mut Both<'_>) {
    let (old, new) = (both.old.plan, both.new.plan);
    for (partition, id) in old.partitions.iter().zip(0_u16..) {
        match find(&both.new, &partition.name) {
            Some((_, now)) => compare_one(both, partition, now),
            None => gone(both, partition, id),
        }
    }
    for (partition, id) in new.partitions.iter().zip(0_u16..) {
        if find(&both.old, &partition.name).is_none() {
            come(both, partition, id);
        }
    }
    order(both);
}

/// A partition by its name.
pub(super) fn find<'p>(side: &Side<'p>, name: &str) -> Option<(PartitionId, &'p PlannedPartition)> {
    let mut partitions = side.plan.partitions.iter().zip(0_u16..);
    partitions.find(|(partition, _)| partition.name == name).map(|(found, id)| (id, found))
}

fn gone(both: &mut Both<'_>, partition: &PlannedPartition, id: PartitionId) {
    let sentence = format!("is gone, and with it {}", belongings(&both.old, partition, id));
    let place = both.old.place(&[&format!("partition.{}", partition.name)]);
    both.tell_at(Gravity::Access, &partition.name, sentence, (place, None));
}

fn come(both: &mut Both<'_>, partition: &PlannedPartition, id: PartitionId) {
    let sentence = format!("is new, with {}", belongings(&both.new, partition, id));
    let place = both.new.place(&[&format!("partition.{}", partition.name)]);
    both.tell_at(Gravity::Access, &partition.name, sentence, (None, place));
}

/// `core 1 (dedicated), 8 MiB, the image guests/plc`.
fn belongings(side: &Side<'_>, partition: &PlannedPartition, id: PartitionId) -> String {
    let cores: Vec<String> =
        side.plan.cores_of(id).iter().map(|cpu| core_text(side, *cpu)).collect();
    let size = size_text(partition.size());
    format!(
        "{}, {size}, the image {}",
        cores.join(", "),
        image_name(side.plan, &side.places, partition)
    )
}

/// `core 1 (dedicated)`.
fn core_text(side: &Side<'_>, cpu: u16) -> String {
    let kind = if is_dedicated(side, cpu) { "dedicated" } else { "time-shared" };
    format!("core {cpu} ({kind})")
}

fn is_dedicated(side: &Side<'_>, cpu: u16) -> bool {
    matches!(side.plan.role_of(cpu), Some(PlannedRole::Dedicated(_)))
}

fn compare_one(both: &mut Both<'_>, old: &PlannedPartition, new: &PlannedPartition) {
    cores(both, old, new);
    memory(both, old, new);
    rights(both, old, new);
    accepted_siblings(both, old);
    image(both, old, new);
    if old.arguments != new.arguments {
        let sentence = format!("gets other arguments: {:?} -> {:?}", old.arguments, new.arguments);
        tell(both, Gravity::Program, old, sentence, arguments_key(new));
    }
    if old.platform != new.platform {
        let word = |platform| if platform == Platform::Pc { "a small PC" } else { "nothing" };
        let (before, now) = (word(old.platform), word(new.platform));
        let sentence = format!("finds another machine around its memory: {before} -> {now}");
        tell(both, Gravity::Access, old, sentence, "platform");
    }
    ramdisk(both, old, new);
}

/// A change of a partition, at a key of its section.
fn tell(
    both: &mut Both<'_>,
    gravity: Gravity,
    partition: &PlannedPartition,
    sentence: String,
    key: &str,
) {
    let section = format!("partition.{}", partition.name);
    let path = format!("{section}.{key}");
    both.tell(gravity, &partition.name, sentence, &[&path, &section]);
}

fn cores(both: &mut Both<'_>, old: &PlannedPartition, new: &PlannedPartition) {
    for cpu in new.cpus.iter().filter(|cpu| !old.cpus.contains(cpu)) {
        let sentence = format!("gains {}", core_text(&both.new, *cpu));
        tell(both, Gravity::Access, old, sentence, "cores");
    }
    for cpu in &old.cpus {
        if !new.cpus.contains(cpu) {
            let sentence = format!("loses {}", core_text(&both.old, *cpu));
            tell(both, Gravity::Access, old, sentence, "cores");
            continue;
        }
        let sentence = match (is_dedicated(&both.old, *cpu), is_dedicated(&both.new, *cpu)) {
            (true, false) => format!("no longer has core {cpu} to itself: it is time-shared"),
            (false, true) => format!("has core {cpu} to itself: it is no longer time-shared"),
            _ => continue,
        };
        tell(both, Gravity::Access, old, sentence, "cores");
    }
}

fn memory(both: &mut Both<'_>, old: &PlannedPartition, new: &PlannedPartition) {
    let (size_before, size_now) = (old.size(), new.size());
    if size_before != size_now {
        let verb = if size_now > size_before { "gains" } else { "loses" };
        let sentence = format!(
            "{verb} {} of memory: {} -> {}",
            size_text(size_now.abs_diff(size_before)),
            size_text(size_before),
            size_text(size_now)
        );
        tell(both, Gravity::Access, old, sentence, "memory");
    }
    let (Some(before), Some(now)) = (old.regions.first(), new.regions.first()) else { return };
    if before.rights != now.rights {
        let sentence = format!(
            "may do other things with its memory: {} -> {}",
            list(&rights_words(before.rights)),
            list(&rights_words(now.rights))
        );
        tell(both, Gravity::Access, old, sentence, "memory");
    }
    if before.guest != now.guest {
        let sentence =
            format!("sees its memory elsewhere: from {:#x} -> {:#x}", before.guest, now.guest);
        tell(both, Gravity::Program, old, sentence, "memory");
    }
    if before.host != now.host {
        let sentence = format!(
            "lies elsewhere in the machine's memory: from {:#x} -> {:#x}",
            before.host, now.host
        );
        tell(both, Gravity::Placement, old, sentence, "memory");
    }
}

fn list(words: &[&str]) -> String {
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

/// Whom it lets run on other threads of its cores: they share what a core has.
fn accepted_siblings(both: &mut Both<'_>, partition: &PlannedPartition) {
    let path = format!("partition.{}.accept-smt-sibling", partition.name);
    let (before, now) = (both.old.places.texts(&path), both.new.places.texts(&path));
    if before != now {
        let text =
            |names: &[&str]| if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
        let sentence =
            format!("accepts others on the threads beside it: {} -> {}", text(&before), text(&now));
        tell(both, Gravity::Access, partition, sentence, "accept-smt-sibling");
    }
}

/// What it may ask for, and what protects it from what is left behind in the processor.
fn rights(both: &mut Both<'_>, old: &PlannedPartition, new: &PlannedPartition) {
    if old.may_switch_plan != new.may_switch_plan {
        let sentence = match new.may_switch_plan {
            true => "gains the right to ask for another plan",
            false => "loses the right to ask for another plan",
        };
        tell(both, Gravity::Access, old, sentence.to_owned(), "may-switch-plan");
    }
    let receiver = |side: &Side<'_>, partition: &PlannedPartition| {
        partition.donates_to.map_or("nobody", |id| side.plan.name_of(id)).to_owned()
    };
    let (before, now) = (receiver(&both.old, old), receiver(&both.new, new));
    if before != now {
        let sentence = format!("may give the rest of its windows to others: {before} -> {now}");
        tell(both, Gravity::Access, old, sentence, "donates-to");
    }
    if old.hygiene != new.hygiene {
        let sentence = format!(
            "has other things cleaned at its switches: {} -> {}",
            list(&hygiene_words(old.hygiene)),
            list(&hygiene_words(new.hygiene))
        );
        tell(both, Gravity::Access, old, sentence, "hygiene");
    }
}

fn image(both: &mut Both<'_>, old: &PlannedPartition, new: &PlannedPartition) {
    let name = |side: &Side<'_>, partition| image_name(side.plan, &side.places, partition);
    let (before, now) = (name(&both.old, old), name(&both.new, new));
    let bytes = (file_digest(&old.image), file_digest(&new.image));
    let sentence = match bytes {
        _ if before != now => format!("runs another image: {before} -> {now}"),
        (before, now) if before != now => format!(
            "runs other bytes under the same name: SHA-256 {} -> {}",
            digest_text(before),
            digest_text(now)
        ),
        _ => return,
    };
    tell(both, Gravity::Program, old, sentence, image_key(new));
}

fn ramdisk(both: &mut Both<'_>, old: &PlannedPartition, new: &PlannedPartition) {
    let file = |partition: &PlannedPartition| {
        let (request, _) = partition.ramdisk.as_ref()?;
        Some((shown(&request.path), file_digest(request)))
    };
    let (before, now) = (file(old), file(new));
    if before.as_ref().map(|file| file.1) == now.as_ref().map(|file| file.1) {
        return;
    }
    let text = |file: Option<(String, Option<[u8; 32]>)>| match file {
        None => "none".to_owned(),
        Some((path, digest)) => format!("{path} (SHA-256 {})", digest_text(digest)),
    };
    let sentence = format!("starts with another RAM disk: {} -> {}", text(before), text(now));
    tell(both, Gravity::Program, old, sentence, "initrd");
}

/// The digest of a finished image; a folder has none before it is built.
fn file_digest(request: &ImageRequest) -> Option<[u8; 32]> {
    if !request.kind.is_finished() {
        return None;
    }
    Some(Sha256::digest(std::fs::read(&request.path).ok()?).into())
}

fn digest_text(digest: Option<[u8; 32]>) -> String {
    match digest {
        Some(digest) => digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        None => "not built yet".to_owned(),
    }
}

/// The order of those that stay: it numbers them, and decides whose memory comes first.
fn order(both: &mut Both<'_>) {
    let names = |side: &Side<'_>, other: &Side<'_>| -> Vec<String> {
        let partitions = side.plan.partitions.iter().map(|partition| partition.name.clone());
        partitions.filter(|name| find(other, name).is_some()).collect()
    };
    let (before, now) = (names(&both.old, &both.new), names(&both.new, &both.old));
    if before != now {
        let sentence = format!(
            "numbers its partitions otherwise: {} -> {}",
            before.join(", "),
            now.join(", ")
        );
        both.tell(Gravity::Placement, "system", sentence, &["partition"]);
    }
}
