//! The keys and values in a column family, byte by byte.
//!
//! ```text
//! key    partition   u16   big endian
//!        kind        u8    0 applied row, 1 row, 2 mark of a DELETED row
//!        key               rows and marks: the encoded key; applied rows: nothing
//! value  applied row: see `applied`
//!        row:  flags u8    bits 0-1: slot and DELETED, as `changelog::RowState::to_bits`; the others are 0
//!              value       postcard; nothing where DELETED
//!        mark: flags u8    as in the row
//! ```
//!
//! A store without a changelog has no DELETED rows, and all its rows have the flags 0. Marks let a restarted task find the
//! DELETED rows, which the next checkpoint turns into tombstones, without reading all rows.
//!
//! Blocks carry RocksDB's checksums; the version of this layout is in `meta` and in every applied row.

use thalweg_core::{Digest, Error, PartitionId, Result};
use xxhash_rust::xxh3::xxh3_128;

use crate::changelog::RowState;

pub(crate) const PREFIX: usize = 3;
pub(crate) const APPLIED: u8 = 0;
pub(crate) const ROW: u8 = 1;
pub(crate) const MARK: u8 = 2;

/// Appends the prefix of the rows of one kind.
#[inline]
pub(crate) fn put_prefix(out: &mut Vec<u8>, partition: PartitionId, kind: u8) {
    let [high, low] = partition.0.to_be_bytes();
    out.extend_from_slice(&[high, low, kind]);
}

/// The key of a row.
pub(crate) fn row_key(partition: PartitionId, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(PREFIX + key.len());
    put_prefix(&mut out, partition, ROW);
    out.extend_from_slice(key);
    out
}

/// The key of the applied row of a partition.
pub(crate) fn applied_key(partition: PartitionId) -> [u8; PREFIX] {
    let [high, low] = partition.0.to_be_bytes();
    [high, low, APPLIED]
}

/// The first key after everything of a partition.
pub(crate) fn partition_end(partition: PartitionId) -> Vec<u8> {
    let [high, low] = partition.0.to_be_bytes();
    vec![high, low, u8::MAX]
}

/// Takes a stored row apart.
pub(crate) fn split_row<'a>(store: &str, value: &'a [u8]) -> Result<(RowState, &'a [u8])> {
    value
        .split_first()
        .and_then(|(flags, rest)| Some((RowState::from_bits(*flags)?, rest)))
        .ok_or_else(|| Error::external("state-corrupt", format!("store {store:?}: a row has unknown flags; {ADVICE}")))
}

pub(crate) const ADVICE: &str = "the state folder is damaged: remove it, then the state is restored from the changelog";

/// What an entry adds to the digest of its partition: xxh3-128 of the length of the encoded key (u32, little endian), the
/// encoded key, and the encoded value. The length keeps `("a", "bc")` and `("ab", "c")` apart.
///
/// ```
/// use thalweg_state::entry_digest;
/// assert_ne!(entry_digest(b"a", b"bc"), entry_digest(b"ab", b"c"));
/// ```
pub fn entry_digest(key: &[u8], value: &[u8]) -> Digest {
    let mut scratch = Vec::with_capacity(4 + key.len() + value.len());
    digest_into(&mut scratch, key, value)
}

/// [`entry_digest`] with a scratch buffer.
#[inline]
pub(crate) fn digest_into(scratch: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Digest {
    scratch.clear();
    scratch.extend_from_slice(&(key.len() as u32).to_le_bytes());
    scratch.extend_from_slice(key);
    scratch.extend_from_slice(value);
    Digest(xxh3_128(scratch))
}
