//! `bulkhead report`: the system as one HTML page, for the person who answers for it.

use std::path::{Path, PathBuf};

use bulkhead_config::Input;

use crate::error::{Error, Result};
use crate::image::{BuildOptions, prepare};
use crate::provision::{self, Need};
use crate::{compile, paths};

/// Writes the page of a system to `output`, by default `<system>.html` in the current folder. With `build`, the
/// guests are built first, so that the page carries the digests of their images and of the table.
///
/// # Errors
/// The system file is rejected, a guest does not build, or the page cannot be written.
pub fn report<'p>(input: impl Into<Input<'p>>, output: Option<&Path>, build: bool) -> Result<()> {
    let input = input.into();
    let page = if build { built_page(input)? } else { plain_page(input)? };
    let output = output.map_or_else(|| beside_here(input.system), Path::to_path_buf);
    if output.extension().is_some_and(|end| end == "toml") {
        return Err(Error::refused(
            format!("cannot write the page to {}", output.display()),
            "the name is one of a system or board file, which would be gone",
            "end it in .html",
        ));
    }
    paths::write(&output, page.as_bytes())?;
    println!("{} ({} bytes): open it in a browser, or print it", output.display(), page.len());
    Ok(())
}

fn plain_page(input: Input<'_>) -> Result<String> {
    let plan = compile::plan(input)?;
    compile::warn(plan.warnings());
    Ok(plan.page())
}

fn built_page(input: Input<'_>) -> Result<String> {
    provision::ensure(Need::Build, false)?;
    let options = BuildOptions {
        system: input.system.to_path_buf(),
        board: input.board.map(Path::to_path_buf),
        ..BuildOptions::default()
    };
    Ok(prepare(&options)?.compiled.page())
}

fn beside_here(system: &Path) -> PathBuf {
    let mut name = PathBuf::from(system.file_stem().unwrap_or_default());
    name.set_extension("html");
    name
}
