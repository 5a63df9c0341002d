//! Records of the engine's own topics, and keys.

use thalweg_connectors::log::Position;
use thalweg_coordinator::Entry;
use thalweg_core::{
    Epoch, Generation, JobId, PartitionId, PartitionSpec, SourceKey, decode_key, encode_key, parse_key,
};
use thalweg_runtime::decode_binding;

pub(crate) fn position(bytes: &[u8]) {
    if let Some(position) = Position::decode(bytes) {
        assert_eq!(Position::decode(&position.encode()), Some(position));
    }
}

pub(crate) fn positions() -> Vec<Vec<u8>> {
    let position =
        Position { job: JobId(7), sink: 300, partition: PartitionId(3), epoch: Epoch(u64::MAX), sequence: 128 };
    vec![position.encode()]
}

pub(crate) fn binding(bytes: &[u8]) {
    let _ = decode_binding(bytes);
}

pub(crate) fn bindings() -> Vec<Vec<u8>> {
    vec![vec![1, 3, 1, 2, 1, 0, 0, 9, 5, 1, 2, 3, 4, 5, 6, 7, 8]]
}

/// The bytes are given their checksum.
pub(crate) fn history_entry(bytes: &[u8]) {
    let bytes = [bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat();
    if let Ok(entry) = Entry::decode(&bytes) {
        assert_eq!(Entry::decode(&entry.encode()).expect("what was encoded"), entry);
    }
}

pub(crate) fn history_entries() -> Vec<Vec<u8>> {
    let of = SourceKey { source: 1, partition: PartitionId(3) };
    let (name, identity) = ("orders/2".to_owned(), "cluster/topic/orders/2".to_owned());
    let partition = PartitionSpec { of, name, identity, start: 7, end: None };
    let entries = [
        Entry::GenerationStarted { generation: Generation(300), tasks: 2 },
        Entry::PlanCommitted { generation: Generation(7), last_binding: Epoch(300), fingerprint: u64::MAX },
        Entry::CheckpointAbandoned { generation: Generation(3), epoch: Epoch(70) },
        Entry::SourcesAdded { generation: Generation(3), sources: vec![partition] },
    ];
    let encode = |entry: Entry| {
        let mut bytes = entry.encode();
        bytes.truncate(bytes.len() - 4);
        bytes
    };
    entries.into_iter().map(encode).collect()
}

/// What decodes encodes to a key that decodes to the same.
pub(crate) fn key(bytes: &[u8]) {
    fn check<K>(bytes: &[u8], same: fn(&K, &K) -> bool)
    where
        K: serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
    {
        if let Ok(key) = decode_key::<K>(bytes) {
            let again = decode_key::<K>(&encoded(&key)).expect("what was encoded");
            assert!(same(&again, &key), "{again:?} is not {key:?}");
        }
    }
    check::<String>(bytes, String::eq);
    check::<i64>(bytes, i64::eq);
    check::<(String, u64)>(bytes, PartialEq::eq);
    check::<(Option<i32>, String, bool)>(bytes, PartialEq::eq);
    check::<Vec<String>>(bytes, PartialEq::eq);
    // Zero, and what is not a number, have one form in keys and several in memory.
    check::<thalweg_core::Value>(bytes, |a, b| encoded(a) == encoded(b));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = parse_key::<(String, i64)>(text);
        let _ = parse_key::<String>(text);
        let _ = parse_key::<u64>(text);
    }
}

fn encoded<K: serde::Serialize>(key: &K) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(key, &mut bytes).expect("a key");
    bytes
}

pub(crate) fn keys() -> Vec<Vec<u8>> {
    vec![
        encoded(&"paris"),
        encoded(&-7i64),
        encoded(&("a\0b", 7u64)),
        encoded(&(Some(3i32), "x", true)),
        encoded(&vec!["a", "b"]),
        b"[\"paris\", 7]".to_vec(),
    ]
}
