//! The writing side of a partition: append, sync, publish; fail-stop.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use parking_lot::{Mutex, MutexGuard};
use thalweg_core::{Error, Result, failpoint};

use super::batch::{BatchHeader, Staged};
use super::durable::make_dir;
use super::end::{End, EndFile};
use super::index::IndexWriter;
use super::segment::{SEGMENT_HEADER, create_segment, segment_path};

/// A partition that this process writes.
pub(super) struct Partition {
    pub(super) dir: PathBuf,
    appender: Mutex<Appender>,
    /// Held by whoever removes or replaces sealed segments.
    pub(super) upkeep: Mutex<()>,
}

impl Partition {
    /// Makes the files of an empty partition.
    pub(super) fn create(dir: &std::path::Path, now: i64) -> Result<()> {
        make_dir(dir)?;
        create_segment(dir, 0, now)?;
        let mut end = EndFile::open_writable(dir, true)?;
        end.settle(End { segment: 0, length: SEGMENT_HEADER as u64, offset: 0 })?;
        super::durable::sync_dir(dir)
    }

    /// Takes over what recovery found.
    pub(super) fn new(dir: PathBuf, appender: Appender) -> Self {
        Self { dir, appender: Mutex::new(appender), upkeep: Mutex::new(()) }
    }

    /// The only one who appends, until the guard goes.
    pub(super) fn lock(&self) -> MutexGuard<'_, Appender> {
        self.appender.lock()
    }
}

/// Where a partition is appended to.
pub(super) struct Appender {
    pub(super) dir: PathBuf,
    pub(super) file: File,
    pub(super) committed: End,
    pub(super) created_at: i64,
    pub(super) last_time: i64,
    pub(super) end_file: EndFile,
    pub(super) index: IndexWriter,
    pub(super) segment_bytes: u64,
    /// What a write in progress leads to, and what failed for good.
    pub(super) pending: Option<Pending>,
    pub(super) failed: Option<String>,
}

/// Written, not synced.
pub(super) struct Pending {
    end: End,
    places: Vec<(u64, u64)>,
    time: i64,
}

impl Appender {
    /// Errors where an earlier write failed.
    pub(super) fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(Error::external(
                "log-failed",
                format!("{}: nothing is appended after a failed write ({why}); open the log again", self.dir.display()),
            )),
        }
    }

    /// Runs a step; after an error nothing is appended any more until the log is opened again.
    pub(super) fn fail_stop<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.check()?;
        step(self).inspect_err(|error| self.fail(error.message()))
    }

    fn fail(&mut self, why: &str) {
        if self.failed.is_none() {
            self.failed = Some(why.to_owned());
        }
    }

    /// Refuses everything from now on, where something was written that is not shown.
    pub(super) fn fail_unpublished(&mut self, why: &str) {
        if self.pending.is_some() {
            self.fail(why);
        }
    }

    /// Writes a transaction behind the committed end; stamp needs time, producer and generation.
    pub(super) fn write(&mut self, staged: &mut Staged, stamp: BatchHeader) -> Result<()> {
        self.fail_stop(|this| {
            let time = stamp.time.max(this.last_time);
            if this.committed.length >= this.segment_bytes {
                this.roll(time)?;
            }
            failpoint::pass("log-append")?;
            let place = this.committed.length;
            let stamp = BatchHeader { time, base: this.committed.offset, ..stamp };
            let (bytes, places, offset) = staged.seal(place, stamp);
            let doing = || {
                format!("append {} bytes to {}", bytes.len(), segment_path(&this.dir, this.committed.segment).display())
            };
            this.file.write_all_at(bytes, place).map_err(|e| Error::io(doing(), e))?;
            let end = End { segment: this.committed.segment, length: place + bytes.len() as u64, offset };
            this.pending = Some(Pending { end, places, time });
            Ok(())
        })
    }

    /// Makes what was written durable.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.fail_stop(|this| {
            failpoint::pass("log-sync")?;
            let doing = || format!("sync {}", segment_path(&this.dir, this.committed.segment).display());
            this.file.sync_data().map_err(|e| Error::io(doing(), e))
        })
    }

    /// Makes what is durable visible; returns the offset after it.
    pub(super) fn publish(&mut self) -> Result<u64> {
        self.fail_stop(|this| {
            if let Some(pending) = this.pending.take() {
                this.end_file.write(pending.end)?;
                this.committed = pending.end;
                this.last_time = pending.time;
                for (offset, place) in pending.places {
                    this.index.note(offset, place);
                }
            }
            Ok(this.committed.offset)
        })
    }

    /// Begins a new segment, unless the present one is empty.
    pub(super) fn roll(&mut self, now: i64) -> Result<()> {
        if self.committed.length == SEGMENT_HEADER as u64 {
            return Ok(());
        }
        let base = self.committed.offset;
        self.file = create_segment(&self.dir, base, now)?;
        self.created_at = now;
        self.index = IndexWriter::create(&self.dir, base);
        self.committed = End { segment: base, length: SEGMENT_HEADER as u64, offset: base };
        self.end_file.settle(self.committed)
    }
}
