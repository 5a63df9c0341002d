//! One checkpoint, from the request to the record: collecting what the tasks acknowledge.

use std::cmp::Ordering;

use serde::Serialize;
use thalweg_core::{CheckpointAck, CheckpointRecord, Epoch, TaskIndex};

use crate::Refusal;

/// The acknowledgements of the checkpoint that the tasks are taking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Collecting {
    acks: Vec<Option<CheckpointAck>>,
}

impl Collecting {
    pub(crate) fn new(tasks: u32) -> Self {
        Self { acks: vec![None; tasks as usize] }
    }

    /// The epoch of the checkpoint, as soon as one task has named it.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.acks.iter().flatten().map(|ack| ack.epoch).next()
    }

    /// Takes the acknowledgement of a task; the record, once all are there.
    ///
    /// The caller has checked that it is of this generation and not of a checkpoint that is decided.
    pub(crate) fn acknowledge(&mut self, ack: CheckpointAck) -> Result<Option<CheckpointRecord>, Refusal> {
        let broken = |why| Err(Refusal::BrokenAcknowledgement { task: ack.task, epoch: ack.epoch, why });
        if ack.sinks_at < ack.epoch {
            return broken("a checkpoint is acknowledged only when all sinks are at or past it");
        }
        if let Some(other) = self.acks.iter().flatten().next() {
            if other.epoch != ack.epoch {
                return broken("all tasks take a checkpoint at the same epoch");
            }
            if (other.fingerprint, other.minted_at) != (ack.fingerprint, ack.minted_at) {
                return broken("all tasks run the same plan and the same bindings");
            }
        }
        let Some(slot) = self.acks.get_mut(ack.task.0 as usize) else {
            return broken("there is no such task in this generation");
        };
        *slot = Some(ack);
        if self.acks.iter().any(Option::is_none) {
            return Ok(None);
        }
        self.merge().map(Some)
    }

    /// The record of the checkpoint, in one order whatever the number of tasks.
    fn merge(&self) -> Result<CheckpointRecord, Refusal> {
        let first = self.acks.iter().flatten().next().expect("a generation has at least one task");
        let mut record = CheckpointRecord {
            epoch: first.epoch,
            generation: first.generation,
            fingerprint: first.fingerprint,
            minted_at: first.minted_at,
            sources: Vec::new(),
            stores: Vec::new(),
            sinks: Vec::new(),
        };
        for ack in self.acks.iter().flatten() {
            record.sources.extend_from_slice(&ack.sources);
            record.stores.extend_from_slice(&ack.stores);
            record.sinks.extend_from_slice(&ack.sinks);
        }
        let unique = sort_unique(&mut record.sources, |left, right| left.of.cmp(&right.of))
            && sort_unique(&mut record.stores, |left, right| {
                (&left.store, left.partition).cmp(&(&right.store, right.partition))
            })
            && sort_unique(&mut record.sinks, |left, right| left.0.cmp(&right.0));
        if unique {
            return Ok(record);
        }
        let task = self.acks.iter().flatten().last().map_or(TaskIndex(0), |ack| ack.task);
        Err(Refusal::BrokenAcknowledgement {
            task,
            epoch: record.epoch,
            why: "a partition of a source, a store or a sink belongs to one task",
        })
    }
}

fn sort_unique<T>(items: &mut [T], order: impl Fn(&T, &T) -> Ordering + Copy) -> bool {
    items.sort_by(order);
    items.windows(2).all(|pair| order(&pair[0], &pair[1]) == Ordering::Less)
}
