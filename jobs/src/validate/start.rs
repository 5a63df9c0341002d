//! Where a source begins.

use std::collections::BTreeMap;

use thalweg_connectors::kafka::{Bound, Topics};
use thalweg_connectors::log::Start;

use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::document::{At, ItemKind};
use crate::keys::{self, Connector};
use crate::spec::TopicsSpec;
use crate::validate::Checker;
use crate::validate::section::Section;

impl<'d> Checker<'d> {
    /// Where a source of a log begins; all others that are not Kafka begin at their start.
    pub(super) fn start(&mut self, what: &str, connector: &Connector, section: &Section<'d>) -> Option<Start> {
        let item = section.item("start");
        let start = section.or_default("start", convert::start);
        let of_log = connector.name == "log" || !connector.ready;
        let offsets = item.is_some_and(|item| matches!(item.kind, ItemKind::Table(_)));
        if !offsets && start.is_some_and(|start| of_log || start == Start::Earliest) {
            return start;
        }
        let (message, help) = match of_log {
            true => (format!("{what}: only a source of Kafka begins at offsets"), "say a time, or \"latest\""),
            false => (format!("{what}: a {} is read from its start", connector.name), "remove it, or use \"earliest\""),
        };
        let problem = Diagnostic::error("start", message).help(help);
        self.report(item.into_iter().fold(problem, |told, item| told.at(&item.at, "")));
        None
    }

    /// Where partitions of Kafka begin, or end: the key `name`.
    pub(super) fn bound(
        &mut self,
        what: &str,
        section: &Section<'d>,
        name: &'static str,
        topics: &TopicsSpec,
    ) -> Option<Bound> {
        let Some(item) = section.item(name).filter(|item| matches!(item.kind, ItemKind::Table(_))) else {
            return section.or_default(name, convert::start).map(Bound::At);
        };
        let inner = self.inner(&format!("{what}, {name}"), section, name, keys::BOUND)?;
        let at = inner.item("offsets").map_or(&item.at, |item| &item.at);
        let mut offsets = BTreeMap::new();
        for (topic, partition, offset) in inner.get("offsets", convert::offsets)? {
            let topic = self.topic_of(what, at, topic, topics)?;
            if offsets.insert((topic.clone(), partition), offset).is_some() {
                let message = format!("{what}, {name}: two offsets for {topic}/{partition}");
                self.report(Diagnostic::error("start", message).at(at, "").help("keep one"));
                return None;
            }
        }
        Some(Bound::Offsets { offsets, other: inner.get("other", convert::start) })
    }

    /// The topic of an offset, which has to be one that the source reads.
    fn topic_of(&mut self, what: &str, at: &At, given: Option<String>, topics: &TopicsSpec) -> Option<String> {
        let (message, help) = match (given, topics) {
            (None, TopicsSpec::Named(names)) if names.len() == 1 => return names.first().cloned(),
            (None, _) => (
                format!("{what} reads several topics, and an offset has to say of which it is"),
                "write \"topic/0\" = 120".to_owned(),
            ),
            (Some(topic), TopicsSpec::Named(names)) if names.contains(&topic) => return Some(topic),
            (Some(topic), TopicsSpec::Pattern(pattern)) if finds(pattern, &topic) => return Some(topic),
            (Some(topic), TopicsSpec::Named(names)) => {
                (format!("{what} does not read the topic {topic:?}"), format!("it reads {}", names.join(", ")))
            }
            (Some(topic), TopicsSpec::Pattern(pattern)) => (
                format!("{what} does not read the topic {topic:?}"),
                format!("it reads those whose names {pattern} finds"),
            ),
        };
        self.report(Diagnostic::error("start", message).at(at, "").help(help));
        None
    }
}

fn finds(pattern: &str, topic: &str) -> bool {
    matches!(Topics::pattern(pattern), Ok(topics) if topics.contains(topic))
}
