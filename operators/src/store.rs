//! The store of an operator on one worker, and how it is read from outside.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

use thalweg_core::{
    Entry, Epoch, Error, Key, KeyHash, PartitionCount, PartitionId, Query, QueryError, QueryReply, QueryResult, Result,
    ScanRange, decode_key, encode_key, hash_key, parse_key, prefix_range,
};
use thalweg_state::{KeyRange, Scope, SealedStore, Store};

use crate::context::{OperatorStore, WorkerContext};
use crate::process::{ProcessError, State};

/// How a value is shown as JSON.
pub(crate) type Show<V> = Arc<dyn Fn(&V) -> Result<String, ProcessError> + Send + Sync>;

/// Entries that are looked at after each epoch, at least, while a store is over its budget.
const TRIMMED_PER_EPOCH: usize = 65_536;

/// Bounds on encoded keys.
pub type KeyBounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Reads the rows of a store without knowing its types; for queries from any thread.
pub trait StoreReader: Send + Sync {
    /// The keys that a text may mean, encoded, with their hashes, most likely first.
    fn keys(&self, text: &str) -> Vec<(KeyHash, Vec<u8>)>;
    /// A key as JSON.
    fn show_key(&self, encoded: &[u8]) -> Result<String>;
    /// A value as JSON, from its committed encoding.
    fn show_value(&self, encoded: &[u8]) -> Result<String>;
}

/// The bounds of a range of keys.
///
/// A text may mean several untyped keys (`5` the number or the text). Then that one is meant of whose kind the store has keys:
/// `has` tells whether any encoded key begins with a byte, which is the kind's tag.
pub fn scan_bounds(
    reader: &dyn StoreReader,
    range: &ScanRange,
    mut has: impl FnMut(u8) -> bool,
) -> std::result::Result<KeyBounds, QueryError> {
    let mut bound = |text: &str| {
        let mut keys: Vec<Vec<u8>> = reader.keys(text).into_iter().map(|(_, key)| key).collect();
        let meant = match keys.len() {
            0 => return Err(QueryError::BadKey(format!("{text:?} is no key of this store"))),
            1 => 0,
            _ => keys.iter().position(|key| key.first().is_some_and(|tag| has(*tag))).unwrap_or(0),
        };
        Ok(keys.swap_remove(meant))
    };
    let (mut low, mut high) = match &range.prefix {
        Some(prefix) => text_prefix(reader, prefix)?,
        None => (Bound::Unbounded, Bound::Unbounded),
    };
    if let Some(from) = &range.from {
        low = Bound::Included(bound(from)?);
    }
    if let Some(to) = &range.to {
        high = Bound::Excluded(bound(to)?);
    }
    if let Some(after) = &range.after {
        low = Bound::Excluded(after.clone());
    }
    Ok((low, high))
}

/// All encoded keys that begin with a byte.
pub fn tag_range(tag: u8) -> KeyRange {
    let to = tag.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded(vec![next]));
    KeyRange { from: Bound::Included(vec![tag]), to }
}

/// The range of a text prefix, in the encoding of this store's keys (a plain text, or a value that is one).
fn text_prefix(reader: &dyn StoreReader, prefix: &str) -> std::result::Result<KeyBounds, QueryError> {
    let failed = |error: Error| QueryError::Failed(error.to_string());
    let (Bound::Included(low), high) = prefix_range(prefix).map_err(failed)? else {
        return Err(QueryError::Failed("a prefix has a lower bound".to_owned()));
    };
    let encoded = reader.keys(prefix).into_iter().map(|(_, key)| key).find(|key| key.ends_with(&low));
    let Some(encoded) = encoded else {
        return Err(QueryError::BadKey(format!("{prefix:?}: only keys that are text have a prefix")));
    };
    // What stands before the text (the tag of an untyped value) stands before both bounds.
    let tag = &encoded[..encoded.len() - low.len()];
    let high = match high {
        Bound::Excluded(high) => Bound::Excluded([tag, &high].concat()),
        Bound::Included(_) | Bound::Unbounded => Bound::Unbounded,
    };
    Ok((Bound::Included(encoded), high))
}

/// [`StoreReader`] of a store's types.
pub(crate) struct TypedReader<K, V> {
    pub(crate) show: Show<V>,
    pub(crate) types: PhantomData<fn() -> (K, V)>,
}

impl<K: Key, V: State> StoreReader for TypedReader<K, V> {
    fn keys(&self, text: &str) -> Vec<(KeyHash, Vec<u8>)> {
        let encoded = parse_key::<K>(text).into_iter().filter_map(|key| {
            let mut encoded = Vec::new();
            let hash = hash_key(&key, &mut encoded).ok()?;
            Some((hash, encoded))
        });
        encoded.collect()
    }

    fn show_key(&self, encoded: &[u8]) -> Result<String> {
        show_key(&decode_key::<K>(encoded)?)
    }

    fn show_value(&self, encoded: &[u8]) -> Result<String> {
        let value: V = postcard::from_bytes(encoded).map_err(|error| {
            Error::external("state-decode", format!("a stored value is not of the expected type: {error}"))
        })?;
        (self.show)(&value).map_err(|error| Error::user("show-state", format!("a value cannot be shown: {error}")))
    }
}

fn show_key<K: Key>(key: &K) -> Result<String> {
    serde_json::to_string(key)
        .map_err(|error| Error::user("show-key", format!("a key cannot be shown as JSON: {error}")))
}

/// A store of one operator on one worker.
pub(crate) struct KeyedStore<K: Key, V: State> {
    id: String,
    pub(crate) store: Store<K, V>,
    reader: TypedReader<K, V>,
    epoch: Epoch,
    minted_at: i64,
    /// The last checkpoint that was sealed, or given up before that.
    sealed_at: Epoch,
    /// Whether it is still to be encoded.
    sealed: bool,
    hosted: BTreeSet<PartitionId>,
    /// Keys that the epoch in hand has loaded.
    pub(crate) loaded: usize,
    partitions: PartitionCount,
}

impl<K: Key, V: State> KeyedStore<K, V> {
    pub(crate) fn new(id: String, store: Store<K, V>, show: Show<V>, context: &WorkerContext) -> Self {
        let epoch = context.gate.processed();
        Self {
            id,
            store,
            reader: TypedReader { show, types: PhantomData },
            epoch,
            minted_at: 0,
            sealed_at: epoch,
            sealed: false,
            hosted: context.hosted().into_iter().collect(),
            loaded: 0,
            partitions: context.partitions,
        }
    }

    /// An epoch is processed.
    pub(crate) fn processed(&mut self, epoch: Epoch, context: &WorkerContext) {
        self.epoch = epoch;
        self.minted_at = context.gate.time_of(epoch);
        // Twice for each key that came, and as much again to catch up: an entry goes at the second look at it.
        self.store.trim(TRIMMED_PER_EPOCH.max(4 * std::mem::take(&mut self.loaded)));
    }

    /// The entry of a key's text. A key that another worker hosts is absent here.
    fn get(&mut self, text: &str) -> std::result::Result<Entry, QueryError> {
        let failed = |error: Error| QueryError::Failed(error.to_string());
        let keys = parse_key::<K>(text);
        if keys.is_empty() {
            return Err(QueryError::BadKey(format!("{text:?} is no key of store {:?}", self.id)));
        }
        let mut absent = None;
        for key in keys {
            let mut encoded = Vec::new();
            let hash = hash_key(&key, &mut encoded).map_err(failed)?;
            let shown = show_key(&key).map_err(failed)?;
            let value = match self.hosted.contains(&hash.partition(self.partitions)) {
                true => self.store.get(hash, &key).map_err(failed)?,
                false => None,
            };
            if let Some(value) = value {
                let value = (self.reader.show)(value).map_err(|error| QueryError::Failed(error.to_string()))?;
                return Ok(Entry { encoded, key: shown, value: Some(value) });
            }
            absent = absent.or(Some(Entry { encoded, key: shown, value: None }));
        }
        Ok(absent.expect("there was a key"))
    }

    /// The answer about one key while an epoch, minted at some time, is processed, of which the partitions before `next` are done.
    /// Nothing where some of the keys that the text may mean are in partitions that are done, and others not.
    pub(crate) fn get_amid(
        &mut self,
        text: &str,
        next: PartitionId,
        (epoch, minted_at): (Epoch, i64),
    ) -> Option<QueryResult> {
        let keys = self.reader.keys(text);
        let done = keys.iter().filter(|(hash, _)| hash.partition(self.partitions) < next).count();
        let (epoch, minted_at) = match done {
            0 => (self.epoch, self.minted_at),
            done if done == keys.len() => (epoch, minted_at),
            _ => return None,
        };
        Some(self.get(text).map(|entry| QueryReply { entries: vec![entry], more: false, epoch, minted_at }))
    }

    fn scan(&mut self, range: &ScanRange) -> std::result::Result<(Vec<Entry>, bool), QueryError> {
        let store = &mut self.store;
        let has = |tag| {
            let mut found = false;
            let visit = |_: &[u8], _: &K, _: &V| {
                found = true;
                Ok(())
            };
            store.scan(Scope::All, &tag_range(tag), 1, visit).is_ok() && found
        };
        let (from, to) = scan_bounds(&self.reader, range, has)?;
        let show = &self.reader.show;
        let mut entries = Vec::new();
        let visit = |encoded: &[u8], key: &K, value: &V| {
            let value = show(value).map_err(|error| Error::user("show-state", error.to_string()))?;
            entries.push(Entry { encoded: encoded.to_vec(), key: show_key(key)?, value: Some(value) });
            Ok(())
        };
        let more = self.store.scan(Scope::All, &KeyRange { from, to }, range.limit, visit);
        let more = more.map_err(|error| QueryError::Failed(error.to_string()))?;
        Ok((entries, more))
    }
}

impl<K: Key, V: State> OperatorStore for KeyedStore<K, V> {
    fn id(&self) -> &str {
        &self.id
    }

    fn seal_if_due(&mut self, checkpoint: Epoch) {
        if checkpoint == self.epoch && self.sealed_at < checkpoint {
            self.store.seal(checkpoint);
            self.sealed_at = checkpoint;
            self.sealed = true;
        }
    }

    fn is_sealed(&self) -> bool {
        self.sealed
    }

    fn encode(&mut self, rows: usize) -> Result<Option<SealedStore>> {
        if !self.store.encode_sealed(rows)? {
            return Ok(None);
        }
        self.sealed = false;
        Ok(Some(self.store.take_sealed()))
    }

    fn committed(&mut self, epoch: Epoch) -> Result<()> {
        self.store.committed(epoch);
        Ok(())
    }

    fn abandoned(&mut self, epoch: Epoch) {
        if self.sealed_at == epoch {
            self.store.abandoned(epoch);
            self.sealed = false;
        } else {
            assert!(self.sealed_at < epoch, "store {:?}: checkpoint {epoch} is of the past", self.id);
            // Its turn has not come, and must not come any more.
            self.sealed_at = epoch;
        }
    }

    fn dirty_bytes(&self) -> u64 {
        self.store.dirty_bytes()
    }

    fn query(&mut self, query: &Query) -> QueryResult {
        let (entries, more) = match query {
            Query::Get { key } => (vec![self.get(key)?], false),
            Query::GetMany { keys } => {
                (keys.iter().map(|key| self.get(key)).collect::<std::result::Result<_, _>>()?, false)
            }
            Query::Scan(range) => self.scan(range)?,
        };
        Ok(QueryReply { entries, more, epoch: self.epoch, minted_at: self.minted_at })
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// Encodes a key once more; for callers that have only the key.
pub(crate) fn encoded<K: Key>(key: &K) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    encode_key(key, &mut out)?;
    Ok(out)
}
