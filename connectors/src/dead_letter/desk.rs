//! Looking at dead letters and deciding on them.
//!
//! What is decided is a record in a log, and is decided once it is there:
//!
//! - *dropped*: a record in the topic `dead-letters-decided-{job id}`, with the offset as its key;
//! - *retried*: the record itself in the topic `retry-{job id}-{source}`, with the offset in a header. So there is no moment at
//!   which a record is retried and not marked, or the other way round.
//!
//! Nobody but the desk appends to these topics, one decision at a time, and it reads them up to their ends before each. So a
//! decision is made once, whatever crashes in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_core::{Error, Generation, JobId, PartitionId, Result};

use super::letter::split;
use super::retry::PARTITION;
use super::{FailedNode, Held, StoredLetter, header};
use crate::log::{Log, LogRecord, NewRecord, Position, Producer, Retention, TopicSpec};

/// Bytes that are read from the log at once.
const READ_BYTES: usize = 1 << 20;
/// Bytes that are looked at for one page: a filter may pass over many letters.
const PAGE_BYTES: u64 = 64 << 20;
/// Letters that are decided on in one call: the rest of a job waits for nobody, but who asks does.
const CALL_LETTERS: u64 = 10_000;
/// Bytes that one call looks at for them.
const CALL_BYTES: u64 = 256 << 20;
/// Letters that are decided on in one transaction.
const BATCH_LETTERS: usize = 256;
/// Bytes that are retried in one transaction, at least one letter.
const BATCH_BYTES: usize = 8 << 20;
/// How much of a value is shown in a list.
const START_BYTES: usize = 256;

/// What was decided on a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is not listed any more.
    Dropped,
    /// Its source reads the record once more.
    Retried,
}

impl Decision {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Decision::Dropped => "dropped",
            Decision::Retried => "retried",
        }
    }
}

/// Which dead letters are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// These.
    Offsets(Vec<u64>),
    /// All that nothing is decided on.
    All(Range),
}

/// A part of the dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Of this node, where one is named.
    pub node: Option<String>,
    /// The first offset.
    pub from: u64,
    /// The offset to stop before; the end as it is now where none is given: what is retried may fail again, and that is
    /// behind it.
    pub until: Option<u64>,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// On how many it was made.
    pub count: u64,
    /// How many were left as they are: they cannot be retried.
    pub left: u64,
    /// Where to go on, and the offset to stop before, where one call is not enough for all.
    pub next: Option<(u64, u64)>,
}

/// Dead letters on which nothing is decided, in order; their values are cut to their beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The dead letters, each with the length of its value.
    pub letters: Vec<(StoredLetter, u64)>,
    /// Where the next page begins, if there may be one.
    pub next: Option<u64>,
}

/// The dead letters of one job.
pub struct Desk {
    job: JobId,
    letters: Mutex<Letters>,
    topic: String,
    own: Arc<dyn Log>,
    state: Mutex<State>,
}

/// Opens the log that dead letters are in.
pub type OpenLetters = Box<dyn Fn() -> Result<Arc<dyn Log>> + Send + Sync>;

/// The log that dead letters are in. One call at a time reads it: a cluster lets nobody read a partition twice over one connection.
struct Letters {
    open: OpenLetters,
    opened: Option<Arc<dyn Log>>,
}

#[derive(Default)]
struct State {
    decided: BTreeMap<u64, Decision>,
    /// How far each topic of decisions is read.
    read: BTreeMap<String, u64>,
    producer: Option<Box<dyn Producer>>,
}

impl Desk {
    /// The dead letters in `topic` of `letters`; decisions are kept in the job's own log, which may be open for reading only
    /// where nothing is to be decided.
    pub fn new(job: JobId, letters: Arc<dyn Log>, topic: String, own: Arc<dyn Log>) -> Self {
        Self::opening(job, Box::new(move || Ok(letters.clone())), topic, own)
    }

    /// As [`Desk::new`], where the log of the dead letters is opened when somebody looks at them for the first time.
    pub fn opening(job: JobId, open: OpenLetters, topic: String, own: Arc<dyn Log>) -> Self {
        let letters = Mutex::new(Letters { open, opened: None });
        Self { job, letters, topic, own, state: Mutex::default() }
    }

    /// Looks into the log of the dead letters.
    fn look<T>(&self, look: impl FnOnce(&dyn Log) -> Result<T>) -> Result<T> {
        let mut letters = self.letters.lock();
        let log = match letters.opened.take() {
            Some(log) => log,
            None => (letters.open)()?,
        };
        look(&**letters.opened.insert(log))
    }

    /// The offset behind the last dead letter.
    fn end(&self) -> Result<u64> {
        self.look(|log| Ok(log.offsets(&self.topic, PARTITION)?.1))
    }

    /// A page of at most `limit` dead letters from `from` on, of this node where one is named.
    pub fn page(&self, from: u64, limit: usize, node: Option<&str>) -> Result<Page> {
        let decided = {
            let mut state = self.state.lock();
            self.refresh(&mut state)?;
            state.decided.clone()
        };
        let mut page = Page::default();
        page.next = self.scan(from, PAGE_BYTES, |letter| {
            let wanted =
                !decided.contains_key(&letter.offset) && node.is_none_or(|node| letter.letter.node.id() == node);
            if wanted {
                let mut letter = letter;
                let value = letter.letter.value.as_mut();
                let bytes = value.map_or(0, |value| {
                    let length = value.len() as u64;
                    value.truncate(START_BYTES);
                    length
                });
                page.letters.push((letter, bytes));
            }
            Ok(page.letters.len() < limit)
        })?;
        Ok(page)
    }

    /// One dead letter, with what was decided on it.
    ///
    /// Errors: `no-dead-letter`.
    pub fn get(&self, offset: u64) -> Result<(StoredLetter, Option<Decision>)> {
        let mut state = self.state.lock();
        self.refresh(&mut state)?;
        Ok((self.find(offset)?, state.decided.get(&offset).copied()))
    }

    /// Decides on dead letters; returns on how many. In a crash or after an error a part of them may be decided on.
    ///
    /// Errors: `no-dead-letter`; `decided` where something else, or the same, is decided on one that was named;
    /// `cannot-retry` where a record cannot be read once more. An error of one that was named leaves out all of them.
    pub fn decide(&self, which: &Which, decision: Decision) -> Result<Decided> {
        let mut state = self.state.lock();
        self.refresh(&mut state)?;
        match which {
            Which::Offsets(offsets) => {
                let mut offsets = offsets.clone();
                offsets.sort_unstable();
                offsets.dedup();
                for offset in &offsets {
                    if let Some(decision) = state.decided.get(offset) {
                        let text = format!("dead letter {offset} is {} already", decision.name());
                        return Err(Error::user("decided", text));
                    }
                    let letter = self.find(*offset)?;
                    if decision == Decision::Retried {
                        self.retry_topic(&letter)?;
                    }
                }
                for offset in &offsets {
                    self.append(&mut state, vec![self.find(*offset)?], decision)?;
                }
                Ok(Decided { count: offsets.len() as u64, ..Decided::default() })
            }
            Which::All(range) => self.decide_all(&mut state, range, decision),
        }
    }

    fn decide_all(&self, state: &mut State, range: &Range, decision: Decision) -> Result<Decided> {
        let end = self.end()?;
        let until = range.until.unwrap_or(end).min(end);
        let (mut batch, mut bytes, mut decided) = (Vec::new(), 0, Decided::default());
        let next = self.scan(range.from, CALL_BYTES, |letter| {
            if letter.offset >= until {
                return Ok(false);
            }
            let open = !state.decided.contains_key(&letter.offset);
            if open && range.node.as_deref().is_none_or(|node| letter.letter.node.id() == node) {
                if decision == Decision::Retried && self.retry_topic(&letter).is_err() {
                    decided.left += 1;
                    return Ok(true);
                }
                decided.count += 1;
                bytes += letter.letter.value.as_ref().map_or(0, Vec::len);
                batch.push(letter);
                if batch.len() >= BATCH_LETTERS || bytes >= BATCH_BYTES {
                    bytes = 0;
                    self.append(state, std::mem::take(&mut batch), decision)?;
                }
            }
            Ok(decided.count < CALL_LETTERS)
        })?;
        self.append(state, batch, decision)?;
        decided.next = next.filter(|next| *next < until).map(|next| (next, until));
        Ok(decided)
    }

    /// Makes one decision durable, on all of them or, in a crash, on a part.
    fn append(&self, state: &mut State, letters: Vec<StoredLetter>, decision: Decision) -> Result<()> {
        if letters.is_empty() {
            return Ok(());
        }
        let mut records = Vec::with_capacity(letters.len());
        for letter in letters {
            let offset = letter.offset;
            records.push(match decision {
                Decision::Dropped => (
                    self.decided_topic(),
                    NewRecord { key: Some(key(offset)), value: Some(b"dropped".to_vec()), headers: Vec::new() },
                ),
                Decision::Retried => (self.retry_topic(&letter)?, letter.into_retried()),
            });
        }
        if decision == Decision::Dropped {
            self.own.ensure(&TopicSpec { name: self.decided_topic(), partitions: 1, retention: Retention::Keep })?;
        }
        let mut producer = match state.producer.take() {
            Some(producer) => producer,
            // Whoever decides holds the lock of the job's folder, so one generation is enough.
            None => self.own.fence(&format!("{}-dead-letters", self.job), Generation(0))?,
        };
        producer.begin()?;
        for (topic, record) in records {
            producer.append(&topic, PARTITION, record)?;
        }
        // After an error the outcome is unknown: the producer is gone, and the next call reads what is there.
        producer.commit()?;
        state.producer = Some(producer);
        self.refresh(state)
    }

    /// Reads the decisions that were made since the last call.
    fn refresh(&self, state: &mut State) -> Result<()> {
        let (decided, retries) = (self.decided_topic(), super::retry_topic(self.job, "", false));
        for (topic, _) in self.own.topics()? {
            let is_retry = topic.starts_with(&retries);
            if topic != decided && !is_retry {
                continue;
            }
            let from = state.read.get(&topic).copied().unwrap_or(0);
            let end = read(&*self.own, &topic, from, u64::MAX, |record| {
                let (_, headers) = split(&record.record.headers);
                let decision = match is_retry {
                    true => headers.number(header::RETRY_OF).map(|offset| (offset, Decision::Retried)),
                    false => record.record.key.as_deref().and_then(offset_of).map(|offset| (offset, Decision::Dropped)),
                };
                state.decided.extend(decision);
                Ok(true)
            })?;
            state.read.insert(topic, end);
        }
        Ok(())
    }

    fn find(&self, offset: u64) -> Result<StoredLetter> {
        let mut found = None;
        if offset < self.end()? {
            self.scan(offset, u64::MAX, |letter| {
                found = (letter.offset == offset).then_some(letter);
                Ok(false)
            })?;
        }
        found.ok_or_else(|| {
            Error::user(
                "no-dead-letter",
                format!("there is no dead letter {offset}; `dlq ls` lists those that there are"),
            )
        })
    }

    /// Gives dead letters from `from` on, until it is told that it is enough or has read so many bytes; returns where to go on,
    /// if not all were read.
    fn scan(
        &self,
        from: u64,
        most_bytes: u64,
        mut take: impl FnMut(StoredLetter) -> Result<bool>,
    ) -> Result<Option<u64>> {
        self.look(|log| {
            let (_, end) = log.offsets(&self.topic, PARTITION)?;
            let next = read(log, &self.topic, from, most_bytes, |record| match self.is_of_job(&record) {
                true => StoredLetter::read(record).map_or(Ok(true), &mut take),
                false => Ok(true),
            })?;
            Ok((next < end).then_some(next))
        })
    }

    /// Several jobs may set records aside into one topic.
    fn is_of_job(&self, record: &LogRecord) -> bool {
        Position::of(&record.record.headers).is_none_or(|position| position.job == self.job)
    }

    /// The topic in which a record is to be retried.
    fn retry_topic(&self, stored: &StoredLetter) -> Result<String> {
        let (offset, letter) = (stored.offset, &stored.letter);
        let cannot =
            |why: String| Err(Error::user("cannot-retry", format!("dead letter {offset} cannot be retried: {why}")));
        let FailedNode::Source(source) = &letter.node else {
            let node = letter.node.id();
            return cannot(format!(
                "operator {node:?} failed on it, and only records of sources are read once more; mend the operator, and \
                 feed the record to a source of the job"
            ));
        };
        if let Some(bytes) = stored.truncated {
            return cannot(format!("it had {bytes} bytes and is not kept whole"));
        }
        if letter.held != Held::Raw {
            return cannot("it does not hold the bytes of a source".to_owned());
        }
        let topic = super::retry_topic(self.job, source, letter.backfill);
        if self.own.topics()?.iter().all(|(name, _)| *name != topic) {
            return cannot(format!(
                "source {source:?} has no partition for retried records; one that reads bytes gets it where the job is created \
                 with on_error = \"dead-letter\""
            ));
        }
        Ok(topic)
    }

    fn decided_topic(&self) -> String {
        format!("dead-letters-decided-{}", self.job)
    }
}

fn key(offset: u64) -> Vec<u8> {
    offset.to_be_bytes().to_vec()
}

fn offset_of(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// Reads from `from` up to the end as it is now; returns the offset after the last record that was taken.
fn read(
    log: &dyn Log,
    topic: &str,
    from: u64,
    most_bytes: u64,
    mut take: impl FnMut(LogRecord) -> Result<bool>,
) -> Result<u64> {
    let (first, end) = log.offsets(topic, PARTITION)?;
    let from = from.max(first);
    let mut reader = log.reader(topic, PartitionId(0), from)?;
    let (mut next, mut bytes, mut records) = (from, 0, Vec::new());
    while next < end && bytes < most_bytes {
        let any = reader.read(READ_BYTES, &mut records)?;
        for record in records.drain(..) {
            bytes += record.record.value.as_ref().map_or(0, Vec::len) as u64;
            next = record.offset + 1;
            if next > end || !take(record)? {
                return Ok(next);
            }
        }
        // What is no record, such as the end of a transaction, has an offset, too.
        next = next.max(reader.position());
        if !any {
            break;
        }
    }
    Ok(next)
}
