//! What partitions have beyond their own: rights, cleaning at their switches, and neighbours in the machine.

use std::collections::BTreeSet;

use bulkhead_table::Owner;
use maud::{Markup, html};

use super::Seen;
use super::paint::partition_chip;
use crate::plan::{Plan, PlannedPartition, PlannedRole};
use crate::topology::Cache;
use crate::units::near_size;
use crate::view::hygiene_words;

/// Rights of the partitions, those that have any.
pub(super) fn rights(seen: &Seen<'_>) -> Markup {
    let with_any: Vec<(&PlannedPartition, u16)> = seen
        .plan
        .partitions()
        .iter()
        .zip(0_u16..)
        .filter(|(partition, _)| has_any(seen, partition))
        .collect();
    html! {
        h3 { "Rights and cleaning" }
        @if with_any.is_empty() {
            p { "No partition may ask for another plan or give its time away, and none asks for cleaning at its switches." }
        } @else {
            div.scroll { table {
                caption { "Partitions that are not named here have none of it" }
                thead { tr {
                    th scope="col" { "partition" } th scope="col" { "may ask for another plan" } th scope="col" { "may give the rest of a window to" }
                    th scope="col" { "cleaned at each switch" } th scope="col" { "accepts on the threads beside it" }
                } }
                tbody { @for (partition, id) in with_any { tr {
                    th scope="row" { (partition_chip(seen.plan, id)) }
                    td { (word(if partition.may_switch_plan { "yes" } else { "" })) }
                    td { (word(partition.donates_to.map_or("", |receiver| seen.plan.name_of(receiver)))) }
                    td { (word(&hygiene_words(partition.hygiene).join(", "))) }
                    td { (word(&accepted(seen, partition).join(", "))) }
                } } }
            } }
        }
    }
}

fn word(text: &str) -> Markup {
    if text.is_empty() {
        html! { span.none { "no" } }
    } else {
        html! { (text) }
    }
}

fn accepted<'s>(seen: &'s Seen<'_>, partition: &PlannedPartition) -> Vec<&'s str> {
    seen.places.texts(&format!("partition.{}.accept-smt-sibling", partition.name))
}

fn has_any(seen: &Seen<'_>, partition: &PlannedPartition) -> bool {
    partition.may_switch_plan
        || partition.donates_to.is_some()
        || !hygiene_words(partition.hygiene).is_empty()
        || !accepted(seen, partition).is_empty()
}

/// Something of the machine that several cores share.
struct Shared {
    what: String,
    cores: Vec<u16>,
}

/// Who shares a core's threads or a cache with whom, as far as the board says.
pub(super) fn neighbours(seen: &Seen<'_>) -> Markup {
    let plan = seen.plan;
    let told = !plan.positions().is_empty() || plan.caches().next().is_some();
    let shared: Vec<Shared> = threads(plan).into_iter().chain(caches(plan)).collect();
    html! {
        h3 { "Who runs beside whom" }
        @if !told {
            p { "The board file says neither which cores are threads of one, nor which share a cache." }
        } @else if shared.is_empty() {
            p { "No two cores of the board are threads of one core or share a cache." }
        } @else {
            div.scroll { table {
                caption { "What cores share can carry the load of one to another" }
                thead { tr { th scope="col" { "shared" } th scope="col" { "by the cores" } th scope="col" { "where there run" } } }
                tbody { @for shared in &shared { tr {
                    th scope="row" { (shared.what) }
                    td { (numbers(&shared.cores)) }
                    td { (runners(plan, &shared.cores)) }
                } } }
            } }
        }
    }
}

/// Cores of the machine with several threads.
fn threads(plan: &Plan) -> Vec<Shared> {
    let positions = plan.positions();
    let places: BTreeSet<(u32, u32)> =
        positions.iter().map(|position| (position.package, position.core)).collect();
    let core = |(package, core): (u32, u32)| {
        let here = positions.iter().zip(0_u16..);
        let here =
            here.filter(|(position, _)| (position.package, position.core) == (package, core));
        let what = format!("the threads of core {core} in package {package}");
        Shared { what, cores: here.map(|(_, cpu)| cpu).collect() }
    };
    places.into_iter().map(core).filter(|shared| shared.cores.len() > 1).collect()
}

fn caches(plan: &Plan) -> Vec<Shared> {
    let shared = plan.caches().filter(|cache| cache.cores.len() > 1);
    let what = |cache: &Cache| format!("cache of level {}, {}", cache.level, near_size(cache.size));
    shared.map(|cache| Shared { what: what(cache), cores: cache.cores.clone() }).collect()
}

fn numbers(cores: &[u16]) -> String {
    cores.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

/// Everybody who runs on one of these cores in some plan.
fn runners(plan: &Plan, cores: &[u16]) -> Markup {
    let mut owners = Vec::new();
    let mut add = |owner| {
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    };
    for role in cores.iter().filter_map(|cpu| plan.role_of(*cpu)) {
        match role {
            PlannedRole::Dedicated(id) => add(Owner::Partition(*id)),
            PlannedRole::Housekeeping => add(Owner::Housekeeping),
            PlannedRole::Shared(plans) => {
                plans.iter().flatten().for_each(|window| add(window.owner));
            }
        }
    }
    html! {
        @if owners.is_empty() { span.none { "nobody" } }
        @for owner in owners {
            @match owner {
                Owner::Partition(id) => { (partition_chip(plan, id)) " " }
                Owner::Housekeeping => { "housekeeping " }
            }
        }
    }
}
