//! What runs in a partition: an image, or an operating system's kernel with its RAM disk and command line.

use std::path::{Path, PathBuf};

use bulkhead_table::Platform;

use crate::boot_info::LONGEST_ARGUMENTS;
use crate::diagnostics::{Finding, Findings};
use crate::language::PLATFORM_WORDS;
use crate::rules::Rule;
use crate::schema::Partition;
use crate::source::{At, Place, Sources, shown};
use crate::suggest::with_near_path;
use crate::{ImageKind, ImageRequest};

/// What runs in a partition, before its bytes are read.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub platform: Platform,
    pub image: ImageRequest,
    pub image_place: Place,
    /// The initial RAM disk of a kernel.
    pub ramdisk: Option<(ImageRequest, Place)>,
    /// The command line of either.
    pub arguments: String,
    pub arguments_place: Option<Place>,
}

/// The program of a partition; `None` where it is not well described, which is reported.
pub(crate) fn check(
    partition: &Partition,
    sources: &Sources,
    findings: &mut Findings,
) -> Option<Program> {
    belong_together(partition, findings);
    let name = partition.name.value.as_str();
    let line = partition.arguments.as_ref().or(partition.cmdline.as_ref());
    line.inspect(|line| check_line(name, line, findings));
    let (image, kernel) = (&partition.image, &partition.kernel);
    let (image, image_place) = match (image, kernel) {
        (Some(image), _) => (image_request(name, image, sources, findings), image.place),
        (None, Some(kernel)) => {
            (Some(file_request(name, ImageKind::Kernel, kernel, sources)), kernel.place)
        }
        (None, None) => return None,
    };
    let ramdisk = partition
        .initrd
        .as_ref()
        .map(|file| (file_request(name, ImageKind::Ramdisk, file, sources), file.place));
    Some(Program {
        platform: if is_pc(partition) { Platform::Pc } else { Platform::Bare },
        image: image?,
        image_place,
        ramdisk,
        arguments: line.map(|line| line.value.clone()).unwrap_or_default(),
        arguments_place: line.map(|line| line.place),
    })
}

/// Whether a partition is a PC.
pub(crate) fn is_pc(partition: &Partition) -> bool {
    partition.kernel.is_some() || wants_pc(partition)
}

/// Whether the platform of a PC is asked for.
fn wants_pc(partition: &Partition) -> bool {
    let platform = partition.platform.as_ref();
    platform.is_some_and(|word| Some(&word.value.as_str()) == PLATFORM_WORDS.last())
}

/// One program, and keys that go with it.
fn belong_together(partition: &Partition, findings: &mut Findings) {
    let name = &partition.name.value;
    if let (Some(image), Some(kernel)) = (&partition.image, &partition.kernel) {
        let message = format!("`{name}` has an image and a kernel");
        let remedy = "keep one of them: a partition is one machine with one program";
        let finding = Finding::new(Rule::TwoPrograms, message, remedy);
        findings.push(finding.at(kernel.place, "the kernel").with(image.place, "the image"));
        return;
    }
    let bare = partition.platform.as_ref().filter(|word| word.value == PLATFORM_WORDS[0]);
    let pairs = match (&partition.image, &partition.kernel) {
        (Some(image), None) => [
            (
                if wants_pc(partition) { &None } else { &partition.initrd },
                image,
                "`initrd` goes with a `kernel`, or with an image on a PC",
                "take it out, or give the partition `platform = \"pc\"`",
            ),
            (
                &partition.cmdline,
                image,
                "`cmdline` goes with a `kernel`",
                "an image has `arguments`",
            ),
        ],
        (None, Some(kernel)) => [
            (
                &partition.arguments,
                kernel,
                "`arguments` go with an `image`",
                "a kernel has `cmdline`",
            ),
            (&None, kernel, "", ""),
        ],
        _ => return,
    };
    for (key, program, message, remedy) in pairs {
        if let Some(key) = key {
            let message = format!("{message}, and `{name}` has another program");
            let finding = Finding::new(Rule::KernelKey, message, remedy);
            findings.push(finding.at(key.place, "").with(program.place, "it runs this"));
        }
    }
    if let (Some(bare), Some(kernel)) = (bare, &partition.kernel) {
        let message = format!("the kernel of `{name}` is to run where there is no PC around it");
        let finding =
            Finding::new(Rule::KernelKey, message, "take the key out: a kernel has a `pc`");
        findings
            .push(finding.at(bare.place, "no console, no clock").with(kernel.place, "the kernel"));
    }
}

fn check_line(name: &str, line: &At<String>, findings: &mut Findings) {
    let length = line.value.len();
    let printable = line.value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let (message, remedy) = if length > LONGEST_ARGUMENTS {
        (
            format!("the arguments of `{name}` are {length} bytes long"),
            format!("write {LONGEST_ARGUMENTS} at most: the boot information has one page"),
        )
    } else if !printable {
        (
            format!("the arguments of `{name}` hold a character that is not printable ASCII"),
            "write letters, digits, signs and blanks: guests read bytes".to_owned(),
        )
    } else {
        return;
    };
    let finding = Finding::new(Rule::BadArguments, message, remedy);
    findings.push(finding.at(line.place, ""));
}

/// A file that is taken as it is. Whether it is there is seen when it is read: it may be made first.
fn file_request(name: &str, kind: ImageKind, file: &At<String>, sources: &Sources) -> ImageRequest {
    request(name, sources.beside(file.place.file, &file.value), kind)
}

fn request(name: &str, path: PathBuf, kind: ImageKind) -> ImageRequest {
    let path = std::path::absolute(&path).unwrap_or(path);
    ImageRequest { partition: name.to_owned(), path, kind }
}

fn image_request(
    name: &str,
    image: &At<String>,
    sources: &Sources,
    findings: &mut Findings,
) -> Option<ImageRequest> {
    let path = sources.beside(image.place.file, &image.value);
    let holds = |recipe: &str| sources.is_file(&path.join(recipe));
    let kind = match (sources.is_file(&path), holds("Cargo.toml"), holds("Makefile")) {
        (true, _, _) => Some(ImageKind::Elf),
        (false, true, both) => {
            if both {
                findings.push(two_recipes(name, &path, image.place));
            }
            Some(ImageKind::Cargo)
        }
        (false, false, true) => Some(ImageKind::Make),
        (false, false, false) => None,
    };
    let Some(kind) = kind else {
        let cause = if path.is_dir() {
            format!("the folder {} holds neither a Cargo.toml nor a Makefile", shown(&path))
        } else {
            format!("there is no {}", shown(&path))
        };
        let finding = Finding::new(
            Rule::ImageMissing,
            format!("the image of `{name}` is missing: {cause}"),
            with_near_path(
                &image.value,
                &path,
                "name an ELF file, or the folder of a guest, by its path from the folder of this file",
            ),
        );
        findings.push(finding.at(image.place, "named here"));
        return None;
    };
    Some(request(name, path, kind))
}

fn two_recipes(name: &str, folder: &Path, place: Place) -> Finding {
    Finding::new(
        Rule::ImageAmbiguous,
        format!("the image of `{name}` could be built in two ways: {} holds a Cargo.toml and a Makefile", shown(folder)),
        "keep one of them there, or name the ELF file that the other one makes",
    )
    .at(place, "built by which?")
}
