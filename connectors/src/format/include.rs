//! What stands beside the value of a record, as fields of it: key, time, headers and where it was.

use std::sync::Arc;

use thalweg_core::{Result, Row, Shape, Value};

use super::schemas::{SchemaKeys, SchemaRecords};
use super::text::not_text;
use super::{Decoder, DecoderOf};
use crate::{BadRecord, RawBatch, RawRecord, Waker};

/// What a field can be taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key; null where there is none.
    Key,
    /// When the record was made or appended, as the topic has it.
    Timestamp,
    /// The headers: name to text; of a name that comes twice the last one.
    Headers,
    /// The topic.
    Topic,
    /// The number of the partition in the topic.
    Partition,
    /// The offset.
    Offset,
    /// Whether the record is a tombstone. Where it is not included, tombstones are no records.
    Tombstone,
}

impl Part {
    /// All of them, with the names that they have in a job file.
    pub const NAMED: [(&'static str, Self); 7] = [
        ("key", Self::Key),
        ("timestamp", Self::Timestamp),
        ("headers", Self::Headers),
        ("topic", Self::Topic),
        ("partition", Self::Partition),
        ("offset", Self::Offset),
        ("tombstone", Self::Tombstone),
    ];
}

/// How a key is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    /// As text.
    #[default]
    Text,
    /// As JSON.
    Json,
    /// As hexadecimal digits, two for each byte: whatever it is.
    Raw,
}

/// Which parts become which fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// The fields by name.
    pub fields: Vec<(String, Part)>,
    /// How a key is read.
    pub key_format: KeyFormat,
}

/// Adds fields to what other decoders give. A field of the value that has the same name gives way.
pub struct Included {
    inner: Arc<dyn DecoderOf<Value>>,
    include: Include,
    keys: Option<SchemaRecords>,
}

impl Included {
    /// Adds them.
    pub fn new(inner: Arc<dyn DecoderOf<Value>>, include: Include) -> Self {
        Self { inner, include, keys: None }
    }

    /// With keys that are read by schemas, whatever the format of keys says.
    #[must_use]
    pub fn with_keys(mut self, keys: SchemaRecords) -> Self {
        self.keys = Some(keys);
        self
    }
}

impl DecoderOf<Value> for Included {
    fn decoder(&self, header: Option<&[u8]>) -> Result<Box<dyn Decoder<Value>>> {
        let inner = self.inner.decoder(header)?;
        let keys = self.keys.as_ref().map(SchemaRecords::keys).transpose()?;
        Ok(Box::new(WithParts { inner, include: self.include.clone(), keys, shapes: None, values: Vec::new() }))
    }

    fn takes_tombstones(&self) -> bool {
        self.include.fields.iter().any(|(_, part)| *part == Part::Tombstone)
    }
}

struct WithParts {
    inner: Box<dyn Decoder<Value>>,
    include: Include,
    keys: Option<SchemaKeys>,
    /// The last shape of a value, and what becomes of it.
    shapes: Option<(Arc<Shape>, Arc<Shape>)>,
    values: Vec<Value>,
}

impl Decoder<Value> for WithParts {
    fn record(
        &mut self,
        batch: &RawBatch,
        record: &RawRecord,
        out: &mut Vec<Value>,
        bad: &mut Vec<BadRecord>,
    ) -> Result<()> {
        let mut values = std::mem::take(&mut self.values);
        if record.tombstone {
            values.push(Value::Row(Row::new(self.shape_of_tombstones(), Vec::new())));
        } else {
            self.inner.record(batch, record, &mut values, bad)?;
        }
        for value in values.drain(..) {
            match self.with_parts(value, batch, record) {
                Ok(row) => out.push(row),
                Err(why) => bad.push(batch.bad(record, why)),
            }
        }
        self.values = values;
        Ok(())
    }

    fn prepare(&mut self, batch: &RawBatch, waker: &Waker) -> Result<bool> {
        let keys = self.keys.as_mut().map_or(Ok(true), |keys| keys.prepare(batch, waker))?;
        // Both are asked for at once.
        Ok(self.inner.prepare(batch, waker)? && keys)
    }
}

impl WithParts {
    fn shape_of_tombstones(&self) -> Arc<Shape> {
        match &self.shapes {
            Some((from, _)) if from.names().is_empty() => from.clone(),
            _ => Shape::new(std::iter::empty::<&str>()),
        }
    }

    fn with_parts(&mut self, value: Value, batch: &RawBatch, record: &RawRecord) -> Result<Value, String> {
        let Value::Row(row) = value else {
            return Err(format!("the value is a {}, not an object, so no field can be added", value.kind()));
        };
        let shape = self.shape(row.shape());
        let kept = row.shape().names().iter().zip(row.values());
        let mut values: Vec<Value> = Vec::with_capacity(shape.names().len());
        values.extend(kept.filter(|(name, _)| !self.adds(name)).map(|(_, value)| value.clone()));
        for index in 0..self.include.fields.len() {
            values.push(self.part(self.include.fields[index].1, batch, record)?);
        }
        Ok(Value::Row(Row::new(shape, values)))
    }

    fn adds(&self, name: &str) -> bool {
        self.include.fields.iter().any(|(own, _)| own == name)
    }

    fn shape(&mut self, from: &Arc<Shape>) -> Arc<Shape> {
        if let Some((last, shape)) = &self.shapes
            && Arc::ptr_eq(last, from)
        {
            return shape.clone();
        }
        let kept = from.names().iter().map(|name| name.as_str()).filter(|name| !self.adds(name));
        let added = self.include.fields.iter().map(|(name, _)| name.as_str());
        let shape = Shape::new(kept.chain(added));
        self.shapes = Some((from.clone(), shape.clone()));
        shape
    }

    fn part(&mut self, part: Part, batch: &RawBatch, record: &RawRecord) -> Result<Value, String> {
        let place = batch.place.as_deref();
        Ok(match part {
            Part::Key => match batch.key(record) {
                Some(key) => self.key(key)?,
                None => Value::Null,
            },
            Part::Timestamp => record.time.map_or(Value::Null, Value::Time),
            Part::Headers => headers(batch, record),
            Part::Topic => place.map_or(Value::Null, |place| Value::from(place.topic.as_str())),
            Part::Partition => place.map_or(Value::Null, |place| Value::Int(i64::from(place.partition))),
            Part::Offset => Value::Int(i64::try_from(record.next).unwrap_or(i64::MAX) - 1),
            Part::Tombstone => Value::Bool(record.tombstone),
        })
    }

    fn key(&mut self, key: &[u8]) -> Result<Value, String> {
        if let Some(keys) = &mut self.keys {
            return keys.read(key).map_err(|why| format!("the key: {why}"));
        }
        match self.include.key_format {
            KeyFormat::Text => match std::str::from_utf8(key) {
                Ok(text) => Ok(Value::from(text)),
                Err(error) => Err(format!("the key is {}; or set key_format = \"raw\"", not_text(error))),
            },
            KeyFormat::Json => {
                serde_json::from_slice(key).map_err(|error| format!("the key is no valid JSON: {error}"))
            }
            KeyFormat::Raw => Ok(Value::from(hex(key).as_str())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn headers(batch: &RawBatch, record: &RawRecord) -> Value {
    let (mut names, mut values): (Vec<&str>, Vec<Value>) = (Vec::new(), Vec::new());
    for (name, value) in batch.headers(record) {
        let value = Value::from(String::from_utf8_lossy(value).as_ref());
        match names.iter().position(|known| *known == name) {
            Some(place) => values[place] = value,
            None => {
                names.push(name);
                values.push(value);
            }
        }
    }
    Value::Row(Row::new(Shape::new(names), values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Untyped;
    use crate::{Fields, Format, RawHeader, TopicPartition};

    fn check(key: Option<&[u8]>, value: Option<&str>, key_format: KeyFormat, wanted: &str) {
        let mut batch = RawBatch {
            place: Some(Arc::new(TopicPartition { topic: "orders".to_owned(), partition: 3 })),
            ..RawBatch::default()
        };
        let mut put = |bytes: &[u8]| {
            let start = batch.data.len();
            batch.data.extend_from_slice(bytes);
            start..batch.data.len()
        };
        let tombstone = value.is_none();
        let (value, key) = (put(value.unwrap_or_default().as_bytes()), key.map(&mut put));
        let named = [("trace", "x"), ("from", "é"), ("trace", "y")];
        let headers = named.map(|(name, value)| RawHeader { name: put(name.as_bytes()), value: put(value.as_bytes()) });
        batch.headers.extend(headers);
        batch.records.push(RawRecord { value, tombstone, key, headers: 0..3, time: Some(1_500_000), next: 8 });
        let fields = Part::NAMED.map(|(name, part)| (format!("_{name}"), part)).to_vec();
        let inner = Arc::new(Untyped { format: Format::Json, fields: Fields::All });
        let mut decoder = Included::new(inner, Include { fields, key_format }).decoder(None).expect("a decoder");
        let (mut out, mut bad) = (Vec::new(), Vec::new());
        decoder.decode(&batch, &mut out, &mut bad).expect("decodes");
        let shown = out.first().map(ToString::to_string).or_else(|| bad.first().map(|bad| bad.why.clone()));
        let shown = shown.unwrap_or_default();
        let beside = r#""_timestamp":"1970-01-01T00:00:01.5Z","_headers":{"trace":"y","from":"é"},"_topic":"orders","_partition":3,"_offset":7"#;
        assert_eq!(shown.replace(beside, "BESIDE"), wanted);
    }

    #[test]
    fn what_stands_beside_a_value_becomes_its_fields() {
        check(
            Some(b"a"),
            Some(r#"{"n":1,"_key":2}"#),
            KeyFormat::Text,
            r#"{"n":1,"_key":"a",BESIDE,"_tombstone":false}"#,
        );
        check(None, Some("{}"), KeyFormat::Text, r#"{"_key":null,BESIDE,"_tombstone":false}"#);
        check(Some(b"a"), None, KeyFormat::Text, r#"{"_key":"a",BESIDE,"_tombstone":true}"#);
        check(Some(br#"{"id":1}"#), Some("{}"), KeyFormat::Json, r#"{"_key":{"id":1},BESIDE,"_tombstone":false}"#);
        check(Some(b"\x00\xff"), Some("{}"), KeyFormat::Raw, r#"{"_key":"00ff",BESIDE,"_tombstone":false}"#);
        check(Some(b"a"), Some("[1]"), KeyFormat::Text, "the value is a list, not an object, so no field can be added");
        check(
            Some(b"{"),
            Some("{}"),
            KeyFormat::Json,
            "the key is no valid JSON: EOF while parsing an object at line 1 column 1",
        );
        check(
            Some(b"\xff"),
            Some("{}"),
            KeyFormat::Text,
            "the key is not UTF-8 at byte 0; convert the input, for example with iconv; or set key_format = \"raw\"",
        );
        check(Some(b"a"), Some(" "), KeyFormat::Text, "");
    }
}
