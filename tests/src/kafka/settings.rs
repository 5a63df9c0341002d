//! What a broker is told.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::secrets::Secrets;

/// What all brokers of the tests are told.
const COMMON: &str = include_str!("../../kafka/broker.properties");

/// How a broker, or each of a cluster, differs from the defaults of the tests.
#[derive(Clone, Debug, Default)]
pub struct BrokerSettings {
    properties: BTreeMap<String, String>,
    secured: bool,
}

impl BrokerSettings {
    /// The defaults: no topic is made by itself, small internal topics, short sessions.
    pub fn new() -> Self {
        Self::default()
    }

    /// A property of `server.properties`, in place of the default.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.properties.insert(name.to_owned(), value.to_string());
        self
    }

    /// Compacted topics are cleaned all the time, in segments that are as small as they can be.
    #[must_use]
    pub fn always_cleaning(self) -> Self {
        self.with("log.cleaner.backoff.ms", 50)
            .with("log.cleaner.min.cleanable.ratio", 0.01)
            .with("log.segment.bytes", 1 << 20)
            .with("log.roll.ms", 100)
    }

    /// A second listener with TLS, at which one signs on by SASL/PLAIN as [`USER`](super::USER).
    #[must_use]
    pub fn secured(mut self) -> Self {
        self.secured = true;
        self
    }

    pub(super) fn is_secured(&self) -> bool {
        self.secured
    }
}

/// Where one node of a cluster listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: u32,
    pub(super) clients: u16,
    pub(super) controller: u16,
    pub(super) secure: u16,
}

/// The text of `server.properties`.
pub(super) fn render(
    settings: &BrokerSettings,
    node: Node,
    all: &[Node],
    log: &Path,
    secrets: Option<&Secrets>,
) -> String {
    let replicas = all.len();
    let voters = all.iter().map(|node| format!("{}@127.0.0.1:{}", node.id, node.controller));
    let mut open = format!("PLAINTEXT://127.0.0.1:{}", node.clients);
    if secrets.is_some() {
        write!(open, ",SECURE://127.0.0.1:{}", node.secure).expect("a string grows");
    }
    let mut properties = BTreeMap::from([
        ("node.id".to_owned(), node.id.to_string()),
        ("controller.quorum.voters".to_owned(), voters.collect::<Vec<_>>().join(",")),
        ("listeners".to_owned(), format!("{open},CONTROLLER://127.0.0.1:{}", node.controller)),
        ("advertised.listeners".to_owned(), open),
        ("log.dirs".to_owned(), log.display().to_string()),
    ]);
    for topic in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"] {
        properties.insert(format!("{topic}.replication.factor"), replicas.to_string());
    }
    for topic in ["transaction.state.log", "share.coordinator.state.topic"] {
        properties.insert(format!("{topic}.min.isr"), replicas.div_ceil(2).to_string());
    }
    properties.extend(secrets.into_iter().flat_map(Secrets::broker_properties));
    properties.extend(settings.properties.clone());
    // The last line of a name counts.
    properties.iter().fold(COMMON.to_owned(), |text, (name, value)| format!("{text}{name}={value}\n"))
}
