//! A producer as librdkafka's: it cannot tell a late end of one transaction from that of the next, and learns late that it is fenced.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_core::{Error, PartitionId, Result};

use super::cluster::EndRequest;
use super::{Fate, SimulatedCluster, Step};
use crate::log::{NewRecord, NewRecordRef, Producer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Open,
    Spent,
}

/// See the module's description. Dropping it leaves its transaction open, as the end of its process does.
pub(super) struct SimulatedProducer {
    cluster: Arc<SimulatedCluster>,
    id: String,
    /// Nothing where it has no transactions.
    epoch: Option<u64>,
    phase: Phase,
    /// An append was refused: the end of the transaction says so.
    refused: Option<Error>,
    ends: BTreeMap<(String, PartitionId), u64>,
}

impl SimulatedProducer {
    pub(super) fn transactional(cluster: &Arc<SimulatedCluster>, id: &str, epoch: u64) -> Self {
        Self { epoch: Some(epoch), ..Self::plain(cluster, id) }
    }

    pub(super) fn plain(cluster: &Arc<SimulatedCluster>, id: &str) -> Self {
        let (cluster, id) = (Arc::clone(cluster), id.to_owned());
        Self { cluster, id, epoch: None, phase: Phase::Idle, refused: None, ends: BTreeMap::new() }
    }

    pub(super) fn cluster(&self) -> Arc<SimulatedCluster> {
        Arc::clone(&self.cluster)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// What was appended to a partition is there; the end of it.
    pub(super) fn delivered(&mut self, topic: &str, partition: PartitionId) -> Result<u64> {
        match self.refused.take() {
            Some(error) => Err(error),
            None => Ok(self.ends.get(&(topic.to_owned(), partition)).copied().unwrap_or(0)),
        }
    }

    fn expect(&self, phase: Phase, doing: &str) -> Result<()> {
        if self.phase == phase {
            return Ok(());
        }
        let text = format!("producer {:?} cannot {doing}: it is {:?}", self.id, self.phase);
        Err(Error::internal("producer-state", text))
    }

    fn end(&mut self, commit: bool) -> Result<()> {
        let Some(epoch) = self.epoch else { return Ok(()) };
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        // An empty transaction is the client's own matter: no broker hears of it.
        if self.ends.is_empty() {
            return Ok(());
        }
        self.cluster.before(Step::End);
        let request = EndRequest { id: self.id.clone(), epoch, commit };
        let unknown = || {
            let text = format!("producer {:?}: no answer came to the end of its transaction", self.id);
            Err(Error::external("kafka-away", text))
        };
        match self.cluster.fates().of_end(&self.id) {
            Fate::Acknowledged => self.cluster.finish(&request),
            Fate::AnswerLost => self.cluster.finish(&request).and_then(|()| unknown()),
            Fate::RequestLost => unknown(),
            Fate::Delayed => {
                self.cluster.delay(request);
                unknown()
            }
            twice @ (Fate::SentTwice | Fate::SentTwiceUnnoticed) => {
                self.cluster.finish(&request)?;
                self.cluster.delay(request);
                if twice == Fate::SentTwice {
                    self.phase = Phase::Spent;
                }
                Ok(())
            }
        }
    }
}

impl Producer for SimulatedProducer {
    fn begin(&mut self) -> Result<()> {
        self.expect(Phase::Idle, "begin")?;
        self.phase = Phase::Open;
        self.ends.clear();
        Ok(())
    }

    fn append_ref(&mut self, topic: &str, partition: PartitionId, record: NewRecordRef<'_>) -> Result<()> {
        self.expect(Phase::Open, "append")?;
        self.cluster.before(Step::Append);
        let headers = record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
        let producer = self.epoch.map(|epoch| (self.id.as_str(), epoch));
        match self.cluster.append(producer, topic, partition, NewRecord { key, value, headers }) {
            Ok(end) => drop(self.ends.insert((topic.to_owned(), partition), end)),
            Err(error) => drop(self.refused.get_or_insert(error)),
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<Vec<(String, PartitionId, u64)>> {
        self.expect(Phase::Open, "commit")?;
        self.phase = Phase::Idle;
        self.end(true).inspect_err(|_| self.phase = Phase::Spent)?;
        let ends = std::mem::take(&mut self.ends);
        Ok(ends.into_iter().map(|((topic, partition), end)| (topic, partition, end)).collect())
    }

    fn abort(&mut self) -> Result<()> {
        self.expect(Phase::Open, "abort")?;
        self.phase = Phase::Spent;
        // Where it fails, the next fence aborts.
        let _ = self.end(false);
        Ok(())
    }

    fn is_spent(&self) -> bool {
        self.phase == Phase::Spent
    }
}
