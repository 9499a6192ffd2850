//! What the host reads out of the hypervisor's ELF: its build id, its sizes, the log's strings and places.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use defmt_decoder::{Location, Table};
use object::{Object, ObjectSection, SectionFlags, SectionKind};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::paths;

/// Sizes of a program's parts, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Code and constants: everything loaded that is not written.
    pub text: u64,
    /// Initialised variables.
    pub data: u64,
    /// Variables that start as zero: stacks, rings and pools among them.
    pub bss: u64,
}

/// The hypervisor's ELF, as the decoder of its log needs it.
pub struct LogElf {
    path: PathBuf,
    build_id: Vec<u8>,
    table: Table,
    locations: BTreeMap<u64, Location>,
}

impl LogElf {
    /// Reads the ELF at `path`.
    ///
    /// # Errors
    /// Not an ELF of the hypervisor: no build id, no log strings.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = paths::read(path)?;
        let remedy =
            "give the hypervisor's ELF: IMAGE.elf, which `bulkhead build` leaves beside the image";
        let refuse = |cause: String| {
            Error::refused(format!("cannot decode a log with {}", path.display()), cause, remedy)
        };
        let build_id = build_id(&bytes).map_err(&refuse)?;
        let table = Table::parse(&bytes)
            .map_err(|cause| refuse(format!("its log strings cannot be read: {cause:#}")))?
            .ok_or_else(|| refuse("it has no section .defmt".to_string()))?;
        let locations = table
            .get_locations(&bytes)
            .map_err(|cause| refuse(format!("its debug information cannot be read: {cause:#}")))?;
        Ok(Self { path: path.to_path_buf(), build_id, table, locations })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its GNU build id.
    #[must_use]
    pub fn build_id(&self) -> &[u8] {
        &self.build_id
    }

    /// Its interned log strings.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// File and line of the message with this index; the file is relative to the tree where it can be.
    #[must_use]
    pub fn place(&self, index: u64) -> Option<(String, u64)> {
        let location = self.locations.get(&index)?;
        let root = paths::root().unwrap_or_default();
        let file = location.file.strip_prefix(&root).unwrap_or(&location.file);
        Some((file.display().to_string(), location.line))
    }
}

/// The GNU build id of an ELF file.
///
/// # Errors
/// A sentence: not an ELF file, or one without a build id.
pub fn build_id(elf: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let file =
        object::File::parse(elf).map_err(|cause| format!("it is not an ELF file: {cause}"))?;
    match file.build_id() {
        Ok(Some(id)) if id.len() >= 4 => Ok(id.to_vec()),
        Ok(_) => Err("it has no build id".to_string()),
        Err(cause) => Err(format!("its notes cannot be read: {cause}")),
    }
}

/// Sizes of the parts of an ELF file that are loaded.
///
/// # Errors
/// A sentence: not an ELF file.
pub fn sizes(elf: &[u8]) -> std::result::Result<Sizes, String> {
    let file =
        object::File::parse(elf).map_err(|cause| format!("it is not an ELF file: {cause}"))?;
    let mut sizes = Sizes::default();
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            continue;
        };
        let allocated = sh_flags.contains(object::elf::SHF_ALLOC);
        let written = sh_flags.contains(object::elf::SHF_WRITE);
        match (allocated, written, section.kind()) {
            (false, ..) => {}
            (_, _, SectionKind::UninitializedData) => sizes.bss += section.size(),
            (_, true, _) => sizes.data += section.size(),
            (_, false, _) => sizes.text += section.size(),
        }
    }
    Ok(sizes)
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_no_elf() {
        assert!(build_id(b"hello").unwrap_err().contains("not an ELF"));
        assert!(sizes(b"").is_err());
    }

    #[test]
    fn a_host_program_has_sizes() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let sizes = sizes(&own).unwrap();
        assert!(sizes.text > 1000 && sizes.data > 0 && sizes.bss > 0, "{sizes:?}");
    }

    #[test]
    fn a_program_without_log_strings_is_refused_by_name() {
        let own = std::env::current_exe().unwrap();
        let Err(error) = LogElf::load(&own) else { panic!("accepted") };
        assert!(error.to_string().contains(&own.display().to_string()));
    }
}
