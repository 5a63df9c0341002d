//! Files: as a source, compressed or growing, and as a sink.

mod fence;
mod follow;
mod framing;
mod identity;
mod output;
mod paths;
mod reader;
mod sink;
mod source;
mod stream;

pub use follow::FollowSource;
pub use sink::FileSink;
pub use source::FileSource;
