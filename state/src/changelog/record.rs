//! The bytes of a changelog record.
//!
//! ```text
//! key    row:  encoded key ++ slot            slot: 0x00 or 0x01
//!        end:  0x02 ++ slot                   one byte: 0x02 or 0x03
//! value  tombstone: no value
//!        else: layout, kind, generation, checkpoint, body, checksum
//!          layout      u8       0xC1: a changelog record, version 1
//!          kind        u8       1 version, 2 DELETED, 3 end
//!          generation  varint   LEB128, at most 10 bytes
//!          checkpoint  varint   the epoch of the checkpoint that wrote it
//!          body        version: the encoded value; DELETED: nothing; end: entries (u64) and digest (u128), little endian
//!          checksum    u32      little endian: the low half of xxh3-64 over the record's key and everything before
//! ```
//!
//! The last byte of a key tells rows from ends, so no encoded key can be taken for an end. Ends alternate between two slots
//! by the same rule as rows: cleaning keeps the end of the last committed checkpoint, whatever was written after it.

use thalweg_core::{Digest, Epoch, Error, Generation, Result};
use xxhash_rust::xxh3::Xxh3;

use super::Slot;

const LAYOUT: u8 = 0xC1;
const VERSION: u8 = 1;
const DELETED: u8 = 2;
const END: u8 = 3;
const CHECKSUM: usize = 4;
const END_BODY: usize = 8 + 16;

/// The key of a changelog record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangelogKey<'a> {
    /// A slot of a row.
    Row {
        /// The encoded key.
        key: &'a [u8],
        /// The slot.
        slot: Slot,
    },
    /// A slot of the end records.
    End {
        /// The slot.
        slot: Slot,
    },
}

impl<'a> ChangelogKey<'a> {
    /// Appends the bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Row { key, slot } => {
                out.extend_from_slice(key);
                out.push(slot.index() as u8);
            }
            Self::End { slot } => out.push(2 + slot.index() as u8),
        }
    }

    /// Reads the bytes. An error (`changelog-record`): the topic holds something else.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        match bytes.split_last() {
            Some((0, key)) => Ok(Self::Row { key, slot: Slot::Zero }),
            Some((1, key)) => Ok(Self::Row { key, slot: Slot::One }),
            Some((2, [])) => Ok(Self::End { slot: Slot::Zero }),
            Some((3, [])) => Ok(Self::End { slot: Slot::One }),
            Some(_) | None => Err(damaged(format!("a key of {} bytes ends in no slot", bytes.len()))),
        }
    }
}

/// The end record of a checkpoint in a partition: the last record of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRecord {
    /// How many entries the partition has at the checkpoint (rows of deleted keys do not count).
    pub entries: u64,
    /// Their digest.
    pub digest: Digest,
}

/// What a changelog record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordBody<'a> {
    /// The key has this encoded value.
    Version(&'a [u8]),
    /// The key has no value.
    Deleted,
    /// The partition is complete.
    End(EndRecord),
}

/// The value of a changelog record that is no tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangelogValue<'a> {
    /// Who wrote it.
    pub generation: Generation,
    /// For which checkpoint.
    pub checkpoint: Epoch,
    /// What it says.
    pub body: RecordBody<'a>,
}

impl<'a> ChangelogValue<'a> {
    /// Appends the bytes; `key` are the bytes of the record's key, which the checksum covers.
    ///
    /// ```
    /// use thalweg_core::{Epoch, Generation};
    /// use thalweg_state::changelog::{ChangelogKey, ChangelogValue, RecordBody, Slot};
    /// let (mut key, mut value) = (Vec::new(), Vec::new());
    /// ChangelogKey::Row { key: b"paris", slot: Slot::One }.encode(&mut key);
    /// let record =
    ///     ChangelogValue { generation: Generation(3), checkpoint: Epoch(700), body: RecordBody::Version(b"\x07") };
    /// record.encode(&key, &mut value);
    /// assert_eq!(ChangelogValue::decode(&key, &value).unwrap(), record);
    /// assert_eq!(value.len(), 10);
    /// ```
    pub fn encode(&self, key: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let kind = match self.body {
            RecordBody::Version(_) => VERSION,
            RecordBody::Deleted => DELETED,
            RecordBody::End(_) => END,
        };
        out.extend_from_slice(&[LAYOUT, kind]);
        put_varint(self.generation.0, out);
        put_varint(self.checkpoint.0, out);
        match self.body {
            RecordBody::Version(value) => out.extend_from_slice(value),
            RecordBody::Deleted => {}
            RecordBody::End(end) => {
                out.extend_from_slice(&end.entries.to_le_bytes());
                out.extend_from_slice(&end.digest.0.to_le_bytes());
            }
        }
        let sum = checksum(key, &out[start..]);
        out.extend_from_slice(&sum);
    }

    /// Reads the bytes of the record with the key `key`. An error (`changelog-record`): they are damaged, or of a later version.
    pub fn decode(key: &[u8], bytes: &'a [u8]) -> Result<Self> {
        let split = bytes.len().checked_sub(CHECKSUM).ok_or_else(|| damaged("a value is shorter than its checksum"))?;
        let (content, sum) = bytes.split_at(split);
        if checksum(key, content) != sum {
            return Err(damaged("a value does not have its checksum"));
        }
        let [layout, kind, rest @ ..] = content else {
            return Err(damaged("a value is shorter than its head"));
        };
        if *layout != LAYOUT {
            return Err(damaged(format!("a value has layout {layout:#04x}, this version reads {LAYOUT:#04x}")));
        }
        let (generation, rest) = take_varint(rest)?;
        let (checkpoint, body) = take_varint(rest)?;
        let body = match *kind {
            VERSION => RecordBody::Version(body),
            DELETED if body.is_empty() => RecordBody::Deleted,
            END => RecordBody::End(decode_end(body)?),
            kind => return Err(damaged(format!("a value of kind {kind} with a body of {} bytes", body.len()))),
        };
        Ok(Self { generation: Generation(generation), checkpoint: Epoch(checkpoint), body })
    }
}

fn decode_end(body: &[u8]) -> Result<EndRecord> {
    let fixed: &[u8; END_BODY] = body.try_into().map_err(|_| damaged(format!("an end of {} bytes", body.len())))?;
    let (entries, digest) = fixed.split_at(8);
    Ok(EndRecord {
        entries: u64::from_le_bytes(entries.try_into().expect("split at 8")),
        digest: Digest(u128::from_le_bytes(digest.try_into().expect("16 are left"))),
    })
}

fn checksum(key: &[u8], content: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = Xxh3::new();
    hasher.update(key);
    hasher.update(content);
    (hasher.digest() as u32).to_le_bytes()
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(bytes: &[u8]) -> Result<(u64, &[u8])> {
    let mut number = 0u64;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        let part = u64::from(byte & 0x7F);
        if index == 9 && part > 1 {
            break;
        }
        number |= part << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((number, &bytes[index + 1..]));
        }
    }
    Err(damaged("a number does not end"))
}

fn damaged(what: impl Into<String>) -> Error {
    Error::external(
        "changelog-record",
        format!(
            "the changelog holds a record that is none: {}; restore the topic or drop the store's state",
            what.into()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const END_RECORD: EndRecord = EndRecord { entries: 3, digest: Digest(u128::MAX - 5) };

    #[test]
    fn keys_survive_and_ends_are_no_rows() {
        for key in [&b""[..], b"\x02", b"\x03", b"a", b"\x00\x01"] {
            for slot in Slot::BOTH {
                let mut bytes = Vec::new();
                ChangelogKey::Row { key, slot }.encode(&mut bytes);
                assert_eq!(ChangelogKey::decode(&bytes).unwrap(), ChangelogKey::Row { key, slot });
            }
        }
        for slot in Slot::BOTH {
            let mut bytes = Vec::new();
            ChangelogKey::End { slot }.encode(&mut bytes);
            assert_eq!(ChangelogKey::decode(&bytes).unwrap(), ChangelogKey::End { slot });
        }
        for bad in [&b""[..], b"\x04", b"a\x02", b"a\xff"] {
            assert_eq!(ChangelogKey::decode(bad).unwrap_err().code(), "changelog-record", "{bad:?}");
        }
    }

    #[test]
    fn values_survive_and_damage_is_found() {
        let bodies =
            [RecordBody::Version(b""), RecordBody::Version(b"value"), RecordBody::Deleted, RecordBody::End(END_RECORD)];
        for number in [0, 1, 127, 128, 1 << 40, u64::MAX] {
            for body in bodies {
                let value =
                    ChangelogValue { generation: Generation(number), checkpoint: Epoch(u64::MAX - number), body };
                let mut bytes = Vec::new();
                value.encode(b"key\0", &mut bytes);
                assert_eq!(ChangelogValue::decode(b"key\0", &bytes).unwrap(), value);
                assert!(ChangelogValue::decode(b"key\x01", &bytes).is_err(), "under another key");
                for place in 0..bytes.len() {
                    assert!(ChangelogValue::decode(b"key\0", &bytes[..place]).is_err(), "cut at {place}");
                    bytes[place] ^= 0x10;
                    assert!(ChangelogValue::decode(b"key\0", &bytes).is_err(), "flipped at {place}");
                    bytes[place] ^= 0x10;
                }
            }
        }
    }

    /// The bytes of version 1, for ever.
    #[test]
    fn layout_one_is_fixed() {
        let mut bytes = Vec::new();
        let value =
            ChangelogValue { generation: Generation(3), checkpoint: Epoch(700), body: RecordBody::Version(b"v") };
        value.encode(b"k\x01", &mut bytes);
        assert_eq!(bytes[..6], [0xC1, 1, 3, 0xBC, 0x05, b'v']);
        assert_eq!(bytes[6..], checksum(b"k\x01", &bytes[..6]));
    }
}
