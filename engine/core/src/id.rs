//! Newtypes for every id and count that crosses a crate boundary.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A short slice of input; the timestamp in timely. Epoch 0 is checkpoint 0, before any input; the first that holds
    /// input is 1.
    Epoch(u64)
}
number! {
    /// A number from the coordinator; every restart or re-assignment of a job is a new one.
    Generation(u64)
}
number! {
    /// One of the `P` key ranges of a job, or one partition of a source.
    PartitionId(u16)
}
number! {
    /// A worker process of a job, from 0.
    TaskIndex(u32)
}
number! {
    /// A timely worker thread of a job, from 0 over all tasks.
    WorkerIndex(u32)
}

impl Epoch {
    /// The epoch of checkpoint 0.
    pub const ZERO: Self = Self(0);

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Generation {
    /// The generation after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The number of partitions of a job, 1 to 65,536, fixed for the life of its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionCount(u32);

impl PartitionCount {
    /// Most partitions that a job may have: a partition id has 16 bits in every key of the state.
    pub const MAX: u32 = 1 << 16;

    /// Checks the limits.
    pub fn new(count: u32) -> Result<Self> {
        if (1..=Self::MAX).contains(&count) {
            Ok(Self(count))
        } else {
            Err(Error::user("partitions", format!("partitions = {count}: a job has 1 to {} partitions", Self::MAX)))
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// All partitions, in order.
    pub fn all(self) -> impl Iterator<Item = PartitionId> {
        (0..self.0).map(|index| PartitionId(index as u16))
    }
}

/// The name of a job: `[a-z0-9][a-z0-9-]{0,62}`, fit for topics, folders and URLs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobName(String);

impl JobName {
    /// Checks the form.
    ///
    /// ```
    /// use thalweg_core::JobName;
    /// assert!(JobName::new("orders-2").is_ok());
    /// assert!(JobName::new("Orders").is_err());
    /// ```
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let first = name.bytes().next().is_some_and(|b| b != b'-');
        let body = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if first && body && name.len() <= 63 {
            Ok(Self(name))
        } else {
            Err(Error::user(
                "job-name",
                format!("job name {name:?}: use a-z, 0-9 and -, at most 63 characters, no - in front"),
            ))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JobName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<JobName> for String {
    fn from(name: JobName) -> Self {
        name.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The random id that a job gets with checkpoint 0. Positions, producer ids and folders carry it, so that a job created
/// again under an old name meets nothing of its past.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u128);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
