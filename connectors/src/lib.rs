//! Where records come from and go to: the log trait and its homes, one folder per connector, and the formats.

pub mod log;
mod raw;
mod sink;
mod source;

pub use raw::{RawBatch, RawReader, RawRecord, RawSource};
pub use sink::{EncodedBatch, EncodedRecord, Sink, SinkContext, SinkWriter};
pub use source::{BadRecord, ReadLimit, ReadState, RecordReader, RecordSource, RunningHash};
