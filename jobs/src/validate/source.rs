//! `[sources.ID]`.

use thalweg_connectors::{CsvOptions, Format, SchemaFormat};

use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::document::{Entry, ItemKind, Table};
use crate::keys::{self, Connector, Key};
use crate::spec::{GeneratorSpec, SourceConnector, SourceSpec};
use crate::suggest::did_you_mean_or_all;
use crate::validate::Checker;
use crate::validate::section::Section;

impl<'d> Checker<'d> {
    /// The table of an id, or a problem where it is none.
    pub(super) fn member(&mut self, what: &str, entry: &'d Entry) -> Option<&'d Table> {
        let well_formed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if entry.name.is_empty() || entry.name.len() > 64 || !entry.name.chars().all(well_formed) {
            let message = format!("{what}: an id has letters, digits, - and _, at most 64 of them");
            self.report(Diagnostic::error("id", message).at(&entry.name_at, ""));
        }
        match &entry.item.kind {
            ItemKind::Table(table) => Some(table),
            _ => {
                let message = format!("{what} takes a table");
                self.report(
                    Diagnostic::error("wrong-value", message)
                        .at(&entry.item.at, format!("found {}", entry.item.describe())),
                );
                None
            }
        }
    }

    /// The connector that a table names, where it is one and is available.
    pub(super) fn connector(
        &mut self,
        what: &str,
        table: &'d Table,
        all: &'static [Connector],
    ) -> Option<&'static Connector> {
        let item = &table.get("connector")?.item;
        let name = item.text()?;
        let Some(connector) = all.iter().find(|connector| connector.name == name) else {
            let help = did_you_mean_or_all(name, all.iter().map(|connector| connector.name), "the connectors are");
            let message = format!("{what}: unknown connector {name:?}");
            self.report(Diagnostic::error("unknown-connector", message).at(&item.at, "").help(help));
            return None;
        };
        if connector.name == "kafka" {
            self.uses_kafka(what, &item.at);
        }
        if !connector.ready {
            let ready: Vec<_> = all.iter().filter(|one| one.ready).map(|one| format!("{:?}", one.name)).collect();
            self.not_available(&format!("{what}: connector {name:?}"), &item.at, &format!("use {}", ready.join(", ")));
        }
        Some(connector)
    }

    pub(super) fn source(&mut self, entry: &'d Entry) -> Option<SourceSpec> {
        let what = format!("source {:?}", entry.name);
        let table = self.member(&what, entry)?;
        let Some(connector) = self.connector(&what, table, keys::SOURCE_CONNECTORS) else {
            // Whose keys they are is not known: only those of every source are checked.
            self.section_with(&what, &entry.name_at, table, &[keys::SOURCE], |_, _, _| {});
            return None;
        };
        let format = table.get("format").and_then(|entry| entry.item.text()).unwrap_or_default();
        let mut of: Vec<&'static [Key]> = vec![keys::SOURCE, connector.keys, keys::source_format(connector.name)];
        if format == "csv" {
            of.push(keys::CSV);
        }
        if SchemaFormat::named(format).is_some() {
            of.push(keys::source_schema(connector.name));
        }
        if schema_of_keys(table).is_some() {
            of.push(keys::source_key_schema(connector.name));
        }
        let section = self.section(&what, &entry.name_at, table, &of);
        self.check_csv(&what, &section);
        let connector = match connector.name {
            "kafka" => SourceConnector::Kafka(Box::new(self.kafka_source(&what, &entry.name_at, &section)?)),
            name => {
                let start = self.start(&what, connector, &section)?;
                match name {
                    "log" => SourceConnector::Log {
                        path: section.get("path", convert::text).map(|path| self.document.source.base.join(path)),
                        topic: section.get("topic", convert::text)?,
                        start,
                        format: self.record_format(&what, &section)?,
                    },
                    _ => source_connector(connector, &section)?,
                }
            }
        };
        let keys = self.key_schema(&what, &section);
        let rate = section.get("rate", |item| convert::int(item, 1, u64::MAX));
        Some(SourceSpec { id: entry.name.clone(), connector, keys, rate })
    }

    pub(super) fn check_csv(&mut self, what: &str, section: &Section<'d>) {
        let character = |name: &str| section.or_default(name, convert::character);
        let (Some(delimiter), Some(quote)) = (character("delimiter"), character("quote")) else { return };
        let at = section.item("delimiter").or_else(|| section.item("quote"));
        if let Some(item) =
            at.filter(|_| delimiter == quote || [delimiter, quote].iter().any(|byte| matches!(byte, b'\n' | b'\r')))
        {
            let message = format!("{what}: delimiter and quote are two different characters, and no line ends");
            self.report(Diagnostic::error("csv", message).at(&item.at, ""));
        }
    }
}

/// The format of keys that needs a schema, where a table says so.
pub(super) fn schema_of_keys(table: &Table) -> Option<SchemaFormat> {
    SchemaFormat::named(table.get("key_format")?.item.text()?)
}

fn source_connector(connector: &Connector, section: &Section<'_>) -> Option<SourceConnector> {
    let int = |name: &str| section.or_default(name, |item| convert::int(item, 0, u64::MAX));
    match connector.name {
        "file" => Some(SourceConnector::File {
            paths: section.get("path", convert::texts)?,
            format: format(section)?,
            follow: section.or_default("follow", convert::bool)?,
            max_record_bytes: section.or_default("max_record_bytes", convert::bytes)?,
        }),
        "generator" => Some(SourceConnector::Generator(GeneratorSpec {
            count: int("count"),
            keys: int("keys")?,
            skew: section.or_default("skew", convert::float)?,
            seed: int("seed")?,
            partitions: u16::try_from(int("partitions")?).ok()?,
        })),
        "stdin" => Some(SourceConnector::Stdin {
            format: format(section)?,
            max_record_bytes: section.or_default("max_record_bytes", convert::bytes)?,
        }),
        _ => None,
    }
}

pub(super) fn format(section: &Section<'_>) -> Option<Format> {
    Some(match section.or_default("format", convert::text)?.as_str() {
        "lines" => Format::Lines,
        "raw" => Format::Raw,
        "csv" => Format::Csv(CsvOptions {
            delimiter: section.or_default("delimiter", convert::character)?,
            quote: section.or_default("quote", convert::character)?,
            names: section.get("columns", convert::texts),
            multiline: section.or_default("multiline", convert::bool)?,
        }),
        _ => Format::Json,
    })
}
