//! One followed file: what of it is read, and whether it is still the same.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use thalweg_core::{Error, Result, format_bytes};

use super::START_BYTES;
use super::mark::{FileId, MARK_HEADER, Mark};
use crate::file::framing::{Framing, Splitter};
use crate::file::identity::start_of;
use crate::file::stream::Compression;
use crate::log::NewRecord;

/// Bytes that are read of a file at once.
const CHUNK_BYTES: usize = 256 << 10;
/// What some editors put in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How long a file that was moved away, or removed, is still looked at after it has grown for the last time: a program may go on
/// writing to it until it is told of the rotation.
const QUIET: Duration = Duration::from_secs(60);

/// A file that is followed.
pub(super) struct Followed {
    pub(super) id: FileId,
    pub(super) name: String,
    file: File,
    splitter: Splitter,
    max_record_bytes: usize,
    /// Whether the line that names the columns is still to come.
    header_wanted: bool,
    has_header: bool,
    /// Everything before it was given out.
    position: u64,
    /// What was read from `position` on.
    window: Vec<u8>,
    /// The first bytes of the file, as far as they were read.
    start: Vec<u8>,
    /// When it was changed for the last time, as it was before the last read.
    changed: Option<(i64, i64)>,
    /// Set while no pattern means the file any more: when it grew for the last time.
    moved: Option<Instant>,
}

/// What a read of a file found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Bytes that were read.
    pub(super) bytes: u64,
    /// The line that names the columns.
    pub(super) header: Option<Vec<u8>>,
    /// The file was cut or written anew in place: it is read from its start again. So many bytes of it had been given out.
    pub(super) cut_at: Option<u64>,
    /// It begins as a compressed file does; nothing of it was given out.
    pub(super) compressed: bool,
}

impl Followed {
    /// A file from its start on.
    pub(super) fn new(id: FileId, name: String, file: File, framing: Framing, max_record_bytes: usize) -> Self {
        Self {
            id,
            name,
            file,
            splitter: framing.splitter(),
            max_record_bytes,
            header_wanted: framing.header,
            has_header: framing.header,
            position: 0,
            window: Vec::new(),
            start: Vec::new(),
            changed: None,
            moved: None,
        }
    }

    /// Goes on behind a mark; false where this is not the file any more that the mark is of.
    pub(super) fn resume(&mut self, mark: &Mark) -> Result<bool> {
        let start = start_of(&self.name, &self.file, u64::from(mark.hashed))?;
        if !mark.fits(&start, self.look()?.size()) {
            return Ok(false);
        }
        (self.start, self.position, self.header_wanted) = (start, mark.position, false);
        Ok(true)
    }

    /// What a restart goes on from; nothing where nothing of the file was given out.
    pub(super) fn mark(&self) -> Option<Mark> {
        let known = self.start.len().min(usize::try_from(self.position).unwrap_or(usize::MAX));
        (self.position > 0).then(|| Mark::of(self.id, &self.start[..known], self.position, &self.name))
    }

    /// Whether a pattern means the file, under the name that it has now.
    pub(super) fn set_place(&mut self, name: Option<String>) {
        match name {
            Some(name) => (self.name, self.moved) = (name, None),
            None => self.moved = self.moved.or_else(|| Some(Instant::now())),
        }
    }

    pub(super) fn is_moved(&self) -> bool {
        self.moved.is_some()
    }

    /// Whether it was moved away and nobody writes to it any more.
    pub(super) fn is_over(&self) -> bool {
        self.moved.is_some_and(|since| since.elapsed() >= QUIET)
    }

    /// Reads one chunk, and gives out the records that are whole in it.
    pub(super) fn read(&mut self, out: &mut Vec<NewRecord>) -> Result<Found> {
        let reached = self.position + self.window.len() as u64;
        let meta = self.look()?;
        let changed = (meta.mtime(), meta.mtime_nsec());
        if meta.size() == reached && self.changed == Some(changed) {
            return Ok(Found::default());
        }
        if meta.size() < reached {
            return Ok(self.restart());
        }
        let held = self.window.len();
        self.window.resize(held + CHUNK_BYTES, 0);
        let read = read_at(&self.file, &mut self.window[held..], reached)
            .map_err(|error| Error::io(format!("{}: reading at position {reached}", self.name), error))?;
        self.window.truncate(held + read);
        let room = START_BYTES.saturating_sub(usize::try_from(reached).unwrap_or(usize::MAX));
        let new = &self.window[held..held + read];
        self.start.extend_from_slice(&new[..room.min(read)]);
        // Looked at after the bytes were read: what a file that was written anew has there would not be what it began with.
        if self.look()?.size() < reached + read as u64
            || start_of(&self.name, &self.file, self.start.len() as u64)? != self.start
        {
            return Ok(self.restart());
        }
        self.changed = Some(changed);
        if self.position == 0 && Compression::of_start(&self.window) != Compression::None {
            return Ok(Found { compressed: true, ..Found::default() });
        }
        if let Some(moved) = self.moved.as_mut().filter(|_| read > 0) {
            *moved = Instant::now();
        }
        let header = self.split(out, false)?;
        Ok(Found { bytes: read as u64, header, ..Found::default() })
    }

    /// A file that is over: its last line is a record although no line end follows.
    pub(super) fn finish(&mut self, out: &mut Vec<NewRecord>) -> Result<Option<Vec<u8>>> {
        self.split(out, true)
    }

    /// Everything from the start again.
    fn restart(&mut self) -> Found {
        let cut_at = Some(self.position);
        self.position = 0;
        self.window.clear();
        self.start.clear();
        self.splitter.reset();
        self.header_wanted = self.has_header;
        Found { cut_at, ..Found::default() }
    }

    /// Gives out whole records of the window; the last of them has the mark. Returns the line that names the columns.
    fn split(&mut self, out: &mut Vec<NewRecord>, last: bool) -> Result<Option<Vec<u8>>> {
        let (mut at, mut used, mut header, before) = (0, 0, None, out.len());
        if self.position == 0 {
            if self.window.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&self.window) && !last {
                return Ok(None);
            }
            at = if self.window.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        }
        loop {
            let rest = &self.window[at..];
            let framed = self.splitter.next(rest).or_else(|| if last { self.splitter.rest(rest) } else { None });
            if framed.map_or(rest.len(), |framed| framed.length) > self.max_record_bytes {
                return Err(self.too_large(self.position + at as u64));
            }
            let Some(framed) = framed else { break };
            let value = rest[..framed.length].to_vec();
            at += framed.consumed;
            // A byte order mark goes with the line behind it: a position is always between two lines.
            used = at;
            if std::mem::take(&mut self.header_wanted) {
                header = Some(value);
            } else {
                out.push(NewRecord { value: Some(value), ..NewRecord::default() });
            }
        }
        self.window.drain(..used);
        self.position += used as u64;
        if let Some(mark) = self.mark().filter(|_| out.len() > before) {
            out.last_mut().expect("one was pushed").headers.push((MARK_HEADER.to_owned(), mark.encode()));
        }
        Ok(header)
    }

    fn look(&self) -> Result<Metadata> {
        self.file.metadata().map_err(|error| Error::io(format!("{}: looking at the file", self.name), error))
    }

    fn too_large(&self, position: u64) -> Error {
        let most = format_bytes(self.max_record_bytes as u64);
        let text = format!(
            "{}: the record at position {position} has more than {most}; raise max_record_bytes, or check the format",
            self.name
        );
        Error::user("record-too-large", text)
    }
}

fn read_at(file: &File, into: &mut [u8], at: u64) -> std::io::Result<usize> {
    loop {
        match file.read_at(into, at) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
