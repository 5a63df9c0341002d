//! Files of checkpoints on their way into RocksDB, which are also the redo log.
//!
//! ```text
//! pending/e{epoch}-g{generation}-s{store}-w{worker}-p{first partition}.sst    numbers in 20, 20, 5, 10 and 5 digits
//!         ... .tmp                                                             not finished, never used
//!         restore-...                                                          of a restore, ingested by it or never used
//! ```
//!
//! A file holds for each of the worker's partitions the applied row, the changed rows, and marks. It is ingested as a whole,
//! so the applied row of its first partition tells whether that has happened.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rocksdb::SstFileWriter;
use thalweg_core::{Epoch, Error, Generation, Lineage, PartitionId, Result, WorkerIndex, failpoint};

use crate::layout::applied_key;
use crate::rocks_error::Doing;
use crate::rows::{RowChange, Rows, mark_key};
use crate::sealed::SealedPartition;
use crate::{Applied, Backend, BackendOptions, SealedStore};

/// A synced file of one store, worker and checkpoint, not in RocksDB yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingFile {
    path: PathBuf,
    name: Name,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) epoch: Epoch,
    pub(crate) generation: Generation,
    pub(crate) store: usize,
    pub(crate) worker: WorkerIndex,
    pub(crate) first: PartitionId,
}

impl PendingFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its checkpoint.
    pub fn epoch(&self) -> Epoch {
        self.name.epoch
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Name {
    pub(crate) fn text(self) -> String {
        let Self { epoch, generation, store, worker, first } = self;
        format!("e{:020}-g{:020}-s{store:05}-w{:010}-p{:05}.sst", epoch.0, generation.0, worker.0, first.0)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_suffix(".sst")?.split('-');
        let mut part = |prefix: char| parts.next()?.strip_prefix(prefix);
        Some(Self {
            epoch: Epoch(part('e')?.parse().ok()?),
            generation: Generation(part('g')?.parse().ok()?),
            store: part('s')?.parse().ok()?,
            worker: WorkerIndex(part('w')?.parse().ok()?),
            first: PartitionId(part('p')?.parse().ok()?),
        })
    }
}

impl Backend {
    /// Writes and syncs the file of a store's checkpoint. Not on a worker's thread: it sorts and writes.
    ///
    /// When it returns, the checkpoint may be acknowledged for this store. Nothing where the worker hosts no partition.
    ///
    /// Errors: disk.
    pub fn write_sealed(&self, mut sealed: SealedStore, generation: Generation) -> Result<Option<PendingFile>> {
        let Some(first) = sealed.partitions.first().map(|sealed| sealed.partition) else { return Ok(None) };
        let name = Name { epoch: sealed.epoch, generation, store: sealed.store, worker: sealed.worker, first };
        let applied = |state: &SealedPartition| -> Result<_> {
            // Nothing was appended for a partition without changes: its changelog ends where it did.
            let before = || Ok(self.applied(&sealed.name, state.partition)?.map_or(0, |applied| applied.changelog));
            let row = Applied {
                job_id: self.job_id(),
                generation,
                epoch: sealed.epoch,
                digest: state.digest,
                recorded: state.digest,
                entries: state.entries,
                changelog: state.changelog.map_or_else(before, Ok)?,
                shape: self.meta().stores[sealed.store].shape(),
                end: state.end,
            };
            Ok((state.partition, row))
        };
        let applied = sealed.partitions.iter().map(applied).collect::<Result<Vec<_>>>()?;
        sealed.rows.sort();
        let path = self.pending_dir().join(name.text());
        let bytes = self.write_file(&path, &applied, &sealed.rows)?;
        Ok(Some(PendingFile { path, name, bytes }))
    }

    /// Writes `path` with the applied rows and the rows, both in order, and syncs it.
    fn write_file(&self, path: &Path, applied: &[(PartitionId, Applied)], rows: &Rows) -> Result<u64> {
        let mut file = self.sst_file(path)?;
        fill(&mut file, applied, rows)?;
        let bytes = file.finish()?;
        let folder = File::open(self.pending_dir()).and_then(|folder| folder.sync_all());
        folder.map_err(|error| Error::io(writing(path), error))?;
        Ok(bytes)
    }

    /// Begins a file that may be ingested when it is finished.
    pub(crate) fn sst_file(&self, path: &Path) -> Result<SstFile<'_>> {
        failpoint::pass("state-sst-write")?;
        let temporary = path.with_extension("sst.tmp");
        let writer = SstFileWriter::create(self.file_options());
        writer.open(&temporary).doing(writing(&temporary))?;
        Ok(SstFile { writer, temporary, path: path.to_owned(), bytes: 0, finished: false })
    }

    /// Brings the files of one committed checkpoint into RocksDB, rows and applied rows of a store in one piece. Not on a
    /// worker's thread.
    ///
    /// Errors: disk; after one, the process has to be started again, and [`Backend::recover_pending`] repeats it.
    pub fn apply(&self, mut files: Vec<PendingFile>) -> Result<()> {
        files.sort_by_key(|file| (file.name.store, file.name));
        for group in files.chunk_by(|left, right| left.name.store == right.name.store) {
            let paths = group.iter().map(|file| file.path.clone()).collect();
            self.ingest(group[0].name.store, paths)?;
        }
        Ok(())
    }

    pub(crate) fn ingest(&self, store: usize, paths: Vec<PathBuf>) -> Result<()> {
        failpoint::pass("state-ingest")?;
        let doing = format!("ingesting {}", paths.first().map_or_else(String::new, |path| path.display().to_string()));
        self.db().ingest_external_file_cf_opts(self.family(store), &BackendOptions::ingest(), paths).doing(doing)?;
        failpoint::pass("state-ingested")
    }

    /// Removes the files of a checkpoint that was given up.
    pub fn discard(&self, files: Vec<PendingFile>) -> Result<()> {
        files.iter().try_for_each(|file| remove(&file.path))
    }

    /// After a restart: applies the files of committed checkpoints in order, unless that has happened, and removes all others;
    /// then rewrites the rows of stores whose shape has changed.
    ///
    /// Errors: disk; `state-corrupt` where a file of a committed checkpoint is damaged.
    pub fn recover_pending(&mut self, lineage: &Lineage) -> Result<()> {
        let dir = self.pending_dir();
        let listing = fs::read_dir(&dir).map_err(|error| Error::io(format!("reading {}", dir.display()), error))?;
        let mut found = Vec::new();
        for entry in listing {
            let entry = entry.map_err(|error| Error::io(format!("reading {}", dir.display()), error))?;
            match entry.file_name().to_str().and_then(Name::parse) {
                Some(name) if name.store < self.meta().stores.len() => found.push((name, entry.path())),
                _ => tracing::warn!(file = %entry.path().display(), "left alone: not a file of a checkpoint"),
            }
        }
        found.sort();
        for (name, path) in found {
            let applied = self.applied(self.store_name(name.store), name.first)?;
            let missing = applied.is_none_or(|applied| applied.epoch < name.epoch);
            if missing && lineage.contains(name.generation, name.epoch) {
                tracing::info!(
                    epoch = name.epoch.0,
                    store = self.store_name(name.store),
                    "applying a committed checkpoint"
                );
                self.ingest(name.store, vec![path.clone()])?;
            }
            remove(&path)?;
        }
        self.migrate()
    }

    /// Removes what was being written when the process died.
    pub(crate) fn clear_temporary(&self) -> Result<()> {
        let dir = self.pending_dir();
        let listing = fs::read_dir(&dir).map_err(|error| Error::io(format!("reading {}", dir.display()), error))?;
        for entry in listing.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".tmp") || name.starts_with("restore-") {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A file on its way: named `.tmp` until everything in it is synced.
pub(crate) struct SstFile<'a> {
    writer: SstFileWriter<'a>,
    temporary: PathBuf,
    path: PathBuf,
    bytes: usize,
    finished: bool,
}

impl SstFile<'_> {
    /// Bytes of keys and values so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// All keys in order, those of [`SstFile::delete`] as well.
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.bytes += key.len() + value.len();
        self.writer.put(key, value).doing(writing(&self.temporary))
    }

    pub(crate) fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.bytes += key.len();
        self.writer.delete(key).doing(writing(&self.temporary))
    }

    /// Deletes what there was in this range before the file.
    pub(crate) fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        self.writer.delete_range(from, to).doing(writing(&self.temporary))
    }

    /// Syncs it and gives it its name, which is not synced; returns its size.
    pub(crate) fn finish(mut self) -> Result<u64> {
        // Synced by RocksDB before it returns.
        self.writer.finish().doing(writing(&self.temporary))?;
        let bytes = self.writer.file_size();
        failpoint::pass("state-sst-sync")?;
        fs::rename(&self.temporary, &self.path).map_err(|error| Error::io(writing(&self.temporary), error))?;
        self.finished = true;
        Ok(bytes)
    }
}

impl Drop for SstFile<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Given up. A failure here leaves a file that the next start removes.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn writing(path: &Path) -> impl Display {
    fmt::from_fn(move |f| write!(f, "writing {}", path.display()))
}

/// Puts everything in the order of the stored keys: per partition the applied row, the rows, the marks.
fn fill(file: &mut SstFile<'_>, applied: &[(PartitionId, Applied)], rows: &Rows) -> Result<()> {
    let (mut stored, mut mark) = (Vec::new(), Vec::new());
    let mut applied = applied.iter().peekable();
    let rows: Vec<_> = rows.iter().collect();
    for group in rows.chunk_by(|left, right| left.partition() == right.partition()) {
        let partition = group[0].partition();
        while let Some((of, row)) = applied.next_if(|(of, _)| *of <= partition) {
            file.put(&applied_key(*of), &row.encode())?;
        }
        for row in group {
            match row.change() {
                RowChange::Put(_) => file.put(row.stored_key(), row.stored(&mut stored))?,
                RowChange::Erase => file.delete(row.stored_key())?,
            }
        }
        for row in group {
            let deleted = matches!(row.change(), RowChange::Put(state) if state.is_deleted());
            if deleted || row.was_deleted() {
                mark_key(row.stored_key(), &mut mark);
            }
            if deleted {
                file.put(&mark, row.stored(&mut stored))?;
            } else if row.was_deleted() {
                file.delete(&mark)?;
            }
        }
    }
    applied.try_for_each(|(of, row)| file.put(&applied_key(*of), &row.encode()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("removing {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_and_sort_by_checkpoint() {
        let name = |epoch, store| Name {
            epoch: Epoch(epoch),
            generation: Generation(2),
            store,
            worker: WorkerIndex(1),
            first: PartitionId(65_535),
        };
        assert_eq!(Name::parse(&name(9, 3).text()), Some(name(9, 3)));
        assert!(name(9, 3).text() < name(10, 0).text());
        assert_eq!(Name::parse("e1-g2.sst"), None);
        assert_eq!(Name::parse("e1-g2-s3-w4-p5.sst.tmp"), None);
    }
}
