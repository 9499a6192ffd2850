//! The cold reader: of ten mistakes that people make, each is told once, with the words that mend the file.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use common::Case;

/// The system that is right.
const RIGHT: &str = r#"[system]
name = "line"
board = "boards/bochs-skylake-x.toml"

[schedule]
frame = "2 ms"

[shutdown]
when-finished = ["motion"]

[housekeeping]
core = 0

[partition.motion]
image = "good.elf"
memory = "8 MiB"
cores = [1]

[partition.plc]
image = "good.elf"
memory = "8 MiB"
cores = [2]

[[partition.plc.window]]
start = "20 us"
length = "600 us"

[partition.office]
image = "good.elf"
memory = "16 MiB"
cores = [2]

[[partition.office.window]]
start = "640 us"
length = "1 ms"
"#;

/// A mistake: what stands in the place of what, and the words of the message that tell what to type.
struct Mistake {
    title: &'static str,
    right: &'static str,
    wrong: &'static str,
    told: &'static str,
}

const fn mistake(
    title: &'static str,
    right: &'static str,
    wrong: &'static str,
    told: &'static str,
) -> Mistake {
    Mistake { title, right, wrong, told }
}

const MISTAKES: [Mistake; 10] = [
    mistake(
        "A key misspelt",
        "memory = \"8 MiB\"\ncores = [1]",
        "memroy = \"8 MiB\"\ncores = [1]",
        "did you mean `memory`?",
    ),
    mistake("A number without its unit", "frame = \"2 ms\"", "frame = 2", "ns, us, ms, s, ticks"),
    mistake("A unit of somebody else", "\"16 MiB\"", "\"16 MB\"", "did you mean `MiB`?"),
    mistake("A time between two ticks", "\"20 us\"", "\"20.005 us\"", "\"20 us\""),
    mistake(
        "A partition without windows on a shared core",
        "cores = [1]",
        "cores = [2]",
        "a core of its own",
    ),
    mistake("A core that the board does not have", "cores = [1]", "cores = [4]", "0 to 3"),
    mistake("Windows that overlap", "\"640 us\"", "\"600 us\"", "start it at 640 us or later"),
    mistake(
        "Nobody to send out the logs",
        "[housekeeping]\ncore = 0\n\n",
        "",
        "add `[housekeeping]` with `core = 0`",
    ),
    mistake(
        "An image that is not there",
        "image = \"good.elf\"\nmemory = \"16",
        "image = \"god.elf\"\nmemory = \"16",
        "did you mean `good.elf`?",
    ),
    mistake("A partition misspelt", "[\"motion\"]", "[\"motoin\"]", "did you mean `motion`?"),
];

/// What is printed of the file with this mistake.
fn printed(mistake: &Mistake) -> String {
    let wrong = RIGHT.replacen(mistake.right, mistake.wrong, 1);
    assert_ne!(wrong, RIGHT, "{}: what is right is not there", mistake.title);
    let case = Case::new("line.toml", &wrong);
    let Err(found) = case.compile() else { panic!("{}: accepted", mistake.title) };
    case.neutral(&found.render(false))
}

#[test]
fn the_file_without_mistakes_compiles() {
    assert!(Case::new("line.toml", RIGHT).compile().is_ok_and(|it| it.warnings().is_empty()));
}

#[test]
fn each_message_tells_what_to_type_and_is_the_only_one() {
    for mistake in &MISTAKES {
        let said = printed(mistake);
        assert!(said.contains(mistake.told), "{}\n{said}", mistake.title);
        assert_eq!(said.matches("error[").count(), 1, "{}\n{said}", mistake.title);
    }
}
