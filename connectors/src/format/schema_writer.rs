//! Writes values by a schema, for the values and the keys of a sink.

use std::path::Path;
use std::sync::Arc;

use thalweg_core::{Error, Result, Value};

use super::SchemaFormat;
use super::avro::AvroWriter;
use super::protobuf::ProtobufWriter;
use crate::registry::{SchemaRegistry, SchemaText};

/// Writes values by one schema.
#[derive(Clone, Debug)]
pub enum SchemaWriter {
    /// In Avro.
    Avro(Arc<AvroWriter>),
    /// In Protobuf.
    Protobuf(Arc<ProtobufWriter>),
}

impl SchemaWriter {
    /// By the schema of a file, in Protobuf by the message type of this full name. With a registry and a subject there the schema
    /// is registered, and its id stands in front of each record.
    ///
    /// Errors: `not-found` and the like; `schema` says what is wrong with it; `unknown-message`; those of
    /// [`SchemaRegistry::register`].
    pub fn of_file(
        format: SchemaFormat,
        path: &Path,
        message: &str,
        registered: Option<(&SchemaRegistry, &str)>,
    ) -> Result<Self> {
        match format {
            SchemaFormat::Avro => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| Error::io(format!("schema {}", path.display()), error))?;
                let mut writer = AvroWriter::new(&text).map_err(|error| error.context(path.display()))?;
                if let Some((registry, subject)) = registered {
                    writer = writer.with_id(registry.register(subject, &SchemaText::avro(&text))?);
                }
                Ok(Self::Avro(Arc::new(writer)))
            }
            SchemaFormat::Protobuf => {
                let mut writer = ProtobufWriter::of_file(path, message)?;
                if let Some((registry, subject)) = registered {
                    let text = SchemaText::protobuf(writer.texts().map_err(|error| error.context(path.display()))?);
                    writer = writer.with_id(registry.register(subject, &text)?);
                }
                Ok(Self::Protobuf(Arc::new(writer)))
            }
        }
    }

    /// Appends a record.
    ///
    /// Errors: `encode` where the value does not fit the schema.
    pub fn encode_value(&self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Avro(writer) => writer.encode_value(value, out),
            Self::Protobuf(writer) => writer.encode_value(value, out),
        }
    }

    /// Whether it writes rows, and not bare values.
    pub fn takes_rows(&self) -> bool {
        match self {
            Self::Avro(writer) => writer.takes_rows(),
            Self::Protobuf(writer) => writer.takes_rows(),
        }
    }

    /// Of the schema and what stands in front: others write other bytes.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Avro(writer) => writer.hash(),
            Self::Protobuf(writer) => writer.hash(),
        }
    }
}
