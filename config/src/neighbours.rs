//! Who runs beside whom: on the other threads of a core, and on cores behind the same small cache.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_table::PartitionId;

use crate::cores::Role;
use crate::diagnostics::{Finding, Findings};
use crate::reader::{closest, list, shorten};
use crate::rules::Rule;
use crate::schema::{Partition, SystemFile};
use crate::source::{At, Place};
use crate::topology::{Cache, Position, Topology, siblings};
use crate::units::size_text;

/// Caches up to this level are small enough for a neighbour to empty one within a window.
const SMALL_CACHE: u8 = 2;

/// A partition on a core.
#[derive(Clone, Copy)]
struct Run {
    cpu: u16,
    id: PartitionId,
    dedicated: bool,
}

/// Checks the roles of the cores against what the cores share; without a sound board only what is accepted.
pub(crate) fn check(
    system: &SystemFile,
    roles: &BTreeMap<u64, Role<'_>>,
    topology: Option<&Topology>,
    findings: &mut Findings,
) {
    let accepted: Vec<_> = accepted(system, findings);
    let Some(topology) = topology else { return };
    let mut beside = BTreeSet::new();
    for threads in siblings(&topology.positions) {
        for (one, other) in pairs(&runs(roles, &threads), findings) {
            if beside.insert((one.id.min(other.id), one.id.max(other.id))) {
                siblings_accept(system, one, other, &accepted, findings);
            }
        }
    }
    if !findings.has_errors() {
        no_idle_acceptance(system, &accepted, &beside, findings);
    }
    for (cache, place) in topology.caches.iter().filter(|(cache, _)| cache.level <= SMALL_CACHE) {
        small_cache(system, roles, (cache, *place), &topology.positions, findings);
    }
}

/// Every partition on every of these cores.
fn runs(roles: &BTreeMap<u64, Role<'_>>, cpus: &[u16]) -> Vec<Run> {
    let on = |cpu: &u16| {
        let cpu = *cpu;
        let role = roles.get(&cpu.into());
        let dedicated = matches!(role, Some(Role::Dedicated(_)));
        let partitions = role.map_or_else(Vec::new, Role::partitions);
        partitions.into_iter().map(move |id| Run { cpu, id, dedicated })
    };
    cpus.iter().flat_map(on).collect()
}

/// Two different partitions on two different threads.
fn pairs(runs: &[Run], findings: &mut Findings) -> Vec<(Run, Run)> {
    let mut pairs = Vec::new();
    for (index, other) in runs.iter().enumerate() {
        findings.comparisons.add(index);
        let before = runs.iter().take(index);
        let beside = before.filter(|one| one.cpu != other.cpu && one.id != other.id);
        pairs.extend(beside.map(|one| (*one, *other)));
    }
    pairs
}

/// What each partition accepts, and where it says so.
fn accepted(system: &SystemFile, findings: &mut Findings) -> Vec<BTreeMap<PartitionId, Place>> {
    let names = system.partitions.iter().map(|partition| partition.name.value.as_str());
    let ids: BTreeMap<&str, PartitionId> = names.zip(0..).collect();
    system
        .partitions
        .iter()
        .map(|partition| {
            let Some(written) = &partition.accepted else {
                return BTreeMap::new();
            };
            let repeated =
                findings.comparisons.repeated(&written.value, |name| name.value.as_str());
            for (first, again) in repeated {
                let message = format!("`{}` is accepted twice", shorten(&again.value));
                let finding = Finding::new(Rule::AcceptedUnknown, message, "take one of them out");
                findings
                    .push(finding.at(again.place, "again here").with(first.place, "first here"));
            }
            let accept = |name: &At<String>| {
                let id = ids.get(name.value.as_str()).copied();
                match id.filter(|_| name.value != partition.name.value) {
                    Some(id) => Some((id, name.place)),
                    None => {
                        findings.push(no_other_partition(partition, name, &ids));
                        None
                    }
                }
            };
            written.value.iter().filter_map(accept).collect()
        })
        .collect()
}

fn no_other_partition(
    partition: &Partition,
    name: &At<String>,
    ids: &BTreeMap<&str, PartitionId>,
) -> Finding {
    let own = partition.name.value.as_str();
    let others: Vec<_> = ids.keys().copied().filter(|other| *other != own).collect();
    let remedy = match closest(&name.value, &others) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("the other partitions are {}", list(&others)),
    };
    let message =
        format!("`{own}` accepts `{}`, which is no other partition", shorten(&name.value));
    Finding::new(Rule::AcceptedUnknown, message, remedy).at(name.place, "no other partition")
}

fn siblings_accept(
    system: &SystemFile,
    one: Run,
    other: Run,
    accepted: &[BTreeMap<PartitionId, Place>],
    findings: &mut Findings,
) {
    let accepts = |by: PartitionId, whom| {
        accepted.get(usize::from(by)).is_some_and(|list| list.contains_key(&whom))
    };
    let (Some(first), Some(second)) = (partition(system, one.id), partition(system, other.id))
    else {
        return;
    };
    let (first_name, second_name) = (&first.name.value, &second.name.value);
    let mut missing = Vec::new();
    if !accepts(one.id, other.id) {
        missing.push(format!("`accept-smt-sibling = [\"{second_name}\"]` for `{first_name}`"));
    }
    if !accepts(other.id, one.id) {
        missing.push(format!("`accept-smt-sibling = [\"{first_name}\"]` for `{second_name}`"));
    }
    if missing.is_empty() {
        return;
    }
    let finding = Finding::new(
        Rule::SiblingsSplit,
        format!("`{first_name}` and `{second_name}` run on two threads of one core"),
        format!(
            "give both threads to one partition, leave one of them idle, or accept that each slows and may spy on the other: {}",
            missing.join(" and ")
        ),
    )
    .at(claim(second, other.cpu), format!("`{second_name}` on core {}", other.cpu))
    .with(claim(first, one.cpu), format!("`{first_name}` on core {}", one.cpu));
    findings.push(finding);
}

fn no_idle_acceptance(
    system: &SystemFile,
    accepted: &[BTreeMap<PartitionId, Place>],
    beside: &BTreeSet<(PartitionId, PartitionId)>,
    findings: &mut Findings,
) {
    for (id, list) in (0..).zip(accepted) {
        for (other, place) in list {
            if beside.contains(&(id.min(*other), id.max(*other))) {
                continue;
            }
            let name = |id| partition(system, id).map_or("", |p| p.name.value.as_str());
            let finding = Finding::new(
                Rule::AcceptedAbsent,
                format!(
                    "`{}` accepts `{}`, which runs on no other thread of its cores",
                    name(id),
                    name(*other)
                ),
                "take it out; it is for boards that state `package`, `core` and `thread`, and counts where two threads of one core run both",
            );
            findings.push(finding.at(*place, "does nothing"));
        }
    }
}

/// Told once for a cache: a partition that has cores of its own for the sake of its timing, and a neighbour.
fn small_cache(
    system: &SystemFile,
    roles: &BTreeMap<u64, Role<'_>>,
    (cache, place): (&Cache, Place),
    positions: &[Position],
    findings: &mut Findings,
) {
    let runs = runs(roles, &cache.cores);
    let one_core = |one: u16, other: u16| {
        let position = |cpu: u16| positions.get(usize::from(cpu));
        let both = position(one).zip(position(other));
        both.is_some_and(|(one, other)| one.is_sibling_of(*other))
    };
    let Some(alone) = runs.iter().find(|run| run.dedicated) else { return };
    findings.comparisons.add(runs.len());
    let beside = |run: &&Run| run.id != alone.id && !one_core(run.cpu, alone.cpu);
    let (Some(neighbour), Some(first)) = (runs.iter().find(beside), partition(system, alone.id))
    else {
        return;
    };
    let other = partition(system, neighbour.id).map_or("", |p| p.name.value.as_str());
    let name = &first.name.value;
    let finding = Finding::new(
        Rule::SharedCache,
        format!(
            "`{name}` has core {} for itself, and shares a cache of level {} ({}) with `{other}` on core {}",
            alone.cpu,
            cache.level,
            size_text(cache.size),
            neighbour.cpu
        ),
        "move one of them to a core behind another such cache, if the timing of the first one matters: its neighbour can empty the cache at any time",
    )
    .at(claim(first, alone.cpu), "its core")
    .with(place, "the cache");
    findings.push(finding);
}

fn partition(system: &SystemFile, id: PartitionId) -> Option<&Partition> {
    system.partitions.get(usize::from(id))
}

/// Where a partition names a core; its name where it does not.
fn claim(partition: &Partition, cpu: u16) -> Place {
    let cores = partition.cores.iter().flat_map(|cores| &cores.value);
    let named = cores.into_iter().find(|core| core.value == u64::from(cpu));
    named.map_or(partition.name.place, |core| core.place)
}
