//! Jobs over Kafka, beside a loop written by hand, on a broker that the benchmark starts.

mod bare;
mod count;
mod job;
mod latency;
mod native;
mod state;
mod topics;

pub(crate) use bare::{Bare, run as run_bare};
pub(crate) use count::count;
pub(crate) use job::main as run_job;
pub(crate) use latency::latency;
pub(crate) use state::{Scan, changelog, restart, restore, scan as run_scan};

/// Partitions of every topic, and of the jobs.
const PARTITIONS: usize = 4;

/// Something of each word.
type Words<V> = hashbrown::HashMap<Vec<u8>, V, foldhash::fast::FixedState>;
