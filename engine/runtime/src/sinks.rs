//! The thread that writes to the sinks: epoch by epoch, when every worker has given its part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use thalweg_connectors::SinkWriter;
use thalweg_core::{Epoch, PartitionId, Result, SinkKey, failpoint};
use thalweg_operators::{EpochGate, Failure, SinkBatch};

use crate::event::{CheckpointMessage, DriverEvent};

/// To the sink thread.
pub(crate) enum SinkMessage {
    /// A worker's part of an epoch.
    Batch(SinkBatch),
    /// A checkpoint was chosen: it may be the epoch that was written last.
    Look,
    /// The job has these source partitions as well from now on.
    Added(Vec<PartitionId>),
    /// The task is over.
    Stop,
}

/// One sink.
struct Writing {
    sink: u16,
    writer: Box<dyn SinkWriter>,
    /// Parts of epochs that are not complete yet.
    parts: BTreeMap<Epoch, Vec<SinkBatch>>,
    /// The last epoch that is written.
    written: Epoch,
    /// The last checkpoint at which it was synced, with the ends then.
    synced: (Epoch, Vec<(PartitionId, u64)>),
}

/// All sinks of a task.
pub(crate) struct Sinks {
    sinks: Vec<Writing>,
    workers: usize,
    gate: Arc<EpochGate>,
    /// B: the tail of the past has to end with it.
    replay_until: Epoch,
    told: Epoch,
    events: Sender<DriverEvent>,
    checkpoints: Sender<CheckpointMessage>,
}

impl Sinks {
    /// Sinks that stand at `processed` (C).
    pub(crate) fn new(
        writers: Vec<(u16, Box<dyn SinkWriter>)>,
        workers: usize,
        gate: Arc<EpochGate>,
        replay_until: Epoch,
        events: Sender<DriverEvent>,
        checkpoints: Sender<CheckpointMessage>,
    ) -> Self {
        let processed = gate.processed();
        let sinks = writers.into_iter().map(|(sink, writer)| Writing {
            sink,
            writer,
            parts: BTreeMap::new(),
            written: processed,
            synced: (processed, Vec::new()),
        });
        Self { sinks: sinks.collect(), workers, gate, replay_until, told: processed, events, checkpoints }
    }

    /// Runs until it is stopped or a sink fails.
    pub(crate) fn run(mut self, inbox: &Receiver<SinkMessage>, failure: &Failure) {
        let outcome = self.work(inbox);
        if let Err(error) = outcome {
            failure.fail(error);
        }
    }

    fn work(&mut self, inbox: &Receiver<SinkMessage>) -> Result<()> {
        if self.sinks.is_empty() {
            self.gate.set_sinks_processed(Epoch(u64::MAX));
        }
        if self.replay_until == self.told {
            self.sinks.iter_mut().try_for_each(|sink| sink.writer.replayed())?;
        }
        loop {
            let Ok(first) = inbox.recv() else { return Ok(()) };
            // Everything that is ready by now goes out together.
            for message in std::iter::once(first).chain(inbox.try_iter()) {
                match message {
                    SinkMessage::Batch(batch) => {
                        let sink = self.sinks.iter_mut().find(|sink| sink.sink == batch.sink);
                        let sink = sink.expect("a batch is of a sink of the plan");
                        assert!(batch.epoch > sink.written, "a worker gives each epoch once");
                        sink.parts.entry(batch.epoch).or_default().push(batch);
                    }
                    SinkMessage::Look => {}
                    SinkMessage::Added(partitions) => {
                        let add =
                            |sink: &mut Writing| partitions.iter().try_for_each(|one| sink.writer.add_partition(*one));
                        self.sinks.iter_mut().try_for_each(add)?;
                    }
                    SinkMessage::Stop => return Ok(()),
                }
            }
            (0..self.sinks.len()).try_for_each(|index| self.write_ready(index))?;
            self.show()?;
            self.sync_if_due()?;
        }
    }

    /// Writes every epoch of a sink that is complete, in order.
    fn write_ready(&mut self, index: usize) -> Result<()> {
        loop {
            let next = self.sinks[index].written.next();
            let complete = self.sinks[index].parts.get(&next).is_some_and(|parts| parts.len() == self.workers);
            if !complete {
                return Ok(());
            }
            // The checkpoint's place is between its epoch and the next one.
            self.sync_if_due()?;
            let sink = &mut self.sinks[index];
            let parts = sink.parts.remove(&next).expect("it is complete");
            let mut partitions: Vec<_> = parts.into_iter().flat_map(|part| part.partitions).collect();
            partitions.sort_by_key(|(partition, _)| *partition);
            failpoint::pass("sink-write")?;
            for (partition, batch) in partitions {
                sink.writer.write(next, partition, batch)?;
            }
            sink.writer.end_epoch(next)?;
            failpoint::pass("sink-written")?;
            sink.written = next;
            if next == self.replay_until {
                sink.writer.replayed()?;
            }
        }
    }

    /// Makes visible what was written, and says how far that is.
    fn show(&mut self) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.writer.flush())?;
        let written = self.sinks.iter().map(|sink| sink.written).min().unwrap_or(self.told);
        if written > self.told {
            self.told = written;
            self.gate.set_sinks_processed(written);
            let _ = self.events.send(DriverEvent::Progress);
        }
        Ok(())
    }

    /// Syncs the sinks that stand at the chosen checkpoint; tells when all have.
    fn sync_if_due(&mut self) -> Result<()> {
        let checkpoint = self.gate.checkpoint();
        let mut any = self.sinks.is_empty();
        for sink in &mut self.sinks {
            if sink.written == checkpoint && sink.synced.0 < checkpoint {
                failpoint::pass("sink-sync")?;
                sink.synced = (checkpoint, sink.writer.sync()?);
                failpoint::pass("sink-synced")?;
                any = true;
            }
        }
        if any && self.sinks.iter().all(|sink| sink.synced.0 == checkpoint) {
            let ends = self.sinks.iter().flat_map(|sink| {
                sink.synced.1.iter().map(|(partition, end)| (SinkKey { sink: sink.sink, partition: *partition }, *end))
            });
            let _ = self.checkpoints.send(CheckpointMessage::Synced(checkpoint, ends.collect()));
        }
        Ok(())
    }
}
