//! The embedded log: a log in a folder, without a server.
//!
//! ```text
//! LOG/
//!   format                            magic "TWLG", no payload: this folder is a log
//!   lock                              locked by the writing process
//!   fences/<xxh3-128 of the id, hex>  magic "TWLF", payload: generation u64, id
//!   topics/<topic>/meta               magic "TWLT", payload: id u128, partitions u32, kind u8, two u64 of the retention
//!   topics/<topic>/<partition>/end    the committed end
//!   topics/<topic>/<partition>/<base offset, 20 digits>.log     a segment
//!   topics/<topic>/<partition>/<base offset, 20 digits>.index   its sparse index, a hint that may be missing
//! ```
//! Names that end in `.new` or `.cleaned`, and topics that begin with `~`, are drafts: a crash may leave them, opening for writing
//! removes them. All numbers are little endian; all checksums CRC-32C; varints are LEB128.
//!
//! `format`, a fence and a `meta` are replaced as a whole (draft, sync, rename, sync of the folder):
//! ```text
//!  0 magic 4 | 4 version u32 = 1 | 8 crc of the payload u32 | 12 length of the payload u32 | 16 payload
//!
//! retention: kind 0 keep; 1 compact, first u64 delete_retention_ms; 2 bounded, max_age_ms and max_bytes, all ones = no bound
//! ```
//!
//! `end` has two slots, at 0 and 512, written in turn; the one with the higher sequence counts:
//! ```text
//!  0 magic "TWE1" | 4 crc of 8..40 u32 | 8 sequence u64 | 16 base of the active segment u64 | 24 its bytes u64 | 32 end offset u64
//! ```
//! It is written after the sync of each commit, and synced itself only when a segment is begun or the log is opened: it is never
//! ahead of what is durable. It is all that readers, in this process or another, go by. An end that a power loss made older is
//! brought up to date by the next opening for writing.
//!
//! A segment is a header and batches without a gap between them:
//! ```text
//!  0 magic "TWLS" 4
//!  4 crc of 8..64 u32
//!  8 version u32 = 1
//! 12 flags u32: 1 = written by a cleaning
//! 16 base offset u64, as in its name
//! 24 begun at i64, microseconds since 1970: no record is older, and no record of the segments before is younger
//! 32 cleaned only: it stands for all offsets from base up to here u64; segments that begin inside are superseded
//! 40 cleaned only: its bytes u64
//! 48 cleaned only: the first deadline of its tombstones i64, 0 = none
//! 56 zero u64
//! 64 batches
//! ```
//!
//! A batch:
//! ```text
//!  0 magic "TWLB" 4
//!  4 crc of (the batch's place in the file u64, then 8..80) u32
//!  8 crc of the body u32
//! 12 length of the body u32
//! 16 version u8 = 1 | 17 flags u8: 1 = last of its transaction | 18 zero u16
//! 20 records u32, at least 1
//! 24 base offset u64
//! 32 offset of the last record less base u32 | 36 zero u32
//! 40 time i64, microseconds since 1970
//! 48 producer u64: xxh3-64 of its id; 0 after a cleaning
//! 56 generation u64 of the producer; 0 after a cleaning
//! 64 deadline of the tombstones in it i64; 0 = no cleaning has seen them
//! 72 bytes since the first batch of its transaction u64
//! 80 body, a sequence of records:
//!      offset less base varint | time less the batch's, zigzag varint
//!      key varint: 0 none, else length + 1, and the bytes | value likewise
//!      headers varint, each: length of the name varint, name, length of the value varint, value
//! ```
//! A transaction lies in one segment, one batch or several, and is written by one write. Offsets in a segment that was appended
//! have no gaps, over the border to the next one neither; cleaned ones have.
//!
//! An entry of an index: `0 offset u64 | 8 place of the batch u64 | 16 crc of 0..16 u32`, about one for each 256 KiB.
//!
//! **A commit** writes the batches of every touched partition, syncs every touched file (fdatasync), then moves the ends. A
//! failed step stops the partition for good until the log is opened again.
//!
//! **Opening for writing** checks the active segment. Damage before the committed end is an error. Behind it, whole transactions
//! are kept (they may have been durable, the outcome of their commit is unknown) and written once more before they are synced; what
//! follows the last whole one is cut, unless a whole batch of a later transaction is found in it: a transaction begins only
//! after the one before it is durable, so that is damage as well.

mod batch;
mod clean;
mod durable;
mod end;
mod fence;
mod index;
mod log;
mod partition;
mod producer;
mod reader;
mod recover;
mod scan;
mod segment;
#[cfg(test)]
mod tests;
mod topic;

pub use clean::CleanReport;
pub use log::{Clock, EmbeddedLog};

pub(in crate::log) use batch::{get_varint, put_varint};
pub(in crate::log) use reader::EmbeddedReader;
pub(crate) use topic::check_name;

/// Most bytes of a record: key, value and headers.
pub const MAX_RECORD_BYTES: usize = 64 << 20;
