//! A source that ends, then another one: history first, from files or an older topic, then what goes on.
//!
//! Both are partitions of one source. Those of the second [follow](crate::RecordSource::follows) those of the first: nothing of them
//! is read before all of the first have ended, in an epoch behind the last with a record of those. Which phase a partition is in
//! is told by its position: one of the first is over at its end, one of the second has not begun at its start.
//!
//! A partition's identity is `backfill:N:…` or `after:N:…` with its number and identity in its own source. Those of retried records,
//! of which each has its own, wait for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thalweg_core::{Error, PartitionId, PartitionSpec, Result, SourceKey};

use crate::dead_letter::{Retries, is_retry, retry_identity, without_retry};
use crate::{RecordReader, RecordSource};

/// Two sources, one after the other, as one.
///
/// ```
/// use std::sync::Arc;
/// use thalweg_connectors::{Backfilled, GeneratorSource, RecordSource};
///
/// let made = |count| Arc::new(GeneratorSource { count, keys: 10, skew: 0.0, seed: 7, partitions: 2 });
/// let source = Backfilled::new(made(Some(100)), made(None));
/// let partitions = source.discover(0).unwrap();
/// let follows: Vec<bool> = partitions.iter().map(|spec| source.follows(spec)).collect();
/// assert_eq!(follows, [false, false, true, true]);
/// ```
pub struct Backfilled<T> {
    first: Arc<dyn RecordSource<T>>,
    then: Arc<dyn RecordSource<T>>,
    /// The partitions that were opened: of which source each is, and its number there.
    opened: Mutex<BTreeMap<PartitionId, (Phase, PartitionId)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    First,
    Then,
}

impl Phase {
    const ALL: [(Self, &'static str); 2] = [(Self::First, "backfill"), (Self::Then, "after")];
}

impl<T> Backfilled<T> {
    /// `first`, which has to end, and then `then`.
    pub fn new(first: Arc<dyn RecordSource<T>>, then: Arc<dyn RecordSource<T>>) -> Self {
        Self { first, then, opened: Mutex::default() }
    }

    fn of(&self, phase: Phase) -> &dyn RecordSource<T> {
        match phase {
            Phase::First => &*self.first,
            Phase::Then => &*self.then,
        }
    }
}

/// A partition of one of the two as one of both.
fn wrap(phase: Phase, spec: PartitionSpec) -> PartitionSpec {
    let (_, name) = Phase::ALL.into_iter().find(|(own, _)| *own == phase).expect("each has a name");
    let identity = format!("{name}:{}:{}", spec.of.partition.0, spec.identity);
    PartitionSpec { identity: if is_retry(&spec) { retry_identity(&identity) } else { identity }, ..spec }
}

/// Which source a partition is of, and what it is there.
fn unwrap(spec: &PartitionSpec) -> Result<(Phase, PartitionSpec)> {
    let parts = || {
        let (name, rest) = without_retry(&spec.identity).split_once(':')?;
        let (phase, _) = Phase::ALL.into_iter().find(|(_, own)| *own == name)?;
        let (number, identity) = rest.split_once(':')?;
        let of = SourceKey { partition: PartitionId(number.parse().ok()?), ..spec.of };
        Some((phase, PartitionSpec { of, identity: identity.to_owned(), ..spec.clone() }))
    };
    parts().ok_or_else(|| {
        let text = format!(
            "{}: the source had no backfill when the job was created; take that out again, or give the source another id",
            spec.name
        );
        Error::user("source-changed", text)
    })
}

impl<T: 'static> RecordSource<T> for Backfilled<T> {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        let mut found = Vec::new();
        for (phase, _) in Phase::ALL {
            let specs = self.of(phase).discover(source)?.into_iter().map(|spec| wrap(phase, spec));
            found.extend(specs);
        }
        for (number, spec) in found.iter_mut().enumerate() {
            let number = u16::try_from(number).map_err(|_| {
                Error::user(
                    "too-many-partitions",
                    "a source has at most 65536 partitions, those of its backfill included",
                )
            })?;
            spec.of.partition = PartitionId(number);
        }
        Ok(found)
    }

    fn discover_interval(&self) -> Option<Duration> {
        self.then.discover_interval()
    }

    fn discover_more(&self, source: u16, known: &[PartitionSpec]) -> Result<Vec<PartitionSpec>> {
        let known: Vec<(Phase, PartitionSpec)> = known.iter().map(unwrap).collect::<Result<_>>()?;
        let own = known.into_iter().filter(|(phase, _)| *phase == Phase::Then).map(|(_, spec)| spec);
        let more = self.then.discover_more(source, &own.collect::<Vec<_>>())?;
        Ok(more.into_iter().map(|spec| wrap(Phase::Then, spec)).collect())
    }

    fn is_backfill(&self, partition: &PartitionSpec) -> bool {
        matches!(unwrap(partition), Ok((Phase::First, _)))
    }

    fn set_retries(&self, retries: Retries) {
        self.first.set_retries(retries.of_backfill());
        self.then.set_retries(retries);
    }

    fn follows(&self, partition: &PartitionSpec) -> bool {
        !is_retry(partition) && matches!(unwrap(partition), Ok((Phase::Then, _)))
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<T>>> {
        let (phase, own) = unwrap(partition)?;
        self.opened.lock().insert(partition.of.partition, (phase, own.of.partition));
        self.of(phase).open(&own, from)
    }

    fn topic_of(&self, partition: &PartitionSpec) -> Option<(String, u32)> {
        let (phase, own) = unwrap(partition).ok()?;
        self.of(phase).topic_of(&own)
    }

    fn committed(&self, partition: PartitionId, position: u64) -> Result<()> {
        let opened = self.opened.lock().get(&partition).copied();
        opened.map_or(Ok(()), |(phase, own)| self.of(phase).committed(own, position))
    }
}
