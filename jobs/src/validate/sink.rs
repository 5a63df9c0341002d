//! `[sinks.ID]`.

use thalweg_connectors::log::Partitioner;
use thalweg_connectors::{OutFormat, SchemaFormat};

use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::document::Entry;
use crate::keys::{self, Key};
use crate::spec::{KafkaSinkSpec, SinkConnector, SinkSchemaSpec, SinkSpec};
use crate::validate::Checker;
use crate::validate::section::Section;
use crate::validate::source::schema_of_keys;

impl<'d> Checker<'d> {
    pub(super) fn sink(&mut self, entry: &'d Entry) -> Option<SinkSpec> {
        let what = format!("sink {:?}", entry.name);
        let table = self.member(&what, entry)?;
        let Some(connector) = self.connector(&what, table, keys::SINK_CONNECTORS) else {
            self.section_with(&what, &entry.name_at, table, &[keys::SINK], |_, _, _| {});
            return None;
        };
        let mut of: Vec<&'static [Key]> = vec![keys::SINK, connector.keys];
        of.push(keys::sink_format(connector.name));
        let format = table.get("format").and_then(|entry| entry.item.text());
        if format.and_then(SchemaFormat::named).is_some() {
            of.push(keys::sink_schema(connector.name));
        }
        if schema_of_keys(table).is_some() {
            of.push(keys::sink_key_schema(connector.name));
        }
        let section = self.section(&what, &entry.name_at, table, &of);
        let connector = match connector.name {
            "kafka" => self.kafka_sink(&what, &section)?,
            name => self.sink_connector(name, &section)?,
        };
        let keys = self.sink_keys(&what, &section)?;
        Some(SinkSpec { id: entry.name.clone(), connector, keys, inputs: section.get("inputs", convert::texts)? })
    }

    /// The schema of a sink's keys, where they have one; nothing at all where that has a problem.
    fn sink_keys(&mut self, what: &str, section: &Section<'d>) -> Option<Option<SinkSchemaSpec>> {
        let keys = self.sink_schema(what, section, "key_").ok()?;
        let keyed = section.get("keyed", convert::bool) != Some(false);
        if let Some(item) = section.item("key_format").filter(|_| keys.is_some() && !keyed) {
            let text = format!("{what}: key_format says how a key is written, and its records have none");
            self.report(Diagnostic::error("key-format", text).at(&item.at, "").help("remove it, or keyed = false"));
        }
        Some(keys)
    }

    fn sink_connector(&self, connector: &str, section: &Section<'d>) -> Option<SinkConnector> {
        let path = || section.get("path", convert::text).map(|path| self.document.source.base.join(path));
        match connector {
            "file" => Some(SinkConnector::File {
                path: path()?,
                single: section.or_default("single", convert::bool)?,
                format: format(section)?,
            }),
            "stdout" => Some(SinkConnector::Stdout { format: format(section)? }),
            "blackhole" => Some(SinkConnector::Blackhole),
            "log" => Some(SinkConnector::Log {
                path: path(),
                topic: section.get("topic", convert::text)?,
                partitions: section
                    .get("partitions", |item| convert::int(item, 1, u64::from(u32::MAX)))
                    .map(|count| count as u32),
                format: format(section)?,
            }),
            _ => None,
        }
    }

    fn kafka_sink(&mut self, what: &str, section: &Section<'d>) -> Option<SinkConnector> {
        let format = self.sink_record_format(what, section);
        Some(SinkConnector::Kafka(KafkaSinkSpec {
            topic: section.get("topic", convert::text)?,
            partitions: section
                .get("partitions", |item| convert::int(item, 1, u64::from(u32::MAX)))
                .map(|count| count as u32),
            key: section.get("key", convert::texts),
            keyed: section.or_default("keyed", convert::bool)?,
            partitioner: match section.or_default("partitioner", convert::text)?.as_str() {
                "job-partition" => Partitioner::JobPartition,
                _ => Partitioner::Key,
            },
            partition: section.get("partition", convert::text),
            headers: section.get("headers", convert::texts).unwrap_or_default(),
            tombstone: section.get("tombstone", convert::text),
            format: format?,
        }))
    }
}

pub(super) fn format(section: &Section<'_>) -> Option<OutFormat> {
    Some(match section.or_default("format", convert::text)?.as_str() {
        "lines" => OutFormat::Lines,
        "csv" => OutFormat::Csv,
        "raw" => OutFormat::Raw,
        _ => OutFormat::Json,
    })
}
