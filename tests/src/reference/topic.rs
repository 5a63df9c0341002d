//! What a topic holds, read by a client that is not the engine's.

use std::collections::BTreeMap;

use thalweg_connectors::{
    CsvOptions, Fields, Format, FormattedSource, RawBatch, RawReader, RawRecord, RawSource, ReadLimit, ReadState,
    RecordSource,
};
use thalweg_core::{PartitionId, PartitionSpec, Result, SourceKey, Value};

use crate::Home;
use crate::kafka::Isolation;

/// The committed records of a topic: by partition, offsets with values.
struct Topic(BTreeMap<u16, Vec<(u64, Vec<u8>)>>);

/// The source of a job that reads a topic, as a committed reader sees that now.
pub(super) fn source(home: &Home, index: usize, format: Format) -> Box<dyn RecordSource<Value>> {
    let format = match format {
        Format::Csv(options) => {
            Format::Csv(CsvOptions { names: Some(["k", "w", "v", "f"].map(str::to_owned).into()), ..options })
        }
        other => other,
    };
    let (client, topic) = (home.client(), home.input(index));
    let partitions = client.offsets(&topic).into_keys().map(|partition| (partition as u16, Vec::new()));
    let mut partitions: BTreeMap<u16, Vec<(u64, Vec<u8>)>> = partitions.collect();
    for record in client.read_all(&topic, Isolation::ReadCommitted) {
        let partition = record.partition.expect("it was read") as u16;
        let offset = u64::try_from(record.offset.expect("it was read")).expect("an offset");
        partitions.entry(partition).or_default().push((offset, record.value.unwrap_or_default()));
    }
    Box::new(FormattedSource::values(Box::new(Topic(partitions)), format, Fields::All))
}

impl RawSource for Topic {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        let spec = |partition: &u16| PartitionSpec {
            of: SourceKey { source, partition: PartitionId(*partition) },
            name: partition.to_string(),
            identity: String::new(),
            start: 0,
            end: None,
        };
        Ok(self.0.keys().map(spec).collect())
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RawReader>> {
        let records = self.0[&partition.of.partition.0].clone();
        Ok(Box::new(Reader { records, at: 0, position: from }))
    }
}

struct Reader {
    records: Vec<(u64, Vec<u8>)>,
    at: usize,
    position: u64,
}

impl RawReader for Reader {
    fn read(&mut self, limit: ReadLimit, batch: &mut RawBatch) -> Result<ReadState> {
        let first = batch.records.len();
        while let Some((offset, value)) = self.records.get(self.at) {
            if limit.until.is_some_and(|until| *offset >= until) {
                break;
            }
            if batch.records.len() - first >= limit.records {
                return Ok(ReadState::More);
            }
            let start = batch.data.len();
            batch.data.extend_from_slice(value);
            let value = start..batch.data.len();
            batch.records.push(RawRecord { value, next: offset + 1, ..RawRecord::default() });
            (self.at, self.position) = (self.at + 1, offset + 1);
        }
        // Between two records there is nothing but markers and what was aborted: a share may end anywhere there.
        self.position = self.position.max(limit.until.unwrap_or(0));
        Ok(ReadState::End)
    }

    fn position(&self) -> u64 {
        self.position
    }
}
