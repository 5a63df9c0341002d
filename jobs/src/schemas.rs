//! The schemas of a job's records: from files, and from its schema registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_connectors::kafka::{KeyWriter, ValueWriter};
use thalweg_connectors::log::EmbeddedLog;
use thalweg_connectors::{
    Authorities, DecoderOf, Fields, GivenSchema, KeptSchemas, OutFormat, RegistryConfig, SchemaFormat, SchemaRecords,
    SchemaRegistry, SchemaWriter, Schemas, UnknownSchema, Untyped,
};
use thalweg_core::{Error, Result, Value};
use thalweg_operators::OnError;

use crate::plan::PlanContext;
use crate::spec::{
    JobSpec, RecordFormat, SchemaRegistrySpec, SchemaSpec, SinkConnector, SinkRecordFormat, SinkSchemaSpec, SinkSpec,
    SourceConnector, SourceSpec, backfill_of, keys_of,
};

/// Which part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RecordPart {
    Value,
    Key,
}

/// What the sources of a job need to read their records, and its sinks to write theirs.
pub(crate) struct JobSchemas {
    /// By what the source, or its backfill, is called.
    files: BTreeMap<String, Arc<GivenSchema>>,
    /// By the id of the sink, and what they write.
    writers: BTreeMap<(String, RecordPart), SchemaWriter>,
    registry: Option<Arc<SchemaRegistry>>,
}

impl JobSchemas {
    /// Reads the files, and what the registry has answered in earlier runs.
    ///
    /// Errors: those of the files; `schema` where one is no schema; `secret-missing`; those of the log.
    pub(crate) fn open(spec: &JobSpec, context: &PlanContext<'_>) -> Result<Self> {
        let mut schemas = Self { files: BTreeMap::new(), writers: BTreeMap::new(), registry: None };
        for (source, used) in spec.sources.iter().flat_map(SourceSpec::schemas) {
            if let Some(path) = &used.file {
                let given = match used.format {
                    SchemaFormat::Avro => GivenSchema::avro_file(path, used.framing),
                    SchemaFormat::Protobuf => {
                        let message = used.message.as_deref().unwrap_or_default();
                        GivenSchema::protobuf_file(path, message, used.framing)
                    }
                };
                let given = given.map_err(|error| error.context(format!("source {source:?}")))?;
                schemas.files.insert(source, Arc::new(given));
            }
        }
        let registered = spec.sources.iter().flat_map(SourceSpec::schemas).any(|(_, schema)| schema.file.is_none());
        let registers = spec.sinks.iter().any(|sink| !sink.schemas().is_empty());
        if let Some(registry) = spec.schema_registry.as_ref().filter(|_| registered || registers) {
            schemas.registry = Some(Arc::new(open(registry, spec, context)?));
        }
        for sink in &spec.sinks {
            for (part, topic, schema) in sink.schemas() {
                let writer = schemas.open_writer(part, topic, schema);
                let writer = writer.map_err(|error| error.context(format!("sink {:?}", sink.id)))?;
                schemas.writers.insert((sink.id.clone(), part), writer);
            }
        }
        Ok(schemas)
    }

    /// Reads a schema of a sink; with a registry it is registered, and its id stands in front of each record.
    fn open_writer(&self, part: RecordPart, topic: &str, schema: &SinkSchemaSpec) -> Result<SchemaWriter> {
        let suffix = match part {
            RecordPart::Value => "value",
            RecordPart::Key => "key",
        };
        let subject = schema.subject.clone().unwrap_or_else(|| format!("{topic}-{suffix}"));
        let registered = self.registry.as_deref().map(|registry| (registry, subject.as_str()));
        SchemaWriter::of_file(schema.format, &schema.file, &schema.message, registered)
    }

    fn writer(&self, sink: &str, part: RecordPart) -> Result<SchemaWriter> {
        let writer = self.writers.get(&(sink.to_owned(), part)).cloned();
        writer.ok_or_else(|| Error::internal("plan", "the schema of a sink is not there"))
    }

    /// What writes the values of a sink.
    pub(crate) fn value_writer(&self, sink: &SinkSpec, format: &SinkRecordFormat) -> Result<ValueWriter> {
        match format {
            SinkRecordFormat::Plain(format) => Ok(ValueWriter::Plain(*format)),
            SinkRecordFormat::Schema(_) => self.writer(&sink.id, RecordPart::Value).map(ValueWriter::Schema),
        }
    }

    /// What writes the keys of a sink.
    pub(crate) fn key_writer(&self, sink: &SinkSpec) -> Result<KeyWriter> {
        match &sink.keys {
            None => Ok(KeyWriter::Text),
            Some(_) => self.writer(&sink.id, RecordPart::Key).map(KeyWriter::Schema),
        }
    }

    /// A sink's settings as far as they decide what is written: of a schema what is in the file, not where that is.
    pub(crate) fn sink_config(&self, sink: &SinkSpec) -> String {
        let (mut connector, mut suffix) = (sink.connector.clone(), String::new());
        let hash = |part| self.writers.get(&(sink.id.clone(), part)).map(|writer: &SchemaWriter| (part, writer.hash()));
        if let (SinkConnector::Kafka(kafka), Some((_, hash))) = (&mut connector, hash(RecordPart::Value)) {
            let format = match &kafka.format {
                SinkRecordFormat::Schema(SinkSchemaSpec { format: SchemaFormat::Protobuf, .. }) => "protobuf",
                _ => "avro",
            };
            kafka.format = SinkRecordFormat::Plain(OutFormat::Raw);
            suffix = format!(" {format} {hash:016x}");
        }
        if let Some((_, hash)) = hash(RecordPart::Key) {
            suffix.push_str(&format!(" keys {hash:016x}"));
        }
        format!("{connector:?}{suffix}")
    }

    /// The decoders of a source's values.
    pub(crate) fn decoders(
        &self,
        source: &str,
        format: &RecordFormat,
        fields: Fields,
    ) -> Result<Arc<dyn DecoderOf<Value>>> {
        match format {
            RecordFormat::Plain(format) => Ok(Arc::new(Untyped { format: format.clone(), fields })),
            RecordFormat::Schema(schema) => Ok(Arc::new(self.records(source, schema, fields)?)),
        }
    }

    /// How what is called `name` is read by its schema.
    pub(crate) fn records(&self, name: &str, schema: &SchemaSpec, fields: Fields) -> Result<SchemaRecords> {
        let schemas = match &schema.file {
            Some(_) => self.files.get(name).cloned().map(Schemas::Given),
            None => self.registry.clone().map(Schemas::Registered),
        };
        let schemas = schemas.ok_or_else(|| Error::internal("plan", "the schemas of a source are not there"))?;
        Ok(SchemaRecords { format: schema.format, schemas, fields, decimals: schema.decimals })
    }

    /// What a source's schema adds to the fingerprint of its node: another schema makes other records of the same bytes.
    pub(crate) fn fingerprint(&self, source: &SourceSpec) -> String {
        let given = source.schemas().into_iter().filter_map(|(name, _)| self.files.get(&name));
        let given: String = given.map(|given| format!(" schema {:016x}", given.hash())).collect();
        let keys = source.keys.as_ref().map(|keys| format!(" keys {:?} {:?}", keys.format, keys.message));
        given + &keys.unwrap_or_default()
    }
}

fn open(registry: &SchemaRegistrySpec, spec: &JobSpec, context: &PlanContext<'_>) -> Result<SchemaRegistry> {
    let user = match &registry.user {
        Some((user, password)) => Some((user.clone(), password.read("[schema_registry]")?)),
        None => None,
    };
    let unknown = match spec.on_error {
        OnError::Fail => UnknownSchema::Fails,
        OnError::Drop | OnError::DeadLetter => UnknownSchema::IsBad,
    };
    let ca = registry.ca.as_deref().map(Authorities::of_file).transpose();
    let ca = ca.map_err(|error| error.context("[schema_registry] ca"))?;
    let config = RegistryConfig { url: registry.url.clone(), ca, user, patience: registry.wait, unknown };
    let mut schemas = SchemaRegistry::new(config);
    if let Some((job, dir)) = &context.recorded {
        schemas = schemas.as_recorded(&EmbeddedLog::open_read_only(dir)?, *job)?;
    }
    schemas.kept_in(KeptSchemas::new(context.log.clone(), context.job_id))
}

impl SourceSpec {
    /// What its records need to be read, and those of its backfill, where that is a schema; each with what it is called.
    pub(crate) fn schemas(&self) -> Vec<(String, &SchemaSpec)> {
        let formats: Vec<(String, &RecordFormat)> = match &self.connector {
            SourceConnector::Kafka(kafka) => {
                let first = kafka.backfill.as_ref().map(|first| (backfill_of(&self.id), &first.format));
                first.into_iter().chain([(self.id.clone(), &kafka.format)]).collect()
            }
            SourceConnector::Log { format, .. } => vec![(self.id.clone(), format)],
            SourceConnector::File { .. } | SourceConnector::Generator(_) | SourceConnector::Stdin { .. } => Vec::new(),
        };
        let values = formats.into_iter().filter_map(|(name, format)| match format {
            RecordFormat::Schema(schema) => Some((name, schema)),
            RecordFormat::Plain(_) => None,
        });
        values.chain(self.keys.as_ref().map(|keys| (keys_of(&self.id), keys))).collect()
    }
}

impl SinkSpec {
    /// The schemas by which it is written, each with its topic.
    fn schemas(&self) -> Vec<(RecordPart, &str, &SinkSchemaSpec)> {
        let SinkConnector::Kafka(kafka) = &self.connector else { return Vec::new() };
        let value = match &kafka.format {
            SinkRecordFormat::Schema(schema) => Some((RecordPart::Value, kafka.topic.as_str(), schema)),
            SinkRecordFormat::Plain(_) => None,
        };
        let key = self.keys.as_ref().map(|schema| (RecordPart::Key, kafka.topic.as_str(), schema));
        value.into_iter().chain(key).collect()
    }
}

impl RecordFormat {
    /// Without the path of the schema.
    pub(crate) fn forget_file(&mut self) {
        if let Self::Schema(schema) = self {
            schema.file = None;
        }
    }
}
