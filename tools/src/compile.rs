//! Calls the compiler (`config`) and turns what it says into what people, images and errors need.

use std::io::IsTerminal;
use std::path::Path;

use bulkhead_config::{Compiled, Diagnostics, ImageRequest};

use crate::error::{Error, Result};
use crate::image::{BuildOptions, prepare};
use crate::manifest::{FORMAT, Manifest};

/// The guest images that a system file asks for.
///
/// # Errors
/// The system file is rejected.
pub fn requests(system: &Path) -> Result<Vec<ImageRequest>> {
    bulkhead_config::requests(system).map_err(|found| rejected(&found))
}

/// The proven system, with its guests' images in `images`.
///
/// # Errors
/// The system file is rejected.
pub fn compile(system: &Path, images: &Path) -> Result<Compiled> {
    bulkhead_config::compile(system, images).map_err(|found| rejected(&found))
}

fn rejected(found: &Diagnostics) -> Error {
    Error::Rejected(format!(
        "the system is rejected\n{}",
        found.render(std::io::stderr().is_terminal())
    ))
}

/// `bulkhead check`.
///
/// # Errors
/// The system file is rejected.
pub fn check(options: &BuildOptions, _json: bool) -> Result<()> {
    let prepared = prepare(options)?;
    println!("{}", prepared.compiled.report());
    Ok(())
}

/// What the image's manifest takes from the compiled system.
pub fn facts(_compiled: &Compiled) -> Manifest {
    Manifest {
        format: FORMAT,
        ..Manifest::default()
    }
}

/// The arguments of a partition's guest, as one line.
pub fn arguments(_compiled: &Compiled, _partition: &str) -> String {
    String::new()
}
