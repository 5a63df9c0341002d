//! Reading back what was written: up to the end, with nothing left out.

use std::ops::Range;
use std::time::Duration;

use thalweg_core::{Blame, Error, Generation, PartitionId, Result};

use super::{Log, LogReader, LogRecord, LogRecordRef};

/// Bytes read from a log at once.
const READ_BYTES: usize = 4 << 20;
/// How long the open transaction of somebody else may hold back what is read: longer than a broker lets one be open by default.
const HELD_BACK: Duration = Duration::from_secs(16 * 60);
/// How soon it is looked whether it has ended: at first, for ends follow a commit in a millisecond or two, and later.
const SOON: Duration = Duration::from_millis(1);
const SOON_FOR: Duration = Duration::from_millis(10);
const HELD_BACK_POLL: Duration = Duration::from_millis(10);
/// When one's own last transaction, which a fence has ended, is taken for one whose end was lost; where that did not help, again
/// after twice that time, and so on. Ends follow a fence in milliseconds, on a broker that has too much to do in a second; to be wrong
/// costs a record that nobody sees, and a checkpoint.
const LOST_END: Duration = Duration::from_secs(2);
/// How long a reader may say that there is nothing in front of an end that is there.
const BEHIND: Duration = Duration::from_secs(60);
/// When the user is told, and how often from then on.
const WORD: Duration = Duration::from_secs(10);

/// The only one who writes a topic, or its records that matter to the reader.
///
/// What it has left open in a partition is dropped, whatever was decided: an acknowledged commit counts once it is visible, so nobody
/// has acted upon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The id of its producer, fenced before it reads.
    pub id: &'a str,
    /// The generation that it was fenced for, which must still be the job's when something is ended: a process that was left for dead
    /// has no say.
    pub generation: Generation,
}

impl<'a> Owner<'a> {
    /// The owner that was fenced for a generation.
    pub fn fenced(id: &'a str, generation: Generation) -> Self {
        Self { id, generation }
    }
}

/// A partition that is read up to the end that it had when this was made.
///
/// Made for several partitions first, and read then, they are fetched side by side.
pub struct ToEnd {
    pub(super) reader: Option<Box<dyn LogReader>>,
    pub(super) from: u64,
    pub(super) end: u64,
}

impl ToEnd {
    /// Begins at an offset, when everything up to the end is decided.
    ///
    /// Records that are committed behind the open transaction of somebody else are not visible before that ends. They are waited for:
    /// what reads back what was written must not miss any of it. An open transaction of the owner is one whose end the log has lost,
    /// and is ended.
    ///
    /// Errors: those of the log; `log-held-back` where a transaction does not end.
    pub fn open(
        log: &dyn Log,
        topic: &str,
        partition: PartitionId,
        from: u64,
        owner: Option<Owner<'_>>,
    ) -> Result<Self> {
        let (_, end) = log.offsets(topic, partition)?;
        let mut opened = Self::open_all(log, topic, &[(partition, from..end)], owner)?;
        Ok(opened.pop().expect("one was asked for"))
    }

    /// The same of several partitions, from an offset to the end that the log has told, side by side.
    pub fn open_all(
        log: &dyn Log,
        topic: &str,
        parts: &[(PartitionId, Range<u64>)],
        owner: Option<Owner<'_>>,
    ) -> Result<Vec<Self>> {
        let ends: Vec<_> = parts.iter().map(|(partition, part)| (*partition, part.end)).collect();
        await_settled(log, topic, &ends, owner)?;
        let open = |(partition, Range { start: from, end }): &(PartitionId, Range<u64>)| {
            let reader = if from < end { Some(log.reader(topic, *partition, *from)?) } else { None };
            Ok(Self { reader, from: *from, end: *end })
        };
        parts.iter().map(open).collect()
    }

    /// Gives every committed record to `take`; returns the offset up to which everything was given.
    ///
    /// Errors: those of the log and of `take`.
    pub fn read(self, mut take: impl FnMut(LogRecord) -> Result<()>) -> Result<u64> {
        let mut records = Vec::new();
        self.read_by(|reader| {
            let any = reader.read(READ_BYTES, &mut records)?;
            records.drain(..).try_for_each(&mut take)?;
            Ok(any)
        })
    }

    /// [`ToEnd::read`] for whoever only looks at the records.
    ///
    /// Errors: those of the log and of `take`.
    pub fn read_ref(self, mut take: impl FnMut(LogRecordRef<'_>) -> Result<()>) -> Result<u64> {
        self.read_by(|reader| reader.read_ref(READ_BYTES, &mut take))
    }

    /// `some` reads on, and says whether anything was there.
    fn read_by(self, mut some: impl FnMut(&mut dyn LogReader) -> Result<bool>) -> Result<u64> {
        let Self { reader: Some(mut reader), end, .. } = self else { return Ok(self.from) };
        let mut waited = Duration::ZERO;
        loop {
            let any = some(&mut *reader)?;
            if reader.position() >= end {
                return Ok(reader.position());
            }
            if !any {
                // Everything up to the end is decided, but a broker that leads since a moment may not know it yet.
                waited += HELD_BACK_POLL;
                if waited >= BEHIND {
                    let text = format!("a partition was read up to offset {}, its end is {end}", reader.position());
                    return Err(Error::external("log-behind", text).retryable());
                }
                std::thread::sleep(HELD_BACK_POLL);
            }
        }
    }
}

/// [`ToEnd::open`] and [`ToEnd::read`] of one partition.
pub fn read_to_end(
    log: &dyn Log,
    topic: &str,
    partition: PartitionId,
    from: u64,
    owner: Option<Owner<'_>>,
    take: impl FnMut(LogRecord) -> Result<()>,
) -> Result<u64> {
    ToEnd::open(log, topic, partition, from, owner)?.read(take)
}

/// Waits until everything before these ends of partitions is decided. What the owner has left open there is dropped.
///
/// Returns whether anything may have been, here or by a process that took the job over meanwhile: a new producer of the owner's id
/// has to be fenced then.
///
/// Errors: those of the log; `fenced` where the owner's generation is over; `log-held-back` where a transaction does not end.
pub fn await_settled(
    log: &dyn Log,
    topic: &str,
    ends: &[(PartitionId, u64)],
    owner: Option<Owner<'_>>,
) -> Result<bool> {
    let (mut waited, mut released, mut next_release, mut next_word) = (Duration::ZERO, false, LOST_END, WORD);
    loop {
        let held = held_back(log, topic, ends)?;
        let Some((partition, stable, end)) = held.first() else { return Ok(released || waited >= LOST_END / 2) };
        if let Some(owner) = owner.filter(|_| waited >= next_release) {
            next_release *= 2;
            released = true;
            held.iter().try_for_each(|(partition, stable, _)| release(log, owner, topic, *partition, *stable))?;
        }
        let place = format!("topic {topic:?}, partition {partition}");
        if waited >= HELD_BACK {
            let text = format!(
                "{place}: an open transaction at offset {stable} holds back what is behind it, up to {end}; find its producer and end \
                 it (kafka-transactions.sh find-hanging)"
            );
            return Err(Error::external("log-held-back", text));
        }
        if waited >= next_word {
            next_word += WORD;
            tracing::warn!(
                "{place}: waiting for the end of the transaction at offset {stable}, which holds back what is behind it, up to {end}"
            );
        }
        let step = if waited < SOON_FOR { SOON } else { HELD_BACK_POLL };
        log.wait(step);
        waited += step;
    }
}

/// The partitions whose ends are not decided: where each is held back, and its end.
fn held_back(log: &dyn Log, topic: &str, ends: &[(PartitionId, u64)]) -> Result<Vec<(PartitionId, u64, u64)>> {
    let partitions: Vec<_> = ends.iter().map(|(partition, _)| *partition).collect();
    let stable = log.stable_ends(topic, &partitions)?;
    let held = ends.iter().zip(stable).filter(|((_, end), stable)| stable < end);
    Ok(held.map(|((partition, end), stable)| (*partition, stable, *end)).collect())
}

/// [`Log::release`], which is tried again later where the log does not take it.
fn release(log: &dyn Log, owner: Owner<'_>, topic: &str, partition: PartitionId, stable: u64) -> Result<()> {
    let place = format!("topic {topic:?}, partition {partition}");
    tracing::warn!("{place}: the end of a transaction at offset {stable} is lost; it is dropped");
    match log.release(owner, topic, partition) {
        Err(error) if error.blame() == Blame::External && error.code() != "fenced" => {
            tracing::warn!("{place}: {error}; it is tried again");
            Ok(())
        }
        outcome => outcome,
    }
}
