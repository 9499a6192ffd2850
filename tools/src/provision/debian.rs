//! Debian's releases: which one this machine is, and package lists of another one.
//!
//! The lists of another release lie in a folder of their own. The machine's own sources, lists and caches stay as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::{paths, process};

/// Debian 12.
pub const BOOKWORM: &str = "bookworm";
/// Debian 13.
pub const TRIXIE: &str = "trixie";

/// The keys that Debian signs its releases with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where apt reads further source lists.
const SOURCE_PARTS: &str = "/etc/apt/sources.list.d";

/// Names that a source list may give a release instead of its code name.
const ALIASES: [&str; 3] = ["stable", "oldstable", "oldoldstable"];

/// The code name of this machine's Debian; `None` where it is none.
#[must_use]
pub fn here() -> Option<String> {
    code_name(&std::fs::read_to_string("/etc/os-release").ok()?)
}

/// The code name in the text of `/etc/os-release`.
fn code_name(text: &str) -> Option<String> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim_matches(['"', '\'']))
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME").map(str::to_string))?
}

/// Where this machine gets Debian's main archive from, by its own sources.
///
/// # Errors
/// It has no apt-get, or no source of that kind.
pub fn mirror() -> Result<String> {
    let what = "cannot find this machine's Debian mirror";
    let remedy = "add Debian's main archive to the machine's apt sources";
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"])
        .arg("Created-By: Packages");
    let answer = process::run(&mut ask, what, remedy)?;
    let release = here().unwrap_or_default();
    main_archive(&String::from_utf8_lossy(&answer), &release).ok_or_else(|| {
        let cause = format!("no source offers `main` of Debian {release} over the network");
        Error::failed(what, cause, remedy)
    })
}

/// The archive that offers `main` of `release`, among lines of address, release and component.
fn main_archive(targets: &str, release: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (address, offered, component) = (words.next()?, words.next()?, words.next()?);
        let known = offered == release || ALIASES.contains(&offered);
        let good = known && component == "main" && !address.starts_with("cdrom:");
        good.then(|| address.trim_end_matches('/').to_string())
    })
}

/// A line of a source list. Only package lists are fetched, and only with Debian's own signature.
fn source(mirror: &str, release: &str) -> String {
    format!("deb [signed-by={KEYRING} target=Packages] {mirror} {release} main\n")
}

/// Package lists in a folder of their own.
pub struct Lists {
    folder: PathBuf,
    /// Whether every source must answer: a strange source of the machine's own may be broken.
    strict: bool,
}

impl Lists {
    /// Lists of `release` alone, as a machine sees them that has nothing installed.
    ///
    /// # Errors
    /// The machine names no mirror, or the folder cannot be written.
    pub fn alone(folder: &Path, release: &str) -> Result<Self> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            paths::create(&folder.join(part))?;
        }
        let lists = Self { folder: quotable(folder)?, strict: true };
        paths::write(&folder.join("status"), b"")?;
        paths::write(&folder.join("sources.list"), source(&mirror()?, release).as_bytes())?;
        paths::write(&lists.settings(), alone_settings(&lists.folder).as_bytes())?;
        Ok(lists)
    }

    /// The machine's own sources and `release` beside them.
    ///
    /// # Errors
    /// The machine names no mirror, or the folder cannot be written.
    pub fn beside(folder: &Path, release: &str) -> Result<Self> {
        let parts = folder.join("sources");
        paths::create(&folder.join("lists/partial"))?;
        paths::create(&parts)?;
        let lists = Self { folder: quotable(folder)?, strict: false };
        for own in own_sources() {
            let link = parts.join(own.file_name().unwrap_or_default());
            std::os::unix::fs::symlink(&own, &link)
                .map_err(|cause| Error::file("write", &link, &cause))?;
        }
        let name = format!("bulkhead-{release}.list");
        paths::write(&parts.join(name), source(&mirror()?, release).as_bytes())?;
        paths::write(&lists.settings(), beside_settings(&lists.folder).as_bytes())?;
        Ok(lists)
    }

    /// The file that makes apt use these lists, for its option `-c`.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }

    /// Fetches the lists. Needs no rights.
    ///
    /// # Errors
    /// The mirror does not answer, or a signature is wrong.
    pub fn update(&self) -> Result<()> {
        let what = "cannot fetch Debian's package lists";
        let words = ["update", "-q", "--error-on=any"];
        let words = if self.strict { &words[..] } else { &words[..2] };
        self.apt(words, &self.folder, what).map(|_| ())
    }

    /// The packages that have to be there for `names`, which are among them.
    ///
    /// # Errors
    /// Debian has not all of them.
    pub fn needed_for(&self, names: &[&str]) -> Result<Vec<String>> {
        let what = format!("cannot find what {} needs", names.join(", "));
        let mut words = vec!["install", "-y", "-q", "--no-install-recommends", "--print-uris"];
        words.extend(names);
        let answer = self.apt(&words, &self.folder, &what)?;
        Ok(packages_in(&String::from_utf8_lossy(&answer)))
    }

    /// Downloads packages into `folder`; apt checks them against the signed lists.
    ///
    /// # Errors
    /// One cannot be downloaded.
    pub fn download(&self, names: &[String], folder: &Path) -> Result<()> {
        let mut words = vec!["download", "-q"];
        words.extend(names.iter().map(String::as_str));
        self.apt(&words, folder, "cannot download Debian's packages").map(|_| ())
    }

    fn apt(&self, words: &[&str], folder: &Path, what: &str) -> Result<Vec<u8>> {
        let mut apt = Command::new("apt-get");
        apt.arg("-c").arg(self.settings()).args(words).current_dir(folder);
        process::run(&mut apt, what, "look at what apt-get says; it needs a network")
    }
}

/// The machine's own source lists beside its main one.
fn own_sources() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(SOURCE_PARTS).into_iter().flatten().flatten();
    let mut own: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "list" || it == "sources"))
        .collect();
    own.sort();
    own
}

/// The folder as apt's settings can name it.
fn quotable(folder: &Path) -> Result<PathBuf> {
    let folder = paths::absolute(folder)?;
    if folder.to_str().is_some_and(|text| !text.contains(['"', '\n'])) {
        return Ok(folder);
    }
    Err(Error::refused(
        format!("cannot keep package lists in {}", folder.display()),
        "apt takes no quotes in paths",
        "move the tree, or set CARGO_TARGET_DIR to another folder",
    ))
}

/// What both kinds of lists have in common: no translations, and no program that runs after an update.
const COMMON: &str = "Acquire::Languages \"none\";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
";

fn alone_settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::State \"{folder}/state\";
Dir::State::status \"{folder}/status\";
Dir::Cache \"{folder}/cache\";
Dir::Etc::SourceList \"{folder}/sources.list\";
Dir::Etc::SourceParts \"/dev/null\";
Dir::Etc::Preferences \"/dev/null\";
Dir::Etc::PreferencesParts \"/dev/null\";
{COMMON}"
    )
}

/// apt keeps no index of these lists: the machine's own one stays.
fn beside_settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "Dir::State::Lists \"{folder}/lists\";
Dir::Cache::pkgcache \"\";
Dir::Cache::srcpkgcache \"\";
Dir::Etc::SourceParts \"{folder}/sources\";
{COMMON}"
    )
}

/// The names of packages in what `--print-uris` prints: `'ADDRESS' NAME_VERSION_ARCHITECTURE.deb SIZE DIGEST`.
fn packages_in(answer: &str) -> Vec<String> {
    let file = |line: &str| {
        line.starts_with('\'').then(|| line.split_whitespace().nth(1))?.map(str::to_string)
    };
    let names = answer.lines().filter_map(file);
    names.filter_map(|file| file.split_once('_').map(|(name, _)| name.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_told() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(code_name(text).as_deref(), Some("bookworm"));
        assert_eq!(
            code_name(&text.replace("ID=debian", "ID=\"debian\"")).as_deref(),
            Some("bookworm")
        );
        assert_eq!(code_name(&text.replace("ID=debian", "ID=ubuntu")), None);
        assert_eq!(code_name("ID=debian\n"), None, "unstable has no code name there");
        assert_eq!(code_name(""), None);
    }

    #[test]
    fn the_mirror_is_the_machines_own() {
        let targets = "http://one.example/debian-security/ bookworm-security main\n\
                       http://two.example/debian/ bookworm contrib\n\
                       cdrom:[Debian]/ bookworm main\n\
                       mirror+file:/etc/apt/mirrors/debian.list bookworm main\n\
                       http://three.example/debian/ bookworm main\n";
        let found = main_archive(targets, "bookworm");
        assert_eq!(found.as_deref(), Some("mirror+file:/etc/apt/mirrors/debian.list"));
        assert_eq!(main_archive(targets, "trixie"), None);
        let stable = main_archive("http://four.example/debian/ stable main\n", "trixie");
        assert_eq!(stable.as_deref(), Some("http://four.example/debian"));
        assert_eq!(main_archive("", "bookworm"), None);
        assert_eq!(main_archive("http://five.example/\n", "bookworm"), None, "half a line");
    }

    #[test]
    fn sources_are_signed() {
        assert_eq!(
            source("http://a.example/debian", TRIXIE),
            format!(
                "deb [signed-by={KEYRING} target=Packages] http://a.example/debian trixie main\n"
            )
        );
    }

    #[test]
    fn lists_stay_in_their_folder() {
        let text = alone_settings(Path::new("/t"));
        for key in ["Dir::State ", "Dir::State::status", "Dir::Cache", "Dir::Etc::SourceList"] {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap();
            assert!(line.contains(" \"/t/"), "{line}");
        }
        let text = beside_settings(Path::new("/t"));
        assert!(text.contains("Dir::State::Lists \"/t/lists\";"), "{text}");
        assert!(!text.contains("Dir::State::status"), "what is installed is the machine's own");
    }

    #[test]
    fn packages_are_named_by_their_files() {
        let answer = "Reading package lists...\n\
             'http://a.example/pool/main/g/gcc-14/libgcc-s1_14.2.0-19_amd64.deb' libgcc-s1_14.2.0-19_amd64.deb 72836 SHA256:00\n\
             'http://a.example/pool/main/z/zlib/zlib1g_1.3_amd64.deb' zlib1g_1%3a1.3_amd64.deb 1 SHA256:01\n";
        assert_eq!(packages_in(answer), ["libgcc-s1", "zlib1g"]);
        assert!(packages_in("").is_empty());
    }
}
