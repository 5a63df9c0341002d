//! Files that grow and are rotated: log first.
//!
//! A rotated file cannot be read again from a position, so each record of a followed file goes to a topic of the job's own log
//! first (see `ingest`), with the file's mark: device, inode, hash of its start, position (see `mark`). After a crash the thread
//! goes on exactly behind what the log holds. It knows a file by device and inode, not by its name:
//!
//! - **renamed** (logrotate's default): it is read to its end under whatever name it has in its folder, until it has been quiet for
//!   a while; a new file under the old name is read from its start, after it.
//! - **cut in place** (`copytruncate`), or written anew: found by its length or by its first bytes, and read from its start again.
//!   What was written between the last look and the cut is lost; that is said, and counted.
//! - **removed**: an open file is read to its end. One that is gone at a start is said and counted, as it may have had more.
//! - **new**, and meant by the paths: read from its start.

mod file;
mod follower;
mod mark;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use thalweg_core::{Error, PartitionId, PartitionSpec, Result};

use super::framing::Framing;
use super::paths::{Paths, open_file};
use super::stream::Compression;
use crate::ingest::{Ingest, IngestTopic};
use crate::log::EmbeddedLog;
use crate::{Format, RawReader, RawSource};
use follower::Follower;
use mark::{Table, tables_of};

/// As many first bytes as tell two files apart; one block of most disks.
const START_BYTES: usize = 4096;

/// Follows files by way of a topic of the job's log.
///
/// The topic's one partition is the source's; records of different files stand in it as they were read. A last line is a record
/// only when its line end is there. Files of `csv` with a header must all have the same one.
pub struct FollowSource {
    ingest: Ingest,
    paths: Paths,
    framing: Framing,
    max_record_bytes: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl FollowSource {
    /// Follows `paths`, each a path or a glob pattern, relative to `base`, and keeps their records in `topic`.
    pub fn new<P: Into<String>>(
        topic: IngestTopic,
        base: impl Into<PathBuf>,
        paths: impl IntoIterator<Item = P>,
        format: &Format,
        max_record_bytes: usize,
    ) -> Self {
        Self {
            ingest: Ingest::new(topic, false),
            paths: Paths::new(base.into(), paths.into_iter().map(Into::into).collect()),
            framing: Framing::of(format),
            max_record_bytes,
            thread: Mutex::new(None),
        }
    }

    /// The last table of the files, with the columns if they are known.
    fn table(&self) -> Result<Table> {
        let topic = self.ingest.topic();
        let tables = tables_of(topic.name());
        let table = match topic.log() {
            Some(log) => {
                log.ensure(&tables)?;
                Table::load(&**log, &tables.name)?
            }
            None => Table::load(&EmbeddedLog::open_read_only(topic.dir())?, &tables.name)?,
        };
        if let Some(columns) = &table.columns {
            self.ingest.state().set_header(columns.clone());
        }
        Ok(table)
    }
}

impl RawSource for FollowSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        if self.paths.patterns().is_empty() {
            return Err(Error::user("no-input", "a source of files needs at least one path"));
        }
        for pattern in self.paths.patterns() {
            let files = self.paths.matches(pattern)?;
            if files.is_empty() && self.ingest.topic().log().is_some() {
                tracing::warn!("{}; it is waited for", self.paths.no_input(pattern).message());
            }
            for path in files {
                let name = self.paths.name(&path)?;
                if Compression::of(&name, &open_file(&name, &path)?)? != Compression::None {
                    let text = format!(
                        "{name}: a compressed file cannot be followed; remove `follow`, or name the files that are written to"
                    );
                    return Err(Error::user("follow-compressed", text));
                }
            }
        }
        self.ingest.discover(source, &self.paths.patterns().join(", "))
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RawReader>> {
        let table = self.table()?;
        let reader = self.ingest.open(partition, from)?;
        if let Some(log) = self.ingest.topic().log().cloned() {
            let (state, topic) = (self.ingest.state().clone(), self.ingest.topic().name().to_owned());
            let (paths, framing, max_record_bytes) = (self.paths.clone(), self.framing, self.max_record_bytes);
            let feed =
                move |appender| Follower::new(paths, framing, max_record_bytes, log, topic, appender, state).run(table);
            let started = self.ingest.start("follow", feed)?;
            let mut thread = self.thread.lock();
            *thread = started.or(thread.take());
        }
        Ok(reader)
    }

    fn committed(&self, _: PartitionId, position: u64) -> Result<()> {
        self.ingest.committed(position)
    }
}

impl Drop for FollowSource {
    fn drop(&mut self) {
        self.ingest.state().stop();
        if let Some(thread) = self.thread.lock().take() {
            // A panic in it was reported by its hook; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}
