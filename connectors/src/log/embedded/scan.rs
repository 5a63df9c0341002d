//! Walks over the batches of one segment with a bounded buffer.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use thalweg_core::{Error, Result};

use super::batch::{BatchHeader, HEADER, RecordRef, get_record};
use super::durable::corrupt;
use super::segment::SEGMENT_HEADER;

/// Bytes that are read at once; one larger batch makes the buffer grow to its size.
const CHUNK: usize = 512 << 10;

/// What is at the place of a scan.
pub(super) enum Found {
    /// A whole batch; its records are read by [`Scan::record`].
    Batch(BatchHeader),
    /// The limit.
    Limit,
    /// Something else.
    Damage(&'static str),
}

/// A place in a segment.
pub(super) struct Scan {
    file: File,
    path: PathBuf,
    /// The place of the first byte of the window.
    at: u64,
    buffer: Vec<u8>,
    window: Range<usize>,
    batch: Option<BatchHeader>,
    /// Where the next record of the batch begins, and how many were read.
    next: (usize, u32),
    /// Where the record that was shown last ends, and its offset.
    ahead: (usize, u64),
}

impl Scan {
    /// Begins at the first batch.
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self {
            file,
            path,
            at: SEGMENT_HEADER as u64,
            buffer: Vec::new(),
            window: 0..0,
            batch: None,
            next: (0, 0),
            ahead: (0, 0),
        }
    }

    /// The place of the batch that is next, or of the one that is being read.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Whether everything up to `limit` was read.
    pub(super) fn is_done(&self, limit: u64) -> bool {
        self.at + self.batch.map_or(0, |batch| batch.size()) >= limit
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> Result<u64> {
        let metadata = self.file.metadata().map_err(|e| Error::io(format!("look at {}", self.path.display()), e))?;
        Ok(metadata.len())
    }

    /// Goes to a place that must be the beginning of a batch.
    pub(super) fn jump(&mut self, at: u64) {
        let ahead = at.checked_sub(self.at).filter(|ahead| *ahead <= self.window.len() as u64);
        match ahead {
            Some(ahead) => self.window.start += ahead as usize,
            None => self.window = 0..0,
        }
        self.at = at;
        self.batch = None;
    }

    /// Damage at the present place.
    pub(super) fn damage(&self, why: impl std::fmt::Display) -> Error {
        corrupt(&self.path, self.at, why)
    }

    /// Tries to have `bytes` in the window without passing `limit`; false where the limit is nearer.
    fn fill(&mut self, bytes: usize, limit: u64) -> Result<bool> {
        if self.window.len() >= bytes {
            return Ok(true);
        }
        if limit.saturating_sub(self.at) < bytes as u64 {
            return Ok(false);
        }
        self.buffer.copy_within(self.window.clone(), 0);
        self.window = 0..self.window.len();
        if self.buffer.len() < bytes.max(CHUNK) {
            self.buffer.resize(bytes.max(CHUNK), 0);
        } else if self.buffer.len() > CHUNK && bytes <= CHUNK && self.window.is_empty() {
            self.buffer.truncate(CHUNK);
            self.buffer.shrink_to_fit();
        }
        let most = usize::try_from(limit - self.at).unwrap_or(usize::MAX).min(self.buffer.len());
        while self.window.len() < bytes {
            let place = self.at + self.window.len() as u64;
            let into = &mut self.buffer[self.window.end..most];
            let read = match self.file.read_at(into, place) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.map_err(|e| Error::io(format!("read {}", self.path.display()), e))?,
            };
            if read == 0 {
                return Ok(false);
            }
            self.window.end += read;
        }
        Ok(true)
    }

    fn header(&mut self, limit: u64) -> Result<Result<BatchHeader, &'static str>> {
        if !self.fill(HEADER, limit)? {
            return Ok(Err("a batch is cut off"));
        }
        Ok(BatchHeader::decode(self.at, &self.buffer[self.window.clone()]))
    }

    /// The header of the batch at the present place, without its records; nothing at the limit.
    pub(super) fn peek(&mut self, limit: u64) -> Result<Option<BatchHeader>> {
        if self.at >= limit {
            return Ok(None);
        }
        match self.header(limit)? {
            Ok(header) if self.at + header.size() <= limit => Ok(Some(header)),
            Ok(_) => Err(self.damage("a batch goes beyond the committed end")),
            Err(why) => Err(self.damage(why)),
        }
    }

    /// Moves to the next batch and checks all of it.
    pub(super) fn advance(&mut self, limit: u64) -> Result<Found> {
        if let Some(done) = self.batch {
            self.jump(self.at + done.size());
        }
        if self.at >= limit {
            return Ok(Found::Limit);
        }
        let header = match self.header(limit)? {
            Ok(header) => header,
            Err(why) => return Ok(Found::Damage(why)),
        };
        if !self.fill(header.size() as usize, limit)? {
            return Ok(Found::Damage("a batch is cut off"));
        }
        let body = self.window.start + HEADER..self.window.start + header.size() as usize;
        if crc32c::crc32c(&self.buffer[body]) != header.body_crc {
            return Ok(Found::Damage("the checksum of a batch does not match"));
        }
        self.batch = Some(header);
        self.next = (0, 0);
        Ok(Found::Batch(header))
    }

    /// The next record of the present batch, without moving on.
    pub(super) fn record(&mut self) -> Result<Option<RecordRef<'_>>> {
        let Some(header) = self.batch else { return Ok(None) };
        let body = &self.buffer[self.window.start + HEADER..self.window.start + header.size() as usize];
        let (mut at, read) = self.next;
        if read == header.count {
            return if at == body.len() { Ok(None) } else { Err(self.damage("a batch holds more than its records")) };
        }
        match get_record(&header, body, &mut at) {
            Ok(record) => {
                self.ahead = (at, record.offset);
                Ok(Some(record))
            }
            Err(why) => Err(self.damage(why)),
        }
    }

    /// Whether the present batch has a record that was not passed.
    pub(super) fn has_record(&self) -> bool {
        self.batch.is_some_and(|batch| self.next.1 < batch.count)
    }

    /// Moves behind the record that the last [`Scan::record`] showed; returns its offset.
    pub(super) fn step(&mut self) -> u64 {
        let (end, offset) = self.ahead;
        self.next = (end, self.next.1 + 1);
        offset
    }
}
