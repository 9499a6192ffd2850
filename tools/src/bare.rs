//! Cargo, asked for a program of the bare machine: what it builds is the same to the byte wherever the tree lies.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::provision::BARE_TARGET;

/// How the folder of the crates' sources is called in what is built: its own name follows the host that they came from.
const CRATES: &str = "/crates";

/// The profile of what runs on the bare machine, which names the folder of what builds it too.
pub const PROFILE: &str = "image";

/// `cargo build` for the bare machine in `tree`, with its messages as JSON. What to build is for the caller to say; so is
/// `CARGO_TARGET_DIR`, when `target` is not where cargo builds anyway. A guest with a workspace of its own keeps its own.
///
/// Debug information names source files, and the build id is taken over it too: a stranger's build of the same commit would carry
/// another one. So each name counts from the tree.
#[must_use]
pub fn cargo(tree: &Path, target: &Path) -> Command {
    let mut command = process::cargo();
    command
        .args(["build", "--profile", PROFILE, "--target", BARE_TARGET])
        .arg("--message-format=json-render-diagnostics")
        .args(["--config", &flags(&renamed(tree, target, &crate_folders()))])
        .current_dir(tree);
    command
}

/// What each folder is called instead, of two that fit the later one.
fn renamed(tree: &Path, target: &Path, crates: &[PathBuf]) -> Vec<String> {
    let names = [(tree, ""), (target, "target")].into_iter();
    let names = names.chain(crates.iter().map(|folder| (folder.as_path(), CRATES)));
    // A path that is no Unicode cannot be said in cargo's settings; it stays as it is.
    names.filter_map(|(folder, name)| Some(format!("{}={name}", folder.to_str()?))).collect()
}

/// The setting that adds these to the flags of .cargo/config.toml.
fn flags(renamed: &[String]) -> String {
    let flags = renamed.iter().map(|it| format!("--remap-path-prefix={it}"));
    let flags: toml::Value = flags.collect::<Vec<_>>().into();
    format!("target.{BARE_TARGET}.rustflags={flags}")
}

/// Where cargo keeps the sources of crates, one folder for each host that they came from.
fn crate_folders() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let sources = home.map(|home| home.join("registry/src"));
    let hosts = sources.and_then(|folder| folder.read_dir().ok()).into_iter().flatten();
    hosts.filter_map(|host| Some(host.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_has_a_name_of_its_own() {
        let crates = [PathBuf::from("/h/.cargo/registry/src/here-1"), PathBuf::from("/mirror")];
        let renamed = renamed(Path::new("/a tree"), Path::new("/a tree/target"), &crates);
        let expected = [
            "/a tree=",
            "/a tree/target=target",
            "/h/.cargo/registry/src/here-1=/crates",
            "/mirror=/crates",
        ];
        assert_eq!(renamed, expected);
    }

    #[test]
    fn flags_are_a_setting_that_cargo_reads() {
        let setting = flags(&["/a \"tree\"=".to_string(), "/b=target".to_string()]);
        let (key, value) = setting.split_once('=').unwrap();
        assert_eq!(key, "target.x86_64-unknown-none.rustflags");
        let table: toml::Table = format!("flags = {value}").parse().unwrap();
        let flags: Vec<&str> =
            table["flags"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        assert_eq!(flags, ["--remap-path-prefix=/a \"tree\"=", "--remap-path-prefix=/b=target"]);
    }
}
