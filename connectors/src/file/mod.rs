//! Files: as a source, compressed or growing, and as a sink.

mod fence;
mod framing;
mod identity;
mod output;
mod reader;
mod sink;
mod source;
mod stream;

pub use sink::FileSink;
pub use source::FileSource;
