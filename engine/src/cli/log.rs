//! `log`: looks into the embedded log and appends to it.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use thalweg_connectors::log::{EmbeddedLog, Log, LogRecord, NewRecord, Producer, Retention, TopicSpec};
use thalweg_core::{Error, Generation, PartitionId, Result};

use super::arguments::{Format, LogArguments, LogVerb, Output};
use super::exit::Failure;
use super::screen::Screen;
use super::table::Table;
use crate::http::answer::{text_or_hex, time};

/// Bytes that are read or appended at a time.
const BATCH_BYTES: usize = 1 << 20;
/// Records in one transaction of an append: bounds what a crash repeats.
const BATCH_RECORDS: usize = 10_000;
/// The longest line that is appended: longer ones are hardly meant as lines.
const MAX_LINE_BYTES: usize = 16 << 20;
/// The producer of this command. It has no generations: who appends later takes over.
const PRODUCER: &str = "thalweg-log-append";

pub(super) fn log(arguments: &LogArguments, screen: &Screen) -> Result<(), Failure> {
    match &arguments.verb {
        LogVerb::Ls { place, output } => ls(place, *output, screen),
        LogVerb::Read { place, partition, from, limit, output } => {
            let place = Place::find(place)?;
            let log = EmbeddedLog::open_read_only(&place.log)?;
            let topic = place.topic(&log)?;
            let wanted = Wanted { partition: *partition, from: *from, limit: limit.unwrap_or(u64::MAX) };
            read(&log, &topic, &wanted, output.format(), screen)
        }
        LogVerb::Append { place, partition, partitions, output } => {
            append(place, PartitionId(*partition), *partitions, *output, screen)
        }
    }
}

/// A log, or a topic in it, as the command line names it.
struct Place {
    log: PathBuf,
    topic: Option<String>,
}

impl Place {
    /// Finds out what a path means: the folder of a log, `LOG/TOPIC`, or the folder `LOG/topics/TOPIC` of the topic itself.
    fn find(path: &Path) -> Result<Self, Failure> {
        Self::existing(path).ok_or_else(|| {
            let message = format!("{}: neither the folder of a log nor LOG/TOPIC; check the path", path.display());
            Failure::Usage(Error::user("not-a-log", message))
        })
    }

    /// As [`Place::find`]; where there is no log yet, `LOG/TOPIC` of a log to be made.
    fn find_or_new(path: &Path) -> Result<Self, Failure> {
        match (path.parent(), path.file_name().and_then(|name| name.to_str())) {
            (Some(log), Some(topic)) if !log.as_os_str().is_empty() && Self::existing(path).is_none() => {
                Ok(Self { log: log.to_owned(), topic: Some(topic.to_owned()) })
            }
            _ => Self::find(path),
        }
    }

    fn existing(path: &Path) -> Option<Self> {
        let is_log = |dir: &Path| dir.join("format").is_file();
        if is_log(path) {
            return Some(Self { log: path.to_owned(), topic: None });
        }
        let topic = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let parent = path.parent().unwrap_or(Path::new("."));
        let above = parent.parent().filter(|_| parent.ends_with("topics"));
        for log in std::iter::once(parent).chain(above) {
            // A relative path of one part has the empty path as its parent, which means this folder.
            let log = if log.as_os_str().is_empty() { Path::new(".") } else { log };
            if is_log(log) {
                return Some(Self { log: log.to_owned(), topic });
            }
        }
        None
    }

    /// The topic that is named, or the only one.
    fn topic(&self, log: &EmbeddedLog) -> Result<String, Failure> {
        let there: Vec<String> = log.topics()?.into_iter().map(|(name, _)| name).collect();
        let wrong = |what: String| {
            let message = format!("{}: {what}; there are: {}", self.log.display(), there.join(", "));
            Err(Failure::Usage(Error::user("no-such-topic", message)))
        };
        match (&self.topic, there.as_slice()) {
            (Some(topic), _) if there.contains(topic) => Ok(topic.clone()),
            (Some(topic), _) => wrong(format!("no topic {topic:?}")),
            (None, [only]) => Ok(only.clone()),
            (None, _) => wrong("name one topic, as LOG/TOPIC".to_owned()),
        }
    }
}

fn ls(place: &Path, output: Output, screen: &Screen) -> Result<(), Failure> {
    let place = Place::find(place)?;
    let log = EmbeddedLog::open_read_only(&place.log)?;
    let only = place.topic.as_ref().map(|_| place.topic(&log)).transpose()?;
    let mut table = Table::new(["topic", "partition", "first", "end"]);
    for (topic, partitions) in log.topics()? {
        if only.as_ref().is_some_and(|only| *only != topic) {
            continue;
        }
        for partition in partition_ids(partitions) {
            let (first, end) = log.offsets(&topic, partition)?;
            match output.format() {
                Format::Table => {
                    table.row([topic.clone(), partition.to_string(), first.to_string(), end.to_string()]);
                }
                Format::Json => {
                    let line = json!({ "topic": topic, "partition": partition, "first": first, "end": end });
                    screen.result(&line.to_string())?;
                }
            }
        }
    }
    if output.format() == Format::Table {
        table.print(screen)?;
    }
    Ok(())
}

/// Which records of a topic to read.
struct Wanted {
    partition: Option<u16>,
    from: u64,
    limit: u64,
}

/// Reads up to the end as it is when a partition's turn comes, so that it ends while somebody appends.
fn read(log: &EmbeddedLog, topic: &str, wanted: &Wanted, format: Format, screen: &Screen) -> Result<(), Failure> {
    let mut left = wanted.limit;
    for partition in partitions_of(log, topic, wanted.partition)? {
        let (_, end) = log.offsets(topic, partition)?;
        let mut reader = log.reader(topic, partition, wanted.from)?;
        let mut records = Vec::new();
        while left > 0 && reader.position() < end && reader.read(BATCH_BYTES, &mut records)? {
            for record in records.drain(..) {
                if left == 0 || record.offset >= end {
                    break;
                }
                left -= 1;
                screen.result(&match format {
                    Format::Json => json_line(partition, &record),
                    Format::Table => text_line(partition, &record),
                })?;
            }
        }
    }
    Ok(())
}

fn partitions_of(log: &EmbeddedLog, topic: &str, wanted: Option<u16>) -> Result<Vec<PartitionId>, Failure> {
    let count = log.topics()?.into_iter().find(|(name, _)| name == topic).map_or(0, |(_, count)| count);
    match wanted {
        None => Ok(partition_ids(count).collect()),
        Some(index) if u32::from(index) < count => Ok(vec![PartitionId(index)]),
        Some(index) => {
            let message = format!("--partition {index}: topic {topic:?} has {count} partitions, from 0");
            Err(Failure::Usage(Error::user("no-such-partition", message)))
        }
    }
}

fn partition_ids(count: u32) -> impl Iterator<Item = PartitionId> {
    (0..=u16::MAX).take(count as usize).map(PartitionId)
}

fn json_line(partition: PartitionId, record: &LogRecord) -> String {
    let bytes = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or(Value::Null, text_or_hex);
    let headers: Map<String, Value> =
        record.record.headers.iter().map(|(name, value)| (name.clone(), text_or_hex(value))).collect();
    json!({
        "partition": partition,
        "offset": record.offset,
        "time": time(record.time),
        "key": bytes(&record.record.key),
        "value": bytes(&record.record.value),
        "headers": headers,
    })
    .to_string()
}

fn text_line(partition: PartitionId, record: &LogRecord) -> String {
    let bytes = |bytes: &Option<Vec<u8>>| match bytes.as_deref().map(text_or_hex) {
        None => "-".to_owned(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let (key, value) = (bytes(&record.record.key), bytes(&record.record.value));
    // A topic may have more records than fit into memory, so there are no columns to align here.
    format!("{partition}:{}  {}  {key}  {value}", record.offset, time(record.time))
}

fn append(
    place: &Path,
    partition: PartitionId,
    partitions: u32,
    output: Output,
    screen: &Screen,
) -> Result<(), Failure> {
    let place = Place::find_or_new(place)?;
    let log = EmbeddedLog::open(&place.log, Arc::new(now))?;
    let topic = match &place.topic {
        Some(topic) if !log.topics()?.iter().any(|(name, _)| name == topic) => {
            log.ensure(&TopicSpec { name: topic.clone(), partitions, retention: Retention::Keep })?;
            topic.clone()
        }
        _ => place.topic(&log)?,
    };
    partitions_of(&log, &topic, Some(partition.0))?;
    let mut producer = log.fence(PRODUCER, Generation(0))?;
    let mut input = BufReader::with_capacity(BATCH_BYTES, io::stdin().lock());
    let mut appended = 0;
    loop {
        let (records, more) = next_batch(&mut input)?;
        appended += records.len();
        let end = append_batch(&mut *producer, &topic, partition, records)?;
        if let (false, end) = (more, end) {
            let end = end.map_or_else(|| log.offsets(&topic, partition).map(|(_, end)| end), Ok)?;
            return screen.result(&match output.format() {
                Format::Json => {
                    json!({ "topic": topic, "partition": partition, "appended": appended, "end": end }).to_string()
                }
                Format::Table => format!("{topic} partition {partition}: {appended} records appended, now up to {end}"),
            });
        }
    }
}

/// One transaction; returns the offset after it, or nothing where there was nothing to append.
fn append_batch(
    producer: &mut dyn Producer,
    topic: &str,
    partition: PartitionId,
    records: Vec<NewRecord>,
) -> Result<Option<u64>> {
    if records.is_empty() {
        return Ok(None);
    }
    producer.begin()?;
    for record in records {
        producer.append(topic, partition, record)?;
    }
    Ok(producer.commit()?.first().map(|(_, _, end)| *end))
}

/// The next lines as records, and whether there may be more. Waits for the first line only: what a slow writer has sent is
/// appended before it sends more.
fn next_batch(input: &mut BufReader<impl Read>) -> Result<(Vec<NewRecord>, bool)> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    while records.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
        let mut line = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 1;
        let read = input
            .take(limit)
            .read_until(b'\n', &mut line)
            .map_err(|error| Error::io("reading standard input", error))?;
        if read == 0 {
            return Ok((records, false));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(Error::user(
                "line-too-long",
                format!("a line is longer than {MAX_LINE_BYTES} bytes; split it"),
            ));
        }
        bytes += read;
        records.push(NewRecord { value: Some(line), ..NewRecord::default() });
        if input.buffer().is_empty() {
            break;
        }
    }
    Ok((records, true))
}

fn now() -> i64 {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    i64::try_from(micros).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_batches() {
        for (input, values) in [("", vec![]), ("a\n", vec!["a"]), ("a\n\nb", vec!["a", "", "b"])] {
            let mut input = BufReader::new(input.as_bytes());
            let (records, more) = next_batch(&mut input).expect("short lines");
            let got: Vec<_> = records.iter().filter_map(|record| record.value.as_deref()).collect();
            assert_eq!((got, more), (values.iter().map(|text| text.as_bytes()).collect(), !values.is_empty()));
        }
        let sizes = |input: &[u8], buffer: usize| {
            let mut input = BufReader::with_capacity(buffer, input);
            let batches = std::iter::from_fn(|| next_batch(&mut input).ok().filter(|(_, more)| *more));
            batches.map(|(records, _)| records.len()).collect::<Vec<_>>()
        };
        let many = "x\n".repeat(BATCH_RECORDS + 1);
        assert_eq!(sizes(many.as_bytes(), BATCH_BYTES), vec![BATCH_RECORDS, 1]);
        // A buffer that ends behind a line is all that has come so far.
        assert_eq!(sizes(b"a\nb\nc\nd\n", 4), vec![2, 2]);
    }

    #[test]
    fn a_record_is_one_json_line() {
        let record = NewRecord {
            key: Some(vec![0xff, 1]),
            value: Some(b"{\"n\":1}".to_vec()),
            headers: vec![("position".to_owned(), b"7".to_vec())],
        };
        let line = json_line(PartitionId(3), &LogRecord { offset: 9, time: 1_500_000, record });
        let expected = json!({
            "partition": 3, "offset": 9, "time": "1970-01-01T00:00:01.5Z", "key": { "hex": "ff01" },
            "value": "{\"n\":1}", "headers": { "position": "7" },
        });
        assert_eq!(serde_json::from_str::<Value>(&line).expect("JSON"), expected);
    }
}
