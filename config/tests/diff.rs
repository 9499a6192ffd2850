//! What `diff` says: each single change names exactly whom it concerns, and nothing that matters goes unsaid.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;

use bulkhead_config::{Compiled, Difference, Gravity, diff};
use common::Case;
use proptest::prelude::*;

const SYSTEM: &str = include_str!("seeing/line.toml");

fn compiled(text: &str) -> (Case, Compiled) {
    let case = Case::new("line.toml", text);
    let compiled = case.compile().unwrap_or_else(|error| panic!("{text}\n{error}"));
    (case, compiled)
}

/// What changes from one text to the other, with the file names as `old/` and `new/`.
fn difference(old: &str, new: &str) -> (Difference, String) {
    let ((old_case, old), (new_case, new)) = (compiled(old), compiled(new));
    let difference = diff(old.plan(), new.plan());
    let rendered = difference.render();
    let folder = |case: &Case| format!("{}/", case.folder.path().display());
    let neutral = rendered.replace(&folder(&old_case), "old/").replace(&folder(&new_case), "new/");
    (difference, neutral)
}

/// The shipped test system with each `from` replaced.
fn changed(replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(SYSTEM.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

#[test]
fn the_words() {
    let cases: &[&[(&str, &str)]] = &[
        &[("cores = [1]", "cores = [2]")],
        &[("cores = [1]", "cores = [1, 2]")],
        &[("memory = \"12 MiB\"", "memory = \"16 MiB\"")],
        &[("length = \"600 us\"", "length = \"580 us\"")],
        &[("start = \"1.1 ms\"", "start = \"1.12 ms\"")],
        &[("[[partition.noise.window]]\nstart = \"1.1 ms\"\nlength = \"400 us\"\n", "")],
        &[("frame = \"2 ms\"", "frame = \"2.5 ms\"")],
        &[
            ("when-finished = [\"motion\"]", "when-finished = [\"motion\", \"plc\"]"),
            ("at-latest = \"10 s\"\n", ""),
        ],
        &[("image = \"good.elf\"\narguments", "image = \"i386.elf\"\narguments")],
        &[("period=100us", "period=50us")],
        &[
            ("[partition.noise]", "[partition.press]"),
            ("partition.noise.window", "partition.press.window"),
        ],
        &[("name = \"line\"", "name = \"other\"")],
        &[(
            "[housekeeping]\ncore = 0\n[[housekeeping.window]]\nstart = \"1.58 ms\"\nlength = \"400 us\"",
            "[housekeeping]\ncore = 3",
        )],
        &[(
            "length = \"400 us\"\n\n[partition.motion]",
            "length = \"390 us\"\n\n[partition.motion]",
        )],
        &[
            ("frame = \"2 ms\"", "frame = \"2 ms\"\nplans = [\"normal\", \"maintenance\"]"),
            (
                "memory = \"12 MiB\"",
                "memory = \"12 MiB\"\nmay-switch-plan = true\ndonates-to = \"noise\"\noff-in = [\"maintenance\"]",
            ),
        ],
        &[("[system]", "# A comment.\n\n[system]"), ("\"8 MiB\"", "\"8192 KiB\"")],
        &[("name = \"line\"", "name = \"line\"")],
    ];
    let mut out = String::new();
    for replacements in cases {
        for (from, to) in *replacements {
            writeln!(out, "- {}\n+ {}", from.replace('\n', "\n  "), to.replace('\n', "\n  "))
                .unwrap();
        }
        let (_, rendered) = difference(SYSTEM, &changed(replacements));
        writeln!(out, "{rendered}").unwrap();
    }
    insta::assert_snapshot!(out);
}

#[test]
fn another_board() {
    let board = |case: &Case, from: &str, to: &str| {
        let path = case.folder.path().join("boards/bochs-skylake-x.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    };
    let (_old_case, old) = compiled(SYSTEM);
    let changes = [
        ("tsc = \"50 MHz\"", "tsc = \"100 MHz\"", "board"),
        ("tolerance = \"0.1 %\"", "tolerance = \"0.2 %\"", "board"),
        ("skew = \"100 ns\"", "skew = \"200 ns\"", "board"),
        ("switch-budget = \"20 us\"", "switch-budget = \"10 us\"", "board"),
        ("apic-id = 3", "apic-id = 6", "board"),
        ("size = \"510 MiB\"", "size = \"256 MiB\"", "board"),
        ("name = \"bochs-skylake-x\"", "name = \"other\"", "board"),
        ("size = \"31 MiB\"", "size = \"30 MiB\"", "hypervisor"),
        ("baud = 115200", "baud = 57600", "hypervisor"),
        ("bytes = \"Shutdown\"", "bytes = \"Off\"", "hypervisor"),
    ];
    for (from, to, subject) in changes {
        let case = Case::new("line.toml", SYSTEM);
        board(&case, from, to);
        let new = case.compile().unwrap();
        let subjects: BTreeSet<String> =
            diff(old.plan(), new.plan()).changes.into_iter().map(|change| change.subject).collect();
        assert_eq!(subjects, BTreeSet::from([subject.to_owned()]), "{to}");
    }
}

#[test]
fn a_neighbour_on_the_other_thread_is_told() {
    let text = include_str!("accept/accepted-sibling.toml");
    let (_, words) = difference(
        text,
        &text
            .replace("cores = [3]", "cores = [1]")
            .replace("accept-smt-sibling = [\"noise\"]\n", "")
            .replace("accept-smt-sibling = [\"motion\"]\n", ""),
    );
    assert!(
        words.contains("motion  accepts others on the threads beside it: noise -> nobody"),
        "{words}"
    );
    assert!(
        words.contains("noise   accepts others on the threads beside it: motion -> nobody"),
        "{words}"
    );
    assert!(words.contains("noise   gains core 1 (dedicated)"), "{words}");
}

#[test]
fn other_bytes_under_one_name_are_seen() {
    let ((old_case, old), (new_case, new)) = (compiled(SYSTEM), compiled(SYSTEM));
    assert!(diff(old.plan(), new.plan()).is_empty());
    let path = new_case.folder.path().join("good.elf");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(0);
    std::fs::write(&path, bytes).unwrap();
    let difference = diff(old.plan(), new.plan());
    assert_eq!(difference.changes.len(), 3, "each partition runs it");
    assert!(difference.changes.iter().all(|change| change.gravity == Gravity::Program));
    drop(old_case);
}

/// A system that is easily changed in one place.
#[derive(Clone, Debug)]
struct Model {
    name: &'static str,
    frame_us: u64,
    at_latest_s: u64,
    log_windows: bool,
    finished: usize,
    partitions: Vec<Part>,
}

/// A partition; on a core of its own, or with a window a slot of 1 ms.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    core: u64,
    mib: u64,
    period: u64,
    window: Option<(u64, u64)>,
    may_switch: bool,
    donates: bool,
    cleaned: bool,
}

impl Model {
    fn text(&self) -> String {
        let mut text = format!(
            "[system]\nname = \"{}\"\nboard = \"boards/with-hygiene.toml\"\n[schedule]\nframe = \"{} us\"\nplans = [\"normal\", \"night\"]\n",
            self.name, self.frame_us
        );
        let finished = &self.partitions[self.finished].name;
        writeln!(
            text,
            "[shutdown]\nwhen-finished = [\"{finished}\"]\nat-latest = \"{} s\"",
            self.at_latest_s
        )
        .unwrap();
        writeln!(text, "[log]\nwindows = {}\n[housekeeping]\ncore = 3", self.log_windows).unwrap();
        for part in &self.partitions {
            part.write(&mut text);
        }
        text
    }
}

impl Part {
    fn write(&self, text: &mut String) {
        writeln!(text, "[partition.{}]\nimage = \"good.elf\"", self.name).unwrap();
        writeln!(text, "arguments = \"period={}us\"\nmemory = \"{} MiB\"", self.period, self.mib)
            .unwrap();
        writeln!(text, "cores = [{}]", self.core).unwrap();
        if self.may_switch {
            writeln!(text, "may-switch-plan = true").unwrap();
        }
        if self.donates {
            writeln!(text, "donates-to = \"shared-0\"").unwrap();
        }
        if self.cleaned {
            writeln!(text, "hygiene = [\"l1d-flush\"]").unwrap();
        }
        if let Some((start, length)) = self.window {
            writeln!(text, "[[partition.{}.window]]\nstart = \"{start} us\"", self.name).unwrap();
            writeln!(text, "length = \"{length} us\"").unwrap();
        }
    }
}

fn part(name: String, core: u64, window: Option<(u64, u64)>) -> impl Strategy<Value = Part> {
    let shared = window.is_some();
    (2_u64..40, 50_u64..500, any::<[bool; 3]>()).prop_map(move |(mib, period, flags)| Part {
        donates: shared && flags[1] && name != "shared-0",
        core,
        mib,
        period,
        window,
        // One must, or the second plan would be refused as never reached.
        may_switch: flags[0] || name == "shared-0",
        cleaned: shared && flags[2],
        name: name.clone(),
    })
}

fn model() -> impl Strategy<Value = Model> {
    let shared: Vec<_> = (0..5_u64)
        .map(|slot| part(format!("shared-{slot}"), 0, Some((100 + slot * 1_000, 500 + slot * 20))))
        .collect();
    let alone: Vec<_> = (1..3_u64).map(|core| part(format!("alone-{core}"), core, None)).collect();
    (shared, alone, 2_usize..6, any::<bool>()).prop_map(|(shared, alone, count, log_windows)| {
        Model {
            name: "model",
            frame_us: 10_000,
            at_latest_s: 10,
            log_windows,
            finished: 0,
            partitions: shared.into_iter().take(count).chain(alone).collect(),
        }
    })
}

/// One change, and whom it concerns.
fn mutate(model: &mut Model, what: usize, which: usize) -> String {
    let count = model.partitions.len();
    let index = which % count;
    let part = &mut model.partitions[index];
    let name = part.name.clone();
    match what {
        0 => part.mib += 2,
        1 => part.period += 1,
        2 if index > 0 => part.may_switch = !part.may_switch,
        3 if part.window.is_some() => part.cleaned = !part.cleaned,
        4 if part.window.is_some() && index > 0 => part.donates = !part.donates,
        5 => match &mut part.window {
            Some((_, length)) => *length += 1,
            None => part.mib += 4,
        },
        6 => match &mut part.window {
            Some((start, _)) => *start += 1,
            None => part.period += 2,
        },
        7 if part.mib > 2 => part.mib -= 1,
        8 => {
            model.partitions.pop();
            return format!("alone-{}", 2);
        }
        9 => {
            model.frame_us += 10;
            return "schedule".to_owned();
        }
        10 => {
            model.at_latest_s += 1;
            return "shutdown".to_owned();
        }
        11 => {
            model.log_windows = !model.log_windows;
            return "log".to_owned();
        }
        12 => {
            model.finished = 1;
            return "shutdown".to_owned();
        }
        // Where the chosen partition has nothing of the kind.
        _ => {
            model.name = "renamed";
            return "system".to_owned();
        }
    }
    name
}

/// The table as the hypervisor would get it, without what names the text: digest and lines.
fn table(compiled: &Compiled) -> String {
    let lines = compiled.emit();
    let (mut out, mut in_digest) = (String::new(), false);
    for line in lines.lines().filter(|line| !line.trim_start().starts_with("place:")) {
        in_digest |= line.contains("digest:") && out.matches("digest:").count() == 0;
        if !in_digest {
            out.push_str(line);
            out.push('\n');
        } else if line.contains(']') {
            in_digest = false;
            out.push_str("digest:\n");
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_system_does_not_differ_from_itself(model in model()) {
        let ((_one_case, one), (_other_case, other)) = (compiled(&model.text()), compiled(&model.text()));
        let difference = diff(one.plan(), other.plan());
        prop_assert!(difference.is_empty() && difference.identical);
    }

    #[test]
    fn one_change_names_whom_it_concerns(model in model(), what in 0_usize..14, which: usize) {
        let mut other = model.clone();
        let subject = mutate(&mut other, what, which);
        let (old, new) = (model.text(), other.text());
        let ((_old_case, before), (_new_case, after)) = (compiled(&old), compiled(&new));
        let difference = diff(before.plan(), after.plan());
        // What the hypervisor enforces differs, or nothing is said; never one without the other.
        prop_assert_eq!(difference.is_empty(), table(&before) == table(&after), "{}", difference.render());
        let named: BTreeSet<&str> = difference
            .changes
            .iter()
            .filter(|change| change.gravity != Gravity::Placement || change.subject == subject)
            // Whoever has windows has another share of another frame.
            .filter(|change| subject != "schedule" || !change.sentence.contains(" a share of core "))
            .map(|change| change.subject.as_str())
            .collect();
        prop_assert_eq!(named, BTreeSet::from([subject.as_str()]), "{}", difference.render());
        // Backwards the same subjects change.
        let back = diff(after.plan(), before.plan());
        prop_assert_eq!(back.changes.len(), difference.changes.len());
    }
}
