//! The history of a job in its own folder: what a coordinator's replicated log is to a cluster.
//!
//! Topic `history` of the job's log, one partition. A record's header `kind` is `entry` (value: [`Entry::encode`]) or `snapshot`
//! (value: version byte 2, then the postcard form of [`JobHistory`]; version 1 had not its last field, a list); a reader starts from the last snapshot. What is before it
//! is trimmed.

use std::sync::Arc;

use thalweg_connectors::log::{EmbeddedLog, Log, NewRecord, Producer, Retention, TopicSpec};
use thalweg_coordinator::{Entry, JobHistory, Refused};
use thalweg_core::{Error, PartitionId, Result, failpoint};

const TOPIC: &str = "history";
const PARTITION: PartitionId = PartitionId(0);
const KIND: &str = "kind";
const SNAPSHOT_VERSION: u8 = 2;
/// Entries between snapshots: some minutes of checkpoints.
const SNAPSHOT_EVERY: u64 = 256;

/// The durable history of one job.
pub(super) struct Journal {
    log: Arc<EmbeddedLog>,
    producer: Box<dyn Producer>,
    history: JobHistory,
    since_snapshot: u64,
}

/// Reads the history of a job from its log, without changing anything; the empty one where there is none.
pub(super) fn read(log: &EmbeddedLog) -> Result<(JobHistory, u64)> {
    let (mut history, mut since) = (JobHistory::default(), 0);
    if !log.topics()?.iter().any(|(name, _)| name == TOPIC) {
        return Ok((history, 0));
    }
    let mut reader = log.reader(TOPIC, PARTITION, 0)?;
    let mut records = Vec::new();
    while reader.read(1 << 20, &mut records)? {
        for record in records.drain(..) {
            let value = record.record.value.unwrap_or_default();
            let damaged = |error: Error| {
                error.context(format!("{}, topic {TOPIC}, offset {}", log.dir().display(), record.offset))
            };
            if record.record.headers.iter().any(|(name, kind)| name == KIND && kind == b"snapshot") {
                history = decode_snapshot(&value).map_err(damaged)?;
                since = 0;
            } else {
                history.apply(Entry::decode(&value).map_err(damaged)?)?;
                since += 1;
            }
        }
    }
    Ok((history, since))
}

fn decode_snapshot(value: &[u8]) -> Result<JobHistory> {
    let damaged =
        |error| Error::external("history-entry", format!("a snapshot of the job's history is damaged: {error}"));
    match value.split_first() {
        Some((&SNAPSHOT_VERSION, body)) => postcard::from_bytes(body).map_err(damaged),
        // An empty list, as no job had grown then.
        Some((1, body)) => postcard::from_bytes(&[body, &[0]].concat()).map_err(damaged),
        version => {
            let version = version.map_or(0, |(version, _)| *version);
            let text = format!(
                "the job's history has version {version}, this program reads up to {SNAPSHOT_VERSION}; use the newer program"
            );
            Err(Error::user("history-entry", text))
        }
    }
}

impl Journal {
    /// Reads the history and becomes its only writer.
    pub(super) fn open(log: Arc<EmbeddedLog>) -> Result<Self> {
        let (history, since_snapshot) = read(&log)?;
        log.ensure(&TopicSpec { name: TOPIC.to_owned(), partitions: 1, retention: Retention::Keep })?;
        let producer = log.fence(TOPIC, history.generation().next())?;
        Ok(Self { log, producer, history, since_snapshot })
    }

    /// What has been decided.
    pub(super) fn history(&self) -> &JobHistory {
        &self.history
    }

    /// Makes an entry durable and applies it. An entry that the history refuses is not written.
    ///
    /// Errors: disk; the outcome is unknown then, and the process has to start again.
    pub(super) fn propose(&mut self, entry: Entry) -> Result<std::result::Result<(), Refused>> {
        let mut next = self.history.clone();
        let bytes = entry.encode();
        if let Err(refused) = next.apply(entry) {
            return Ok(Err(refused));
        }
        failpoint::pass("history-append")?;
        self.append("entry", bytes)?;
        failpoint::pass("history-durable")?;
        self.history = next;
        self.since_snapshot += 1;
        if self.since_snapshot >= SNAPSHOT_EVERY {
            self.snapshot()?;
        }
        Ok(Ok(()))
    }

    fn snapshot(&mut self) -> Result<()> {
        let bytes = postcard::to_extend(&self.history, vec![SNAPSHOT_VERSION]).map_err(|error| {
            Error::internal("history-encode", format!("the job's history cannot be written: {error}"))
        })?;
        let end = self.append("snapshot", bytes)?;
        self.since_snapshot = 0;
        self.log.trim(TOPIC, PARTITION, end - 1)
    }

    fn append(&mut self, kind: &str, value: Vec<u8>) -> Result<u64> {
        self.producer.begin()?;
        let headers = vec![(KIND.to_owned(), kind.as_bytes().to_vec())];
        self.producer.append(TOPIC, PARTITION, NewRecord { key: None, value: Some(value), headers })?;
        let ends = self.producer.commit()?;
        Ok(ends.first().map_or(0, |(_, _, end)| *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_core::{CheckpointZero, Generation, JobId, JobName, PartitionCount};

    #[test]
    fn a_history_is_the_same_after_a_restart_with_and_without_snapshots() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || Journal::open(Arc::new(EmbeddedLog::open(dir.path(), Arc::new(|| 0)).expect("the log")));
        let mut journal = open().expect("opens");
        let zero = CheckpointZero {
            job_id: JobId(7),
            job: JobName::new("orders").expect("a name"),
            partitions: PartitionCount::new(4).expect("in range"),
            hash: "h".to_owned(),
            sources: Vec::new(),
            sinks: Vec::new(),
            created_at: 0,
        };
        journal.propose(Entry::Created(zero)).expect("written").expect("applied");
        for generation in 1..=2 * SNAPSHOT_EVERY {
            let entry = Entry::GenerationStarted { generation: Generation(generation), tasks: 1 };
            journal.propose(entry).expect("written").expect("applied");
            if generation % 100 == 0 {
                let before = journal.history().clone();
                drop(journal);
                journal = open().expect("opens again");
                assert_eq!(*journal.history(), before);
            }
        }
        // A snapshot of before jobs grew.
        let now = postcard::to_extend(journal.history(), vec![1]).expect("a history");
        assert_eq!(decode_snapshot(&now[..now.len() - 1]).expect("version 1"), *journal.history());
        let stale = Entry::GenerationStarted { generation: Generation(1), tasks: 1 };
        assert!(journal.propose(stale).expect("nothing is written").is_err());
    }
}
