//! The committed end of a partition: two slots, written in turn after each sync.
//!
//! Readers of any process trust what is before it and look at nothing behind it, and recovery cuts nothing before it. It is
//! itself not synced on the way: after a power loss it may be old, never ahead of what is durable.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thalweg_core::{Error, Result};

use super::batch::{u32_at, u64_at};
use super::durable::corrupt;

const MAGIC: [u8; 4] = *b"TWE1";
const SLOT: usize = 40;
/// Apart by a sector: a torn sector spoils one slot only.
const STRIDE: u64 = 512;
/// How often a reader looks again at a slot that does not match: the writer may be in the middle of it.
const LOOKS: usize = 1000;

/// Where committed records end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// The segment that is appended to.
    pub(super) segment: u64,
    /// Its committed bytes.
    pub(super) length: u64,
    /// The offset after the last committed record.
    pub(super) offset: u64,
}

/// The file with the two slots.
pub(super) struct EndFile {
    file: File,
    path: PathBuf,
    sequence: u64,
}

impl EndFile {
    /// Opens it for reading.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, OpenOptions::new().read(true))
    }

    /// Opens it for writing, and makes it where `create`.
    pub(super) fn open_writable(dir: &Path, create: bool) -> Result<Self> {
        Self::open_with(dir, OpenOptions::new().read(true).write(true).create(create).truncate(false))
    }

    fn open_with(dir: &Path, options: &OpenOptions) -> Result<Self> {
        let path = dir.join("end");
        let file = options.open(&path).map_err(|e| Error::io(format!("open {}", path.display()), e))?;
        Ok(Self { file, path, sequence: 0 })
    }

    fn slot(&self, index: u64) -> Result<Option<(u64, End)>> {
        let mut bytes = [0; SLOT];
        let doing = || format!("read {}", self.path.display());
        match self.file.read_exact_at(&mut bytes, index * STRIDE) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(|e| Error::io(doing(), e))?,
        }
        let valid = bytes[..4] == MAGIC && u32_at(&bytes, 4) == crc32c::crc32c(&bytes[8..]);
        let end = End { segment: u64_at(&bytes, 16), length: u64_at(&bytes, 24), offset: u64_at(&bytes, 32) };
        Ok(valid.then(|| (u64_at(&bytes, 8), end)))
    }

    /// The newest end; for readers, which may look while it is written: both slots must be whole.
    pub(super) fn read(&self) -> Result<End> {
        for _ in 0..LOOKS {
            if let (Some(a), Some(b)) = (self.slot(0)?, self.slot(1)?) {
                return Ok(if a.0 > b.0 { a.1 } else { b.1 });
            }
            std::thread::yield_now();
        }
        Err(corrupt(&self.path, 0, "the committed end cannot be read; open the log for writing once, which mends it"))
    }

    /// The newest end that is whole; for the writer when it opens the partition.
    pub(super) fn recover(&mut self) -> Result<End> {
        let newest = [self.slot(0)?, self.slot(1)?].into_iter().flatten().max_by_key(|(sequence, _)| *sequence);
        let (sequence, end) =
            newest.ok_or_else(|| corrupt(&self.path, 0, "both copies of the committed end are damaged"))?;
        self.sequence = sequence;
        Ok(end)
    }

    /// Publishes a new end.
    pub(super) fn write(&mut self, end: End) -> Result<()> {
        self.sequence += 1;
        let mut bytes = [0; SLOT];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&end.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&end.length.to_le_bytes());
        bytes[32..40].copy_from_slice(&end.offset.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        let place = self.sequence % 2 * STRIDE;
        self.file.write_all_at(&bytes, place).map_err(|e| Error::io(format!("write {}", self.path.display()), e))
    }

    /// Publishes an end in both slots, durably.
    pub(super) fn settle(&mut self, end: End) -> Result<()> {
        self.write(end)?;
        self.write(end)?;
        self.file.sync_all().map_err(|e| Error::io(format!("sync {}", self.path.display()), e))
    }
}
