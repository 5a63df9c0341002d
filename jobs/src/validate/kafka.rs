//! `[kafka]`.

use std::collections::BTreeMap;

use thalweg_connectors::kafka::{KafkaConfig, Topics};

use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::document::{At, Item, ItemKind};
use crate::keys;
use crate::spec::{KafkaSpec, Property, SinkConnector, SinkSpec, SourceConnector, SourceSpec, TopicsSpec};
use crate::validate::Checker;
use crate::validate::section::{self, Section};

impl<'d> Checker<'d> {
    /// What `[kafka]` says, where it is there.
    pub(super) fn kafka(&mut self, root: &Section<'d>) -> Option<KafkaSpec> {
        let kafka = self.inner("[kafka]", root, "kafka", keys::KAFKA)?;
        let properties = match kafka.item("properties").map(|item| &item.kind) {
            Some(ItemKind::Table(table)) => table
                .entries
                .iter()
                .map(|entry| (entry.name.to_string(), self.property(&entry.name, &entry.item)))
                .collect(),
            _ => BTreeMap::new(),
        };
        if let Some(item) = kafka.item("bootstrap_servers") {
            self.check_servers(item);
        }
        let duration = |name| section::or_default(Some(&kafka), keys::KAFKA, name, convert::duration);
        Some(KafkaSpec {
            bootstrap_servers: kafka.get("bootstrap_servers", convert::text)?,
            properties,
            replication: kafka.get("replication", |item| convert::int(item, 1, 1000)).map(|count| count as u16),
            wait: duration("wait"),
            transaction_timeout: duration("transaction_timeout"),
        })
    }

    /// What librdkafka would take for the name of a host, and look for in vain.
    fn check_servers(&mut self, item: &Item) {
        let servers = item.text().unwrap_or_default().split(',').map(str::trim);
        for server in servers {
            // librdkafka takes a protocol in front, and brackets around an address of IPv6.
            let address = server.split_once("://").map_or(server, |(_, rest)| rest);
            let port = match address.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') || host.ends_with(']') => Some(port),
                Some(_) | None => None,
            };
            let wrong = if server.starts_with("http://") || server.starts_with("https://") {
                "Kafka does not speak HTTP"
            } else if address.is_empty() || address.starts_with(':') {
                "a host is missing"
            } else if address.contains([' ', ';', '/']) {
                "there is something in it that no host has"
            } else if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
                "a port is a number from 1 to 65535"
            } else {
                continue;
            };
            let text = format!("[kafka]: bootstrap_servers has {server:?}: {wrong}");
            let problem = Diagnostic::error("kafka-servers", text).at(&item.at, "");
            self.report(problem.help("write host:port, several with commas between: \"one:9092,two:9092\""));
        }
    }

    fn property(&mut self, name: &str, item: &Item) -> Property {
        let property = self.secret(item);
        let plain = match &property {
            Property::Plain(text) => Some(text.as_str()),
            Property::Env(_) | Property::File(_) => None,
        };
        self.check_property(name, plain, item);
        property
    }

    /// A checked value that may be kept elsewhere.
    pub(super) fn secret(&self, item: &Item) -> Property {
        let ItemKind::Table(table) = &item.kind else { return Property::Plain(convert::plain(item)) };
        let [entry] = &*table.entries else { return Property::Plain(String::new()) };
        let text = entry.item.text().unwrap_or_default().to_owned();
        match &*entry.name {
            "env" => Property::Env(text),
            _ => Property::File(self.document.source.base.join(text)),
        }
    }

    fn check_property(&mut self, name: &str, value: Option<&str>, item: &Item) {
        if let Err(error) = KafkaConfig::check_property(name, value) {
            self.report(Diagnostic::error("kafka-property", error.message().to_owned()).at(&item.at, ""));
        }
    }

    /// A pattern that finds a topic which the job writes has it read its own output.
    pub(super) fn check_patterns<'s>(
        &mut self,
        sources: &[Option<SourceSpec>],
        sinks: impl Iterator<Item = (&'s At, &'s Option<SinkSpec>)>,
    ) {
        let pattern = |source: &SourceSpec| match &source.connector {
            SourceConnector::Kafka(kafka) => match &kafka.topics {
                TopicsSpec::Pattern(pattern) => Some((source.id.clone(), Topics::pattern(pattern).ok()?)),
                TopicsSpec::Named(_) => None,
            },
            SourceConnector::File { .. }
            | SourceConnector::Generator(_)
            | SourceConnector::Log { .. }
            | SourceConnector::Stdin { .. } => None,
        };
        let patterns: Vec<(String, Topics)> = sources.iter().flatten().filter_map(pattern).collect();
        for (at, sink) in sinks {
            let Some(SinkSpec { id, connector: SinkConnector::Kafka(kafka), .. }) = sink else { continue };
            for (source, _) in patterns.iter().filter(|(_, topics)| topics.contains(&kafka.topic)) {
                let message = format!("sink {id:?} writes a topic that the pattern of source {source:?} finds");
                let help =
                    "the job would read its own output; give the topic another name, or have the pattern leave it out";
                self.report(Diagnostic::warning("kafka-loop", message).at(at, "").help(help));
            }
        }
    }

    /// Remembers who uses Kafka, to ask for `[kafka]`.
    pub(super) fn uses_kafka(&mut self, what: &str, at: &At) {
        self.kafka_users.push((what.to_owned(), at.clone()));
    }

    /// Whoever uses Kafka needs to know where it is.
    pub(super) fn check_kafka(&mut self, root: &Section<'d>) {
        let users = std::mem::take(&mut self.kafka_users);
        let Some((what, at)) = users.into_iter().next().filter(|_| root.item("kafka").is_none()) else { return };
        let message = format!("{what} uses Kafka, and nothing says where it is");
        let help = "add [kafka] with bootstrap_servers = \"host:port\"";
        self.report(Diagnostic::error("kafka-missing", message).at(&at, "").help(help));
    }
}
