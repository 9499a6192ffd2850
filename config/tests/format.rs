//! The formatter: shipped files are as it wants them, it changes no meaning, keeps comments, and says the same twice.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::path::Path;

use bulkhead_config::{FormatError, format_file};
use common::{Case, system_texts, toml_files};
use proptest::prelude::*;

fn format(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    std::fs::write(&path, text).unwrap();
    match format_file(&path) {
        Ok(formatted) => formatted.after,
        Err(FormatError::Rejected(found)) => panic!("{text}\n{found}"),
        Err(FormatError::Unsafe(cause)) => panic!("{text}\n{cause}"),
    }
}

/// The emitted table without what the text itself decides: the digest and the lines of declarations.
fn table_of(text: &str) -> String {
    let emitted = Case::new("system.toml", text).compile().unwrap().emit();
    let of_text =
        |line: &&str| !line.contains("system.toml:") && !line.trim().starts_with("digest:");
    let code: Vec<&str> = emitted.lines().filter(of_text).collect();
    code.join("\n")
        .split("digest: [")
        .map(|part| part.split_once(']').map_or(part, |(_, rest)| rest))
        .collect()
}

fn comments(text: &str) -> Vec<String> {
    let mut comments: Vec<_> = text
        .lines()
        .filter_map(|line| Some(line.split_once('#')?.1.trim_end().to_owned()))
        .collect();
    comments.sort();
    comments
}

#[test]
fn the_shipped_files_are_formatted() {
    for folder in ["../partitions", "../partitions/boards"] {
        for (path, text) in toml_files(folder) {
            assert_eq!(format(&text), text, "run `cargo bulkhead fmt {}`", path.display());
        }
    }
}

#[test]
fn what_is_formatted_compiles_to_the_same_table() {
    for (path, text) in toml_files("tests/accept") {
        let after = format(&text);
        assert_eq!(table_of(&after), table_of(&text), "{}\n{after}", path.display());
        assert_eq!(comments(&after), comments(&text), "{}", path.display());
    }
}

#[test]
fn twice_is_once() {
    let rejected = toml_files("tests/reject").into_iter();
    let readable = rejected.filter(|(_, text)| text.parse::<toml::Table>().is_ok());
    for (path, text) in
        system_texts().into_iter().chain(readable).chain(toml_files("tests/reject/boards"))
    {
        let once = format(&text);
        assert_eq!(format(&once), once, "{}", path.display());
    }
}

/// Everything out of order and out of shape, with a comment at every place that can have one.
const UNTIDY: &str = "\
#:schema ../schema/system.json
  # The head.\r

# Of the partition.
[partition.b]   # behind the header
cores=[1,2 ]
\t# before the memory
memory   =\"8MiB\"# behind the memory
image =  'good.elf'   # behind the image



[[partition.b.window]]
length = \"600us\"
start = \"20   us\"
[[partition.b.window]]
start = \"1ms\"
length = \"1 us\"
[partition.a]
image = [
  \"x\", # kept as it is
]
[housekeeping]
core = 0
# Of the system.
[system]
board = \"b.toml\"
unknown = {b=1,a=[1,2]}
name = \"x\"
# The end.";

const TIDY: &str = "\
#:schema ../schema/system.json
# The head.

# Of the system.
[system]
name = \"x\"
board = \"b.toml\"
unknown = { b = 1, a = [1, 2] }

[housekeeping]
core = 0

# Of the partition.
[partition.b] # behind the header
image = 'good.elf'  # behind the image
# before the memory
memory = \"8 MiB\"    # behind the memory
cores = [1, 2]

[[partition.b.window]]
start = \"20 us\"
length = \"600 us\"
[[partition.b.window]]
start = \"1 ms\"
length = \"1 us\"

[partition.a]
image = [
  \"x\", # kept as it is
]
# The end.
";

#[test]
fn an_untidy_file_becomes_tidy() {
    assert_eq!(format(UNTIDY), TIDY);
    assert_eq!(format(TIDY), TIDY);
}

#[test]
fn next_to_nothing_is_formatted_too() {
    for (text, wanted) in
        [("", "\n"), ("# a", "# a\n"), ("\n\n# a\n\n\n", "# a\n"), ("a=1", "a = 1\n")]
    {
        assert_eq!(format(text), wanted);
    }
}

#[test]
fn what_is_no_toml_is_refused_as_check_refuses_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reject/BH0101-broken-line.toml");
    let Err(FormatError::Rejected(found)) = format_file(&path) else { panic!("formatted") };
    let said_by_check = bulkhead_config::requests(&path).unwrap_err();
    assert_eq!(found.render(false), said_by_check.render(false));
    let Err(FormatError::Rejected(found)) = format_file("absent.toml".as_ref()) else { panic!() };
    assert_eq!(found.list()[0].code, "BH0112");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Blanks, empty lines and comments between the lines of the demo change nothing that it says.
    #[test]
    fn layout_is_no_meaning(
        noise in prop::collection::vec((0_usize..120, prop::sample::select(vec![
            "\n", "\n\n", "   ", "\t", "# a comment\n", "  # indented\n", "#\n",
        ])), 0..40),
    ) {
        let text = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../partitions/press-line.toml")).unwrap();
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        for (at, piece) in noise {
            let index = at % lines.len();
            lines[index] = format!("{piece}{}", lines[index]);
        }
        let noisy = lines.concat();
        let once = format(&noisy);
        prop_assert_eq!(format(&once), once.clone());
        prop_assert_eq!(once.parse::<toml::Table>().unwrap(), text.parse::<toml::Table>().unwrap());
        let marks = |text: &str| text.matches('#').count();
        prop_assert_eq!(marks(&once), marks(&noisy));
    }

    #[test]
    fn no_text_panics(text in "[a-z\\[\\]=\"#. \n]{0,60}") {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, &text).unwrap();
        if let Ok(formatted) = format_file(&path) {
            prop_assert_eq!(format(&formatted.after), formatted.after);
        }
    }
}
