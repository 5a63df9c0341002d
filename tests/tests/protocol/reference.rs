//! What a run without any fault comes to: everything is a function of how the epochs were cut.

use std::collections::BTreeMap;
use std::fmt::Write;

use thalweg_core::{PartitionCount, PartitionId, hash_key};

use crate::world::PARTITIONS;

/// What the bindings of epochs 1, 2, ... were cut to: what is computed in an epoch depends on all before it.
pub(crate) type Cuts = Vec<u64>;

/// The rows of a job partition.
pub(crate) type Rows = BTreeMap<u64, u64>;

/// Keys of each job partition.
const KEYS: usize = 2;

/// How many records a job partition gives a sink in the last epoch of these cuts.
pub(crate) fn count(cuts: &[u64], partition: PartitionId, sink: u16) -> u64 {
    (cuts.iter().sum::<u64>() + u64::from(partition.0)) % (2 + u64::from(sink)) + u64::from(1 - sink)
}

pub(crate) fn partitions() -> PartitionCount {
    PartitionCount::new(PARTITIONS.into()).expect("a count")
}

/// The keys whose rows a job partition holds.
pub(crate) fn keys(partition: PartitionId) -> impl Iterator<Item = u64> {
    let inside = move |key: &u64| hash_key(key, &mut Vec::new()).expect("a key").partition(partitions()) == partition;
    (0..).filter(inside).take(KEYS)
}

/// What the last epoch of these cuts makes of a row: the row as it is, another value after the one it had, or nothing. Rows come, go,
/// stay away for an epoch and come again, some with an update before they go: each step of a changelog follows the one before it.
pub(crate) fn change(cuts: &[u64], key: u64, old: Option<u64>) -> Option<u64> {
    let (cut, updates) = (*cuts.last().expect("an epoch"), 1 + key % 2);
    let step = (cuts.len() as u64 + key) % (updates + 2);
    match step.checked_sub(updates) {
        None => Some(old.unwrap_or(0) % 1_000 * 7 + cut),
        Some(0) => None,
        Some(_) => old,
    }
}

/// The rows of a job partition after these epochs.
pub(crate) fn rows(cuts: &[u64], partition: PartitionId) -> Rows {
    let mut rows = Rows::new();
    for epoch in 1..=cuts.len() {
        for key in keys(partition) {
            match change(&cuts[..epoch], key, rows.get(&key).copied()) {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
    }
    rows
}

/// The value of every record of the last epoch of these cuts: the cuts, and the rows where there is state.
pub(crate) fn value(cuts: &[u64], rows: Option<&Rows>) -> String {
    let mut text = cuts.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    for (key, value) in rows.into_iter().flatten() {
        write!(text, ";{key}={value}").expect("a string grows");
    }
    text
}

/// The cuts in the value of a record.
pub(crate) fn cuts_of(value: &str) -> Cuts {
    let cuts = value.split(';').next().unwrap_or_default();
    cuts.split(',').map(|cut| cut.parse().expect("a cut")).collect()
}
