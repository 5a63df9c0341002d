//! Segment files: names, headers, and which of them count.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thalweg_core::{Error, Result};

use super::batch::{u32_at, u64_at};
use super::durable::{corrupt, sync_dir};

/// Bytes of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 64;
const MAGIC: [u8; 4] = *b"TWLS";
const VERSION: u32 = 1;
const CLEANED: u32 = 1;

/// What stands in front of a segment's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) base: u64,
    /// When it was begun, microseconds since 1970: everything in the segment before it is older.
    pub(super) created_at: i64,
    pub(super) cleaned: Option<Cleaned>,
}

/// What is known of a segment that cleaning wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cleaned {
    /// It stands for everything from its base up to here; segments that begin inside are superseded.
    pub(super) covers_to: u64,
    /// Its bytes.
    pub(super) length: u64,
    /// When the first of its tombstones may go; 0 where it has none.
    pub(super) delete_at: i64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[..4].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.base.to_le_bytes());
        out[24..32].copy_from_slice(&self.created_at.to_le_bytes());
        if let Some(cleaned) = self.cleaned {
            out[12..16].copy_from_slice(&CLEANED.to_le_bytes());
            out[32..40].copy_from_slice(&cleaned.covers_to.to_le_bytes());
            out[40..48].copy_from_slice(&cleaned.length.to_le_bytes());
            out[48..56].copy_from_slice(&cleaned.delete_at.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(path: &Path, bytes: &[u8], base: u64) -> Result<Self> {
        if bytes.len() < SEGMENT_HEADER
            || bytes[..4] != MAGIC
            || u32_at(bytes, 4) != crc32c::crc32c(&bytes[8..SEGMENT_HEADER])
        {
            return Err(corrupt(path, 0, "the header of the segment is damaged"));
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(corrupt(path, 8, format!("version {}, this program reads {VERSION}", u32_at(bytes, 8))));
        }
        if u64_at(bytes, 16) != base {
            return Err(corrupt(path, 16, "the segment is named for another offset than it begins with"));
        }
        let cleaned =
            Cleaned { covers_to: u64_at(bytes, 32), length: u64_at(bytes, 40), delete_at: u64_at(bytes, 48) as i64 };
        let cleaned = (u32_at(bytes, 12) & CLEANED != 0).then_some(cleaned);
        Ok(Self { base, created_at: u64_at(bytes, 24) as i64, cleaned })
    }
}

/// The path of a segment.
pub(super) fn segment_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// The bases of all segment files, in order.
pub(super) fn bases(dir: &Path) -> Result<Vec<u64>> {
    let doing = |e| Error::io(format!("list {}", dir.display()), e);
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir).map_err(doing)? {
        let name = entry.map_err(doing)?.file_name();
        let base = name.to_str().and_then(|name| name.strip_suffix(".log"));
        bases.extend(base.and_then(|base| base.parse::<u64>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Opens a segment for reading; nothing where it is gone.
pub(super) fn open_segment(dir: &Path, base: u64) -> Result<Option<(File, SegmentHeader)>> {
    let path = segment_path(dir, base);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("open {}", path.display()), error)),
    };
    let mut bytes = [0; SEGMENT_HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(corrupt(&path, 0, "the segment is cut off"));
        }
        other => other.map_err(|e| Error::io(format!("read {}", path.display()), e))?,
    }
    let header = SegmentHeader::decode(&path, &bytes, base)?;
    Ok(Some((file, header)))
}

/// Opens a segment for appending.
pub(super) fn open_writable(dir: &Path, base: u64) -> Result<File> {
    let path = segment_path(dir, base);
    OpenOptions::new().read(true).write(true).open(&path).map_err(|e| Error::io(format!("open {}", path.display()), e))
}

/// Makes an empty segment, durable under its name.
pub(super) fn create_segment(dir: &Path, base: u64, created_at: i64) -> Result<File> {
    let path = segment_path(dir, base);
    let draft = path.with_extension("new");
    let failed = |e| Error::io(format!("make {}", path.display()), e);
    let header = SegmentHeader { base, created_at, cleaned: None };
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).open(&draft).map_err(failed)?;
    file.write_all(&header.encode()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&draft, &path).map_err(failed)?;
    sync_dir(dir)?;
    Ok(file)
}

/// A segment as it lies on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) bytes: u64,
}

/// The segments that count, in order, and the bases of those that a cleaning has superseded and a crash has left behind.
pub(super) fn survey(dir: &Path) -> Result<(Vec<Segment>, Vec<u64>)> {
    let (mut kept, mut superseded): (Vec<Segment>, Vec<u64>) = Default::default();
    for base in bases(dir)? {
        let covered = kept.last().and_then(|segment| segment.header.cleaned).map_or(0, |cleaned| cleaned.covers_to);
        if base < covered {
            superseded.push(base);
            continue;
        }
        let path = segment_path(dir, base);
        if covered != 0 && base > covered {
            return Err(corrupt(
                &path,
                0,
                format!("the segment before this one ends at offset {covered}: one is missing"),
            ));
        }
        let Some((file, header)) = open_segment(dir, base)? else {
            return Err(corrupt(&path, 0, "the segment vanished while it was looked at"));
        };
        let bytes = file.metadata().map_err(|e| Error::io(format!("look at {}", path.display()), e))?.len();
        if header.cleaned.is_some_and(|cleaned| cleaned.length != bytes) {
            return Err(corrupt(&path, bytes, "a cleaned segment has another length than was written"));
        }
        kept.push(Segment { header, bytes });
    }
    Ok((kept, superseded))
}
