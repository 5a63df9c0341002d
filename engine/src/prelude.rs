//! What a job author needs, in one `use`.

pub use crate::files;
pub use serde::{Deserialize, Serialize};
pub use thalweg_connectors::kafka::{
    Bound, KafkaConfig, KafkaSinkConfig, KafkaSource, KafkaSourceConfig, KeyWriter, OnDataLoss, Topics, ValueWriter,
};
pub use thalweg_connectors::log::{Delivery, Partitioner, Start};
pub use thalweg_connectors::{
    Authorities, Backfilled, BadRecord, BlackholeSink, CsvOptions, Decimals, Fields, FileSink, FileSource, Format,
    FormattedSource, Framing, GeneratorSource, GivenSchema, Include, Included, KeyFormat, Message, Messages, OutFormat,
    Part, ReadLimit, ReadState, RecordReader, RecordSource, RegistryConfig, RunningHash, SchemaFormat, SchemaRecords,
    SchemaRegistry, SchemaWriter, Schemas, StdoutSink, TypedJson, TypedValues, UnknownSchema, Untyped,
};
pub use thalweg_core::{ContentHash, Epoch, PartitionId, PartitionSpec, SourceKey, Value};
pub use thalweg_operators::{
    ChangelogKind, EpochCtx, JobBuilder, KeyedProcess, OldState, OnError, Output, ProcessError, RecordsOf, Registry,
    StoreSettings, Stream, Timestamp,
};

/// The records of one key in one epoch, as [`KeyedProcess::process`] of `P` is given them: write `&mut Records<Self>`.
pub type Records<'a, P> = RecordsOf<'a, <P as KeyedProcess>::Key, <P as KeyedProcess>::In>;

/// What user code returns: any error; the job's `on_error` decides what happens.
pub type Result<T, E = ProcessError> = std::result::Result<T, E>;
