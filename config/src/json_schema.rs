//! JSON Schemas of system and board files, made from the keys by which the reader refuses.
//!
//! They say what a single file can say: its keys, their types and how values are written. What must hold between
//! keys is left to `bulkhead check`. Every keyword used here means the same from draft 7 on, which is what editors
//! for TOML understand.

use serde_json::{Map, Value, json};

use crate::language::{BOARD_FILE, Form, HYGIENE_WORDS, Key, PLATFORM_WORDS, SYSTEM_FILE, Section};
use crate::reader::LONGEST_NAME;
use crate::schema::RESERVED_NAMES;
use crate::units::Dimension;

/// Which kind of file a schema or a formatter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A system file.
    System,
    /// A board file.
    Board,
}

impl FileKind {
    /// Its keys.
    #[must_use]
    pub const fn section(self) -> &'static Section {
        match self {
            Self::System => &SYSTEM_FILE,
            Self::Board => &BOARD_FILE,
        }
    }
}

/// The JSON Schema of such a file. A file that includes others need not be complete by itself.
#[must_use]
pub fn json_schema(kind: FileKind) -> Value {
    let section = kind.section();
    let mut schema = object(section);
    let required = schema.remove("required").unwrap_or_default();
    schema.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    schema.insert("title".to_owned(), json!(format!("Bulkhead: {}", section.header)));
    schema.insert("if".to_owned(), json!({ "required": ["include"] }));
    schema.insert("else".to_owned(), json!({ "required": required }));
    Value::Object(schema)
}

fn object(section: &Section) -> Map<String, Value> {
    let properties: Map<String, Value> =
        section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let needed = || section.keys.iter().filter(|key| key.required);
    let required: Vec<_> =
        needed().filter(|key| key.instead.is_none()).map(|key| key.name).collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("object"));
    object.insert("description".to_owned(), json!(section.meaning));
    object.insert("properties".to_owned(), Value::Object(properties));
    object.insert("required".to_owned(), json!(required));
    object.insert("additionalProperties".to_owned(), json!(false));
    if let Some((key, other)) = needed().find_map(|key| Some((key.name, key.instead?))) {
        let one = json!([{ "required": [key] }, { "required": [other] }]);
        object.insert("anyOf".to_owned(), one);
    }
    object
}

fn property(key: &Key) -> Value {
    let mut value = value(key.form);
    if let Value::Object(object) = &mut value {
        object.insert("description".to_owned(), json!(key.meaning));
    }
    value
}

fn value(form: Form) -> Value {
    match form {
        Form::Text => json!({ "type": "string" }),
        Form::Name => name(),
        Form::Path | Form::Board => path(),
        Form::Duration => quantity(form, Dimension::Duration),
        Form::Size => quantity(form, Dimension::Size),
        Form::Frequency => quantity(form, Dimension::Frequency),
        Form::Percentage => quantity(form, Dimension::Percentage),
        Form::Address => json!({ "anyOf": [number(), hexadecimal()] }),
        Form::Number => number(),
        Form::Numbers => list(number()),
        Form::Names | Form::Plans => list(name()),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Hygiene => list(json!({ "enum": HYGIENE_WORDS })),
        Form::Platform => json!({ "enum": PLATFORM_WORDS }),
        Form::Word { words, .. } => json!({ "enum": words }),
        Form::Paths => list(path()),
        Form::Functions => list(json!({
            "type": "string",
            "pattern": "^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\\.[0-7]$",
        })),
        Form::Table(section) => Value::Object(object(section)),
        Form::Tables(section) => list(Value::Object(object(section))),
        Form::NamedTables(section) => named(section),
    }
}

fn name() -> Value {
    json!({ "type": "string", "pattern": name_pattern() })
}

fn name_pattern() -> String {
    format!("^[a-z][a-z0-9-]{{0,{}}}$", LONGEST_NAME - 1)
}

fn path() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn hexadecimal() -> Value {
    json!({ "type": "string", "pattern": "^\\s*0x_*[0-9A-Fa-f][0-9A-Fa-f_]*\\s*$" })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// A number, then a unit. Most digits and exactness are left to the compiler.
fn quantity(form: Form, dimension: Dimension) -> Value {
    let digits = "[0-9](?:[0-9_]*[0-9])?";
    let units = dimension.units().replace(", ", "|");
    json!({
        "type": "string",
        "pattern": format!("^\\s*{digits}(?:\\.{digits})?\\s*(?:{units})\\s*$"),
        "examples": [form.example().trim_matches('"')],
    })
}

/// Tables whose keys are names of the user's, all but the hypervisor's own.
fn named(section: &Section) -> Value {
    let reserved: Map<String, Value> =
        RESERVED_NAMES.iter().map(|name| ((*name).to_owned(), json!({ "not": {} }))).collect();
    json!({
        "type": "object",
        "properties": reserved,
        "patternProperties": { name_pattern(): object(section) },
        "additionalProperties": false,
    })
}
