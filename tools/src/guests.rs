//! Builds guest images: Rust guests by cargo, C guests by make, finished ELF files as they are.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_config::{ImageKind, ImageRequest};

use crate::error::{Error, Result};
use crate::progress::Step;
use crate::{bare, paths, process};

/// Builds what each partition asks for and lays it down in the folder of images, each by its [`ImageRequest::file_name`].
///
/// A missing file is left to the compiler, which knows the line that names it; what lay there for it before is taken away.
///
/// # Errors
/// A guest does not build.
pub fn build_all(requests: &[ImageRequest], images: &Path, quiet: bool) -> Result<()> {
    paths::create(images)?;
    let mut built: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for request in requests {
        let bytes = match built.get(&request.path) {
            Some(bytes) => bytes.clone(),
            None => {
                let Some(elf) = build(request, images, quiet)? else {
                    paths::remove_stale(&images.join(request.file_name()))?;
                    continue;
                };
                let bytes = paths::read(&elf)?;
                built.insert(request.path.clone(), bytes.clone());
                bytes
            }
        };
        let target = images.join(request.file_name());
        paths::write_if_changed(&target, &bytes)?;
    }
    Ok(())
}

fn build(request: &ImageRequest, images: &Path, quiet: bool) -> Result<Option<PathBuf>> {
    let name = request.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let step = |tool: &str| Step::begin(format!("guest {name} ({tool})"), quiet);
    let (step, elf) = match request.kind {
        ImageKind::Elf | ImageKind::Kernel | ImageKind::Ramdisk => {
            return Ok(request.path.is_file().then(|| request.path.clone()));
        }
        ImageKind::Cargo => (step("cargo"), cargo_guest(&request.path, &name)?),
        ImageKind::Make => (step("make"), make_guest(&request.path, &name, images)?),
    };
    step.done();
    Ok(Some(elf))
}

fn cargo_guest(folder: &Path, name: &str) -> Result<PathBuf> {
    let mut command = bare::cargo(&paths::root()?, &paths::target()?);
    command.arg("--manifest-path").arg(folder.join("Cargo.toml"));
    let what = format!("the guest {name} does not build");
    let remedy = format!("mend its sources in {}", folder.display());
    let output = process::run(&mut command, &what, &remedy)?;
    executable(&output).ok_or_else(|| {
        Error::refused(
            what,
            "cargo built no program from that folder",
            "give the guest a binary (src/main.rs)",
        )
    })
}

/// The program that cargo says it built, from its JSON messages.
#[must_use]
pub fn executable(messages: &[u8]) -> Option<PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

fn make_guest(folder: &Path, name: &str, images: &Path) -> Result<PathBuf> {
    // A folder for each path: make must not take another guest of the same name for this one's earlier build.
    let out = images.join("make").join(format!(
        "{name}-{:016x}",
        BuildHasherDefault::<DefaultHasher>::default().hash_one(folder)
    ));
    paths::create(&out)?;
    let mut setting = std::ffi::OsString::from("OUT=");
    setting.push(&out);
    let what = format!("the guest {name} does not build");
    let remedy = format!("mend its sources in {}", folder.display());
    process::run(Command::new("make").arg("-C").arg(folder).arg(setting), &what, &remedy)?;
    let elf = out.join(format!("{name}.elf"));
    if elf.is_file() {
        return Ok(elf);
    }
    Err(Error::refused(
        what,
        format!("make ended well but left no {}", elf.display()),
        format!("let the Makefile write $(OUT)/{name}.elf"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let messages = br#"{"reason":"compiler-artifact","executable":null}
{"reason":"build-script-executed"}
{"reason":"compiler-artifact","executable":"/x/latency"}
not json
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/x/latency")));
        assert_eq!(executable(b""), None);
    }
}
