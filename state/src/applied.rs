//! The applied row: what one partition of one store holds.
//!
//! ```text
//! version     u8     1
//! job id      u128   little endian, as all that follow
//! generation  u64    who wrote the checkpoint
//! epoch       u64    the checkpoint
//! digest      u128   of the rows as they are
//! recorded    u128   the digest that the record of the checkpoint names; differs from `digest` only after a migration
//! entries     u64
//! changelog   u64    offset after the end record; 0 without a changelog
//! shape       u64    xxh3-64 of the shapes of key and value
//! end         u8     slot of the last committed end record, as `RowState::to_bits`; 255 where there is none
//! check       u32    low half of xxh3-64 over everything before
//! ```

use thalweg_core::{Digest, Epoch, Error, Generation, JobId, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::changelog::RowState;
use crate::layout::ADVICE;

const VERSION: u8 = 1;
const NO_END: u8 = u8::MAX;
const LENGTH: usize = 1 + 16 + 8 + 8 + 16 + 16 + 8 + 8 + 8 + 1 + 4;

/// What one partition of one store holds: written in one piece with the rows that it tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whose state it is.
    pub job_id: JobId,
    /// The generation that wrote the checkpoint.
    pub generation: Generation,
    /// The checkpoint.
    pub epoch: Epoch,
    /// The digest of the rows.
    pub digest: Digest,
    /// The digest that the record of the checkpoint names: compare this one. It differs from `digest` after a migration,
    /// until the next checkpoint.
    pub recorded: Digest,
    /// Entries (DELETED rows do not count).
    pub entries: u64,
    /// The changelog's offset after the end record of the checkpoint: where catching up begins. 0 without a changelog.
    pub changelog: u64,
    /// A fingerprint of the shapes of key and value.
    pub shape: u64,
    /// Where the changelog's last committed end record lies.
    pub end: RowState,
}

impl Applied {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        out.push(VERSION);
        out.extend_from_slice(&self.job_id.0.to_le_bytes());
        out.extend_from_slice(&self.generation.0.to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.digest.0.to_le_bytes());
        out.extend_from_slice(&self.recorded.0.to_le_bytes());
        for number in [self.entries, self.changelog, self.shape] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(self.end.to_bits().unwrap_or(NO_END));
        let check = xxh3_64(&out) as u32;
        out.extend_from_slice(&check.to_le_bytes());
        out
    }

    pub(crate) fn decode(store: &str, bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: String| {
            Error::external("state-corrupt", format!("store {store:?}: an applied row {what}; {ADVICE}"))
        };
        if let Some(version) = bytes.first().filter(|version| **version > VERSION) {
            return Err(newer(store, u32::from(*version)));
        }
        if bytes.len() != LENGTH || bytes[0] != VERSION {
            return Err(corrupt(format!("has {} bytes, not {LENGTH}", bytes.len())));
        }
        let (body, check) = bytes.split_at(LENGTH - 4);
        if check != (xxh3_64(body) as u32).to_le_bytes() {
            return Err(corrupt("does not have its checksum".into()));
        }
        let mut rest = &body[1..];
        let end = match body[body.len() - 1] {
            NO_END => RowState::None,
            bits => RowState::from_bits(bits).ok_or_else(|| corrupt(format!("names slot {bits}")))?,
        };
        Ok(Self {
            job_id: JobId(take_u128(&mut rest)),
            generation: Generation(take_u64(&mut rest)),
            epoch: Epoch(take_u64(&mut rest)),
            digest: Digest(take_u128(&mut rest)),
            recorded: Digest(take_u128(&mut rest)),
            entries: take_u64(&mut rest),
            changelog: take_u64(&mut rest),
            shape: take_u64(&mut rest),
            end,
        })
    }
}

pub(crate) fn newer(what: &str, version: u32) -> Error {
    Error::user(
        "state-newer",
        format!("{what}: the state has format {version}, this version reads up to {VERSION}; run the newer version"),
    )
}

fn take_u64(bytes: &mut &[u8]) -> u64 {
    let (head, rest) = bytes.split_first_chunk().expect("the length was checked");
    *bytes = rest;
    u64::from_le_bytes(*head)
}

fn take_u128(bytes: &mut &[u8]) -> u128 {
    let (head, rest) = bytes.split_first_chunk().expect("the length was checked");
    *bytes = rest;
    u128::from_le_bytes(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changelog::Slot;

    fn sample() -> Applied {
        Applied {
            job_id: JobId(0x0102_0304),
            generation: Generation(3),
            epoch: Epoch(700),
            digest: Digest(u128::MAX - 1),
            recorded: Digest(5),
            entries: 42,
            changelog: 9000,
            shape: 77,
            end: RowState::Live(Slot::One),
        }
    }

    #[test]
    fn the_frozen_bytes_of_version_1_are_read() {
        let frozen = include_bytes!("../fixtures/applied-v1.bin");
        assert_eq!(Applied::decode("s", frozen).expect("reads"), sample());
        assert_eq!(sample().encode(), frozen);
    }

    #[test]
    fn damage_and_newer_versions_are_told_apart() {
        let good = sample().encode();
        for at in 1..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(Applied::decode("s", &bad).expect_err("damaged").code(), "state-corrupt", "byte {at}");
        }
        let mut newer = good.clone();
        newer[0] = VERSION + 1;
        assert_eq!(Applied::decode("s", &newer).expect_err("newer").code(), "state-newer");
        assert_eq!(Applied::decode("s", &good[..10]).expect_err("short").code(), "state-corrupt");
    }
}
