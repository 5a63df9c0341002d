//! What a run of a count came to; a child process prints it as one line of JSON.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) cpu_seconds: f64,
    pub(crate) wall_seconds: f64,
    /// CPU time of the worker that took the most: what the wall time would be with a core for each thread.
    pub(crate) busiest_seconds: f64,
    pub(crate) records: u64,
    pub(crate) epochs: u64,
    /// Records that came out.
    pub(crate) emitted: u64,
}

impl Measured {
    pub(crate) fn records_per_cpu_second(&self) -> f64 {
        self.records as f64 / self.cpu_seconds
    }
}
