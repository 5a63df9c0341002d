//! The sparse index of a segment: a hint that is checked before it is trusted, and that may be missing.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::batch::{u32_at, u64_at};

const ENTRY: usize = 20;
/// Bytes of log between two entries.
const EVERY: u64 = 256 << 10;

fn path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.index"))
}

/// The place of a batch that begins at or before `offset`, and before byte `limit`.
pub(super) fn lookup(dir: &Path, base: u64, offset: u64, limit: u64) -> Option<u64> {
    let bytes = fs::read(path(dir, base)).ok()?;
    let entries = bytes.chunks_exact(ENTRY).take_while(|entry| crc32c::crc32c(&entry[..16]) == u32_at(entry, 16));
    let known = entries.map(|entry| (u64_at(entry, 0), u64_at(entry, 8)));
    known.take_while(|(first, place)| *first <= offset && *place < limit).last().map(|(_, place)| place)
}

/// Whether the segment has one.
pub(super) fn exists(dir: &Path, base: u64) -> bool {
    path(dir, base).exists()
}

/// Removes it.
pub(super) fn remove(dir: &Path, base: u64) {
    // A leftover is harmless: each entry is checked against the segment.
    let _ = fs::remove_file(path(dir, base));
}

/// Writes the index of one segment as batches are noted.
pub(super) struct IndexWriter {
    path: PathBuf,
    file: Option<File>,
    noted: u64,
}

impl IndexWriter {
    /// Begins anew.
    pub(super) fn create(dir: &Path, base: u64) -> Self {
        let path = path(dir, base);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        Self { file: warned(&path, file), path, noted: 0 }
    }

    /// Notes that a batch with the first offset `offset` is at byte `place`.
    pub(super) fn note(&mut self, offset: u64, place: u64) {
        if place < self.noted + EVERY {
            return;
        }
        self.noted = place;
        let Some(file) = &mut self.file else { return };
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&offset.to_le_bytes());
        entry[8..16].copy_from_slice(&place.to_le_bytes());
        let crc = crc32c::crc32c(&entry[..16]);
        entry[16..].copy_from_slice(&crc.to_le_bytes());
        let written = file.write_all(&entry);
        if warned(&self.path, written).is_none() {
            self.file = None;
        }
    }
}

/// An index that cannot be written makes seeks slower, nothing else.
fn warned<T>(path: &Path, result: std::io::Result<T>) -> Option<T> {
    result
        .inspect_err(
            |error| tracing::warn!(path = %path.display(), %error, "the index cannot be written; seeks get slower"),
        )
        .ok()
}
