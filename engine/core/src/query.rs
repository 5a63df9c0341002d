//! Questions about the state of a job, as messages: HTTP asks, the owner of the partition answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Epoch;

/// Which state to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// The newest processed epoch; its binding is durable.
    #[default]
    Latest,
    /// The last committed checkpoint; never waits for a worker.
    Committed,
}

/// How fresh an answer has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Which state.
    pub at: At,
    /// Wait until this epoch is in the answer.
    pub min_epoch: Option<Epoch>,
    /// Refuse an answer that is older.
    pub max_staleness: Option<Duration>,
}

/// A range of keys, in key order over all partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanRange {
    /// The first key, as text.
    pub from: Option<String>,
    /// The key before which to stop, as text.
    pub to: Option<String>,
    /// Only keys that begin with this text.
    pub prefix: Option<String>,
    /// The encoded key after which to go on.
    pub after: Option<Vec<u8>>,
    /// At most so many entries.
    pub limit: usize,
}

/// A question to one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// One key.
    Get {
        /// As text, see [`crate::parse_key`].
        key: String,
    },
    /// Several keys at one epoch.
    GetMany {
        /// As text.
        keys: Vec<String>,
    },
    /// A range.
    Scan(ScanRange),
}

/// One entry, as JSON texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The encoded key: its order is the order of keys.
    pub encoded: Vec<u8>,
    /// The key as JSON.
    pub key: String,
    /// The value as JSON; nothing where the key is absent.
    pub value: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryReply {
    /// What was found; for `Get` and `GetMany` one entry for each key that was asked for.
    pub entries: Vec<Entry>,
    /// Whether a scan stopped at its limit.
    pub more: bool,
    /// The epoch that all entries are of.
    pub epoch: Epoch,
    /// Microseconds since 1970 of that epoch's binding.
    pub minted_at: i64,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// The job has no such store, or it may not be queried.
    NoSuchStore(String),
    /// The key's text is not of the store's key type.
    BadKey(String),
    /// It cannot be told now: restoring, overloaded, or not fresh enough yet.
    Unavailable(String),
    /// Reading failed.
    Failed(String),
}

/// The outcome of a question.
pub type QueryResult = std::result::Result<QueryReply, QueryError>;
