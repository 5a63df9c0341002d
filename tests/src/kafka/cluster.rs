//! Several brokers that are one cluster.

use std::collections::BTreeMap;

use super::broker::Broker;
use super::client::Client;
use super::metadata::live_brokers;
use super::settings::BrokerSettings;
use super::tools::Tools;
use crate::until;

/// Brokers, each in a folder and at ports of its own. They end when this is dropped.
pub struct Cluster {
    brokers: Vec<Broker>,
}

impl Cluster {
    /// Starts so many, and waits until all are one cluster. Three bear the loss of one.
    pub fn start(count: u32, settings: &BrokerSettings) -> Self {
        Self { brokers: Broker::start_all(count, settings) }
    }

    /// Where clients connect: every broker.
    pub fn bootstrap(&self) -> String {
        self.brokers.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// A client that is not the engine's, for this cluster.
    pub fn client(&self) -> Client {
        Client::new(&self.bootstrap(), &BTreeMap::new())
    }

    /// Kafka's own programs, for this cluster.
    pub fn tools(&self) -> Tools {
        Tools::new(self.bootstrap())
    }

    /// A broker by its number in the cluster, from 1.
    pub fn broker(&mut self, id: u32) -> &mut Broker {
        let known = self.brokers.len();
        self.brokers.iter_mut().find(|broker| broker.id() == id).unwrap_or_else(|| panic!("{id} is not in 1..={known}"))
    }

    /// Waits until every broker that runs knows so many brokers to be alive.
    pub fn wait_until_alive(&self, brokers: u32) {
        let sees = |port| live_brokers(port).is_ok_and(|alive| alive == brokers);
        until(&format!("{brokers} live brokers"), || {
            let first = &self.brokers[0];
            first.peers().filter(|port| sees(*port)).count() >= usize::try_from(brokers).expect("few brokers")
        });
    }
}
