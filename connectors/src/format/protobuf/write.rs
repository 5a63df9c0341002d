//! Values in the binary encoding of Protobuf: fields in the order of their numbers, as the libraries of Google write them.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thalweg_core::{Error, Result, Row, Value};

use super::descriptor::{Count, Field, Kind, MessageType, MessageTypes};
use super::source::ProtoTexts;
use super::well_known::WellKnown;

type Put = std::result::Result<(), String>;

/// Writes the records of a sink as messages of one type.
///
/// ```
/// use thalweg_connectors::ProtobufWriter;
/// use thalweg_core::Value;
///
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("order.proto");
/// std::fs::write(&path, "syntax = \"proto3\"; message Order { int64 id = 1; string who = 2; }")?;
/// let row: Value = serde_json::from_str(r#"{"who":"ada","id":3}"#)?;
/// let mut out = Vec::new();
/// ProtobufWriter::of_file(&path, "Order")?.encode_value(&row, &mut out)?;
/// assert_eq!(out, b"\x08\x03\x12\x03ada");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ProtobufWriter {
    types: Arc<MessageTypes>,
    message: usize,
    /// What a registry is given; a compiled set has no text.
    texts: Option<ProtoTexts>,
    name: String,
    /// In front of each record.
    front: Vec<u8>,
}

impl ProtobufWriter {
    /// Of a file `.proto`, with what it imports beside it, or of a compiled set of descriptors; all messages have the type of this
    /// full name.
    ///
    /// Errors: `not-found` and the like; `schema` says what is wrong with it; `unknown-message` where it has no such type.
    pub fn of_file(path: &Path, message: &str) -> Result<Self> {
        let named = |error: Error| error.context(path.display());
        let bytes = std::fs::read(path).map_err(|error| Error::io(format!("schema {}", path.display()), error))?;
        let is_text = path.extension().is_some_and(|extension| extension == "proto");
        let wrong = |why: String| named(Error::user("schema", format!("no Protobuf schema: {why}")));
        let types = if is_text { MessageTypes::of_file(path) } else { MessageTypes::of_set(&bytes) };
        let types = types.map_err(wrong)?;
        let Some(index) = types.named(message) else {
            let text = format!("there is no message type {message:?}; {}", types.proposal(message));
            return Err(named(Error::user("unknown-message", text)));
        };
        let texts = is_text.then(|| ProtoTexts::of_file(path)).transpose().map_err(wrong)?;
        Ok(Self { types: Arc::new(types), message: index, texts, name: message.to_owned(), front: Vec::new() })
    }

    /// What a schema registry is given of it.
    ///
    /// Errors: `schema` where there is no text, or the type is one of an imported file.
    pub(crate) fn texts(&self) -> Result<&ProtoTexts> {
        let refused = |why: &str| Error::user("schema", format!("message {:?}: {why}", self.name));
        if self.texts.is_some() && self.types.path_of(self.message).is_none() {
            return Err(refused("it is declared in a file that is imported; give that one as schema_file"));
        }
        self.texts.as_ref().ok_or_else(|| {
            refused("a schema registry takes the text of a schema; give the .proto file, not a compiled set, as schema_file")
        })
    }

    /// With the id of the schema and the indexes of the type in front of each record, as the serializers of a schema registry
    /// write them.
    #[must_use]
    pub fn with_id(mut self, id: u32) -> Self {
        let path = self.types.path_of(self.message).unwrap_or_default();
        self.front = [&[0][..], &id.to_be_bytes()].concat();
        if path == [0] {
            // The first type is so common that it has a form of its own.
            self.front.push(0);
            return self;
        }
        zigzag(path.len() as i64, &mut self.front);
        path.iter().for_each(|index| zigzag(*index as i64, &mut self.front));
        self
    }

    /// Of the schema, the type and what stands in front: others write other bytes.
    pub fn hash(&self) -> u64 {
        let of_type = xxhash_rust::xxh3::xxh3_64_with_seed(self.name.as_bytes(), self.types.hash());
        of_type ^ xxhash_rust::xxh3::xxh3_64(&self.front)
    }

    /// Whether it writes rows, and not bare values.
    pub(crate) fn takes_rows(&self) -> bool {
        self.types.messages[self.message].well_known.is_none()
    }

    /// Appends a record.
    ///
    /// Errors: `encode` where the value does not fit the schema.
    pub fn encode_value(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&self.front);
        self.message(self.message, value, out).map_err(|why| {
            out.truncate(start);
            Error::user("encode", format!("the record {value} does not fit the message type {:?}: {why}", self.name))
        })
    }

    /// The fields of a message.
    fn message(&self, index: usize, value: &Value, out: &mut Vec<u8>) -> Put {
        let of = &self.types.messages[index];
        match (of.well_known, value) {
            (Some(well_known), value) => self.well_known(well_known, of, value, out),
            (None, Value::Row(row)) => self.row(of, row, out),
            (None, value) => Err(wanted("a row", value)),
        }
    }

    /// What a row lacks is absent; what the type lacks is refused, for it would be lost.
    fn row(&self, of: &MessageType, row: &Row, out: &mut Vec<u8>) -> Put {
        let names = of.layout.shape.names();
        if let Some(unknown) = row.shape().names().iter().find(|name| of.layout.shape.index_of(name).is_none()) {
            return Err(format!("the type has no field {unknown:?}; add it there, or leave it out with a map"));
        }
        for index in of.in_order() {
            let (name, field) = (names[index].as_str(), &of.fields[index]);
            let value = row.get(name).unwrap_or(&Value::Null);
            let named = |why: String| format!("field {name:?}: {why}");
            if matches!(value, Value::Null) {
                if field.required {
                    return Err(named("it is required, and not there".to_owned()));
                }
                continue;
            }
            let there = |other: &usize| !matches!(row.get(&names[*other]), None | Some(Value::Null));
            if let Some(other) = field.siblings.iter().copied().find(there) {
                return Err(named(format!("it and {:?} are of one oneof, which has one value", names[other].as_str())));
            }
            self.field(field, value, out).map_err(named)?;
        }
        Ok(())
    }

    fn field(&self, field: &Field, value: &Value, out: &mut Vec<u8>) -> Put {
        match (field.count, value) {
            (Count::One, value) => self.one(field, value, field.implicit, out),
            (Count::Many, Value::List(list)) if field.packed && !list.is_empty() => {
                tag(field.number, 2, out);
                framed(out, |out| list.iter().try_for_each(|item| self.scalar(field.kind, item, out)))
            }
            (Count::Many, Value::List(list)) => list.iter().try_for_each(|item| self.one(field, item, false, out)),
            (Count::Map, Value::Row(row)) => {
                let Kind::Message(entry) = field.kind else { return Err("it is no map".to_owned()) };
                row.shape().names().iter().zip(row.values()).try_for_each(|(name, value)| {
                    tag(field.number, 2, out);
                    framed(out, |out| self.entry(&self.types.messages[entry], name, value, out))
                })
            }
            (Count::Many, value) => Err(wanted("a list", value)),
            (Count::Map, value) => Err(wanted("a row", value)),
        }
    }

    /// An entry of a map has both of its fields, whatever they are.
    fn entry(&self, of: &MessageType, name: &str, value: &Value, out: &mut Vec<u8>) -> Put {
        let [key, content] = &of.fields[..] else { return Err("it is no map".to_owned()) };
        let key_value = match key.kind {
            Kind::Text => Value::from(name),
            Kind::Bool => Value::Bool(name == "true"),
            _ => {
                let number = name.parse().map_err(|_| format!("takes numbers as keys, and {name:?} is none"))?;
                Value::Int(number)
            }
        };
        self.one(key, &key_value, false, out)?;
        self.one(content, value, false, out).map_err(|why| format!("{name:?}: {why}"))
    }

    /// A field with one value; `implicit` says that it is left out where that is zero.
    fn one(&self, field: &Field, value: &Value, implicit: bool, out: &mut Vec<u8>) -> Put {
        let start = out.len();
        match field.kind {
            Kind::Message(of) => {
                tag(field.number, 2, out);
                return framed(out, |out| self.message(of, value, out));
            }
            Kind::Group(of) => {
                tag(field.number, 3, out);
                self.message(of, value, out)?;
                tag(field.number, 4, out);
                return Ok(());
            }
            kind => tag(field.number, wire(kind), out),
        }
        let payload = out.len();
        self.scalar(field.kind, value, out)?;
        // The payload of zero, false and an empty text is zeros, and that of nothing else is.
        if implicit && out[payload..].iter().all(|byte| *byte == 0) {
            out.truncate(start);
        }
        Ok(())
    }

    /// A value that is no message, without its tag.
    fn scalar(&self, kind: Kind, value: &Value, out: &mut Vec<u8>) -> Put {
        match kind {
            Kind::Double => out.extend_from_slice(&float(value)?.to_le_bytes()),
            Kind::Float => out.extend_from_slice(&(float(value)? as f32).to_le_bytes()),
            Kind::Int32 => varint(i64::from(whole::<i32>(value)?) as u64, out),
            Kind::Int64 => varint(whole::<i64>(value)? as u64, out),
            Kind::Uint32 => varint(u64::from(whole::<u32>(value)?), out),
            Kind::Uint64 => varint(unsigned(value)?, out),
            Kind::Sint32 => zigzag(i64::from(whole::<i32>(value)?), out),
            Kind::Sint64 => zigzag(whole(value)?, out),
            Kind::Fixed32 => out.extend_from_slice(&whole::<u32>(value)?.to_le_bytes()),
            Kind::Sfixed32 => out.extend_from_slice(&whole::<i32>(value)?.to_le_bytes()),
            Kind::Fixed64 => out.extend_from_slice(&unsigned(value)?.to_le_bytes()),
            Kind::Sfixed64 => out.extend_from_slice(&whole::<i64>(value)?.to_le_bytes()),
            Kind::Bool => match value {
                Value::Bool(bool) => out.push(u8::from(*bool)),
                value => return Err(wanted("true or false", value)),
            },
            Kind::Enum(index) => {
                let number = match value {
                    Value::Int(_) => whole::<i32>(value)?,
                    value => {
                        let number = self.types.enums[index].number(value);
                        number.ok_or_else(|| wanted("a name of an enum", value))?
                    }
                };
                varint(i64::from(number) as u64, out);
            }
            Kind::Text => block(text(value)?.as_bytes(), out),
            Kind::Bytes => {
                let bytes = STANDARD.decode(text(value)?.as_bytes());
                block(&bytes.map_err(|error| format!("takes base64, and {value} is none: {error}"))?, out);
            }
            Kind::Message(_) | Kind::Group(_) => return Err(wanted("a row", value)),
        }
        Ok(())
    }

    fn well_known(&self, well_known: WellKnown, of: &MessageType, value: &Value, out: &mut Vec<u8>) -> Put {
        match well_known {
            WellKnown::Timestamp => {
                let Value::Time(micros) = value else { return Err(wanted("a time", value)) };
                seconds(micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000) * 1000, out);
                Ok(())
            }
            WellKnown::Duration => {
                let all = float(value)?;
                let whole = all.trunc();
                seconds(whole as i64, ((all - whole) * 1e9).round() as i64, out);
                Ok(())
            }
            WellKnown::Field => self.field(&of.fields[0], value, out),
            WellKnown::Value => {
                let (index, value) = match value {
                    Value::Null => (0, &Value::Int(0)),
                    Value::Int(_) | Value::Float(_) => (1, value),
                    Value::Str(_) | Value::Time(_) => (2, value),
                    Value::Bool(_) => (3, value),
                    Value::Row(_) => (4, value),
                    Value::List(_) => (5, value),
                };
                self.one(&of.fields[index], value, false, out)
            }
        }
    }
}

fn wanted(what: &str, found: &Value) -> String {
    format!("takes {what}, and {found} is a {}", found.kind())
}

fn float(value: &Value) -> std::result::Result<f64, String> {
    value.as_f64().ok_or_else(|| wanted("a number", value))
}

/// A time in a field of text is written as JSON writes it.
fn text(value: &Value) -> std::result::Result<String, String> {
    match value {
        Value::Str(text) => Ok(text.to_string()),
        Value::Time(_) => Ok(value.to_string().trim_matches('"').to_owned()),
        value => Err(wanted("a text", value)),
    }
}

fn whole<T: TryFrom<i64>>(value: &Value) -> std::result::Result<T, String> {
    let Value::Int(number) = value else { return Err(wanted("a whole number", value)) };
    let kind = std::any::type_name::<T>();
    T::try_from(*number).map_err(|_| format!("takes {kind}, and {number} does not fit"))
}

/// What does not fit 63 bits is a number of floating point when it was read.
fn unsigned(value: &Value) -> std::result::Result<u64, String> {
    match value {
        Value::Float(number) if number.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(number) => {
            Ok(*number as u64)
        }
        value => whole(value),
    }
}

/// The fields of times and durations.
fn seconds(seconds: i64, nanos: i64, out: &mut Vec<u8>) {
    for (number, part) in [(1, seconds), (2, nanos)] {
        if part != 0 {
            tag(number, 0, out);
            varint(part as u64, out);
        }
    }
}

/// How a tag says that a value of this kind is written.
fn wire(kind: Kind) -> u32 {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
        Kind::Text | Kind::Bytes | Kind::Message(_) => 2,
        Kind::Group(_) => 3,
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Sint32 | Kind::Sint64 => 0,
        Kind::Bool | Kind::Enum(_) => 0,
    }
}

fn tag(number: u32, wire: u32, out: &mut Vec<u8>) {
    varint(u64::from(number << 3 | wire), out);
}

/// Seven bits a byte, the lowest first.
fn varint(mut rest: u64, out: &mut Vec<u8>) {
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn zigzag(number: i64, out: &mut Vec<u8>) {
    varint((number << 1 ^ number >> 63) as u64, out);
}

fn block(bytes: &[u8], out: &mut Vec<u8>) {
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// What `put` writes, behind its length.
fn framed(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>) -> Put) -> Put {
    let start = out.len();
    put(out)?;
    let mut length = Vec::new();
    varint((out.len() - start) as u64, &mut length);
    out.splice(start..start, length);
    Ok(())
}
