//! The folder of a log: its lock, its topics.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use thalweg_core::{Error, Generation, PartitionId, Result};

use super::clean::{CleanReport, clean, trim};
use super::durable::{load, make_dir, replace};
use super::end::EndFile;
use super::fence::Fences;
use super::producer::EmbeddedProducer;
use super::reader::EmbeddedReader;
use super::segment::bases;
use super::topic::{
    DRAFT, Topic, TopicMeta, check_name, check_partitions, check_spec, partition_dir, partition_missing, topic_missing,
};
use crate::log::{Log, LogReader, Producer, Retention, TopicInfo, TopicSpec};

/// Gives the time: microseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

const MAGIC: [u8; 4] = *b"TWLG";
/// A segment is closed by the first commit that finds it so large.
const SEGMENT_BYTES: u64 = 64 << 20;

/// A log in a folder: no server, one writing process, any number of reading ones.
///
/// ```
/// use std::sync::Arc;
/// use thalweg_connectors::log::{EmbeddedLog, Log, NewRecord, Retention, TopicSpec};
/// use thalweg_core::{Generation, PartitionId};
///
/// # fn main() -> thalweg_core::Result<()> {
/// # let dir = std::env::temp_dir().join(format!("thalweg-doc-{}", std::process::id()));
/// let log = EmbeddedLog::open(&dir, Arc::new(|| 0))?;
/// log.ensure(&TopicSpec { name: "orders".to_owned(), partitions: 1, retention: Retention::Keep })?;
/// let mut producer = log.fence("shop", Generation(1))?;
/// producer.begin()?;
/// producer.append("orders", PartitionId(0), NewRecord { value: Some(b"one".to_vec()), ..NewRecord::default() })?;
/// producer.commit()?;
///
/// let mut records = Vec::new();
/// log.reader("orders", PartitionId(0), 0)?.read(1 << 20, &mut records)?;
/// assert_eq!(records[0].record.value.as_deref(), Some(b"one".as_slice()));
/// # std::fs::remove_dir_all(&dir).ok();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EmbeddedLog {
    inner: Arc<Inner>,
}

/// The log behind its handles.
pub(super) struct Inner {
    dir: PathBuf,
    mode: Mode,
}

enum Mode {
    Writer(Box<Writer>),
    Reader,
}

struct Writer {
    /// Held until the last handle and producer are gone.
    _lock: File,
    clock: Clock,
    segment_bytes: u64,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    /// One topic is made at a time.
    making: Mutex<()>,
    fences: Fences,
}

impl EmbeddedLog {
    /// Opens the log in `dir` for writing, makes it where it is missing, and cuts transactions that a crash left unfinished.
    ///
    /// Errors: `locked` where another process (or another part of this one) has it open for writing; `log-corrupt` where
    /// acknowledged bytes are damaged; `not-a-log` where the folder holds something else.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self> {
        Self::open_with(dir, clock, SEGMENT_BYTES)
    }

    /// As [`EmbeddedLog::open`], with another size at which segments are closed, in bytes.
    pub fn open_with(dir: &Path, clock: Clock, segment_bytes: u64) -> Result<Self> {
        make_dir(dir)?;
        let fresh = check_format(dir)?;
        let lock = lock(dir)?;
        let topics_dir = dir.join("topics");
        make_dir(&topics_dir)?;
        let fences = Fences::open(dir.join("fences"))?;
        if fresh {
            replace(&dir.join("format"), MAGIC, &[])?;
        }
        let mut topics = BTreeMap::new();
        for name in list(&topics_dir)? {
            if name.starts_with(DRAFT) {
                let draft = topics_dir.join(name);
                fs::remove_dir_all(&draft).map_err(|e| Error::io(format!("remove {}", draft.display()), e))?;
            } else {
                let topic = Topic::open(topics_dir.join(&name), name.clone(), segment_bytes)?;
                topics.insert(name, Arc::new(topic));
            }
        }
        super::durable::sync_dir(dir)?;
        let writer =
            Writer { _lock: lock, clock, segment_bytes, topics: RwLock::new(topics), making: Mutex::new(()), fences };
        Ok(Self { inner: Arc::new(Inner { dir: dir.to_owned(), mode: Mode::Writer(Box::new(writer)) }) })
    }

    /// Opens the log in `dir` for reading; another process may write it meanwhile, and its commits are seen as they come.
    ///
    /// Everything that writes fails with the code `read-only`.
    pub fn open_read_only(dir: &Path) -> Result<Self> {
        if check_format(dir)? {
            return Err(Error::user(
                "not-a-log",
                format!("{}: there is no log in this folder; check the path", dir.display()),
            ));
        }
        Ok(Self { inner: Arc::new(Inner { dir: dir.to_owned(), mode: Mode::Reader }) })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Removes what no topic's retention keeps: outdated records of compacted topics, old segments of bounded ones. Takes long
    /// and never runs by itself; appends and reads go on meanwhile.
    ///
    /// Errors: the first one, after all partitions were tried; what was committed is whole in any case.
    pub fn clean(&self) -> Result<CleanReport> {
        let writer = self.inner.writer()?;
        let topics: Vec<_> = writer.topics.read().values().cloned().collect();
        let mut report = CleanReport::default();
        let mut failed = None;
        for topic in topics {
            for partition in topic.partitions() {
                match clean(partition, topic.retention(), (writer.clock)(), writer.segment_bytes) {
                    Ok(cleaned) => report.add(cleaned),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(report), Err)
    }

    /// The first offset whose record was appended at or after `time` (microseconds since 1970), or the committed end.
    pub fn offset_at(&self, topic: &str, partition: PartitionId, time: i64) -> Result<u64> {
        let dir = self.inner.partition_dir(topic, partition)?;
        let mut from = 0;
        for base in bases(&dir)? {
            match super::segment::open_segment(&dir, base)? {
                Some((_, header)) if header.created_at > time => break,
                Some(_) => from = base,
                None => {}
            }
        }
        let (_, end) = self.offsets(topic, partition)?;
        let mut reader = EmbeddedReader::open(dir, from)?;
        while let Some(record) = reader.peek()? {
            if record.time >= time {
                return Ok(record.offset);
            }
            reader.step();
        }
        Ok(end.max(reader.position()))
    }

    /// Opens a reader that shows records without copying them.
    pub(crate) fn raw_reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<EmbeddedReader> {
        EmbeddedReader::open(self.inner.partition_dir(topic, partition)?, from)
    }

    /// The random id of a topic, and what it keeps.
    pub(crate) fn describe(&self, topic: &str) -> Result<(u128, crate::log::Retention)> {
        self.inner.meta(topic).map(|(_, meta)| (meta.id, meta.retention))
    }
}

impl Inner {
    fn writer(&self) -> Result<&Writer> {
        match &self.mode {
            Mode::Writer(writer) => Ok(writer),
            Mode::Reader => {
                Err(Error::user("read-only", format!("{}: the log is open for reading only", self.dir.display())))
            }
        }
    }

    /// The time.
    pub(super) fn now(&self) -> i64 {
        match &self.mode {
            Mode::Writer(writer) => (writer.clock)(),
            Mode::Reader => 0,
        }
    }

    /// A topic to write.
    pub(super) fn topic(&self, name: &str) -> Result<Arc<Topic>> {
        self.writer()?.topics.read().get(name).cloned().ok_or_else(|| topic_missing(&self.dir, name))
    }

    fn meta(&self, name: &str) -> Result<(PathBuf, TopicMeta)> {
        check_name(name)?;
        let dir = self.dir.join("topics").join(name);
        let meta = TopicMeta::load(&dir)?.ok_or_else(|| topic_missing(&self.dir, name))?;
        Ok((dir, meta))
    }

    fn partition_dir(&self, name: &str, partition: PartitionId) -> Result<PathBuf> {
        let (dir, meta) = self.meta(name)?;
        if u32::from(partition.0) >= meta.partitions {
            return Err(partition_missing(name, partition, meta.partitions));
        }
        Ok(partition_dir(&dir, partition))
    }
}

impl Log for EmbeddedLog {
    fn ensure(&self, spec: &TopicSpec) -> Result<()> {
        check_spec(spec)?;
        let Mode::Writer(writer) = &self.inner.mode else {
            let (_, meta) = self.inner.meta(&spec.name)?;
            return check_partitions(&meta, spec);
        };
        let _making = writer.making.lock();
        let known = writer.topics.read().get(&spec.name).cloned();
        if let Some(topic) = known {
            return topic.adopt(spec);
        }
        let topics = self.inner.dir.join("topics");
        let retention = match spec.retention {
            Retention::Default => Retention::Keep,
            other => other,
        };
        Topic::create(&topics, &TopicSpec { retention, ..spec.clone() }, (writer.clock)())?;
        let topic = Topic::open(topics.join(&spec.name), spec.name.clone(), writer.segment_bytes)?;
        writer.topics.write().insert(spec.name.clone(), Arc::new(topic));
        Ok(())
    }

    fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        if !list(&self.inner.dir.join("topics"))?.iter().any(|known| known == name) {
            return Ok(None);
        }
        let (_, meta) = self.inner.meta(name)?;
        let compacted = matches!(meta.retention, Retention::Compact { .. });
        Ok(Some(TopicInfo { partitions: meta.partitions, compacted }))
    }

    fn topics(&self) -> Result<Vec<(String, u32)>> {
        let names = list(&self.inner.dir.join("topics"))?;
        let named = names.into_iter().filter(|name| !name.starts_with(DRAFT));
        named.map(|name| self.inner.meta(&name).map(|(_, meta)| (name, meta.partitions))).collect()
    }

    fn fence(&self, id: &str, generation: Generation) -> Result<Box<dyn Producer>> {
        let pass = self.inner.writer()?.fences.enter(id, generation)?;
        Ok(Box::new(EmbeddedProducer::new(Arc::clone(&self.inner), pass)))
    }

    fn reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        Ok(Box::new(self.raw_reader(topic, partition, from)?))
    }

    fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        let dir = self.inner.partition_dir(topic, partition)?;
        let end = EndFile::open(&dir)?.read()?;
        let first = bases(&dir)?.first().copied().unwrap_or(0);
        Ok((first.min(end.offset), end.offset))
    }

    fn trim(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        trim(self.inner.topic(topic)?.partition(partition)?, before)
    }
}

/// Whether the folder is still to become a log; errors where it holds something else.
fn check_format(dir: &Path) -> Result<bool> {
    if load(&dir.join("format"), MAGIC)?.is_some() {
        return Ok(false);
    }
    let ours = ["lock", "format.new", "topics", "fences"];
    let foreign = if dir.exists() { list(dir)?.into_iter().find(|name| !ours.contains(&name.as_str())) } else { None };
    match foreign {
        None => Ok(true),
        Some(name) => Err(Error::user(
            "not-a-log",
            format!("{}: the folder holds {name:?} and is no log; name another folder", dir.display()),
        )),
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| Error::io(format!("open {}", path.display()), e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::user(
            "locked",
            format!("{}: another process uses this log; stop it, or name another folder", dir.display()),
        )),
        Err(TryLockError::Error(error)) => Err(Error::io(format!("lock {}", path.display()), error)),
    }
}

fn list(dir: &Path) -> Result<Vec<String>> {
    let failed = |e| Error::io(format!("list {}", dir.display()), e);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}
