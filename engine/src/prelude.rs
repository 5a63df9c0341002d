//! What a job author needs, in one `use`.

pub use serde::{Deserialize, Serialize};
pub use thalweg_connectors::{
    BadRecord, BlackholeSink, FileSink, FileSource, Format, FormattedSource, GeneratorSource, OutFormat, ReadLimit,
    ReadState, RecordReader, RecordSource, RunningHash, StdoutSink, TypedJson,
};
pub use thalweg_core::{ContentHash, Epoch, PartitionId, PartitionSpec, SourceKey, Value};
pub use thalweg_operators::{
    EpochCtx, JobBuilder, KeyedProcess, OnError, Output, ProcessError, RecordsOf, Registry, Stream, Timestamp,
};

/// The records of one key in one epoch.
pub type Records<'a, K, T> = RecordsOf<'a, K, T>;

/// What user code returns: any error; the job's `on_error` decides what happens.
pub type Result<T, E = ProcessError> = std::result::Result<T, E>;
