//! The plan: what the checks leave, in the machine's own terms (addresses, ticks, core numbers).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulkhead_table::{
    Hygiene, HygieneCosts, LOG_MEMORY, PAGE_SIZE, PartitionId, Platform, Power, Range, Region,
    Uart, Window, pc,
};

use crate::board::{CheckedBoard, Clock};
use crate::boot_info;
use crate::cores::{self, Role};
use crate::diagnostics::{Diagnostics, Finding, Findings};
use crate::documents::{self, Documents};
use crate::hygiene::{self, Cleaning};
use crate::limits::{self, Limit};
use crate::memory::{self, Placement};
use crate::programs::{self, Program};
use crate::reader::{closest, list, positive_ticks};
use crate::rules::Rule;
use crate::schedule::{self, Schedule};
use crate::schema::{self, BoardFile, Partition, SystemFile};
use crate::source::{At, FileId, Place, Sources, Unread};
use crate::suggest::with_near_path;
use crate::topology::{Cache, Position, Topology};
use crate::{ImageKind, ImageRequest, Input, board, donation, language, neighbours, plans};

/// A proven system, all but the bytes of its guest images.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) system: String,
    pub(crate) system_file: String,
    pub(crate) board: PlannedBoard,
    pub(crate) board_file: PathBuf,
    pub(crate) partitions: Vec<PlannedPartition>,
    pub(crate) cores: Vec<PlannedCore>,
    pub(crate) frame: u64,
    pub(crate) plans: Vec<String>,
    pub(crate) log_windows: bool,
    pub(crate) limits: Vec<Limit>,
    pub(crate) shutdown: Option<PlannedShutdown>,
    pub(crate) sources: Vec<PathBuf>,
    /// The text files as they were read: the places that reports quote.
    pub(crate) texts: Sources,
    pub(crate) warnings: Diagnostics,
    pub(crate) comparisons: u64,
}

/// The board.
#[derive(Clone, Debug)]
pub(crate) struct PlannedBoard {
    pub name: String,
    pub apic_ids: Vec<u32>,
    pub topology: Topology,
    pub memory: Vec<Range>,
    pub clock: Clock,
    pub hygiene: HygieneCosts,
    pub hypervisor: Range,
    /// The serial port; `None`: the log stays on the machine.
    pub uart: Option<Uart>,
    /// Whether code may be mapped by large pages: `no-itlb-multihit` is among the abilities.
    pub large_code_pages: bool,
    pub power: Power,
    pub power_off: Option<(u16, Vec<u8>)>,
}

/// A partition.
#[derive(Clone, Debug)]
pub struct PlannedPartition {
    /// `[partition.NAME]`.
    pub name: String,
    /// Where the file declares it: `demo.toml:23`.
    pub place: String,
    /// Board CPU numbers on which it runs, ascending, never empty: vCPU `n` runs on `cpus[n]`.
    pub cpus: Vec<u16>,
    /// The machine that it finds around its processors and memory.
    pub platform: Platform,
    /// The guest's command line.
    pub arguments: String,
    /// Its memory, guest-physical and host-physical: ascending by what the guest sees, never empty.
    pub regions: Vec<Region>,
    /// Guest-physical pages in which its vCPUs read their schedule, a page each; `None` on dedicated cores.
    pub schedule: Option<Range>,
    /// Whether it may ask for another plan.
    pub may_switch_plan: bool,
    /// Who may get the rest of one of its windows.
    pub donates_to: Option<PartitionId>,
    /// What is cleaned whenever a core passes to it from another partition, or from it to another.
    pub hygiene: Hygiene,
    pub(crate) ept_pages: usize,
    pub(crate) boot_info: Vec<u8>,
    pub(crate) image: ImageRequest,
    pub(crate) image_place: Place,
    /// The initial RAM disk of a kernel.
    pub(crate) ramdisk: Option<(ImageRequest, Place)>,
    pub(crate) arguments_place: Option<Place>,
}

impl PlannedPartition {
    /// Bytes of its memory.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.regions.iter().map(|region| region.size).sum()
    }

    /// Bytes of the first piece of its memory, from guest-physical 0 on: all that is staged lies in there.
    #[must_use]
    pub fn first_piece(&self) -> u64 {
        self.regions.first().map_or(0, |region| region.size)
    }

    /// The piece of its memory that the machine's address belongs to.
    #[must_use]
    pub fn region_of_host(&self, address: u64) -> Option<Region> {
        let holds = |start: u64, size| address >= start && address - start < size;
        self.regions.iter().find(|region| holds(region.host, region.size)).copied()
    }

    /// The piece that the guest's own address belongs to.
    #[must_use]
    pub fn region_of_guest(&self, address: u64) -> Option<Region> {
        let holds = |start: u64, size| address >= start && address - start < size;
        self.regions.iter().find(|region| holds(region.guest, region.size)).copied()
    }

    /// The guest-physical pages in which it finds its boot information.
    #[must_use]
    pub fn boot_info_range(&self) -> Range {
        let pages = |start, count| Range { start, size: count * PAGE_SIZE };
        match (self.platform, self.image.kind) {
            (Platform::Bare, _) => pages(boot_info::ADDRESS, 1),
            (Platform::Pc, ImageKind::Kernel) => pages(pc::TRAMPOLINE, PC_PAGES),
            (Platform::Pc, _) => pages(pc::FIRMWARE, PC_PAGES),
        }
    }
}

/// Pages of boot information on a PC: code, parameters, command line, tables.
const PC_PAGES: u64 = 4;

/// A core and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCore {
    /// Board CPU number.
    pub cpu: u16,
    /// Its role.
    pub role: PlannedRole,
}

/// What a core does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedRole {
    /// One partition, by its index.
    Dedicated(PartitionId),
    /// Windows of the major frame by plan, ascending, in ticks.
    Shared(Vec<Vec<Window>>),
    /// Drains the logs.
    Housekeeping,
}

/// When the system ends by itself.
#[derive(Clone, Debug)]
pub(crate) struct PlannedShutdown {
    pub when_finished: Vec<PartitionId>,
    pub at_latest: u64,
}

impl Plan {
    /// `[system] name`.
    #[must_use]
    pub fn system_name(&self) -> &str {
        &self.system
    }

    /// `[board] name`.
    #[must_use]
    pub fn board_name(&self) -> &str {
        &self.board.name
    }

    /// How many cores the board has.
    #[must_use]
    pub fn board_cores(&self) -> usize {
        self.board.apic_ids.len()
    }

    /// The APIC id of each core of the board, by CPU number.
    #[must_use]
    pub fn apic_ids(&self) -> &[u32] {
        &self.board.apic_ids
    }

    /// The board file, by its path as it was read.
    #[must_use]
    pub fn board_file(&self) -> &Path {
        &self.board_file
    }

    /// Where each core of the board sits, by CPU number; empty where the board does not say.
    #[must_use]
    pub fn positions(&self) -> &[Position] {
        &self.board.topology.positions
    }

    /// The caches that the board declares.
    pub fn caches(&self) -> impl Iterator<Item = &Cache> {
        self.board.topology.caches.iter().map(|(cache, _)| cache)
    }

    /// Host-physical address behind the last byte of the board's RAM: what an emulator must offer.
    #[must_use]
    pub fn memory_top(&self) -> u64 {
        self.board.memory.last().map_or(0, Range::end)
    }

    /// Declared frequency of the time-stamp counter, in hertz.
    #[must_use]
    pub fn tsc_hz(&self) -> u64 {
        self.board.clock.hz
    }

    /// Time kept free before each window, in ticks, hygiene not counted.
    #[must_use]
    pub fn switch_budget(&self) -> u64 {
        self.board.clock.switch_budget
    }

    /// The serial port that carries the log, where the board has one.
    #[must_use]
    pub fn uart(&self) -> Option<Uart> {
        self.board.uart
    }

    /// Memory that keeps the log where the board has no serial port: the last of the hypervisor's range.
    #[must_use]
    pub fn log_memory(&self) -> Option<Range> {
        let end = self.board.hypervisor.end();
        let start = end.checked_sub(LOG_MEMORY)?;
        self.board.uart.is_none().then_some(Range { start, size: LOG_MEMORY })
    }

    /// The partitions; an index into this slice is a partition id.
    #[must_use]
    pub fn partitions(&self) -> &[PlannedPartition] {
        &self.partitions
    }

    /// The cores in use, ascending.
    #[must_use]
    pub fn cores(&self) -> &[PlannedCore] {
        &self.cores
    }

    /// The highest board CPU number in use.
    #[must_use]
    pub fn highest_cpu(&self) -> u16 {
        self.cores.last().map_or(0, |core| core.cpu)
    }

    /// Length of the major frame in ticks; 0 without time-shared cores.
    #[must_use]
    pub fn frame(&self) -> u64 {
        self.frame
    }

    /// Names of the plans; the system starts in the first. Never empty.
    #[must_use]
    pub fn plans(&self) -> &[String] {
        &self.plans
    }

    /// What hygiene costs on the board, in ticks.
    #[must_use]
    pub fn hygiene_costs(&self) -> HygieneCosts {
        self.board.hygiene
    }

    /// Whether each window that ran is logged.
    #[must_use]
    pub fn logs_windows(&self) -> bool {
        self.log_windows
    }

    /// When it ends at the latest, in ticks after the epoch: `None` when it may run for ever.
    #[must_use]
    pub fn at_latest(&self) -> Option<u64> {
        self.shutdown.as_ref().map(|shutdown| shutdown.at_latest).filter(|ticks| *ticks > 0)
    }

    /// The partitions whose end ends the system; empty when it runs for ever.
    #[must_use]
    pub fn when_finished(&self) -> &[PartitionId] {
        self.shutdown.as_ref().map_or(&[], |shutdown| &shutdown.when_finished)
    }

    /// What a person should look at although the system compiles.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// How often the checks held one claim against another. Grows linearly with the system, up to the logarithm
    /// that sorting adds.
    #[must_use]
    pub fn comparisons(&self) -> u64 {
        self.comparisons
    }

    /// What the bench holds its figures to.
    #[must_use]
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// Every file that was read, for `cargo::rerun-if-changed`.
    #[must_use]
    pub fn sources(&self) -> &[PathBuf] {
        &self.sources
    }

    /// The guest images that must be there, in the order of the partitions; behind a kernel its RAM disk.
    #[must_use]
    pub fn requests(&self) -> Vec<ImageRequest> {
        let of = |partition: &PlannedPartition| {
            let ramdisk = partition.ramdisk.iter().map(|(request, _)| request.clone());
            [partition.image.clone()].into_iter().chain(ramdisk).collect::<Vec<_>>()
        };
        self.partitions.iter().flat_map(of).collect()
    }
}

/// What was read and found out.
pub(crate) struct Analysis {
    pub sources: Sources,
    pub findings: Findings,
    pub plan: Option<Plan>,
    /// Where the hypervisor's size is declared; a later check needs it.
    pub hypervisor_place: Option<Place>,
}

/// Reads and checks everything but the bytes of the guest images; `findings` collects what is wrong.
pub(crate) fn analyse(input: Input<'_>, mut sources: Sources, mut findings: Findings) -> Analysis {
    let mut hypervisor_place = None;
    let system = read_system(input.system, &mut sources, &mut findings);
    let plan = system.and_then(|(system, complete)| {
        let board_path = board_path(&system, input.board, &sources);
        let board_file =
            board_path.as_ref().and_then(|board| board.read(&mut sources, &mut findings));
        hypervisor_place = board_file
            .as_ref()
            .and_then(|board| Some(board.hypervisor.as_ref()?.size.as_ref()?.place));
        if complete {
            let plan = check(input.system, &system, board_file.as_ref(), &sources, &mut findings)?;
            return Some(Plan { board_file: board_path?.path, ..plan });
        }
        // What the system lacks may stand in the file that cannot be read; the board stands for itself.
        board_file.iter().for_each(|board| drop(board::check(board, &mut findings)));
        None
    });
    let plan = if findings.has_errors() { None } else { plan };
    Analysis { sources, findings, plan, hypervisor_place }
}

/// The system, and whether all its files could be read.
fn read_system(
    path: &Path,
    sources: &mut Sources,
    findings: &mut Findings,
) -> Option<(SystemFile, bool)> {
    let main = match sources.read(path) {
        Ok(file) => file,
        Err(unread) => {
            let remedy = "name a system file, such as partitions/demo.toml";
            findings.push(unread.finding("the system file ", path, remedy));
            return None;
        }
    };
    let files = documents::collect(main, &language::SYSTEM_FILE, sources, findings);
    let documents = Documents::parse(main, &files, sources, findings);
    Some((schema::read_system(&documents, findings), documents.complete))
}

/// The board file: `other`, or the one that the system names.
fn board_path(system: &SystemFile, other: Option<&Path>, sources: &Sources) -> Option<BoardPath> {
    if let Some(path) = other {
        return Some(BoardPath { path: path.to_owned(), name: None });
    }
    let name = system.board.clone()?;
    Some(BoardPath { path: sources.beside(name.place.file, &name.value), name: Some(name) })
}

/// Where the board file is.
struct BoardPath {
    path: PathBuf,
    /// What the system calls it, where the system chose it.
    name: Option<At<String>>,
}

impl BoardPath {
    fn read(&self, sources: &mut Sources, findings: &mut Findings) -> Option<BoardFile> {
        let main = match sources.read(&self.path) {
            Ok(file) => file,
            Err(unread) => {
                findings.push(self.unreadable(&unread));
                return None;
            }
        };
        read_board_file(main, sources, findings)
    }

    fn unreadable(&self, unread: &Unread) -> Finding {
        let what = "the board file ";
        let Some(name) = &self.name else {
            let remedy = "name a board file, such as partitions/boards/bochs-skylake-x.toml";
            return unread.finding(what, &self.path, remedy);
        };
        let remedy = with_near_path(
            &name.value,
            &self.path,
            "name a board file by its path from the folder of the file that names it",
        );
        unread.finding(what, &self.path, remedy).at(name.place, "named here")
    }
}

/// Reads the board that `main` and what it includes declare; `None` when one of them cannot be read.
pub(crate) fn read_board_file(
    main: FileId,
    sources: &mut Sources,
    findings: &mut Findings,
) -> Option<BoardFile> {
    let files = documents::collect(main, &language::BOARD_FILE, sources, findings);
    let documents = Documents::parse(main, &files, sources, findings);
    let board = schema::read_board(&documents, findings);
    documents.complete.then_some(board)
}

fn check(
    path: &Path,
    system: &SystemFile,
    board_file: Option<&BoardFile>,
    sources: &Sources,
    findings: &mut Findings,
) -> Option<Plan> {
    let board = board_file.map(|file| board::check(file, findings));
    let roles = cores::check(system, board.as_ref(), findings);
    let topology = board.as_ref().map(|board| &board.topology);
    neighbours::check(system, &roles, topology, findings);
    let plans = plans::check(system, findings);
    plans::covered(system, &roles, &plans, findings);
    let receivers = donation::check(system, findings);
    plans::receivers_are_on(system, &receivers, &plans, findings);
    let wanted = hygiene::check(system, board_file, findings);
    let costs = board.as_ref().map_or_else(HygieneCosts::default, |board| board.hygiene);
    let cleaning = Cleaning { wanted: &wanted, receivers: &receivers, costs };
    let schedule = schedule::check(system, &roles, board.as_ref(), &plans, &cleaning, findings);
    let log_windows = log_windows(system, findings);
    let hz = board.as_ref().and_then(|board| board.hz);
    let limits = limits::check(system, roles.values(), hz, sources, findings);
    let placements = memory::check(system, board.as_ref(), findings);
    let programs: Vec<_> =
        system.partitions.iter().map(|p| programs::check(p, sources, findings)).collect();
    let shutdown = shutdown(system, board.as_ref(), findings);
    if findings.has_errors() {
        return None;
    }
    let partitions: Option<Vec<_>> = system
        .partitions
        .iter()
        .zip(placements.into_iter().zip(programs))
        .zip(receivers.iter().zip(&wanted))
        .map(|((partition, (placement, program)), (donates_to, hygiene))| {
            let planned = planned(partition, placement?, program?, sources)?;
            Some(PlannedPartition { donates_to: *donates_to, hygiene: *hygiene, ..planned })
        })
        .collect();
    Some(Plan {
        system: system.name.as_ref()?.value.clone(),
        system_file: path.file_name()?.to_string_lossy().into_owned(),
        board: planned_board(board?)?,
        // Filled by `analyse`, which chose it.
        board_file: PathBuf::new(),
        partitions: partitions?,
        cores: planned_cores(&roles, &schedule)?,
        frame: schedule.frame,
        plans: plans.names,
        log_windows,
        limits,
        shutdown,
        sources: sources.paths(),
        texts: sources.clone(),
        warnings: findings.clone().resolve(sources),
        comparisons: findings.comparisons.made(),
    })
}

/// Windows are logged where there are any.
fn log_windows(system: &SystemFile, findings: &mut Findings) -> bool {
    let Some(wish) = system.log_windows.as_ref().filter(|wish| wish.value) else {
        return false;
    };
    if system.partitions.iter().all(|partition| partition.windows.is_none()) {
        let finding = Finding::new(
            Rule::LogWithoutWindows,
            "windows are to be logged, and no partition has any",
            "take the key out, or give the partitions of a core windows",
        );
        findings.push(finding.at(wish.place, "does nothing"));
    }
    true
}

fn planned(
    partition: &Partition,
    placement: Placement,
    program: Program,
    sources: &Sources,
) -> Option<PlannedPartition> {
    let available = |region: &Region| (region.guest, region.size, boot_info::AVAILABLE);
    let mut memory_map: Vec<_> = placement.regions.iter().map(available).collect();
    let schedule = placement.schedule;
    memory_map.extend(schedule.map(|pages| (pages.start, pages.size, boot_info::RESERVED)));
    let cores = partition.cores.as_ref()?.value.iter();
    Some(PlannedPartition {
        name: partition.name.value.clone(),
        place: sources.name_and_line(partition.name.place),
        cpus: cores.map(|core| u16::try_from(core.value).ok()).collect::<Option<_>>()?,
        platform: program.platform,
        regions: placement.regions,
        schedule,
        may_switch_plan: partition.may_switch_plan.as_ref().is_some_and(|right| right.value),
        donates_to: None,
        hygiene: Hygiene::default(),
        ept_pages: placement.ept_pages,
        boot_info: boot_info::build(&program.arguments, &memory_map),
        arguments: program.arguments,
        image: program.image,
        image_place: program.image_place,
        ramdisk: program.ramdisk,
        arguments_place: program.arguments_place,
    })
}

fn planned_board(board: CheckedBoard) -> Option<PlannedBoard> {
    Some(PlannedBoard {
        name: board.name?,
        apic_ids: board.apic_ids?,
        topology: board.topology,
        memory: board.memory?.into_iter().map(|range| range.value).collect(),
        clock: board.clock?,
        hygiene: board.hygiene,
        hypervisor: board.hypervisor?.value,
        uart: board.uart?,
        large_code_pages: board.large_code_pages,
        power: board.power,
        power_off: board.power_off?,
    })
}

fn planned_cores(roles: &BTreeMap<u64, Role<'_>>, schedule: &Schedule) -> Option<Vec<PlannedCore>> {
    roles
        .iter()
        .map(|(core, role)| {
            let role = match role {
                Role::Dedicated(partition) => PlannedRole::Dedicated(*partition),
                Role::Housekeeping => PlannedRole::Housekeeping,
                Role::Shared(_) => PlannedRole::Shared(schedule.windows.get(core)?.clone()),
            };
            Some(PlannedCore { cpu: u16::try_from(*core).ok()?, role })
        })
        .collect()
}

fn shutdown(
    system: &SystemFile,
    board: Option<&CheckedBoard>,
    findings: &mut Findings,
) -> Option<PlannedShutdown> {
    let shutdown = system.shutdown.as_ref()?;
    let at_latest = match (&shutdown.at_latest, board.and_then(|board| board.hz)) {
        (Some(written), Some(hz)) => {
            let ticks = positive_ticks(written, "at-latest", hz, findings);
            let frame = system.schedule.as_ref().and_then(|schedule| schedule.frame.as_ref());
            if let (Some(ticks), Some(frame)) = (ticks, frame)
                && frame.value.to_ticks(hz).exact().is_some_and(|frame| ticks < frame)
            {
                findings.push(before_one_frame(written.place, frame.place));
            }
            ticks
        }
        _ => Some(0),
    };
    let names = shutdown.when_finished.as_ref()?;
    if names.value.is_empty() {
        let finding = Finding::new(
            Rule::ShutdownEmpty,
            "the shutdown waits for no partition",
            "name the partitions to wait for, or take `[shutdown]` out: the system then runs for ever",
        );
        findings.push(finding.at(names.place, "empty"));
    }
    let known: Vec<_> = system.partitions.iter().map(|p| p.name.value.as_str()).collect();
    for (first, again) in findings.comparisons.repeated(&names.value, |name| name.value.as_str()) {
        let message = format!("the shutdown names `{}` twice", again.value);
        let finding = Finding::new(Rule::ShutdownUnknown, message, "take one of them out");
        findings.push(finding.at(again.place, "again here").with(first.place, "first here"));
    }
    let ids: BTreeMap<&str, u16> = known.iter().copied().zip(0_u16..).collect();
    let mut when_finished = Vec::new();
    for name in &names.value {
        match ids.get(name.value.as_str()) {
            Some(id) => when_finished.push(*id),
            None => findings.push(unknown_partition(name, &known)),
        }
    }
    Some(PlannedShutdown { when_finished, at_latest: at_latest? })
}

fn before_one_frame(at_latest: Place, frame: Place) -> Finding {
    Finding::new(
        Rule::EndsWithinFrame,
        "the system ends before its first major frame does",
        "give it one frame at least: some windows would never have come",
    )
    .at(at_latest, "shorter than a frame")
    .with(frame, "the frame")
}

fn unknown_partition(name: &crate::source::At<String>, known: &[&str]) -> Finding {
    let remedy = match closest(&name.value, known) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("the partitions are {}", list(known)),
    };
    let message = format!(
        "the shutdown waits for `{}`, which is no partition",
        crate::reader::shorten(&name.value)
    );
    Finding::new(Rule::ShutdownUnknown, message, remedy).at(name.place, "unknown")
}
