//! Files as a sink: one per partition, or one for all.
//!
//! A file is only appended to, and its position is its length in bytes. Opened at the position of a checkpoint, what the file has
//! beyond it is the *old tail*: the epochs that are given again are compared with it byte by byte, and only what goes beyond it is
//! written. So a line that a crash tore is completed, and nothing is ever cut off or written twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thalweg_core::{Epoch, Error, PartitionId, Result, failpoint};

use super::fence::Fence;
use super::output::{OpenFiles, Output};
use crate::{EncodedBatch, OutFormat, Sink, SinkContext, SinkWriter};

/// Writes records to files, each followed by a line end.
///
/// A folder with a file `part-00003.jsonl` for each partition, or a single file for all in the order (epoch, partition,
/// sequence). What is there before the job is kept, the job appends. A deletion has no form in a file: the error
/// `sink-deletion`.
///
/// ```no_run
/// use thalweg_connectors::{FileSink, OutFormat};
///
/// let folder = FileSink::folder("out", OutFormat::Json);
/// let file = FileSink::single_file("out.csv", OutFormat::Csv).header(["word", "count"]);
/// ```
#[derive(Clone, Debug)]
pub struct FileSink {
    path: PathBuf,
    format: OutFormat,
    single: bool,
    header: Vec<u8>,
}

impl FileSink {
    /// One file per partition in a folder, which is made where it is missing.
    pub fn folder(path: impl Into<PathBuf>, format: OutFormat) -> Self {
        Self { path: path.into(), format, single: false, header: Vec::new() }
    }

    /// One file for all partitions.
    pub fn single_file(path: impl Into<PathBuf>, format: OutFormat) -> Self {
        Self { single: true, ..Self::folder(path, format) }
    }

    /// The names of the columns, for the first line of each new file; only `csv` has one.
    #[must_use]
    pub fn header<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.header.clear();
        self.format.header(names, &mut self.header);
        if !self.header.is_empty() {
            self.header.push(b'\n');
        }
        self
    }

    /// The folder that the files are in.
    fn folder_path(&self) -> &Path {
        match self.path.parent() {
            _ if !self.single => &self.path,
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn file_path(&self, partition: PartitionId) -> PathBuf {
        if self.single {
            return self.path.clone();
        }
        self.path.join(format!("part-{:05}.{}", partition.0, self.format.extension()))
    }

    fn fence_path(&self) -> PathBuf {
        match self.path.file_name().filter(|_| self.single) {
            Some(name) => self.folder_path().join(format!(".{}.fence", name.to_string_lossy())),
            None => self.folder_path().join(".fence"),
        }
    }

    /// The partition that a file of the folder belongs to.
    fn partition_of(&self, name: &str) -> Option<PartitionId> {
        let number = name.strip_prefix("part-")?.strip_suffix(self.format.extension())?.strip_suffix('.')?;
        (number.len() == 5).then(|| number.parse().ok().map(PartitionId)).flatten()
    }
}

/// How long a file is; 0 where it is not there.
fn length_of(path: &Path) -> Result<u64> {
    match path.metadata() {
        Ok(meta) if meta.is_file() => Ok(meta.len()),
        Ok(_) => Err(Error::user(
            "not-a-file",
            format!(
                "{}: the sink wants a file here, and this is none; remove it or choose another path",
                path.display()
            ),
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::io(format!("{}: looking at the sink's file", path.display()), error)),
    }
}

impl Sink for FileSink {
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>> {
        if self.single {
            let length = length_of(&self.path)?;
            return Ok(if length > 0 { vec![(PartitionId(0), length)] } else { Vec::new() });
        }
        let doing = || format!("{}: listing the sink's folder", self.path.display());
        let entries = match self.path.read_dir() {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(doing(), error)),
        };
        let mut ends = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| Error::io(doing(), error))?;
            if let Some(partition) = entry.file_name().to_str().and_then(|name| self.partition_of(name)) {
                ends.push((partition, length_of(&entry.path())?));
            }
        }
        ends.sort_unstable();
        Ok(ends)
    }

    fn single(&self) -> bool {
        self.single
    }

    /// The writer of a single file takes the highest of the positions, since they all are of that file, and gives all the same.
    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let folder = self.folder_path();
        let making = |error| Error::io(format!("{}: making the sink's folder", folder.display()), error);
        std::fs::create_dir_all(folder).map_err(making)?;
        let fence = Fence::raise(self.fence_path(), context.job_id, context.generation)?;
        let mut starts: BTreeMap<PartitionId, u64> = context.partitions.iter().copied().collect();
        if self.single {
            starts = BTreeMap::from([(PartitionId(0), starts.into_values().max().unwrap_or(0))]);
        }
        let mut partitions: Vec<PartitionId> = context.partitions.iter().map(|(partition, _)| *partition).collect();
        if self.single && partitions.is_empty() {
            partitions.push(PartitionId(0));
        }
        let mut outputs = BTreeMap::new();
        for (partition, start) in starts {
            let path = self.file_path(partition);
            let length = length_of(&path)?;
            if length < start {
                return Err(Error::external(
                    "sink-lost-data",
                    format!(
                        "{}: the file has {length} bytes, and the checkpoint stands at {start}: somebody has cut or removed it; put it back",
                        path.display()
                    ),
                ));
            }
            outputs.insert(partition, Output::new(path, start, length, &self.header));
        }
        Ok(Box::new(FileWriter {
            sink: self.clone(),
            folder: folder.to_owned(),
            single: self.single,
            fence,
            outputs,
            open: OpenFiles::default(),
            partitions,
            last: (Epoch::ZERO, None),
            // Files of an earlier run may be there without a durable name.
            folder_dirty: true,
            broken: false,
        }))
    }
}

struct FileWriter {
    sink: FileSink,
    folder: PathBuf,
    single: bool,
    fence: Fence,
    /// By partition; of a single file under partition 0.
    outputs: BTreeMap<PartitionId, Output>,
    open: OpenFiles,
    partitions: Vec<PartitionId>,
    /// The order of what was written.
    last: (Epoch, Option<PartitionId>),
    folder_dirty: bool,
    /// Something has failed: what the files hold is not known, so nothing more is written.
    broken: bool,
}

impl FileWriter {
    fn usable(&self) -> Result<()> {
        if self.broken {
            return Err(Error::internal(
                "sink-broken",
                format!("{}: the sink is used after it has failed", self.folder.display()),
            ));
        }
        Ok(())
    }

    fn sync_all(&mut self) -> Result<()> {
        failpoint::pass("file-sink-sync")?;
        for (partition, output) in &mut self.outputs {
            output.sync(*partition, &mut self.open)?;
        }
        if self.folder_dirty {
            // The folder itself may be new as well, and its parent.
            for folder in self.folder.ancestors().take(2).filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| {
                    Error::io(format!("{}: making the names of files durable", folder.display()), error)
                })?;
            }
            self.folder_dirty = false;
        }
        Ok(())
    }
}

/// Writes what is pending of all files.
fn flush(outputs: &mut BTreeMap<PartitionId, Output>, open: &mut OpenFiles, folder_dirty: &mut bool) -> Result<()> {
    failpoint::pass("file-sink-write")?;
    for (partition, output) in outputs {
        if output.has_pending() {
            *folder_dirty |= output.flush(*partition, open)?;
        }
    }
    Ok(())
}

impl SinkWriter for FileWriter {
    fn write(&mut self, epoch: Epoch, partition: PartitionId, batch: EncodedBatch) -> Result<()> {
        self.usable()?;
        let (last, last_partition) = self.last;
        let later = epoch > last || (epoch == last && (!self.single || Some(partition) > last_partition));
        if !later {
            return Err(Error::internal(
                "sink-order",
                format!("{}: epoch {epoch}, partition {partition} after epoch {last}", self.folder.display()),
            ));
        }
        self.last = (epoch, Some(partition));
        let own = if self.single { PartitionId(0) } else { partition };
        let Some(output) = self.outputs.get_mut(&own) else {
            return Err(Error::internal(
                "sink-partition",
                format!("{}: partition {partition} is not this writer's", self.folder.display()),
            ));
        };
        output.append(&batch)
    }

    fn add_partition(&mut self, partition: PartitionId) -> Result<()> {
        if self.partitions.contains(&partition) {
            return Ok(());
        }
        self.partitions.push(partition);
        if !self.single {
            let path = self.sink.file_path(partition);
            let length = length_of(&path)?;
            self.outputs.insert(partition, Output::new(path, 0, length, &self.sink.header));
        }
        Ok(())
    }

    fn end_epoch(&mut self, epoch: Epoch) -> Result<()> {
        self.usable()?;
        if epoch < self.last.0 {
            return Err(Error::internal(
                "sink-order",
                format!("{}: epoch {epoch} ends after epoch {}", self.folder.display(), self.last.0),
            ));
        }
        self.last = (epoch.max(self.last.0), self.last.1);
        if !self.outputs.values().any(Output::has_pending) {
            return Ok(());
        }
        self.broken = true;
        let Self { fence, outputs, open, folder_dirty, .. } = self;
        fence.guarded(|| flush(outputs, open, folder_dirty))?;
        self.broken = false;
        Ok(())
    }

    fn sync(&mut self) -> Result<Vec<(PartitionId, u64)>> {
        self.usable()?;
        self.broken = true;
        self.sync_all()?;
        self.broken = false;
        let position = |partition: &PartitionId| {
            let own = if self.single { PartitionId(0) } else { *partition };
            (*partition, self.outputs[&own].position())
        };
        Ok(self.partitions.iter().map(position).collect())
    }

    fn replayed(&mut self) -> Result<()> {
        self.outputs.values().try_for_each(Output::check_consumed)
    }
}
