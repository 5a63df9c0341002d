//! The duties of a source.
//!
//! A source is a set of partitions; a partition is an ordered sequence of records with a position after each. Contract:
//!
//! 1. **Identity.** [`RecordSource::discover`] names every partition with an identity that is the same thing after a restart,
//!    and resolves where it starts and, in a bounded run, where it ends. It is asked once, for checkpoint 0; its answer is
//!    durable before anything is read.
//! 2. **Repeatability.** A reader opened twice at the same position yields the same records with the same positions, in this
//!    process or another. What cannot promise that is written to the embedded log first.
//! 3. **No blocking.** [`RecordReader::read`] returns what is there; with nothing there it says [`ReadState::Idle`], or
//!    [`ReadState::Pending`] as long as it does not know.
//! 4. **Limits.** It never exceeds `ReadLimit::records`, never reads past `ReadLimit::until`, and stops soon after
//!    `ReadLimit::bytes` (one record may be larger, up to the source's own limit).
//! 5. **Loud failure.** A partition that is not the one named any more, that lost data, or whose bytes are damaged is an error
//!    that names the partition and the position. Never fewer records.
//! 6. **Growth.** What comes later is found by [`RecordSource::discover_more`] alone, with its first record as its start: it is
//!    asked while the job runs, and its answer is durable before anything is read, as in 1.
//!
//! `conformance` checks each clause for any implementation.

use std::sync::Arc;
use std::time::Duration;

use thalweg_core::{ContentHash, PartitionId, PartitionSpec, Result};

use crate::dead_letter::{Place, Retries};

/// Wakes whoever reads a partition.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// How much one call of [`RecordReader::read`] may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// At most so many records.
    pub records: usize,
    /// Stop after so many raw bytes.
    pub bytes: usize,
    /// Never pass this position: the end of a recorded share, or of a bounded run.
    pub until: Option<u64>,
}

/// What a reader found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadState {
    /// Stopped by a limit; there may be more.
    More,
    /// Nothing more for now; the partition may grow.
    Idle,
    /// Nothing has arrived yet, and whether there is more is not known.
    Pending,
    /// The end of a bounded partition, or `ReadLimit::until`, is reached.
    End,
}

/// How far a reader is behind what could be read now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Records that are there and were not read; more than there are, where positions have gaps.
    pub records: u64,
    /// When the first of them was appended, microseconds since 1970, where there is one and its time is known.
    pub oldest: Option<i64>,
}

/// A record that could not be decoded; what happens to it is the job's `on_error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// The position at which it begins.
    pub at: u64,
    /// The position after it.
    pub next: u64,
    /// Where and why, for people.
    pub why: String,
    /// Its key, where the source has keys.
    pub key: Option<Vec<u8>>,
    /// Its raw bytes, all of them: as a dead letter it is to be read again. Nothing of a tombstone.
    pub raw: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When it was appended, microseconds since 1970, where the source knows.
    pub time: Option<i64>,
    /// What stands before the first record of its partition and names the columns, where the framing has such a thing.
    pub header: Option<Vec<u8>>,
    /// What it was before, where it was retried.
    pub retried: Option<Box<Retried>>,
}

/// What a retried record was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retried {
    /// The offset of the dead letter that it was.
    pub dead_letter: u64,
    /// Where it was read first.
    pub place: Option<Place>,
}

/// Something with partitions to read records of type `T` from.
pub trait RecordSource<T>: Send + Sync {
    /// Every partition, in an order that does not matter, with its resolved start; `source` is the index to put into the specs.
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>>;

    /// How often it is looked for partitions that have come since; nothing where none can come, or nobody is to look.
    fn discover_interval(&self) -> Option<Duration> {
        None
    }

    /// Partitions that are not in `known`, each from its first record on. Their numbers count for nothing: the job gives them.
    fn discover_more(&self, source: u16, known: &[PartitionSpec]) -> Result<Vec<PartitionSpec>> {
        let _ = (source, known);
        Ok(Vec::new())
    }

    /// Whether a partition is read only when all others of the source have ended that do not follow, and not that of retried records.
    fn follows(&self, partition: &PartitionSpec) -> bool {
        let _ = partition;
        false
    }

    /// Whether a partition is one of a [backfill](crate::Backfilled), whose records may have another format than those that come
    /// afterwards.
    fn is_backfill(&self, partition: &PartitionSpec) -> bool {
        let _ = partition;
        false
    }

    /// Gives the source a partition more, for records that were dead letters and are to be read once more: one for each format
    /// that it reads. Called once, before partitions are discovered or opened. A source that is made of no bytes has none.
    fn set_retries(&self, retries: Retries) {
        drop(retries);
    }

    /// Opens a partition at a position that is its start or the position after one of its records.
    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RecordReader<T>>>;

    /// The topic and the number of its partition that a partition of the source reads, where it is one of a topic.
    fn topic_of(&self, partition: &PartitionSpec) -> Option<(String, u32)> {
        let _ = partition;
        None
    }

    /// A committed checkpoint holds everything of a partition before `position`: the job will never open it there again. For
    /// what the source keeps only for the job, and for those who watch its progress from outside; nothing to do otherwise.
    ///
    /// Called once for each checkpoint and partition by a thread that has other work: it must not wait for the source's input.
    fn committed(&self, _partition: PartitionId, _position: u64) -> Result<()> {
        Ok(())
    }
}

/// Reads one partition.
pub trait RecordReader<T>: Send {
    /// Appends records to `out`, in order, and what could not be decoded to `bad`.
    fn read(&mut self, limit: ReadLimit, out: &mut Vec<T>, bad: &mut Vec<BadRecord>) -> Result<ReadState>;

    /// The position after the last record that was read.
    fn position(&self) -> u64;

    /// How much of a bounded partition is read, 0 to 1, for people; nothing where it cannot be told.
    fn fraction(&self) -> Option<f64> {
        None
    }

    /// How often input was gone before it was certainly read, since the source was made: for a metric, so that somebody looks.
    fn losses(&self) -> u64 {
        0
    }

    /// How far it is behind what could be read now, for people and alarms; nothing where that cannot be told, as in bytes that are
    /// not divided into records yet. Asked about twice a second while there is something to read. It must not block, and what
    /// is wrong is left to [`RecordReader::read`] to say.
    fn lag(&mut self) -> Option<Lag> {
        None
    }

    /// Calls `waker`, from any thread, when a partition that has given nothing may have something. Where it says `false` it never
    /// does, and has to be asked again and again.
    fn wake(&mut self, waker: Waker) -> bool {
        drop(waker);
        false
    }

    /// How many records were lost, and left out since the job says so, since this was last asked.
    fn take_lost(&mut self) -> u64 {
        0
    }

    /// How many raw bytes were read since the reader was opened; for the limit on an epoch. Positions count bytes unless the
    /// reader says otherwise.
    fn bytes(&self) -> u64 {
        self.position()
    }

    /// xxh3-64 over the raw bytes (of every record, decodable or not, each followed by its length as u32 little endian) that were
    /// read since the last call; the default hash where nothing was read.
    fn take_hash(&mut self) -> ContentHash;
}

/// The running hash behind [`RecordReader::take_hash`].
#[derive(Default)]
pub struct RunningHash {
    state: Option<Box<xxhash_rust::xxh3::Xxh3>>,
}

impl RunningHash {
    /// Adds one record.
    #[inline]
    pub fn add(&mut self, raw: &[u8]) {
        let state = self.state.get_or_insert_with(Default::default);
        state.update(raw);
        state.update(&(raw.len() as u32).to_le_bytes());
    }

    /// The hash since the last call.
    pub fn take(&mut self) -> ContentHash {
        self.state.take().map_or(ContentHash::default(), |state| ContentHash(state.digest()))
    }
}
