//! Where a file says something: the place of a key by its path, such as `partition.plc.memory`.
//!
//! The plan keeps the texts, not a place for each of its numbers. Whoever shows a person the line behind a
//! number looks it up here.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::language::BOARD_FILE;
use crate::reader::{Part, View};
use crate::source::{FileId, Place, Sources};
use crate::units::{Dimension, Quantity, Whole};

/// The parsed files of a system that was accepted.
pub(crate) struct Places<'t> {
    documents: Vec<(FileId, DeTable<'t>)>,
}

/// What tells one window of an owner from its others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowKey<'k> {
    /// Ticks from the start of the frame.
    pub start: u64,
    /// Frequency of the ticks.
    pub hz: u64,
    /// Board CPU number.
    pub cpu: u16,
    /// The plan that it belongs to.
    pub plan: &'k str,
}

impl<'t> Places<'t> {
    /// Parses the texts again; one that is no TOML, which no plan has, is left out.
    pub fn of(sources: &'t Sources) -> Self {
        let parsed = |(id, source): (FileId, &'t crate::source::Source)| {
            Some((id, DeTable::parse(&source.text).ok()?.into_inner()))
        };
        Self { documents: sources.ids().filter_map(parsed).collect() }
    }

    /// The sections around the cores of the board, of all files together.
    pub fn board(&self) -> View<'_> {
        let parts = self.documents.iter().map(|(file, table)| Part { file: *file, table });
        View::unchecked_parts(&BOARD_FILE, parts.collect())
    }

    /// The value at `path`: keys with dots between them. The first file that has it, where several do.
    pub fn value(&self, path: &str) -> Option<Place> {
        self.find(path).next().map(|(file, value)| Place::new(file, value.span()))
    }

    /// The entry of an array of whole numbers that is `number`, such as core 2 in `cores = [1, 2]`.
    pub fn number_in(&self, path: &str, number: u64) -> Option<Place> {
        self.entry(path, |entry| whole(entry) == Some(number))
    }

    /// The table of an array of tables whose `key` is `number`, such as the `[[core]]` with `apic-id = 2`.
    pub fn table_with(&self, path: &str, key: &str, number: u64) -> Option<Place> {
        self.entry(path, |entry| {
            entry.get_ref().as_table().and_then(|table| whole(table.get(key)?)) == Some(number)
        })
    }

    /// The window of `owner` (`partition.plc`, `housekeeping`).
    pub fn window(&self, owner: &str, key: WindowKey<'_>) -> Option<Place> {
        self.entry(&format!("{owner}.window"), |window| is_window(window, key))
    }

    /// The strings of the list at `path`, sorted; none where no file has it.
    pub fn texts(&self, path: &str) -> Vec<&str> {
        let lists = self.find(path).filter_map(|(_, list)| list.get_ref().as_array());
        let mut texts: Vec<&str> =
            lists.flat_map(|list| list.iter().filter_map(|text| text.get_ref().as_str())).collect();
        texts.sort_unstable();
        texts
    }

    /// The first entry of the arrays at `path` that is wanted.
    fn entry(&self, path: &str, wanted: impl Fn(&Spanned<DeValue<'_>>) -> bool) -> Option<Place> {
        self.find(path).find_map(|(file, array)| {
            let array: &DeArray<'_> = array.get_ref().as_array()?;
            let entry = array.iter().find(|entry| wanted(entry))?;
            Some(Place::new(file, entry.span()))
        })
    }

    fn find(&self, path: &str) -> impl Iterator<Item = (FileId, &Spanned<DeValue<'t>>)> {
        self.documents.iter().filter_map(move |(file, table)| Some((*file, descend(table, path)?)))
    }
}

fn descend<'v, 't>(table: &'v DeTable<'t>, path: &str) -> Option<&'v Spanned<DeValue<'t>>> {
    let mut keys = path.split('.');
    let mut value = table.get(keys.next()?)?;
    for key in keys {
        value = value.get_ref().as_table()?.get(key)?;
    }
    Some(value)
}

/// An integer, or a string with a hexadecimal number.
fn whole(value: &Spanned<DeValue<'_>>) -> Option<u64> {
    if let Some(integer) = value.get_ref().as_integer() {
        return u64::from_str_radix(integer.as_str(), integer.radix()).ok();
    }
    let text = value.get_ref().as_str()?.replace('_', "");
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn is_window(window: &Spanned<DeValue<'_>>, key: WindowKey<'_>) -> bool {
    let Some(table) = window.get_ref().as_table() else { return false };
    let starts = table
        .get("start")
        .and_then(|start| Quantity::parse(start.get_ref().as_str()?, Dimension::Duration).ok())
        .is_some_and(|start| start.to_ticks(key.hz) == Whole::Exact(key.start));
    let here = table.get("core").is_none_or(|core| whole(core) == Some(u64::from(key.cpu)));
    let in_plan = table
        .get("plans")
        .and_then(|plans| plans.get_ref().as_array())
        .is_none_or(|plans| plans.iter().any(|plan| plan.get_ref().as_str() == Some(key.plan)));
    starts && here && in_plan
}
