//! How far a restore from changelogs has come.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thalweg_core::RestoreInfo;

/// Written by the threads that restore, read by anybody.
#[derive(Default)]
pub struct RestoreProgress {
    done: AtomicU64,
    total: AtomicU64,
    since: Mutex<Option<Instant>>,
}

impl RestoreProgress {
    /// So many records have to be read.
    pub(crate) fn begin(&self, total: u64) {
        self.total.store(total, Ordering::Release);
        *self.since.lock() = Some(Instant::now());
    }

    /// So many have to be read once more.
    pub(crate) fn again(&self, records: u64) {
        self.total.fetch_add(records, Ordering::AcqRel);
    }

    /// So many more are read.
    pub(crate) fn advance(&self, records: u64) {
        self.done.fetch_add(records, Ordering::AcqRel);
    }

    /// Nothing is left.
    pub(crate) fn end(&self) {
        *self.since.lock() = None;
    }

    /// Records that are left to read.
    pub(crate) fn remaining(&self) -> u64 {
        self.info().map_or(0, |info| info.total - info.done)
    }

    /// Nothing where nothing is restored from a changelog now.
    pub(crate) fn info(&self) -> Option<RestoreInfo> {
        let elapsed = (*self.since.lock())?.elapsed();
        let total = self.total.load(Ordering::Acquire);
        Some(info(self.done.load(Ordering::Acquire).min(total), total, elapsed))
    }
}

fn info(done: u64, total: u64, elapsed: Duration) -> RestoreInfo {
    let left = || (elapsed.as_millis() as f64 * (total - done) as f64 / done as f64) as u64;
    RestoreInfo { done, total, left_ms: (done > 0).then(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let second = Duration::from_secs(1);
        for (done, total, left_ms) in
            [(0, 10, None), (5, 10, Some(1000)), (10, 10, Some(0)), (1, 1001, Some(1_000_000))]
        {
            assert_eq!(info(done, total, second), RestoreInfo { done, total, left_ms });
        }
    }

    #[test]
    fn it_is_told_only_while_it_lasts() {
        let progress = RestoreProgress::default();
        assert_eq!((progress.info(), progress.remaining()), (None, 0));
        progress.begin(10);
        progress.advance(4);
        assert_eq!(progress.remaining(), 6);
        // Records may be appended, and counted, while a changelog is read.
        progress.advance(7);
        assert_eq!(progress.remaining(), 0);
        progress.again(5);
        assert_eq!(progress.remaining(), 4);
        progress.end();
        assert_eq!(progress.info(), None);
    }
}
