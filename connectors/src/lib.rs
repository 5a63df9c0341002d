//! Where records come from and go to: the log trait and its homes, one folder per connector, and the formats.

#![allow(
    clippy::disallowed_methods,
    reason = "connectors act at the edge: they wait for locks of files and seed their tests"
)]

mod backfill;
mod blackhole;
pub mod conformance;
pub mod dead_letter;
mod file;
mod format;
mod formatted;
mod generator;
mod ingest;
pub mod kafka;
pub mod log;
mod random;
mod raw;
mod registry;
mod sink;
mod source;
mod stdin;
mod stdout;

pub use backfill::Backfilled;
pub use blackhole::BlackholeSink;
pub use file::{FileSink, FileSource, FollowSource};
pub use format::{
    AvroWriter, CsvOptions, Decimals, Decoder, DecoderOf, Fields, Format, Framing, GivenSchema, Include, Included,
    KeyFormat, Message, Messages, OutFormat, Part, ProtobufWriter, SchemaFormat, SchemaRecords, SchemaWriter, Schemas,
    TypedJson, TypedValues, Untyped,
};
pub use formatted::FormattedSource;
pub use generator::GeneratorSource;
pub use ingest::IngestTopic;
pub use raw::{RawBatch, RawHeader, RawReader, RawRecord, RawSource, TopicPartition};
pub use registry::{Authorities, KeptSchemas, RegistryConfig, SchemaRegistry, UnknownSchema};
pub use sink::{EncodedBatch, EncodedRecord, Sink, SinkContext, SinkWriter};
pub use source::{BadRecord, Lag, ReadLimit, ReadState, RecordReader, RecordSource, Retried, RunningHash, Waker};
pub use stdin::StdinSource;
pub use stdout::StdoutSink;
