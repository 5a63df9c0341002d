//! Protobuf: messages in the binary encoding, read and written with descriptors of their types.

mod descriptor;
mod read;
mod source;
mod well_known;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_core::Value;

use super::Fields;
use super::schemas::RecordsOfSchema;
use descriptor::Layout;
pub(crate) use descriptor::MessageTypes;
use read::{Reader, varint};
pub(crate) use source::{ProtoFile, ProtoTexts};
pub use write::ProtobufWriter;

/// Most messages that stand in each other at their definition.
const MAX_INDEXES: u64 = 64;

/// Which type the messages of a source are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// All of them this one; with indexes in front of each, or without.
    One { index: usize, framed: bool },
    /// The indexes in front of each say it.
    Indexed,
}

/// Reads the records of one schema.
pub(super) struct ProtobufRecords {
    types: Arc<MessageTypes>,
    which: Which,
    /// Nothing where all fields are wanted.
    wanted: Option<Vec<String>>,
    /// The wanted fields of the types that were met.
    layouts: BTreeMap<usize, Layout>,
}

impl ProtobufRecords {
    pub(super) fn new(types: Arc<MessageTypes>, which: Which, fields: &Fields) -> Self {
        let wanted = match fields {
            Fields::All => None,
            Fields::Only(names) => Some(names.clone()),
        };
        Self { types, which, wanted, layouts: BTreeMap::new() }
    }
}

impl RecordsOfSchema for ProtobufRecords {
    fn read(&mut self, bytes: &[u8]) -> Result<Value, String> {
        let (index, bytes) = match self.which {
            Which::One { index, framed: false } => (index, bytes),
            Which::One { index, framed: true } => (index, indexes(bytes)?.1),
            Which::Indexed => {
                let (indexes, rest) = indexes(bytes)?;
                let index = self.types.indexed(&indexes);
                (index.ok_or_else(|| format!("the schema has no message type with the indexes {indexes:?}"))?, rest)
            }
        };
        let Some(wanted) = &self.wanted else { return Reader::new(&self.types, bytes.len()).message(index, bytes) };
        let of = &self.types.messages[index].layout;
        let layout = self.layouts.entry(index).or_insert_with(|| of.only(wanted));
        Reader::new(&self.types, bytes.len()).some_fields(index, layout, bytes)
    }
}

/// The indexes of a message type in front of a record: how many, and each, as zigzag numbers; a single zero is the first type.
fn indexes(bytes: &[u8]) -> Result<(Vec<usize>, &[u8]), String> {
    let within = |why: String| format!("in the indexes of its message type: {why}");
    let (count, mut at) = varint(bytes).map_err(within)?;
    let count = match count {
        0 => return Ok((vec![0], &bytes[at..])),
        count if count & 1 == 0 && count >> 1 <= MAX_INDEXES => count >> 1,
        count => return Err(within(format!("{count} is not how many they are"))),
    };
    let mut indexes = Vec::new();
    for _ in 0..count {
        let (index, length) = varint(&bytes[at..]).map_err(within)?;
        at += length;
        let index = usize::try_from(index >> 1).ok().filter(|_| index & 1 == 0);
        indexes.push(index.ok_or_else(|| within("one is below 0".to_owned()))?);
    }
    Ok((indexes, &bytes[at..]))
}

#[cfg(test)]
mod tests;
