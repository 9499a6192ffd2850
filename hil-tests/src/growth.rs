//! How cost grows: the sizes of the systems that are measured, their figures as they are committed, and the README's table of them.

use std::fmt::Write as _;

use bulkhead::Report;
use bulkhead::bench::markdown::Marks;
use bulkhead::bench::percentiles::Distribution;
use bulkhead::report::Partition;
use bulkhead::screen::grouped;
use serde::{Deserialize, Serialize};

/// Between these lines of the README stands [`Growth::table`].
pub const MARKS: Marks = (
    "<!-- growth, written from hil-tests/baselines/growth.json: begin -->\n",
    "<!-- growth: end -->",
);

/// The partition that measures on the shared core, and the one on a dedicated core.
pub const SHARED: &str = "costs-0";
/// See [`SHARED`].
pub const DEDICATED: &str = "costs-1";

/// By how many ticks a figure may be worse than the committed one: the step of the emulator's clock.
const STEP: u64 = 5;
/// The same for the longest switch, and how far it may be apart in two systems: by what coincides in one run and not in another. Seen:
/// 100, where a timer of the partition came due while it was away. A search through the windows, at two instructions each, would take
/// 250 more.
const SAME_SWITCH: u64 = 120;
/// How far an exit may be apart in two systems of different size: two steps.
const SAME_COST: u64 = 10;

/// The size of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// On the shared core.
    pub partitions: usize,
    /// Of the board; all but core 0 are dedicated.
    pub cores: usize,
    /// On the shared core in a frame, besides that of housekeeping; 128 in all is the most that a core can have.
    pub windows: usize,
}

/// One window of one partition on a board of one core. The window of housekeeping stands beside it, as on every board whose cores are
/// all at work: a log that nobody drains is a rejected file. So this is as little as a system can be.
pub const SMALLEST: Size = Size { partitions: 1, cores: 1, windows: 1 };
/// The least with all that is measured: a switch from one partition to another, which a partition alone has not, and a dedicated core.
pub const YARDSTICK: Size = Size { partitions: 2, cores: 2, windows: 2 };
/// 25 partitions on the shared core and 7 on dedicated ones are 32.
pub const LARGEST: Size = Size { partitions: 25, cores: 8, windows: 127 };

/// Every size, in the order of the table: between yardstick and largest one dimension at a time.
pub const ALL: [Size; 9] = [
    SMALLEST,
    YARDSTICK,
    Size { partitions: 8, windows: 8, ..YARDSTICK },
    Size { partitions: 31, windows: 31, ..YARDSTICK },
    Size { cores: 4, ..YARDSTICK },
    Size { cores: 8, ..YARDSTICK },
    Size { windows: 16, ..YARDSTICK },
    Size { windows: 127, ..YARDSTICK },
    LARGEST,
];

impl Size {
    /// Partitions on all cores.
    #[must_use]
    pub const fn in_all(self) -> usize {
        self.partitions + self.cores - 1
    }

    fn told(self) -> String {
        let Self { cores, windows, .. } = self;
        format!("{} partitions, {cores} cores, {windows} windows", self.in_all())
    }
}

/// What was measured with a system of one size, in ticks. `None` where it has no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its size.
    pub size: Size,
    /// Mean CPUID on a dedicated core.
    pub dedicated: Option<u64>,
    /// Mean CPUID on the shared core.
    pub shared: Option<u64>,
    /// The shortest switch.
    pub switch_min: Option<u64>,
    /// The longest.
    pub switch_max: Option<u64>,
}

impl Row {
    /// The figures of a run.
    #[must_use]
    pub fn new(size: Size, report: &Report) -> Self {
        let cpuid = |name: &str| report.partition(name).and_then(mean_cpuid);
        let shared = report.cores.iter().find(|core| core.cpu == 0);
        Self {
            size,
            dedicated: cpuid(DEDICATED),
            shared: cpuid(SHARED),
            switch_min: shared.and_then(|core| core.switch_min),
            switch_max: shared.and_then(|core| core.switch_max),
        }
    }

    /// Each figure with its name, and by how much it may be worse than that of another image of this size.
    const fn figures(&self) -> [(&'static str, Option<u64>, u64); 4] {
        [
            ("CPUID on a dedicated core", self.dedicated, STEP),
            ("CPUID on the shared core", self.shared, STEP),
            ("the shortest switch", self.switch_min, STEP),
            ("the longest switch", self.switch_max, SAME_SWITCH),
        ]
    }
}

fn mean_cpuid(partition: &Partition) -> Option<u64> {
    partition.histogram("cpuid-7").map(|it| Distribution::new(it).mean())
}

/// Figures of systems of several sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// What they ran on.
    pub emulator: String,
    /// What a tick means.
    pub ticks: String,
    /// One for each size.
    pub rows: Vec<Row>,
}

impl Growth {
    /// What grew with the size, one complaint each: exits from the smallest system on, both ways; switches from the yardstick on.
    #[must_use]
    pub fn grown(&self) -> Vec<String> {
        let Some(least) = self.row(YARDSTICK) else {
            return vec![format!("{} was not measured", YARDSTICK.told())];
        };
        let mut complaints = Vec::new();
        for row in &self.rows {
            let size = row.size.told();
            let dedicated = ("CPUID on a dedicated core", least.dedicated, row.dedicated);
            let shared = ("CPUID on the shared core", least.shared, row.shared);
            // A board of one core has no dedicated one.
            let has_dedicated = (row.size.cores > 1).then_some(dedicated);
            for (what, few, many) in has_dedicated.into_iter().chain([shared]) {
                let both = few.zip(many);
                if both.is_none_or(|(few, many)| few.abs_diff(many) > SAME_COST) {
                    complaints.push(format!("{what}: {few:?} ticks, and {many:?} with {size}"));
                }
            }
            let (few, many) = (least.switch_max, row.switch_max);
            if few.zip(many).is_none_or(|(few, many)| many > few + SAME_SWITCH) {
                complaints
                    .push(format!("the longest switch: {few:?} ticks, and {many:?} with {size}"));
            }
        }
        complaints
    }

    /// What is worse than in `old`, which may have more sizes: one complaint each.
    #[must_use]
    pub fn worse_than(&self, old: &Self) -> Vec<String> {
        let mut complaints = Vec::new();
        for row in &self.rows {
            let size = row.size.told();
            let Some(committed) = old.row(row.size) else {
                complaints.push(format!("no figures are committed of {size}"));
                continue;
            };
            for ((what, was, allowed), (_, is, _)) in
                committed.figures().into_iter().zip(row.figures())
            {
                let worse = was.is_some_and(|was| is.is_none_or(|is| is > was + allowed));
                if worse {
                    complaints.push(format!(
                        "{what} with {size}: was {was:?}, is {is:?}, allowed +{allowed}"
                    ));
                }
            }
        }
        complaints
    }

    fn row(&self, size: Size) -> Option<&Row> {
        self.rows.iter().find(|row| row.size == size)
    }

    /// As Markdown.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = format!(
            "On {}; **{}**.\n\n\
             | Partitions | Cores | Windows in a frame of core 0 | CPUID, dedicated core | CPUID, shared core | Switch, shortest | Switch, longest |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
            self.emulator, self.ticks
        );
        let told = |ticks: Option<u64>| ticks.map_or_else(|| "-".to_string(), grouped);
        for row in &self.rows {
            let Size { cores, windows, .. } = row.size;
            // Writing to a string never fails.
            let _never_fails = writeln!(
                out,
                "| {} | {cores} | {windows} + 1 | {} | {} | {} | {} |",
                row.size.in_all(),
                told(row.dedicated),
                told(row.shared),
                told(row.switch_min),
                told(row.switch_max)
            );
        }
        out
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A structure of strings and numbers always has a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(size: Size) -> Row {
        let dedicated = (size.cores > 1).then_some(78);
        Row { size, dedicated, shared: Some(88), switch_min: Some(480), switch_max: Some(900) }
    }

    fn growth() -> Growth {
        Growth {
            emulator: "bochs 2.7".into(),
            ticks: "ticks are instructions".into(),
            rows: [SMALLEST, YARDSTICK, LARGEST].map(row).to_vec(),
        }
    }

    #[test]
    fn growth_is_noticed_in_each_figure() {
        assert_eq!(growth().grown(), Vec::<String>::new());
        type Spoil = fn(&mut Row);
        let spoilt: [(Spoil, &str); 5] = [
            (|row| row.dedicated = Some(89), "CPUID on a dedicated core"),
            (|row| row.dedicated = None, "CPUID on a dedicated core"),
            (|row| row.shared = Some(99), "CPUID on the shared core"),
            (|row| row.shared = None, "CPUID on the shared core"),
            (|row| row.switch_max = Some(1_021), "the longest switch"),
        ];
        for (spoil, what) in spoilt {
            let mut growth = growth();
            spoil(&mut growth.rows[2]);
            let complaints = growth.grown();
            assert!(complaints.len() == 1 && complaints[0].contains(what), "{complaints:?}");
            assert!(complaints[0].contains("32 partitions, 8 cores, 127 windows"));
        }
        let mut small = growth();
        small.rows[0].shared = Some(70);
        assert_eq!(small.grown().len(), 1, "a partition alone is treated as others are");
        assert_eq!(Growth { rows: Vec::new(), ..growth() }.grown().len(), 1);
    }

    #[test]
    fn what_is_worse_than_committed_is_told_and_what_is_better_is_not() {
        let old = growth();
        let with = |spoil: fn(&mut Row)| {
            let mut new = growth();
            spoil(&mut new.rows[1]);
            new.worse_than(&old)
        };
        assert!(with(|row| row.shared = Some(93)).is_empty());
        assert!(with(|row| row.switch_min = Some(100)).is_empty());
        for spoil in [
            (|row| row.shared = Some(94)) as fn(&mut Row),
            |row| row.dedicated = Some(84),
            |row| row.dedicated = None,
            |row| row.switch_min = Some(486),
            |row| row.switch_max = Some(1_021),
            |row| row.size = ALL[3],
        ] {
            assert_eq!(with(spoil).len(), 1);
        }
    }

    #[test]
    fn the_table_says_what_is_not_there() {
        let table = growth().table();
        for part in [
            "bochs 2.7; **ticks are instructions**",
            "| 1 | 1 | 1 + 1 | - | 88 | 480 | 900 |",
            "| 32 | 8 | 127 + 1 | 78 | 88 | 480 | 900 |",
        ] {
            assert!(table.contains(part), "{part} is missing in:\n{table}");
        }
        assert_eq!(serde_json::from_str::<Growth>(&growth().to_json()).unwrap(), growth());
    }
}
