//! Reads values out of a parsed TOML document by the keys of [`crate::language`].
//!
//! Not serde: a `Deserialize` with `deny_unknown_fields` stops at the first mistake, and this compiler
//! tells all of them at once. The document is `toml`'s own, each key and value with its span.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostics::{Finding, Findings};
use crate::documents::Documents;
use crate::language::{Form, Key, Section};
use crate::rules::Rule;
use crate::source::{At, FileId, Place, plain};
use crate::suggest::{Meant, meant};
use crate::units::{Dimension, Quantity, QuantityError, Whole, duration_text, size_text};

/// A table and the file that it stands in.
#[derive(Clone, Copy)]
pub(crate) struct Part<'t> {
    /// Which file.
    pub file: FileId,
    /// The table.
    pub table: &'t DeTable<'t>,
}

impl Part<'_> {
    /// Where a key is set; `None` where it is not.
    fn place_of(&self, name: &str) -> Option<Place> {
        let (key, _) = self.table.get_key_value(name)?;
        Some(Place::new(self.file, key.span()))
    }
}

/// A value and the file that it stands in.
#[derive(Clone, Copy)]
struct Node<'t> {
    file: FileId,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Node<'t> {
    fn place(&self) -> Place {
        Place::new(self.file, self.value.span())
    }

    fn get(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    fn is_table(&self) -> bool {
        self.get().as_table().is_some()
    }

    fn items(&self) -> Option<impl Iterator<Item = Self>> {
        let file = self.file;
        Some(self.get().as_array()?.iter().map(move |value| Self { file, value }))
    }
}

/// A table under the eyes of its section. The root of a system or board has a part for each of its files.
#[derive(Clone)]
pub(crate) struct View<'t> {
    section: &'static Section,
    parts: Vec<Part<'t>>,
    /// Where its header, or the table itself, stands.
    pub place: Place,
}

impl<'t> View<'t> {
    /// A view whose keys nobody has looked at.
    pub fn unchecked(section: &'static Section, part: Part<'t>, place: Place) -> Self {
        Self { section, parts: vec![part], place }
    }

    /// The same of several files, none of which is more the place than another.
    pub fn unchecked_parts(section: &'static Section, parts: Vec<Part<'t>>) -> Self {
        let file = parts.first().map_or(FileId::default(), |part| part.file);
        Self { section, parts, place: Place::new(file, 0..0) }
    }

    /// The tables of a key, each alone; of a key that is one table, that one. Nobody has looked at them.
    pub fn tables_of(&self, key: &Key) -> Vec<Self> {
        let (Form::Table(section) | Form::Tables(section) | Form::NamedTables(section)) = key.form
        else {
            return Vec::new();
        };
        let mut nodes = Vec::new();
        for node in self.nodes(key.name) {
            match node.items() {
                Some(items) => nodes.extend(items),
                None => nodes.push(node),
            }
        }
        let view = |node: &Node<'t>| {
            let part = Part { file: node.file, table: node.get().as_table()? };
            Some(Self::unchecked(section, part, node.place()))
        };
        nodes.iter().filter_map(view).collect()
    }

    /// The keys that are set, in the order of the language, each with what it says: however a number is written, it is
    /// the same text.
    pub fn said(&self) -> Vec<(&'static str, Vec<String>)> {
        let said = |key: &'static Key| {
            let inner = self.tables_of(key);
            let texts: Vec<String> = match self.nodes(key.name).first()?.items() {
                _ if !inner.is_empty() => inner.iter().map(Self::in_one_line).collect(),
                Some(items) => items.map(|item| said_text(key.form, item.get())).collect(),
                None => vec![said_text(key.form, self.nodes(key.name).first()?.get())],
            };
            Some((key.name, texts))
        };
        self.section.keys.iter().filter_map(said).collect()
    }

    fn in_one_line(&self) -> String {
        let each = self.said().into_iter().map(|(key, texts)| format!("{key} {}", texts.join(" ")));
        each.collect::<Vec<_>>().join(", ")
    }

    /// Whether the key is there, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        !self.nodes(name).is_empty()
    }

    /// Whether it has no key at all.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.table.is_empty())
    }

    /// Whether the key is there with a list of nothing.
    pub fn is_empty_list(&self, name: &str) -> bool {
        let nodes = self.nodes(name);
        let empty = |node: &Node<'_>| node.items().is_some_and(|mut items| items.next().is_none());
        !nodes.is_empty() && nodes.iter().all(empty)
    }

    /// Every value of this key, in the order of the files.
    fn nodes(&self, name: &str) -> Vec<Node<'t>> {
        let value = |part: &Part<'t>| Some(Node { file: part.file, value: part.table.get(name)? });
        self.parts.iter().filter_map(value).collect()
    }
}

/// Reads the documents of a system or of a board.
pub(crate) struct Reader<'f> {
    findings: &'f mut Findings,
}

impl<'f> Reader<'f> {
    /// A reader that reports into `findings`.
    pub fn new(findings: &'f mut Findings) -> Self {
        Self { findings }
    }

    /// Looks at the root tables of a file and of what it includes; reports keys that are unknown, not enforced, missing,
    /// or in two files though they can be there but once.
    pub fn root<'t>(
        &mut self,
        section: &'static Section,
        documents: &'t Documents<'_>,
    ) -> View<'t> {
        self.parts(section, documents.parts(), documents.place, documents.complete)
    }

    /// The same of one table.
    fn view<'t>(&mut self, section: &'static Section, part: Part<'t>, place: Place) -> View<'t> {
        self.parts(section, vec![part], place, true)
    }

    fn parts<'t>(
        &mut self,
        section: &'static Section,
        parts: Vec<Part<'t>>,
        place: Place,
        complete: bool,
    ) -> View<'t> {
        let mut misspelt = Vec::new();
        for part in &parts {
            for key in part.table.keys().filter(|key| section.key(key.get_ref()).is_none()) {
                let place = Place::new(part.file, key.span());
                misspelt.extend(self.refuse_key(section, key.get_ref(), place));
            }
        }
        for key in section.keys {
            let mut places = parts.iter().filter_map(|part| part.place_of(key.name));
            match places.next() {
                Some(first) if !key.form.adds_up() => {
                    places.for_each(|again| self.twice(key.name, again, first));
                }
                // One mistake, one message: what is there under a wrong name is not missed too.
                None if key.required
                    && complete
                    && !misspelt.contains(&key.name)
                    && !instead(&parts, key) =>
                {
                    self.missing(section, key.name, key.form, place)
                }
                _ => {}
            }
        }
        View { section, parts, place }
    }

    fn twice(&mut self, name: &str, again: Place, first: Place) {
        let finding = Finding::new(
            Rule::DuplicateName,
            format!("`{}` is given twice", shorten(name)),
            "take one of them out, or give it another name",
        );
        self.findings.push(finding.at(again, "again here").with(first, "first here"));
    }

    fn missing(&mut self, section: &Section, name: &str, form: Form, place: Place) {
        let remedy = match form {
            Form::Table(_) | Form::Tables(_) | Form::NamedTables(_) => {
                format!("add the section `{}`, as config/README.md shows it", form.example())
            }
            other => format!("add `{name} = {}`, with your own value", other.example()),
        };
        let message = format!("{} has no `{name}`", section.header);
        self.findings
            .push(Finding::new(Rule::MissingKey, message, remedy).at(place, "needed here"));
    }

    /// Gives the key that was meant, if one is near.
    fn refuse_key(&mut self, section: &Section, name: &str, place: Place) -> Option<&'static str> {
        if let Some(later) = section.later.iter().find(|later| later.name == name) {
            let message = format!("`{name}` is not enforced yet");
            let remedy = format!(
                "take `{name}` out until the hypervisor enforces it: a key without effect would promise what nothing holds"
            );
            let finding = Finding::new(Rule::NotEnforced, message, remedy);
            self.findings.push(finding.at(place, format!("to come: {}", later.meaning)));
            return None;
        }
        let names: Vec<_> = section.keys.iter().map(|key| key.name).collect();
        let message = format!("there is no key `{}` in {}", shorten(name), section.header);
        let (remedy, key) = match meant(section, name) {
            Meant::Key(key) => (format!("did you mean `{key}`?"), Some(key)),
            Meant::Elsewhere(header) => {
                (format!("it is a key of {header}; the keys here are {}", list(&names)), None)
            }
            Meant::Nothing => (format!("take it out; the keys here are {}", list(&names)), None),
        };
        let finding = Finding::new(Rule::UnknownKey, message, remedy);
        self.findings.push(finding.at(place, "unknown key"));
        key
    }

    fn wrong_type(&mut self, name: &str, form: Form, node: Node<'_>) {
        let message = format!("`{name}` is {}", article(node.get().type_str()));
        let remedy = format!("write {}: `{name} = {}`", form.describe(), form.example());
        let finding = Finding::new(Rule::WrongType, message, remedy);
        self.findings.push(finding.at(node.place(), format!("{} is wanted", form.describe())));
    }

    fn get<'t>(&self, view: &View<'t>, name: &str) -> Option<(Form, Node<'t>)> {
        let key = view.section.key(name)?;
        Some((key.form, view.nodes(name).first().copied()?))
    }

    /// A string.
    pub fn text(&mut self, view: &View<'_>, name: &str) -> Option<At<String>> {
        let (form, node) = self.get(view, name)?;
        let Some(text) = node.get().as_str() else {
            self.wrong_type(name, form, node);
            return None;
        };
        Some(At { value: text.to_owned(), place: node.place() })
    }

    /// A string that is a well-formed name.
    pub fn name(&mut self, view: &View<'_>, name: &str) -> Option<At<String>> {
        let text = self.text(view, name)?;
        self.check_name(&text).then_some(text)
    }

    /// Reports a name that is not `[a-z][a-z0-9-]*` or too long.
    pub fn check_name(&mut self, name: &At<String>) -> bool {
        let well_formed = is_name(&name.value);
        if !well_formed {
            let what = if name.value.is_empty() { "is empty" } else { "is not well formed" };
            let message = format!("the name `{}` {what}", shorten(&name.value));
            let finding = Finding::new(Rule::BadName, message, name_rule());
            self.findings.push(finding.at(name.place, "not a name"));
        }
        well_formed
    }

    /// A duration; converted later, when the clock is known.
    pub fn duration(&mut self, view: &View<'_>, name: &str) -> Option<At<Quantity>> {
        self.quantity(view, name, Dimension::Duration)
    }

    /// A whole number of bytes, hertz or parts per million.
    pub fn whole(&mut self, view: &View<'_>, name: &str, of: Dimension) -> Option<At<u64>> {
        let quantity = self.quantity(view, name, of)?;
        let base = match of {
            Dimension::Size => "bytes",
            Dimension::Frequency => "hertz",
            Dimension::Percentage => "parts per million (0.0001 %)",
            Dimension::Duration => "ticks",
        };
        match quantity.value.whole() {
            Whole::Exact(value) => Some(At { value, place: quantity.place }),
            Whole::Above(floor) => {
                let message = format!("`{name}` is not a whole number of {base}");
                let remedy =
                    format!("the nearest whole numbers are {floor} and {} {base}", floor + 1);
                let finding = Finding::new(Rule::Inexact, message, remedy);
                self.findings.push(finding.at(quantity.place, "not whole"));
                None
            }
            Whole::TooLarge => {
                self.too_large(name, quantity.place);
                None
            }
        }
    }

    fn too_large(&mut self, name: &str, place: Place) {
        let finding = Finding::new(
            Rule::BadNumber,
            format!("`{name}` is too large"),
            "write a value below 2^62 of its smallest unit",
        );
        self.findings.push(finding.at(place, "too large"));
    }

    fn quantity(&mut self, view: &View<'_>, name: &str, of: Dimension) -> Option<At<Quantity>> {
        let (form, node) = self.get(view, name)?;
        let place = node.place();
        let unit = of.usual_unit();
        // A bare number is looked at as if it had a unit: it may be none that could have one.
        let (text, bare) = match (plain_number(node.get()), node.get().as_str()) {
            (Some(number), _) => (format!("{number} {unit}"), Some(number)),
            (None, Some(text)) => (text.to_owned(), None),
            (None, None) => {
                self.wrong_type(name, form, node);
                return None;
            }
        };
        let finding = match (Quantity::parse(&text, of), bare) {
            (Ok(_), Some(number)) => {
                self.unit_missing(name, &number, of, place);
                return None;
            }
            (Ok(value), None) => return Some(At { value, place }),
            (Err(error), _) => match error {
                QuantityError::MissingUnit => {
                    self.unit_missing(name, text.trim(), of, place);
                    return None;
                }
                QuantityError::Number(slip) => {
                    let (what, remedy) = slip.words(&format!("`{name} = {}`", form.example()));
                    Finding::new(Rule::BadNumber, format!("`{name}` {what}"), remedy)
                        .at(place, "not a number with a unit")
                }
                QuantityError::OtherDimension(other) => Finding::new(
                    Rule::WrongUnit,
                    format!("`{name}` is {}, and {} is wanted", other.name(), of.name()),
                    format!("write it in {}, such as `{name} = {}`", of.units(), form.example()),
                )
                .at(place, format!("this is {}", other.name())),
                QuantityError::UnknownUnit(close) => Finding::new(
                    Rule::WrongUnit,
                    format!("`{name}` has a unit that the language does not know"),
                    match close {
                        Some(close) => format!("did you mean `{close}`?"),
                        None => format!("write it in {}, such as `\"1 {unit}\"`", of.units()),
                    },
                )
                .at(place, format!("not a unit of {}", of.name().trim_start_matches("a "))),
            },
        };
        self.findings.push(finding);
        None
    }

    fn unit_missing(&mut self, name: &str, number: &str, of: Dimension, place: Place) {
        let message = format!("`{name}` has no unit");
        // A number of many digits is meant in the smallest unit.
        let unit = match of {
            Dimension::Size if number.len() > 4 => "B",
            Dimension::Frequency if number.len() > 5 => "Hz",
            _ => of.usual_unit(),
        };
        let remedy = format!(
            "add the unit, such as `{name} = \"{} {unit}\"`; there are {}",
            shorten(number),
            of.units()
        );
        let finding = Finding::new(Rule::MissingUnit, message, remedy);
        self.findings.push(finding.at(place, "a bare number"));
    }

    /// An integer within 0 ..= `most`; where the form is an address, a hexadecimal string too.
    pub fn number(&mut self, view: &View<'_>, name: &str, most: u64) -> Option<At<u64>> {
        let (form, node) = self.get(view, name)?;
        self.number_of(name, form, node, most)
    }

    /// `form` is that of the key, which may be a list.
    fn number_of(&mut self, name: &str, form: Form, node: Node<'_>, most: u64) -> Option<At<u64>> {
        let place = node.place();
        let parsed = match node.get() {
            DeValue::Integer(integer) => {
                u64::from_str_radix(integer.as_str(), integer.radix()).ok()
            }
            DeValue::String(text) if form == Form::Address => match hexadecimal(text) {
                Some(number) => Some(number),
                None => {
                    self.not_an_address(name, text, place);
                    return None;
                }
            },
            _ => {
                self.wrong_type(name, form, node);
                return None;
            }
        };
        if let Some(value) = parsed.filter(|number| *number <= most) {
            return Some(At { value, place });
        }
        let message = format!("`{name}` is not within its range");
        let remedy = format!("write a number from 0 to {most} ({most:#x})");
        let finding = Finding::new(Rule::BadNumber, message, remedy);
        self.findings.push(finding.at(place, "out of range"));
        None
    }

    /// A string that is no hexadecimal number: another way to write a number, or none at all.
    fn not_an_address(&mut self, name: &str, text: &str, place: Place) {
        let bytes = || Quantity::parse(text, Dimension::Size).ok()?.whole().exact();
        let remedy = match text.trim().parse::<u64>().ok().or_else(bytes) {
            Some(number) => format!("write it in hexadecimal: `{name} = \"{number:#x}\"`"),
            None => {
                format!("write a number, in hexadecimal most of the time: `{name} = \"0x3f8\"`")
            }
        };
        let message = format!("`{name}` is not written as a number");
        let finding = Finding::new(Rule::BadNumber, message, remedy);
        self.findings.push(finding.at(place, "not a number"));
    }

    /// A list of integers within 0 ..= `most`, and the place of the whole list.
    pub fn numbers(&mut self, view: &View<'_>, name: &str, most: u64) -> Option<At<Vec<At<u64>>>> {
        let (form, node) = self.get(view, name)?;
        let Some(items) = node.items() else {
            self.wrong_type(name, form, node);
            return None;
        };
        let numbers: Vec<_> = items.map(|item| self.number_of(name, form, item, most)).collect();
        let numbers: Option<Vec<_>> = numbers.into_iter().collect();
        Some(At { value: numbers?, place: node.place() })
    }

    /// A list of strings, and the place of the whole list.
    pub fn texts(&mut self, view: &View<'_>, name: &str) -> Option<At<Vec<At<String>>>> {
        let (form, node) = self.get(view, name)?;
        let Some(items) = node.items() else {
            self.wrong_type(name, form, node);
            return None;
        };
        let (mut texts, mut sound) = (Vec::new(), true);
        for item in items {
            let Some(text) = item.get().as_str() else {
                self.wrong_type(name, form, item);
                sound = false;
                continue;
            };
            texts.push(At { value: text.to_owned(), place: item.place() });
        }
        sound.then(|| At { value: texts, place: node.place() })
    }

    /// Like [`Self::texts`], and reports an empty list.
    pub fn full_texts(&mut self, view: &View<'_>, name: &str) -> Option<At<Vec<At<String>>>> {
        let texts = self.texts(view, name)?;
        if texts.value.is_empty() {
            let message = format!("the list `{name}` is empty");
            let finding =
                Finding::new(Rule::EmptyList, message, "take the key out: it does nothing");
            self.findings.push(finding.at(texts.place, "nothing in it"));
        }
        Some(texts)
    }

    /// A list of words out of `known`, each once.
    pub fn words(
        &mut self,
        view: &View<'_>,
        name: &str,
        known: &[&str],
    ) -> Option<At<Vec<At<String>>>> {
        let words = self.full_texts(view, name)?;
        for word in &words.value {
            self.known_word(name, word, known);
        }
        let pairs = self.findings.comparisons.repeated(&words.value, |word| word.value.as_str());
        for (first, again) in pairs {
            self.twice(&again.value, again.place, first.place);
        }
        Some(words)
    }

    /// One word out of `known`.
    pub fn word(&mut self, view: &View<'_>, name: &str, known: &[&str]) -> Option<At<String>> {
        let word = self.text(view, name)?;
        self.known_word(name, &word, known).then_some(word)
    }

    /// Reports a word that is not in `known`.
    fn known_word(&mut self, name: &str, word: &At<String>, known: &[&str]) -> bool {
        if known.contains(&word.value.as_str()) {
            return true;
        }
        let message = format!("`{name}` does not know `{}`", shorten(&word.value));
        let remedy = match closest(&word.value, known) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("it knows {}", list(known)),
        };
        let finding = Finding::new(Rule::UnknownWord, message, remedy);
        self.findings.push(finding.at(word.place, "unknown word"));
        false
    }

    /// `true` or `false`.
    pub fn flag(&mut self, view: &View<'_>, name: &str) -> Option<At<bool>> {
        let (form, node) = self.get(view, name)?;
        match node.get() {
            DeValue::Boolean(value) => Some(At { value: *value, place: node.place() }),
            _ => {
                self.wrong_type(name, form, node);
                None
            }
        }
    }

    /// A list of well-formed names.
    pub fn names(&mut self, view: &View<'_>, name: &str) -> Option<At<Vec<At<String>>>> {
        let names = self.texts(view, name)?;
        let mut sound = true;
        for name in &names.value {
            sound &= self.check_name(name);
        }
        sound.then_some(names)
    }

    /// A table `[name]`.
    pub fn table<'t>(
        &mut self,
        view: &View<'t>,
        name: &str,
        section: &'static Section,
    ) -> Option<View<'t>> {
        let (_, node) = self.get(view, name)?;
        self.table_of(node, name, section)
    }

    fn table_of<'t>(
        &mut self,
        node: Node<'t>,
        name: &str,
        section: &'static Section,
    ) -> Option<View<'t>> {
        let Some(table) = node.get().as_table() else {
            self.not_a_table(name, section, node);
            return None;
        };
        Some(self.view(section, Part { file: node.file, table }, node.place()))
    }

    fn not_a_table(&mut self, name: &str, section: &Section, node: Node<'_>) {
        let header = section.header;
        let listed = node.items().is_some_and(|mut items| items.all(|item| item.is_table()));
        let (what, label, remedy) = if header.starts_with("[[") && node.is_table() {
            ("one section", "any number of sections is wanted", "with double brackets")
        } else if !header.starts_with("[[") && listed {
            ("a list of sections", "one section is wanted", "with single brackets")
        } else {
            (node.get().type_str(), "a section is wanted", "as a section of its own")
        };
        let message = format!("`{}` is {}", shorten(name), article(what));
        let finding =
            Finding::new(Rule::WrongType, message, format!("write it {remedy}: {header}"));
        self.findings.push(finding.at(node.place(), label));
    }

    /// Tables `[[name]]` of all parts and the place of the first list; `None` when there are none.
    pub fn tables<'t>(
        &mut self,
        view: &View<'t>,
        name: &str,
        section: &'static Section,
    ) -> Option<At<Vec<View<'t>>>> {
        let nodes = view.nodes(name);
        let place = nodes.first()?.place();
        let mut views = Vec::new();
        for node in nodes {
            let Some(items) = node.items() else {
                self.not_a_table(name, section, node);
                return None;
            };
            views.extend(items.filter_map(|item| self.table_of(item, name, section)));
        }
        Some(At { value: views, place })
    }

    /// Tables `[name.KEY]` of all parts in the order of the files, each with its key.
    pub fn named_tables<'t>(
        &mut self,
        view: &View<'t>,
        name: &str,
        section: &'static Section,
    ) -> Vec<(At<String>, View<'t>)> {
        let mut views: Vec<(At<String>, View<'t>)> = Vec::new();
        let mut first_places = BTreeMap::new();
        for node in view.nodes(name) {
            let Some(table) = node.get().as_table() else {
                self.not_a_table(name, section, node);
                continue;
            };
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            for (key, value) in entries {
                let place = Place::new(node.file, key.span());
                let name = At { value: key.get_ref().to_string(), place };
                if let Some(first) = first_places.insert(name.value.clone(), place) {
                    self.twice(&name.value, place, first);
                    continue;
                }
                let node = Node { file: node.file, value };
                if let Some(view) = self.table_of(node, &name.value, section) {
                    views.push((name, view));
                }
            }
        }
        views
    }

    /// Adds a finding.
    pub fn report(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// What a value says, whatever its digits or its unit.
fn said_text(form: Form, value: &DeValue<'_>) -> String {
    let number = match value {
        DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        DeValue::String(text) if form == Form::Address => hexadecimal(text),
        DeValue::String(text) if form == Form::Size => {
            let size = Quantity::parse(text, Dimension::Size).ok();
            return size.and_then(|size| size.whole().exact()).map_or_else(String::new, size_text);
        }
        DeValue::String(text) => return text.to_string(),
        DeValue::Boolean(flag) => return flag.to_string(),
        _ => None,
    };
    match number {
        Some(number) if form == Form::Address => format!("{number:#x}"),
        Some(number) => number.to_string(),
        None => String::new(),
    }
}

/// Longest name, in characters.
pub(crate) const LONGEST_NAME: usize = 32;

/// Whether the key that may stand there instead of this one is there.
fn instead(parts: &[Part<'_>], key: &Key) -> bool {
    key.instead.is_some_and(|other| parts.iter().any(|part| part.place_of(other).is_some()))
}

/// Whether it is `[a-z][a-z0-9-]*` and not too long.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// How a name is written, as a remedy.
pub(crate) fn name_rule() -> String {
    format!(
        "begin with a lower-case letter and go on with lower-case letters, digits and hyphens, at most {LONGEST_NAME} in all"
    )
}

/// Converts a duration to ticks; reports one that is not a whole number of them.
pub(crate) fn ticks(
    duration: &At<Quantity>,
    name: &str,
    hz: u64,
    findings: &mut Findings,
) -> Option<u64> {
    let tick = duration_text(1, hz);
    let (rule, message, remedy) = match duration.value.to_ticks(hz) {
        Whole::Exact(ticks) => return Some(ticks),
        Whole::Above(0) => (
            Rule::ZeroDuration,
            format!("`{name}` is shorter than one tick of the board's clock"),
            format!("write at least one tick, {tick}"),
        ),
        Whole::Above(floor) => (
            Rule::Inexact,
            format!("`{name}` is not a whole number of ticks"),
            format!(
                "nothing is rounded in silence; the nearest exact values are \"{}\" and \"{}\"",
                duration_text(floor, hz),
                duration_text(floor + 1, hz)
            ),
        ),
        Whole::TooLarge => (
            Rule::BadNumber,
            format!("`{name}` is too long"),
            "write a duration below 2^62 ticks".to_owned(),
        ),
    };
    let label = format!("one tick is {tick}");
    findings.push(Finding::new(rule, message, remedy).at(duration.place, label));
    None
}

/// Like [`ticks`], and reports zero.
pub(crate) fn positive_ticks(
    duration: &At<Quantity>,
    name: &str,
    hz: u64,
    findings: &mut Findings,
) -> Option<u64> {
    if duration.value.is_zero() {
        let message = format!("`{name}` is zero");
        let remedy = format!("write at least one tick, {}", duration_text(1, hz));
        findings
            .push(Finding::new(Rule::ZeroDuration, message, remedy).at(duration.place, "nothing"));
        return None;
    }
    ticks(duration, name, hz, findings)
}

fn plain_number(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Integer(integer) => Some(integer.to_string()),
        DeValue::Float(float) => Some(float.to_string()),
        _ => None,
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.trim().strip_prefix("0x")?.replace('_', "");
    if digits.starts_with('+') {
        return None;
    }
    u64::from_str_radix(&digits, 16).ok()
}

fn article(type_name: &str) -> String {
    match type_name {
        "array" | "integer" => format!("an {type_name}"),
        "one section" | "a list of sections" => type_name.to_owned(),
        other => format!("a {other}"),
    }
}

/// The candidate that a person may have meant, if one is near.
pub(crate) fn closest<'n>(name: &str, candidates: &[&'n str]) -> Option<&'n str> {
    if name.len() > 2 * LONGEST_NAME {
        return None;
    }
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Names as a list in a sentence.
pub(crate) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The beginning of a text that someone else wrote, at most 48 characters, on one line.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(48) {
        Some((end, _)) => format!("{}...", plain(&text[..end])),
        None => plain(text),
    }
}
