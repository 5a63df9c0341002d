//! What changes the history of a job, and its bytes.
//!
//! ```text
//! magic "TWJE" · version u8 = 1 · entry (postcard) · CRC-32C of all before, u32 little endian
//! ```

use serde::{Deserialize, Serialize};
use thalweg_core::{CheckpointRecord, CheckpointZero, Epoch, Error, Generation, PartitionSpec, Result};

const MAGIC: &[u8; 4] = b"TWJE";
const VERSION: u8 = 1;
const CHECKSUM: usize = 4;

/// One change of a [`JobHistory`](crate::JobHistory): a compare-and-set on the generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// The job exists: checkpoint 0.
    Created(CheckpointZero),
    /// A new generation, one above the last.
    GenerationStarted {
        /// Its number.
        generation: Generation,
        /// How many tasks it has: their indexes are 0 to this.
        tasks: u32,
    },
    /// What the generation starts from: the checkpoint C that is committed now, and B.
    PlanCommitted {
        /// Whose plan.
        generation: Generation,
        /// B: bindings of older generations after it are void for ever.
        last_binding: Epoch,
        /// The fingerprint of the job's plan that this generation runs; epochs that it binds can be replayed by that plan only.
        fingerprint: u64,
    },
    /// A checkpoint is committed.
    CheckpointCommitted(CheckpointRecord),
    /// A checkpoint is given up.
    CheckpointAbandoned {
        /// Whose checkpoint.
        generation: Generation,
        /// Its epoch; this generation uses it for no other checkpoint.
        epoch: Epoch,
    },
    /// Source partitions have come. Durable before any binding names them, so that whoever replays it knows what they are.
    SourcesAdded {
        /// Who found them.
        generation: Generation,
        /// Each with its number, its identity and its start.
        sources: Vec<PartitionSpec>,
    },
}

impl Entry {
    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[VERSION]].concat();
        bytes = postcard::to_extend(self, bytes).expect("a vector takes any entry");
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads stored bytes. An error (`history-entry`): they are damaged, or of a later version.
    ///
    /// ```
    /// use thalweg_coordinator::Entry;
    /// use thalweg_core::{Epoch, Generation};
    /// let entry = Entry::CheckpointAbandoned { generation: Generation(3), epoch: Epoch(70) };
    /// assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
    /// ```
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged =
            |why: &str| Error::external("history-entry", format!("an entry of the job's history is damaged: {why}"));
        let split = bytes.len().checked_sub(CHECKSUM).ok_or_else(|| damaged("it is shorter than its checksum"))?;
        let (content, sum) = bytes.split_at(split);
        if crc32c::crc32c(content).to_le_bytes() != sum {
            return Err(damaged("it does not have its checksum"));
        }
        let body = content.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin with TWJE"))?;
        match body.split_first() {
            Some((&VERSION, body)) => {
                postcard::from_bytes(body).map_err(|error| damaged("its fields cannot be read").with_source(error))
            }
            Some((version, _)) => Err(Error::user(
                "history-entry",
                format!("the job's history has version {version}, this program reads {VERSION}; use the newer program"),
            )),
            None => Err(damaged("it has no version")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found_at_every_byte() {
        let entry = Entry::PlanCommitted { generation: Generation(7), last_binding: Epoch(300), fingerprint: u64::MAX };
        let mut bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes).unwrap(), entry);
        for place in 0..bytes.len() {
            assert_eq!(Entry::decode(&bytes[..place]).unwrap_err().code(), "history-entry", "cut at {place}");
            bytes[place] ^= 1;
            assert_eq!(Entry::decode(&bytes).unwrap_err().code(), "history-entry", "flipped at {place}");
            bytes[place] ^= 1;
        }
    }

    /// The bytes of version 1, for ever.
    #[test]
    fn version_one_is_fixed() {
        let entry = Entry::GenerationStarted { generation: Generation(300), tasks: 2 };
        assert_eq!(entry.encode()[..9], *b"TWJE\x01\x01\xac\x02\x02");
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = b"TWJE\x02".to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(b"TWJE\x02").to_le_bytes());
        assert!(Entry::decode(&bytes).unwrap_err().message().contains("version 2"));
    }
}
