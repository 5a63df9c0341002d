//! The thread that makes checkpoints durable and applies committed ones, so that no worker waits for a disk.
//!
//! For each checkpoint: every store of every worker hands over its sealed rows; their changelog records go into one transaction;
//! then each is written as one synced file, which is the redo file as well. When the sinks are durable too, the driver
//! acknowledges. Once the coordinator has committed, the files move into RocksDB.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use parking_lot::RwLock;
use thalweg_connectors::log::{Log, NewRecord, Producer, Retention, TopicSpec};
use thalweg_core::{Epoch, Generation, JobId, PartitionCount, PartitionId, Result, Series, SinkKey, failpoint};
use thalweg_operators::Failure;
use thalweg_state::{Backend, CommittedView, PendingFile, SealedStore};

use crate::event::{CheckpointMessage, DriverEvent, Durable};

/// Tombstones are kept so long after the first cleaning that saw them: longer than any restore reads.
const DELETE_RETENTION_MS: u64 = 24 * 60 * 60 * 1000;

/// The compacted topic of a store.
pub(crate) fn changelog_topic(job: JobId, store: &str) -> String {
    format!("changelog-{job}-{}", store.replace('~', "."))
}

/// Makes the changelog topics of these stores where they are missing.
pub(crate) fn ensure_changelogs<'a>(
    log: &dyn Log,
    job: JobId,
    partitions: PartitionCount,
    stores: impl Iterator<Item = &'a str>,
) -> Result<()> {
    for store in stores {
        log.ensure(&TopicSpec {
            name: changelog_topic(job, store),
            partitions: partitions.get(),
            retention: Retention::Compact { delete_retention_ms: DELETE_RETENTION_MS },
        })?;
    }
    Ok(())
}

/// The newest committed state, for reads that never wait for a worker.
pub(crate) type Committed = Arc<RwLock<Option<(Epoch, Arc<CommittedView>)>>>;

/// A checkpoint in the making.
struct Open {
    epoch: Epoch,
    sealed: Vec<SealedStore>,
    files: Option<(Vec<PendingFile>, Durable)>,
    sinks: Option<Vec<(SinkKey, u64)>>,
    told: bool,
}

/// See the module's description.
pub(crate) struct Checkpointer {
    pub(crate) job: JobId,
    pub(crate) generation: Generation,
    pub(crate) backend: Arc<Backend>,
    pub(crate) changelogs: Option<Box<dyn Producer>>,
    /// Stores times workers.
    pub(crate) expected: usize,
    pub(crate) committed: Committed,
    pub(crate) events: Sender<DriverEvent>,
    pub(crate) changelog_bytes: Series,
    pub(crate) state_bytes: Series,
}

impl Checkpointer {
    /// Runs until it is stopped or something fails.
    pub(crate) fn run(mut self, inbox: &Receiver<CheckpointMessage>, failure: &Failure) {
        if let Err(error) = self.work(inbox) {
            failure.fail(error);
        }
    }

    fn work(&mut self, inbox: &Receiver<CheckpointMessage>) -> Result<()> {
        let mut open: Option<Open> = None;
        loop {
            match inbox.recv() {
                Ok(CheckpointMessage::Begin(epoch)) => {
                    assert!(open.is_none(), "at most one checkpoint is undecided");
                    open = Some(Open { epoch, sealed: Vec::new(), files: None, sinks: None, told: false });
                }
                Ok(CheckpointMessage::Sealed(sealed)) => {
                    let open = open.as_mut().expect("a store seals for an open checkpoint");
                    assert_eq!(sealed.epoch(), open.epoch, "all stores seal at one epoch");
                    open.sealed.push(*sealed);
                }
                Ok(CheckpointMessage::Synced(epoch, sinks)) => {
                    if let Some(open) = open.as_mut().filter(|open| open.epoch == epoch) {
                        open.sinks = Some(sinks);
                    }
                }
                Ok(CheckpointMessage::Committed(epoch)) => {
                    let done = open.take().expect("only an open checkpoint is committed");
                    assert_eq!(done.epoch, epoch, "the open checkpoint is the one that is decided");
                    let (files, _) = done.files.expect("a checkpoint is acknowledged before it is committed");
                    self.backend.apply(files)?;
                    self.state_bytes.set(self.backend.disk_bytes()? as f64);
                    *self.committed.write() = Some((epoch, Arc::new(self.backend.view())));
                    let _ = self.events.send(DriverEvent::Applied(epoch));
                }
                Ok(CheckpointMessage::Abandoned(epoch)) => {
                    if let Some((files, _)) = open.take().filter(|open| open.epoch == epoch).and_then(|open| open.files)
                    {
                        self.backend.discard(files)?;
                    }
                }
                Ok(CheckpointMessage::Stop) | Err(_) => return Ok(()),
            }
            if let Some(open) = &mut open {
                self.proceed(open)?;
            }
        }
    }

    /// Writes when every store is there, and tells the driver when the sinks are durable as well.
    fn proceed(&mut self, open: &mut Open) -> Result<()> {
        if open.files.is_none() && open.sealed.len() == self.expected {
            let sealed = std::mem::take(&mut open.sealed);
            open.files = Some(self.write(open.epoch, sealed)?);
        }
        let early = failpoint::bug("checkpoint-before-sinks");
        if let Some((_, durable)) = open.files.as_mut().filter(|_| !open.told && (open.sinks.is_some() || early)) {
            open.told = true;
            let sinks = open.sinks.clone().unwrap_or_default();
            let durable = Durable { stores: std::mem::take(&mut durable.stores), sinks, ..*durable };
            let _ = self.events.send(DriverEvent::Durable(durable));
        }
        Ok(())
    }

    fn write(&mut self, epoch: Epoch, mut sealed: Vec<SealedStore>) -> Result<(Vec<PendingFile>, Durable)> {
        failpoint::pass("checkpoint-sealed")?;
        self.write_changelogs(&mut sealed)?;
        failpoint::pass("checkpoint-changelog")?;
        sealed.sort_by(|a, b| a.name().cmp(b.name()));
        let stores = sealed.iter().flat_map(SealedStore::states).collect();
        let changed = sealed.iter().map(|sealed| sealed.changed() as u64).sum();
        let mut files = Vec::new();
        // A store that did not change keeps its applied rows: its digests are those of the checkpoint before.
        for sealed in sealed.into_iter().filter(|sealed| !sealed.is_unchanged()) {
            files.extend(self.backend.write_sealed(sealed, self.generation)?);
        }
        failpoint::pass("checkpoint-files")?;
        Ok((files, Durable { epoch, stores, sinks: Vec::new(), sinks_at: epoch, changed }))
    }

    /// All changelog records of the checkpoint in one transaction.
    fn write_changelogs(&mut self, sealed: &mut [SealedStore]) -> Result<()> {
        let Some(producer) = &mut self.changelogs else { return Ok(()) };
        producer.begin()?;
        for store in sealed.iter() {
            let topic = changelog_topic(self.job, store.name());
            store.changelog(self.generation, |partition: PartitionId, key, value| {
                self.changelog_bytes.add((key.len() + value.as_ref().map_or(0, Vec::len)) as u64);
                producer.append(&topic, partition, NewRecord { key: Some(key), value, headers: Vec::new() })
            })?;
        }
        let ends: BTreeMap<_, _> =
            producer.commit()?.into_iter().map(|(topic, partition, end)| ((topic, partition), end)).collect();
        for store in sealed {
            let topic = changelog_topic(self.job, store.name());
            for partition in store.partitions().iter().map(|sealed| sealed.partition).collect::<Vec<_>>() {
                if let Some(end) = ends.get(&(topic.clone(), partition)) {
                    store.set_changelog_offset(partition, *end);
                }
            }
        }
        Ok(())
    }
}
