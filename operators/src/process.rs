//! What a job author implements and is given: one call per key and epoch.

use std::cell::{Cell, RefCell};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thalweg_core::{Data, Epoch, Key, KeyHash, OriginId, PartitionId, Provenance, Record};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What user code may return: any error; the job's `on_error` decides what happens.
pub type ProcessError = Box<dyn std::error::Error + Send + Sync>;

/// The state of one key: plain data with serde.
pub trait State: Serialize + DeserializeOwned + 'static {}
impl<T: Serialize + DeserializeOwned + 'static> State for T {}

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl std::ops::Add<std::time::Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, duration: std::time::Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

/// An operator with state of its own for each key.
///
/// Called once per key and epoch, when the epoch is closed: with all records of that key in the epoch, in an order that does
/// not depend on timing, and the key's state, which is kept where the call returns `Ok`. The outcome must be a function of the
/// arguments alone: time and chance come from [`EpochCtx`]. A call that fails or panics is undone, and the job's `on_error`
/// decides what is done with the record that it was given last.
///
/// ```
/// use thalweg_operators::{EpochCtx, KeyedProcess, Output, ProcessError, RecordsOf};
///
/// /// Running total per customer.
/// struct Totals;
///
/// impl KeyedProcess for Totals {
///     type Key = String;
///     type In = u64;
///     type State = u64;
///     type Out = (String, u64);
///     fn process(
///         &self,
///         customer: &String,
///         cents: &mut RecordsOf<'_, String, u64>,
///         total: &mut Option<u64>,
///         out: &mut Output<(String, u64)>,
///         _: &EpochCtx,
///     ) -> Result<(), ProcessError> {
///         let sum = total.get_or_insert(0);
///         for cents in cents {
///             *sum += cents;
///         }
///         out.emit((customer.clone(), *sum));
///         Ok(())
///     }
/// }
/// ```
pub trait KeyedProcess: Send + Sync + 'static {
    /// What records are grouped by.
    type Key: Key;
    /// What comes in.
    type In: Data;
    /// What is kept for each key; nothing where the key is absent.
    type State: State;
    /// What goes out.
    type Out: Data;

    /// Whether [`EpochCtx::set_timer`] is used: then the operator keeps a second store, for its timers.
    const TIMERS: bool = true;

    /// All records of one key in one epoch.
    fn process(
        &self,
        key: &Self::Key,
        records: &mut RecordsOf<'_, Self::Key, Self::In>,
        state: &mut Option<Self::State>,
        out: &mut Output<Self::Out>,
        ctx: &EpochCtx,
    ) -> Result<(), ProcessError>;

    /// A timer that [`EpochCtx::set_timer`] set for the key is due: the epoch's time is at or after it. Timers come before the
    /// records of an epoch, in order of time, then key.
    fn on_timer(
        &self,
        key: &Self::Key,
        at: Timestamp,
        state: &mut Option<Self::State>,
        out: &mut Output<Self::Out>,
        ctx: &EpochCtx,
    ) -> Result<(), ProcessError> {
        let _ = (key, at, state, out, ctx);
        Ok(())
    }

    /// Whether [`KeyedProcess::migrate`] reads states of other shapes.
    const MIGRATES: bool = false;

    /// Reads the state of a key as an earlier version of the operator wrote it. Called once for each key, when the job is
    /// started with another shape of its state; only where `MIGRATES` is true, else another shape is refused with both shown.
    fn migrate(&self, old: &OldState<'_>) -> Result<Self::State, ProcessError> {
        Err(format!("no migration from {}", old.shape).into())
    }

    /// The state of a key as JSON, for queries; as serde gives it unless the operator shows it another way.
    fn show(&self, state: &Self::State) -> Result<String, ProcessError> {
        Ok(serde_json::to_string(state)?)
    }
}

/// A state in the encoding of an earlier version.
pub struct OldState<'a> {
    /// What it looked like, in the words of [`crate::shape_of`].
    pub shape: &'a str,
    pub(crate) bytes: &'a [u8],
}

impl OldState<'_> {
    /// The state as the type that it was.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ProcessError> {
        Ok(postcard::from_bytes(self.bytes)?)
    }
}

/// End of a chain of records.
pub(crate) const END: u32 = u32::MAX;

/// The records of one key in one epoch, in provenance order.
pub struct RecordsOf<'a, K, T> {
    records: &'a [Record<thalweg_core::Keyed<K, T>>],
    next: &'a [u32],
    current: u32,
    /// Records that an earlier, failed call was given last: passed over.
    skipped: &'a [u32],
    last: u32,
    left: usize,
}

impl<'a, K, T> RecordsOf<'a, K, T> {
    pub(crate) fn new(
        records: &'a [Record<thalweg_core::Keyed<K, T>>],
        next: &'a [u32],
        first: u32,
        count: usize,
        skipped: &'a [u32],
    ) -> Self {
        Self { records, next, current: first, skipped, last: END, left: count - skipped.len() }
    }

    /// The index of the record that was given last, if any was.
    pub(crate) fn last_given(&self) -> Option<u32> {
        (self.last != END).then_some(self.last)
    }
}

impl<'a, K, T> Iterator for RecordsOf<'a, K, T> {
    type Item = &'a T;

    #[inline]
    fn next(&mut self) -> Option<&'a T> {
        while self.current != END {
            let index = self.current;
            self.current = self.next[index as usize];
            if self.skipped.is_empty() || !self.skipped.contains(&index) {
                self.last = index;
                self.left -= 1;
                return Some(&self.records[index as usize].value.value);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, T> ExactSizeIterator for RecordsOf<'_, K, T> {}

/// Takes what an operator emits; numbered in the order of emission.
pub struct Output<T> {
    records: Vec<Record<T>>,
    origin: OriginId,
    partition: PartitionId,
    sequence: u64,
}

impl<T> Output<T> {
    pub(crate) fn new(origin: OriginId) -> Self {
        Self { records: Vec::new(), origin, partition: PartitionId(0), sequence: 0 }
    }

    /// Sends a record on.
    #[inline]
    pub fn emit(&mut self, value: T) {
        let provenance = Provenance::new(self.origin, self.partition, self.sequence);
        self.sequence += 1;
        self.records.push(Record { provenance, value });
    }

    /// What follows belongs to this partition; its numbers begin anew.
    pub(crate) fn begin_partition(&mut self, partition: PartitionId) {
        self.partition = partition;
        self.sequence = 0;
    }

    /// A point to go back to.
    pub(crate) fn mark(&self) -> (usize, u64) {
        (self.records.len(), self.sequence)
    }

    /// Takes back what was emitted since the point.
    pub(crate) fn rewind(&mut self, (length, sequence): (usize, u64)) {
        self.records.truncate(length);
        self.sequence = sequence;
    }

    pub(crate) fn records(&mut self) -> &mut Vec<Record<T>> {
        &mut self.records
    }
}

/// The only clock, chance and side channel of user code: all of it is a function of the log.
pub struct EpochCtx {
    epoch: Epoch,
    time: Timestamp,
    seed: u64,
    key: Cell<KeyHash>,
    draws: Cell<u64>,
    timers: RefCell<Vec<Timestamp>>,
}

impl EpochCtx {
    pub(crate) fn new(epoch: Epoch, time: Timestamp, seed: u64) -> Self {
        Self { epoch, time, seed, key: Cell::new(KeyHash(0)), draws: Cell::new(0), timers: RefCell::default() }
    }

    /// The epoch that is processed.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Wall clock of the epoch's binding: the same in every replay.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// A random number: a function of the job, the operator, the epoch, the key and how many were drawn before in this call.
    pub fn random(&self) -> u64 {
        let draw = self.draws.get();
        self.draws.set(draw + 1);
        let mut input = [0; 24];
        input[..8].copy_from_slice(&self.epoch.0.to_le_bytes());
        input[8..16].copy_from_slice(&self.key.get().0.to_le_bytes());
        input[16..].copy_from_slice(&draw.to_le_bytes());
        xxh3_64_with_seed(&input, self.seed)
    }

    /// Calls [`KeyedProcess::on_timer`] for the current key in the first epoch whose time is at or after `at` and that comes
    /// after this one. Setting the same time twice is one timer.
    pub fn set_timer(&self, at: Timestamp) {
        self.timers.borrow_mut().push(at);
    }

    /// Before each call: whose call it is.
    #[inline]
    pub(crate) fn begin_call(&self, key: KeyHash) {
        self.key.set(key);
        self.draws.set(0);
    }

    /// The timers that the last call set.
    pub(crate) fn take_timers(&self) -> Vec<Timestamp> {
        if self.timers.borrow().is_empty() { Vec::new() } else { self.timers.take() }
    }
}
