//! A sink that forgets, for measuring.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thalweg_core::{Epoch, Error, PartitionId, Result};

use crate::{EncodedBatch, Sink, SinkContext, SinkWriter};

/// Counts the records that it is given, and forgets them. A position is the number of records of the partition since the job began.
#[derive(Clone, Debug, Default)]
pub struct BlackholeSink {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl BlackholeSink {
    /// A sink that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records in the epochs that have ended, of all writers of this process, replayed ones included.
    pub fn records(&self) -> u64 {
        self.counts.records.load(Ordering::Relaxed)
    }

    /// Encoded bytes of those records.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }
}

impl Sink for BlackholeSink {
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(Vec::new())
    }

    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let positions = context.partitions.iter().copied().collect();
        Ok(Box::new(BlackholeWriter { counts: self.counts.clone(), positions, records: 0, bytes: 0 }))
    }
}

struct BlackholeWriter {
    counts: Arc<Counts>,
    positions: BTreeMap<PartitionId, u64>,
    /// Of the present epoch.
    records: u64,
    bytes: u64,
}

impl SinkWriter for BlackholeWriter {
    fn write(&mut self, _epoch: Epoch, partition: PartitionId, batch: EncodedBatch) -> Result<()> {
        let Some(position) = self.positions.get_mut(&partition) else {
            return Err(Error::internal(
                "sink-partition",
                format!("blackhole: partition {partition} is not this writer's"),
            ));
        };
        *position += batch.records.len() as u64;
        self.records += batch.records.len() as u64;
        self.bytes += batch.data.len() as u64;
        Ok(())
    }

    fn end_epoch(&mut self, _epoch: Epoch) -> Result<()> {
        self.counts.records.fetch_add(std::mem::take(&mut self.records), Ordering::Relaxed);
        self.counts.bytes.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        Ok(())
    }

    fn sync(&mut self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(self.positions.iter().map(|(partition, position)| (*partition, *position)).collect())
    }

    fn replayed(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EncodedRecord;
    use thalweg_core::{Generation, JobId};

    #[test]
    fn records_are_counted_when_their_epoch_ends() {
        let sink = BlackholeSink::new();
        let partitions = vec![(PartitionId(3), 10)];
        let mut writer = sink
            .open(&SinkContext { job_id: JobId(1), generation: Generation(1), checkpoint: Epoch(0), partitions })
            .expect("opens");
        let batch = EncodedBatch {
            data: vec![1, 2],
            records: vec![EncodedRecord { value: Some(0..2), ..EncodedRecord::default() }],
        };
        writer.write(Epoch(1), PartitionId(3), batch.clone()).expect("takes");
        assert_eq!(sink.records(), 0);
        writer.end_epoch(Epoch(1)).expect("ends");
        assert_eq!((sink.records(), sink.bytes()), (1, 2));
        assert_eq!(writer.sync().expect("syncs"), [(PartitionId(3), 11)]);
        assert_eq!(
            writer.write(Epoch(2), PartitionId(4), batch.clone()).expect_err("refused").code(),
            "sink-partition"
        );
    }
}
