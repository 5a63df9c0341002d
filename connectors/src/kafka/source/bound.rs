//! Where partitions are begun, and where they end.

use std::collections::BTreeMap;

use thalweg_core::{Error, PartitionId, Result};

use crate::log::Start;

/// Where partitions of topics are begun, or end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// All in the same way.
    At(Start),
    /// Each at an offset.
    Offsets {
        /// By topic and partition.
        offsets: BTreeMap<(String, PartitionId), u64>,
        /// For partitions that have none there; without it that is an error.
        other: Option<Start>,
    },
}

impl From<Start> for Bound {
    fn from(start: Start) -> Self {
        Self::At(start)
    }
}

impl Bound {
    /// The offset in a partition that holds `first` to `end`.
    ///
    /// Errors: `kafka-offset` where none is given for it, or one behind its end.
    pub(super) fn resolve(
        &self,
        (topic, partition): (&str, PartitionId),
        (first, end): (u64, u64),
        at_time: impl FnOnce(i64) -> Result<Option<u64>>,
    ) -> Result<u64> {
        let start = match self {
            Self::At(start) => *start,
            Self::Offsets { offsets, other } => match (offsets.get(&(topic.to_owned(), partition)), other) {
                (Some(offset), _) if *offset > end => {
                    let text = format!(
                        "{topic}/{partition}: offset {offset} is behind the end of the partition, which is {end}; name one \
                         up to that"
                    );
                    return Err(Error::user("kafka-offset", text));
                }
                (Some(offset), _) => return Ok(*offset),
                (None, Some(other)) => *other,
                (None, None) => {
                    let text = format!(
                        "{topic}/{partition} has no offset; give it one, or say with other = \"earliest\" or \"latest\" what \
                         holds for partitions without one"
                    );
                    return Err(Error::user("kafka-offset", text));
                }
            },
        };
        Ok(match start {
            Start::Earliest => first,
            Start::Latest => end,
            Start::Time(time) => at_time(time)?.unwrap_or(end),
        })
    }

    /// Whether every partition is there that an offset is given for.
    ///
    /// Errors: `kafka-offset` with one that is not.
    pub(super) fn check_known(&self, known: impl Fn(&str, PartitionId) -> bool) -> Result<()> {
        let Self::Offsets { offsets, .. } = self else { return Ok(()) };
        match offsets.keys().find(|(topic, partition)| !known(topic, *partition)) {
            None => Ok(()),
            Some((topic, partition)) => {
                let text = format!("an offset is given for {topic}/{partition}, and there is no such partition");
                Err(Error::user("kafka-offset", text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_an_offset_of_each_partition() {
        let check = |bound: &Bound, partition: u16, wanted: std::result::Result<u64, &str>| {
            let time = |time| Ok((time == 7).then_some(15));
            let found = bound.resolve(("t", PartitionId(partition)), (10, 20), time);
            assert_eq!(found.as_ref().map_err(Error::code), wanted.as_ref().map_err(|code| *code), "{bound:?}");
        };
        for (start, wanted) in [(Start::Earliest, 10), (Start::Latest, 20), (Start::Time(7), 15), (Start::Time(8), 20)]
        {
            check(&start.into(), 0, Ok(wanted));
        }
        let given =
            BTreeMap::from([12, 20, 21, 3].map(|offset| (("t".to_owned(), PartitionId(offset)), offset.into())));
        let bound = |other| Bound::Offsets { offsets: given.clone(), other };
        for (partition, wanted) in [(12, Ok(12)), (20, Ok(20)), (21, Err("kafka-offset")), (3, Ok(3))] {
            check(&bound(None), partition, wanted);
        }
        check(&bound(None), 1, Err("kafka-offset"));
        check(&bound(Some(Start::Latest)), 1, Ok(20));
        let unknown = bound(None).check_known(|_, partition| partition.0 != 20).expect_err("it is not there");
        assert!(unknown.message().contains("t/20"), "{unknown}");
        assert!(bound(None).check_known(|topic, _| topic == "t").is_ok());
    }
}
