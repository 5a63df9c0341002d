//! Reading back what was written: up to the end, with nothing left out.

use std::time::Duration;

use thalweg_core::{Error, PartitionId, Result};

use super::{Log, LogReader, LogRecord};

/// Bytes read from a log at once.
const READ_BYTES: usize = 4 << 20;
/// How long the open transaction of somebody else may hold back what is read: longer than a broker lets one be open by default.
const HELD_BACK: Duration = Duration::from_secs(16 * 60);
/// How soon it is looked whether it has ended.
const HELD_BACK_POLL: Duration = Duration::from_millis(10);
/// When one's own last transaction, which a fence has ended, is taken for one whose end was lost. Ends follow a fence in milliseconds;
/// to be wrong costs a record that nobody sees.
const LOST_END: Duration = Duration::from_millis(500);
/// How long a reader may say that there is nothing in front of an end that is there.
const BEHIND: Duration = Duration::from_secs(60);
/// When the user is told, and how often from then on.
const WORD: Duration = Duration::from_secs(10);

/// What becomes of records that stand in a partition without the end of their transaction, when somebody ends it at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// They count: an acknowledged commit must not be undone, and whoever reads the topic can tell what it has to leave out. A
    /// record without key and value is committed with them.
    Commit,
    /// They do not: what was not seen is written again.
    Abort,
}

/// The only one who writes a topic, or its records that matter to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The id of its producer, fenced before it reads.
    pub id: &'a str,
    /// What becomes of what it has left open.
    pub release: Release,
}

/// A partition that is read up to the end that it had when this was made.
///
/// Made for several partitions first, and read then, they are fetched side by side.
pub struct ToEnd {
    reader: Option<Box<dyn LogReader>>,
    from: u64,
    end: u64,
    /// See [`Release::Commit`].
    has_fillers: bool,
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
        settle(log, topic, partition, end, owner)?;
        let reader = if from < end { Some(log.reader(topic, partition, from)?) } else { None };
        let has_fillers = owner.is_some_and(|owner| owner.release == Release::Commit);
        Ok(Self { reader, from, end, has_fillers })
    }

    /// Gives every committed record to `take`; returns the offset up to which everything was given.
    ///
    /// Errors: those of the log and of `take`.
    pub fn read(self, mut take: impl FnMut(LogRecord) -> Result<()>) -> Result<u64> {
        let Self { reader: Some(mut reader), end, has_fillers, .. } = self else { return Ok(self.from) };
        let (mut records, mut waited) = (Vec::new(), Duration::ZERO);
        loop {
            let any = reader.read(READ_BYTES, &mut records)?;
            records.drain(..).filter(|record| !(has_fillers && is_filler(record))).try_for_each(&mut take)?;
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

/// Waits until everything before `end` is decided.
fn settle(log: &dyn Log, topic: &str, partition: PartitionId, end: u64, owner: Option<Owner<'_>>) -> Result<()> {
    let (mut waited, mut owner, mut next_word) = (Duration::ZERO, owner, WORD);
    loop {
        let stable = log.stable_end(topic, partition)?;
        if stable >= end {
            return Ok(());
        }
        if let Some(owner) = owner.take_if(|_| waited >= LOST_END) {
            tracing::warn!(
                "topic {topic:?}, partition {partition}: the end of a transaction at offset {stable} is lost; it is ended"
            );
            log.release(owner, topic, partition)?;
        }
        if waited >= HELD_BACK {
            let text = format!(
                "topic {topic:?}, partition {partition}: an open transaction at offset {stable} holds back what is behind it, up to \
                 {end}; find its producer and end it (kafka-transactions.sh find-hanging)"
            );
            return Err(Error::external("log-held-back", text));
        }
        if waited >= next_word {
            next_word += WORD;
            tracing::warn!(
                "topic {topic:?}, partition {partition}: waiting for the end of the transaction at offset {stable}, which holds back \
                 what is behind it, up to {end}"
            );
        }
        log.wait(HELD_BACK_POLL);
        waited += HELD_BACK_POLL;
    }
}

fn is_filler(record: &LogRecord) -> bool {
    record.record.value.is_none() && record.record.key.as_ref().is_none_or(Vec::is_empty)
}
