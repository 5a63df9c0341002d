//! Groups the records of an epoch by key: one pass, one hash table, per-key lists threaded through the buffer.

use hashbrown::HashTable;
use thalweg_core::{KeyHash, Keyed, PartitionCount, PartitionId, Record};

use crate::process::END;

/// The records of one epoch, as they came.
pub(crate) struct EpochBuffer<K, T> {
    records: Vec<Record<Keyed<K, T>>>,
    in_order: bool,
}

impl<K, T> Default for EpochBuffer<K, T> {
    fn default() -> Self {
        Self { records: Vec::new(), in_order: true }
    }
}

impl<K, T> EpochBuffer<K, T> {
    /// Adds a batch.
    pub(crate) fn extend(&mut self, batch: &mut Vec<Record<Keyed<K, T>>>) {
        let mut last = self.records.last().map(|record| record.provenance);
        for record in batch.iter() {
            self.in_order &= last.is_none_or(|last| last < record.provenance);
            last = Some(record.provenance);
        }
        if self.records.is_empty() {
            std::mem::swap(&mut self.records, batch);
        } else {
            self.records.append(batch);
        }
    }

    /// The records in provenance order.
    pub(crate) fn into_ordered(mut self) -> Vec<Record<Keyed<K, T>>> {
        if !self.in_order {
            // Each origin's records came in order, so this merges a few runs.
            self.records.sort_by_key(|record| record.provenance);
        }
        self.records
    }
}

/// The records of one key.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    pub(crate) hash: KeyHash,
    pub(crate) first: u32,
    last: u32,
    pub(crate) count: u32,
}

/// The groups of an epoch; the memory is used again for the next one.
pub(crate) struct Grouping {
    table: HashTable<u32>,
    groups: Vec<Group>,
    next: Vec<u32>,
    order: Vec<u32>,
    starts: Vec<u32>,
}

/// Where the table looks: keys of one worker share `hash mod P` and the table takes the low bits, so others come first.
#[inline]
fn spread(hash: KeyHash) -> u64 {
    hash.0.rotate_left(32)
}

impl Grouping {
    pub(crate) fn new() -> Self {
        Self { table: HashTable::new(), groups: Vec::new(), next: Vec::new(), order: Vec::new(), starts: Vec::new() }
    }

    /// Groups `records` by key, and orders the groups by partition, then by first record.
    pub(crate) fn group<K: Eq, T>(&mut self, records: &[Record<Keyed<K, T>>], partitions: PartitionCount) {
        assert!(records.len() < END as usize, "an epoch holds fewer than 2^32 records on one worker");
        self.table.clear();
        self.groups.clear();
        self.next.clear();
        self.next.resize(records.len(), END);
        for (index, record) in records.iter().enumerate() {
            let (hash, key) = (record.value.hash, &record.value.key);
            let groups = &self.groups;
            let found = self.table.find(spread(hash), |&group| {
                let group = &groups[group as usize];
                group.hash == hash && records[group.first as usize].value.key == *key
            });
            let index = index as u32;
            match found {
                Some(&group) => {
                    let group = &mut self.groups[group as usize];
                    self.next[group.last as usize] = index;
                    group.last = index;
                    group.count += 1;
                }
                None => {
                    let id = self.groups.len() as u32;
                    self.groups.push(Group { hash, first: index, last: index, count: 1 });
                    let groups = &self.groups;
                    self.table.insert_unique(spread(hash), id, |&other| spread(groups[other as usize].hash));
                }
            }
        }
        self.order_by_partition(partitions);
    }

    /// A counting sort, stable: within a partition the groups stay in the order of their first records.
    fn order_by_partition(&mut self, partitions: PartitionCount) {
        let partition = |group: &Group| usize::from(group.hash.partition(partitions).0);
        self.starts.clear();
        self.starts.resize(partitions.get() as usize + 1, 0);
        for group in &self.groups {
            self.starts[partition(group) + 1] += 1;
        }
        for index in 1..self.starts.len() {
            self.starts[index] += self.starts[index - 1];
        }
        self.order.clear();
        self.order.resize(self.groups.len(), 0);
        for (id, group) in self.groups.iter().enumerate() {
            let place = &mut self.starts[partition(group)];
            self.order[*place as usize] = id as u32;
            *place += 1;
        }
    }

    /// The groups, partition by partition.
    pub(crate) fn in_order(&self) -> impl ExactSizeIterator<Item = Group> + '_ {
        self.order.iter().map(|&id| self.groups[id as usize])
    }

    /// The indices of a group's records, in order.
    pub(crate) fn records_of(&self, group: &Group) -> impl Iterator<Item = u32> + '_ {
        let some = |index: u32| (index != END).then_some(index);
        std::iter::successors(some(group.first), move |index| some(self.next[*index as usize]))
    }

    /// For each record the next one of its key, or [`END`].
    pub(crate) fn next(&self) -> &[u32] {
        &self.next
    }
}

/// Runs of equal partitions in a sequence of groups.
pub(crate) fn partition_of(group: &Group, partitions: PartitionCount) -> PartitionId {
    group.hash.partition(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_core::{OriginId, Provenance, hash_key};

    #[test]
    fn groups_come_by_partition_then_by_first_record_and_keep_the_order_of_records() {
        let partitions = PartitionCount::new(4).expect("valid");
        let mut scratch = Vec::new();
        let mut buffer = EpochBuffer::default();
        // Two origins interleave on arrival; provenance puts the first origin's records before the second's.
        for (sequence, origin) in (0..200u64).map(|index| (index / 2, (index % 2) as u16)) {
            let key = (sequence * 7 + u64::from(origin)) % 13;
            let provenance = Provenance::new(OriginId(origin), PartitionId(0), sequence);
            let hash = hash_key(&key, &mut scratch).expect("a number");
            buffer.extend(&mut vec![Record { provenance, value: Keyed { hash, key, value: provenance } }]);
        }
        let records = buffer.into_ordered();
        let mut grouping = Grouping::new();
        grouping.group(&records, partitions);
        let groups: Vec<_> = grouping.in_order().collect();
        assert_eq!(groups.len(), 13);
        let places: Vec<_> = groups.iter().map(|group| (partition_of(group, partitions), group.first)).collect();
        assert!(places.is_sorted(), "{places:?}");
        let mut seen = 0;
        for group in groups {
            let mut index = group.first;
            let mut last = None;
            while index != END {
                let record = &records[index as usize];
                assert_eq!(record.value.key, records[group.first as usize].value.key);
                assert!(last < Some(record.provenance));
                last = Some(record.provenance);
                seen += 1;
                index = grouping.next()[index as usize];
            }
        }
        assert_eq!(seen, 200);
    }
}
