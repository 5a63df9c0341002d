//! The schemas of a job's records: from files, and from its schema registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_connectors::log::EmbeddedLog;
use thalweg_connectors::{
    AvroWriter, DecoderOf, Fields, GivenSchema, KeptSchemas, OutFormat, RegistryConfig, SchemaFormat, SchemaRecords,
    SchemaRegistry, Schemas, UnknownSchema, Untyped,
};
use thalweg_core::{Error, Result, Value};
use thalweg_operators::OnError;

use crate::kafka::ValueWriter;
use crate::plan::PlanContext;
use crate::spec::{
    JobSpec, RecordFormat, SchemaRegistrySpec, SchemaSpec, SinkConnector, SinkRecordFormat, SinkSchemaSpec, SinkSpec,
    SourceConnector, SourceSpec, backfill_of,
};

/// What the sources of a job need to read their records.
pub(crate) struct JobSchemas {
    /// By what the source, or its backfill, is called.
    files: BTreeMap<String, Arc<GivenSchema>>,
    /// By the id of the sink.
    writers: BTreeMap<String, Arc<AvroWriter>>,
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
        if let Some(registry) = spec.schema_registry.as_ref().filter(|_| registered || !spec.avro_sinks().is_empty()) {
            schemas.registry = Some(Arc::new(open(registry, spec, context)?));
        }
        for (sink, topic, schema) in spec.avro_sinks() {
            let writer = schemas.open_writer(topic, schema);
            let writer = writer.map_err(|error| error.context(format!("sink {:?}", sink.id)))?;
            schemas.writers.insert(sink.id.clone(), Arc::new(writer));
        }
        Ok(schemas)
    }

    /// Reads the schema of a sink; with a registry it is registered, and its id stands in front of each record.
    fn open_writer(&self, topic: &str, schema: &SinkSchemaSpec) -> Result<AvroWriter> {
        let path = schema.file.display();
        let text = std::fs::read_to_string(&schema.file);
        let text = text.map_err(|error| Error::io(format!("schema {path}"), error))?;
        let mut writer = AvroWriter::new(&text).map_err(|error| error.context(path))?;
        if let Some(registry) = &self.registry {
            let subject = schema.subject.clone().unwrap_or_else(|| format!("{topic}-value"));
            writer = writer.with_id(registry.register(&subject, &text)?);
        }
        Ok(writer)
    }

    /// What writes the values of a sink.
    pub(crate) fn writer(&self, sink: &str, format: &SinkRecordFormat) -> Result<ValueWriter> {
        match format {
            SinkRecordFormat::Plain(format) => Ok(ValueWriter::Plain(*format)),
            SinkRecordFormat::Avro(_) => match self.writers.get(sink) {
                Some(writer) => Ok(ValueWriter::Avro(writer.clone())),
                None => Err(Error::internal("plan", "the schema of a sink is not there")),
            },
        }
    }

    /// A sink's settings as far as they decide what is written: of a schema what is in the file, not where that is.
    pub(crate) fn sink_config(&self, sink: &SinkSpec) -> String {
        let (mut connector, mut suffix) = (sink.connector.clone(), String::new());
        if let (SinkConnector::Kafka(kafka), Some(writer)) = (&mut connector, self.writers.get(&sink.id)) {
            kafka.format = SinkRecordFormat::Plain(OutFormat::Raw);
            suffix = format!(" avro {:016x}", writer.hash());
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
        let schema = match format {
            RecordFormat::Plain(format) => return Ok(Arc::new(Untyped { format: format.clone(), fields })),
            RecordFormat::Schema(schema) => schema,
        };
        let schemas = match &schema.file {
            Some(_) => self.files.get(source).cloned().map(Schemas::Given),
            None => self.registry.clone().map(Schemas::Registered),
        };
        let schemas = schemas.ok_or_else(|| Error::internal("plan", "the schemas of a source are not there"))?;
        Ok(Arc::new(SchemaRecords { format: schema.format, schemas, fields, decimals: schema.decimals }))
    }

    /// What a source's schema adds to the fingerprint of its node: another schema makes other records of the same bytes.
    pub(crate) fn fingerprint(&self, source: &SourceSpec) -> String {
        let given = source.schemas().into_iter().filter_map(|(name, _)| self.files.get(&name));
        given.map(|given| format!(" schema {:016x}", given.hash())).collect()
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
    let config = RegistryConfig { url: registry.url.clone(), user, patience: registry.wait, unknown };
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
        formats
            .into_iter()
            .filter_map(|(name, format)| match format {
                RecordFormat::Schema(schema) => Some((name, schema)),
                RecordFormat::Plain(_) => None,
            })
            .collect()
    }
}

impl JobSpec {
    /// The sinks that write Avro, each with its topic.
    fn avro_sinks(&self) -> Vec<(&SinkSpec, &str, &SinkSchemaSpec)> {
        self.sinks.iter().filter_map(|sink| sink.avro().map(|(topic, schema)| (sink, topic, schema))).collect()
    }
}

impl SinkSpec {
    /// The topic, and the schema by which it is written, where that is Avro.
    fn avro(&self) -> Option<(&str, &SinkSchemaSpec)> {
        match &self.connector {
            SinkConnector::Kafka(kafka) => match &kafka.format {
                SinkRecordFormat::Avro(schema) => Some((&kafka.topic, schema)),
                SinkRecordFormat::Plain(_) => None,
            },
            SinkConnector::File { .. } | SinkConnector::Stdout { .. } | SinkConnector::Blackhole => None,
            SinkConnector::Log { .. } => None,
        }
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
