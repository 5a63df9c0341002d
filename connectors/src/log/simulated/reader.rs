//! A reader of committed records.

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
}

impl SimulatedReader {
    pub(super) fn new(cluster: &Arc<SimulatedCluster>, topic: &str, partition: PartitionId, from: u64) -> Self {
        Self { cluster: Arc::clone(cluster), topic: topic.to_owned(), partition, position: from }
    }
}

impl LogReader for SimulatedReader {
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool> {
        self.cluster.before(Step::Read);
        let (first, _) = self.cluster.ends(&self.topic, self.partition)?;
        if self.position < first {
            let text =
                format!("topic {:?}, partition {}: offset {} is dropped", self.topic, self.partition, self.position);
            return Err(Error::external("kafka-out-of-range", text));
        }
        let (before, mut bytes) = (out.len(), 0);
        let max_bytes = max_bytes.min(self.cluster.fates().read_bytes());
        for record in self.cluster.visible(&self.topic, self.partition, self.position)? {
            if out.len() > before && bytes >= max_bytes {
                return Ok(true);
            }
            let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
            bytes += length(&record.record.key) + length(&record.record.value);
            self.position = record.offset + 1;
            out.push(record);
        }
        self.position = self.position.max(self.cluster.stable_end(&self.topic, self.partition)?);
        Ok(out.len() > before)
    }

    fn position(&self) -> u64 {
        self.position
    }
}
