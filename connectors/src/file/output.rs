//! One file of a file sink.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use thalweg_core::{Error, PartitionId, Result, failpoint};

use crate::EncodedBatch;

/// Most files that a writer holds open: far below the usual limit of 1,024 per process, with room for several workers.
const MAX_OPEN_FILES: usize = 128;

/// Bytes of an old tail that are compared at once.
const COMPARE_BYTES: usize = 256 << 10;

/// A file, what it holds already, and what is to be written to it.
pub(super) struct Output {
    path: PathBuf,
    /// Up to here everything was given to this writer.
    position: u64,
    /// The file ends here; beyond `position` it is the old tail.
    length: u64,
    /// Given and not yet compared or written.
    pending: Vec<u8>,
    /// Goes before the first record of a new file.
    header: Vec<u8>,
    dirty: bool,
}

impl Output {
    /// A file that has `length` bytes, from `start` on; `header` begins it where it is new.
    pub(super) fn new(path: PathBuf, start: u64, length: u64, header: &[u8]) -> Self {
        let header = if start == 0 { header.to_vec() } else { Vec::new() };
        Self { path, position: start, length, pending: Vec::new(), header, dirty: false }
    }

    /// The end of what was given and written.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn append(&mut self, batch: &EncodedBatch) -> Result<()> {
        if !batch.records.is_empty() {
            self.pending.append(&mut self.header);
        }
        for record in &batch.records {
            let Some(value) = &record.value else {
                return Err(Error::user(
                    "sink-deletion",
                    format!(
                        "{}: a file cannot hold the deletion of a key; use emit = \"changes\", or a sink with keys",
                        self.path.display()
                    ),
                ));
            };
            self.pending.extend_from_slice(&batch.data[value.clone()]);
            self.pending.push(b'\n');
        }
        Ok(())
    }

    /// Compares the pending bytes with the old tail and writes what goes beyond it; whether the file was empty, and so may be new.
    pub(super) fn flush(&mut self, partition: PartitionId, open: &mut OpenFiles) -> Result<bool> {
        let created = self.length == 0;
        open.get(partition, &self.path, created)?;
        let file = open.file(partition);
        let known = self.compare(file)?;
        self.position += known as u64;
        // What an earlier run wrote may not be durable either.
        self.dirty = true;
        let rest = &self.pending[known..];
        if !rest.is_empty() {
            self.check_unchanged(file)?;
            let (first, second) = rest.split_at(rest.len() / 2);
            file.write_all_at(first, self.position).map_err(|error| self.failed("writing", error))?;
            failpoint::pass("file-sink-torn")?;
            file.write_all_at(second, self.position + first.len() as u64)
                .map_err(|error| self.failed("writing", error))?;
            self.position += rest.len() as u64;
            self.length = self.position;
        }
        self.pending.clear();
        Ok(created)
    }

    /// Nobody else has written to the file, cut it, or put another in its place.
    fn check_unchanged(&self, file: &File) -> Result<()> {
        let own = file.metadata().map_err(|error| self.failed("looking at the file", error))?;
        let here = self.path.metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == (own.dev(), own.ino()));
        if here && own.len() == self.length {
            return Ok(());
        }
        let found = if here { format!("has {}", own.len()) } else { "was moved or removed".to_owned() };
        let message = format!(
            "{}: the file should have {} bytes and {found}: only the job may change it; put the original back and start again",
            self.path.display(),
            self.length
        );
        Err(Error::external("sink-changed", message))
    }

    /// How many of the pending bytes the old tail has already.
    fn compare(&self, file: &File) -> Result<usize> {
        let known = usize::try_from(self.length - self.position)
            .map_or(self.pending.len(), |tail| tail.min(self.pending.len()));
        let mut old = vec![0; known.min(COMPARE_BYTES)];
        for (index, new) in self.pending[..known].chunks(COMPARE_BYTES).enumerate() {
            let at = self.position + (index * COMPARE_BYTES) as u64;
            let old = &mut old[..new.len()];
            file.read_exact_at(old, at).map_err(|error| self.failed("reading what an earlier run wrote", error))?;
            if let Some(byte) = old.iter().zip(new).position(|(old, new)| old != new) {
                return Err(Error::internal(
                    "sink-differs",
                    format!(
                        "{}: at position {} the replayed output is not what an earlier run wrote: either the file was edited, then put \
                         the original back, or the job is not deterministic",
                        self.path.display(),
                        at + byte as u64
                    ),
                ));
            }
        }
        Ok(known)
    }

    pub(super) fn sync(&mut self, partition: PartitionId, open: &mut OpenFiles) -> Result<()> {
        if self.dirty {
            // A file that was closed in between is opened again: its pages are those of the file, not of the handle.
            open.get(partition, &self.path, false)?;
            open.file(partition).sync_data().map_err(|error| self.failed("making it durable", error))?;
            self.dirty = false;
        }
        Ok(())
    }

    /// After the replay nothing of the old tail may be left.
    pub(super) fn check_consumed(&self) -> Result<()> {
        if self.position < self.length {
            return Err(Error::external(
                "sink-beyond-binding",
                format!(
                    "{}: the file has {} bytes, and the job can account for {}: somebody else has written to it, or bindings were lost; \
                     put the original back",
                    self.path.display(),
                    self.length,
                    self.position
                ),
            ));
        }
        Ok(())
    }

    fn failed(&self, doing: &str, error: std::io::Error) -> Error {
        Error::io(format!("{}: {doing} at position {}", self.path.display(), self.position), error)
    }
}

/// The files that are open; the one that was used least recently is closed for another.
#[derive(Default)]
pub(super) struct OpenFiles {
    files: BTreeMap<PartitionId, (File, u64)>,
    uses: u64,
}

impl OpenFiles {
    /// Opens a file where it is not open; only one that is new may be made.
    fn get(&mut self, partition: PartitionId, path: &Path, new: bool) -> Result<()> {
        self.uses += 1;
        if let Some((_, used)) = self.files.get_mut(&partition) {
            *used = self.uses;
            return Ok(());
        }
        if self.files.len() >= MAX_OPEN_FILES {
            let oldest = self.files.iter().min_by_key(|(_, (_, used))| *used).map(|(partition, _)| *partition);
            oldest.map(|oldest| self.files.remove(&oldest));
        }
        let file = OpenOptions::new().read(true).write(true).create(new).truncate(false).open(path);
        let file = file.map_err(|error| Error::io(format!("{}: opening the sink's file", path.display()), error))?;
        self.files.insert(partition, (file, self.uses));
        Ok(())
    }

    fn file(&self, partition: PartitionId) -> &File {
        &self.files.get(&partition).expect("was just opened").0
    }
}
