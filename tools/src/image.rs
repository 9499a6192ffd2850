//! Builds the bootable image: guests, the hypervisor around the table, GRUB for BIOS and UEFI.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_config::{Compiled, ImageKind, Input};

use crate::elf;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::progress::Step;
use crate::{audit, bare, compile, grub, guests, paths, process};

/// What to build, and where.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// The system file.
    pub system: PathBuf,
    /// The board file that is taken instead of the one that the system names.
    pub board: Option<PathBuf>,
    /// The image; by default `<work>/<system>.img`.
    pub output: Option<PathBuf>,
    /// Folder for everything that is built for this system; by default below cargo's target directory,
    /// by the names of the system file and of a board that is not its own. Two system files of one name need two folders.
    pub work: Option<PathBuf>,
    /// The tree whose hypervisor is built; by default the one of this command. The judge plants faults in a copy.
    /// It is built beside itself, in `<tree>-target`.
    pub tree: Option<PathBuf>,
    /// Builds the hypervisor with its feature `floor`, which shows the least that an exit can cost.
    pub floor: bool,
    /// Shows no progress.
    pub quiet: bool,
}

/// What was built.
pub struct BuiltImage {
    /// The bootable image. Its manifest and the hypervisor's ELF lie beside it.
    pub image: PathBuf,
    /// The hypervisor's ELF with debug information, beside the image.
    pub elf: PathBuf,
    /// Folder of the guests' ELF files, `<partition>.elf`.
    pub images: PathBuf,
    /// Folder of everything that was built for this system.
    pub work: PathBuf,
    /// What was written beside the image.
    pub manifest: Manifest,
    /// The compiled system.
    pub compiled: Compiled,
}

/// Builds the image of a system.
///
/// # Errors
/// The system file is rejected, something does not build, GRUB's tools fail, or the audit does not pass the image,
/// which is then removed.
pub fn build_image(options: &BuildOptions) -> Result<BuiltImage> {
    let prepared = prepare(options)?;
    let hypervisor = build_hypervisor(&prepared, options)?;
    let step = Step::begin("disk image (GRUB, BIOS and UEFI)", options.quiet);
    let staging = prepared.work.join("disk");
    paths::remove_stale(&staging)?;
    let boot = staging.join("boot");
    paths::create(&boot)?;
    let copy = grub::boot_copy(&hypervisor, "the hypervisor")?;
    paths::write(&boot.join(grub::BY_BIOS), &grub::without_framebuffer(&copy))?;
    paths::write(&boot.join(grub::BY_UEFI), &copy)?;
    let mut names = Vec::new();
    for module in prepared.compiled.modules() {
        paths::write(&boot.join(format!("{}.bin", module.name)), &module.bytes)?;
        names.push(module.name.as_str());
    }
    grub::make(&staging, &grub::hypervisor_menu(&names), &prepared.image)?;
    step.done();
    let proven = audit::audit_built(&prepared.image, &elf::hex(&prepared.compiled.digest()))?;
    if !options.quiet {
        eprintln!(" ✓ audit: {}", proven.summary());
    }
    finish(prepared, &hypervisor)
}

/// A system that is compiled, with its guests built.
pub struct Prepared {
    /// The system file, absolute.
    pub system: PathBuf,
    /// The board file that is taken instead of the one that the system names, absolute.
    pub board: Option<PathBuf>,
    /// Folder of everything that is built for this system.
    pub work: PathBuf,
    /// Folder of the guests' ELF files.
    pub images: PathBuf,
    /// Where the image goes.
    pub image: PathBuf,
    /// The compiled system.
    pub compiled: Compiled,
}

/// Builds the guests and compiles the system.
///
/// # Errors
/// The system file is rejected, or a guest does not build.
pub fn prepare(options: &BuildOptions) -> Result<Prepared> {
    let system = paths::absolute(&options.system)?;
    let board = options.board.as_deref().map(paths::absolute).transpose()?;
    let stem = work_name(&system, board.as_deref());
    let work = match &options.work {
        Some(folder) => folder.clone(),
        None => paths::work(&stem)?,
    };
    paths::create(&work)?;
    let work = paths::absolute(&work)?;
    let images = work.join("images");
    let compiled = {
        let _lock = build_lock()?;
        let input = Input { system: &system, board: board.as_deref() };
        let requests = compile::requests(input)?;
        guests::build_all(&requests, &images, options.quiet)?;
        compile::compile(input, &images)?
    };
    let image = options.output.clone().unwrap_or_else(|| work.join(format!("{stem}.img")));
    Ok(Prepared { system, board, work, images, image, compiled })
}

/// What the folder and the image of a system are called.
fn work_name(system: &Path, board: Option<&Path>) -> String {
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    match board {
        None => stem(system),
        Some(board) => format!("{}-on-{}", stem(system), stem(board)),
    }
}

/// Builds the hypervisor around the table and returns its ELF.
fn build_hypervisor(prepared: &Prepared, options: &BuildOptions) -> Result<Vec<u8>> {
    let _lock = build_lock()?;
    let step = Step::begin("hypervisor (cargo)", options.quiet);
    // Cargo tells packages apart by their place in the workspace alone: in one target directory it would take what it built of another
    // tree for this one's.
    let (tree, target) = match &options.tree {
        Some(tree) => (tree.clone(), target_beside(tree)?),
        None => (paths::root()?, paths::target()?),
    };
    let mut command = bare::cargo(&tree, &target);
    command
        .args(["--package", "bulkhead-hv"])
        .args(options.floor.then_some("--features=floor"))
        .env("BULKHEAD_SYSTEM", &prepared.system)
        .env_remove("BULKHEAD_BOARD")
        .envs(prepared.board.iter().map(|board| ("BULKHEAD_BOARD", board)))
        .env("BULKHEAD_IMAGES", &prepared.images)
        .env("DEFMT_LOG", "debug")
        .env("CARGO_TARGET_DIR", target);
    let what = "the hypervisor does not build";
    let output = process::run(&mut command, what, "mend what the compiler names")?;
    let path = guests::executable(&output).ok_or_else(|| {
        Error::failed(what, "cargo named no program that it built", "mend hv/Cargo.toml")
    })?;
    let elf = paths::read(&path)?;
    step.done();
    Ok(elf)
}

/// The target directory of another tree. A new one begins with what the compiler of system files is made of, as it was built for this
/// tree: cargo takes the crates that come from elsewhere, and builds those of the other tree, whose files are newer.
fn target_beside(tree: &Path) -> Result<PathBuf> {
    let target = paths::beside(tree, "-target");
    let built = paths::target()?.join(bare::PROFILE);
    if target.exists() || !built.exists() {
        return Ok(target);
    }
    paths::create(&target)?;
    let what = format!("cannot copy {}", built.display());
    // Cargo goes by the files' times.
    let mut copy = Command::new("cp");
    process::run(copy.arg("-a").arg(&built).arg(&target), &what, "free some space there")?;
    Ok(target)
}

/// Builds share cargo's target directory: between a build and the copying of what it built no other build may
/// write there. Held until dropped; other processes wait too.
pub(crate) fn build_lock() -> Result<File> {
    let folder = paths::target()?.join("bulkhead");
    paths::create(&folder)?;
    let path = folder.join("build.lock");
    let lock = File::create(&path).map_err(|cause| Error::file("write", &path, &cause))?;
    lock.lock().map_err(|cause| Error::file("lock", &path, &cause))?;
    Ok(lock)
}

fn finish(prepared: Prepared, hypervisor: &[u8]) -> Result<BuiltImage> {
    let read = |cause: String| {
        Error::failed(
            "the hypervisor's ELF is not as it should be",
            cause,
            "mend hv's linker script",
        )
    };
    let elf = Manifest::elf_path(&prepared.image);
    paths::write(&elf, hypervisor)?;
    let manifest = Manifest {
        build_id: elf::hex(&elf::build_id(hypervisor).map_err(read)?),
        hypervisor: elf::sizes(hypervisor).map_err(read)?,
        image_size: file_size(&prepared.image)?,
        ..compile::facts(&prepared.compiled)
    };
    manifest.save(&prepared.image)?;
    Ok(BuiltImage {
        image: prepared.image,
        elf,
        images: prepared.images,
        work: prepared.work,
        manifest,
        compiled: prepared.compiled,
    })
}

/// Builds an image that boots the guest of one partition without the hypervisor, for comparison.
///
/// # Errors
/// As [`build_image`]; also when the system has no such partition.
pub fn build_native(options: &BuildOptions, partition: &str) -> Result<BuiltImage> {
    let mut prepared = prepare(options)?;
    let facts = compile::facts(&prepared.compiled);
    if !facts.partitions.iter().any(|place| place.name == partition) {
        let names: Vec<&str> = facts.partitions.iter().map(|place| place.name.as_str()).collect();
        return Err(Error::refused(
            format!("cannot boot {partition} natively"),
            format!("{} has no such partition", prepared.system.display()),
            format!("name one of: {}", names.join(", ")),
        ));
    }
    if options.output.is_none() {
        prepared.image = prepared.work.join(format!("{partition}.native.img"));
    }
    let step =
        Step::begin(format!("disk image of {partition} without the hypervisor"), options.quiet);
    let staging = prepared.work.join(format!("native-{partition}"));
    paths::remove_stale(&staging)?;
    let boot = staging.join("boot");
    paths::create(&boot)?;
    let menu = native_parts(&prepared, partition, &boot)?;
    grub::make(&staging, &menu, &prepared.image)?;
    step.done();
    let manifest = Manifest {
        cores: native_cores(&prepared, partition).unwrap_or(facts.cores),
        native: Some(partition.to_string()),
        digest: String::new(),
        image_size: file_size(&prepared.image)?,
        ..facts
    };
    manifest.save(&prepared.image)?;
    Ok(BuiltImage {
        elf: prepared.images.join(format!("{partition}.elf")),
        image: prepared.image,
        images: prepared.images,
        work: prepared.work,
        manifest,
        compiled: prepared.compiled,
    })
}

/// Lays down what boots without the hypervisor, and gives the menu for it.
fn native_parts(prepared: &Prepared, partition: &str, boot: &Path) -> Result<String> {
    let arguments = compile::arguments(&prepared.compiled, partition);
    let file = |ending: &str| prepared.images.join(format!("{partition}.{ending}"));
    if is_kernel(prepared, partition) {
        let disk = file("initrd");
        paths::write(&boot.join(grub::KERNEL), &paths::read(&file("kernel"))?)?;
        if disk.is_file() {
            paths::write(&boot.join(grub::RAM_DISK), &paths::read(&disk)?)?;
        }
        return Ok(grub::native_kernel_menu(arguments, disk.is_file()));
    }
    let copy = grub::boot_copy(&paths::read(&file("elf"))?, partition)?;
    paths::write(&boot.join(grub::GUEST), &grub::without_framebuffer(&copy))?;
    let words = format!("{arguments} tsc_khz={}", prepared.compiled.plan().tsc_hz() / 1000);
    Ok(grub::native_menu(words.trim()))
}

fn is_kernel(prepared: &Prepared, partition: &str) -> bool {
    let requests = prepared.compiled.plan().requests();
    let mut own = requests.iter().filter(|request| request.partition == partition);
    own.any(|request| request.kind == ImageKind::Kernel)
}

/// A kernel takes every processor that it finds: natively it finds as many as in its partition.
fn native_cores(prepared: &Prepared, partition: &str) -> Option<usize> {
    let found = prepared.compiled.plan().partitions().iter().find(|own| own.name == partition)?;
    is_kernel(prepared, partition).then_some(found.cpus.len())
}

fn file_size(path: &Path) -> Result<u64> {
    let data = std::fs::metadata(path).map_err(|cause| Error::file("find", path, &cause))?;
    Ok(data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_board_has_a_folder_of_its_own() {
        let demo = Path::new("/a/demo.toml");
        assert_eq!(work_name(demo, None), "demo");
        let epyc = Path::new("/boards/qemu-epyc.toml");
        assert_eq!(work_name(demo, Some(epyc)), "demo-on-qemu-epyc");
    }
}
