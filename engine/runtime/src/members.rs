//! Which source partitions a binding names: those of the job, each from its first epoch on.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_core::{Epoch, PartitionSpec};
use thalweg_operators::Recorded;

/// How many source partitions there are, by the epoch from which on there are so many.
pub(crate) struct Members {
    from: BTreeMap<Epoch, usize>,
    /// The epochs with which some have come while the task ran.
    joined: BTreeSet<Epoch>,
}

impl Members {
    /// The partitions at the start of a task: what is recorded may name the later ones of them from some epoch on.
    pub(crate) fn new(sources: &[PartitionSpec], recorded: &Recorded) -> Self {
        let mut joining: BTreeMap<Epoch, usize> = BTreeMap::new();
        sources.iter().for_each(|spec| *joining.entry(recorded.first_of(spec.of)).or_default() += 1);
        let mut all = 0;
        let from = joining.into_iter().map(|(epoch, joining)| {
            all += joining;
            (epoch, all)
        });
        Self { from: from.collect(), joined: BTreeSet::new() }
    }

    /// How many partitions give a share of an epoch.
    pub(crate) fn at(&self, epoch: Epoch) -> usize {
        self.from.range(..=epoch).next_back().map_or(0, |(_, all)| *all)
    }

    /// All of them.
    pub(crate) fn all(&self) -> usize {
        self.at(Epoch(u64::MAX))
    }

    /// More are there from an epoch on, which is not before the last one at which some were added.
    pub(crate) fn add(&mut self, first: Epoch, more: &[PartitionSpec]) {
        let all = self.all() + more.len();
        let last = self.from.insert(first, all);
        self.joined.insert(first);
        assert!(last.is_none_or(|last| last <= all) && self.all() == all, "epochs of additions grow");
    }

    /// Whether some have come with this epoch, while the task ran.
    pub(crate) fn joined_at(&self, epoch: Epoch) -> bool {
        self.joined.contains(&epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg_core::{Binding, ContentHash, Generation, PartitionId, Share, SourceKey};

    fn of(partition: u16) -> SourceKey {
        SourceKey { source: 0, partition: PartitionId(partition) }
    }

    fn spec(partition: u16) -> PartitionSpec {
        PartitionSpec { of: of(partition), name: String::new(), identity: String::new(), start: 0, end: None }
    }

    #[test]
    fn partitions_are_counted_from_their_first_epoch_on() {
        let binding = |epoch, partitions: u16| {
            let share = |partition| Share { of: of(partition), next: 0, count: 0, hash: ContentHash::default() };
            let shares = (0..partitions).map(share).collect();
            Binding { epoch: Epoch(epoch), generation: Generation(1), minted_at: 0, shares }
        };
        let recorded = Recorded::new(Epoch(5), vec![binding(5, 1), binding(6, 2), binding(7, 2)]);
        let sources: Vec<_> = (0..3).map(spec).collect();
        let mut members = Members::new(&sources, &recorded);
        members.add(Epoch(9), &[spec(3)]);
        members.add(Epoch(9), &[spec(4)]);
        let counts: Vec<usize> = (4..11).map(|epoch| members.at(Epoch(epoch))).collect();
        assert_eq!(counts, [0, 1, 2, 2, 3, 5, 5]);
        let joined: Vec<u64> = (4..11).filter(|epoch| members.joined_at(Epoch(*epoch))).collect();
        assert_eq!((joined, members.all()), (vec![9], 5));
    }
}
