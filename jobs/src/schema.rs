//! The JSON Schema of the file, for editors: made of the tables that validation reads.

use serde_json::{Map, Value, json};
use thalweg_operators::{Catalogue, ConfigKey, ConfigKind, KeyRule, OperatorInfo};

use crate::document::default_item;
use crate::keys::{self, Connector, Key, Kind, Later, Member};
use crate::spec::BiasLevel;

/// The JSON Schema (draft 2020-12) of a job that uses the operators of the catalogue.
pub fn schema(catalogue: &Catalogue) -> Value {
    let mut root = table(&[keys::ROOT], catalogue);
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "Thalweg job".into();
    root
}

fn table(of: &[&[Key]], catalogue: &Catalogue) -> Value {
    let keys: Vec<&Key> = of.iter().copied().flatten().collect();
    let properties: Map<_, _> = keys.iter().map(|key| (key.name.to_owned(), property(key, catalogue))).collect();
    let required: Vec<_> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn property(key: &Key, catalogue: &Catalogue) -> Value {
    let mut schema = kind(key.kind, catalogue);
    let note = match key.later {
        Later::Never => String::new(),
        Later::Always => " (not available yet)".to_owned(),
        Later::Cluster(value) => format!(" (a cluster only; `run` always has {value})"),
    };
    schema["description"] = format!("{}{note}", key.doc).into();
    if let Some(default) = key.default {
        schema["default"] = default_item(default).to_json();
    }
    schema
}

fn kind(kind: Kind, catalogue: &Catalogue) -> Value {
    match kind {
        Kind::Text => text(),
        Kind::JobName => json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$" }),
        Kind::Choice(choices) => json!({ "enum": choices.iter().map(|choice| choice.value).collect::<Vec<_>>() }),
        Kind::Int(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Float(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Duration => duration(),
        Kind::DurationOrNone => json!({ "anyOf": [{ "const": "none" }, duration()] }),
        Kind::Bytes => bytes(),
        Kind::Texts => texts(),
        Kind::Biases => {
            let levels: Vec<_> = BiasLevel::NAMED.iter().map(|(name, _)| *name).collect();
            let pair =
                json!({ "type": "array", "prefixItems": [text(), { "enum": levels }], "minItems": 2, "maxItems": 2 });
            json!({ "type": "array", "items": pair })
        }
        Kind::Start => start(),
        Kind::Bound => json!({ "anyOf": [start(), table(&[keys::BOUND], catalogue)] }),
        Kind::Offsets => {
            let offset = json!({ "type": "integer", "minimum": 0 });
            json!({ "type": "object", "patternProperties": { "^([a-zA-Z0-9._-]+/)?[0-9]+$": offset }, "additionalProperties": false })
        }
        Kind::Character => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        Kind::Table(keys) => table(&[keys], catalogue),
        Kind::Backfill => connected(keys::BACKFILL, keys::BACKFILL_CONNECTORS, catalogue),
        Kind::Properties => {
            let plain = json!({ "type": ["string", "number", "boolean"] });
            json!({ "type": "object", "additionalProperties": secret(plain) })
        }
        Kind::Secret => secret(text()),
        Kind::Ids(member) => {
            let member = match member {
                Member::Source => connected(keys::SOURCE, keys::SOURCE_CONNECTORS, catalogue),
                Member::Sink => connected(keys::SINK, keys::SINK_CONNECTORS, catalogue),
                Member::Operator => operator(catalogue),
                Member::Store => table(&[keys::STORE], catalogue),
                Member::Stage => json!({ "type": "object" }),
            };
            json!({ "type": "object", "propertyNames": { "pattern": "^[A-Za-z0-9_-]{1,64}$" }, "additionalProperties": member })
        }
    }
}

/// A plain value, or where it is kept.
fn secret(plain: Value) -> Value {
    let kept = |name: &str| json!({ "type": "object", "properties": { name: text() }, "required": [name], "additionalProperties": false });
    json!({ "anyOf": [plain, kept("env"), kept("file")] })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1 })
}

fn texts() -> Value {
    json!({ "anyOf": [text(), { "type": "array", "items": text(), "minItems": 1 }] })
}

fn start() -> Value {
    json!({ "anyOf": [{ "enum": ["earliest", "latest"] }, { "type": "string", "format": "date-time" }] })
}

fn duration() -> Value {
    json!({ "type": "string", "pattern": "^[0-9][0-9_.]*\\s*(ns|us|ms|s|m|h|d)$" })
}

fn bytes() -> Value {
    json!({ "type": "string", "pattern": "^[0-9][0-9_.]*\\s*(B|kB|MB|GB|KiB|MiB|GiB)$" })
}

/// A source or sink: the keys that all have, and those of its connector.
fn connected(common: &'static [Key], connectors: &'static [Connector], catalogue: &Catalogue) -> Value {
    let variants: Vec<_> = connectors
        .iter()
        .map(|connector| {
            let mut of = vec![common, connector.keys];
            if std::ptr::eq(common, keys::SINK) {
                of.extend([keys::sink_format(connector.name), keys::sink_schema(connector.name)]);
                of.push(keys::sink_key_schema(connector.name));
            } else {
                let format = keys::source_format(connector.name);
                of.extend([format, keys::source_schema(connector.name)]);
                of.extend(std::ptr::eq(common, keys::SOURCE).then(|| keys::source_key_schema(connector.name)));
                of.extend((!format.is_empty()).then_some(keys::CSV));
            }
            let mut variant = table(&of, catalogue);
            variant["title"] = connector.doc.into();
            variant["properties"]["connector"] = json!({ "const": connector.name });
            variant
        })
        .collect();
    json!({ "oneOf": variants })
}

/// An operator: the keys that all have, and those of what it uses.
fn operator(catalogue: &Catalogue) -> Value {
    let variants: Vec<_> = catalogue.operators().map(|info| operator_variant(info, catalogue)).collect();
    json!({ "oneOf": variants })
}

fn operator_variant(info: &OperatorInfo, catalogue: &Catalogue) -> Value {
    let mut variant = table(&[keys::OPERATOR], catalogue);
    variant["title"] = info.doc.as_str().into();
    variant["properties"]["uses"] = json!({ "const": info.name });
    let mut required: Vec<&str> = vec!["uses", "inputs"];
    match info.keyed {
        KeyRule::Required => required.push("key"),
        KeyRule::Forbidden => variant["properties"]["key"] = false.into(),
        KeyRule::Optional => {}
    }
    for key in &info.config {
        variant["properties"][&key.name] = config(key);
        if key.required {
            required.push(&key.name);
        }
    }
    variant["required"] = json!(required);
    variant["additionalProperties"] = info.open.into();
    variant
}

fn config(key: &ConfigKey) -> Value {
    let expressions = json!({ "type": "object", "additionalProperties": text(), "minProperties": 1 });
    let mut schema = match key.kind {
        ConfigKind::Duration => duration(),
        ConfigKind::Bytes => bytes(),
        ConfigKind::Int => json!({ "type": "integer" }),
        ConfigKind::Float => json!({ "type": "number" }),
        ConfigKind::Bool => json!({ "type": "boolean" }),
        ConfigKind::Text | ConfigKind::Expression => text(),
        ConfigKind::ExpressionMap | ConfigKind::AggregateMap => expressions,
        ConfigKind::TextList => texts(),
        ConfigKind::Any => json!({}),
    };
    schema["description"] = key.doc.as_str().into();
    schema
}
