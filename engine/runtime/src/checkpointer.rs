//! The thread that makes checkpoints durable and applies committed ones, so that no worker waits for a disk.
//!
//! For each checkpoint: every store of every worker hands over its sealed rows; their changelog records go into one transaction;
//! then each is written as one synced file, which is the redo file as well. When the sinks are durable too, the driver
//! acknowledges. Once the coordinator has committed, the files move into RocksDB.
//!
//! Where the changelogs cannot be written, the checkpoint is given up and the next one writes what differs from the last committed
//! one. It may be given up at any other moment too: what still arrives of it is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use parking_lot::RwLock;
use thalweg_connectors::Sink;
use thalweg_core::{Blame, Epoch, Generation, PartitionId, Result, Series, SinkKey, failpoint};
use thalweg_operators::Failure;
use thalweg_state::{Backend, CommittedView, PendingFile, SealedStore};

use crate::changelogs::Changelogs;
use crate::event::{CheckpointMessage, DriverEvent, Durable};

/// The newest committed state, for reads that never wait for a worker.
pub(crate) type Committed = Arc<RwLock<Option<(Epoch, Arc<CommittedView>)>>>;

/// How soon it is looked again whether what the sinks have committed is visible.
const SETTLING: Duration = Duration::from_millis(5);

/// A checkpoint in the making.
struct Open {
    epoch: Epoch,
    sealed: Vec<SealedStore>,
    /// Its changelogs could not be written: it waits to be given up.
    failed: bool,
    files: Option<(Vec<PendingFile>, Durable)>,
    /// Where the sinks ended, and those of them that are not settled.
    sinks: Option<Vec<(SinkKey, u64)>>,
    unsettled: BTreeMap<u16, Vec<(PartitionId, u64)>>,
    told: bool,
}

impl Open {
    fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            sealed: Vec::new(),
            failed: false,
            files: None,
            sinks: None,
            unsettled: BTreeMap::new(),
            told: false,
        }
    }
}

/// See the module's description.
pub(crate) struct Checkpointer {
    pub(crate) generation: Generation,
    pub(crate) backend: Arc<Backend>,
    /// One for each log that has some.
    pub(crate) changelogs: Vec<Changelogs>,
    /// By their index in the plan.
    pub(crate) sinks: BTreeMap<u16, Arc<dyn Sink>>,
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
            let is_unsettled = open.as_ref().is_some_and(|open| !open.unsettled.is_empty());
            match if is_unsettled { inbox.recv_timeout(SETTLING) } else { inbox.recv().map_err(Into::into) } {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(CheckpointMessage::Begin(epoch)) => {
                    assert!(open.is_none(), "at most one checkpoint is undecided");
                    open = Some(Open::new(epoch));
                }
                Ok(CheckpointMessage::Sealed(sealed)) => {
                    // A store may have sealed a checkpoint before its worker was told that it is given up.
                    if let Some(open) = open.as_mut().filter(|open| open.epoch == sealed.epoch()) {
                        open.sealed.push(*sealed);
                    }
                }
                Ok(CheckpointMessage::Synced(epoch, sinks)) => {
                    if let Some(open) = open.as_mut().filter(|open| open.epoch == epoch) {
                        for (key, end) in &sinks {
                            open.unsettled.entry(key.sink).or_default().push((key.partition, *end));
                        }
                        open.sinks = Some(sinks);
                    }
                }
                Ok(CheckpointMessage::Committed(epoch)) => {
                    let done = open.take().expect("only an open checkpoint is committed");
                    assert_eq!(done.epoch, epoch, "the open checkpoint is the one that is decided");
                    self.apply(done)?;
                }
                Ok(CheckpointMessage::Abandoned(epoch)) => {
                    let done = open.take().expect("only an open checkpoint is given up");
                    assert_eq!(done.epoch, epoch, "the open checkpoint is the one that is decided");
                    if let Some((files, _)) = done.files {
                        self.backend.discard(files)?;
                    }
                    failpoint::pass("checkpoint-abandoned")?;
                }
                Ok(CheckpointMessage::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if let Some(open) = &mut open {
                self.proceed(open)?;
            }
        }
    }

    /// Brings a committed checkpoint into RocksDB.
    fn apply(&self, committed: Open) -> Result<()> {
        let (files, _) = committed.files.expect("a checkpoint is acknowledged before it is committed");
        self.backend.apply(files)?;
        self.state_bytes.set(self.backend.disk_bytes()? as f64);
        *self.committed.write() = Some((committed.epoch, Arc::new(self.backend.view())));
        let _ = self.events.send(DriverEvent::Applied(committed.epoch));
        Ok(())
    }

    /// Writes when every store is there, and tells the driver when the sinks are durable as well.
    fn proceed(&mut self, open: &mut Open) -> Result<()> {
        if open.files.is_none() && !open.failed && open.sealed.len() == self.expected {
            let mut sealed = std::mem::take(&mut open.sealed);
            failpoint::pass("checkpoint-sealed")?;
            let written = &self.changelog_bytes;
            let logged = self.changelogs.iter_mut().try_for_each(|changelogs| changelogs.write(&mut sealed, written));
            match logged {
                Ok(()) => open.files = Some(self.write(open.epoch, sealed)?),
                Err(error) if error.blame() == Blame::External => {
                    open.failed = true;
                    let _ = self.events.send(DriverEvent::CheckpointFailed(open.epoch, error));
                }
                Err(error) => return Err(error),
            }
        }
        self.settle(open)?;
        let early = failpoint::bug("checkpoint-before-sinks");
        let settled = open.sinks.is_some() && open.unsettled.is_empty();
        if let Some((_, durable)) = open.files.as_mut().filter(|_| !open.told && (settled || early)) {
            open.told = true;
            let sinks = open.sinks.clone().unwrap_or_default();
            let durable = Durable { stores: std::mem::take(&mut durable.stores), sinks, ..*durable };
            let _ = self.events.send(DriverEvent::Durable(durable));
        }
        Ok(())
    }

    /// Looks which of the sinks show everything by now.
    fn settle(&self, open: &mut Open) -> Result<()> {
        let mut outcome = Ok(());
        open.unsettled.retain(|sink, ends| match self.sinks.get(sink).map_or(Ok(true), |sink| sink.is_settled(ends)) {
            Ok(settled) => !settled,
            Err(error) => {
                outcome = Err(error);
                true
            }
        });
        outcome
    }

    /// Writes one synced file for each store that has changed.
    fn write(&self, epoch: Epoch, mut sealed: Vec<SealedStore>) -> Result<(Vec<PendingFile>, Durable)> {
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
}
