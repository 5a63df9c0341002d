//! `[sources.ID.backfill]`: what a source of Kafka reads first.

use thalweg_connectors::SchemaFormat;

use crate::convert;
use crate::document::{Item, ItemKind};
use crate::keys;
use crate::spec::{BackfillSpec, HistorySpec};
use crate::validate::Checker;

impl<'d> Checker<'d> {
    pub(super) fn backfill(&mut self, of: &str, item: &'d Item) -> Option<BackfillSpec> {
        let ItemKind::Table(table) = &item.kind else { return None };
        let what = format!("{of}, backfill");
        let Some(connector) = self.connector(&what, table, keys::BACKFILL_CONNECTORS) else {
            // Whose keys they are is not known.
            self.section_with(&what, &item.at, table, &[keys::BACKFILL], |_, _, _| {});
            return None;
        };
        let format = table.get("format").and_then(|entry| entry.item.text()).unwrap_or_default();
        let mut all = vec![keys::BACKFILL, connector.keys, keys::source_format(connector.name)];
        if format == "csv" {
            all.push(keys::CSV);
        }
        if SchemaFormat::named(format).is_some() {
            all.push(keys::source_schema(connector.name));
        }
        let section = self.section(&what, &item.at, table, &all);
        self.check_csv(&what, &section);
        let history = match connector.name {
            "file" => HistorySpec::File {
                paths: section.get("path", convert::texts)?,
                max_record_bytes: section.or_default("max_record_bytes", convert::bytes)?,
            },
            _ => {
                let topics = self.topics(&what, &item.at, &section)?;
                let start = self.bound(&what, &section, "start", &topics)?;
                let end = self.bound(&what, &section, "end", &topics)?;
                HistorySpec::Kafka { topics, start, end }
            }
        };
        Some(BackfillSpec { history, format: self.record_format(&what, &section)? })
    }
}
