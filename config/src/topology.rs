//! Which logical processors are threads of one core, and which caches they share: as the board declares it.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostics::{Finding, Findings};
use crate::rules::Rule;
use crate::schema::{BoardFile, CacheEntry, CoreEntry};
use crate::source::{At, Place};

/// Where a logical processor sits, in the terms of CPUID leaves 0BH and 1FH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Package, that is socket.
    pub package: u32,
    /// Core within the package.
    pub core: u32,
    /// Thread within the core; other threads of one core share its execution units.
    pub thread: u32,
}

impl Position {
    /// Whether both are threads of one core.
    #[must_use]
    pub fn is_sibling_of(self, other: Self) -> bool {
        (self.package, self.core) == (other.package, other.core)
    }
}

/// A cache that holds data, and who shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 to 4; 1 is nearest to the core.
    pub level: u8,
    /// Bytes.
    pub size: u64,
    /// Board CPU numbers, ascending.
    pub cores: Vec<u16>,
}

/// What the board says of its cores and caches, as far as it is sound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    /// By CPU number; empty where the board says nothing.
    pub positions: Vec<Position>,
    pub caches: Vec<(Cache, Place)>,
}

/// Highest level of a cache.
const MOST_LEVEL: u64 = 4;

/// Checks cores and caches of the board against each other.
pub(crate) fn check(board: &BoardFile, findings: &mut Findings) -> Topology {
    let cores = board.cores.as_ref().map_or(&[][..], |cores| cores.value.as_slice());
    let positions = positions(cores, findings);
    let entries = board.caches.as_ref().map_or(&[][..], |caches| caches.value.as_slice());
    let caches: Vec<_> = entries
        .iter()
        .filter_map(|entry| Some((cache(entry, cores.len(), findings)?, entry.place)))
        .collect();
    one_of_a_level(&caches, findings);
    nested(&caches, findings);
    siblings_share(&positions, &caches, findings);
    Topology { positions, caches }
}

/// All positions, or none where a core has none.
fn positions(cores: &[CoreEntry], findings: &mut Findings) -> Vec<Position> {
    let stated = |entry: &&CoreEntry| entry.states_position();
    let Some(example) = cores.iter().find(stated) else {
        return Vec::new();
    };
    let mut placed = Vec::new();
    for entry in cores {
        match entry.position() {
            Some(position) => placed.push((position, entry.place)),
            // A value that is no number has been reported where it stands.
            None if entry.has_all_keys() => {}
            None => findings.push(
                Finding::new(
                    Rule::TopologyIncomplete,
                    "one core of the board says where it sits, and this one does not in full",
                    "write `package`, `core` and `thread` for every core, or for none",
                )
                .at(entry.place, "wants `package`, `core` and `thread`")
                .with(example.place, "this one says it"),
            ),
        }
    }
    for (first, again) in findings.comparisons.repeated(&placed, |(position, _)| *position) {
        let Position { package, core, thread } = again.0;
        let finding = Finding::new(
            Rule::PositionTwice,
            format!(
                "two logical processors are thread {thread} of core {core} in package {package}"
            ),
            "number the threads of a core apart, as CPUID leaf 0BH or 1FH does",
        );
        findings.push(finding.at(again.1, "again here").with(first.1, "first here"));
    }
    let complete = placed.len() == cores.len();
    if complete { placed.into_iter().map(|(position, _)| position).collect() } else { Vec::new() }
}

fn cache(entry: &CacheEntry, count: usize, findings: &mut Findings) -> Option<Cache> {
    let (level, size, cores) = (entry.level.as_ref()?, entry.size.as_ref()?, entry.cores.as_ref()?);
    if level.value == 0 || level.value > MOST_LEVEL {
        let remedy = format!("write a level from 1, the nearest to the core, to {MOST_LEVEL}");
        let finding = Finding::new(Rule::CacheShape, "a cache has no such level", remedy);
        findings.push(finding.at(level.place, "no level of a cache"));
    }
    if size.value == 0 {
        let finding = Finding::new(Rule::CacheShape, "a cache has no bytes", "write its size");
        findings.push(finding.at(size.place, "nothing"));
    }
    if cores.value.is_empty() {
        let remedy = "name the cores that share it: `cores = [0, 1]`";
        let finding = Finding::new(Rule::CacheShape, "a cache belongs to no core", remedy);
        findings.push(finding.at(cores.place, "empty"));
    }
    for core in cores.value.iter().filter(|core| core.value >= count as u64) {
        let message = format!("a cache is to belong to core {}, which the board lacks", core.value);
        let remedy = format!("the board's {count} cores are numbered from 0");
        let finding = Finding::new(Rule::CacheCores, message, remedy);
        findings.push(finding.at(core.place, "no such core"));
    }
    for (first, again) in findings.comparisons.repeated(&cores.value, |core| core.value) {
        let message = format!("a cache names core {} twice", again.value);
        let finding = Finding::new(Rule::CacheCores, message, "take one of them out");
        findings.push(finding.at(again.place, "again here").with(first.place, "first here"));
    }
    let known = cores.value.iter().map(|core| core.value).filter(|core| *core < count as u64);
    let numbers: BTreeSet<u16> = known.filter_map(|core| u16::try_from(core).ok()).collect();
    Some(Cache {
        level: u8::try_from(level.value).ok()?,
        size: size.value,
        cores: numbers.into_iter().collect(),
    })
}

/// A core and one cache that it uses.
struct Use<'c> {
    core: u16,
    level: u8,
    cache: &'c (Cache, Place),
}

fn uses(caches: &[(Cache, Place)]) -> Vec<Use<'_>> {
    let of = |cache| {
        let (Cache { level, cores, .. }, _): &(Cache, Place) = cache;
        cores.iter().map(move |core| Use { core: *core, level: *level, cache })
    };
    caches.iter().flat_map(of).collect()
}

fn one_of_a_level(caches: &[(Cache, Place)], findings: &mut Findings) {
    let uses = uses(caches);
    for (first, again) in findings.comparisons.repeated(&uses, |one| (one.core, one.level)) {
        if first.cache.1 == again.cache.1 {
            continue;
        }
        let finding = Finding::new(
            Rule::CacheTwice,
            format!("core {} has two caches of level {}", again.core, again.level),
            "name the data or unified cache of each level, and each core in one of them",
        );
        findings.push(finding.at(again.cache.1, "again here").with(first.cache.1, "first here"));
    }
}

/// Caches as sets: of two that share a core, the nearer one's cores lie within the farther one's.
fn nested(caches: &[(Cache, Place)], findings: &mut Findings) {
    let mut by_core: BTreeMap<u16, Vec<&(Cache, Place)>> = BTreeMap::new();
    for one in uses(caches) {
        by_core.entry(one.core).or_default().push(one.cache);
    }
    let mut told = BTreeSet::new();
    for stack in by_core.values_mut() {
        findings.comparisons.sort(stack, |(cache, place)| (cache.level, *place));
        for pair in stack.windows(2) {
            let [(near, near_place), (far, far_place)] = pair else { continue };
            let outside = near.cores.iter().find(|core| far.cores.binary_search(core).is_err());
            let Some(outside) = outside.filter(|_| near.level < far.level) else { continue };
            if !told.insert((*near_place, *far_place)) {
                continue;
            }
            let finding = Finding::new(
                Rule::CacheNesting,
                format!(
                    "cores share a cache of level {} and not the one of level {} behind it",
                    near.level, far.level
                ),
                "correct the cores: what shares a cache shares every larger one behind it",
            )
            .at(*near_place, format!("core {outside} is in this one"))
            .with(*far_place, "and not in this one, though other cores are in both");
            findings.push(finding);
        }
    }
}

fn siblings_share(positions: &[Position], caches: &[(Cache, Place)], findings: &mut Findings) {
    let threads = threads(positions);
    for (cache, place) in caches {
        for siblings in cache.cores.iter().filter_map(|core| {
            let position = positions.get(usize::from(*core))?;
            threads.get(&(position.package, position.core))
        }) {
            findings.comparisons.add(siblings.len());
            let missing = siblings.iter().find(|cpu| cache.cores.binary_search(cpu).is_err());
            if let Some(missing) = missing {
                let finding = Finding::new(
                    Rule::CacheSplitsSiblings,
                    format!(
                        "a cache of level {} belongs to one thread of a core alone",
                        cache.level
                    ),
                    format!("name core {missing} there too: threads of one core share its caches"),
                );
                findings.push(finding.at(*place, format!("core {missing} is missing")));
                break;
            }
        }
    }
}

/// The CPU numbers of each core's threads, by package and core.
fn threads(positions: &[Position]) -> BTreeMap<(u32, u32), Vec<u16>> {
    let mut threads: BTreeMap<_, Vec<u16>> = BTreeMap::new();
    for (position, cpu) in positions.iter().zip(0..) {
        threads.entry((position.package, position.core)).or_default().push(cpu);
    }
    threads
}

/// The threads of each core that has several, as CPU numbers.
pub(crate) fn siblings(positions: &[Position]) -> Vec<Vec<u16>> {
    threads(positions).into_values().filter(|cpus| cpus.len() > 1).collect()
}

impl CoreEntry {
    fn states_position(&self) -> bool {
        self.keys_of_position > 0
    }

    fn has_all_keys(&self) -> bool {
        self.keys_of_position == 3
    }

    fn position(&self) -> Option<Position> {
        let number = |at: &Option<At<u64>>| u32::try_from(at.as_ref()?.value).ok();
        Some(Position {
            package: number(&self.package)?,
            core: number(&self.core)?,
            thread: number(&self.thread)?,
        })
    }
}
