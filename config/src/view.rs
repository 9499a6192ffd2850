//! The plan as it is seen: who has which piece of memory and which part of the frame, gaps included.
//!
//! The page, `who` and `diff` all read the plan through this, so that they cannot contradict each other.

use bulkhead_table::{Hygiene, Owner, PartitionId, Range, Region, Rights, Uart, Window};

use crate::ImageKind;
use crate::hygiene::{BRANCH_BARRIER, BUFFER_CLEAR, L1D_FLUSH};
use crate::places::Places;
use crate::plan::{Plan, PlannedPartition, PlannedRole};
use crate::source::shown;
use crate::units::frequency_text;

/// Who has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A partition.
    Partition(PartitionId),
    /// The hypervisor: its image, its stacks, the staged guest images.
    Hypervisor,
    /// Nobody.
    Free,
}

/// A piece of the board's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub range: Range,
    pub holder: Holder,
}

/// A part of the major frame on one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Ticks from the start of the frame.
    pub start: u64,
    /// Ticks.
    pub length: u64,
    pub use_of_it: Use,
}

/// What a part of the frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A window.
    Window(Owner),
    /// Kept free for the switch into the window of this owner.
    Switch(Owner),
    /// Nobody's: the core waits.
    Slack,
}

impl Plan {
    /// The name of a partition.
    pub(crate) fn name_of(&self, id: PartitionId) -> &str {
        self.partitions.get(usize::from(id)).map_or("", |partition| partition.name.as_str())
    }

    /// The name of a window's owner.
    pub(crate) fn owner_name(&self, owner: Owner) -> &str {
        match owner {
            Owner::Partition(id) => self.name_of(id),
            Owner::Housekeeping => "housekeeping",
        }
    }

    /// What a core of the board does; `None` when it is never started.
    pub(crate) fn role_of(&self, cpu: u16) -> Option<&PlannedRole> {
        let index = self.cores.binary_search_by_key(&cpu, |core| core.cpu).ok()?;
        self.cores.get(index).map(|core| &core.role)
    }

    /// The cores that a partition runs on, ascending.
    pub(crate) fn cores_of(&self, id: PartitionId) -> &[u16] {
        self.partitions.get(usize::from(id)).map_or(&[], |partition| &partition.cpus)
    }

    /// The windows of a core in a plan, ascending; none unless the core is time-shared.
    pub(crate) fn windows_of(&self, cpu: u16, plan: usize) -> &[Window] {
        match self.role_of(cpu) {
            Some(PlannedRole::Shared(plans)) => plans.get(plan).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }

    /// The frame of a core in a plan, without a gap, ascending.
    pub(crate) fn segments(&self, cpu: u16, plan: usize) -> Vec<Segment> {
        let mut busy = Vec::new();
        for window in self.windows_of(cpu, plan) {
            self.switch_before(window, &mut busy);
            let use_of_it = Use::Window(window.owner);
            busy.push(Segment { start: window.start, length: window.length, use_of_it });
        }
        busy.sort_by_key(|segment| segment.start);
        self.with_slack(&busy)
    }

    /// The switch into a window; one before the first window of a frame may begin in the frame before.
    fn switch_before(&self, window: &Window, out: &mut Vec<Segment>) {
        let budget = window.budget;
        let use_of_it = Use::Switch(window.owner);
        let inside = budget.min(window.start);
        let wrapped = budget - inside;
        if inside > 0 {
            out.push(Segment { start: window.start - inside, length: inside, use_of_it });
        }
        if wrapped > 0 && wrapped <= self.frame {
            out.push(Segment { start: self.frame - wrapped, length: wrapped, use_of_it });
        }
    }

    fn with_slack(&self, busy: &[Segment]) -> Vec<Segment> {
        let mut all = Vec::new();
        let mut now = 0;
        let end = Segment { start: self.frame, length: 0, use_of_it: Use::Slack };
        for segment in busy.iter().chain([&end]) {
            if segment.start > now {
                let length = segment.start - now;
                all.push(Segment { start: now, length, use_of_it: Use::Slack });
            }
            if segment.length > 0 {
                all.push(*segment);
            }
            now = segment.start + segment.length;
        }
        all
    }

    /// Ticks a frame that `owner` has on a core in a plan.
    pub(crate) fn time_of(&self, owner: Owner, cpu: u16, plan: usize) -> u64 {
        let windows = self.windows_of(cpu, plan).iter();
        windows.filter(|window| window.owner == owner).map(|window| window.length).sum()
    }

    /// The board's memory without a gap, ascending.
    pub(crate) fn memory_map(&self) -> Vec<Extent> {
        let mut taken = vec![Extent { range: self.board.hypervisor, holder: Holder::Hypervisor }];
        for (partition, id) in self.partitions.iter().zip(0_u16..) {
            let extent = |region: &Region| Extent {
                range: Range { start: region.host, size: region.size },
                holder: Holder::Partition(id),
            };
            taken.extend(partition.regions.iter().map(extent));
        }
        taken.sort_by_key(|extent| extent.range.start);
        self.board.memory.iter().flat_map(|range| fill(*range, &taken)).collect()
    }
}

/// What of `taken` lies in `range`, and what is free between.
fn fill(range: Range, taken: &[Extent]) -> Vec<Extent> {
    let mut all = Vec::new();
    let mut now = range.start;
    let free_until = |now: u64, end: u64, all: &mut Vec<Extent>| {
        if end > now {
            let range = Range { start: now, size: end - now };
            all.push(Extent { range, holder: Holder::Free });
        }
    };
    for extent in taken.iter().filter(|extent| range.contains(&extent.range)) {
        free_until(now, extent.range.start, &mut all);
        all.push(*extent);
        now = extent.range.end();
    }
    free_until(now, range.end(), &mut all);
    all
}

/// A serial port in words.
pub(crate) fn serial_text(uart: Option<Uart>) -> String {
    let Some(uart) = uart else {
        return "none: the log goes to the screen and to memory".to_owned();
    };
    let baud = uart.baud;
    let clock = match uart.clock {
        Uart::CLOCK => String::new(),
        other => format!(", clock {}", frequency_text(other.into())),
    };
    if !uart.in_memory {
        return format!("port {:#x}, {baud} baud{clock}", uart.base);
    }
    format!(
        "registers at {:#x}, stride {}, {} bits, {baud} baud{clock}",
        uart.base,
        uart.stride,
        u16::from(uart.width) * 8
    )
}

/// What may be done in a region, in words.
pub(crate) fn rights_words(rights: Rights) -> Vec<&'static str> {
    let all = [(rights.read, "read"), (rights.write, "write"), (rights.execute, "execute")];
    all.into_iter().filter(|right| right.0).map(|right| right.1).collect()
}

/// What is cleaned at a switch, as files write it.
pub(crate) fn hygiene_words(hygiene: Hygiene) -> Vec<&'static str> {
    let all = [
        (hygiene.l1d_flush, L1D_FLUSH),
        (hygiene.branch_barrier, BRANCH_BARRIER),
        (hygiene.buffer_clear, BUFFER_CLEAR),
    ];
    all.into_iter().filter(|part| part.0).map(|part| part.1).collect()
}

/// The key that names what runs in a partition.
pub(crate) fn image_key(partition: &PlannedPartition) -> &'static str {
    if partition.image.kind == ImageKind::Kernel { "kernel" } else { "image" }
}

/// The key of its command line.
pub(crate) fn arguments_key(partition: &PlannedPartition) -> &'static str {
    if partition.image.kind == ImageKind::Kernel { "cmdline" } else { "arguments" }
}

/// The image of a partition, as the file names it.
pub(crate) fn image_name(plan: &Plan, places: &Places<'_>, partition: &PlannedPartition) -> String {
    let place = places.value(&format!("partition.{}.{}", partition.name, image_key(partition)));
    let written = place.and_then(|place| plan.texts.text_at(place));
    let written = written.map(|text| text.trim_matches(['"', '\'']).to_owned());
    written.unwrap_or_else(|| shown(&partition.image.path))
}
