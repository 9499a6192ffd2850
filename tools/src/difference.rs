//! `bulkhead diff`: what a change of a system means, in words, before it goes to a plant.

use bulkhead_config::Input;

use crate::compile;
use crate::error::Result;
use crate::measure::Format;

/// What changes from the system `old` to `new`, as text, and whether something does.
///
/// # Errors
/// One of the two is rejected.
pub fn diff<'p>(
    old: impl Into<Input<'p>>,
    new: impl Into<Input<'p>>,
    format: Format,
) -> Result<(String, bool)> {
    // A file that is missing is rejected as any other: exit code 1 is for systems that differ.
    let old = compile::plan_for(old, format)?;
    let new = compile::plan_for(new, format)?;
    let difference = bulkhead_config::diff(&old, &new);
    let text = match format {
        Format::Human => difference.render(),
        Format::Json => difference.to_json(),
    };
    Ok((text, !difference.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    const SYSTEM: &str = "[system]\nname = \"small\"\nboard = \"BOARD\"\n[housekeeping]\ncore = 0\n\
        [partition.motion]\nimage = \"guest\"\nmemory = \"8 MiB\"\ncores = [1]\n";

    #[test]
    fn a_comment_is_no_difference_and_a_core_is_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("guest")).unwrap();
        std::fs::write(folder.path().join("guest/Makefile"), "").unwrap();
        let board = paths::root().unwrap().join("partitions/boards/bochs-skylake-x.toml");
        let system = SYSTEM.replace("BOARD", &board.display().to_string());
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let old = file("old.toml", &system);
        let comment = file("comment.toml", &format!("# New.\n{system}"));
        let core = file("core.toml", &system.replace("[1]", "[2]"));
        assert!(!diff(&old, &comment, Format::Human).unwrap().1);
        let (text, differs) = diff(&old, &core, Format::Json).unwrap();
        assert!(differs && text.contains("gains core 2"));
        let missing = folder.path().join("missing.toml");
        assert_eq!(diff(&old, &missing, Format::Human).unwrap_err().exit_code(), 2);
    }
}
