//! `bulkhead audit`: proves a built image again, from its own bytes. Every build does the same before it is done.

use std::path::Path;

use bulkhead_audit::{Report, audit_image};

use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::measure::Format;
use crate::paths;

/// Proves the image at `path` and prints what was proven, or every fault.
///
/// # Errors
/// The image cannot be read, boots a guest without the hypervisor, or a fact does not hold.
pub fn audit(path: &Path, format: Format) -> Result<()> {
    let bytes = paths::read(path)?;
    let report = audit_image(&bytes, promised(path)?.as_deref());
    if format == Format::Json {
        println!("{}", report.to_json());
    } else if report.is_proven() {
        println!("audit: {}", report.summary());
    }
    verdict(path, &report, format)
}

/// The digest that the manifest beside an image promises; `None` when none lies there.
fn promised(image: &Path) -> Result<Option<String>> {
    if !Manifest::path(image).exists() {
        return Ok(None);
    }
    let manifest = Manifest::load(image)?;
    match manifest.native {
        None => Ok(Some(manifest.digest)),
        Some(partition) => Err(Error::refused(
            format!("cannot audit {}", image.display()),
            format!("it boots {partition} without the hypervisor, so it holds no table"),
            "audit the image that `bulkhead build` wrote",
        )),
    }
}

/// Proves the image that was just built; one that does not hold is taken away again, with what lies beside it.
///
/// # Errors
/// A fact does not hold, or the image cannot be read.
pub fn audit_built(image: &Path, promised: &str) -> Result<Report> {
    let report = audit_image(&paths::read(image)?, Some(promised));
    let verdict = verdict(image, &report, Format::Human);
    if verdict.is_err() {
        for path in [image.to_path_buf(), Manifest::path(image), Manifest::elf_path(image)] {
            paths::remove_stale(&path)?;
        }
    }
    verdict.map(|()| report)
}

fn verdict(image: &Path, report: &Report, format: Format) -> Result<()> {
    if report.is_proven() {
        return Ok(());
    }
    let cause = match format {
        Format::Json => report.summary(),
        Format::Human => {
            let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
            format!("{}\n{}", report.summary(), faults.join("\n"))
        }
    };
    Err(Error::failed(
        format!("the audit does not pass {}", image.display()),
        cause,
        "boot it nowhere: build it again; where the fault stays, the compiler has a defect that the audit sees, so report it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.img");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_no_image_does_not_pass() {
        let (_folder, path) = image(b"no image");
        for format in [Format::Human, Format::Json] {
            let error = audit(&path, format).unwrap_err();
            assert_eq!(error.exit_code(), 1, "{error}");
        }
        assert!(audit(&path, Format::Human).unwrap_err().to_string().contains("fault[AU01]"));
    }

    #[test]
    fn a_native_image_is_refused_by_name() {
        let (_folder, path) = image(b"");
        let manifest = Manifest {
            format: crate::manifest::FORMAT,
            native: Some("motion".to_string()),
            ..Manifest::default()
        };
        manifest.save(&path).unwrap();
        let error = audit(&path, Format::Human).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("motion"), "{error}");
    }

    #[test]
    fn a_built_image_that_does_not_pass_is_gone_with_its_sidecars() {
        let (folder, path) = image(b"built wrong");
        Manifest::default().save(&path).unwrap();
        std::fs::write(Manifest::elf_path(&path), b"elf").unwrap();
        audit_built(&path, "").unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
