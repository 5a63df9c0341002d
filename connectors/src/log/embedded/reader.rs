//! Reads one partition: segment after segment, up to the committed end.

use std::path::PathBuf;

use thalweg_core::Result;

use super::batch::RecordRef;
use super::durable::corrupt;
use super::end::{End, EndFile};
use super::index;
use super::scan::{Found, Scan};
use super::segment::{SegmentHeader, bases, open_segment, segment_path};
use crate::log::{LogReader, LogRecord};

/// How often a reader lists the folder again when cleaning took a file away under its hands.
const LOOKS: usize = 100;

/// Reads one partition of an embedded log, in this process or another.
pub(crate) struct EmbeddedReader {
    dir: PathBuf,
    end_file: EndFile,
    end: End,
    /// The first offset that is still wanted.
    wanted: u64,
    position: u64,
    open: Option<Open>,
}

struct Open {
    header: SegmentHeader,
    scan: Scan,
    /// The offset that the next batch begins with (in a cleaned segment: or a later one); nothing right after a seek.
    reached: Option<u64>,
    /// Bytes that may be read; `None` where it must be asked.
    sealed: Option<u64>,
    /// The batch begins before the wanted offset.
    skip: bool,
}

impl EmbeddedReader {
    /// Opens at `from`, or the first offset after it that is kept.
    pub(super) fn open(dir: PathBuf, from: u64) -> Result<Self> {
        let end_file = EndFile::open(&dir)?;
        let end = end_file.read()?;
        let mut reader = Self { dir, end_file, end, wanted: from, position: from, open: None };
        let first = bases(&reader.dir)?.first().copied().unwrap_or(0);
        reader.wanted = from.max(first);
        reader.position = reader.wanted;
        Ok(reader)
    }

    /// The offset after the last record.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The offset after the last record that is committed now.
    pub(crate) fn committed_end(&self) -> Result<u64> {
        self.end_file.read().map(|end| end.offset)
    }

    /// The offset before which all records that are still kept were given.
    pub(crate) fn wanted(&self) -> u64 {
        self.wanted
    }

    /// The next record, without moving on; nothing at the committed end.
    pub(crate) fn peek(&mut self) -> Result<Option<RecordRef<'_>>> {
        if !self.find()? {
            return Ok(None);
        }
        let open = self.open.as_mut().expect("a record was found in an open segment");
        open.scan.record()
    }

    /// Moves behind the record that [`EmbeddedReader::peek`] just showed.
    pub(crate) fn step(&mut self) {
        let open = self.open.as_mut().expect("a record was shown");
        self.wanted = open.scan.step() + 1;
        self.position = self.wanted;
    }

    /// Stands on a wanted record, or says that there is none.
    fn find(&mut self) -> Result<bool> {
        loop {
            if self.open.is_none() && !self.locate()? {
                return Ok(false);
            }
            let open = self.open.as_mut().expect("located");
            if open.scan.has_record() && !open.skip {
                return Ok(true);
            }
            while let Some(record) = open.scan.record()? {
                if record.offset >= self.wanted {
                    open.skip = false;
                    return Ok(true);
                }
                open.scan.step();
            }
            let Some(limit) = self.limit()? else { return Ok(false) };
            if !self.next_batch(limit)? {
                self.leave()?;
            }
        }
    }

    /// Bytes of the open segment that may be read; nothing where all committed ones are read and more may come.
    fn limit(&mut self) -> Result<Option<u64>> {
        let open = self.open.as_mut().expect("a segment is open");
        if let Some(length) = open.sealed {
            return Ok(Some(length));
        }
        if open.header.base == self.end.segment && !open.scan.is_done(self.end.length) {
            return Ok(Some(self.end.length));
        }
        let end = self.end_file.read()?;
        self.end = end;
        if open.header.base < end.segment || open.header.cleaned.is_some() {
            let length = open.scan.length()?;
            open.sealed = Some(length);
            return Ok(Some(length));
        }
        let more = open.header.base == end.segment && !open.scan.is_done(end.length);
        Ok(more.then_some(end.length))
    }

    /// Goes to the next batch of the open segment; false at its end.
    fn next_batch(&mut self, limit: u64) -> Result<bool> {
        let open = self.open.as_mut().expect("a segment is open");
        let header = match open.scan.advance(limit)? {
            Found::Batch(header) => header,
            Found::Limit => return Ok(false),
            Found::Damage(why) => return Err(open.scan.damage(why)),
        };
        let in_order = open.reached.is_none_or(|reached| match open.header.cleaned {
            Some(_) => header.base >= reached,
            None => header.base == reached,
        });
        if !in_order {
            let reached = open.reached.unwrap_or_default();
            return Err(open
                .scan
                .damage(format!("a batch begins with offset {}, expected was {reached}", header.base)));
        }
        open.reached = Some(header.end());
        open.skip = header.base < self.wanted;
        Ok(true)
    }

    /// Leaves a segment at its end; the next one must continue it.
    fn leave(&mut self) -> Result<()> {
        let open = self.open.take().expect("a segment is open");
        let base = open.header.base;
        match open.header.cleaned {
            Some(cleaned) if cleaned.length != open.scan.at() => Err(open.scan.damage("a cleaned segment is cut off")),
            Some(cleaned) => {
                self.wanted = self.wanted.max(cleaned.covers_to);
                self.check_continued(base, cleaned.covers_to)
            }
            None => {
                let reached = open.reached.unwrap_or(base);
                if self.wanted < reached {
                    return Err(open.scan.damage("a record is missing"));
                }
                self.check_continued(base, reached)
            }
        }
    }

    /// A sealed segment that ends at `reached` must be followed by one that covers `reached`, unless that is trimmed away.
    fn check_continued(&self, base: u64, reached: u64) -> Result<()> {
        for _ in 0..LOOKS {
            let bases = bases(&self.dir)?;
            if bases.first().is_some_and(|first| *first >= reached) {
                return Ok(());
            }
            let Some(found) = bases.iter().rev().find(|base| **base <= reached) else { continue };
            match open_segment(&self.dir, *found)? {
                Some((_, header)) if header.cleaned.is_some_and(|cleaned| cleaned.covers_to > reached) => return Ok(()),
                Some((_, header)) if header.cleaned.is_none() && *found == reached && reached > base => return Ok(()),
                _ => std::thread::yield_now(),
            }
        }
        let path = segment_path(&self.dir, base);
        Err(corrupt(&path, 0, format!("the segment ends at offset {reached}, and no segment goes on there")))
    }

    /// Opens the segment of the wanted offset, and goes near to it; false where nothing wanted is committed.
    fn locate(&mut self) -> Result<bool> {
        for _ in 0..LOOKS {
            let bases = bases(&self.dir)?;
            let Some(first) = bases.first() else { continue };
            let base = *bases.iter().rev().find(|base| **base <= self.wanted).unwrap_or(first);
            let Some((file, header)) = open_segment(&self.dir, base)? else { continue };
            self.wanted = self.wanted.max(base);
            self.end = self.end_file.read()?;
            if self.end.segment < base {
                // A segment that the committed end does not know yet.
                return Ok(false);
            }
            let scan = Scan::new(file, segment_path(&self.dir, base));
            let mut open = Open { header, scan, reached: Some(base), sealed: None, skip: false };
            let limit = if base == self.end.segment { self.end.length } else { open.scan.length()? };
            seek(&self.dir, &mut open, self.wanted, limit)?;
            self.open = Some(open);
            return Ok(true);
        }
        Err(corrupt(&self.dir, 0, format!("no segment can be opened for offset {}", self.wanted)))
    }
}

/// Goes to the batch that holds `wanted`, or as near before it as is known.
fn seek(dir: &std::path::Path, open: &mut Open, wanted: u64, limit: u64) -> Result<()> {
    if wanted == open.header.base {
        return Ok(());
    }
    let start = open.scan.at();
    if let Some(place) = index::lookup(dir, open.header.base, wanted, limit) {
        open.scan.jump(place);
        // The index is only a hint: where it is wrong, walk from the start.
        if !matches!(open.scan.peek(limit), Ok(Some(header)) if header.base <= wanted) {
            open.scan.jump(start);
        }
    }
    while let Some(header) = open.scan.peek(limit)? {
        if header.end() > wanted {
            open.reached = None;
            return Ok(());
        }
        open.scan.jump(open.scan.at() + header.size());
        open.reached = Some(header.end());
    }
    Ok(())
}

impl LogReader for EmbeddedReader {
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool> {
        let mut left = max_bytes;
        let mut any = false;
        while let Some(record) = self.peek()? {
            if any && record.bytes() > left {
                break;
            }
            left = left.saturating_sub(record.bytes());
            let (offset, time) = (record.offset, record.time);
            let owned = record.to_owned_record().map_err(|why| corrupt(&self.dir, offset, why));
            out.push(LogRecord { offset, time, record: owned? });
            any = true;
            self.step();
            if left == 0 {
                break;
            }
        }
        Ok(any)
    }

    fn position(&self) -> u64 {
        self.position
    }
}
