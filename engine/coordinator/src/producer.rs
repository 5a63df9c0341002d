//! The ids under which a job writes.

use std::fmt;

use thalweg_core::{JobId, TaskIndex};

/// A writer of a job that the log fences by its id. Ids are made of the job's id and a task's index, so that the next
/// generation knows all that were ever handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProducerId {
    /// Writes the bindings; one per job.
    Bindings,
    /// Writes the sinks of a task.
    Sinks(TaskIndex),
    /// Writes the changelogs of a task.
    Changelog(TaskIndex),
}

impl ProducerId {
    /// The id in the log.
    ///
    /// ```
    /// use thalweg_coordinator::ProducerId;
    /// use thalweg_core::{JobId, TaskIndex};
    /// let id = ProducerId::Sinks(TaskIndex(2)).name(JobId(0xab));
    /// assert_eq!(id, "thalweg-000000000000000000000000000000ab-sinks-2");
    /// ```
    pub fn name(self, job: JobId) -> String {
        format!("thalweg-{job}-{self}")
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bindings => f.write_str("bindings"),
            Self::Sinks(task) => write!(f, "sinks-{task}"),
            Self::Changelog(task) => write!(f, "changelog-{task}"),
        }
    }
}
