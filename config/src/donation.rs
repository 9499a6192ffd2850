//! Who may give the rest of a window to whom.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_table::PartitionId;

use crate::diagnostics::{Finding, Findings};
use crate::reader::{closest, list, shorten};
use crate::rules::Rule;
use crate::schema::{Partition, SystemFile};
use crate::source::At;

/// By partition: who receives what it donates.
pub(crate) fn check(system: &SystemFile, findings: &mut Findings) -> Vec<Option<PartitionId>> {
    let names = system.partitions.iter().map(|partition| partition.name.value.as_str());
    let ids: BTreeMap<&str, PartitionId> = names.zip(0..).collect();
    let receivers: Vec<_> =
        system.partitions.iter().map(|donor| receiver(donor, system, &ids, findings)).collect();
    no_circle(system, &receivers, findings);
    receivers
}

fn receiver(
    donor: &Partition,
    system: &SystemFile,
    ids: &BTreeMap<&str, PartitionId>,
    findings: &mut Findings,
) -> Option<PartitionId> {
    let written = donor.donates_to.as_ref()?;
    let name = &donor.name.value;
    if donor.windows.is_none() {
        let finding = Finding::new(
            Rule::DonatesWithoutWindows,
            format!("`{name}` has its cores for itself and no window to give the rest of"),
            "take `donates-to` out, or give the partition windows",
        );
        findings.push(finding.at(written.place, "does nothing"));
        return None;
    }
    let Some(id) = ids.get(written.value.as_str()).copied() else {
        let known: Vec<_> = ids.keys().copied().collect();
        let remedy = match closest(&written.value, &known) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("the partitions are {}", list(&known)),
        };
        let message =
            format!("`{name}` donates to `{}`, which is no partition", shorten(&written.value));
        let finding = Finding::new(Rule::ReceiverUnknown, message, remedy);
        findings.push(finding.at(written.place, "unknown"));
        return None;
    };
    let receiver = system.partitions.get(usize::from(id))?;
    if receiver.name.value == *name {
        let finding = Finding::new(
            Rule::DonatesToItself,
            format!("`{name}` donates to itself"),
            "name another partition on its cores, or take `donates-to` out",
        );
        findings.push(finding.at(written.place, "its own name"));
        return None;
    }
    on_the_same_cores(donor, written, receiver, findings);
    Some(id)
}

/// Donated time is used where it is given: the receiver has a vCPU on each core of the donor.
fn on_the_same_cores(
    donor: &Partition,
    written: &At<String>,
    receiver: &Partition,
    findings: &mut Findings,
) {
    let (Some(given), Some(used)) = (&donor.cores, &receiver.cores) else {
        return;
    };
    let used_cores: BTreeSet<u64> = used.value.iter().map(|core| core.value).collect();
    findings.comparisons.add(given.value.len());
    let Some(missing) = given.value.iter().find(|core| !used_cores.contains(&core.value)) else {
        return;
    };
    let (name, receiver) = (&donor.name.value, &receiver.name.value);
    let finding = Finding::new(
        Rule::DonatesApart,
        format!("`{name}` donates to `{receiver}`, which has no vCPU on core {}", missing.value),
        "name a partition that runs on each core of the donor: nobody could use the time elsewhere",
    );
    findings.push(finding.at(written.place, "the receiver").with(used.place, "its cores"));
}

/// Followed from donor to receiver, donations end: time comes to rest with somebody who uses it, and the hygiene of a
/// switch is known beforehand.
fn no_circle(system: &SystemFile, receivers: &[Option<PartitionId>], findings: &mut Findings) {
    // A partition is walked through once: 0 is not seen, else the number of the walk that saw it.
    let mut seen = vec![0_usize; receivers.len()];
    for start in 0..receivers.len() {
        let walk = start + 1;
        let mut next = Some(start);
        while let Some(at) = next {
            let Some(mark) = seen.get_mut(at) else { break };
            if *mark != 0 {
                if *mark == walk {
                    findings.push(circle(system, at, receivers));
                }
                break;
            }
            *mark = walk;
            next = receivers.get(at).copied().flatten().map(usize::from);
        }
    }
}

fn circle(system: &SystemFile, start: usize, receivers: &[Option<PartitionId>]) -> Finding {
    let donor = system.partitions.get(start);
    let receiver = receivers
        .get(start)
        .copied()
        .flatten()
        .and_then(|id| system.partitions.get(usize::from(id)));
    let name =
        |partition: Option<&Partition>| partition.map_or("", |p| p.name.value.as_str()).to_owned();
    let finding = Finding::new(
        Rule::DonationCircle,
        format!("what `{}` donates comes back to it", name(donor)),
        "take one `donates-to` of the circle out: time is to come to rest with somebody who uses it",
    );
    let place = |partition: Option<&Partition>| Some(partition?.donates_to.as_ref()?.place);
    let finding = match place(donor) {
        Some(place) => finding.at(place, format!("to `{}`", name(receiver))),
        None => finding,
    };
    match place(receiver) {
        Some(place) => finding.with(place, "and from there on, back to where it came from"),
        None => finding,
    }
}
