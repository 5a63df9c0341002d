//! When a checkpoint that was given up is followed by another attempt, and when no more: pure decisions.
//!
//! The epoch of a checkpoint that was given up is decided: its number lies in changelog records of unknown outcome, so no other
//! checkpoint of the generation may have it. Another attempt needs a later epoch, also where there is nothing more to read.

use std::time::Duration;

use thalweg_core::{Epoch, Error, Result};

/// From a failure to the next attempt: doubles from the first to the second.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Failures in a row after which the task stops: with the waits between them about two minutes, longer than a broker takes to start.
const MOST_FAILURES: u32 = 30;
/// The log has stopped for good after a write that failed: only a new process can write again.
const LOG_FAILED: &str = "log-failed";
/// Another process runs the job: this one must not disturb it again.
const FENCED: &str = "fenced";

/// What is known of the attempts since the last committed checkpoint. Times are since any fixed moment.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    failures: u32,
    not_before: Duration,
    given_up: Option<Epoch>,
    /// The first failure: those that follow it may only say that it happened.
    cause: Option<Error>,
}

impl Retries {
    /// A checkpoint cannot be written.
    ///
    /// Errors: the first failure, where another attempt cannot help any more; a newer generation at once.
    pub(crate) fn failed(&mut self, error: Error, now: Duration) -> Result<()> {
        if error.code() == FENCED {
            return Err(error);
        }
        let hopeless = error.code() == LOG_FAILED;
        self.cause.get_or_insert(error);
        self.failures += 1;
        if hopeless || self.failures >= MOST_FAILURES {
            return Err(self.take_cause());
        }
        self.not_before = now + WAIT.1.min(WAIT.0 * 2u32.pow((self.failures - 1).min(16)));
        Ok(())
    }

    /// A checkpoint was given up, by its own failure or by the coordinator.
    pub(crate) fn given_up(&mut self, epoch: Epoch) {
        self.given_up = Some(epoch);
    }

    /// A checkpoint is committed.
    pub(crate) fn committed(&mut self) {
        *self = Self::default();
    }

    /// How long until another attempt may be made.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        self.not_before.saturating_sub(now)
    }

    /// Whether another attempt needs an epoch after the last released one.
    pub(crate) fn needs_epoch(&self, released: Epoch) -> bool {
        self.given_up == Some(released)
    }

    /// Why the task stops where no further attempt can be made.
    pub(crate) fn take_cause(&mut self) -> Error {
        let failures = self.failures;
        let unknown = || Error::external("checkpoint-given-up", "the coordinator has given up the last checkpoint");
        let cause = self.cause.take().unwrap_or_else(unknown);
        cause.context(format!("the last checkpoint was given up after {failures} failures; start the job again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn broken(code: &'static str) -> Error {
        Error::external(code, format!("{code}!"))
    }

    #[test]
    fn attempts_get_rarer_and_end_with_the_first_error() {
        let mut retries = Retries::default();
        assert_eq!(retries.wait(MS), Duration::ZERO, "the first attempt waits for nothing");
        for (failures, wait) in (1..).zip([100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
            let code = if failures == 1 { "first" } else { "later" };
            retries.failed(broken(code), 10 * MS).expect("another attempt");
            assert_eq!(retries.wait(10 * MS), wait * MS, "after {failures} failures");
            assert_eq!(retries.wait((wait + 10) * MS), Duration::ZERO);
        }
        let last = (9..=MOST_FAILURES).find_map(|_| retries.failed(broken("later"), MS).err());
        assert_eq!(last.expect("it ends").code(), "first");
    }

    #[test]
    fn a_log_that_has_stopped_ends_it_at_once() {
        let mut retries = Retries::default();
        retries.failed(broken("disk-full"), MS).expect("another attempt");
        assert_eq!(retries.failed(broken(LOG_FAILED), MS).expect_err("hopeless").code(), "disk-full");
        retries.failed(broken("io"), MS).expect("another attempt");
        assert_eq!(retries.failed(broken(FENCED), MS).expect_err("hopeless").code(), FENCED);
    }

    #[test]
    fn an_epoch_is_needed_until_one_is_released_and_nothing_after_a_commit() {
        let mut retries = Retries::default();
        assert!(!retries.needs_epoch(Epoch(7)));
        retries.failed(broken("io"), MS).expect("another attempt");
        retries.given_up(Epoch(7));
        assert!(retries.needs_epoch(Epoch(7)) && !retries.needs_epoch(Epoch(8)));
        retries.committed();
        assert!(!retries.needs_epoch(Epoch(7)) && retries.wait(Duration::ZERO).is_zero());
    }
}
