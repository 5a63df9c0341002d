//! A reader of a partition.

use std::sync::Arc;

use thalweg_core::{Error, PartitionId, Result};

use super::{SimulatedCluster, Step};
use crate::log::{LogReader, LogRecord};

/// See the module's description.
pub(super) struct SimulatedReader {
    cluster: Arc<SimulatedCluster>,
    topic: String,
    partition: PartitionId,
    position: u64,
    /// Records of open and aborted transactions as well.
    uncommitted: bool,
}

impl SimulatedReader {
    pub(super) fn new(cluster: &Arc<SimulatedCluster>, topic: &str, partition: PartitionId, from: u64) -> Self {
        Self { cluster: Arc::clone(cluster), topic: topic.to_owned(), partition, position: from, uncommitted: false }
    }

    pub(super) fn of_uncommitted(self) -> Self {
        Self { uncommitted: true, ..self }
    }
}

impl LogReader for SimulatedReader {
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool> {
        self.cluster.before(Step::Read);
        let (first, end) = self.cluster.ends(&self.topic, self.partition)?;
        if self.position < first {
            let text =
                format!("topic {:?}, partition {}: offset {} is dropped", self.topic, self.partition, self.position);
            return Err(Error::external("kafka-out-of-range", text));
        }
        let (before, mut bytes) = (out.len(), 0);
        let max_bytes = max_bytes.min(self.cluster.fates().read_bytes());
        let (records, end) = match self.uncommitted {
            true => (self.cluster.appended(&self.topic, self.partition, self.position)?, end),
            false => {
                let visible = self.cluster.visible(&self.topic, self.partition, self.position)?;
                (visible, self.cluster.stable_end(&self.topic, self.partition)?)
            }
        };
        for record in records {
            if out.len() > before && bytes >= max_bytes {
                return Ok(true);
            }
            let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
            bytes += length(&record.record.key) + length(&record.record.value);
            self.position = record.offset + 1;
            out.push(record);
        }
        self.position = self.position.max(end);
        Ok(out.len() > before)
    }

    fn position(&self) -> u64 {
        self.position
    }
}
