//! Properties of time: for random plans each window gets its declared time to the tick, at every instant a core has
//! one owner, and no change of plan at the edge of a frame finds too little time for the switch.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::fmt::Write;

use bulkhead_config::PlannedRole;
use bulkhead_table::{Owner, Window};
use common::Case;
use proptest::prelude::*;

/// Ticks of the test board `with-hygiene`: the switch budget, and what each kind of hygiene takes.
const BUDGET: u64 = 1_000;
const COSTS: [(&str, u64); 3] = [("l1d-flush", 250), ("branch-barrier", 50), ("buffer-clear", 100)];

/// A wish for a window: whose it is (taken modulo the owners), ticks behind its budget, ticks of guest time.
type Slot = (usize, u64, u64);

/// Partitions by the hygiene they ask for; slots by plan.
#[derive(Clone, Debug)]
struct Wishes {
    hygiene: Vec<[bool; 3]>,
    plans: Vec<Vec<Slot>>,
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let slot = (0_usize..8, prop_oneof![Just(0_u64), 0_u64..500], BUDGET * 2..6_000);
    let plan = prop::collection::vec(slot, 1..6);
    (prop::collection::vec(any::<[bool; 3]>(), 1..5), prop::collection::vec(plan, 1..5))
        .prop_map(|(hygiene, plans)| Wishes { hygiene, plans })
}

/// A window as the test means it, without the compiler's arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meant {
    owner: Option<usize>,
    start: u64,
    length: u64,
    budget: u64,
}

impl Wishes {
    /// Owners of a plan's windows: partitions, and at the end housekeeping (`None`), which is in every plan.
    fn owners(&self, plan: &[Slot]) -> Vec<(Option<usize>, u64, u64)> {
        let count = self.hygiene.len();
        let mut slots: Vec<_> = plan
            .iter()
            .map(|(owner, gap, length)| {
                (Some(owner % (count + 1)).filter(|id| *id < count), *gap, *length)
            })
            .collect();
        if slots.iter().all(|(owner, ..)| owner.is_some()) {
            slots.push((None, 0, BUDGET * 2));
        }
        slots
    }

    fn cost(&self, one: usize, other: usize) -> u64 {
        (0..COSTS.len())
            .filter(|kind| one != other && (self.hygiene[one][*kind] || self.hygiene[other][*kind]))
            .map(|kind| COSTS[kind].1)
            .sum()
    }

    /// Windows by plan, each as early as its budget allows and its gap later, and the shortest frame for them all.
    fn meant(&self) -> (Vec<Vec<Meant>>, u64) {
        let plans: Vec<_> = self.plans.iter().map(|plan| self.owners(plan)).collect();
        let last = |plan: &Vec<(Option<usize>, u64, u64)>| plan.iter().rev().find_map(|it| it.0);
        let lasts: Vec<usize> = plans.iter().filter_map(last).collect();
        let mut frame = 0;
        let mut meant = Vec::new();
        for plan in &plans {
            let mut now = 0;
            let mut windows = Vec::new();
            let mut before = lasts.clone();
            for (owner, gap, length) in plan {
                // Nothing is cleaned before housekeeping, and behind it as if it had not been there.
                let cost = |id: usize| before.iter().map(|before| self.cost(*before, id)).max();
                let budget = BUDGET + owner.and_then(cost).unwrap_or(0);
                let start = now + budget + gap;
                windows.push(Meant { owner: *owner, start, length: *length, budget });
                now = start + length;
                before = owner.map_or(before, |id| vec![id]);
            }
            frame = frame.max(now);
            meant.push(windows);
        }
        (meant, frame)
    }

    fn text(&self) -> String {
        let (meant, frame) = self.meant();
        let names: Vec<_> = (0..meant.len()).map(|plan| format!("\"plan-{plan}\"")).collect();
        let mut text = format!(
            "[system]\nname = \"random\"\nboard = \"boards/with-hygiene.toml\"\n[schedule]\nframe = \"{frame} ticks\"\nplans = [{}]\n[housekeeping]\ncore = 0\n",
            names.join(", ")
        );
        windows(&mut text, "housekeeping", &meant, None);
        let mut right = if meant.len() > 1 { "may-switch-plan = true\n" } else { "" };
        for (id, hygiene) in self.hygiene.iter().enumerate() {
            let plays = |plan: &[Meant]| plan.iter().any(|window| window.owner == Some(id));
            if !meant.iter().any(|plan| plays(plan)) {
                // Who has no window at all would want a core: another one is there for it.
                writeln!(
                    text,
                    "[partition.p{id}]\nimage = \"good.elf\"\nmemory = \"2 MiB\"\ncores = [1]"
                )
                .unwrap();
                writeln!(
                    text,
                    "[[partition.p{id}.window]]\nstart = \"{} ticks\"",
                    4_000 * id + 1_400
                )
                .unwrap();
                writeln!(text, "length = \"2001 ticks\"").unwrap();
                continue;
            }
            writeln!(
                text,
                "[partition.p{id}]\nimage = \"good.elf\"\nmemory = \"2 MiB\"\ncores = [0]\n{right}"
            )
            .unwrap();
            right = "";
            let words: Vec<_> = COSTS
                .iter()
                .zip(hygiene)
                .filter(|(_, wanted)| **wanted)
                .map(|((word, _), _)| format!("\"{word}\""))
                .collect();
            if !words.is_empty() {
                writeln!(text, "hygiene = [{}]", words.join(", ")).unwrap();
            }
            let off: Vec<_> = names
                .iter()
                .zip(&meant)
                .filter(|(_, plan)| !plays(plan))
                .map(|(name, _)| name.as_str())
                .collect();
            if !off.is_empty() {
                writeln!(text, "off-in = [{}]", off.join(", ")).unwrap();
            }
            windows(&mut text, &format!("partition.p{id}"), &meant, Some(id));
        }
        text
    }
}

fn windows(text: &mut String, section: &str, meant: &[Vec<Meant>], owner: Option<usize>) {
    for (number, plan) in meant.iter().enumerate() {
        for Meant { start, length, .. } in plan.iter().filter(|window| window.owner == owner) {
            writeln!(text, "[[{section}.window]]\nstart = \"{start} ticks\"").unwrap();
            writeln!(text, "length = \"{length} ticks\"\nplans = [\"plan-{number}\"]").unwrap();
        }
    }
}

fn planned(window: &Window) -> Meant {
    let owner = match window.owner {
        Owner::Partition(id) => Some(usize::from(id)),
        Owner::Housekeeping => None,
    };
    Meant { owner, start: window.start, length: window.length, budget: window.budget }
}

/// Between any frame and any next one: the budget of the first window is free.
fn every_change_of_plan_has_its_time(plans: &[Vec<Window>], frame: u64) {
    for from in plans {
        let end = from.last().map(|last| last.start + last.length).unwrap();
        for into in plans {
            let first = into.first().unwrap();
            assert!(frame + first.start >= end + first.budget);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn windows_get_their_declared_time(wishes in wishes()) {
        let (mut meant, mut frame) = wishes.meant();
        // The partitions without a window on core 0 have theirs within the frame.
        let room = 4_000 * wishes.hygiene.len() as u64 + 4_000;
        let mut text = wishes.text();
        if frame < room {
            text = text.replace(&format!("frame = \"{frame} ticks\""), &format!("frame = \"{room} ticks\""));
            frame = room;
        }
        let switches = text.contains("may-switch-plan");
        if wishes.plans.len() > 1 && !switches {
            // Nobody but housekeeping runs on core 0: only one plan could ever come.
            return Ok(());
        }
        let case = Case::new("system.toml", &text);
        let compiled = case.compile().unwrap_or_else(|error| panic!("{text}\n{error}"));
        prop_assert_eq!(compiled.plan().frame(), frame);
        let PlannedRole::Shared(plans) = &compiled.plan().cores()[0].role else {
            panic!("core 0 is shared");
        };
        every_change_of_plan_has_its_time(plans, frame);
        for (plan, meant) in plans.iter().zip(&mut meant) {
            let found: Vec<_> = plan.iter().map(planned).collect();
            prop_assert_eq!(&found, meant, "{}", text);
        }
    }

    /// A window a tick earlier than its budget behind the one before it allows is refused.
    #[test]
    fn one_tick_too_early_is_refused(wishes in wishes(), which in any::<prop::sample::Index>()) {
        let (meant, _) = wishes.meant();
        let text = wishes.text();
        let tight: Vec<_> = wishes.plans.iter().zip(&meant)
            .flat_map(|(slots, windows)| slots.iter().zip(windows).skip(1))
            .filter(|((_, gap, _), _)| *gap == 0)
            .map(|(_, window)| window)
            .collect();
        prop_assume!(!tight.is_empty());
        let Meant { start, length, .. } = which.get(&tight);
        let old = format!("start = \"{start} ticks\"\nlength = \"{length} ticks\"");
        let new = format!("start = \"{} ticks\"\nlength = \"{length} ticks\"", start - 1);
        let case = Case::new("system.toml", &text.replacen(&old, &new, 1));
        prop_assert!(case.compile().is_err(), "{}", text);
    }
}
