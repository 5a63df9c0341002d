//! Formats whose records need a schema: one that is given for all of them, or one by the id in front of each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use thalweg_core::{Error, Result, Value};

use super::avro::{AvroRecords, AvroSchema, Decimals};
use super::protobuf::{MessageTypes, ProtobufRecords, Which};
use super::{Decoder, DecoderOf, Fields, OfValues, ValueDecoder};
use crate::registry::{Known, SchemaDocument, SchemaRegistry};
use crate::{BadRecord, RawBatch, RawRecord, Waker};

/// A format whose records need a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaFormat {
    /// Avro's binary encoding.
    Avro,
    /// Messages of Protobuf.
    Protobuf,
}

/// What stands in front of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Nothing.
    #[default]
    None,
    /// What the serializers of Confluent write: a zero, the id of the schema as four bytes, the highest first, and in Protobuf the
    /// indexes of the message type in it.
    Confluent,
}

/// How the records of a source are to be read that need a schema.
#[derive(Clone)]
pub struct SchemaRecords {
    /// The format.
    pub format: SchemaFormat,
    /// Where their schemas come from.
    pub schemas: Schemas,
    /// The fields to decode.
    pub fields: Fields,
    /// How decimals are given.
    pub decimals: Decimals,
}

/// Where schemas come from.
#[derive(Clone)]
pub enum Schemas {
    /// All records have this one.
    Given(Arc<GivenSchema>),
    /// The id in front of a record says which it is.
    Registered(Arc<SchemaRegistry>),
}

/// The schema of all records of a source.
#[derive(Debug)]
pub struct GivenSchema {
    parsed: ParsedSchema,
    framing: Framing,
    hash: u64,
}

/// A schema, resolved.
#[derive(Clone, Debug)]
pub(crate) enum ParsedSchema {
    Avro(Arc<AvroSchema>),
    /// With the type of all messages, where it is given.
    Protobuf(Arc<MessageTypes>, Option<usize>),
}

/// Reads the records of one schema.
pub(super) trait RecordsOfSchema: Send {
    /// The value of one record.
    ///
    /// Errors: why it is none.
    fn read(&mut self, bytes: &[u8]) -> Result<Value, String>;
}

impl SchemaFormat {
    /// The format of a name in a job file, where it is one that needs schemas.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "avro" => Some(Self::Avro),
            "protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

impl GivenSchema {
    /// Reads a schema of Avro, as in a file `.avsc`.
    ///
    /// Errors: `schema` says what is wrong with it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use thalweg_connectors::*;
    ///
    /// let schema = r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"who","type":"string"}]}"#;
    /// let schemas = Schemas::Given(Arc::new(GivenSchema::avro(schema, Framing::None)?));
    /// let records = SchemaRecords { format: SchemaFormat::Avro, schemas, fields: Fields::All, decimals: Decimals::Number };
    /// let batch = RawBatch {
    ///     data: b"\x06\x06ada".to_vec(),
    ///     records: vec![RawRecord { value: 0..5, next: 1, ..RawRecord::default() }],
    ///     ..RawBatch::default()
    /// };
    /// let (mut out, mut bad) = (Vec::new(), Vec::new());
    /// records.decoder(None)?.decode(&batch, &mut out, &mut bad)?;
    /// assert_eq!(out[0].to_string(), r#"{"id":3,"who":"ada"}"#);
    /// # Ok::<(), thalweg_core::Error>(())
    /// ```
    pub fn avro(text: &str, framing: Framing) -> Result<Self> {
        let parsed =
            AvroSchema::parse(text, &[]).map_err(|why| Error::user("schema", format!("no Avro schema: {why}")))?;
        let hash = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        Ok(Self { parsed: ParsedSchema::Avro(Arc::new(parsed)), framing, hash })
    }

    /// Of the text: another one may read the same bytes as another record.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Reads a file `.avsc`.
    ///
    /// Errors: `not-found` and the like; `schema` says what is wrong with it.
    pub fn avro_file(path: &Path, framing: Framing) -> Result<Self> {
        let text = String::from_utf8_lossy(&bytes_of(path)?).into_owned();
        Self::avro(&text, framing).map_err(|error| error.context(path.display()))
    }

    /// Reads a file `.proto`, with what it imports beside it, or else a set of descriptors that `protoc --include_imports
    /// --descriptor_set_out` has compiled; all messages have the type of this full name.
    ///
    /// Errors: `not-found` and the like; `schema` says what is wrong with it; `unknown-message` where it has no such type.
    pub fn protobuf_file(path: &Path, message: &str, framing: Framing) -> Result<Self> {
        let named = |error: Error| error.context(path.display());
        if path.extension().is_some_and(|extension| extension == "proto") {
            bytes_of(path)?;
            return Self::of_types(MessageTypes::of_file(path), message, framing).map_err(named);
        }
        Self::protobuf(&bytes_of(path)?, message, framing).map_err(named)
    }

    /// As [`GivenSchema::protobuf_file`], of the bytes of a compiled set.
    pub fn protobuf(descriptors: &[u8], message: &str, framing: Framing) -> Result<Self> {
        Self::of_types(MessageTypes::of_set(descriptors), message, framing)
    }

    fn of_types(types: Result<MessageTypes, String>, message: &str, framing: Framing) -> Result<Self> {
        let types = types.map_err(|why| Error::user("schema", format!("no Protobuf schema: {why}")))?;
        let Some(index) = types.named(message) else {
            let text = format!("there is no message type {message:?}; {}", types.proposal(message));
            return Err(Error::user("unknown-message", text));
        };
        let hash = types.hash();
        Ok(Self { parsed: ParsedSchema::Protobuf(Arc::new(types), Some(index)), framing, hash })
    }
}

fn bytes_of(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(format!("schema {}", path.display()), error))
}

impl ParsedSchema {
    /// Reads what a registry has.
    ///
    /// Errors: what is wrong with it.
    pub(crate) fn of_registry(document: &SchemaDocument) -> Result<Self, String> {
        match document.kind.as_str() {
            "AVRO" => {
                let references: Vec<&str> = document.references.iter().map(|(_, text)| text.as_str()).collect();
                AvroSchema::parse(&document.schema, &references).map(|schema| Self::Avro(Arc::new(schema)))
            }
            "PROTOBUF" => {
                let types = MessageTypes::of_texts(&document.schema, &document.references);
                types.map(|types| Self::Protobuf(Arc::new(types), None))
            }
            other => Err(format!("its type is {other}, and only AVRO and PROTOBUF are read")),
        }
    }

    fn records(&self, of: &SchemaRecords, framing: Framing) -> Result<Box<dyn RecordsOfSchema>, String> {
        match (self, of.format) {
            (Self::Avro(schema), SchemaFormat::Avro) => {
                Ok(Box::new(AvroRecords::new(schema.clone(), &of.fields, of.decimals)))
            }
            (Self::Protobuf(types, one), SchemaFormat::Protobuf) => {
                let framed = framing == Framing::Confluent;
                let which = one.map_or(Which::Indexed, |index| Which::One { index, framed });
                Ok(Box::new(ProtobufRecords::new(types.clone(), which, &of.fields)))
            }
            (Self::Avro(_), SchemaFormat::Protobuf) => Err("it is of Avro; set format = \"avro\"".to_owned()),
            (Self::Protobuf(..), SchemaFormat::Avro) => Err("it is of Protobuf; set format = \"protobuf\"".to_owned()),
        }
    }
}

impl DecoderOf<Value> for SchemaRecords {
    fn decoder(&self, _header: Option<&[u8]>) -> Result<Box<dyn Decoder<Value>>> {
        Ok(match &self.schemas {
            Schemas::Given(given) => Box::new(OfValues(self.given(given)?)),
            Schemas::Registered(registry) => {
                Box::new(OfRegistry { of: self.clone(), registry: registry.clone(), known: BTreeMap::new() })
            }
        })
    }
}

impl SchemaRecords {
    fn given(&self, given: &GivenSchema) -> Result<OfGiven> {
        let records = given.parsed.records(self, given.framing).map_err(|why| Error::user("schema", why))?;
        Ok(OfGiven { records, framing: given.framing })
    }

    /// Reads the keys of records.
    ///
    /// Errors: `schema` where the schema is of another format.
    pub(super) fn keys(&self) -> Result<SchemaKeys> {
        Ok(match &self.schemas {
            Schemas::Given(given) => SchemaKeys::Given(self.given(given)?),
            Schemas::Registered(registry) => SchemaKeys::Registered(OfRegistry {
                of: self.clone(),
                registry: registry.clone(),
                known: BTreeMap::new(),
            }),
        })
    }
}

/// Reads keys by schemas.
pub(super) enum SchemaKeys {
    Given(OfGiven),
    Registered(OfRegistry),
}

impl SchemaKeys {
    /// The value of a key.
    ///
    /// Errors: why it is none.
    pub(super) fn read(&mut self, key: &[u8]) -> Result<Value, String> {
        match self {
            Self::Given(given) => Ok(given.value(key)?.unwrap_or_default()),
            Self::Registered(registered) => registered.read(key),
        }
    }

    /// Whether the schemas of all keys of a batch are there; the waker is called when one has come.
    pub(super) fn prepare(&mut self, batch: &RawBatch, waker: &Waker) -> Result<bool> {
        let Self::Registered(registered) = self else { return Ok(true) };
        let keys = batch.records.iter().filter_map(|record| Some((record.next, batch.key(record)?)));
        registered.prepare_all(keys, waker)
    }
}

pub(super) struct OfGiven {
    records: Box<dyn RecordsOfSchema>,
    framing: Framing,
}

impl ValueDecoder<Value> for OfGiven {
    fn value(&mut self, bytes: &[u8]) -> Result<Option<Value>, String> {
        let bytes = match self.framing {
            Framing::None => bytes,
            Framing::Confluent => framed(bytes)?.1,
        };
        self.records.read(bytes).map(Some)
    }
}

pub(super) struct OfRegistry {
    of: SchemaRecords,
    registry: Arc<SchemaRegistry>,
    /// What was met so far, or why records of it cannot be read.
    known: BTreeMap<u32, Result<Box<dyn RecordsOfSchema>, String>>,
}

impl Decoder<Value> for OfRegistry {
    fn record(
        &mut self,
        batch: &RawBatch,
        record: &RawRecord,
        out: &mut Vec<Value>,
        bad: &mut Vec<BadRecord>,
    ) -> Result<()> {
        match self.read(batch.value(record)) {
            Ok(value) => out.push(value),
            Err(why) => bad.push(batch.bad(record, why)),
        }
        Ok(())
    }

    fn prepare(&mut self, batch: &RawBatch, waker: &Waker) -> Result<bool> {
        let records = batch.records.iter().filter(|record| !record.tombstone);
        self.prepare_all(records.map(|record| (record.next, batch.value(record))), waker)
    }
}

impl OfRegistry {
    /// The value of one record; [`prepare_all`](Self::prepare_all) has found its schema before.
    fn read(&mut self, bytes: &[u8]) -> Result<Value, String> {
        let (id, rest) = framed(bytes)?;
        match self.known.get_mut(&id).expect("a record is prepared before it is read") {
            Ok(records) => records.read(rest),
            Err(why) => Err(why.clone()),
        }
    }

    /// Asks for the schemas of records, each with the offset behind it; whether all are there.
    fn prepare_all<'a>(&mut self, records: impl Iterator<Item = (u64, &'a [u8])>, waker: &Waker) -> Result<bool> {
        let mut ready = true;
        for (next, bytes) in records {
            let Ok((id, _)) = framed(bytes) else { continue };
            if self.known.contains_key(&id) {
                continue;
            }
            let found = self.registry.find(id, waker);
            match found.map_err(|error| error.context(format!("record at {}", next.saturating_sub(1))))? {
                Known::Waiting => ready = false,
                Known::Schema(schema) => {
                    let records = schema.as_ref().as_ref().map_err(String::clone);
                    let named = |why| format!("schema {id}: {why}");
                    let records =
                        records.and_then(|schema| schema.records(&self.of, Framing::Confluent).map_err(named));
                    drop(self.known.insert(id, records));
                }
            }
        }
        Ok(ready)
    }
}

/// The id of the schema, and what is behind it.
fn framed(bytes: &[u8]) -> Result<(u32, &[u8]), String> {
    match bytes {
        [0, a, b, c, d, rest @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        [] => Err("it is empty, and should begin with the id of its schema".to_owned()),
        [0, ..] => Err("it ends within the id of its schema".to_owned()),
        [other, ..] => Err(format!(
            "it begins with the byte {other}, and should with 0 and the id of its schema, as the serializers of a schema registry write it"
        )),
    }
}
