//! The typed overlay of one store on one worker thread.

mod load;
mod ordered;
mod scan;
mod seal;
mod trim;

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use thalweg_core::{Digest, Epoch, Error, Key, KeyHash, PartitionCount, PartitionId, Result, WorkerIndex};
use xxhash_rust::xxh3::xxh3_64;

use crate::changelog::RowState;
use crate::codec::encode_value;
use crate::entry::{Entry, Slab};
use crate::index::{Index, Mixed};
use crate::layout::PREFIX;
use crate::{Backend, layout};
use ordered::Ordered;
use seal::{Sealing, Spare};

/// Never the round of an entry.
const NO_ROUND: u32 = u32::MAX;

/// Every so many changes the size of a changed value is measured anew: a value that grows is changed often.
const MEASURE_EVERY: u32 = 256;

/// The size that a new entry is taken to have before the first was measured, in bytes.
const FIRST_SIZE: u64 = 16;

/// Encoded entries over which their size is averaged.
const AVERAGE_OF: u64 = 64;

/// How a [`Store`] is set up.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The operator id; one of those that the backend was opened with.
    pub name: String,
    /// The worker.
    pub worker: WorkerIndex,
    /// The partitions that it hosts.
    pub hosted: Vec<PartitionId>,
    /// Bytes that entries may take before clean ones leave.
    pub budget_bytes: u64,
    /// Keep all keys in order in memory, from the start on, as long as the budget allows: for stores that are scanned all
    /// the time, such as timers. Without it an order of the changed keys is made at the first scan.
    pub ordered: bool,
    /// Where the part of an encoded key begins that is hashed: 0 for the whole key, more behind a prefix that is there for the
    /// order only, such as the time of a timer. The hash decides the partition.
    pub hashed_from: usize,
}

/// An entry that [`Store::load`] found or made. Valid until the next [`Store::trim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(u32);

/// Which partitions a scan covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that the worker hosts, in one order of keys.
    All,
    /// One.
    One(PartitionId),
}

struct Hosted {
    id: PartitionId,
    digest: Digest,
    entries: u64,
    end: RowState,
    /// Every row of the partition is in the overlay: what is not there is nowhere.
    complete: bool,
}

/// The newest state of one store's partitions on one worker: typed values by typed keys, over RocksDB.
///
/// An update of a key that is here costs one look into the index. It is encoded once per checkpoint.
///
/// ```
/// use std::sync::Arc;
/// use thalweg_core::{Epoch, Generation, JobId, PartitionCount, WorkerIndex, hash_key};
/// use thalweg_state::{Backend, BackendOptions, Store, StoreOptions, StoreSpec};
/// # fn main() -> thalweg_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let spec = StoreSpec { name: "totals".into(), key_shape: "String".into(), value_shape: "u64".into(), changelog: false, migrate: None };
/// let partitions = PartitionCount::new(4)?;
/// let backend = Arc::new(Backend::open(dir.path(), JobId(1), partitions, vec![spec], BackendOptions::default())?);
/// let mut totals = Store::<String, u64>::open(backend.clone(), StoreOptions {
///     name: "totals".into(),
///     worker: WorkerIndex(0),
///     hosted: partitions.all().collect(),
///     budget_bytes: 1 << 20,
///     ordered: false,
///     hashed_from: 0,
/// })?;
///
/// // Epoch 1: one load for all distinct keys, then one change per key.
/// let keys = ["paris".to_string(), "rome".to_string()];
/// let mut scratch = Vec::new();
/// let hashes = keys.iter().map(|key| hash_key(key, &mut scratch)).collect::<Result<Vec<_>, _>>()?;
/// let mut handles = Vec::new();
/// totals.load(hashes.iter().copied().zip(&keys), &mut handles)?;
/// for handle in handles {
///     *totals.value_mut(handle)?.get_or_insert(0) += 1;
///     totals.mark(handle, Epoch(1));
/// }
///
/// // Checkpoint 1.
/// totals.seal(Epoch(1));
/// while !totals.encode_sealed(20_000)? {}
/// let file = backend.write_sealed(totals.take_sealed(), Generation(1))?;
/// backend.apply(file.into_iter().collect())?;   // once it is committed
/// totals.committed(Epoch(1));
/// assert_eq!(totals.get(hashes[0], &keys[0])?, Some(&1));
/// # Ok(())
/// # }
/// ```
pub struct Store<K, V> {
    backend: Arc<Backend>,
    store: usize,
    name: String,
    worker: WorkerIndex,
    changelog: bool,
    partitions: PartitionCount,
    hosted: Vec<Hosted>,
    /// From partition to place in `hosted`, [`NOT_HOSTED`] elsewhere.
    local: Vec<u16>,
    index: Index,
    slab: Slab<K, V>,
    /// The round of the changes that are made now; a seal begins the next.
    round: u32,
    /// The round that is sealed and undecided.
    sealed_round: u32,
    sealing: Option<Sealing>,
    spare: Spare,
    /// The last epoch that was sealed or is in RocksDB: changes come after it.
    sealed_epoch: Epoch,
    changed: Vec<u32>,
    /// DELETED rows, for the next checkpoint to erase. They do not leave the overlay.
    graves: Vec<u32>,
    ordered: Option<Ordered>,
    /// Encoded bytes of all entries, as far as they are known.
    value_bytes: u64,
    changed_bytes: u64,
    budget_bytes: u64,
    hashed_from: usize,
    /// Sum of about the last [`AVERAGE_OF`] sizes.
    average_sum: u64,
    until_measure: u32,
    hand: u32,
    scratch: Vec<u8>,
}

const NOT_HOSTED: u16 = u16::MAX;

impl<K: Key, V: Serialize + DeserializeOwned + 'static> Store<K, V> {
    /// Opens a store over what is applied in the backend.
    ///
    /// Errors: those of reading; `state-shape` where an interrupted migration has left rows of another shape.
    pub fn open(backend: Arc<Backend>, options: StoreOptions) -> Result<Self> {
        let index = backend.store_index(&options.name)?;
        let meta = &backend.meta().stores[index];
        let (changelog, shape) = (meta.changelog, meta.shape());
        let partitions = backend.partitions();
        let mut ids = options.hosted;
        ids.sort_unstable();
        ids.dedup();
        let mut local = vec![NOT_HOSTED; partitions.get() as usize];
        let mut hosted = Vec::with_capacity(ids.len());
        let mut sealed_epoch = Epoch::ZERO;
        for id in ids {
            let place = local.get_mut(id.0 as usize).ok_or_else(|| not_hosted(&options.name, id))?;
            *place = u16::try_from(hosted.len()).ok().filter(|place| *place != NOT_HOSTED).ok_or_else(|| {
                Error::user("partitions", "one worker can host 65,535 partitions at most; use more workers")
            })?;
            let applied = backend.applied(&options.name, id)?;
            if applied.is_some_and(|applied| applied.shape != shape) {
                return Err(Error::user(
                    "state-shape",
                    format!(
                        "store {:?}: a migration to another shape was interrupted; run the version that began it",
                        options.name
                    ),
                ));
            }
            sealed_epoch = sealed_epoch.max(applied.map_or(Epoch::ZERO, |applied| applied.epoch));
            hosted.push(Hosted {
                id,
                digest: applied.map_or_else(Digest::default, |applied| applied.digest),
                entries: applied.map_or(0, |applied| applied.entries),
                end: applied.map_or(RowState::None, |applied| applied.end),
                complete: applied.is_none_or(|applied| applied.entries == 0),
            });
        }
        let mut store = Self {
            backend,
            store: index,
            name: options.name,
            worker: options.worker,
            changelog,
            partitions,
            hosted,
            local,
            index: Index::new(),
            slab: Slab::new(),
            round: 1,
            sealed_round: NO_ROUND,
            sealing: None,
            spare: Spare::default(),
            sealed_epoch,
            changed: Vec::new(),
            graves: Vec::new(),
            ordered: None,
            value_bytes: 0,
            changed_bytes: 0,
            budget_bytes: options.budget_bytes,
            hashed_from: options.hashed_from,
            average_sum: FIRST_SIZE * AVERAGE_OF,
            until_measure: MEASURE_EVERY,
            hand: 0,
            scratch: Vec::new(),
        };
        store.load_graves()?;
        if options.ordered {
            store.ordered = Some(Ordered::of_all(store.hosted.len()));
            store.preload()?;
        }
        Ok(store)
    }

    /// The operator id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The newest value, without leave to change it.
    #[inline]
    pub fn value(&self, handle: Handle) -> Option<&V> {
        self.slab.get(handle.0).value.as_ref()
    }

    /// The key of an entry.
    #[inline]
    pub fn key(&self, handle: Handle) -> &K {
        &self.slab.get(handle.0).key
    }

    /// The newest value, to be changed; nothing is an absent key, and setting it to nothing deletes the key. Whoever may have
    /// changed it calls [`Store::mark`] before anything else of the store.
    ///
    /// An entry that is sealed and not yet encoded is encoded first, so that the checkpoint gets what it should.
    ///
    /// Errors: encoding, see [`Store::encode_sealed`].
    #[inline]
    pub fn value_mut(&mut self, handle: Handle) -> Result<&mut Option<V>> {
        if self.slab.get(handle.0).round == self.sealed_round {
            self.encode_place(handle.0)?;
        }
        Ok(&mut self.slab.get_mut(handle.0).value)
    }

    /// Says that the value may have changed at `epoch`.
    ///
    /// Panics if the epoch is sealed already: its checkpoint would miss the change.
    #[inline]
    pub fn mark(&mut self, handle: Handle, epoch: Epoch) {
        assert!(epoch > self.sealed_epoch, "store {:?}: a change at epoch {epoch} after the seal", self.name);
        let entry = self.slab.get_mut(handle.0);
        if entry.round != self.round {
            assert!(entry.round != self.sealed_round, "value_mut comes before mark");
            entry.round = self.round;
            if entry.size == 0 {
                entry.size = u32::try_from(self.average_sum / AVERAGE_OF).unwrap_or(u32::MAX).max(1);
                self.value_bytes += u64::from(entry.size);
            }
            self.changed_bytes += u64::from(entry.size);
            self.changed.push(handle.0);
        }
        self.until_measure -= 1;
        if self.until_measure == 0 {
            self.measure(handle.0);
        }
        if self.ordered.is_some() {
            self.order(handle.0);
        }
    }

    #[cold]
    fn measure(&mut self, place: u32) {
        self.until_measure = MEASURE_EVERY;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let entry = self.slab.get_mut(place);
        let encoded = entry.value.as_ref().map_or(Ok(()), |value| encode_value(&self.name, value, &mut scratch));
        // A value that cannot be encoded is reported at the checkpoint.
        if encoded.is_ok() {
            let size = u32::try_from(scratch.len()).unwrap_or(u32::MAX).max(1);
            self.value_bytes = self.value_bytes + u64::from(size) - u64::from(entry.size);
            self.changed_bytes = (self.changed_bytes + u64::from(size)).saturating_sub(u64::from(entry.size));
            entry.size = size;
        }
        self.scratch = scratch;
    }

    /// The newest value of one key, for a query.
    pub fn get(&mut self, hash: KeyHash, key: &K) -> Result<Option<&V>> {
        let mut handles = Vec::with_capacity(1);
        self.load(std::iter::once((hash, key)), &mut handles)?;
        Ok(self.value(handles[0]))
    }

    /// The digest of a partition at the last committed checkpoint.
    pub fn digest(&self, partition: PartitionId) -> Result<Digest> {
        self.place_of(partition).map(|place| self.hosted[place].digest)
    }

    /// How many entries a partition had at the last committed checkpoint.
    pub fn entries(&self, partition: PartitionId) -> Result<u64> {
        self.place_of(partition).map(|place| self.hosted[place].entries)
    }

    /// Entries in the overlay, clean and changed.
    pub fn cached_entries(&self) -> usize {
        self.slab.len()
    }

    /// Memory of the overlay, estimated: heap data of values is taken to be as large as its encoding.
    pub fn bytes(&self) -> u64 {
        let entries = self.slab.places() as u64 * size_of::<Option<Entry<K, V>>>() as u64;
        entries + self.value_bytes + self.index.bytes() + self.ordered.as_ref().map_or(0, Ordered::bytes)
    }

    /// Memory of what no committed checkpoint holds, which no budget can make leave: for the soft and the hard cap.
    pub fn dirty_bytes(&self) -> u64 {
        let sealed = self.sealing.as_ref().map_or((0, 0), |sealing| (sealing.changes(), sealing.bytes()));
        let entries = (self.changed.len() + sealed.0) as u64;
        entries * size_of::<Option<Entry<K, V>>>() as u64 + self.changed_bytes + sealed.1
    }

    /// Keys that changed since the last seal.
    pub fn changed_keys(&self) -> usize {
        self.changed.len()
    }

    /// The hash of an encoded key.
    fn hash_of(&self, encoded: &[u8]) -> KeyHash {
        KeyHash(xxh3_64(&encoded[self.hashed_from.min(encoded.len())..]))
    }

    fn place_of(&self, partition: PartitionId) -> Result<usize> {
        match self.local.get(partition.0 as usize) {
            Some(place) if *place != NOT_HOSTED => Ok(usize::from(*place)),
            _ => Err(not_hosted(&self.name, partition)),
        }
    }

    fn hosted_of(&self, hash: KeyHash) -> Result<usize> {
        self.place_of(hash.partition(self.partitions))
    }

    fn find(&self, hash: KeyHash, key: &K) -> Option<u32> {
        self.index.find(Mixed::of(hash.0), |place| {
            let entry = self.slab.get(place);
            entry.hash == hash && entry.key == *key
        })
    }
}

fn not_hosted(store: &str, partition: PartitionId) -> Error {
    Error::internal("state-not-hosted", format!("store {store:?}: partition {partition} is not hosted by this worker"))
}

/// The stored key of a row.
fn stored_key<K: Key>(partition: PartitionId, key: &K, out: &mut Vec<u8>) -> Result<()> {
    layout::put_prefix(out, partition, layout::ROW);
    thalweg_core::encode_key(key, out)
}

/// The encoded key in a stored one.
fn encoded(stored: &[u8]) -> &[u8] {
    &stored[PREFIX..]
}
