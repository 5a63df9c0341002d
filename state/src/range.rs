//! Ranges of encoded keys.

use std::ops::{Bound, RangeBounds};

use serde::Serialize;
use thalweg_core::{PartitionId, Result, encode_key, prefix_range};

use crate::layout::{ROW, put_prefix};

/// A range of encoded keys.
///
/// ```
/// use thalweg_state::KeyRange;
/// let due = KeyRange::of::<(i64, String), _>(..(100, String::new())).unwrap();
/// let mut key = Vec::new();
/// thalweg_core::encode_key(&(99i64, "x"), &mut key).unwrap();
/// assert!(due.contains(&key));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Where it begins.
    pub from: Bound<Vec<u8>>,
    /// Where it ends.
    pub to: Bound<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    /// From typed keys; the encoding keeps their order.
    pub fn of<K: Serialize, R: RangeBounds<K>>(range: R) -> Result<Self> {
        let encoded = |bound: Bound<&K>| -> Result<Bound<Vec<u8>>> {
            let bytes = |key: &K| {
                let mut out = Vec::new();
                encode_key(key, &mut out).map(|()| out)
            };
            Ok(match bound {
                Bound::Included(key) => Bound::Included(bytes(key)?),
                Bound::Excluded(key) => Bound::Excluded(bytes(key)?),
                Bound::Unbounded => Bound::Unbounded,
            })
        };
        Ok(Self { from: encoded(range.start_bound())?, to: encoded(range.end_bound())? })
    }

    /// Text keys that begin with `prefix`.
    pub fn with_prefix(prefix: &str) -> Result<Self> {
        let (from, to) = prefix_range(prefix)?;
        Ok(Self { from, to })
    }

    /// Whether an encoded key is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        RangeBounds::<[u8]>::contains(&self.bounds(), key)
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        }
    }

    pub(crate) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.from.as_ref().map(Vec::as_slice), self.to.as_ref().map(Vec::as_slice))
    }

    /// The stored keys of a partition: from the first, to before the second.
    pub(crate) fn stored(&self, partition: PartitionId) -> (Vec<u8>, Vec<u8>) {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        put_prefix(&mut low, partition, ROW);
        match &self.from {
            Bound::Unbounded => {}
            Bound::Included(from) => low.extend_from_slice(from),
            // The next longer key is the first after it.
            Bound::Excluded(from) => low.extend(from.iter().chain(&[0])),
        }
        match &self.to {
            Bound::Unbounded => put_prefix(&mut high, partition, ROW + 1),
            Bound::Included(to) => {
                put_prefix(&mut high, partition, ROW);
                high.extend(to.iter().chain(&[0]));
            }
            Bound::Excluded(to) => {
                put_prefix(&mut high, partition, ROW);
                high.extend_from_slice(to);
            }
        }
        (low, high)
    }
}
