//! Reads the records of one file, or of a range of one.

use std::path::PathBuf;

use thalweg_core::{Error, Result, format_bytes};

use super::framing::{Framed, Splitter};
use super::identity::Identity;
use super::stream::{Stream, changed};
use crate::{RawBatch, RawReader, RawRecord, ReadLimit, ReadState};

/// Bytes that are read at once: large enough that a call to the system costs nothing per record, small enough that a thousand
/// files may be open.
const CHUNK_BYTES: usize = 64 << 10;

/// What some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(super) struct FileReader {
    pub(super) name: String,
    pub(super) stream: Stream,
    pub(super) splitter: Splitter,
    /// Where a bounded run ends, if that is known.
    pub(super) end: Option<u64>,
    /// The file that is followed, and where it should be.
    pub(super) follow: Option<(PathBuf, Identity)>,
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
            Lead::Mark { header: true } => drop(self.pass_lead()?),
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
        self.window.last = read == 0 && self.follow.is_none();
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

    /// Passes what stands before the first record; whether all of it is there.
    fn pass_lead(&mut self) -> Result<bool> {
        loop {
            match self.lead {
                Lead::Done => return Ok(true),
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
            if !self.fill()? && !self.window.last {
                return Ok(false);
            }
        }
    }

    /// Nothing more for now: unless the followed file is not there any more.
    fn idle(&self) -> Result<ReadState> {
        let Some((path, identity)) = &self.follow else { return Ok(ReadState::End) };
        if identity.is_at(path, self.position + self.window.bytes().len() as u64) {
            return Ok(ReadState::Idle);
        }
        Err(rotated(&self.name, self.position, "it was moved away, replaced or cut"))
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
            batch.records.push(RawRecord { value: start..start + framed.length, key: None, time: None, next });
            self.advance(framed.consumed);
            *count += 1;
        };
        batch.data.extend_from_slice(&self.window.buffer[from..self.window.start]);
        Ok(state)
    }
}

impl RawReader for FileReader {
    fn read(&mut self, limit: ReadLimit, batch: &mut RawBatch) -> Result<ReadState> {
        if !self.pass_lead()? {
            return self.idle();
        }
        let (first, mut count) = (self.position, 0);
        loop {
            if let Some(state) = self.take(limit, first, &mut count, batch)? {
                return Ok(state);
            }
            if self.window.last {
                self.window = Window { last: true, ..Window::default() };
                return Ok(ReadState::End);
            }
            if !self.fill()? && !self.window.last {
                return self.idle();
            }
        }
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

/// A followed file is not the one that was begun with.
pub(super) fn rotated(name: &str, position: u64, how: &str) -> Error {
    Error::external(
        "file-rotated",
        format!(
            "{name}: the followed file is not the one it was: {how}; {position} bytes of it were read. A file that is rotated cannot be \
             read again after a crash. Put the old file back and go on; or let the program that writes it send its lines to a source of \
             connector \"http\" or \"log\", or begin a new job on the new file"
        ),
    )
}
