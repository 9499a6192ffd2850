//! Checks who claims which core, and finds the role of each.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_table::{MAX_PARTITIONS, Owner, PartitionId};

use crate::board::CheckedBoard;
use crate::diagnostics::{Finding, Findings};
use crate::rules::Rule;
use crate::schema::{Partition, SystemFile, Window};
use crate::source::{At, Place};

/// What a core does, as far as the claims on it say.
pub(crate) enum Role<'s> {
    /// One partition.
    Dedicated(u16),
    /// Windows, by who has them.
    Shared(Vec<Share<'s>>),
    /// Nothing but draining the logs.
    Housekeeping,
}

impl Role<'_> {
    /// The partitions that run there.
    pub fn partitions(&self) -> Vec<PartitionId> {
        match self {
            Self::Dedicated(id) => vec![*id],
            Self::Shared(shares) => shares.iter().filter_map(Share::partition).collect(),
            Self::Housekeeping => Vec::new(),
        }
    }
}

/// Somebody's windows on a core.
pub(crate) struct Share<'s> {
    pub owner: Owner,
    pub windows: Vec<&'s Window>,
    /// Where the core is claimed.
    pub place: Place,
}

impl Share<'_> {
    /// The partition, unless it is housekeeping.
    pub fn partition(&self) -> Option<PartitionId> {
        match self.owner {
            Owner::Partition(id) => Some(id),
            Owner::Housekeeping => None,
        }
    }
}

/// Somebody's wish for a core.
struct Claim<'s> {
    owner: Owner,
    name: &'s str,
    core: &'s At<u64>,
    /// `None` wants the core for itself.
    windows: Option<Vec<&'s Window>>,
}

impl Claim<'_> {
    fn is_housekeeping(&self) -> bool {
        self.owner == Owner::Housekeeping
    }
}

/// Roles by core number, those that are sound.
pub(crate) fn check<'s>(
    system: &'s SystemFile,
    board: Option<&CheckedBoard>,
    findings: &mut Findings,
) -> BTreeMap<u64, Role<'s>> {
    count_partitions(system, findings);
    if system.housekeeping.is_none() {
        let finding = Finding::new(
            Rule::HousekeepingMissing,
            "nobody drains the logs",
            "add `[housekeeping]` with `core = 0`: a core of its own, or with `[[housekeeping.window]]` windows of a time-shared core",
        );
        findings.push(finding.at(system.place, "this system has no `[housekeeping]`"));
    }
    let claims = claims(system, findings);
    if let Some(board) = board {
        known_cores(&claims, board, findings);
    }
    let mut by_core: BTreeMap<u64, Vec<Claim<'s>>> = BTreeMap::new();
    for claim in claims {
        by_core.entry(claim.core.value).or_default().push(claim);
    }
    // Without housekeeping that is told first: it is what core 0 does most of the time.
    let housekept = system.housekeeping.is_some();
    if housekept && !by_core.is_empty() && !by_core.contains_key(&0) {
        let finding = Finding::new(
            Rule::BootCoreUnused,
            "nothing runs on core 0, which boots the machine",
            "give core 0 a partition, or make it the housekeeping core",
        );
        findings.push(finding.at(system.place, "core 0 has no role in this system"));
    }
    by_core
        .into_iter()
        .filter_map(|(core, claims)| Some((core, role(core, &claims, findings)?)))
        .collect()
}

fn count_partitions(system: &SystemFile, findings: &mut Findings) {
    let count = system.partitions.len();
    if count == 0 {
        let finding = Finding::new(
            Rule::NoPartition,
            "the system has no partition",
            "add a section `[partition.NAME]` with an image, memory and a core",
        );
        findings.push(finding.at(system.place, "nothing to run"));
    }
    if let Some(first_too_many) = system.partitions.get(MAX_PARTITIONS) {
        let finding = Finding::new(
            Rule::TooManyPartitions,
            format!("the system has {count} partitions"),
            format!("the table holds {MAX_PARTITIONS}: merge or drop some"),
        );
        let label = format!("number {}", MAX_PARTITIONS + 1);
        findings.push(finding.at(first_too_many.name.place, label));
    }
}

fn claims<'s>(system: &'s SystemFile, findings: &mut Findings) -> Vec<Claim<'s>> {
    let mut claims = Vec::new();
    for (partition, id) in system.partitions.iter().zip(0_u16..) {
        let windows = partition.windows.as_ref();
        let name = partition.name.value.as_str();
        let Some(cores) = partition.cores.as_ref() else {
            continue;
        };
        cores_ascend(cores, name, findings);
        if let Some(windows) = windows {
            windows_on_own_cores(&windows.value, cores, name, findings);
        }
        let owner = Owner::Partition(id);
        let mut claimed = BTreeSet::new();
        claims.extend(cores.value.iter().filter(|core| claimed.insert(core.value)).map(|core| {
            let here = |window: &&Window| stands_on(window, core, cores);
            let windows = windows.map(|list| list.value.iter().filter(here).collect());
            Claim { owner, name, core, windows }
        }));
    }
    if let Some(housekeeping) = &system.housekeeping {
        let windows = housekeeping.windows.as_ref();
        if let Some(core) = &housekeeping.core {
            let owner = Owner::Housekeeping;
            let windows = windows.map(|list| list.value.iter().collect());
            claims.push(Claim { owner, name: "housekeeping", core, windows });
        }
    }
    claims
}

/// Whether a window of a partition stands on one of its cores: where there is one core, it need not say so.
fn stands_on(window: &Window, core: &At<u64>, cores: &At<Vec<At<u64>>>) -> bool {
    match &window.core {
        Some(named) => named.value == core.value,
        // One that is named twice is told by a rule of its own.
        None => cores.value.iter().all(|other| other.value == core.value),
    }
}

/// Whether every window of a partition is known to stand on one of its cores; what is not is reported.
pub(crate) fn windows_are_placed(partition: &Partition) -> bool {
    let Some(cores) = &partition.cores else { return false };
    let own: BTreeSet<u64> = cores.value.iter().map(|core| core.value).collect();
    partition.windows.iter().flat_map(|windows| &windows.value).all(|window| match &window.core {
        Some(core) => own.contains(&core.value),
        None => own.len() == 1,
    })
}

fn cores_ascend(cores: &At<Vec<At<u64>>>, name: &str, findings: &mut Findings) {
    if cores.value.is_empty() {
        let finding = Finding::new(
            Rule::CoreCount,
            format!("`{name}` names no core"),
            "name the core that it runs on: `cores = [1]`",
        );
        findings.push(finding.at(cores.place, "empty"));
    }
    findings.comparisons.add(cores.value.len());
    for pair in cores.value.windows(2) {
        let [before, core] = pair else { continue };
        if before.value >= core.value {
            let finding = Finding::new(
                Rule::CoresAscend,
                format!("the cores of `{name}` do not ascend"),
                "name each core once, the lowest first: the vCPUs are numbered in this order, and the first one starts",
            );
            findings.push(finding.at(core.place, "not above").with(before.place, "the one before"));
            // The list is put in order as a whole.
            return;
        }
    }
}

fn windows_on_own_cores(
    windows: &[Window],
    cores: &At<Vec<At<u64>>>,
    name: &str,
    findings: &mut Findings,
) {
    let own: BTreeSet<u64> = cores.value.iter().map(|core| core.value).collect();
    for window in windows {
        match &window.core {
            None if own.len() > 1 => {
                let finding = Finding::new(
                    Rule::WindowCoreMissing,
                    format!(
                        "`{name}` has several cores, and a window does not say on which it lies"
                    ),
                    "add the core: `core = 1`",
                );
                findings.push(
                    finding.at(window.place, "on which core?").with(cores.place, "its cores"),
                );
            }
            Some(core) if !own.contains(&core.value) => {
                let finding = Finding::new(
                    Rule::WindowCoreForeign,
                    format!(
                        "a window of `{name}` lies on core {}, which is none of its own",
                        core.value
                    ),
                    "name one of the partition's cores, or add this one to `cores`",
                );
                findings
                    .push(finding.at(core.place, "not its core").with(cores.place, "its cores"));
            }
            _ => {}
        }
    }
}

fn known_cores(claims: &[Claim<'_>], board: &CheckedBoard, findings: &mut Findings) {
    let Some(count) = board.apic_ids.as_ref().map(Vec::len) else {
        return;
    };
    for claim in claims.iter().filter(|claim| claim.core.value >= count as u64) {
        let message = format!("the board has no core {}", claim.core.value);
        let remedy = format!("its {count} cores are 0 to {}", count - 1);
        let finding = Finding::new(Rule::CoreUnknown, message, remedy)
            .at(claim.core.place, format!("`{}` is to run there", claim.name));
        findings.push(match board.cores_place {
            Some(place) => finding.with(place, "the cores of the board begin here"),
            None => finding,
        });
    }
}

fn role<'s>(core: u64, claims: &[Claim<'s>], findings: &mut Findings) -> Option<Role<'s>> {
    let (windowed, whole): (Vec<&Claim<'s>>, Vec<&Claim<'s>>) =
        claims.iter().partition(|claim| claim.windows.is_some());
    findings.comparisons.add(claims.len());
    let conflicts = conflicts(core, &windowed, &whole);
    if !conflicts.is_empty() {
        conflicts.into_iter().for_each(|finding| findings.push(finding));
        return None;
    }
    match whole.as_slice() {
        [claim] => Some(match claim.owner {
            Owner::Partition(id) => Role::Dedicated(id),
            Owner::Housekeeping => Role::Housekeeping,
        }),
        _ => Some(Role::Shared(
            windowed
                .iter()
                .filter_map(|claim| {
                    let windows = claim.windows.clone()?;
                    Some(Share { owner: claim.owner, windows, place: claim.core.place })
                })
                .collect(),
        )),
    }
}

/// Everything that forbids these claims on one core.
fn conflicts(core: u64, windowed: &[&Claim<'_>], whole: &[&Claim<'_>]) -> Vec<Finding> {
    let mut conflicts = Vec::new();
    let housekeeper = whole.iter().find(|claim| claim.is_housekeeping());
    if let Some(housekeeper) = housekeeper {
        for claim in windowed.iter().chain(whole).filter(|claim| !claim.is_housekeeping()) {
            conflicts.push(on_housekeeping_core(core, claim, housekeeper));
        }
        return conflicts;
    }
    let sharing = windowed.iter().find(|claim| !claim.is_housekeeping());
    let windowed_housekeeper = windowed.iter().find(|claim| claim.is_housekeeping());
    for (position, claim) in whole.iter().enumerate() {
        if let Some(sharing) = sharing {
            conflicts.push(mixed(core, claim, sharing));
        } else if let (Some(first), true) = (whole.first(), position > 0) {
            conflicts.push(claimed_twice(core, claim, first));
        } else if let Some(housekeeper) = windowed_housekeeper {
            conflicts.push(housekeeping_on_dedicated(core, housekeeper, claim));
        }
    }
    conflicts
}

fn on_housekeeping_core(core: u64, claim: &Claim<'_>, housekeeper: &Claim<'_>) -> Finding {
    Finding::new(
        Rule::HousekeepingCoreUsed,
        format!("`{}` is to run on core {core}, which is the housekeeping core as a whole", claim.name),
        "move the partition, or give housekeeping windows (`[[housekeeping.window]]`) and the partition too",
    )
    .at(claim.core.place, "claimed here")
    .with(housekeeper.core.place, "housekeeping as a whole, for want of windows")
}

fn mixed(core: u64, claim: &Claim<'_>, sharing: &Claim<'_>) -> Finding {
    Finding::new(
        Rule::CoreMixed,
        format!(
            "core {core} is time-shared by `{}`, and `{}` has no window on it",
            sharing.name, claim.name
        ),
        format!(
            "give `{0}` windows (`[[partition.{0}.window]]`), or a core of its own",
            claim.name
        ),
    )
    .at(claim.core.place, "claimed as a whole, for want of windows")
    .with(sharing.core.place, format!("`{}` runs here in windows", sharing.name))
}

fn claimed_twice(core: u64, claim: &Claim<'_>, first: &Claim<'_>) -> Finding {
    Finding::new(
        Rule::CoreClaimedTwice,
        format!("`{}` and `{}` both claim core {core}", first.name, claim.name),
        "move one to another core, or give each windows to share it in time",
    )
    .at(claim.core.place, format!("claimed again by `{}`", claim.name))
    .with(first.core.place, format!("already dedicated to `{}`", first.name))
}

fn housekeeping_on_dedicated(core: u64, housekeeper: &Claim<'_>, claim: &Claim<'_>) -> Finding {
    Finding::new(
        Rule::HousekeepingOnDedicated,
        format!("housekeeping has windows on core {core}, which is dedicated to `{}`", claim.name),
        "move housekeeping to a time-shared core or a core of its own, or give the partition windows",
    )
    .at(housekeeper.core.place, "housekeeping in windows")
    .with(claim.core.place, format!("dedicated to `{}`, for want of windows", claim.name))
}
