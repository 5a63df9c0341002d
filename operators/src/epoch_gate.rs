//! Where epochs are opened, cut and released: shared by the sources of all workers of a task and by the task's driver.
//!
//! ```text
//!            processed        released          cut
//!   ──────────────┼────────────────┼───────────────┼──────────▶ epochs
//!   results are   │ bindings are   │ shares are    │ open: sources
//!   visible       │ durable        │ being bound   │ read into it
//! ```
//!
//! `processed <= released < cut`, and `cut - processed` is bounded: that is the back-pressure, for timely's queues have no bound.
//! A source holds its capability for every epoch that is not released. So no frontier passes an epoch before its binding and
//! those of all before it are durable, and nothing of it can be observed: the rule of the protocol holds by construction.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use thalweg_connectors::Lag;
use thalweg_core::{Binding, Epoch, PartitionSpec, Share, SourceKey};
use timely::scheduling::SyncActivator;

use crate::activity::Activity;

/// When a source partition ends its share of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// By time, or when one partition has reached a limit: then all partitions end their share together.
    Together,
    /// By the number of records of each partition alone, so that any two runs agree; bounded sources only.
    ByCount,
}

/// The limits of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochLimits {
    /// How shares end.
    pub cutting: Cutting,
    /// Most records of one source partition in one epoch.
    pub max_records: u64,
    /// Most raw bytes of one source partition in one epoch.
    pub max_bytes: u64,
    /// Most epochs that are minted and not processed.
    pub max_open: u64,
}

/// What sources tell the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// A share is complete.
    Share(Epoch, Share),
    /// The first record of this epoch was read, at this moment.
    Opened(Epoch, Instant),
    /// A partition has reached a limit.
    Full(Epoch),
    /// A bounded partition has no more records after the shares sent so far.
    Ended(SourceKey),
    /// It is known for the first time whether a partition has something to read; where it has ended, that is said before.
    Seen(SourceKey),
}

/// The recorded bindings that are repeated: of (C, B] after a restart, or those of another run.
pub struct Recorded {
    first: Epoch,
    bindings: Vec<Binding>,
}

impl Recorded {
    /// Bindings of consecutive epochs, beginning with `first`.
    pub fn new(first: Epoch, bindings: Vec<Binding>) -> Self {
        for pair in bindings.windows(2) {
            let names = |of: SourceKey| pair[1].shares.binary_search_by_key(&of, |share| share.of).is_ok();
            let kept = pair[0].shares.iter().all(|share| names(share.of));
            assert!(kept, "the binding of epoch {} names every source partition of the one before", pair[1].epoch);
        }
        for (index, binding) in bindings.iter().enumerate() {
            assert_eq!(binding.epoch.0, first.0 + index as u64, "recorded bindings have a gap");
            assert!(binding.shares.is_sorted_by_key(|share| share.of), "shares of a binding are sorted");
        }
        Self { first, bindings }
    }

    /// The binding of an epoch, where it is recorded.
    pub fn binding(&self, epoch: Epoch) -> Option<&Binding> {
        epoch.0.checked_sub(self.first.0).and_then(|index| self.bindings.get(index as usize))
    }

    /// The share of a partition in an epoch, where it is recorded.
    pub fn share(&self, epoch: Epoch, of: SourceKey) -> Option<Share> {
        let binding = self.binding(epoch)?;
        let index = binding.shares.binary_search_by_key(&of, |share| share.of).ok()?;
        Some(binding.shares[index])
    }

    /// The first epoch that a partition gives a share of: the first whose recorded binding names it, or the one behind them all.
    pub fn first_of(&self, of: SourceKey) -> Epoch {
        let names = |binding: &&Binding| binding.shares.binary_search_by_key(&of, |share| share.of).is_ok();
        self.bindings.iter().find(names).map_or(self.last().next(), |binding| binding.epoch)
    }

    /// The last recorded epoch, or the one before the first where nothing is recorded.
    pub fn last(&self) -> Epoch {
        Epoch(self.first.0 + self.bindings.len() as u64 - 1)
    }
}

/// See the module's description.
pub struct EpochGate {
    limits: EpochLimits,
    recorded: Recorded,
    /// Whether the recorded run is the whole run: nothing is minted after it.
    recorded_only: bool,
    cut: AtomicU64,
    released: AtomicU64,
    highest: AtomicU64,
    processed: Vec<AtomicU64>,
    sinks_processed: AtomicU64,
    dirty: Vec<AtomicU64>,
    held: AtomicBool,
    stopping: AtomicBool,
    times: RwLock<VecDeque<(Epoch, i64)>>,
    timers: Vec<AtomicI64>,
    next_timer_slot: AtomicUsize,
    checkpoint: AtomicU64,
    /// Source partitions that have come while the task runs, each with its first epoch.
    added: Mutex<Vec<(Epoch, PartitionSpec)>>,
    added_count: AtomicUsize,
    /// Source partitions that have ended, each with the last epoch that holds a record of it, or one behind that.
    ended: Mutex<BTreeMap<SourceKey, Epoch>>,
    fractions: Mutex<BTreeMap<SourceKey, f64>>,
    lags: Mutex<BTreeMap<SourceKey, Lag>>,
    activities: Mutex<Vec<Arc<Activity>>>,
    activators: Mutex<Vec<SyncActivator>>,
    events: Box<dyn Fn(SourceEvent) + Send + Sync>,
}

/// Timer slots of a task: one for each keyed operator and worker.
const TIMER_SLOTS: usize = 4096;

/// No timer is set.
pub const NO_TIMER: i64 = i64::MAX;

impl EpochGate {
    /// A gate that stands after `processed` (C), with `recorded` to repeat first.
    pub fn new(
        limits: EpochLimits,
        processed: Epoch,
        recorded: Recorded,
        recorded_only: bool,
        released: Epoch,
        workers: usize,
        events: Box<dyn Fn(SourceEvent) + Send + Sync>,
    ) -> Arc<Self> {
        let first_new = recorded.last().next();
        Arc::new(Self {
            limits,
            recorded_only,
            cut: AtomicU64::new(first_new.0),
            released: AtomicU64::new(released.0),
            highest: AtomicU64::new(processed.0),
            processed: (0..workers).map(|_| AtomicU64::new(processed.0)).collect(),
            sinks_processed: AtomicU64::new(processed.0),
            dirty: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            held: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            times: RwLock::new(recorded.bindings.iter().map(|binding| (binding.epoch, binding.minted_at)).collect()),
            recorded,
            timers: (0..TIMER_SLOTS).map(|_| AtomicI64::new(NO_TIMER)).collect(),
            next_timer_slot: AtomicUsize::new(0),
            checkpoint: AtomicU64::new(u64::MAX),
            added: Mutex::default(),
            added_count: AtomicUsize::new(0),
            ended: Mutex::default(),
            fractions: Mutex::default(),
            lags: Mutex::default(),
            activities: Mutex::default(),
            activators: Mutex::default(),
            events,
        })
    }

    /// The limits.
    pub fn limits(&self) -> EpochLimits {
        self.limits
    }

    /// What is repeated before anything new is minted.
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// Whether nothing is minted after what is recorded.
    pub fn recorded_only(&self) -> bool {
        self.recorded_only
    }

    /// The epoch that is open: shares of earlier ones have to end.
    #[inline]
    pub fn cut(&self) -> Epoch {
        Epoch(self.cut.load(Ordering::Acquire))
    }

    /// Ends every epoch before `opened`; only the driver calls it. Wakes the sources.
    pub fn cut_before(&self, opened: Epoch) {
        self.cut.fetch_max(opened.0, Ordering::AcqRel);
        self.wake();
    }

    /// Takes source partitions in, from the open epoch on, which is returned: its binding waits for their shares. So no source can
    /// have given up its capability for it. Only the driver calls it; wakes the sources.
    pub fn add(&self, partitions: &[PartitionSpec]) -> Epoch {
        let first = self.cut();
        let mut added = self.added.lock();
        added.extend(partitions.iter().map(|spec| (first, spec.clone())));
        self.added_count.store(added.len(), Ordering::Release);
        drop(added);
        self.wake();
        first
    }

    /// What was taken in behind the first `seen`, with the first epoch of each.
    pub(crate) fn added_since(&self, seen: usize) -> Vec<(Epoch, PartitionSpec)> {
        if self.added_count.load(Ordering::Acquire) == seen {
            return Vec::new();
        }
        self.added.lock()[seen..].to_vec()
    }

    /// The last epoch whose binding, and those of all before it, are durable.
    #[inline]
    pub fn released(&self) -> Epoch {
        Epoch(self.released.load(Ordering::Acquire))
    }

    /// Announces durable bindings; only the driver calls it, in order. Wakes the sources.
    pub fn release(&self, bindings: &[Binding]) {
        let Some(last) = bindings.last() else { return };
        {
            let mut times = self.times.write();
            times.extend(bindings.iter().map(|binding| (binding.epoch, binding.minted_at)));
            let processed = self.processed();
            while times.front().is_some_and(|(epoch, _)| *epoch < processed) {
                times.pop_front();
            }
        }
        self.released.store(last.epoch.0, Ordering::Release);
        self.wake();
    }

    /// The wall clock of a released epoch's binding.
    pub fn time_of(&self, epoch: Epoch) -> i64 {
        let times = self.times.read();
        let first = times.front().expect("an epoch that is processed has a binding").0;
        times[(epoch.0 - first.0) as usize].1
    }

    /// As [`EpochGate::time_of`], for epochs that may be forgotten already.
    pub fn try_time_of(&self, epoch: Epoch) -> Option<i64> {
        let times = self.times.read();
        let index = epoch.0.checked_sub(times.front()?.0.0)?;
        times.get(index as usize).map(|(_, time)| *time)
    }

    /// The highest epoch that any partition reads into, where shares end by count.
    pub fn highest(&self) -> Epoch {
        Epoch(self.highest.load(Ordering::Acquire))
    }

    /// Tells that a partition reads into `epoch`; wakes the others where that is news to them.
    pub fn reached(&self, epoch: Epoch) {
        if self.highest.fetch_max(epoch.0, Ordering::AcqRel) < epoch.0 && self.limits.cutting == Cutting::ByCount {
            self.wake();
        }
    }

    /// A worker has processed everything up to `epoch`.
    pub fn set_processed(&self, worker: usize, epoch: Epoch) {
        self.processed[worker].store(epoch.0, Ordering::Release);
    }

    /// The sinks have everything up to `epoch`.
    pub fn set_sinks_processed(&self, epoch: Epoch) {
        self.sinks_processed.store(epoch.0, Ordering::Release);
    }

    /// The last epoch that every worker and every sink has processed.
    pub fn processed(&self) -> Epoch {
        let workers = self.processed.iter().map(|epoch| epoch.load(Ordering::Acquire)).min();
        Epoch(workers.unwrap_or(u64::MAX).min(self.sinks_processed.load(Ordering::Acquire)))
    }

    /// A worker's stores hold so many bytes of changes that no applied checkpoint holds.
    pub fn set_dirty(&self, worker: usize, bytes: u64) {
        self.dirty[worker].store(bytes, Ordering::Relaxed);
    }

    /// The changes of all workers that no applied checkpoint holds, in bytes.
    pub fn dirty(&self) -> u64 {
        self.dirty.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// Holds back new epochs, or lets them go on: the hard cap on changes that no checkpoint holds.
    pub fn hold(&self, held: bool) {
        if self.held.swap(held, Ordering::AcqRel) && !held {
            self.wake();
        }
    }

    /// Whether new epochs are held back.
    pub fn held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Whether a source may read into `epoch`: the bounds on open epochs and on changes that no checkpoint holds. What is released
    /// already is a replay: no checkpoint can make room before it is over, and its changes were within the bound before.
    #[inline]
    pub fn may_open(&self, epoch: Epoch) -> bool {
        epoch.0 <= self.processed().0 + self.limits.max_open && (!self.held() || epoch <= self.released())
    }

    /// No more input is read: the open epoch is the last.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether no more input is read.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The epoch after which stores are sealed and sinks synced, once it is chosen; `Epoch(u64::MAX)` before.
    #[inline]
    pub fn checkpoint(&self) -> Epoch {
        Epoch(self.checkpoint.load(Ordering::Acquire))
    }

    /// Chooses the epoch after which everything is sealed: the last released one, by the driver, before it releases more.
    /// So nothing is processed beyond it yet, and whoever is about to do that sees the choice first.
    pub fn set_checkpoint(&self, epoch: Epoch) {
        self.checkpoint.store(epoch.0, Ordering::Release);
    }

    /// A source partition has ended: all of its records are in `last` and earlier epochs. Wakes the sources, of which some may follow.
    pub(crate) fn ended(&self, of: SourceKey, last: Epoch) {
        self.ended.lock().insert(of, last);
        self.wake();
    }

    /// The last epoch with a record of these partitions of a source, once all of them have ended.
    pub(crate) fn all_ended(&self, partitions: &[SourceKey]) -> Option<Epoch> {
        let ended = self.ended.lock();
        partitions.iter().try_fold(Epoch::ZERO, |last, of| ended.get(of).map(|epoch| last.max(*epoch)))
    }

    /// A place for one operator's earliest timer.
    pub fn timer_slot(&self) -> usize {
        let slot = self.next_timer_slot.fetch_add(1, Ordering::Relaxed);
        assert!(slot < TIMER_SLOTS, "a task has at most {TIMER_SLOTS} operators with timers over all workers");
        slot
    }

    /// Sets the earliest timer of an operator, microseconds since 1970.
    pub fn set_timer(&self, slot: usize, due: i64) {
        self.timers[slot].store(due, Ordering::Release);
    }

    /// The earliest timer of all operators.
    pub fn earliest_timer(&self) -> i64 {
        let used = self.next_timer_slot.load(Ordering::Relaxed).min(TIMER_SLOTS);
        self.timers[..used].iter().map(|due| due.load(Ordering::Acquire)).min().unwrap_or(NO_TIMER)
    }

    /// A source partition is read so far, 0 to 1.
    pub fn set_fraction(&self, of: SourceKey, fraction: f64) {
        self.fractions.lock().insert(of, fraction);
    }

    /// The mean of how far the source partitions are read, where every one of `partitions` can tell.
    pub fn fraction(&self, partitions: usize) -> Option<f64> {
        let fractions = self.fractions.lock();
        (partitions > 0 && fractions.len() == partitions).then(|| fractions.values().sum::<f64>() / partitions as f64)
    }

    /// A source partition is so far behind.
    pub(crate) fn set_lag(&self, of: SourceKey, lag: Lag) {
        self.lags.lock().insert(of, lag);
    }

    /// How far each source partition is behind that can tell.
    pub fn lags(&self) -> Vec<(SourceKey, Lag)> {
        self.lags.lock().iter().map(|(of, lag)| (*of, *lag)).collect()
    }

    /// A place for what an operator does on one worker.
    pub(crate) fn activity(&self, operator: &str) -> Arc<Activity> {
        let activity = Arc::new(Activity::new(operator));
        self.activities.lock().push(activity.clone());
        activity
    }

    /// What all operators do, on all workers.
    pub fn activities(&self) -> Vec<Arc<Activity>> {
        self.activities.lock().clone()
    }

    /// Registers a source that is woken when an epoch is cut or released.
    pub fn register(&self, activator: SyncActivator) {
        self.activators.lock().push(activator);
    }

    /// Wakes all sources.
    pub fn wake(&self) {
        for activator in &*self.activators.lock() {
            // An error says that the worker has ended: then there is nothing to wake.
            let _ = activator.activate();
        }
    }

    /// Tells the driver.
    pub fn tell(&self, event: SourceEvent) {
        (self.events)(event);
    }
}
