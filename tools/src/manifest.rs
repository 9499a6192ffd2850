//! What an image's own pages do not tell: written beside it as `IMAGE.json`, read by `run` and `log`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::elf::Sizes;
use crate::error::{Error, Result};
use crate::paths;

/// Version of the layout.
pub const FORMAT: u32 = 3;

/// Facts of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// `[system] name`.
    pub system: String,
    /// `[board] name`.
    pub board: String,
    /// Number of logical processors of the board.
    pub cores: usize,
    /// First byte behind the board's memory.
    pub memory_end: u64,
    /// Declared frequency of the time-stamp counter, in hertz.
    pub tsc_hz: u64,
    /// Digest of the table, as hexadecimal digits.
    pub digest: String,
    /// GNU build id of the hypervisor, as hexadecimal digits; empty in a native image.
    pub build_id: String,
    /// Set in a native image: the partition whose guest boots alone.
    pub native: Option<String>,
    /// Partitions in table order: an index is a partition id.
    pub partitions: Vec<Place>,
    /// Names of the partitions whose end ends the system; empty when it runs for ever.
    pub when_finished: Vec<String>,
    /// Size of the image in bytes.
    pub image_size: u64,
    /// Sizes of the hypervisor's parts.
    pub hypervisor: Sizes,
}

/// A partition and where it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `[partition.NAME]`.
    pub name: String,
    /// Where the system file declares it: `demo.toml:23`.
    pub place: String,
    /// Board CPU numbers; vCPU `n` runs on the one at `n`.
    pub cpus: Vec<u16>,
    /// Whether the core runs other partitions too.
    pub shared: bool,
    /// What it finds in its guest-physical memory, ascending; the last one stands for every address that no other holds.
    pub memory: Vec<Extent>,
}

/// What a partition finds from one guest-physical address to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// First address. Of the last one, where the memory ends.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Whether it is the partition's.
    pub owned: bool,
    /// What is to be known of it, in words.
    pub note: String,
    /// `file:line` of the key that rules it.
    pub line: Option<String>,
}

impl Manifest {
    /// Where the manifest of `image` lies.
    #[must_use]
    pub fn path(image: &Path) -> PathBuf {
        paths::beside(image, ".json")
    }

    /// Where the hypervisor's ELF of `image` lies.
    #[must_use]
    pub fn elf_path(image: &Path) -> PathBuf {
        paths::beside(image, ".elf")
    }

    /// Reads what lies beside `image`.
    ///
    /// # Errors
    /// Nothing lies there, or it is of another version.
    pub fn load(image: &Path) -> Result<Self> {
        let path = Self::path(image);
        let refuse = |cause: String| {
            Error::refused(
                format!("{} cannot be read beside {}", path.display(), image.display()),
                cause,
                "build the image with this tree's `bulkhead build`, and move IMAGE, IMAGE.json and IMAGE.elf together",
            )
        };
        let bytes = std::fs::read(&path).map_err(|cause| refuse(cause.to_string()))?;
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|cause| refuse(cause.to_string()))?;
        if manifest.format == FORMAT {
            return Ok(manifest);
        }
        Err(refuse(format!("it has format {}, this command knows {FORMAT}", manifest.format)))
    }

    /// Writes it beside `image`.
    ///
    /// # Errors
    /// The file system says no.
    pub fn save(&self, image: &Path) -> Result<()> {
        // A structure of strings and numbers always has a JSON form.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        paths::write(&Self::path(image), text.as_bytes())
    }

    /// The name of partition `id`, or its number when the manifest has none.
    #[must_use]
    pub fn partition_name(&self, id: u16) -> String {
        self.partitions
            .get(usize::from(id))
            .map_or_else(|| format!("partition {id}"), |partition| partition.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("demo.img");
        let manifest = Manifest {
            format: FORMAT,
            system: "demo".into(),
            partitions: vec![Place { name: "motion".into(), ..Place::default() }],
            ..Manifest::default()
        };
        manifest.save(&image).unwrap();
        assert_eq!(Manifest::load(&image).unwrap(), manifest);
        assert_eq!(manifest.partition_name(0), "motion");
        assert_eq!(manifest.partition_name(7), "partition 7");
    }

    #[test]
    fn a_missing_one_says_so() {
        let error = Manifest::load(Path::new("/no/such/demo.img")).unwrap_err().to_string();
        assert!(
            error.contains("/no/such/demo.img.json") && error.contains("bulkhead build"),
            "{error}"
        );
    }

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("demo.img");
        Manifest { format: 99, ..Manifest::default() }.save(&image).unwrap();
        assert!(Manifest::load(&image).unwrap_err().to_string().contains("format 99"));
    }
}
