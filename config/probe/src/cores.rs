//! Which cores there are: those that answered, and what firmware's MADT says of the others.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bulkhead_table::MAX_CORES;

use crate::acpi::{Madt, NOBODY};
use crate::facts::{Core, Facts};
use crate::left::LeftOut;
use crate::topology::{self, Cache};

/// Highest level of a cache that a board file names.
const MOST_LEVEL: u8 = 4;
/// A larger cache is a wrong answer of CPUID.
const MOST_SIZE: u64 = 1 << 40;

/// The cores and their caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cores {
    /// The boot core first.
    pub cores: Vec<topology::Core>,
    /// Package, core and thread of them are known.
    pub placed: bool,
    pub caches: Vec<Cache>,
}

/// The boot core, then the others in the order of the MADT; behind them those that answered and stand in no MADT.
pub(crate) fn conclude(facts: &Facts, madt: &Madt, notes: &mut Vec<String>) -> Cores {
    let answered = answered(facts, notes);
    let Some((boot_id, boot)) = answered.first().copied() else {
        notes.push("no core answered".into());
        return Cores::default();
    };
    let mut ids: Vec<u32> = alloc::vec![boot_id];
    for id in madt.processors.iter().copied().chain(answered.iter().map(|(id, _)| *id)) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let mut left = LeftOut::default();
    let mut known: Vec<(u32, &Core)> = Vec::new();
    for id in ids {
        let own = answered.iter().find(|(other, _)| *other == id).map(|(_, core)| *core);
        match own {
            _ if known.len() == MAX_CORES => left.add(
                format!("the core with APIC id {id}"),
                format!("the hypervisor's table holds {MAX_CORES} cores"),
            ),
            Some(own) => known.push((id, own)),
            None if answered.len() > 1 => left.add(
                format!("the core with APIC id {id}"),
                "firmware's MADT has it, and it did not answer, as others did. Where it is real, bring it online, or boot the probe image",
            ),
            None => {
                notes.push(format!(
                    "the core with APIC id {id} did not answer: its place is concluded from the boot core's CPUID"
                ));
                known.push((id, boot));
            }
        }
    }
    left.tell(notes);
    placed(&known, notes)
}

/// The cores that answered in earnest, each once.
fn answered<'f>(facts: &'f Facts, notes: &mut Vec<String>) -> Vec<(u32, &'f Core)> {
    let mut left = LeftOut::default();
    let mut answered: Vec<(u32, &Core)> = Vec::new();
    for (number, core) in facts.cores.iter().enumerate() {
        let id = topology::apic_id(core);
        let subject = format!("core {number} of those that answered");
        if core.leaf(0, 0) == [0; 4] {
            left.add(subject, "it says nothing of itself");
        } else if id == NOBODY {
            left.add(subject, "its APIC id is one that no core has");
        } else if answered.iter().any(|(known, _)| *known == id) {
            left.add(subject, format!("another core has its APIC id {id}"));
        } else {
            answered.push((id, core));
        }
    }
    left.tell(notes);
    answered
}

fn placed(known: &[(u32, &Core)], notes: &mut Vec<String>) -> Cores {
    let cores: Vec<_> = known.iter().map(|(id, facts)| topology::place(*id, facts)).collect();
    let mut positions = BTreeSet::new();
    let placed = cores.iter().all(|core| positions.insert((core.package, core.core, core.thread)));
    if !placed {
        notes.push(
            "by CPUID two cores are the same thread of the same core: package, core and thread are left out".into(),
        );
    }
    let caches = sound_caches(topology::caches(known), &cores, placed, notes);
    Cores { cores, placed, caches }
}

/// The caches that no processor contradicts: a core has one of each level, what shares a cache shares every larger one, and the threads of a
/// core share all.
fn sound_caches(
    caches: Vec<Cache>,
    cores: &[topology::Core],
    placed: bool,
    notes: &mut Vec<String>,
) -> Vec<Cache> {
    let sibling = |one: usize, other: usize| match (cores.get(one), cores.get(other)) {
        (Some(one), Some(other)) => (one.package, one.core) == (other.package, other.core),
        _ => false,
    };
    let mut left = LeftOut::default();
    let mut sound: Vec<Cache> = Vec::new();
    for cache in caches {
        let splits = placed
            && cache.cores.iter().any(|core| {
                (0..cores.len()).any(|other| sibling(*core, other) && !cache.cores.contains(&other))
            });
        let fits = |near: &Cache| {
            let shared = near.cores.iter().filter(|core| cache.cores.contains(core)).count();
            shared == 0 || (near.level < cache.level && shared == near.cores.len())
        };
        if !(1..=MOST_LEVEL).contains(&cache.level) || cache.size > MOST_SIZE {
            left.add(name(&cache), "its level or its size is none that a cache has");
        } else if splits || !sound.iter().all(fits) {
            left.add(name(&cache), "by CPUID, cores share it that do not share what lies in front of it, or share only a part");
        } else {
            sound.push(cache);
        }
    }
    left.tell(notes);
    sound
}

fn name(cache: &Cache) -> String {
    format!("a cache of level {}", cache.level)
}
