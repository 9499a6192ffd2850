//! Plants faults: builds the hypervisor of a copy of the tree in which a text was exchanged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bulkhead::{BuildOptions, BuiltImage, build_image, paths};

use crate::bench::{folder, root, sure};
use crate::systems::{exchange, read};

/// A fault: texts exchanged in files of the tree. Each old text must occur exactly once.
pub struct Fault {
    /// Its name, which names its folder too.
    pub name: &'static str,
    /// (file, old text, new text).
    pub changes: &'static [(&'static str, &'static str, &'static str)],
}

/// Folders of the root that are no sources.
const NO_SOURCES: [&str; 3] = ["target", ".git", "out"];

/// One copy for all faults, so that cargo builds again only what a fault touches.
static COPY: Mutex<()> = Mutex::new(());

/// Builds `system` with the hypervisor of the faulty tree.
///
/// # Panics
/// A text to exchange does not occur exactly once, or the faulty tree does not build.
#[must_use]
pub fn build_faulty(fault: &Fault, system: &Path) -> BuiltImage {
    let _alone = COPY.lock().unwrap_or_else(PoisonError::into_inner);
    let tree = folder("faulty-tree");
    copy_tree(&root(), &tree, &PathBuf::new(), fault);
    let options = BuildOptions {
        system: system.to_path_buf(),
        work: Some(folder(fault.name)),
        tree: Some(tree),
        quiet: true,
        ..BuildOptions::default()
    };
    sure(fault.name, build_image(&options))
}

/// Makes `to` what `from` is, with the fault; `inside` is the path below the root. Files that are already so keep their
/// time, which is what cargo goes by.
fn copy_tree(from: &Path, to: &Path, inside: &Path, fault: &Fault) {
    sure("make a folder", paths::create(&to.join(inside)));
    remove_gone(from, to, inside);
    for entry in sure("list a folder", fs::read_dir(from.join(inside))) {
        let entry = sure("list a folder", entry);
        let below = inside.join(entry.file_name());
        if NO_SOURCES.iter().any(|name| below == Path::new(name)) {
            continue;
        }
        if sure("look at a file", entry.file_type()).is_dir() {
            copy_tree(from, to, &below, fault);
        } else {
            copy_file(from, to, &below, fault);
        }
    }
}

/// Removes what was copied earlier and is not in the tree any more.
fn remove_gone(from: &Path, to: &Path, inside: &Path) {
    for entry in sure("list a folder", fs::read_dir(to.join(inside))) {
        let below = inside.join(sure("list a folder", entry).file_name());
        if !from.join(&below).exists() {
            sure("remove", paths::remove_stale(&to.join(below)));
        }
    }
}

fn copy_file(from: &Path, to: &Path, below: &Path, fault: &Fault) {
    let source = from.join(below);
    let changes: Vec<_> =
        fault.changes.iter().filter(|(file, ..)| below == Path::new(file)).collect();
    let bytes = if changes.is_empty() {
        sure("read", paths::read(&source))
    } else {
        let exchanged = changes
            .iter()
            .fold(read(&source), |text, (_, old, new)| exchange(&text, old, new, &source));
        exchanged.into_bytes()
    };
    let target = to.join(below);
    sure("write", paths::write_if_changed(&target, &bytes));
    let rights = sure("look at a file", fs::metadata(&source)).permissions();
    sure("set the rights", fs::set_permissions(&target, rights));
}
