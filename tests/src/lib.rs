//! The exactness harness: runs the real binary over seeded jobs and inputs, kills it, puts known bugs back, and compares every
//! byte that it wrote and every store that it serves with a naive interpreter over the recorded bindings.
//!
//! ```text
//! seed ─▶ JobSketch ─┬─▶ job.toml, input files ─▶ Process (the real binary, killed and restarted) ─▶ sinks, stores
//!                    └─▶ Reference (one thread, BTreeMaps) over the bindings of that run ─▶ the same ─▶ must be equal
//! ```
//!
//! [`kafka`] starts the Apache Kafka that tests need.

#![allow(clippy::disallowed_methods, reason = "waits for processes, with limits, and measures how long they take")]

mod binary;
mod client;
mod disturbance;
mod feed;
mod folder;
mod home;
mod input;
pub mod kafka;
mod keeper;
mod letters;
mod outputs;
mod points;
mod process;
mod random;
mod reference;
mod repeat;
mod sketch;
mod stores;
mod trial;
mod until;

pub use binary::Binary;
pub use client::{Answer, Client};
pub use disturbance::Disturbance;
pub use folder::Folder;
pub use home::Home;
pub use letters::Letter;
pub use outputs::{Outputs, check_prefix};
pub use points::{Points, points};
pub use process::{Ended, Process, RunFlags};
pub use random::Random;
pub use reference::{Reference, Run, recorded_run, recorded_run_of};
pub use repeat::{repeat_with_workers, two_runs_agree};
pub use sketch::{Fold, JobSketch, KeyOf, SinkSketch, SourceSketch, Step};
pub use stores::{Observation, scan_store};
pub use trial::{End, Fault, Trial, TrialOptions};
pub use until::until;
