//! The answers: what the plan, and the hypervisor that enforces it, do with the thing that was asked for.

use bulkhead_board::pci::Address;
use bulkhead_table::{Owner, PartitionId, Range, Uart};

use super::query::Query;
use super::{Reply, Verdict};
use crate::diagnostics::Label;
use crate::hygiene;
use crate::places::{Places, WindowKey};
use crate::plan::{Plan, PlannedPartition, PlannedRole};
use crate::source::Place;
use crate::surroundings::{self, Surroundings};
use crate::units::{duration_text, near_size, size_text};
use crate::view::{Extent, Holder, Segment, Use, hygiene_words, image_key, rights_words};

/// The page of a local APIC that is not in x2APIC mode.
const XAPIC: Range = Range { start: 0xFEE0_0000, size: 0x1000 };
/// Memory below this belongs to firmware and to the start of the cores.
const LOW_MEMORY_END: u64 = 1 << 20;
/// The legacy interrupt controllers, masked at boot.
const LEGACY_CONTROLLERS: [u64; 4] = [0x20, 0x21, 0xA0, 0xA1];
/// Through these two a PCI device is configured.
const PCI_PORTS: std::ops::Range<u64> = 0xCF8..0xD00;

/// A plan, and the places of its files.
struct Witness<'p> {
    plan: &'p Plan,
    places: Places<'p>,
    /// Timers, interrupts and devices of the board, as far as its file tells of them.
    around: Surroundings,
}

/// Answers; more than one only for an instant.
pub(super) fn replies(plan: &Plan, query: Query) -> Vec<Reply> {
    let places = Places::of(&plan.texts);
    let around = surroundings::of(&places.board());
    let witness = Witness { plan, places, around };
    match query {
        Query::Host(address) => vec![witness.host(address)],
        Query::Guest(id, address) => vec![witness.guest(id, address)],
        Query::Port(port) => vec![witness.port(port)],
        Query::Interrupt(number) => vec![witness.interrupt(number)],
        Query::Vector(vector) => vec![vector_reply(vector)],
        Query::Pci(address) => vec![witness.pci(address)],
        Query::Core(core) => vec![witness.core(core)],
        Query::At { ticks, core, plan: in_plan } => witness.instant(ticks, core, in_plan),
        Query::Partition(id) => vec![witness.partition(id)],
        Query::Housekeeping => vec![witness.housekeeping()],
        Query::Hypervisor => vec![witness.hypervisor()],
    }
}

impl Reply {
    fn new(verdict: Verdict, sentence: impl Into<String>) -> Self {
        Self {
            verdict,
            owner: None,
            sentence: sentence.into(),
            notes: Vec::new(),
            labels: Vec::new(),
        }
    }

    fn of_partition(name: &str, sentence: impl Into<String>) -> Self {
        Self { owner: Some(name.to_owned()), ..Self::new(Verdict::Partition, sentence) }
    }

    fn at(mut self, place: Place, text: impl Into<String>) -> Self {
        self.labels.push(Label { place, text: text.into() });
        self
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

impl Witness<'_> {
    /// Adds the line at `path`, where the files have it.
    fn line(&self, reply: &mut Reply, path: &str, text: impl Into<String>) {
        let place = self.places.value(path);
        reply.labels.extend(place.map(|place| Label { place, text: text.into() }));
    }

    /// Adds the header of the table in the list `path` whose `key` is `number`.
    fn table_line(
        &self,
        reply: &mut Reply,
        (path, key, number): (&str, &str, u64),
        text: impl Into<String>,
    ) {
        let place = self.places.table_with(path, key, number);
        reply.labels.extend(place.map(|place| Label { place, text: text.into() }));
    }

    fn board_core_line(&self, reply: &mut Reply, index: usize, text: &str) {
        if let Some(apic_id) = self.plan.board.apic_ids.get(index) {
            self.table_line(reply, ("core", "apic-id", (*apic_id).into()), text);
        }
    }

    fn duration(&self, ticks: u64) -> String {
        duration_text(ticks, self.plan.tsc_hz())
    }

    fn host(&self, address: u64) -> Reply {
        let map = self.plan.memory_map();
        match map.iter().find(|extent| extent.range.contains(&byte(address))) {
            Some(extent) => self.in_extent(address, extent),
            None => self.outside(address),
        }
    }

    fn in_extent(&self, address: u64, extent: &Extent) -> Reply {
        let (start, end) = (extent.range.start, extent.range.end());
        let place = format!("from {start:#x} to {:#x}", end - 1);
        match extent.holder {
            Holder::Partition(id) => self.in_partition(address, id),
            Holder::Hypervisor => {
                let sentence = format!("{address:#x} is the hypervisor's own");
                let mut reply = Reply::new(Verdict::Hypervisor, sentence)
                    .note("it holds its code, stacks and tables, and each guest's image as it was proven; no partition's page tables name it");
                self.line(&mut reply, "hypervisor.size", place);
                reply
            }
            Holder::Free => {
                let sentence = format!("{address:#x} is free: RAM of the board that nobody has");
                let mut reply = Reply::new(Verdict::Nobody, sentence).note(format!(
                    "{} are free here, {place}; no page tables name them",
                    near_size(extent.range.size)
                ));
                self.board_memory(&mut reply, address);
                reply
            }
        }
    }

    fn in_partition(&self, address: u64, id: PartitionId) -> Reply {
        let Some(partition) = self.plan.partitions.get(usize::from(id)) else {
            return self.outside(address);
        };
        let name = partition.name.as_str();
        let Some(region) = partition.region_of_host(address) else {
            return self.outside(address);
        };
        let guest = region.guest + (address - region.host);
        let mut reply =
            Reply::of_partition(name, format!("{address:#x} belongs to the partition `{name}`"))
                .note(format!("there it is the guest-physical address {guest:#x}"));
        let label = format!(
            "{}, placed from {:#x} to {:#x}",
            size_text(region.size),
            region.host,
            region.host + region.size - 1
        );
        self.line(&mut reply, &format!("partition.{name}.memory"), label);
        reply
    }

    fn outside(&self, address: u64) -> Reply {
        if let Some(reply) = self.of_the_board(address) {
            return reply;
        }
        let (what, why) = if address < LOW_MEMORY_END {
            (
                "lies below 1 MiB",
                "that belongs to firmware, and to the start of the cores; no partition's page tables name it",
            )
        } else {
            (
                "is no RAM of this board",
                "firmware, a device or nothing may be there; no partition's page tables name it",
            )
        };
        let mut reply =
            Reply::new(Verdict::Outside, format!("{address:#x} {what}: nobody has it")).note(why);
        let nearest = self.plan.board.memory.iter().position(|range| range.start > address);
        let index = nearest.unwrap_or(self.plan.board.memory.len().saturating_sub(1));
        if let Some(range) = self.plan.board.memory.get(index) {
            let label = format!("RAM from {:#x} to {:#x}", range.start, range.end() - 1);
            self.table_line(&mut reply, ("memory", "start", range.start), label);
        }
        reply
    }

    /// Registers of a device of the board, or memory that firmware keeps.
    fn of_the_board(&self, address: u64) -> Option<Reply> {
        const WHY: &str = "no partition's page tables name it";
        let serial = self.plan.uart().filter(|uart| uart.in_memory);
        if serial.is_some_and(|uart| registers(&uart).contains(&byte(address))) {
            let sentence = format!("{address:#x} is the hypervisor's: the log's serial line");
            let mut reply = Reply::new(Verdict::Hypervisor, sentence).note(WHY);
            self.line(&mut reply, "serial.address", "its registers begin here");
            return Some(reply);
        }
        let registers = surroundings::registers(&self.around);
        if let Some(claim) = registers.iter().find(|claim| claim.holds(address)) {
            let sentence = format!("{address:#x} is a register of {}: nobody has it", claim.whose);
            let reply = Reply::new(Verdict::Outside, sentence).note(WHY);
            return Some(reply.at(claim.place, "from here on"));
        }
        let (reserved, kind) = self.around.reserved.iter().find_map(|reserved| {
            let (start, size) = (reserved.start.as_ref()?, reserved.size.as_ref()?);
            let inside = address.checked_sub(start.value).is_some_and(|offset| offset < size.value);
            inside.then_some((start, reserved.kind.as_ref()?))
        })?;
        let sentence = format!("{address:#x} is kept by firmware ({}): nobody has it", kind.value);
        let reply = Reply::new(Verdict::Outside, sentence).note(WHY);
        Some(reply.at(reserved.place, "kept from here on"))
    }

    fn interrupt(&self, number: u64) -> Reply {
        let pins = surroundings::pins(&self.around);
        let reply = match pins.iter().find(|claim| claim.holds(number)) {
            Some(pin) => {
                let sentence = format!("interrupt {number} of the board belongs to nobody");
                Reply::new(Verdict::Nobody, sentence).at(pin.place, "a pin of this I/O APIC")
            }
            None if pins.is_empty() => {
                Reply::new(Verdict::Nobody, "no interrupt of the board belongs to anybody")
            }
            None => {
                let sentence = format!("the board has no interrupt {number}");
                let reply = Reply::new(Verdict::Outside, sentence);
                pins.iter().fold(reply, |reply, pin| {
                    let label = format!("its I/O APIC has {} to {}", pin.start, pin.end - 1);
                    reply.at(pin.place, label)
                })
            }
        };
        reply
            .note("interrupts cannot be given to a partition yet: at boot the hypervisor masks the legacy controllers and each pin of each I/O APIC")
            .note(OWN_INTERRUPTS)
    }

    fn pci(&self, address: Address) -> Reply {
        let functions = self.around.functions.iter().filter_map(|one| one.address.as_ref());
        let reply = match functions.clone().find(|known| known.value == address) {
            Some(known) => {
                let sentence = format!("the PCI function {address} belongs to nobody");
                Reply::new(Verdict::Nobody, sentence).at(known.place, "this function of the board")
            }
            None if functions.count() == 0 => {
                Reply::new(Verdict::Nobody, "no PCI device belongs to anybody")
            }
            None => {
                let sentence = format!("the board file lists no PCI function {address}");
                Reply::new(Verdict::Outside, sentence)
            }
        };
        reply
            .note("devices cannot be given to a partition yet: their registers are in nobody's page tables, and configuration ports read all ones")
            .note("the hypervisor does not program an IOMMU either: a device that firmware left running can still write memory")
    }

    fn board_memory(&self, reply: &mut Reply, address: u64) {
        let mut ranges = self.plan.board.memory.iter();
        if let Some(range) = ranges.find(|range| range.contains(&byte(address))) {
            self.table_line(reply, ("memory", "start", range.start), "this range of the board");
        }
    }

    fn guest(&self, id: PartitionId, address: u64) -> Reply {
        let Some(partition) = self.plan.partitions.get(usize::from(id)) else {
            return self.outside(address);
        };
        let name = partition.name.as_str();
        if let Some(region) = partition.region_of_guest(address) {
            let memory = Range { start: region.guest, size: region.size };
            let host = region.host + (address - region.guest);
            let sentence = format!("{address:#x} of `{name}` is its own memory");
            let mut reply = Reply::of_partition(name, sentence)
                .note(format!("host-physical {host:#x}; it may {}", rights_text(region.rights)));
            if partition.boot_info_range().contains(&byte(address)) {
                reply = reply.note("boot information lies here at the start: command line, memory map, on a PC its tables");
            }
            let label = format!("guest-physical {:#x} to {:#x}", memory.start, memory.end() - 1)
                .replace("0x0 to", "0 to");
            self.line(&mut reply, &format!("partition.{name}.memory"), label);
            return reply;
        }
        if let Some(pages) = partition.schedule.filter(|pages| pages.contains(&byte(address))) {
            return self.schedule_page(name, address, pages);
        }
        let sentence = format!("at {address:#x} `{name}` has nothing");
        let mut reply = Reply::new(Verdict::Nobody, sentence).note(
            "an access there is a violation: the partition stops, and the log says what it touched",
        );
        if XAPIC.contains(&byte(address)) {
            reply = reply.note(
                "a real machine has the local APIC there; this one offers it as x2APIC, by MSRs",
            );
        }
        let end = partition.regions.last().map_or(0, |last| last.guest + last.size);
        let label = format!("its memory ends at {:#x}", end.saturating_sub(1));
        self.line(&mut reply, &format!("partition.{name}.memory"), label);
        reply
    }

    fn schedule_page(&self, name: &str, address: u64, pages: Range) -> Reply {
        let vcpu = (address - pages.start) / bulkhead_table::PAGE_SIZE;
        let sentence = format!("{address:#x} of `{name}` is the schedule page of its vCPU {vcpu}");
        let mut reply = Reply::of_partition(name, sentence)
            .note("it may only read there; the hypervisor writes plan, frame and windows");
        self.line(&mut reply, &format!("partition.{name}.window"), "for its windows");
        reply
    }

    fn port(&self, port: u64) -> Reply {
        if port > u64::from(u16::MAX) {
            let sentence = format!("there is no port {port:#x}: they end at 0xffff");
            return Reply::new(Verdict::Outside, sentence);
        }
        let uart = self.plan.uart().filter(|uart| !uart.in_memory);
        let mut reply = if let Some(uart) =
            uart.filter(|uart| registers(uart).contains(&byte(port)))
        {
            let sentence = format!("port {port:#x} is the hypervisor's: the log's serial line");
            let mut reply = Reply::new(Verdict::Hypervisor, sentence);
            self.line(&mut reply, "serial.port", format!("the eight ports from {:#x}", uart.base));
            reply
        } else if self.plan.board.power_off.as_ref().is_some_and(|off| u64::from(off.0) == port) {
            let sentence = format!("port {port:#x} is the hypervisor's: it switches the board off");
            let mut reply = Reply::new(Verdict::Hypervisor, sentence);
            self.line(&mut reply, "power-off.port", "written at the end of the system");
            reply
        } else if LEGACY_CONTROLLERS.contains(&port) {
            Reply::new(
                Verdict::Hypervisor,
                format!(
                    "port {port:#x} is the hypervisor's: it masks the legacy interrupt controllers there at boot"
                ),
            )
        } else {
            self.other_port(port)
        };
        if PCI_PORTS.contains(&port) {
            reply = reply.note("through it PCI devices are configured, and no partition has one");
        }
        reply.note("no port can be given to a partition yet: its reads find all ones, its writes go nowhere, and both are counted as denied; a string access takes a general-protection exception")
    }

    /// A port that the hypervisor does not write to: one of the chipset or of a device, where the board file tells of it.
    fn other_port(&self, port: u64) -> Reply {
        let nobody = Reply::new(Verdict::Nobody, format!("port {port:#x} is given to nobody"));
        let ports = surroundings::ports(&self.around);
        let Some(claim) = ports.iter().find(|claim| claim.holds(port)) else { return nobody };
        let is_timer = self.around.pm_timer.as_ref().is_some_and(|at| at.place == claim.place);
        let reply = if is_timer {
            let sentence = format!(
                "port {port:#x} is the hypervisor's: the PM timer, against which it measures the clock at boot"
            );
            Reply::new(Verdict::Hypervisor, sentence)
        } else {
            nobody
        };
        let label = format!("{}, ports {:#x} to {:#x}", claim.whose, claim.start, claim.end - 1);
        reply.at(claim.place, label)
    }

    fn core(&self, core: u64) -> Reply {
        let reply = self.role(core);
        let beside = u16::try_from(core).map(|cpu| self.beside(cpu)).unwrap_or_default();
        beside.into_iter().fold(reply, Reply::note)
    }

    /// With whom a core shares its threads or a cache, as far as the board says.
    fn beside(&self, cpu: u16) -> Vec<String> {
        let others = |cores: &[u16]| {
            let others: Vec<String> =
                cores.iter().filter(|other| **other != cpu).map(u16::to_string).collect();
            (!others.is_empty()).then(|| others.join(", "))
        };
        let positions = self.plan.positions();
        let siblings: Vec<u16> = positions
            .get(usize::from(cpu))
            .map(|own| {
                let all = positions.iter().zip(0_u16..);
                all.filter(|(other, _)| own.is_sibling_of(**other)).map(|(_, cpu)| cpu).collect()
            })
            .unwrap_or_default();
        let threads =
            others(&siblings).map(|with| format!("it is a thread of one core with {with}"));
        let caches =
            self.plan.caches().filter(|cache| cache.cores.contains(&cpu)).filter_map(|cache| {
                let with = others(&cache.cores)?;
                let size = size_text(cache.size);
                Some(format!("it shares a cache of level {}, {size}, with {with}", cache.level))
            });
        threads.into_iter().chain(caches).collect()
    }

    fn role(&self, core: u64) -> Reply {
        let count = self.plan.board_cores();
        let known = u16::try_from(core).ok().filter(|cpu| usize::from(*cpu) < count);
        let Some(cpu) = known else {
            let sentence =
                format!("the board has no core {core}: it has {count}, 0 to {}", count - 1);
            let mut reply = Reply::new(Verdict::Outside, sentence);
            self.board_core_line(&mut reply, count - 1, "the last one");
            return reply;
        };
        match self.plan.role_of(cpu) {
            None => {
                let sentence = format!("core {cpu} belongs to nobody: it is never started");
                let mut reply = Reply::new(Verdict::Nobody, sentence);
                self.board_core_line(&mut reply, cpu.into(), "no partition names it");
                reply
            }
            Some(PlannedRole::Dedicated(id)) => {
                let name = self.plan.name_of(*id);
                let sentence = format!("core {cpu} is dedicated to the partition `{name}`");
                let mut reply = Reply::of_partition(name, sentence);
                self.core_line(&mut reply, name, cpu, "for want of windows, the whole core");
                reply
            }
            Some(PlannedRole::Housekeeping) => {
                let sentence = format!("core {cpu} is the hypervisor's: it drains the logs");
                let mut reply = Reply::new(Verdict::Hypervisor, sentence);
                self.line(&mut reply, "housekeeping.core", "for want of windows, the whole core");
                reply
            }
            Some(PlannedRole::Shared(_)) => self.shared_core(cpu),
        }
    }

    fn core_line(&self, reply: &mut Reply, name: &str, cpu: u16, text: impl Into<String>) {
        let place = self.places.number_in(&format!("partition.{name}.cores"), cpu.into());
        reply.labels.extend(place.map(|place| Label { place, text: text.into() }));
    }

    fn shared_core(&self, cpu: u16) -> Reply {
        let owners = self.owners_on(cpu);
        let names: Vec<_> = owners.iter().map(|owner| self.plan.owner_name(*owner)).collect();
        let sentence = format!("core {cpu} is time-shared by {}", words(&names));
        let only_housekeeping = owners.iter().all(|owner| *owner == Owner::Housekeeping);
        let verdict = if only_housekeeping { Verdict::Hypervisor } else { Verdict::Partition };
        let mut reply = Reply::new(verdict, sentence);
        for owner in owners {
            let text = self.shares(owner, cpu);
            match owner {
                Owner::Housekeeping => self.line(&mut reply, "housekeeping.core", text),
                Owner::Partition(id) => {
                    self.core_line(&mut reply, self.plan.name_of(id), cpu, text);
                }
            }
        }
        reply.note("`at 350 us` says whose an instant of the frame is")
    }

    /// The owners of windows on a core, each once, in the order of their first window.
    fn owners_on(&self, cpu: u16) -> Vec<Owner> {
        let mut owners = Vec::new();
        for plan in 0..self.plan.plans().len() {
            for window in self.plan.windows_of(cpu, plan) {
                if !owners.contains(&window.owner) {
                    owners.push(window.owner);
                }
            }
        }
        owners
    }

    /// `600 us of each frame of 2 ms (30.0 %)`, by plan where there are several.
    fn shares(&self, owner: Owner, cpu: u16) -> String {
        let plans = self.plan.plans();
        let share = |index| {
            let ticks = self.plan.time_of(owner, cpu, index);
            let percent = 100.0 * ticks as f64 / self.plan.frame.max(1) as f64;
            match ticks {
                0 => "off".to_owned(),
                _ => format!("{} ({percent:.1} %)", self.duration(ticks)),
            }
        };
        let frame = self.duration(self.plan.frame);
        if plans.len() == 1 {
            return format!("{} of each frame of {frame}", share(0));
        }
        let each: Vec<String> = plans
            .iter()
            .enumerate()
            .map(|(index, name)| format!("{name} {}", share(index)))
            .collect();
        format!("of each frame of {frame}: {}", each.join(", "))
    }

    fn instant(&self, ticks: u64, core: Option<u64>, in_plan: Option<usize>) -> Vec<Reply> {
        let cores: Vec<u16> = match core {
            Some(core) => match u16::try_from(core) {
                Ok(cpu) if usize::from(cpu) < self.plan.board_cores() => vec![cpu],
                _ => return vec![self.core(core)],
            },
            None => self.plan.cores.iter().map(|core| core.cpu).collect(),
        };
        let plans = match in_plan {
            Some(plan) => plan..plan + 1,
            None => 0..self.plan.plans().len(),
        };
        cores.into_iter().flat_map(|cpu| self.instant_on(cpu, ticks, plans.clone())).collect()
    }

    fn instant_on(&self, cpu: u16, ticks: u64, plans: std::ops::Range<usize>) -> Vec<Reply> {
        if !matches!(self.plan.role_of(cpu), Some(PlannedRole::Shared(_))) {
            return vec![self.core(cpu.into()).note("so it is at every instant")];
        }
        plans.map(|plan| self.instant_in(cpu, ticks, plan)).collect()
    }

    fn instant_in(&self, cpu: u16, ticks: u64, plan: usize) -> Reply {
        let frame = self.plan.frame.max(1);
        let inside = ticks % frame;
        let segments = self.plan.segments(cpu, plan);
        let found =
            segments.iter().find(|part| (part.start..part.start + part.length).contains(&inside));
        let Some(segment) = found else {
            return self.core(cpu.into());
        };
        let mut when = format!("at {} core {cpu}", self.duration(inside));
        let names = self.plan.plans();
        if let (true, Some(name)) = (names.len() > 1, names.get(plan)) {
            when = format!("in the plan `{name}` {when}");
        }
        let mut reply = self.segment_reply(&when, segment);
        self.segment_lines(&mut reply, cpu, plan, segment);
        if ticks >= frame {
            let count = ticks / frame;
            reply = reply.note(format!(
                "{} after the start of a frame lies in the frame that follows {count} later; they all run alike",
                self.duration(ticks)
            ));
        }
        reply
    }

    fn segment_reply(&self, when: &str, segment: &Segment) -> Reply {
        let part = format!(
            "from {} to {}",
            self.duration(segment.start),
            self.duration(segment.start + segment.length)
        );
        match segment.use_of_it {
            Use::Window(Owner::Partition(id)) => {
                let name = self.plan.name_of(id);
                let sentence = format!("{when} runs the partition `{name}`, {part}");
                let reply = Reply::of_partition(name, sentence);
                let receiver = self.plan.partitions.get(usize::from(id)).and_then(|p| p.donates_to);
                match receiver.map(|receiver| self.plan.name_of(receiver)) {
                    Some(receiver) => reply.note(format!(
                        "what it does not need it may give to `{receiver}`, which then runs to the end of the window"
                    )),
                    None => reply,
                }
            }
            Use::Window(Owner::Housekeeping) => {
                let sentence = format!("{when} drains the logs (housekeeping), {part}");
                Reply::new(Verdict::Hypervisor, sentence)
            }
            Use::Switch(owner) => {
                let name = self.plan.owner_name(owner);
                let sentence = format!(
                    "{when} is kept free for the switch into the window of `{name}`, {part}"
                );
                Reply::new(Verdict::Hypervisor, sentence)
            }
            Use::Slack => {
                Reply::new(Verdict::Nobody, format!("{when} runs nobody: it is slack, {part}"))
            }
        }
    }

    fn segment_lines(&self, reply: &mut Reply, cpu: u16, plan: usize, segment: &Segment) {
        let frame = self.plan.frame;
        match segment.use_of_it {
            Use::Window(owner) => {
                self.window_line(reply, owner, (cpu, plan), segment.start, "this window");
            }
            Use::Switch(owner) => self.switch_lines(reply, owner, (cpu, plan), segment),
            Use::Slack => {
                let text = format!("the frame is {}", self.duration(frame));
                self.line(reply, "schedule.frame", text);
            }
        }
    }

    /// The window behind a switch, and what the time of the switch is made of.
    fn switch_lines(
        &self,
        reply: &mut Reply,
        owner: Owner,
        (cpu, plan): (u16, usize),
        segment: &Segment,
    ) {
        let windows = self.plan.windows_of(cpu, plan);
        let end = segment.start + segment.length;
        // One that ends with the frame precedes the first window of the next.
        let index = windows.iter().position(|window| window.start == end).unwrap_or(0);
        let Some(window) = windows.get(index) else { return };
        self.window_line(reply, owner, (cpu, plan), window.start, "into this window");
        self.line(reply, "clock.switch-budget", "what a switch may take on this board");
        self.hygiene_lines(reply, owner, (cpu, plan, index));
    }

    /// The cleaning that lengthens the switch into a window: what its owner asks for, and what whoever may hold the core before does.
    fn hygiene_lines(
        &self,
        reply: &mut Reply,
        owner: Owner,
        (cpu, plan, index): (u16, usize, usize),
    ) {
        let (Owner::Partition(next), Some(PlannedRole::Shared(plans))) =
            (owner, self.plan.role_of(cpu))
        else {
            return;
        };
        let receiver = |id: PartitionId| self.plan.partitions.get(usize::from(id))?.donates_to;
        let mut others = hygiene::holders_before(plans, (plan, index), receiver);
        // A partition that follows itself is not cleaned from itself.
        others.remove(&next);
        if !others.is_empty() {
            self.cleaned_line(reply, next);
        }
        others.into_iter().for_each(|id| self.cleaned_line(reply, id));
    }

    /// What a partition on one side of a switch asks for.
    fn cleaned_line(&self, reply: &mut Reply, id: PartitionId) {
        let Some(partition) = self.plan.partitions.get(usize::from(id)) else { return };
        let cleaned = hygiene_words(partition.hygiene);
        if !cleaned.is_empty() {
            let text = format!("cleaned at the switch: {}", words(&cleaned));
            self.line(reply, &format!("partition.{}.hygiene", partition.name), text);
        }
    }

    fn window_line(
        &self,
        reply: &mut Reply,
        owner: Owner,
        (cpu, plan): (u16, usize),
        start: u64,
        text: &str,
    ) {
        let section = match owner {
            Owner::Housekeeping => "housekeeping".to_owned(),
            Owner::Partition(id) => format!("partition.{}", self.plan.name_of(id)),
        };
        let names = self.plan.plans();
        let plan = names.get(plan).map_or("", String::as_str);
        let key = WindowKey { start, hz: self.plan.tsc_hz(), cpu, plan };
        let place = self.places.window(&section, key);
        reply.labels.extend(place.map(|place| Label { place, text: text.to_owned() }));
    }

    fn partition(&self, id: PartitionId) -> Reply {
        let Some(partition) = self.plan.partitions.get(usize::from(id)) else {
            return Reply::new(Verdict::Nobody, "there is no such partition");
        };
        let name = partition.name.as_str();
        let cores = self.plan.cores_of(id);
        let numbers: Vec<String> = cores.iter().map(u16::to_string).collect();
        let noun = if numbers.len() == 1 { "core" } else { "cores" };
        let sentence = format!(
            "the partition `{name}` has {noun} {} and {}",
            numbers.join(", "),
            size_text(partition.size())
        );
        let mut reply = Reply::of_partition(name, sentence)
            .note("no interrupt, no port and no device: they cannot be given to a partition yet");
        for cpu in cores.iter().copied() {
            let text = match self.plan.role_of(cpu) {
                Some(PlannedRole::Shared(_)) => self.shares(Owner::Partition(id), cpu),
                _ => "the whole core".to_owned(),
            };
            self.core_line(&mut reply, name, cpu, text);
        }
        for region in &partition.regions {
            let memory = format!(
                "host-physical {:#x} to {:#x}; it may {}",
                region.host,
                region.host + region.size - 1,
                rights_text(region.rights)
            );
            self.line(&mut reply, &format!("partition.{name}.memory"), memory);
        }
        let image = format!("partition.{name}.{}", image_key(partition));
        self.line(&mut reply, &image, "what runs in it");
        self.rights_lines(&mut reply, partition);
        reply
    }

    /// What it may ask for beyond its own, each where the file grants it.
    fn rights_lines(&self, reply: &mut Reply, partition: &PlannedPartition) {
        let section = format!("partition.{}", partition.name);
        if partition.may_switch_plan {
            let path = format!("{section}.may-switch-plan");
            self.line(reply, &path, "it may ask for another plan");
        }
        if let Some(receiver) = partition.donates_to {
            let receiver = self.plan.name_of(receiver);
            let text = format!("the rest of a window may go to `{receiver}`");
            self.line(reply, &format!("{section}.donates-to"), text);
        }
        let cleaned = hygiene_words(partition.hygiene);
        if !cleaned.is_empty() {
            self.line(
                reply,
                &format!("{section}.hygiene"),
                "cleaned at each switch to and from it",
            );
        }
    }

    fn housekeeping(&self) -> Reply {
        let whole = self.plan.cores.iter().find(|core| core.role == PlannedRole::Housekeeping);
        if let Some(core) = whole {
            return self.core(core.cpu.into());
        }
        let shared = self.plan.cores.iter().map(|core| core.cpu);
        let mut on = shared.filter(|cpu| self.owners_on(*cpu).contains(&Owner::Housekeeping));
        let Some(cpu) = on.next() else {
            return Reply::new(Verdict::Nobody, "nobody drains the logs");
        };
        let sentence = format!("housekeeping has windows on core {cpu}");
        let mut reply = Reply::new(Verdict::Hypervisor, sentence);
        self.line(&mut reply, "housekeeping.core", self.shares(Owner::Housekeeping, cpu));
        for plan in 0..self.plan.plans().len() {
            let windows = self.plan.windows_of(cpu, plan).iter();
            for window in windows.filter(|window| window.owner == Owner::Housekeeping) {
                let end = self.duration(window.start + window.length);
                let text = format!("{} to {end}", self.duration(window.start));
                self.window_line(&mut reply, window.owner, (cpu, plan), window.start, &text);
            }
        }
        reply
    }

    fn hypervisor(&self) -> Reply {
        let own = self.plan.board.hypervisor;
        let sentence = format!("the hypervisor keeps {} for itself", size_text(own.size));
        let mut reply = Reply::new(Verdict::Hypervisor, sentence)
            .note("ports, interrupt controllers and devices of the board stay with it: it masks what could interrupt, and gives out none");
        self.line(
            &mut reply,
            "hypervisor.start",
            format!("{:#x} to {:#x}", own.start, own.end() - 1),
        );
        match self.plan.uart() {
            None => {}
            Some(uart) if uart.in_memory => {
                self.line(&mut reply, "serial.address", "the log's serial line");
            }
            Some(_) => self.line(&mut reply, "serial.port", "the log's serial line"),
        }
        if let Some(memory) = self.plan.log_memory() {
            reply = reply.note(format!(
                "{:#x} to {:#x} of it keep the log: the board has no serial port",
                memory.start,
                memory.end() - 1
            ));
        }
        self.line(&mut reply, "power-off.port", "switches the board off");
        reply
    }
}

/// The registers of a serial port, as addresses or as I/O ports.
const fn registers(uart: &Uart) -> Range {
    Range { start: uart.base, size: uart.extent() }
}

const fn byte(address: u64) -> Range {
    Range { start: address, size: 1 }
}

const OWN_INTERRUPTS: &str = "what a partition has is its own local APIC's: the timer, and what it sends to itself, with whatever vectors it likes";

fn vector_reply(vector: u64) -> Reply {
    if vector > u64::from(u8::MAX) {
        let sentence = format!("there is no vector {vector:#x}: they end at 0xff");
        return Reply::new(Verdict::Outside, sentence);
    }
    let sentence = format!("vector {vector:#x} is each partition's own, on each of its vCPUs");
    Reply::new(Verdict::Nobody, sentence).note(OWN_INTERRUPTS)
}

fn rights_text(rights: bulkhead_table::Rights) -> String {
    let granted = rights_words(rights);
    if granted.is_empty() { "do nothing there".to_owned() } else { words(&granted) }
}

/// Words as a list in a sentence: `a, b and c`.
fn words(all: &[&str]) -> String {
    match all {
        [] => "nobody".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
