//! What travels on an edge.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{KeyHash, Provenance};

/// What may travel on an edge: plain owned data with serde (the edge may lead to another process).
pub trait Data: Clone + Send + Serialize + DeserializeOwned + 'static {}
impl<T: Clone + Send + Serialize + DeserializeOwned + 'static> Data for T {}

/// A record and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record<T> {
    /// Its place in the order of the epoch.
    pub provenance: Provenance,
    /// The user's own type.
    pub value: T,
}

/// A record with its key; the hash of the encoded key is computed once and travels along.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keyed<K, T> {
    /// Hash of the encoded key; decides partition and group.
    pub hash: KeyHash,
    /// The key.
    pub key: K,
    /// The rest.
    pub value: T,
}
