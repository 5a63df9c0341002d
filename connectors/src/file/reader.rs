//! Reads the records of one file, or of a range of one.

use std::path::PathBuf;

use thalweg_core::{Error, Result, format_bytes};

use super::framing::{Framed, Splitter};
use super::paths::open_file;
use super::stream::{Compression, Stream, changed};
use crate::{RawBatch, RawReader, RawRecord, ReadLimit, ReadState};

/// Bytes that are read at once: large enough that a call to the system costs nothing per record, small enough that a thousand
/// files may be open.
const CHUNK_BYTES: usize = 64 << 10;

/// What some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) struct FileReader {
    pub(super) name: String,
    pub(super) stream: Stream,
    /// Opens the file from its start, where it is compressed and was not looked at as a whole.
    pub(super) unchecked: Option<PathBuf>,
    pub(super) splitter: Splitter,
    /// Where a bounded run ends, if that is known.
    pub(super) end: Option<u64>,
    pub(super) max_record_bytes: usize,
    pub(super) lead: Lead,
    pub(super) header: Option<Vec<u8>>,
    pub(super) window: Window,
    pub(super) position: u64,
}

/// What stands before the first record and is still to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    /// A byte order mark, perhaps, and then perhaps a header.
    Mark {
        header: bool,
    },
    Header,
    Done,
}

/// The bytes that were read and not yet given out; the first of them is at the reader's position.
#[derive(Default)]
pub(super) struct Window {
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    /// Nothing follows.
    last: bool,
}

impl Window {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.filled]
    }

    /// Room for at least one chunk.
    fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            (self.start, self.filled) = (0, self.filled - self.start);
        }
        if self.buffer.len() - self.filled < CHUNK_BYTES {
            // Doubling, so that a long record is not copied once per chunk.
            self.buffer.resize((self.filled * 2).max(self.filled + CHUNK_BYTES), 0);
        }
        &mut self.buffer[self.filled..]
    }
}

impl FileReader {
    /// Reads the header, if there is one already, and goes to a position.
    pub(super) fn start(&mut self, from: u64) -> Result<()> {
        match self.lead {
            Lead::Mark { header: true } => self.pass_lead()?,
            // A mark at the start of the file is before every other position.
            _ if from > 0 => self.lead = Lead::Done,
            _ => {}
        }
        if from <= self.position {
            return Ok(());
        }
        if self.stream.seek(from) {
            self.window = Window::default();
            self.position = from;
            return Ok(());
        }
        while self.position < from {
            let step = (self.window.bytes().len() as u64).min(from - self.position);
            self.advance(step as usize);
            if self.position < from && !self.fill()? {
                return Err(changed(
                    &self.name,
                    &format!("its content ends at position {}, and {from} was read of it", self.position),
                ));
            }
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.window.start += bytes;
        self.position += bytes as u64;
    }

    /// Reads on; whether anything came.
    fn fill(&mut self) -> Result<bool> {
        let held = self.window.bytes().len();
        if held > self.max_record_bytes {
            return Err(self.too_large());
        }
        let read = self.stream.read(&self.name, self.window.room())?;
        self.window.filled += read;
        self.window.last = read == 0;
        Ok(read > 0)
    }

    fn too_large(&self) -> Error {
        Error::user(
            "record-too-large",
            format!(
                "{}: the record at position {} has more than {}; raise max_record_bytes, or check the format",
                self.name,
                self.position,
                format_bytes(self.max_record_bytes as u64)
            ),
        )
    }

    /// The record at the start of the window, if it is whole.
    #[inline]
    fn next(&mut self) -> Result<Option<Framed>> {
        let bytes = &self.window.buffer[self.window.start..self.window.filled];
        let mut found = self.splitter.next(bytes);
        if found.is_none() && self.window.last {
            found = self.splitter.rest(bytes);
        }
        match found {
            Some(framed) if framed.length > self.max_record_bytes => Err(self.too_large()),
            found => Ok(found),
        }
    }

    /// Passes what stands before the first record.
    fn pass_lead(&mut self) -> Result<()> {
        loop {
            match self.lead {
                Lead::Done => return Ok(()),
                Lead::Mark { header } => {
                    let bytes = self.window.bytes();
                    if bytes.len() >= BYTE_ORDER_MARK.len() || !BYTE_ORDER_MARK.starts_with(bytes) || self.window.last {
                        let marked = bytes.starts_with(BYTE_ORDER_MARK);
                        self.advance(if marked { BYTE_ORDER_MARK.len() } else { 0 });
                        self.lead = if header { Lead::Header } else { Lead::Done };
                        continue;
                    }
                }
                Lead::Header => match self.next()? {
                    Some(framed) => {
                        self.header = Some(self.window.bytes()[..framed.length].to_vec());
                        self.advance(framed.consumed);
                        self.lead = Lead::Done;
                        continue;
                    }
                    None if self.window.last => {
                        self.lead = Lead::Done;
                        continue;
                    }
                    None => {}
                },
            }
            self.fill()?;
        }
    }

    /// Gives out records of the window until a limit or its end.
    fn take(
        &mut self,
        limit: ReadLimit,
        first: u64,
        count: &mut usize,
        batch: &mut RawBatch,
    ) -> Result<Option<ReadState>> {
        let (base, from) = (batch.data.len(), self.window.start);
        let state = loop {
            if limit.until.is_some_and(|until| self.position >= until) {
                break Some(ReadState::End);
            }
            if *count >= limit.records || (*count > 0 && self.position - first >= limit.bytes as u64) {
                break Some(if self.end.is_some_and(|end| self.position >= end) {
                    ReadState::End
                } else {
                    ReadState::More
                });
            }
            let Some(framed) = self.next()? else { break None };
            let next = self.position + framed.consumed as u64;
            if let Some(until) = limit.until.filter(|until| next > *until) {
                return Err(changed(
                    &self.name,
                    &format!("a record ended at position {until}, and now one goes on to {next}"),
                ));
            }
            let start = base + self.window.start - from;
            batch.records.push(RawRecord { value: start..start + framed.length, next, ..RawRecord::default() });
            self.advance(framed.consumed);
            *count += 1;
        };
        batch.data.extend_from_slice(&self.window.buffer[from..self.window.start]);
        Ok(state)
    }
}

impl RawReader for FileReader {
    fn read(&mut self, limit: ReadLimit, batch: &mut RawBatch) -> Result<ReadState> {
        self.pass_lead()?;
        let (first, mut count) = (self.position, 0);
        loop {
            if let Some(state) = self.take(limit, first, &mut count, batch)? {
                return Ok(state);
            }
            if self.window.last {
                self.window = Window { last: true, ..Window::default() };
                return Ok(ReadState::End);
            }
            self.fill()?;
        }
    }

    /// Damage in the middle of a compressed file may decode to other bytes, and shows only at the checksum behind them.
    fn check_whole(&mut self) -> Result<()> {
        let (Some(path), Stream::Compressed { length, .. }) = (self.unchecked.take(), &self.stream) else {
            return Ok(());
        };
        let file = open_file(&self.name, &path)?;
        let compression = Compression::of(&self.name, &file)?;
        let mut stream = Stream::open(&self.name, file, compression, *length, None)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        while stream.read(&self.name, &mut chunk)? > 0 {}
        Ok(())
    }

    fn fraction(&self) -> Option<f64> {
        self.stream.fraction()
    }

    fn position(&self) -> u64 {
        self.position
    }

    fn header(&self) -> Option<&[u8]> {
        self.header.as_deref()
    }
}
