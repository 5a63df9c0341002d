//! A partition of the embedded log whose segment is any bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thalweg_connectors::log::{EmbeddedLog, Log, LogRecord, NewRecord, Retention, TopicSpec};
use thalweg_core::{Generation, PartitionId};

/// Layout of a segment and of a batch, from the documentation of the log.
const SEGMENT_HEADER: usize = 64;
const BATCH_HEADER: usize = 80;
const BATCH_MAGIC: &[u8] = b"TWLB";

const PARTITION: PartitionId = PartitionId(0);

/// Opens the log as a reader and as a writer, which recovers it, and reads all of it.
///
/// The bytes are the batches; magic, lengths that lead outside and checksums are put right, so that what is behind them is
/// reached. The last 8 bytes say where the committed end is.
pub(crate) fn segment(bytes: &[u8]) {
    let Some((batches, end)) = bytes.split_last_chunk::<8>() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let log = new_log(folder.path());
    drop(log);
    let partition = partition_of(folder.path());
    let path = partition.join(format!("{:020}.log", 0));
    let mut file = fs::read(&path).expect("an empty segment");
    assert_eq!(file.len(), SEGMENT_HEADER);
    file.extend_from_slice(batches);
    let offset = mend(&mut file);
    let word = u64::from_le_bytes(*end);
    // Most often at the end of the file, and else anywhere.
    let length = if word & 3 == 0 { word >> 2 } else { file.len() as u64 };
    let offset = if word & 12 == 0 { word >> 4 } else { offset };
    fs::write(&path, &file).expect("a segment");
    fs::write(partition.join("end"), end_file(length, offset)).expect("an end");

    if let Ok(log) = EmbeddedLog::open_read_only(folder.path()) {
        read_all(&log);
    }
    if let Ok(log) = EmbeddedLog::open(folder.path(), Arc::new(|| 0)) {
        read_all(&log);
        // What a writer accepts it can go on with.
        if append(&log, b"after").is_ok() {
            let read = read_all(&log);
            let last = read.and_then(|records| records.last().and_then(|last| last.record.value.clone()));
            if let Some(last) = last {
                assert_eq!(last, b"after");
            }
        }
    }
}

/// Segments of a few transactions.
pub(crate) fn segments() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let log = new_log(folder.path());
    let mut found = Vec::new();
    for count in [1, 3, 40] {
        for record in 0..count {
            append(&log, &vec![b'v'; record]).expect("appends");
        }
        let file = fs::read(partition_of(folder.path()).join(format!("{:020}.log", 0))).expect("a segment");
        found.push([&file[SEGMENT_HEADER..], &[1, 0, 0, 0, 0, 0, 0, 0][..]].concat());
    }
    found
}

fn new_log(folder: &Path) -> EmbeddedLog {
    let log = EmbeddedLog::open(folder, Arc::new(|| 1_000_000)).expect("a log");
    log.ensure(&TopicSpec { name: "topic".to_owned(), partitions: 1, retention: Retention::Keep }).expect("a topic");
    log
}

fn partition_of(folder: &Path) -> PathBuf {
    folder.join("topics/topic/0")
}

fn append(log: &EmbeddedLog, value: &[u8]) -> thalweg_core::Result<()> {
    let mut producer = log.fence("fuzz", Generation(1))?;
    producer.begin()?;
    let headers = vec![("name".to_owned(), value.to_vec())];
    producer.append("topic", PARTITION, NewRecord { key: Some(b"key".to_vec()), value: None, headers })?;
    producer.append("topic", PARTITION, NewRecord { value: Some(value.to_vec()), ..NewRecord::default() })?;
    producer.commit().map(drop)
}

fn read_all(log: &EmbeddedLog) -> Option<Vec<LogRecord>> {
    let _ = log.offset_at("topic", PARTITION, 5);
    let mut reader = log.reader("topic", PARTITION, 0).ok()?;
    let mut records = Vec::new();
    while reader.read(1 << 16, &mut records).ok()? {}
    assert!(records.is_sorted_by(|a, b| a.offset < b.offset), "offsets do not grow");
    Some(records)
}

/// Puts magic, lengths and checksums of the batches right; returns the offset after the last.
fn mend(file: &mut [u8]) -> u64 {
    let (mut at, mut offset) = (SEGMENT_HEADER, 0u64);
    while at + BATCH_HEADER <= file.len() {
        let place = at as u64;
        let left = file.len() - at - BATCH_HEADER;
        let batch = &mut file[at..];
        batch[..4].copy_from_slice(BATCH_MAGIC);
        let length = (u32_at(batch, 12) as usize).min(left);
        batch[12..16].copy_from_slice(&(length as u32).to_le_bytes());
        let body = crc32c::crc32c(&batch[BATCH_HEADER..BATCH_HEADER + length]);
        batch[8..12].copy_from_slice(&body.to_le_bytes());
        let header = crc32c::crc32c(&[&place.to_le_bytes(), &batch[8..BATCH_HEADER]].concat());
        batch[4..8].copy_from_slice(&header.to_le_bytes());
        offset = u64_at(batch, 24).wrapping_add(u64::from(u32_at(batch, 32))).wrapping_add(1);
        at += BATCH_HEADER + length;
    }
    offset
}

/// Both slots of the committed end.
fn end_file(length: u64, offset: u64) -> Vec<u8> {
    let mut slot = vec![0; 40];
    slot[..4].copy_from_slice(b"TWE1");
    slot[8..16].copy_from_slice(&1u64.to_le_bytes());
    slot[24..32].copy_from_slice(&length.to_le_bytes());
    slot[32..40].copy_from_slice(&offset.to_le_bytes());
    let sum = crc32c::crc32c(&slot[8..]);
    slot[4..8].copy_from_slice(&sum.to_le_bytes());
    let mut file = slot.clone();
    file.resize(512, 0);
    file.extend_from_slice(&slot);
    file
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
