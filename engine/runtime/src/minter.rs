//! When the open epoch ends: a pure decision over what the driver knows.

use std::time::Duration;

use thalweg_core::Epoch;
use thalweg_operators::{Cutting, EpochLimits};

/// What the driver knows about the open epoch. Times are since any fixed moment.
#[derive(Clone, Debug)]
pub(crate) struct Minter {
    limits: EpochLimits,
    interval: Duration,
    /// The epoch that is open.
    open: Epoch,
    /// When the first record of the open epoch was read.
    since: Option<Duration>,
    /// A partition has reached a limit.
    full: bool,
    /// Source partitions that are not at their end.
    reading: usize,
    /// Source partitions that were not looked at yet.
    unseen: usize,
    stopping: bool,
}

/// What to do about the open epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// End every epoch before this one.
    Before(Epoch),
    /// Look again at this time, or when something happens.
    At(Duration),
    /// Nothing to do before something happens.
    Wait,
    /// Input has ended, and so has the last epoch.
    Over,
}

/// What the rest of the task says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Now.
    pub(crate) now: Duration,
    /// How long until the earliest timer is due, if one is set.
    pub(crate) timer_in: Option<Duration>,
    /// An epoch is wanted even if there is nothing to read: a checkpoint that was given up is made up for at a later one only.
    pub(crate) wanted: bool,
    /// The last epoch that everything has processed.
    pub(crate) processed: Epoch,
    /// The highest epoch that any partition reads into, where shares end by count.
    pub(crate) highest: Epoch,
}

impl Minter {
    pub(crate) fn new(limits: EpochLimits, interval: Duration, open: Epoch, partitions: usize) -> Self {
        Self {
            limits,
            interval,
            open,
            since: None,
            full: false,
            reading: partitions,
            unseen: partitions,
            stopping: false,
        }
    }

    /// The first record of an epoch was read.
    pub(crate) fn opened(&mut self, epoch: Epoch, now: Duration) {
        if epoch == self.open && self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// A partition has reached a limit in an epoch.
    pub(crate) fn full(&mut self, epoch: Epoch) {
        self.full |= epoch == self.open;
    }

    /// A source partition is at its end.
    pub(crate) fn ended(&mut self) {
        self.reading -= 1;
    }

    /// So many source partitions have come.
    pub(crate) fn added(&mut self, partitions: usize) {
        self.reading += partitions;
        self.unseen += partitions;
    }

    /// It is known of one more source partition whether there is something to read.
    pub(crate) fn seen(&mut self) {
        self.unseen -= 1;
    }

    /// No more input is read.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Decides.
    pub(crate) fn decide(&mut self, facts: Facts) -> Cut {
        let over = self.reading == 0 || self.stopping && self.limits.cutting == Cutting::Together;
        if self.limits.cutting == Cutting::ByCount {
            return match over || self.stopping && self.reading == 0 {
                true if facts.highest >= self.open => self.cut(facts.highest.next()),
                true => Cut::Over,
                false => Cut::Wait,
            };
        }
        // A job whose input has ended stays as it is when it is started again, also where timers are left.
        let timer_in = facts.timer_in.filter(|_| self.unseen == 0);
        let timer_due = timer_in.is_some_and(|due| due.is_zero()) && !over;
        if (timer_due || facts.wanted) && self.since.is_none() && self.may_open(facts.processed) {
            return self.cut(self.open.next());
        }
        let Some(since) = self.since else {
            return match timer_in {
                _ if over && !facts.wanted => Cut::Over,
                Some(due) if due.is_zero() => Cut::Wait,
                Some(due) => Cut::At(facts.now + due),
                None => Cut::Wait,
            };
        };
        let due = since + self.interval;
        if over || self.full || facts.now >= due {
            // Held back: somebody will process an epoch, and then this is asked again.
            return if self.may_open(facts.processed) { self.cut(self.open.next()) } else { Cut::Wait };
        }
        Cut::At(due)
    }

    /// Whether one more epoch may be open besides those that are not processed.
    fn may_open(&self, processed: Epoch) -> bool {
        self.open.0 < processed.0 + self.limits.max_open
    }

    fn cut(&mut self, before: Epoch) -> Cut {
        self.open = before;
        self.since = None;
        self.full = false;
        Cut::Before(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn minter(cutting: Cutting) -> Minter {
        let limits = EpochLimits { cutting, max_records: 10, max_bytes: 1 << 20, max_open: 2 };
        Minter::new(limits, 20 * MS, Epoch(5), 2)
    }

    fn facts(now: u32, processed: u64) -> Facts {
        Facts { now: now * MS, timer_in: None, wanted: false, processed: Epoch(processed), highest: Epoch(processed) }
    }

    #[test]
    fn an_epoch_ends_by_time_by_a_limit_and_at_the_end_of_input() {
        let mut minter = minter(Cutting::Together);
        assert_eq!(minter.decide(facts(0, 4)), Cut::Wait, "nothing was read: nothing is minted");
        minter.opened(Epoch(5), 3 * MS);
        assert_eq!(minter.decide(facts(4, 4)), Cut::At(23 * MS));
        assert_eq!(minter.decide(facts(23, 4)), Cut::Before(Epoch(6)));
        minter.opened(Epoch(6), 24 * MS);
        minter.full(Epoch(5));
        assert_eq!(minter.decide(facts(25, 5)), Cut::At(44 * MS), "a limit of an earlier epoch is no news");
        minter.full(Epoch(6));
        assert_eq!(minter.decide(facts(25, 4)), Cut::Wait, "two epochs are open already");
        assert_eq!(minter.decide(facts(25, 5)), Cut::Before(Epoch(7)));
        minter.opened(Epoch(7), 26 * MS);
        minter.ended();
        minter.ended();
        assert_eq!(minter.decide(facts(26, 6)), Cut::Before(Epoch(8)));
        assert_eq!(minter.decide(facts(26, 6)), Cut::Over);
    }

    #[test]
    fn a_timer_mints_an_empty_epoch_when_it_is_due() {
        let mut minter = minter(Cutting::Together);
        let later = Facts { timer_in: Some(7 * MS), ..facts(0, 4) };
        assert_eq!(minter.decide(later), Cut::Wait, "perhaps all input has ended");
        minter.seen();
        assert_eq!(minter.decide(later), Cut::Wait);
        minter.seen();
        assert_eq!(minter.decide(later), Cut::At(7 * MS));
        let due = Facts { timer_in: Some(Duration::ZERO), ..facts(7, 4) };
        assert_eq!(minter.decide(due), Cut::Before(Epoch(6)));
    }

    #[test]
    fn timers_that_are_left_at_the_end_of_input_mint_nothing() {
        let mut minter = minter(Cutting::Together);
        let due = Facts { timer_in: Some(Duration::ZERO), ..facts(7, 4) };
        for _ in 0..2 {
            assert_eq!(minter.decide(due), Cut::Wait);
            minter.ended();
            minter.seen();
        }
        assert_eq!(minter.decide(due), Cut::Over);
    }

    #[test]
    fn a_wanted_epoch_is_minted_without_records_also_after_the_end_of_input() {
        let mut minter = minter(Cutting::Together);
        let wanted = |processed| Facts { wanted: true, ..facts(7, processed) };
        assert_eq!(minter.decide(wanted(4)), Cut::Before(Epoch(6)));
        assert_eq!(minter.decide(wanted(4)), Cut::Wait, "two epochs are open already");
        minter.ended();
        minter.ended();
        assert_eq!(minter.decide(wanted(4)), Cut::Wait, "it is not over");
        assert_eq!(minter.decide(wanted(5)), Cut::Before(Epoch(7)));
        assert_eq!(minter.decide(facts(8, 7)), Cut::Over);
    }

    #[test]
    fn by_count_the_last_epoch_is_the_highest_that_was_read() {
        let mut minter = minter(Cutting::ByCount);
        minter.opened(Epoch(5), MS);
        assert_eq!(minter.decide(facts(100, 4)), Cut::Wait);
        minter.ended();
        minter.ended();
        assert_eq!(minter.decide(Facts { highest: Epoch(9), ..facts(100, 4) }), Cut::Before(Epoch(10)));
        assert_eq!(minter.decide(Facts { highest: Epoch(9), ..facts(100, 9) }), Cut::Over);
    }
}
