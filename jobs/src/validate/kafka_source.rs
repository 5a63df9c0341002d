//! `[sources.ID]` with `connector = "kafka"`.

use thalweg_connectors::kafka::{OnDataLoss, Topics};
use thalweg_connectors::{Include, KeyFormat, Part};

use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::document::At;
use crate::keys;
use crate::spec::{KafkaSourceSpec, TopicsSpec};
use crate::validate::Checker;
use crate::validate::section::Section;

/// The keys that say which topics are read.
const TOPICS: [&str; 3] = ["topic", "topics", "topic_pattern"];

impl<'d> Checker<'d> {
    /// What is read from Kafka.
    pub(super) fn kafka_source(&mut self, what: &str, at: &At, section: &Section<'d>) -> Option<KafkaSourceSpec> {
        let topics = self.topics(what, at, section);
        let include = self.include(what, section);
        let on_data_loss = match section.or_default("on_data_loss", convert::text)?.as_str() {
            "skip" => OnDataLoss::Skip,
            _ => OnDataLoss::Fail,
        };
        let group = section.get("group", convert::text);
        let format = self.record_format(what, section);
        let backfill = section.item("backfill").map(|item| self.backfill(what, item));
        let topics = topics?;
        let start = self.bound(what, section, "start", &topics)?;
        let discover_interval = section.or_default("discover_interval", convert::duration_or_none)?;
        // One with a problem is no reason to go on without it.
        let backfill = match backfill {
            Some(backfill) => Some(backfill?),
            None => None,
        };
        Some(KafkaSourceSpec {
            topics,
            start,
            backfill,
            format: format?,
            group,
            on_data_loss,
            discover_interval,
            include,
        })
    }

    pub(super) fn topics(&mut self, what: &str, at: &At, section: &Section<'d>) -> Option<TopicsSpec> {
        let given: Vec<&str> = TOPICS.into_iter().filter(|name| section.item(name).is_some()).collect();
        let [name] = given[..] else {
            let text = format!("{what} takes one of topic, topics and topic_pattern, and has {}", given.len());
            self.report(
                Diagnostic::error("kafka-topics", text).at(at, "").help("say which topics it reads, in one way"),
            );
            return None;
        };
        let item = section.item(name)?;
        let topics = match name {
            "topic_pattern" => TopicsSpec::Pattern(section.get(name, convert::text)?),
            _ => TopicsSpec::Named(section.get(name, convert::texts)?),
        };
        let problem = match &topics {
            TopicsSpec::Pattern(pattern) => Topics::pattern(pattern).err(),
            TopicsSpec::Named(names) => Topics::named(names.clone()).err(),
        };
        match problem {
            None => Some(topics),
            Some(error) => {
                let text = format!("{what}: {}", error.message());
                self.report(Diagnostic::error("kafka-topics", text).at(&item.at, ""));
                None
            }
        }
    }

    fn include(&mut self, what: &str, section: &Section<'d>) -> Include {
        let inner = self.inner(&format!("{what}, include"), section, "include", keys::INCLUDE);
        let mut fields: Vec<(String, Part)> = Vec::new();
        for (name, part) in Part::NAMED {
            let Some(field) = inner.as_ref().and_then(|inner| inner.get(name, convert::text)) else { continue };
            if fields.iter().any(|(known, _)| *known == field) {
                let at = inner.as_ref().and_then(|inner| inner.item(name)).map(|item| &item.at);
                let text = format!("{what}: include has the field {field:?} twice; give each its own");
                self.report(at.into_iter().fold(Diagnostic::error("include", text), |problem, at| problem.at(at, "")));
            }
            fields.push((field, part));
        }
        let key_format = match section.or_default("key_format", convert::text).as_deref() {
            Some("json") => KeyFormat::Json,
            Some("raw") => KeyFormat::Raw,
            _ => KeyFormat::Text,
        };
        Include { fields, key_format }
    }
}
