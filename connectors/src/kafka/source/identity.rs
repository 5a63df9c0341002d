//! What makes a partition the same one later.

use std::fmt;

use thalweg_core::{Error, PartitionId, Result};

/// Cluster, topic and partition: `CLUSTER-ID/TOPIC-ID/TOPIC/PARTITION`. None of the ids has a slash, and no topic's name may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster: String,
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) partition: PartitionId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.cluster, self.id, self.topic, self.partition.0)
    }
}

impl Identity {
    /// Reads what `to_string` has written.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let parsed = match parts[..] {
            [cluster, id, topic, partition] => partition.parse().ok().map(|partition| Self {
                cluster: cluster.to_owned(),
                id: id.to_owned(),
                topic: topic.to_owned(),
                partition: PartitionId(partition),
            }),
            _ => None,
        };
        parsed.ok_or_else(|| {
            let text = format!(
                "{text:?} is no partition of Kafka; the source has read something else before: give it another id"
            );
            Error::user("source-changed", text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let identity = Identity {
            cluster: "MkU3OEVBNTcwNTJENDM2Qg".to_owned(),
            id: "z-_1".to_owned(),
            topic: "orders.eu_1-x".to_owned(),
            partition: PartitionId(12),
        };
        assert_eq!(Identity::parse(&identity.to_string()).expect("its own text"), identity);
        for text in ["", "a/b/c", "a/b/c/x", "a/b/c/65536", "a/b/c/1/2"] {
            assert_eq!(Identity::parse(text).expect_err(text).code(), "source-changed");
        }
    }
}
