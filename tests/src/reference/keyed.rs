//! Grouping: partition by partition, the keys of a partition in the order of their first record.

use std::collections::BTreeMap;

use thalweg_core::{Value, encode_key};
use xxhash_rust::xxh3::xxh3_64;

use super::item::Item;
use super::key_of;
use super::order::Stream;
use crate::sketch::KeyOf;

/// The records of one key in one epoch.
pub(super) struct KeyRecords {
    pub(super) encoded: Vec<u8>,
    pub(super) key: Value,
    pub(super) records: Vec<Item>,
}

/// The partition of an encoded key.
pub(super) fn partition_of(encoded: &[u8], partitions: u32) -> u16 {
    (xxh3_64(encoded) % u64::from(partitions)) as u16
}

/// The records by key, in the order in which keyed operators take them.
pub(super) fn by_key(stream: Stream, partitions: u32, key: KeyOf) -> Vec<(u16, Vec<KeyRecords>)> {
    group(stream, partitions, |item| {
        let key = key_of(item, key);
        let mut encoded = Vec::new();
        encode_key(&key, &mut encoded).expect("values are keys");
        (encoded, key)
    })
}

/// The same with any key.
pub(super) fn group(
    mut stream: Stream,
    partitions: u32,
    key_of: impl Fn(&Item) -> (Vec<u8>, Value),
) -> Vec<(u16, Vec<KeyRecords>)> {
    stream.sort_by_key(|(place, _)| *place);
    let mut groups: BTreeMap<u16, Vec<KeyRecords>> = BTreeMap::new();
    let mut known: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (_, item) in stream {
        let (encoded, key) = key_of(&item);
        let of_partition = groups.entry(partition_of(&encoded, partitions)).or_default();
        match known.get(&encoded) {
            Some(index) => of_partition[*index].records.push(item),
            None => {
                known.insert(encoded.clone(), of_partition.len());
                of_partition.push(KeyRecords { encoded, key, records: vec![item] });
            }
        }
    }
    groups.into_iter().collect()
}
