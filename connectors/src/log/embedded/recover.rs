//! Opens a partition for writing: cuts the torn tail of a transaction that never was, and nothing else.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use thalweg_core::{Error, Result};

use super::batch::{BatchHeader, HEADER, MAGIC, MAX_BODY};
use super::durable::{corrupt, remove, sync_dir};
use super::end::{End, EndFile};
use super::index::{self, IndexWriter};
use super::partition::Appender;
use super::scan::{Found, Scan};
use super::segment::{SEGMENT_HEADER, SegmentHeader, open_segment, open_writable, segment_path, survey};

/// Bytes that are written again at once.
const CHUNK: usize = 1 << 20;

/// Opens the partition in `dir`.
pub(super) fn recover(dir: &Path, segment_bytes: u64) -> Result<Appender> {
    remove_drafts(dir)?;
    let (segments, superseded) = survey(dir)?;
    for base in superseded {
        remove(&segment_path(dir, base))?;
        index::remove(dir, base);
    }
    let mut end_file = EndFile::open_writable(dir, false)?;
    let known = end_file.recover()?;
    let last = segments.last().filter(|last| last.header.base >= known.segment);
    let Some(last) = last else {
        return Err(corrupt(&segment_path(dir, known.segment), 0, "the segment that was appended to is missing"));
    };
    for segment in &segments[..segments.len() - 1] {
        if !index::exists(dir, segment.header.base) {
            rebuild_index(dir, segment.header.base, segment.bytes)?;
        }
    }
    let header = last.header;
    let floor = if header.base == known.segment { known.length } else { SEGMENT_HEADER as u64 };
    let tail = find_end(dir, header, floor)?;
    let file = open_writable(dir, header.base)?;
    settle_tail(dir, &file, header.base, floor, tail.length)?;
    let committed = End { segment: header.base, length: tail.length, offset: tail.offset };
    end_file.settle(committed)?;
    sync_dir(dir)?;
    Ok(Appender {
        dir: dir.to_owned(),
        file,
        committed,
        created_at: header.created_at,
        last_time: tail.time.max(header.created_at),
        end_file,
        index: tail.index,
        segment_bytes,
        pending: None,
        failed: None,
    })
}

/// Files that a crash left half done.
fn remove_drafts(dir: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("list {}", dir.display()), e);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "new" || extension == "cleaned") {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Writes the index of a sealed segment anew, from the headers of its batches.
fn rebuild_index(dir: &Path, base: u64, limit: u64) -> Result<()> {
    let Some((file, _)) = open_segment(dir, base)? else { return Ok(()) };
    let mut scan = Scan::new(file, segment_path(dir, base));
    let mut index = IndexWriter::create(dir, base);
    while let Some(header) = scan.peek(limit)? {
        index.note(header.base, scan.at());
        scan.jump(scan.at() + header.size());
    }
    Ok(())
}

struct Tail {
    length: u64,
    offset: u64,
    time: i64,
    index: IndexWriter,
}

/// Checks the last segment batch by batch: the end of its last whole transaction. What is before `floor` was acknowledged and
/// must be whole.
fn find_end(dir: &Path, segment: SegmentHeader, floor: u64) -> Result<Tail> {
    let path = segment_path(dir, segment.base);
    let (file, _) = open_segment(dir, segment.base)?.ok_or_else(|| corrupt(&path, 0, "the segment vanished"))?;
    let mut scan = Scan::new(file, path.clone());
    let length = scan.length()?;
    if length < floor {
        return Err(corrupt(&path, length, format!("the file ends here, {floor} bytes were acknowledged")));
    }
    let index = IndexWriter::create(dir, segment.base);
    let mut tail = Tail { length: SEGMENT_HEADER as u64, offset: segment.base, time: segment.created_at, index };
    let mut next = segment.base;
    let mut begun = SEGMENT_HEADER as u64;
    let why = loop {
        let header = match scan.advance(length)? {
            Found::Batch(header) => header,
            Found::Limit => break "a transaction is cut off",
            Found::Damage(why) => break why,
        };
        if header.base != next || scan.at() - header.back != begun {
            break "a batch that does not continue the one before it";
        }
        tail.index.note(header.base, scan.at());
        next = header.end();
        if header.last {
            begun = scan.at() + header.size();
            tail.length = begun;
            tail.offset = next;
            tail.time = header.time;
        }
    };
    if tail.length == length {
        return Ok(tail);
    }
    if tail.length < floor {
        return Err(scan.damage(format!("{why}, before the end of what was acknowledged ({floor})")));
    }
    if let Some(later) = later_transaction(&path, tail.length, length)? {
        return Err(scan.damage(format!("{why}, and a later transaction follows at byte {later}")));
    }
    tracing::warn!(path = %path.display(), from = tail.length, bytes = length - tail.length, why, "cut an unfinished transaction");
    Ok(tail)
}

/// A transaction is only begun when the one before it is durable: a whole batch of a later one proves that what is damaged was
/// committed. Looks through the tail for one.
fn later_transaction(path: &Path, from: u64, length: u64) -> Result<Option<u64>> {
    let failed = |e| Error::io(format!("read {}", path.display()), e);
    let file = File::open(path).map_err(failed)?;
    let mut window = vec![0; CHUNK + HEADER];
    let mut at = from;
    while at < length {
        let size = window.len().min((length - at) as usize);
        file.read_exact_at(&mut window[..size], at).map_err(failed)?;
        for found in memchr::memmem::find_iter(&window[..size], &MAGIC) {
            let place = at + found as u64;
            let Ok(header) = BatchHeader::decode(place, &window[found..size]) else { continue };
            let whole = place + header.size() <= length && header.length as usize <= MAX_BODY;
            if !whole || place - header.back <= from {
                continue;
            }
            let mut body = vec![0; header.length as usize];
            file.read_exact_at(&mut body, place + HEADER as u64).map_err(failed)?;
            if crc32c::crc32c(&body) == header.body_crc {
                return Ok(Some(place));
            }
        }
        at += CHUNK as u64;
    }
    Ok(None)
}

/// Cuts what is behind `length`, and writes what is between `floor` and it again before it syncs: after a failed sync the
/// kernel may believe pages to be clean that never reached the disk.
fn settle_tail(dir: &Path, file: &File, base: u64, floor: u64, length: u64) -> Result<()> {
    let failed = |e| Error::io(format!("recover {}", segment_path(dir, base).display()), e);
    file.set_len(length).map_err(failed)?;
    let mut buffer = vec![0; CHUNK.min((length - floor) as usize)];
    let mut at = floor;
    while at < length {
        let size = buffer.len().min((length - at) as usize);
        file.read_exact_at(&mut buffer[..size], at).map_err(failed)?;
        file.write_all_at(&buffer[..size], at).map_err(failed)?;
        at += size as u64;
    }
    file.sync_all().map_err(failed)
}
