//! Random systems that are valid, and random mistakes in them.

use std::fmt::Write;

/// Ticks of the test board's switch budget, and with all hygiene on the board that declares what it costs.
const BUDGET: u64 = 1_000;
const BUDGET_WITH_HYGIENE: u64 = 1_400;
const PLANS: [&str; 3] = ["normal", "maintenance", "startup"];
const HYGIENE: [&str; 3] = ["l1d-flush", "branch-barrier", "buffer-clear"];
/// Cores of the test board; the last one is never time-shared.
const CORES: usize = 4;

/// Random numbers that were drawn before; zeros when there are no more.
#[derive(Clone, Debug)]
pub struct Dice {
    values: Vec<u32>,
    next: usize,
}

impl Dice {
    /// With these numbers to come.
    pub fn new(values: Vec<u32>) -> Self {
        Self { values, next: 0 }
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        let value = self.values.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        value as usize % sides
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.roll((most - least + 1) as usize) as u64
    }

    fn is(&mut self, one_in: usize) -> bool {
        self.roll(one_in) == 0
    }

    /// Those of `all` that the dice choose, in their order.
    fn some<T: Copy>(&mut self, all: &[T]) -> Vec<T> {
        all.iter().copied().filter(|_| self.is(2)).collect()
    }
}

/// A system that is being written.
struct Writer {
    dice: Dice,
    text: String,
    plans: usize,
    hygiene: bool,
    /// End of the last window by core and plan.
    ends: [[u64; 3]; CORES],
    /// Of the time-shared partitions so far: cores, and in which plans each is on.
    partitions: Vec<(Vec<usize>, Vec<bool>)>,
}

/// The text of a valid system: one to three plans, partitions on one to three time-shared cores, on and off by plan,
/// and partitions alone on theirs.
pub fn system(mut dice: Dice) -> String {
    let (plans, shared, hygiene) = (1 + dice.roll(3), 1 + dice.roll(3), dice.is(2));
    let mut writer = Writer {
        dice,
        text: String::new(),
        plans,
        hygiene,
        ends: [[0; 3]; CORES],
        partitions: Vec::new(),
    };
    writer.housekeeping();
    for index in 0..1 + writer.dice.roll(4) {
        writer.shared(index, shared);
    }
    // A core on which nobody got a window stays idle.
    for (index, first) in (shared..CORES).enumerate() {
        if writer.dice.is(2) {
            writer.dedicated(index, &[first]);
        }
    }
    writer.close()
}

fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(", "))
}

impl Writer {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").unwrap();
    }

    fn housekeeping(&mut self) {
        let length = self.dice.between(1_500, 3_000);
        self.line("[housekeeping]\ncore = 0");
        for plan in 0..self.plans {
            self.window("housekeeping", None, 0, plan, length);
        }
    }

    /// A window behind the last one of that core and plan.
    fn window(&mut self, owner: &str, named: Option<usize>, core: usize, plan: usize, length: u64) {
        let budget = if self.hygiene { BUDGET_WITH_HYGIENE } else { BUDGET };
        let gap = if self.dice.is(2) { 0 } else { self.dice.between(1, 500) };
        let start = self.ends[core][plan] + budget + gap;
        self.ends[core][plan] = start + length;
        self.line(&format!("[[{owner}.window]]\nstart = \"{start} ticks\""));
        self.line(&format!("length = \"{length} ticks\""));
        if let Some(core) = named {
            self.line(&format!("core = {core}"));
        }
        if self.plans > 1 {
            self.line(&format!("plans = {}", quoted(&[PLANS[plan]])));
        }
    }

    fn partition(&mut self, name: &str, cores: &[usize]) {
        let size = 4 * self.dice.between(512, 12_000);
        self.line(&format!("[partition.{name}]\nimage = \"good.elf\"\nmemory = \"{size} KiB\""));
        self.line(&format!("cores = {cores:?}"));
        if self.dice.is(3) {
            self.line("arguments = \"period=100us\"");
        }
    }

    /// The first one has all time-shared cores and is never off, so that each of them runs somebody in each plan.
    fn shared(&mut self, index: usize, shared: usize) {
        let all: Vec<usize> = (0..shared).collect();
        let mut cores = if index == 0 { all.clone() } else { self.dice.some(&all) };
        if cores.is_empty() {
            cores.push(self.dice.roll(shared));
        }
        let name = format!("shared-{index}");
        self.partition(&name, &cores);
        if self.plans > 1 && (index == 0 || self.dice.is(3)) {
            self.line("may-switch-plan = true");
        }
        if self.hygiene {
            let wanted = self.dice.some(&HYGIENE);
            if !wanted.is_empty() {
                self.line(&format!("hygiene = {}", quoted(&wanted)));
            }
        }
        let on: Vec<bool> =
            (0..self.plans).map(|plan| index == 0 || plan == 0 || !self.dice.is(3)).collect();
        self.donation(&cores, &on);
        let off: Vec<&str> =
            (0..self.plans).filter(|plan| !on[*plan]).map(|plan| PLANS[plan]).collect();
        if !off.is_empty() {
            self.line(&format!("off-in = {}", quoted(&off)));
        }
        for core in &cores {
            for plan in (0..self.plans).filter(|plan| on[*plan]) {
                for _ in 0..1 + self.dice.roll(2) {
                    let length = self.dice.between(1_500, 5_000);
                    let named = (cores.len() > 1).then_some(*core);
                    self.window(&format!("partition.{name}"), named, *core, plan, length);
                }
            }
        }
        self.partitions.push((cores, on));
    }

    /// To an earlier partition that runs wherever and whenever this one does: so donations never come back.
    fn donation(&mut self, cores: &[usize], on: &[bool]) {
        let runs_there = |(other, other_on): &(Vec<usize>, Vec<bool>)| {
            cores.iter().all(|core| other.contains(core))
                && on.iter().zip(other_on).all(|(own, other)| *other || !own)
        };
        let receiver = self.partitions.iter().rposition(runs_there);
        if let Some(receiver) = receiver.filter(|_| self.dice.is(2)) {
            self.line(&format!("donates-to = \"shared-{receiver}\""));
        }
    }

    fn dedicated(&mut self, index: usize, cores: &[usize]) {
        self.partition(&format!("alone-{index}"), cores);
    }

    fn close(mut self) -> String {
        if self.dice.is(2) {
            self.line("[shutdown]\nwhen-finished = [\"shared-0\"]\nat-latest = \"10 s\"");
        }
        if self.dice.is(2) {
            self.line("[log]\nwindows = true");
        }
        let slack = self.dice.between(0, 1_000);
        let frame = self.ends.iter().flatten().max().unwrap() + slack;
        let board = if self.hygiene { "with-hygiene" } else { "bochs-skylake-x" };
        let mut head = format!(
            "[system]\nname = \"random\"\nboard = \"boards/{board}.toml\"\n[schedule]\nframe = \"{frame} ticks\"\n"
        );
        if self.plans > 1 {
            writeln!(head, "plans = {}", quoted(&PLANS[..self.plans])).unwrap();
        }
        head + &self.text
    }
}

/// The text with one mistake: a line that goes, comes twice, changes places, or has another number.
pub fn mistaken(text: &str, mut dice: Dice) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let (at, other) = (dice.roll(lines.len()), dice.roll(lines.len()));
    match dice.roll(6) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(other, lines[at].clone()),
        2 => lines.swap(at, other),
        _ => lines = renumbered(lines, at, &mut dice),
    }
    lines.join("\n")
}

/// Changes the first number of the first line from `at` on that has one.
fn renumbered(mut lines: Vec<String>, at: usize, dice: &mut Dice) -> Vec<String> {
    let count = lines.len();
    let has_number =
        |line: &String| line.contains(" = ") && line.contains(|sign: char| sign.is_ascii_digit());
    let found = (0..count).map(|step| (at + step) % count).find(|line| has_number(&lines[*line]));
    let line = &mut lines[found.unwrap()];
    let start = line.find(|sign: char| sign.is_ascii_digit()).unwrap();
    let end = line[start..]
        .find(|sign: char| !sign.is_ascii_digit())
        .map_or(line.len(), |end| start + end);
    let number: u64 = line[start..end].parse().unwrap();
    let step = [1, 2, 100, 1_000, 100_000][dice.roll(5)];
    let changed = if dice.is(2) { number + step } else { number.saturating_sub(step) };
    line.replace_range(start..end, &changed.to_string());
    lines
}
