//! `state.meta`: whose state a folder holds and what its stores look like.
//!
//! ```text
//! magic    8 bytes  "THWSTATE"
//! version  u32      1, little endian
//! body     postcard of job id, partitions, stores (their index is the number in the names of pending files)
//! check    u64      xxh3-64 over everything before, little endian
//! ```
//!
//! Written anew as a whole, under another name, synced, and renamed, *before* RocksDB makes the column families.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use thalweg_core::{Error, JobId, PartitionCount, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::applied::newer;
use crate::layout::ADVICE;

const MAGIC: &[u8; 8] = b"THWSTATE";
const VERSION: u32 = 1;
const NAME: &str = "state.meta";

/// Turns a row of an old shape into one of the new: `(old key shape, old value shape, encoded key, encoded value)` to the
/// encoded key and value. The key has to stay in its partition.
pub type Migrate = Box<dyn Fn(&str, &str, &[u8], &[u8]) -> Result<(Vec<u8>, Vec<u8>)> + Send + Sync>;

/// A store as the plan wants it.
pub struct StoreSpec {
    /// The operator id.
    pub name: String,
    /// What its keys look like, in any words that change when the type does.
    pub key_shape: String,
    /// The same of its values.
    pub value_shape: String,
    /// Whether its changes go to a changelog.
    pub changelog: bool,
    /// How to read rows of another shape; without it they are refused.
    pub migrate: Option<Migrate>,
}

/// A store as the folder holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreMeta {
    pub(crate) name: String,
    pub(crate) key_shape: String,
    pub(crate) value_shape: String,
    pub(crate) changelog: bool,
}

impl StoreMeta {
    /// What applied rows carry of the shapes.
    pub(crate) fn shape(&self) -> u64 {
        shape_of(&self.key_shape, &self.value_shape)
    }
}

pub(crate) fn shape_of(key: &str, value: &str) -> u64 {
    xxh3_64(format!("{}\0{key}\0{value}", key.len()).as_bytes())
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) job_id: JobId,
    pub(crate) partitions: PartitionCount,
    pub(crate) stores: Vec<StoreMeta>,
}

impl Meta {
    /// Nothing where the folder has none.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(NAME);
        match fs::read(&path) {
            Ok(bytes) => Self::decode(&path, &bytes).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("reading {}", path.display()), error)),
        }
    }

    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: &str| Error::external("state-corrupt", format!("{}: {what}; {ADVICE}", path.display()));
        let (body, check) = bytes.split_last_chunk().ok_or_else(|| corrupt("the file is too short"))?;
        let rest = body.strip_prefix(MAGIC).ok_or_else(|| corrupt("this is no file of Thalweg's state"))?;
        let (version, rest) = rest.split_first_chunk().ok_or_else(|| corrupt("the file is too short"))?;
        // Before the checksum, whose kind and place a newer version may change.
        let version = u32::from_le_bytes(*version);
        if version > VERSION {
            return Err(newer(&path.display().to_string(), version));
        }
        if u64::from_le_bytes(*check) != xxh3_64(body) || version != VERSION {
            return Err(corrupt("the checksum does not match"));
        }
        postcard::from_bytes(rest).map_err(|error| corrupt(&error.to_string()))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend(postcard::to_stdvec(self).expect("plain data can be encoded"));
        let check = xxh3_64(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let (path, temporary) = (dir.join(NAME), dir.join("state.meta.tmp"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&self.encode())?;
            file.sync_data()?;
            fs::rename(&temporary, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|error| Error::io(format!("writing {}", path.display()), error))
    }

    /// Whether this folder is of that job.
    pub(crate) fn check_job(&self, dir: &Path, job_id: JobId, partitions: PartitionCount) -> Result<()> {
        if self.job_id != job_id {
            let (dir, holds) = (dir.display(), self.job_id);
            return Err(Error::user(
                "state-of-another-job",
                format!(
                    "{dir} holds the state of job {holds}, this is job {job_id}; use another folder or remove this one"
                ),
            ));
        }
        if self.partitions != partitions {
            let (dir, holds, wanted) = (dir.display(), self.partitions.get(), partitions.get());
            return Err(Error::user(
                "state-partitions",
                format!("{dir} has {holds} partitions, the job wants {wanted}; they are fixed when a job is created"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Meta {
        let store =
            StoreMeta { name: "totals".into(), key_shape: "String".into(), value_shape: "u64".into(), changelog: true };
        Meta { job_id: JobId(9), partitions: PartitionCount::new(64).expect("few"), stores: vec![store] }
    }

    #[test]
    fn the_frozen_file_of_version_1_is_read() {
        let frozen = include_bytes!("../fixtures/meta-v1.bin");
        assert_eq!(Meta::decode(Path::new("state.meta"), frozen).expect("reads"), sample());
        assert_eq!(sample().encode(), frozen);
    }

    #[test]
    fn damage_and_newer_versions_are_told_apart() {
        let good = sample().encode();
        let code = |bytes: &[u8]| Meta::decode(Path::new("state.meta"), bytes).expect_err("bad").code();
        for at in (0..good.len()).filter(|at| !(8..12).contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(code(&bad), "state-corrupt", "byte {at}");
        }
        let mut newer = good.clone();
        newer[8] = 2;
        assert_eq!(code(&newer), "state-newer");
        assert_eq!(code(&good[..5]), "state-corrupt");
    }
}
