//! What the consumer group of a source is told of a partition.
//!
//! A checkpoint says up to where records are processed. Behind the last of them may be what nobody reads: markers of transactions,
//! and what was aborted. That makes no epoch, and so no checkpoint, but tools would take it for lag. So the reader says what it has
//! gone over, and the group is told of it as soon as all records before it are in a checkpoint.

use super::identity::Identity;

/// One partition.
#[derive(Debug)]
pub(super) struct Told {
    /// Which it is.
    pub(super) identity: Identity,
    /// All records before this offset are in a committed checkpoint.
    committed: Option<u64>,
    /// No record stands between these two offsets.
    free: (u64, u64),
    /// What the group was told last.
    last: Option<u64>,
}

impl Told {
    pub(super) fn new(identity: Identity) -> Self {
        Self { identity, committed: None, free: (0, 0), last: None }
    }

    /// A checkpoint is committed; returns what to tell.
    pub(super) fn committed(&mut self, position: u64) -> u64 {
        self.committed = Some(position);
        let due = self.due(position);
        self.last = Some(due);
        due
    }

    /// There is no record from `from` on up to `to`; returns what to tell, if that is anything new.
    pub(super) fn free(&mut self, from: u64, to: u64) -> Option<u64> {
        self.free = (from, to);
        let due = self.due(self.committed?);
        let new = self.last.is_none_or(|last| due > last);
        new.then(|| *self.last.insert(due))
    }

    fn due(&self, committed: u64) -> u64 {
        let (from, to) = self.free;
        if from <= committed { committed.max(to) } else { committed }
    }
}

#[cfg(test)]
mod tests {
    use thalweg_core::PartitionId;

    use super::*;

    fn told() -> Told {
        let (cluster, id, topic) = ("c".to_owned(), "i".to_owned(), "t".to_owned());
        Told::new(Identity { cluster, id, topic, partition: PartitionId(0) })
    }

    #[test]
    fn what_holds_no_records_is_told_behind_a_checkpoint_of_all_before_it() {
        let mut told = told();
        assert_eq!(told.free(7, 9), None, "no checkpoint yet");
        assert_eq!(told.committed(5), 5, "two records are missing in it");
        assert_eq!(told.free(7, 10), None);
        assert_eq!(told.committed(7), 10);
        assert_eq!(told.free(7, 10), None, "it was told");
        assert_eq!(told.free(7, 12), Some(12));
        assert_eq!(told.free(15, 16), None, "records have come");
        assert_eq!(told.committed(13), 13);
        assert_eq!(told.committed(16), 16);
    }
}
