//! `bulkhead schema`: the JSON Schema of system or board files, for editors.

use bulkhead_config::{FileKind, json_schema};
use clap::ValueEnum;

/// What a schema is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Of {
    /// System files
    #[default]
    System,
    /// Board files
    Board,
}

impl From<Of> for FileKind {
    fn from(of: Of) -> Self {
        match of {
            Of::System => Self::System,
            Of::Board => Self::Board,
        }
    }
}

/// The schema as JSON text, ending in a line feed.
#[must_use]
pub fn schema(of: Of) -> String {
    format!("{:#}\n", json_schema(of.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_keys() {
        let parse = |of| serde_json::from_str::<serde_json::Value>(&schema(of)).unwrap();
        assert!(parse(Of::System)["properties"]["partition"].is_object());
        assert!(parse(Of::Board)["properties"]["clock"].is_object());
    }
}
