//! A dead letter, and how it is written.

use std::sync::Arc;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use thalweg_core::Epoch;

use super::header;
use crate::log::{LogRecord, NewRecord};
use crate::{BadRecord, EncodedBatch, EncodedRecord};

/// The longest value that is kept whole. A record of a log has at most 64 MiB, and key and headers need some of that.
const MAX_VALUE_BYTES: usize = 32 << 20;
/// The longest key, the longest line of CSV headers, and the most bytes of headers that are kept.
const MAX_PART_BYTES: usize = 8 << 20;
/// The longest message that is kept.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// Which node could not go on with a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailedNode {
    /// A source, by its id.
    Source(String),
    /// An operator, by its id.
    Operator(String),
}

impl FailedNode {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            FailedNode::Source(id) | FailedNode::Operator(id) => id,
        }
    }
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The format of a source cannot read the record.
    Decode,
    /// User code returned an error.
    Failed,
    /// User code panicked.
    Panicked,
}

/// What the value of a dead letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// The bytes of a source's record, as they were read.
    Raw,
    /// A record that an operator was given, as JSON.
    Record,
    /// What a keyed operator was given of a record beside its key, as JSON; the key is the dead letter's.
    Grouped,
    /// Nothing: a timer failed, and the key is its own.
    Timer,
}

impl Reason {
    const NAMED: [(Self, &'static str); 3] =
        [(Self::Decode, "bad-record"), (Self::Failed, "operator-failed"), (Self::Panicked, "operator-panicked")];

    /// Its name in a header.
    pub fn name(self) -> &'static str {
        name(&Self::NAMED, self)
    }
}

impl Held {
    const NAMED: [(Self, &'static str); 4] =
        [(Self::Raw, "raw"), (Self::Record, "record"), (Self::Grouped, "grouped"), (Self::Timer, "timer")];

    /// Its name in a header.
    pub fn name(self) -> &'static str {
        name(&Self::NAMED, self)
    }
}

fn name<T: Copy + PartialEq>(named: &[(T, &'static str)], value: T) -> &'static str {
    named.iter().find(|(own, _)| *own == value).map(|(_, name)| *name).expect("every value has a name")
}

fn named<T: Copy>(named: &[(T, &'static str)], name: &[u8]) -> Option<T> {
    named.iter().find(|(_, own)| own.as_bytes() == name).map(|(value, _)| *value)
}

/// Whose names the headers have that say what has failed, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderNames {
    /// Those of Kafka Streams.
    Streams,
    /// Those of Kafka Streams, and those of Kafka Connect.
    StreamsAndConnect,
}

/// Where a source has read a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The topic, or the source's id where it reads none.
    pub topic: String,
    /// The number of the partition, or its name where it is none of a topic.
    pub partition: String,
    /// The offset, or another position at which the record begins.
    pub offset: u64,
}

/// A record that is set aside, with what is known of its failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Who could not go on with it.
    pub node: FailedNode,
    /// What kind of failure it was.
    pub reason: Reason,
    /// What the failure said.
    pub message: String,
    /// The record's key, where it has one.
    pub key: Option<Vec<u8>>,
    /// The record.
    pub value: Option<Vec<u8>>,
    /// The record's own headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When the record was written, microseconds since 1970, where its source knows.
    pub time: Option<i64>,
    /// What the value is.
    pub held: Held,
    /// Where it was read, where a source has set it aside.
    pub place: Option<Place>,
    /// Whether it was read of a backfill, which may have a format of its own.
    pub backfill: bool,
    /// The header line of its file, where the format needs one.
    pub csv_header: Option<Vec<u8>>,
    /// When the failed timer was due.
    pub timer: Option<i64>,
    /// The dead letter that it was before it was retried.
    pub retry_of: Option<u64>,
}

impl DeadLetter {
    /// A record that the format of a source, or that of its backfill, cannot read.
    pub fn of_source(source: &str, backfill: bool, place: Place, bad: BadRecord) -> Self {
        let (place, retry_of) = match bad.retried {
            Some(retried) => (retried.place, Some(retried.dead_letter)),
            None => (Some(place), None),
        };
        Self {
            node: FailedNode::Source(source.to_owned()),
            reason: Reason::Decode,
            message: bad.why,
            key: bad.key,
            value: bad.raw,
            headers: bad.headers,
            time: bad.time,
            held: Held::Raw,
            place,
            backfill,
            csv_header: bad.header,
            timer: None,
            retry_of,
        }
    }

    /// A record that an operator failed on.
    pub fn of_operator(operator: &str, reason: Reason, message: String, held: Held) -> Self {
        Self {
            node: FailedNode::Operator(operator.to_owned()),
            reason,
            message,
            key: None,
            value: None,
            headers: Vec::new(),
            time: None,
            held,
            place: None,
            backfill: false,
            csv_header: None,
            timer: None,
            retry_of: None,
        }
    }

    /// Adds it to what a sink is to write of an epoch. The bytes are a function of the letter, the job and the epoch.
    pub fn encode(&self, job: &str, epoch: Epoch, names: HeaderNames, batch: &mut EncodedBatch) {
        let kept = |part: &Option<Vec<u8>>| part.as_ref().filter(|part| part.len() <= MAX_PART_BYTES).cloned();
        let (key, csv_header) = (kept(&self.key), kept(&self.csv_header));
        let value = self.value.as_deref().map(|value| &value[..value.len().min(MAX_VALUE_BYTES)]);
        let own_bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let own = if own_bytes <= MAX_PART_BYTES { self.headers.as_slice() } else { &[] };
        let whole = value.map(<[u8]>::len) == self.value.as_ref().map(Vec::len)
            && key.is_some() == self.key.is_some()
            && csv_header.is_some() == self.csv_header.is_some()
            && own.len() == self.headers.len();
        let mut headers = self.conventional_headers(job, names);
        headers.push((header::JOB, job.into()));
        headers.push(match &self.node {
            FailedNode::Source(id) => (header::SOURCE, id.as_str().into()),
            FailedNode::Operator(id) => (header::OPERATOR, id.as_str().into()),
        });
        headers.push((header::EPOCH, epoch.to_string().into()));
        headers.push((header::HOLDS, self.held.name().into()));
        headers.extend(own_headers(own.len()));
        headers.extend(self.time.map(|time| (header::TIME, time.to_string().into())));
        headers.extend(self.backfill.then(|| (header::BACKFILL, b"true".to_vec())));
        headers.extend(self.timer.map(|at| (header::TIMER, at.to_string().into())));
        headers.extend(csv_header.map(|line| (header::CSV_HEADER, line)));
        headers.extend((!whole).then(|| {
            let bytes = self.value.as_ref().map_or(0, Vec::len);
            (header::TRUNCATED, bytes.to_string().into())
        }));
        headers.extend(self.retry_of.map(|offset| (header::RETRY_OF, offset.to_string().into())));
        let mut put = |bytes: &[u8]| -> Range<usize> {
            let start = batch.data.len();
            batch.data.extend_from_slice(bytes);
            start..batch.data.len()
        };
        let own = own.iter().map(|(name, bytes)| (name.as_str(), bytes));
        let all = own.chain(headers.iter().map(|(name, bytes)| (*name, bytes)));
        let record = EncodedRecord {
            key: key.as_deref().map(&mut put),
            value: value.map(&mut put),
            headers: all.map(|(name, bytes)| (Arc::from(name), put(bytes))).collect(),
            partition: None,
        };
        batch.records.push(record);
    }

    fn conventional_headers(&self, job: &str, names: HeaderNames) -> Vec<(&'static str, Vec<u8>)> {
        let (reason, message) = (self.reason.name(), shortened(&self.message));
        let mut headers: Vec<(&'static str, Vec<u8>)> =
            vec![(header::EXCEPTION, reason.into()), (header::MESSAGE, message.into())];
        let place = |headers: &mut Vec<(&'static str, Vec<u8>)>, [topic, partition, offset]: [&'static str; 3]| {
            if let Some(place) = &self.place {
                headers.push((topic, place.topic.as_str().into()));
                headers.push((partition, place.partition.as_str().into()));
                headers.push((offset, place.offset.to_string().into()));
            }
        };
        place(&mut headers, [header::TOPIC, header::PARTITION, header::OFFSET]);
        if names == HeaderNames::StreamsAndConnect {
            place(&mut headers, [header::CONNECT_TOPIC, header::CONNECT_PARTITION, header::CONNECT_OFFSET]);
            headers.push((header::CONNECT_NAME, job.into()));
            headers.push((header::CONNECT_EXCEPTION, reason.into()));
            headers.push((header::CONNECT_MESSAGE, message.into()));
        }
        headers
    }
}

/// The beginning of a message, cut between two characters.
fn shortened(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)]
}

/// A dead letter as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLetter {
    /// Its offset: what it is called by.
    pub offset: u64,
    /// When it was written, microseconds since 1970.
    pub time: i64,
    /// The job that wrote it.
    pub job: String,
    /// The epoch of the record.
    pub epoch: Epoch,
    /// The bytes that the value had, where it was too large to be kept whole.
    pub truncated: Option<u64>,
    /// What it is.
    pub letter: DeadLetter,
}

impl StoredLetter {
    /// Reads a record; nothing where it is no dead letter: a topic may hold other records, too.
    pub fn read(record: LogRecord) -> Option<Self> {
        let LogRecord { offset, time, record: NewRecord { key, value, headers } } = record;
        let (own, headers) = split(&headers);
        let (bytes, text, number) =
            (|name| headers.bytes(name), |name| headers.text(name), |name| headers.number(name));
        let node = match (text(header::SOURCE), text(header::OPERATOR)) {
            (Some(id), _) => FailedNode::Source(id),
            (None, Some(id)) => FailedNode::Operator(id),
            (None, None) => return None,
        };
        let letter = DeadLetter {
            node,
            reason: named(&Reason::NAMED, bytes(header::EXCEPTION)?)?,
            message: text(header::MESSAGE)?,
            held: named(&Held::NAMED, bytes(header::HOLDS)?)?,
            place: headers.place(),
            headers: own.to_vec(),
            time: headers.time(),
            backfill: bytes(header::BACKFILL).is_some(),
            csv_header: bytes(header::CSV_HEADER).map(<[u8]>::to_vec),
            timer: text(header::TIMER).and_then(|at| at.parse().ok()),
            retry_of: number(header::RETRY_OF),
            key,
            value,
        };
        let (job, epoch) = (text(header::JOB)?, Epoch(number(header::EPOCH)?));
        Some(Self { offset, time, job, epoch, truncated: number(header::TRUNCATED), letter })
    }
    /// The record as its source is to read it once more: key and value as they were, and what is needed to read them.
    pub(super) fn into_retried(self) -> NewRecord {
        let letter = self.letter;
        let mut added = vec![(header::RETRY_OF, self.offset.to_string().into_bytes())];
        if let Some(Place { topic, partition, offset }) = letter.place {
            added.push((header::TOPIC, topic.into_bytes()));
            added.push((header::PARTITION, partition.into_bytes()));
            added.push((header::OFFSET, offset.to_string().into_bytes()));
        }
        let mut headers = letter.headers;
        added.extend(own_headers(headers.len()));
        added.extend(letter.time.map(|time| (header::TIME, time.to_string().into_bytes())));
        added.extend(letter.csv_header.map(|line| (header::CSV_HEADER, line)));
        headers.extend(added.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)));
        NewRecord { key: letter.key, value: letter.value, headers }
    }
}

/// The header that says how many of the headers are the record's own, where there are any.
fn own_headers(count: usize) -> Option<(&'static str, Vec<u8>)> {
    (count > 0).then(|| (header::HEADERS, count.to_string().into_bytes()))
}

/// The record's own headers, and what stands behind them. A record that was a dead letter of another job has its own of the same
/// names, so they are told apart by their number, which the last header of that name says.
pub(super) fn split(headers: &[(String, Vec<u8>)]) -> (&[(String, Vec<u8>)], RecordHeaders<'_>) {
    let last = headers.iter().rposition(|(name, _)| name == header::HEADERS);
    let count = last.and_then(|at| std::str::from_utf8(&headers[at].1).ok()?.parse().ok().filter(|count| *count <= at));
    let (own, added) = headers.split_at(count.unwrap_or(0));
    (own, RecordHeaders(added))
}

/// The headers of a record that was read.
pub(super) struct RecordHeaders<'a>(pub(super) &'a [(String, Vec<u8>)]);

impl<'a> RecordHeaders<'a> {
    pub(super) fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, bytes)| bytes.as_slice())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// When the record was written.
    pub(super) fn time(&self) -> Option<i64> {
        self.text(header::TIME)?.parse().ok()
    }

    /// Where a source has read the record.
    pub(super) fn place(&self) -> Option<Place> {
        let (topic, partition) = (self.text(header::TOPIC)?, self.text(header::PARTITION)?);
        Some(Place { topic, partition, offset: self.number(header::OFFSET)? })
    }
}
