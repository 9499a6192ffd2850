//! UEFI in emulators: OVMF, and a boot medium that hands over ACPI tables where OVMF has none.
//!
//! The image under test stays as it is. The medium's GRUB installs the tables, and then starts the image's own boot loader.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::acpi::Table;
use crate::error::Result;
use crate::{grub, paths};

/// OVMF's code.
pub const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Its variables as they are at first.
pub const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// GRUB's modules on the medium. The partition schemes are those that GRUB's own start file asks for.
const MODULES: &str = "normal boot iso9660 fat acpi chain part_acorn part_amiga part_apple part_bsd part_dfly part_dvh \
    part_gpt part_msdos part_plan part_sun part_sunpc";

/// A ROM that ends at 4 GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rom {
    /// The file.
    pub file: PathBuf,
    /// Where it begins.
    pub address: u64,
}

/// Writes OVMF into `folder` as one ROM: its variables lie below its code.
///
/// # Errors
/// OVMF is missing, or the file cannot be written.
pub fn rom(folder: &Path) -> Result<Rom> {
    let mut bytes = paths::read(Path::new(VARIABLES))?;
    bytes.extend(paths::read(Path::new(CODE))?);
    let file = folder.join("ovmf.fd");
    paths::write(&file, &bytes)?;
    Ok(Rom { file, address: (1 << 32) - bytes.len() as u64 })
}

/// Writes a boot medium into `folder` that installs `tables` and then starts the boot loader of the second disk.
///
/// # Errors
/// A file cannot be written, or GRUB's tools fail.
pub fn medium(folder: &Path, tables: &[Table]) -> Result<PathBuf> {
    let staging = folder.join("medium");
    let files = staging.join("boot/acpi");
    paths::create(&files)?;
    for table in tables {
        paths::write(&files.join(format!("{}.aml", table.name)), &table.bytes)?;
    }
    let image = folder.join("medium.img");
    grub::make_for_uefi(&staging, &menu(tables), MODULES, &image)?;
    Ok(image)
}

/// An image of ours holds its boot loader for UEFI in its second partition.
fn menu(tables: &[Table]) -> String {
    let mut menu = "set timeout=0\nacpi".to_string();
    for table in tables {
        // Writing to a string never fails.
        let _ = write!(menu, " /boot/acpi/{}.aml", table.name);
    }
    menu + "\nset root=(hd1,gpt2)\nchainloader /efi/boot/bootx64.efi\nboot\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_medium_hands_over_each_table_and_then_starts_the_image() {
        let table = |name: &str| Table { name: name.into(), bytes: vec![] };
        let menu = menu(&[table("APIC"), table("DSDT")]);
        let handed = menu.find("acpi /boot/acpi/APIC.aml /boot/acpi/DSDT.aml\n").unwrap();
        let started = menu.find("set root=(hd1,gpt2)\nchainloader /efi/boot/bootx64.efi").unwrap();
        assert!(handed < started, "{menu}");
    }
}
