//! Values in the binary encoding of Avro.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thalweg_core::{Error, Result, Row, Value};

use super::decimal;
use super::schema::{AvroSchema, Named, Number, Octets, Record, Type, Width};

/// Writes the records of a sink by a schema.
///
/// ```
/// use thalweg_connectors::AvroWriter;
/// use thalweg_core::Value;
///
/// let schema = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"},{"name":"who","type":["null","string"]}]}"#;
/// let row: Value = serde_json::from_str(r#"{"who":"ada","n":3}"#)?;
/// let mut out = Vec::new();
/// AvroWriter::new(schema)?.encode_value(&row, &mut out)?;
/// assert_eq!(out, b"\x06\x02\x06ada");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AvroWriter {
    schema: AvroSchema,
    /// In front of each record.
    front: Vec<u8>,
    hash: u64,
}

impl AvroWriter {
    /// Reads a schema of Avro, as in a file `.avsc`.
    ///
    /// Errors: `schema` says what is wrong with it.
    pub fn new(schema: &str) -> Result<Self> {
        let hash = xxhash_rust::xxh3::xxh3_64(schema.as_bytes());
        let schema = AvroSchema::parse(schema, &[]);
        let schema = schema.map_err(|why| Error::user("schema", format!("no Avro schema: {why}")))?;
        Ok(Self { schema, front: Vec::new(), hash })
    }

    /// With the id of the schema in front of each record, as the serializers of a schema registry write it.
    #[must_use]
    pub fn with_id(mut self, id: u32) -> Self {
        self.front = [&[0][..], &id.to_be_bytes()].concat();
        self
    }

    /// Of the schema's text and what stands in front: others write other bytes.
    pub fn hash(&self) -> u64 {
        self.hash ^ xxhash_rust::xxh3::xxh3_64(&self.front)
    }

    /// Whether it writes rows, and not bare values.
    pub(crate) fn takes_rows(&self) -> bool {
        matches!(&self.schema.root, Type::Named(index) if matches!(self.schema.named(*index), Named::Record(_)))
    }

    /// Appends a record.
    ///
    /// Errors: `encode` where the value does not fit the schema.
    pub fn encode_value(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&self.front);
        self.put(&self.schema.root, value, out).map_err(|why| {
            out.truncate(start);
            Error::user("encode", format!("the record {value} does not fit its Avro schema: {why}"))
        })
    }

    fn put(&self, kind: &Type, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
        match (kind, value) {
            (Type::Null, Value::Null) => {}
            (Type::Bool, Value::Bool(bool)) => out.push(u8::from(*bool)),
            (Type::Int(meaning, width), value) => long(number(*meaning, *width, value)?, out),
            (Type::Float, value) => {
                let number = value.as_f64().ok_or_else(|| wanted("a number", value))?;
                out.extend_from_slice(&(number as f32).to_le_bytes());
            }
            (Type::Double, value) => {
                let number = value.as_f64().ok_or_else(|| wanted("a number", value))?;
                out.extend_from_slice(&number.to_le_bytes());
            }
            (Type::Bytes(meaning), value) => block(&octets(*meaning, None, value)?, out),
            (Type::Text, Value::Str(text)) => block(text.as_bytes(), out),
            (Type::Array(items), Value::List(list)) => {
                blocks(list.len(), out);
                list.iter().try_for_each(|item| self.put(items, item, out))?;
                end_of_blocks(list.len(), out);
            }
            (Type::Map(values), Value::Row(row)) => {
                blocks(row.values().len(), out);
                for (name, value) in row.shape().names().iter().zip(row.values()) {
                    block(name.as_bytes(), out);
                    self.put(values, value, out)?;
                }
                end_of_blocks(row.values().len(), out);
            }
            (Type::Union(branches), value) => {
                let index = branches.iter().position(|branch| self.fits(branch, value));
                let index = index.ok_or_else(|| wanted("a value of one of the types of a union", value))?;
                long(index as i64, out);
                self.put(&branches[index], value, out)?;
            }
            (Type::Named(index), value) => self.put_named(self.schema.named(*index), value, out)?,
            (Type::Null, value) => return Err(wanted("nothing", value)),
            (Type::Bool, value) => return Err(wanted("true or false", value)),
            (Type::Text, value) => return Err(wanted("a text", value)),
            (Type::Array(_), value) => return Err(wanted("a list", value)),
            (Type::Map(_), value) => return Err(wanted("a row", value)),
        }
        Ok(())
    }

    fn put_named(&self, named: &Named, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
        match (named, value) {
            (Named::Record(record), Value::Row(row)) => self.put_record(record, row, out),
            (Named::Enum(symbols), value) => {
                let index = symbols.iter().position(|symbol| symbol == value);
                long(index.ok_or_else(|| wanted("a symbol of an enum", value))? as i64, out);
                Ok(())
            }
            (Named::Fixed(size, meaning), value) => {
                out.extend_from_slice(&octets(*meaning, Some(*size), value)?);
                Ok(())
            }
            (Named::Record(_), value) => Err(wanted("a row", value)),
            (Named::Open, _) => Ok(()),
        }
    }

    /// What a row lacks is nothing; what a schema lacks is refused, for it would be lost.
    fn put_record(&self, record: &Record, row: &Row, out: &mut Vec<u8>) -> Result<(), String> {
        let names = record.shape.names();
        if let Some(unknown) = row.shape().names().iter().find(|name| record.shape.index_of(name).is_none()) {
            return Err(format!("the schema has no field {unknown:?}; add it there, or leave it out with a map"));
        }
        for (name, kind) in names.iter().zip(&record.fields) {
            let value = row.get(name).unwrap_or(&Value::Null);
            self.put(kind, value, out).map_err(|why| format!("field {:?}: {why}", name.as_str()))?;
        }
        Ok(())
    }

    fn fits(&self, kind: &Type, value: &Value) -> bool {
        match (kind, value) {
            (Type::Null, value) => matches!(value, Value::Null),
            (Type::Bool, value) => matches!(value, Value::Bool(_)),
            (Type::Int(meaning, width), value) => number(*meaning, *width, value).is_ok(),
            (Type::Float | Type::Double, value) => value.as_f64().is_some(),
            (Type::Bytes(meaning), value) => octets(*meaning, None, value).is_ok(),
            (Type::Text, value) => matches!(value, Value::Str(_)),
            (Type::Array(_), value) => matches!(value, Value::List(_)),
            (Type::Map(_), value) => matches!(value, Value::Row(_)),
            (Type::Union(branches), value) => branches.iter().any(|branch| self.fits(branch, value)),
            (Type::Named(index), value) => match (self.schema.named(*index), value) {
                (Named::Record(record), Value::Row(row)) => {
                    row.shape().names().iter().all(|name| record.shape.index_of(name).is_some())
                }
                (Named::Enum(symbols), value) => symbols.contains(value),
                (Named::Fixed(size, meaning), value) => octets(*meaning, Some(*size), value).is_ok(),
                (Named::Record(_) | Named::Open, _) => false,
            },
        }
    }
}

fn wanted(what: &str, found: &Value) -> String {
    format!("takes {what}, and {found} is a {}", found.kind())
}

/// Zigzag, seven bits a byte, the lowest first.
fn long(number: i64, out: &mut Vec<u8>) {
    let mut rest = (number << 1 ^ number >> 63) as u64;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn block(bytes: &[u8], out: &mut Vec<u8>) {
    long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

fn blocks(count: usize, out: &mut Vec<u8>) {
    long(count as i64, out);
}

/// An empty block ends them, and is there already where there are none.
fn end_of_blocks(count: usize, out: &mut Vec<u8>) {
    if count > 0 {
        out.push(0);
    }
}

fn number(meaning: Number, width: Width, value: &Value) -> Result<i64, String> {
    let number = match (meaning, value) {
        (Number::Plain, Value::Int(number)) => *number,
        (Number::Days, Value::Time(micros)) => micros.div_euclid(86_400_000_000),
        (Number::Millis, Value::Time(micros)) => micros.div_euclid(1000),
        (Number::Micros, Value::Time(micros)) => *micros,
        (Number::Nanos, Value::Time(micros)) => {
            micros.checked_mul(1000).ok_or_else(|| wanted("a time of 64 bits of nanoseconds", value))?
        }
        (Number::Plain, value) => return Err(wanted("a whole number", value)),
        (_, value) => return Err(wanted("a time", value)),
    };
    match width {
        Width::Int if i32::try_from(number).is_err() => Err(wanted("a whole number of 32 bits", value)),
        Width::Int | Width::Long => Ok(number),
    }
}

fn octets(meaning: Octets, size: Option<usize>, value: &Value) -> Result<Vec<u8>, String> {
    let bytes = match (meaning, value) {
        (Octets::Decimal(scale), value) => return decimal::bytes(value, scale, size),
        (Octets::Plain, Value::Str(text)) => {
            STANDARD.decode(text.as_bytes()).map_err(|error| format!("takes base64, and {value} is none: {error}"))?
        }
        (Octets::Uuid, Value::Str(text)) => {
            let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect()
        }
        (Octets::Duration, Value::Row(_)) => {
            let part = |name: &str| match value.get(name) {
                Some(Value::Int(number)) => u32::try_from(*number).map(u32::to_le_bytes).ok(),
                _ => None,
            };
            let parts = part("months").zip(part("days")).zip(part("millis"));
            let ((months, days), millis) = parts.ok_or_else(|| wanted("a row of months, days and millis", value))?;
            [months, days, millis].concat()
        }
        (Octets::Plain | Octets::Uuid, value) => return Err(wanted("a text", value)),
        (Octets::Duration, value) => return Err(wanted("a row of months, days and millis", value)),
    };
    match size {
        Some(size) if size != bytes.len() => Err(wanted(&format!("{size} bytes"), value)),
        _ => Ok(bytes),
    }
}
