//! The vocabulary of Thalweg as types: ids, keys, values, records, bindings, checkpoints, and the messages that the
//! coordinator and the tasks of a job exchange. No I/O.
//!
//! Everything above this crate speaks in these types, so that the data plane (`thalweg-runtime`) and the control plane
//! (`thalweg-coordinator`) never need to know each other.

mod binding;
mod checkpoint;
mod error;
pub mod failpoint;
mod id;
mod key;
mod message;
mod metrics;
mod provenance;
mod query;
mod record;
mod service;
mod units;
mod value;

pub use binding::{Binding, ContentHash, Share, SourceKey};
pub use checkpoint::{
    CheckpointRecord, CheckpointZero, Digest, Lineage, PartitionSpec, SinkKey, SourceState, StoreState,
};
pub use error::{Blame, Error, Result};
pub use id::{Epoch, Generation, JobId, JobName, PartitionCount, PartitionId, TaskIndex, WorkerIndex};
pub use key::{Key, KeyHash, decode_key, encode_key, hash_key, parse_key, prefix_range};
pub use message::{CheckpointAck, Command, Fenced, RecoveryPlan, Report, ScanReport, SinkTail, SourcesFound};
pub use metrics::{Histogram, Metrics, Series};
pub use provenance::{OriginId, Provenance};
pub use query::{At, Entry, Query, QueryError, QueryReply, QueryResult, ReadOptions, ScanRange};
pub use record::{Data, Keyed, Record};
pub use service::{CheckpointInfo, JobLag, JobService, JobStatus, Phase, ProgressRatio, Reply, RestoreInfo, StoreInfo};
pub use units::{format_bytes, format_duration, parse_bytes, parse_duration};
pub use value::{Row, Shape, Value};
