//! The report as one page: who owns what, when and where, from which bytes, under which rules.
//!
//! Self-contained HTML: style and pictures are inside, nothing is fetched, no script runs. The same files give
//! the same page, byte for byte: it carries no date. Everything that came from a file is escaped by `maud`.

mod beside;
mod matrix;
mod memory;
mod paint;
mod time;

use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::places::Places;
use crate::plan::{Plan, PlannedPartition};
use crate::rules::{Rule, Severity};
use crate::source::Place;
use crate::units::near_size;
use crate::{Compiled, ImageKind, Module, view};
use paint::{clean, grouped, partition_chip, share_text};

/// The look of a page, light and dark by the reader's setting, for other pages of the same house.
const STYLE: &str = include_str!("style.css");

/// The system of the page, and the places of its files.
struct Seen<'p> {
    plan: &'p Plan,
    places: Places<'p>,
    /// Once it is built.
    compiled: Option<&'p Compiled>,
}

impl Plan {
    /// The report as an HTML page. Images that are not built yet have no digest in it.
    #[must_use]
    pub fn page(&self) -> String {
        page(self, None)
    }
}

impl Compiled {
    /// The report as an HTML page, with the digests of the images and of the table.
    #[must_use]
    pub fn page(&self) -> String {
        page(self.plan(), Some(self))
    }
}

/// The head of a page of Bulkhead's, with its style; `more` is style that only this page has.
#[must_use]
pub fn page_head(title: &str, more: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="generator" content={ "Bulkhead " (env!("CARGO_PKG_VERSION")) };
            title { (title) }
            style { (PreEscaped(STYLE)) (PreEscaped(more)) }
        }
    }
}

fn page(plan: &Plan, compiled: Option<&Compiled>) -> String {
    let seen = Seen { plan, places: Places::of(&plan.texts), compiled };
    let title = format!("{} on {}", plan.system_name(), plan.board_name());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (page_head(&format!("{title}: Bulkhead report"), ""))
            body {
                (patterns())
                (head(&seen))
                main {
                    (matrix::section(&seen))
                    (time::section(&seen))
                    (memory::section(&seen))
                    (channels())
                    (sources(&seen))
                    (warnings(&seen))
                    (rules())
                }
                footer { "Written by Bulkhead " (env!("CARGO_PKG_VERSION")) " from the proven plan. The same files give the same page, byte for byte: it carries no date." }
            }
        }
    };
    page.into_string()
}

/// The hatching that all pictures share.
fn patterns() -> Markup {
    html! {
        svg.hidden width="0" height="0" aria-hidden="true" {
            defs {
                pattern #hatch width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                    line x1="0" y1="0" x2="0" y2="6" stroke-width="4" {}
                }
            }
        }
    }
}

fn head(seen: &Seen<'_>) -> Markup {
    let plan = seen.plan;
    html! {
        header {
            p.kicker { "Bulkhead system report" }
            h1 { (plan.system_name()) }
            p.lead { "on the board " b { (plan.board_name()) } @if let Some(file) = plan.sources().first() { ", from " code { (clean(&crate::source::shown(file))) } } }
            (facts(seen))
            nav aria-label="Sections" {
                @for (id, name) in [("ownership", "Who owns what"), ("time", "Time"), ("memory", "Memory"), ("channels", "Channels"),
                    ("files", "Files and digests"), ("warnings", "Warnings"), ("rules", "Rules")] {
                    a href={ "#" (id) } { (name) }
                }
            }
        }
    }
}

fn facts(seen: &Seen<'_>) -> Markup {
    let plan = seen.plan;
    let given: u64 = plan.partitions().iter().map(|partition| partition.size()).sum();
    let ram: u64 = plan.board.memory.iter().map(|range| range.size).sum();
    let megahertz = plan.tsc_hz() as f64 / 1e6;
    let fact = |name: &str, value: String, note: String| {
        html! { div { dt { (name) } dd { (value) small { (note) } } } }
    };
    html! {
        dl.facts {
            (fact("Partitions", plan.partitions().len().to_string(), plan_count(plan)))
            (fact("Cores in use", format!("{} of {}", plan.cores().len(), plan.board_cores()), core_kinds(plan)))
            (fact("Memory of the partitions", near_size(given), format!("{} of {} RAM", share_text(given, ram), near_size(ram))))
            (fact("Major frame", if plan.frame() == 0 { "none".to_owned() } else { seen.duration(plan.frame()) }, format!("clock {megahertz} MHz, switch budget {}", seen.duration(plan.switch_budget()))))
            (fact("Ends", ends(seen), match plan.at_latest() { Some(ticks) => format!("at the latest after {}", seen.duration(ticks)), None => "no time limit".to_owned() }))
            (fact("Rules", format!("all {} hold", Rule::ALL.iter().filter(|rule| rule.severity() == Severity::Error).count()), match plan.warnings().len() { 0 => "no warning".to_owned(), 1 => "1 warning".to_owned(), count => format!("{count} warnings") }))
        }
    }
}

fn plan_count(plan: &Plan) -> String {
    match plan.plans().len() {
        1 => "one plan".to_owned(),
        count => format!("{count} plans"),
    }
}

fn core_kinds(plan: &Plan) -> String {
    use crate::plan::PlannedRole::{Dedicated, Housekeeping, Shared};
    let count = |wanted: fn(&crate::plan::PlannedRole) -> bool| {
        plan.cores().iter().filter(|core| wanted(&core.role)).count()
    };
    let kinds = [
        (count(|role| matches!(role, Dedicated(_))), "dedicated"),
        (count(|role| matches!(role, Shared(_))), "time-shared"),
        (count(|role| matches!(role, Housekeeping)), "housekeeping"),
    ];
    let words =
        kinds.iter().filter(|kind| kind.0 > 0).map(|(count, name)| format!("{count} {name}"));
    words.collect::<Vec<_>>().join(", ")
}

fn ends(seen: &Seen<'_>) -> String {
    let names: Vec<&str> =
        seen.plan.when_finished().iter().map(|id| seen.plan.name_of(*id)).collect();
    match names.as_slice() {
        [] => "never by itself".to_owned(),
        names => format!("with {}", names.join(", ")),
    }
}

fn channels() -> Markup {
    html! {
        section aria-labelledby="channels" {
            h2 #channels { "Channels" }
            p { "None: the language has no channels yet, so no partition can reach another through Bulkhead, and no memory is shared." }
        }
    }
}

fn sources(seen: &Seen<'_>) -> Markup {
    html! {
        section aria-labelledby="files" {
            h2 #files { "Files and digests" }
            @match seen.compiled {
                Some(compiled) => p { "The table carries the SHA-256 over all of these: " code.hash { (hex(&compiled.digest())) } "." },
                None => p { "Written without a build: the digest of the table, and those of images made from a folder, are known once they are built (" code { "--build" } ")." },
            }
            div.scroll { table {
                caption { "Texts that were read" }
                thead { tr { th scope="col" { "file" } th.number scope="col" { "bytes" } th scope="col" { "SHA-256" } } }
                tbody {
                    @for source in seen.plan.texts.iter() {
                        tr {
                            th scope="row" { code { (clean(&source.shown())) } }
                            td.number { (grouped(source.text.len() as u64)) }
                            td.hash { code { (hex(&Sha256::digest(source.text.as_bytes()))) } }
                        }
                    }
                }
            } }
            div.scroll { table {
                caption { "Guest images: flattened, as they are staged and checked before each start" }
                thead { tr { th scope="col" { "partition" } th scope="col" { "made from" } th scope="col" { "arguments" } th.number scope="col" { "bytes" } th scope="col" { "SHA-256" } } }
                tbody {
                    @for (partition, id) in seen.plan.partitions().iter().zip(0_u16..) { (image_row(seen, partition, id)) }
                }
            } }
        }
    }
}

fn image_row(seen: &Seen<'_>, partition: &PlannedPartition, id: u16) -> Markup {
    let module: Option<&Module> =
        seen.compiled.and_then(|compiled| compiled.modules().get(usize::from(id)));
    html! {
        tr {
            th scope="row" { (partition_chip(seen.plan, id)) }
            td { code { (image_name(seen, partition)) } " " span.none { (kind(partition.image.kind)) } }
            td { @if partition.arguments.is_empty() { span.none { "none" } } @else { code { (partition.arguments) } } }
            @match module {
                Some(module) => {
                    td.number { (grouped(module.bytes.len() as u64)) }
                    td.hash { code { (hex(&module.digest)) } }
                }
                None => { td.none { } td.none { "not built here" } }
            }
        }
    }
}

const fn kind(kind: ImageKind) -> &'static str {
    match kind {
        ImageKind::Elf => "ELF file",
        ImageKind::Cargo => "built by cargo",
        ImageKind::Make => "built by make",
        ImageKind::Kernel => "kernel",
        ImageKind::Ramdisk => "initial RAM disk",
    }
}

/// The image as the file names it, fit for HTML.
fn image_name(seen: &Seen<'_>, partition: &PlannedPartition) -> String {
    clean(&view::image_name(seen.plan, &seen.places, partition))
}

fn warnings(seen: &Seen<'_>) -> Markup {
    let found = seen.plan.warnings();
    html! {
        section aria-labelledby="warnings" {
            h2 #warnings { "Warnings" }
            @if found.is_empty() {
                p { "None." }
            } @else {
                p { "The system compiles; a person should look at these." }
                pre { (found.render(false).lines().map(clean).collect::<Vec<_>>().join("\n")) }
            }
        }
    }
}

fn rules() -> Markup {
    html! {
        section aria-labelledby="rules" {
            h2 #rules { "Rules" }
            p { "Each of these was checked, and " span.good { "each that can refuse a system holds" } ". " code { "bulkhead explain CODE" } " says why it exists." }
            ul.rules {
                @for rule in Rule::ALL {
                    li { code { (rule.code()) } (rule.statement()) @if rule.severity() == Severity::Warning { span.none { " (a warning)" } } }
                }
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Seen<'_> {
    /// `demo.toml:23`; nothing where no line says so.
    fn line(&self, place: Option<Place>) -> String {
        place.map(|place| clean(&self.plan.texts.name_and_line(place))).unwrap_or_default()
    }
}
