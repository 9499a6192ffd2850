//! The ownership matrix: partition by core, memory, interrupts and devices.

use bulkhead_table::{Owner, PartitionId};
use maud::{Markup, html};

use super::Seen;
use super::beside;
use super::paint::{Paint, chip, numbered_chip, percent, share, share_text};
use crate::plan::PlannedRole;
use crate::units::near_size;

/// With more cores than this, they are drawn as one strip a row instead of a column each.
const MOST_COLUMNS: usize = 10;

/// How much of a core an owner has.
struct Part {
    cpu: u16,
    /// `whole`, or the share of the frame in each plan.
    words: String,
    /// Share of the frame in the plan that gives most.
    percent: f64,
}

/// The whole section.
pub(super) fn section(seen: &Seen<'_>) -> Markup {
    html! {
        section aria-labelledby="ownership" {
            h2 #ownership { "Who owns what" }
            p { "Each row is an owner, each column a thing of the machine. What no row has, nobody has." }
            div.scroll { table.matrix {
                thead { (heads(seen)) }
                tbody {
                    @for (_, id) in seen.plan.partitions().iter().zip(0_u16..) { (row(seen, id)) }
                    (machine_row(seen))
                }
            } }
            p.none {
                "Interrupts, ports and devices cannot be given to a partition yet, so the columns say none for each: the hypervisor masks every interrupt of the board, answers a port with all ones, and maps no device. A partition has the timer and the messages of its own local APIC. No IOMMU is programmed."
            }
            (beside::rights(seen))
            (beside::neighbours(seen))
        }
    }
}

fn heads(seen: &Seen<'_>) -> Markup {
    let cores = seen.plan.board_cores();
    let columns = cores <= MOST_COLUMNS;
    html! {
        tr {
            th scope="col" rowspan="2" { "partition" }
            @if columns { th.core scope="colgroup" colspan=(cores) { "core" } } @else {
                th scope="col" rowspan="2" { "runs on core" }
                th scope="col" { "cores" }
            }
            th.number scope="col" rowspan="2" { "memory" } th scope="col" rowspan="2" { "interrupts" }
            th scope="col" rowspan="2" { "ports and devices" } th scope="col" rowspan="2" { "image" } th scope="col" rowspan="2" { "line" }
        }
        tr {
            @if columns { @for cpu in 0..cores { th.core scope="col" { (cpu) } } } @else {
                th scope="col" { span.ends { span { "0" } span { (cores.saturating_sub(1)) } } }
            }
        }
    }
}

fn row(seen: &Seen<'_>, id: PartitionId) -> Markup {
    let plan = seen.plan;
    let Some(partition) = plan.partitions().get(usize::from(id)) else { return html! {} };
    let place = seen.places.value(&format!("partition.{}", partition.name));
    html! {
        tr {
            th scope="row" { (numbered_chip(plan, id)) }
            (cores(seen, Owner::Partition(id)))
            td.number { (near_size(partition.size())) }
            td.none { "none" } td.none { "none" }
            td { code { (super::image_name(seen, partition)) } }
            td.place { (seen.line(place)) }
        }
    }
}

/// The hypervisor's own row: housekeeping, and its memory.
fn machine_row(seen: &Seen<'_>) -> Markup {
    let plan = seen.plan;
    html! {
        tr {
            th scope="row" { (chip(&Paint::owner(Owner::Housekeeping), "hypervisor")) }
            (cores(seen, Owner::Housekeeping))
            td.number { (near_size(plan.board.hypervisor.size)) }
            td { "masks all" }
            td { @if let Some(uart) = plan.uart() { "serial line " code { (format!("{:#x}", uart.base)) } } @else { "no serial line" } }
            td.none { "its own" }
            td.place { (seen.line(seen.places.value("hypervisor"))) }
        }
    }
}

/// The cells of an owner's cores.
fn cores(seen: &Seen<'_>, owner: Owner) -> Markup {
    let count = seen.plan.board_cores();
    let parts: Vec<Part> =
        seen.plan.cores().iter().filter_map(|core| part(seen, owner, core.cpu)).collect();
    if count <= MOST_COLUMNS {
        return html! {
            @for cpu in 0..count { (cell(parts.iter().find(|part| usize::from(part.cpu) == cpu), owner)) }
        };
    }
    html! {
        td.runs { (runs_on(&parts)) }
        td { (strip(&parts, owner, count)) }
    }
}

/// One core: a square that is filled as far as the frame is, and the share in words.
fn cell(part: Option<&Part>, owner: Owner) -> Markup {
    let Some(part) = part else { return html! { td.core {} } };
    let paint = Paint::owner(owner);
    let height = part.percent * 0.16;
    html! {
        td.core {
            svg.cell style=[paint.style.as_ref()] width="16" height="16" aria-hidden="true" {
                rect.slack width="16" height="16" {}
                rect class=(paint.class) y=(format!("{:.2}", 16.0 - height)) width="16" height=(format!("{height:.2}")) {}
            }
            " " (part.words)
        }
    }
}

/// All cores of the board from left to right, an owner's in its colour.
fn strip(parts: &[Part], owner: Owner, count: usize) -> Markup {
    let paint = Paint::owner(owner);
    let width = 100.0 / count.max(1) as f64;
    html! {
        svg.strip style=[paint.style.as_ref()] aria-hidden="true" {
            @for part in parts {
                rect class=(paint.class) x=(percent(f64::from(part.cpu) * width)) width=(percent(width)) height="14" {}
            }
        }
    }
}

/// `2 to 5 whole, 8 (30.0 %)`.
fn runs_on(parts: &[Part]) -> String {
    let alike = parts.chunk_by(|one, next| one.cpu + 1 == next.cpu && one.words == next.words);
    let runs = alike.filter_map(|run| {
        let (first, last) = (run.first()?, run.last()?);
        let cores = match last.cpu - first.cpu {
            0 => first.cpu.to_string(),
            1 => format!("{}, {}", first.cpu, last.cpu),
            _ => format!("{} to {}", first.cpu, last.cpu),
        };
        Some(format!("{cores} ({})", first.words))
    });
    runs.collect::<Vec<_>>().join(", ")
}

fn part(seen: &Seen<'_>, owner: Owner, cpu: u16) -> Option<Part> {
    let plan = seen.plan;
    let whole = Part { cpu, words: "whole".to_owned(), percent: 100.0 };
    match plan.role_of(cpu)? {
        PlannedRole::Dedicated(id) => (owner == Owner::Partition(*id)).then_some(whole),
        PlannedRole::Housekeeping => (owner == Owner::Housekeeping).then_some(whole),
        PlannedRole::Shared(_) => {
            let times: Vec<u64> =
                (0..plan.plans().len()).map(|index| plan.time_of(owner, cpu, index)).collect();
            let most = times.iter().copied().max().filter(|most| *most > 0)?;
            let mut words: Vec<String> =
                times.iter().map(|time| share_text(*time, plan.frame())).collect();
            words.dedup();
            Some(Part { cpu, words: words.join(", "), percent: share(most, plan.frame()) })
        }
    }
}
