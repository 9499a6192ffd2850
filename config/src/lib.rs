//! The compiler: one TOML file to a proven plan and a static table.
//!
//! The way of the data: texts -> [`toml`] documents with spans -> what they say (`schema`) -> checks
//! (`board`, `topology`, `cores`, `neighbours`, `plans`, `donation`, `hygiene`, `schedule`, `memory`, `image`) -> [`Plan`] -> [`Compiled`] -> [`Compiled::emit`], Rust
//! source of a [`bulkhead_table::PartitionTable`], and [`Compiled::report`] for a person.
//!
//! Every mistake is told at once, each under the code of its [`Rule`], with its place, what it conflicts
//! with and the remedy. `README.md` beside this crate is the manual of the language.
#![forbid(unsafe_code)]

mod board;
mod boot_info;
mod compare;
mod cores;
mod diagnostics;
mod diff;
mod documents;
mod donation;
mod emit;
mod explain;
mod format;
mod hygiene;
mod image;
mod json_schema;
pub mod language;
mod limits;
mod memory;
mod neighbours;
mod page;
mod parse;
mod pc;
mod places;
mod plan;
mod plans;
mod programs;
mod reader;
mod report;
mod rules;
mod schedule;
mod schema;
mod serial;
mod source;
mod starter;
mod suggest;
mod surroundings;
mod topology;
mod units;
mod view;
mod who;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulkhead_table::{PAGE_SIZE, Platform};
use sha2::{Digest, Sha256};

pub use bulkhead_board::HYPERVISOR_RESERVE;

pub use boot_info::{ADDRESS as BOOT_INFO_ADDRESS, LONGEST_ARGUMENTS};
pub use diagnostics::{Diagnostic, Diagnostics, Location};
pub use diff::{Change, Difference, Gravity, diff};
pub use explain::Explanation;
pub use format::{FormatError, Formatted, format_file};
pub use json_schema::{FileKind, json_schema};
pub use limits::{Limit, Limited};
pub use page::page_head;
pub use plan::{Plan, PlannedCore, PlannedPartition, PlannedRole};
pub use rules::{Rule, Severity};
pub use starter::{Starter, starter};
pub use topology::{Cache, Position};
pub use who::{Answer, FORMS as WHO_FORMS, Found, QueryError, Verdict};

use diagnostics::{Finding, Findings};
use image::{About, FlatImage, Refusal};
use plan::Analysis;
use source::{Place, Sources, shown};
use suggest::with_near_path;
use units::size_text;

/// What is compiled: a system file, on the board that it names or on another one. A path alone is the former.
#[derive(Clone, Copy, Debug)]
pub struct Input<'p> {
    /// The system file.
    pub system: &'p Path,
    /// The board file that is taken instead of the one that `[system]` names.
    pub board: Option<&'p Path>,
}

impl<'p, P: AsRef<Path> + ?Sized> From<&'p P> for Input<'p> {
    fn from(system: &'p P) -> Self {
        Self { system: system.as_ref(), board: None }
    }
}

/// A guest image that a system needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// The partition that runs it.
    pub partition: String,
    /// Absolute path of the file or folder.
    pub path: PathBuf,
    /// What is there.
    pub kind: ImageKind,
}

impl ImageRequest {
    /// What its file is to be called in the folder of images.
    #[must_use]
    pub fn file_name(&self) -> String {
        let ending = match self.kind {
            ImageKind::Elf | ImageKind::Cargo | ImageKind::Make => "elf",
            ImageKind::Kernel => "kernel",
            ImageKind::Ramdisk => "initrd",
        };
        format!("{}.{ending}", self.partition)
    }
}

/// What an image is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// A finished ELF file.
    Elf,
    /// A folder with a Cargo.toml.
    Cargo,
    /// A folder with a Makefile.
    Make,
    /// The kernel of an operating system, a finished file.
    Kernel,
    /// The initial RAM disk of one, a finished file.
    Ramdisk,
}

impl ImageKind {
    /// Whether it is a file that is taken as it is.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        matches!(self, Self::Elf | Self::Kernel | Self::Ramdisk)
    }
}

/// A flattened guest image, as the boot loader hands it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name of the module: the partition's.
    pub name: String,
    /// What is staged.
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
}

/// A proven system with its images.
#[derive(Clone, Debug)]
pub struct Compiled {
    plan: Plan,
    pub(crate) images: Vec<FlatImage>,
    modules: Vec<Module>,
    digest: [u8; 32],
    sources: Vec<PathBuf>,
}

impl Compiled {
    /// The plan: names, cores, memory, windows.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Rust source of the table: `TABLE`, and the sizes of pools `PARTITIONS`, `CORES`, `EPT_PAGES`.
    #[must_use]
    pub fn emit(&self) -> String {
        emit::emit(self)
    }

    /// The flattened images, in the order of the partitions.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The report for a person.
    #[must_use]
    pub fn report(&self) -> String {
        report::report(&self.plan, &self.modules)
    }

    /// What a person should look at although the system compiles.
    #[must_use]
    pub fn warnings(&self) -> &Diagnostics {
        self.plan.warnings()
    }

    /// Every file that was read, guest images included, for `cargo::rerun-if-changed`.
    #[must_use]
    pub fn sources(&self) -> &[PathBuf] {
        &self.sources
    }

    /// SHA-256 over system file, board file, what they include, and flattened images: the table's own.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl Plan {
    /// The report for a person, without the images.
    #[must_use]
    pub fn report(&self) -> String {
        report::report(self, &[])
    }
}

/// The guest images that must be there before [`compile`].
///
/// # Errors
/// Everything that is wrong with the system apart from the bytes of its images.
pub fn requests<'p>(input: impl Into<Input<'p>>) -> Result<Vec<ImageRequest>, Diagnostics> {
    let analysis = plan::analyse(input.into(), Sources::default(), Findings::default());
    match analysis.plan {
        Some(plan) => Ok(plan.requests()),
        None => Err(analysis.findings.resolve(&analysis.sources)),
    }
}

/// Checks and plans a system before its guests are built; finished ELF files are looked into.
///
/// # Errors
/// Everything that is wrong with it, as far as it can be seen before a build.
pub fn check_without_images<'p>(input: impl Into<Input<'p>>) -> Result<Plan, Diagnostics> {
    let Analysis { sources, mut findings, plan, hypervisor_place } =
        plan::analyse(input.into(), Sources::default(), Findings::default());
    let Some(plan) = plan else {
        return Err(findings.resolve(&sources));
    };
    let finished = plan.partitions.iter().filter(|p| p.image.kind.is_finished());
    let images: Vec<_> = finished
        .filter_map(|partition| {
            load(&plan, partition, |request| request.path.clone(), &mut findings)
        })
        .collect();
    // What is still to be built counts for nothing here; `compile` counts it.
    if !findings.has_errors() {
        staged_images_fit(&plan, &images, hypervisor_place, &mut findings);
    }
    if findings.has_errors() { Err(findings.resolve(&sources)) } else { Ok(plan) }
}

/// Checks and plans a system that lies in memory. `files` holds every file that there is, by its path; `system` is the
/// path of one. Nothing is taken from a disk, and images are not looked into: they only have to be there.
///
/// # Errors
/// Everything that is wrong with it, as far as its texts show it.
pub fn check_texts(system: &Path, files: BTreeMap<PathBuf, String>) -> Result<Plan, Diagnostics> {
    let Analysis { sources, findings, plan, .. } =
        plan::analyse(system.into(), Sources::given(files), Findings::default());
    plan.ok_or_else(|| findings.resolve(&sources))
}

/// Compiles a system; `images` is the folder with the files of [`requests`], each called [`ImageRequest::file_name`].
///
/// # Errors
/// Everything that is wrong with it.
pub fn compile<'p>(input: impl Into<Input<'p>>, images: &Path) -> Result<Compiled, Diagnostics> {
    compile_by(input.into(), images, Findings::default())
}

/// Everything that would be wrong with a system if there were no such rule, warnings included. So a test finds out
/// whether a file is refused for one reason alone.
#[must_use]
pub fn findings_without(rule: Rule, system: &Path, images: &Path) -> Diagnostics {
    match compile_by(system.into(), images, Findings::without(rule)) {
        Ok(compiled) => compiled.plan.warnings,
        Err(found) => found,
    }
}

fn compile_by(
    input: Input<'_>,
    images: &Path,
    findings: Findings,
) -> Result<Compiled, Diagnostics> {
    let Analysis { sources, mut findings, plan, hypervisor_place } =
        plan::analyse(input, Sources::default(), findings);
    let Some(plan) = plan else {
        return Err(findings.resolve(&sources));
    };
    let mut read_files = plan.sources.clone();
    let mut flat = Vec::new();
    for partition in &plan.partitions {
        let path = |request: &ImageRequest| images.join(request.file_name());
        flat.extend(load(&plan, partition, path, &mut findings));
    }
    read_files.extend(plan.requests().iter().map(|request| images.join(request.file_name())));
    if flat.len() == plan.partitions.len() {
        staged_images_fit(&plan, &flat, hypervisor_place, &mut findings);
    }
    if findings.has_errors() || flat.len() != plan.partitions.len() {
        return Err(findings.resolve(&sources));
    }
    let modules = modules(&plan, &flat);
    let digest = digest(&sources, &flat);
    Ok(Compiled { plan, images: flat, modules, digest, sources: read_files })
}

/// What is staged for a partition, its files read from where `path` says that they are.
fn load(
    plan: &Plan,
    partition: &PlannedPartition,
    path: impl Fn(&ImageRequest) -> PathBuf,
    findings: &mut Findings,
) -> Option<FlatImage> {
    let read = |request: &ImageRequest, place: Place, findings: &mut Findings| {
        let path = path(request);
        let missing = |cause: String| match request.kind {
            ImageKind::Kernel => missing(plan, "kernel", request, place),
            ImageKind::Ramdisk => missing(plan, "initrd", request, place),
            _ => not_built(partition, &path, &cause).at(place, "this image"),
        };
        image::read(&path).map_err(|cause| findings.push(missing(cause))).ok()
    };
    let bytes = read(&partition.image, partition.image_place, findings);
    let ramdisk =
        partition.ramdisk.as_ref().map(|(request, place)| read(request, *place, findings));
    let (bytes, ramdisk) = (bytes?, ramdisk.map_or(Some(None), |read| read.map(Some))?);
    let (ramdisk, around) = (ramdisk.as_deref(), surroundings(plan, partition));
    let loaded = match (partition.platform, partition.image.kind) {
        (Platform::Pc, ImageKind::Kernel) => pc::linux(&bytes, ramdisk, &around),
        (Platform::Pc, _) => pc::image(&bytes, ramdisk, &around),
        (Platform::Bare, _) => bare(&bytes, partition.first_piece()),
    };
    loaded.map_err(|refusal| findings.push(refused(partition, refusal))).ok()
}

/// What is staged for a guest that is made for this hypervisor.
fn bare(file: &[u8], memory: u64) -> Result<FlatImage, Refusal> {
    match pc::needs_pc(file) {
        Some(protocol) if image::is_elf(file) => Err(Refusal::new(
            Rule::ImageDemands,
            format!(
                "the guest image asks to be started by {protocol}, and a bare partition starts by Multiboot2 alone"
            ),
            "give the partition `platform = \"pc\"`, or the image a header of Multiboot2",
        )),
        _ => image::flatten(file, memory),
    }
}

fn not_built(partition: &PlannedPartition, path: &Path, cause: &str) -> Finding {
    Finding::new(
        Rule::ImageNotBuilt,
        format!("the image of `{}` cannot be read: {}: {cause}", partition.name, shown(path)),
        "build the system with `cargo bulkhead build`, which builds its guests first",
    )
}

/// A file that is taken as it is, and is not there.
fn missing(plan: &Plan, key: &str, request: &ImageRequest, place: Place) -> Finding {
    let written = plan.texts.text_at(place).unwrap_or_default().trim_matches(['"', '\'']);
    let remedy = with_near_path(
        written,
        &request.path,
        "name a file by its path from the folder of this file; `cargo bulkhead linux` gets Debian's kernels and makes a RAM disk",
    );
    let (name, path) = (&request.partition, shown(&request.path));
    let message = format!("the {key} of `{name}` is missing: there is no {path}");
    Finding::new(Rule::KernelMissing, message, remedy).at(place, "named here")
}

fn refused(partition: &PlannedPartition, refusal: Refusal) -> Finding {
    let message = format!("{} (`{}`)", refusal.message, partition.name);
    let (place, label) = match refusal.about {
        About::Image if partition.image.kind == ImageKind::Kernel => (None, "this kernel"),
        About::Image => (None, "this image"),
        About::Ramdisk => (partition.ramdisk.as_ref().map(|(_, place)| *place), "this RAM disk"),
        About::CommandLine => (partition.arguments_place, "this line"),
    };
    let finding = Finding::new(refusal.rule, message, refusal.remedy);
    finding.at(place.unwrap_or(partition.image_place), label)
}

fn surroundings<'p>(plan: &'p Plan, partition: &'p PlannedPartition) -> pc::Surroundings<'p> {
    let id = |cpu: &u16| plan.board.apic_ids.get(usize::from(*cpu)).copied();
    pc::Surroundings {
        memory: partition.size(),
        first_piece: partition.first_piece(),
        processors: partition.cpus.iter().filter_map(id).collect(),
        command_line: &partition.arguments,
        schedule: partition.schedule,
    }
}

fn staged_bytes(images: &[FlatImage]) -> u64 {
    images.iter().map(|image| (image.bytes.len() as u64).next_multiple_of(PAGE_SIZE)).sum()
}

fn staged_images_fit(
    plan: &Plan,
    images: &[FlatImage],
    place: Option<Place>,
    findings: &mut Findings,
) {
    let staged = staged_bytes(images);
    let log = plan.log_memory().map_or(0, |memory| memory.size);
    let needed = staged + HYPERVISOR_RESERVE + log;
    let size = plan.board.hypervisor.size;
    if needed <= size {
        return;
    }
    let room = board::hypervisor_room(plan.board.memory.iter().copied()).unwrap_or(0);
    let parts = format!(
        "{} of staged guest images and a reserve of {} for the hypervisor's own image, stacks and tables{}",
        size_text(staged),
        size_text(HYPERVISOR_RESERVE),
        if log > 0 { format!(", and {} of log", size_text(log)) } else { String::new() }
    );
    let remedy = if needed <= room {
        let size = size_text(needed.next_multiple_of(1 << 20).min(room));
        format!("write `size = \"{size}\"` or more for it: {parts}")
    } else {
        format!(
            "no size is large enough: the board's RAM from 1 MiB on ends after {}, and {} are needed: {parts}; make the images smaller by {}, or choose another board",
            size_text(room),
            size_text(needed),
            size_text(needed - room)
        )
    };
    let message =
        format!("the hypervisor's range of {} is too small for this system", size_text(size));
    let finding = Finding::new(Rule::HypervisorTooSmall, message, remedy);
    findings.push(match place {
        Some(place) => finding.at(place, format!("{} are needed", size_text(needed))),
        None => finding,
    });
}

fn modules(plan: &Plan, images: &[FlatImage]) -> Vec<Module> {
    plan.partitions
        .iter()
        .zip(images)
        .map(|(partition, image)| Module {
            name: partition.name.clone(),
            bytes: image.bytes.clone(),
            digest: Sha256::digest(&image.bytes).into(),
        })
        .collect()
}

/// Each part goes in with its length, so that no two systems run together into the same bytes.
fn digest(sources: &Sources, images: &[FlatImage]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let texts = sources.iter().map(|source| source.text.as_bytes());
    for part in texts.chain(images.iter().map(|image| image.bytes.as_slice())) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
