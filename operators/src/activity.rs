//! What operators do on the workers: written by them once for each activation, read when somebody looks at the metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use thalweg_core::Epoch;

/// What one operator does on one worker.
pub struct Activity {
    operator: String,
    busy_nanos: AtomicU64,
    /// [`NO_EPOCH`] where the operator passes records on as they come.
    processed: AtomicU64,
}

const NO_EPOCH: u64 = u64::MAX;

impl Activity {
    pub(crate) fn new(operator: &str) -> Self {
        Self { operator: operator.to_owned(), busy_nanos: AtomicU64::new(0), processed: AtomicU64::new(NO_EPOCH) }
    }

    /// The id of the operator, source or sink.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// How long it has been at work.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed))
    }

    /// The last epoch that it has processed; nothing where it does not wait for epochs to be complete.
    pub fn processed(&self) -> Option<Epoch> {
        let epoch = self.processed.load(Ordering::Relaxed);
        (epoch != NO_EPOCH).then_some(Epoch(epoch))
    }

    /// It has processed an epoch.
    pub(crate) fn set_processed(&self, epoch: Epoch) {
        self.processed.store(epoch.0, Ordering::Relaxed);
    }

    /// Counts the time until the guard is dropped.
    pub(crate) fn begin(&self) -> Busy<'_> {
        Busy { activity: self, since: Instant::now() }
    }
}

/// An activation under way.
pub(crate) struct Busy<'a> {
    activity: &'a Activity,
    since: Instant,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.activity.busy_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}
