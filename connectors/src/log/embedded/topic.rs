//! A topic: its meta file and its partitions.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use thalweg_core::{Error, PartitionId, Result};

use super::batch::{u32_at, u64_at};
use super::durable::{corrupt, load, make_dir, replace, sync_dir};
use super::partition::Partition;
use super::recover::recover;
use crate::log::{Retention, TopicSpec};

const MAGIC: [u8; 4] = *b"TWLT";
const META_BYTES: usize = 37;
const NAME_BYTES: usize = 249;

/// What the meta file of a topic says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicMeta {
    /// Random: another topic of the same name has another one.
    pub(super) id: u128,
    pub(super) partitions: u32,
    pub(super) retention: Retention,
}

impl TopicMeta {
    fn encode(&self) -> Vec<u8> {
        let (kind, a, b) = match self.retention {
            Retention::Keep | Retention::Default => (0u8, 0, 0),
            Retention::Compact { delete_retention_ms } => (1, delete_retention_ms, 0),
            Retention::Bounded { max_age_ms, max_bytes } => {
                (2, max_age_ms.unwrap_or(u64::MAX), max_bytes.unwrap_or(u64::MAX))
            }
        };
        let mut out = self.id.to_le_bytes().to_vec();
        out.extend_from_slice(&self.partitions.to_le_bytes());
        out.push(kind);
        out.extend_from_slice(&a.to_le_bytes());
        out.extend_from_slice(&b.to_le_bytes());
        out
    }

    /// Reads the meta file of a topic; nothing where there is no such topic.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("meta");
        let Some(bytes) = load(&path, MAGIC)? else { return Ok(None) };
        if bytes.len() != META_BYTES {
            return Err(corrupt(&path, 16, "the meta data of the topic has another length"));
        }
        let (a, b) = (u64_at(&bytes, 21), u64_at(&bytes, 29));
        let bound = |value: u64| (value != u64::MAX).then_some(value);
        let retention = match bytes[20] {
            0 => Retention::Keep,
            1 => Retention::Compact { delete_retention_ms: a },
            2 => Retention::Bounded { max_age_ms: bound(a), max_bytes: bound(b) },
            kind => return Err(corrupt(&path, 36, format!("retention of an unknown kind {kind}"))),
        };
        let id = u128::from(u64_at(&bytes, 0)) | u128::from(u64_at(&bytes, 8)) << 64;
        Ok(Some(Self { id, partitions: u32_at(&bytes, 16), retention }))
    }

    fn save(&self, dir: &Path) -> Result<()> {
        replace(&dir.join("meta"), MAGIC, &self.encode())
    }
}

/// Checks name and number of partitions.
pub(super) fn check_spec(spec: &TopicSpec) -> Result<()> {
    check_name(&spec.name)?;
    if (1..=1 << 16).contains(&spec.partitions) {
        return Ok(());
    }
    Err(Error::user(
        "partitions",
        format!("topic {:?}: {} partitions: a topic has 1 to 65536", spec.name, spec.partitions),
    ))
}

/// Checks that a name is fit for a folder.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if fits && (1..=NAME_BYTES).contains(&name.len()) && name != "." && name != ".." {
        return Ok(());
    }
    Err(Error::user(
        "topic-name",
        format!("topic {name:?}: use a-z, A-Z, 0-9, '.', '_' and '-', 1 to {NAME_BYTES} characters"),
    ))
}

/// The folder of a partition.
pub(super) fn partition_dir(topic: &Path, partition: PartitionId) -> PathBuf {
    topic.join(partition.to_string())
}

/// A topic that this process writes.
pub(super) struct Topic {
    name: String,
    dir: PathBuf,
    meta: RwLock<TopicMeta>,
    partitions: Vec<Partition>,
}

impl Topic {
    /// Opens a topic, and cuts what is torn.
    pub(super) fn open(dir: PathBuf, name: String, segment_bytes: u64) -> Result<Self> {
        let meta = TopicMeta::load(&dir)?
            .ok_or_else(|| corrupt(&dir.join("meta"), 0, "the meta file of the topic is missing"))?;
        let open = |index: u32| {
            let dir = dir.join(index.to_string());
            let appender =
                recover(&dir, segment_bytes).map_err(|e| e.context(format!("topic {name:?}, partition {index}")))?;
            Ok(Partition::new(dir, appender))
        };
        let partitions = (0..meta.partitions).map(open).collect::<Result<_>>()?;
        Ok(Self { name, dir, meta: RwLock::new(meta), partitions })
    }

    /// Makes the files of a topic under another name first, so that it is there as a whole or not at all.
    pub(super) fn create(topics: &Path, spec: &TopicSpec, now: i64) -> Result<()> {
        let (draft, dir) = (topics.join(format!("{DRAFT}{}", spec.name)), topics.join(&spec.name));
        make_dir(&draft)?;
        for index in 0..spec.partitions {
            Partition::create(&draft.join(index.to_string()), now)?;
        }
        let id = RandomState::new();
        let id = u128::from(id.hash_one(0u8)) << 64 | u128::from(id.hash_one(1u8));
        TopicMeta { id, partitions: spec.partitions, retention: spec.retention }.save(&draft)?;
        fs::rename(&draft, &dir).map_err(|e| Error::io(format!("make the topic {}", dir.display()), e))?;
        sync_dir(topics)
    }

    /// Makes a topic be as it should be, or says why it cannot.
    pub(super) fn adopt(&self, spec: &TopicSpec) -> Result<()> {
        let mut meta = self.meta.write();
        check_partitions(&meta, spec)?;
        if spec.retention != Retention::Default && meta.retention != spec.retention {
            let changed = TopicMeta { retention: spec.retention, ..*meta };
            changed.save(&self.dir)?;
            *meta = changed;
        }
        Ok(())
    }

    /// What it keeps.
    pub(super) fn retention(&self) -> Retention {
        self.meta.read().retention
    }

    /// One of its partitions.
    pub(super) fn partition(&self, partition: PartitionId) -> Result<&Partition> {
        let count = self.partitions.len();
        self.partitions
            .get(usize::from(partition.0))
            .ok_or_else(|| partition_missing(&self.name, partition, count as u32))
    }

    /// All of them.
    pub(super) fn partitions(&self) -> &[Partition] {
        &self.partitions
    }
}

/// What the folder of a topic that is not made yet begins with; no topic's name can.
pub(super) const DRAFT: char = '~';

/// Errors where the topic has another number of partitions.
pub(super) fn check_partitions(meta: &TopicMeta, spec: &TopicSpec) -> Result<()> {
    if meta.partitions == spec.partitions {
        return Ok(());
    }
    let message = format!(
        "topic {:?} has {} partitions, not {}; the number is fixed: use another topic",
        spec.name, meta.partitions, spec.partitions
    );
    Err(Error::user("topic-partitions", message))
}

/// There is no such topic.
pub(super) fn topic_missing(log: &Path, name: &str) -> Error {
    Error::user("topic-missing", format!("{}: there is no topic {name:?}", log.display()))
}

/// There is no such partition.
pub(super) fn partition_missing(topic: &str, partition: PartitionId, count: u32) -> Error {
    Error::user("partition-missing", format!("topic {topic:?} has no partition {partition}: it has {count}, from 0"))
}
