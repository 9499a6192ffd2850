//! The pictures of memory: the board's RAM to scale, what is used of it magnified, and all of it in figures.

use bulkhead_table::Range;
use maud::{Markup, html};

use super::Seen;
use super::paint::{Bar, Paint, chip, number, percent, share, share_text};
use crate::units::near_size;
use crate::view::{Extent, Holder, rights_words};

/// Where the used part takes less than this of a range, it is drawn once more, magnified.
const MAGNIFIED_BELOW: f64 = 60.0;

/// The whole section.
pub(super) fn section(seen: &Seen<'_>) -> Markup {
    let map = seen.plan.memory_map();
    html! {
        section aria-labelledby="memory" {
            h2 #memory { "Memory" }
            p { "Host-physical addresses: where each piece lies in the machine. No byte has two owners, and what is free is in nobody's page tables." }
            @for range in &seen.plan.board.memory { (range_figure(seen, *range, &map)) }
            (table(seen, &map))
        }
    }
}

fn range_figure(seen: &Seen<'_>, range: Range, map: &[Extent]) -> Markup {
    let inside: Vec<&Extent> = map.iter().filter(|extent| range.contains(&extent.range)).collect();
    let used = used(&inside);
    let magnified = used.filter(|used| share(used.size, range.size) < MAGNIFIED_BELOW);
    html! {
        figure {
            div.scroll { div.wide {
                (bar(seen, range, &inside, magnified))
                @if let Some(used) = magnified { (bar(seen, used, &inside, None)) }
            } }
            figcaption { (caption(range, magnified)) }
        }
    }
}

/// From the first to the last byte that somebody has.
fn used(extents: &[&Extent]) -> Option<Range> {
    let mut owned = extents.iter().filter(|extent| extent.holder != Holder::Free);
    let first = owned.next()?.range;
    let last = owned.next_back().map_or(first, |extent| extent.range);
    Some(Range { start: first.start, size: last.end() - first.start })
}

fn caption(range: Range, magnified: Option<Range>) -> String {
    let whole = format!("To scale: {} of RAM from {:#x}.", near_size(range.size), range.start);
    match magnified {
        None => whole,
        Some(used) => format!(
            "{whole} Below it the used {}, magnified {:.1} times, to its own scale.",
            near_size(used.size),
            range.size as f64 / used.size.max(1) as f64
        ),
    }
}

/// One bar of the part `view` of the memory, with its ends written under it.
fn bar(seen: &Seen<'_>, view: Range, extents: &[&Extent], magnified: Option<Range>) -> Markup {
    let shown = extents.iter().filter(|extent| view.contains(&extent.range));
    let spoken: Vec<String> = shown.clone().map(|extent| seen.extent_title(extent)).collect();
    html! {
        svg.map height=(if magnified.is_some() { 84 } else { 68 }) role="img" data-start=(view.start) data-size=(view.size)
            aria-label={ "Memory from " (hex(view.start)) ": " (spoken.join("; ")) } {
            @for extent in shown {
                (Bar {
                    from: share(extent.range.start - view.start, view.size),
                    width: share(extent.range.size, view.size),
                    vertical: (2, 44),
                    paint: Paint::holder(extent.holder),
                    title: seen.extent_title(extent),
                    labels: &[seen.holder_name(extent.holder), holder_number(extent.holder).as_str()],
                }.draw())
            }
            text.at x="0" y="61" { (hex(view.start)) }
            text.at x="100%" y="61" text-anchor="end" { (hex(view.end())) }
            @if let Some(used) = magnified {
                @let (from, to) = (share(used.start - view.start, view.size), share(used.end() - view.start, view.size));
                line.zoom x1=(percent(from)) y1="47" x2="0" y2="92" {}
                line.zoom x1=(percent(to)) y1="47" x2="100%" y2="92" {}
            }
        }
    }
}

fn table(seen: &Seen<'_>, map: &[Extent]) -> Markup {
    let total: u64 = map.iter().map(|extent| extent.range.size).sum();
    html! {
        div.scroll { table {
            caption { "The same in figures; an end is the last byte" }
            thead { tr {
                th scope="col" { "owner" } th.number scope="col" { "size" } th.number scope="col" { "of the RAM" }
                th scope="col" { "host-physical" } th scope="col" { "guest-physical" } th scope="col" { "rights" } th scope="col" { "line" }
            } }
            tbody { @for extent in map { (row(seen, extent, total)) } }
        } }
    }
}

fn row(seen: &Seen<'_>, extent: &Extent, total: u64) -> Markup {
    let region = match extent.holder {
        Holder::Partition(id) => seen
            .plan
            .partitions()
            .get(usize::from(id))
            .and_then(|partition| partition.region_of_host(extent.range.start)),
        Holder::Hypervisor | Holder::Free => None,
    };
    let name = seen.holder_name(extent.holder);
    let place = match extent.holder {
        Holder::Partition(_) => seen.places.value(&format!("partition.{name}.memory")),
        Holder::Hypervisor => seen.places.value("hypervisor.size"),
        Holder::Free => None,
    };
    html! {
        tr {
            th scope="row" { (chip(&Paint::holder(extent.holder), name)) }
            td.number { (near_size(extent.range.size)) }
            td.number { (share_text(extent.range.size, total)) }
            td.figure { (span(extent.range)) }
            @match region {
                Some(region) => {
                    td.figure { (span(Range { start: region.guest, size: region.size })) }
                    td { (rights_words(region.rights).join(", ")) }
                }
                None => { td.none { "none" } td.none { "none" } }
            }
            td.place { (seen.line(place)) }
        }
    }
}

/// What is written on a bar that is too narrow for the name.
fn holder_number(holder: Holder) -> String {
    match holder {
        Holder::Partition(id) => number(id),
        Holder::Hypervisor | Holder::Free => String::new(),
    }
}

fn hex(address: u64) -> String {
    format!("{address:#x}")
}

fn span(range: Range) -> String {
    format!("{:#x} to {:#x}", range.start, range.end().saturating_sub(1))
}

impl Seen<'_> {
    fn holder_name(&self, holder: Holder) -> &str {
        match holder {
            Holder::Partition(id) => self.plan.name_of(id),
            Holder::Hypervisor => "hypervisor",
            Holder::Free => "free",
        }
    }

    fn extent_title(&self, extent: &Extent) -> String {
        let size = near_size(extent.range.size);
        format!("{}: {size}, {}", self.holder_name(extent.holder), span(extent.range))
    }
}
