//! The decoders of the bytes of a state folder that RocksDB does not check by itself, behind one function for any bytes: for fuzzing.
//!
//! The first byte says which one; what has a checksum is given the right one, so that what is behind it is reached.

use std::path::Path;

use thalweg_core::{Digest, Epoch, Generation, JobId, PartitionCount, PartitionId, WorkerIndex};
use xxhash_rust::xxh3::xxh3_64;

use crate::Applied;
use crate::changelog::{RowState, Slot};
use crate::layout::split_row;
use crate::meta::{Meta, StoreMeta};
use crate::pending::Name;

const KINDS: u8 = 4;

/// Decodes, and asserts that what was decoded has the same bytes again.
pub fn decode_any(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % KINDS {
        0 => {
            let bytes = with_check(rest, &xxh3_64(rest).to_le_bytes());
            if let Ok(meta) = Meta::decode(Path::new("state.meta"), &bytes) {
                let again = Meta::decode(Path::new("state.meta"), &meta.encode());
                assert_eq!(again.ok(), Some(meta));
            }
        }
        1 => {
            let bytes = with_check(rest, &(xxh3_64(rest) as u32).to_le_bytes());
            if let Ok(applied) = Applied::decode("any", &bytes) {
                assert_eq!(applied.encode(), bytes);
            }
        }
        2 => {
            if let Ok((state, value)) = split_row("any", rest) {
                assert_eq!(value.len() + 1, rest.len());
                assert!(state.to_bits().is_some(), "a row without a slot");
            }
        }
        _ => {
            if let Ok(text) = std::str::from_utf8(rest) {
                let name = Name::parse(text);
                assert_eq!(name.and_then(|name| Name::parse(&name.text())), name);
            }
        }
    }
}

/// Something of each kind that decodes, to begin with.
pub fn examples() -> Vec<Vec<u8>> {
    let meta = Meta {
        job_id: JobId(7),
        partitions: PartitionCount::new(4).expect("4 is in range"),
        stores: vec![StoreMeta {
            name: "totals".to_owned(),
            key_shape: "str".to_owned(),
            value_shape: "i64".to_owned(),
            changelog: true,
        }],
    };
    let applied = Applied {
        job_id: JobId(7),
        generation: Generation(3),
        epoch: Epoch(700),
        digest: Digest(5),
        recorded: Digest(5),
        entries: 42,
        changelog: 9000,
        shape: 77,
        end: RowState::Live(Slot::One),
    };
    let name =
        Name { epoch: Epoch(9), generation: Generation(2), store: 1, worker: WorkerIndex(0), first: PartitionId(3) };
    let (meta, applied) = (meta.encode(), applied.encode());
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        of(0, &meta[..meta.len() - 8]),
        of(1, &applied[..applied.len() - 4]),
        of(2, b"\x01value"),
        of(3, name.text().as_bytes()),
    ]
}

fn with_check(body: &[u8], check: &[u8]) -> Vec<u8> {
    [body, check].concat()
}
