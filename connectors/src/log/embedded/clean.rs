//! Cleaning: what a topic's retention does not keep goes, segment by segment, while appends and reads go on.
//!
//! Compaction works as in Kafka: a map from the hash of each key to its last offset over the segments that no cleaning has
//! seen, then, from the oldest segment on, files without the records that the map outdates. A tombstone gets its deadline
//! (KIP-534) when it is first written anew, and goes with the first cleaning after it: then nothing older of its key is left,
//! because everything before it was cleaned before it. Files are replaced in that order, each by one rename.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use thalweg_core::{Error, Result, failpoint};

use super::batch::{BATCH_BYTES, BatchHeader, HEADER, RecordRef, put_record};
use super::durable::{corrupt, remove, sync_dir};
use super::index::{self, IndexWriter};
use super::partition::Partition;
use super::scan::{Found, Scan};
use super::segment::{Cleaned, SEGMENT_HEADER, Segment, SegmentHeader, open_segment, segment_path, survey};
use crate::log::Retention;

/// Most keys of one pass (about 200 MB of memory); the rest waits for the next one.
const MAX_KEYS: usize = 1 << 22;

/// What a cleaning did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanReport {
    /// Bytes that were freed.
    pub bytes_freed: u64,
    /// Records that compaction dropped.
    pub records_dropped: u64,
    /// Segment files that went.
    pub segments_removed: u64,
}

impl CleanReport {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes_freed += other.bytes_freed;
        self.records_dropped += other.records_dropped;
        self.segments_removed += other.segments_removed;
    }
}

/// Cleans one partition.
pub(super) fn clean(partition: &Partition, retention: Retention, now: i64, segment_bytes: u64) -> Result<CleanReport> {
    let _upkeep = partition.upkeep.lock();
    match retention {
        Retention::Keep | Retention::Default => Ok(CleanReport::default()),
        Retention::Bounded { max_age_ms, max_bytes } => bound(partition, max_age_ms, max_bytes, now),
        Retention::Compact { delete_retention_ms } => {
            let delete_at = now.saturating_add(micros(delete_retention_ms)).max(1);
            compact(partition, now, delete_at, segment_bytes)
        }
    }
}

/// Removes segments of which every record is before an offset.
pub(super) fn trim(partition: &Partition, before: u64) -> Result<()> {
    let _upkeep = partition.upkeep.lock();
    let segments = sealed_and_active(partition)?;
    let old = segments.windows(2).take_while(|pair| pair[1].header.base <= before).count();
    drop_first(partition, &segments, old).map(drop)
}

fn micros(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// All segments, the active one last; removes what an interrupted cleaning left.
fn sealed_and_active(partition: &Partition) -> Result<Vec<Segment>> {
    let (segments, superseded) = survey(&partition.dir)?;
    for base in superseded {
        remove_segment(&partition.dir, base)?;
    }
    Ok(segments)
}

fn remove_segment(dir: &Path, base: u64) -> Result<()> {
    remove(&segment_path(dir, base))?;
    index::remove(dir, base);
    Ok(())
}

/// Removes the oldest segments, oldest first, so that what is left after a crash has no hole.
fn drop_first(partition: &Partition, segments: &[Segment], count: usize) -> Result<CleanReport> {
    for segment in &segments[..count] {
        remove_segment(&partition.dir, segment.header.base)?;
        sync_dir(&partition.dir)?;
    }
    let bytes_freed = segments[..count].iter().map(|segment| segment.bytes).sum();
    Ok(CleanReport { bytes_freed, segments_removed: count as u64, records_dropped: 0 })
}

/// Retention by age and bytes: at least the last `max_bytes` stay, and everything younger than `max_age_ms`.
fn bound(partition: &Partition, max_age_ms: Option<u64>, max_bytes: Option<u64>, now: i64) -> Result<CleanReport> {
    let oldest = max_age_ms.map(|ms| now.saturating_sub(micros(ms)));
    let mut appender = partition.lock();
    if oldest.is_some_and(|oldest| appender.created_at < oldest) {
        appender.fail_stop(|appender| appender.roll(now))?;
    }
    drop(appender);
    let segments = sealed_and_active(partition)?;
    let mut total: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let goes = |pair: &[Segment]| {
        // Everything in a segment is older than the one after it.
        let too_old = oldest.is_some_and(|oldest| pair[1].header.created_at < oldest);
        let too_much = max_bytes.is_some_and(|most| total - pair[0].bytes >= most);
        total -= pair[0].bytes;
        too_old || too_much
    };
    let count = segments.windows(2).map(goes).take_while(|goes| *goes).count();
    drop_first(partition, &segments, count)
}

fn compact(partition: &Partition, now: i64, delete_at: i64, segment_bytes: u64) -> Result<CleanReport> {
    let all = sealed_and_active(partition)?;
    let is_clean = |segment: &&Segment| segment.header.cleaned.is_some();
    let clean_bytes: u64 = all.iter().take_while(is_clean).map(|segment| segment.bytes).sum();
    let dirty_bytes: u64 = all.iter().skip_while(is_clean).map(|segment| segment.bytes - SEGMENT_HEADER as u64).sum();
    let due = all.iter().filter_map(|segment| segment.header.cleaned);
    let due = due.into_iter().any(|cleaned| cleaned.delete_at != 0 && cleaned.delete_at <= now);
    // Half of it new: then a pass writes at most twice what came.
    if !due && (dirty_bytes == 0 || dirty_bytes < clean_bytes) {
        return Ok(CleanReport::default());
    }
    partition.lock().fail_stop(|appender| appender.roll(now))?;
    let all = sealed_and_active(partition)?;
    let (last, count) = last_offsets(&partition.dir, &all)?;
    let mut report = CleanReport::default();
    let mut rest = &all[..count + 1];
    while rest.len() > 1 {
        let size = group_size(&rest[..rest.len() - 1], segment_bytes);
        report.add(rewrite(&partition.dir, &rest[..=size], &Rules { last: &last, now, delete_at })?);
        rest = &rest[size..];
    }
    Ok(report)
}

/// How many of the first segments become one.
fn group_size(segments: &[Segment], segment_bytes: u64) -> usize {
    let mut total = 0;
    let fits = |segment: &&Segment| {
        total += segment.bytes;
        total <= segment_bytes
    };
    segments.iter().take_while(fits).count().max(1)
}

type LastOffsets = HashMap<u128, u64, std::hash::BuildHasherDefault<KeyIsHash>>;

/// The key is a hash already.
#[derive(Default)]
struct KeyIsHash(u64);

impl std::hash::Hasher for KeyIsHash {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

fn hash(key: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(key)
}

/// The last offset of each key in the sealed segments that no cleaning has seen, and how many segments that covers; the last of
/// `all` is the active one.
fn last_offsets(dir: &Path, all: &[Segment]) -> Result<(LastOffsets, usize)> {
    let mut last = LastOffsets::default();
    let first_dirty = all.iter().take_while(|segment| segment.header.cleaned.is_some()).count();
    for (index, (segment, end)) in with_ends(all).enumerate().skip(first_dirty) {
        if last.len() >= MAX_KEYS {
            return Ok((last, index));
        }
        each_record(dir, segment, end, |_, record| {
            if let Some(key) = record.key {
                last.insert(hash(key), record.offset);
            }
            Ok(())
        })?;
    }
    Ok((last, all.len() - 1))
}

/// Calls `visit` for every record of a sealed segment that ends before the offset `end`.
fn each_record(
    dir: &Path,
    segment: &Segment,
    end: u64,
    mut visit: impl FnMut(&BatchHeader, RecordRef<'_>) -> Result<()>,
) -> Result<()> {
    let path = segment_path(dir, segment.header.base);
    let Some((file, _)) = open_segment(dir, segment.header.base)? else {
        return Err(corrupt(&path, 0, "the segment vanished while it was cleaned"));
    };
    let mut scan = Scan::new(file, path);
    // What is missing must not be cleaned away: a segment that was appended has every offset.
    let gapless = segment.header.cleaned.is_none();
    let mut next = segment.header.base;
    loop {
        match scan.advance(segment.bytes)? {
            Found::Batch(header) => {
                if gapless && header.base != next {
                    return Err(scan.damage(format!("a batch begins with offset {}, expected was {next}", header.base)));
                }
                next = header.end();
                while let Some(record) = scan.record()? {
                    visit(&header, record)?;
                    scan.step();
                }
            }
            Found::Limit if gapless && next != end => {
                return Err(scan.damage(format!("the segment ends at offset {next}, the next one begins at {end}")));
            }
            Found::Limit => return Ok(()),
            Found::Damage(why) => return Err(scan.damage(why)),
        }
    }
}

/// The segments of a slice that has one more, each with the base of the one after it.
fn with_ends(segments: &[Segment]) -> impl Iterator<Item = (&Segment, u64)> {
    segments.windows(2).map(|pair| (&pair[0], pair[1].header.base))
}

struct Rules<'a> {
    last: &'a LastOffsets,
    now: i64,
    delete_at: i64,
}

impl Rules<'_> {
    /// Whether a record stays, and if so with which deadline for tombstones its batch is to be written.
    fn keep(&self, header: &BatchHeader, record: &RecordRef<'_>) -> Option<i64> {
        let outdated =
            record.key.is_some_and(|key| self.last.get(&hash(key)).is_some_and(|last| *last > record.offset));
        if outdated {
            return None;
        }
        match (record.value, header.delete_at) {
            (Some(_), _) => Some(0),
            (None, 0) => Some(self.delete_at),
            (None, deadline) => (deadline > self.now).then_some(deadline),
        }
    }
}

/// Writes a group of segments as one, and puts it in their place; the last of the slice is the one after the group.
fn rewrite(dir: &Path, group_and_next: &[Segment], rules: &Rules<'_>) -> Result<CleanReport> {
    let (next, group) = group_and_next.split_last().expect("a group and the segment after it");
    let (base, covers_to) = (group[0].header.base, next.header.base);
    let path = segment_path(dir, base);
    let draft = path.with_extension("cleaned");
    let mut dropped = 0;
    let written = (|| {
        let mut writer = CleanWriter::create(&draft)?;
        for (segment, end) in with_ends(group_and_next) {
            each_record(dir, segment, end, |header, record| match rules.keep(header, &record) {
                Some(delete_at) => writer.add(&record, delete_at),
                None => {
                    dropped += 1;
                    Ok(())
                }
            })?;
        }
        writer.finish(base, group[0].header.created_at, covers_to)
    })();
    let (length, places) = written.inspect_err(|_| {
        // The partition is as it was; what was half written takes room only.
        let _ = fs::remove_file(&draft);
    })?;
    failpoint::pass("log-clean-rename")?;
    index::remove(dir, base);
    fs::rename(&draft, &path).map_err(|e| Error::io(format!("replace {}", path.display()), e))?;
    sync_dir(dir)?;
    for segment in &group[1..] {
        remove_segment(dir, segment.header.base)?;
    }
    sync_dir(dir)?;
    let mut index = IndexWriter::create(dir, base);
    places.into_iter().for_each(|(offset, place)| index.note(offset, place));
    let before: u64 = group.iter().map(|segment| segment.bytes).sum();
    let segments_removed = group.len() as u64 - 1;
    Ok(CleanReport { bytes_freed: before.saturating_sub(length), records_dropped: dropped, segments_removed })
}

/// Writes a cleaned segment.
struct CleanWriter<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    at: u64,
    batch: BatchHeader,
    body: Vec<u8>,
    places: Vec<(u64, u64)>,
    delete_at: i64,
}

impl<'a> CleanWriter<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::io(format!("make {}", path.display()), e))?;
        let mut file = BufWriter::with_capacity(BATCH_BYTES, file);
        file.write_all(&[0; SEGMENT_HEADER]).map_err(|e| Error::io(format!("write {}", path.display()), e))?;
        let batch = BatchHeader::default();
        Ok(Self { path, file, at: SEGMENT_HEADER as u64, batch, body: Vec::new(), places: Vec::new(), delete_at: 0 })
    }

    /// Adds a record; records of one deadline share a batch, whose records may come from several transactions.
    fn add(&mut self, record: &RecordRef<'_>, delete_at: i64) -> Result<()> {
        let far = record.offset - self.batch.base >= u64::from(u32::MAX);
        if self.batch.count > 0 && (self.body.len() >= BATCH_BYTES || self.batch.delete_at != delete_at || far) {
            self.flush()?;
        }
        if self.batch.count == 0 {
            self.batch =
                BatchHeader { base: record.offset, time: record.time, delete_at, last: true, ..BatchHeader::default() };
        }
        let delta = record.offset - self.batch.base;
        put_record(&mut self.body, delta, record.time.wrapping_sub(self.batch.time), record.key, record.value);
        self.body.extend_from_slice(record.headers);
        self.batch.last_delta = delta as u32;
        self.batch.count += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.batch.count == 0 {
            return Ok(());
        }
        self.batch.body_crc = crc32c::crc32c(&self.body);
        self.batch.length = self.body.len() as u32;
        let mut head = [0; HEADER];
        self.batch.encode(self.at, &mut head);
        let written = self.file.write_all(&head).and_then(|()| self.file.write_all(&self.body));
        written.map_err(|e| Error::io(format!("write {}", self.path.display()), e))?;
        self.places.push((self.batch.base, self.at));
        self.at += self.batch.size();
        if self.batch.delete_at != 0 && (self.delete_at == 0 || self.batch.delete_at < self.delete_at) {
            self.delete_at = self.batch.delete_at;
        }
        self.batch.count = 0;
        self.body.clear();
        Ok(())
    }

    /// Writes the header and makes all durable; returns the bytes, and where the batches are.
    fn finish(mut self, base: u64, created_at: i64, covers_to: u64) -> Result<(u64, Vec<(u64, u64)>)> {
        self.flush()?;
        let cleaned = Some(Cleaned { covers_to, length: self.at, delete_at: self.delete_at });
        let head = SegmentHeader { base, created_at, cleaned }.encode();
        let file = &mut self.file;
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&head)).and_then(|()| file.flush());
        let written = written.and_then(|()| file.get_ref().sync_all());
        written.map_err(|e| Error::io(format!("write {}", self.path.display()), e))?;
        Ok((self.at, self.places))
    }
}
