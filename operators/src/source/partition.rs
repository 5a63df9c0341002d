//! What a source operator knows of a partition that it reads.

use std::time::{Duration, Instant};

use thalweg_connectors::dead_letter::is_retry;
use thalweg_connectors::{Lag, RecordReader};
use thalweg_core::{Epoch, PartitionSpec, Series};

use super::BATCH_RECORDS;

/// One partition that is read on this worker.
pub(super) struct Partition<T> {
    pub(super) spec: PartitionSpec,
    pub(super) reader: Box<dyn RecordReader<T>>,
    /// The epoch that its share is open for.
    pub(super) epoch: Epoch,
    /// Records of the share, good and bad.
    pub(super) count: u64,
    /// Raw bytes of the share, as far as positions tell them.
    pub(super) started_at: u64,
    /// The number of the next good record.
    pub(super) sequence: u64,
    /// The number of the next bad record that is set aside.
    pub(super) set_aside: u64,
    pub(super) ended: bool,
    /// It gives what was a dead letter and is read once more.
    pub(super) retries: bool,
    /// It is not read before those that lead have ended.
    pub(super) follows: bool,
    /// The driver knows that nothing more comes.
    pub(super) told_end: bool,
    /// The driver knows that it was looked at.
    pub(super) told_seen: bool,
    /// What the last turn came to.
    pub(super) turn: Turn,
    /// What is known of how far it is behind.
    pub(super) lag: Option<Lag>,
    /// Its reader wakes the operator.
    pub(super) wakes: bool,
    pub(super) pace: Option<Pace>,
}

impl<T> Partition<T> {
    /// One whose share of `epoch` begins where the reader is.
    pub(super) fn new(spec: PartitionSpec, reader: Box<dyn RecordReader<T>>, epoch: Epoch) -> Self {
        Self {
            retries: is_retry(&spec),
            spec,
            started_at: reader.bytes(),
            reader,
            epoch,
            count: 0,
            sequence: 0,
            set_aside: 0,
            ended: false,
            follows: false,
            told_end: false,
            told_seen: false,
            turn: Turn::Read,
            lag: None,
            wakes: false,
            pace: None,
        }
    }
}

/// Keeps a partition to its part of the source's rate.
pub(super) struct Pace {
    pub(super) per_second: f64,
    pub(super) since: Instant,
    pub(super) read: u64,
}

impl Pace {
    pub(super) fn new(per_second: f64) -> Self {
        Self { per_second, since: Instant::now(), read: 0 }
    }

    /// How many records may be read now.
    pub(super) fn allowance(&self) -> usize {
        let due = self.since.elapsed().as_secs_f64() * self.per_second;
        (due - self.read as f64).clamp(0.0, BATCH_RECORDS as f64) as usize
    }

    /// How long until one more may be read; nothing where one may be read now.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let at = Duration::try_from_secs_f64((self.read + 1) as f64 / self.per_second).unwrap_or(Duration::MAX);
        at.checked_sub(self.since.elapsed()).filter(|left| !left.is_zero())
    }
}

/// How often input was gone, as it is shown.
pub(super) struct Losses {
    pub(super) series: Series,
    pub(super) seen: u64,
}

impl Losses {
    pub(super) fn note(&mut self, total: u64) {
        if total > self.seen {
            self.series.add(total - self.seen);
            self.seen = total;
        }
    }
}

/// What a turn of one partition came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// Nothing to do before somebody wakes the operator.
    Waiting,
    /// Nothing there for now.
    Idle,
    /// The bound on open epochs holds it back.
    HeldBack,
    /// Something was read.
    Read,
}
