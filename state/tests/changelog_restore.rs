//! A store's changelog, cleaned at random and full of checkpoints that were never committed, restores exactly what is
//! committed: read in full, and by a copy that lags and catches up.

mod harness;

use std::collections::{BTreeMap, HashSet};

use harness::{Folder, GENERATION, Random, hash, rows_of, store};
use thalweg_core::{Epoch, Lineage, PartitionId, Result, StoreState};
use thalweg_state::changelog::{Fold, RowState};
use thalweg_state::{RestoreMode, Store};

type Record = (u64, Vec<u8>, Option<Vec<u8>>);

/// One partition's topic: offsets stay when records are cleaned away.
#[derive(Default)]
struct Log {
    records: Vec<Record>,
    end: u64,
}

impl Log {
    fn append(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.records.push((self.end, key, value));
        self.end += 1;
    }

    /// Keeps the last record of each key before `to`; tombstones before `old` go.
    fn clean(&mut self, to: u64, old: u64) {
        let mut later = HashSet::new();
        let mut kept: Vec<Record> = Vec::new();
        for record in std::mem::take(&mut self.records).into_iter().rev() {
            let last = record.0 >= to || !later.contains(&record.1);
            let buried = record.2.is_none() && record.0 < old.min(to);
            if record.0 < to {
                later.insert(record.1.clone());
            }
            if last && !buried {
                kept.push(record);
            }
        }
        kept.reverse();
        self.records = kept;
    }

    fn read_into(&self, mut fold: Fold, from: u64) -> Result<Fold> {
        for (_, key, value) in self.records.iter().filter(|(offset, ..)| *offset >= from) {
            fold.push(key, value.as_deref())?;
        }
        Ok(fold)
    }
}

struct Run {
    random: Random,
    folder: Folder,
    store: Store<u64, String>,
    logs: Vec<Log>,
    model: BTreeMap<u64, String>,
    committed: BTreeMap<u64, String>,
    record: Vec<StoreState>,
    lineage: Lineage,
    epoch: Epoch,
    committed_epoch: Epoch,
    copy: Folder,
}

impl Run {
    fn new(seed: u64) -> Self {
        let (folder, copy) = (Folder::new(4, true), Folder::new(4, true));
        let backend = folder.open().expect("opens");
        copy.open().expect("opens");
        Self {
            random: Random(seed | 1),
            store: store(backend, 1 << 20, false),
            logs: folder.partitions.all().map(|_| Log::default()).collect(),
            folder,
            copy,
            model: BTreeMap::new(),
            committed: BTreeMap::new(),
            record: Vec::new(),
            lineage: Lineage::default(),
            epoch: Epoch(0),
            committed_epoch: Epoch::ZERO,
        }
    }

    fn update(&mut self) -> Result<()> {
        self.epoch = self.epoch.next();
        for _ in 0..self.random.below(12) {
            let key = self.random.below(30);
            let mut handles = Vec::new();
            self.store.load(std::iter::once((hash(&key), &key)), &mut handles)?;
            let value = (self.random.below(3) != 0).then(|| self.random.below(100).to_string());
            self.store.value_mut(handles[0])?.clone_from(&value);
            self.store.mark(handles[0], self.epoch);
            match value {
                Some(value) => self.model.insert(key, value),
                None => self.model.remove(&key),
            };
        }
        Ok(())
    }

    /// A checkpoint whose transaction is committed, whatever becomes of the checkpoint.
    fn checkpoint(&mut self) -> Result<()> {
        self.store.seal(self.epoch);
        let at_seal = self.model.clone();
        let epoch = self.epoch;
        self.update()?;
        while !self.store.encode_sealed(3)? {}
        let mut sealed = self.store.take_sealed();
        let logs = &mut self.logs;
        let mut touched = HashSet::new();
        sealed.changelog(GENERATION, |partition, key, value| {
            logs[partition.0 as usize].append(key, value);
            touched.insert(partition);
            Ok(())
        })?;
        for partition in touched {
            sealed.set_changelog_offset(partition, logs[partition.0 as usize].end);
        }
        let states = sealed.states();
        let files: Vec<_> = self.folder.backend().write_sealed(sealed, GENERATION)?.into_iter().collect();
        if self.random.below(3) == 0 {
            self.folder.backend().discard(files)?;
            self.lineage.abandon(GENERATION, epoch);
            self.store.abandoned(epoch);
            return Ok(());
        }
        self.lineage.commit(GENERATION, epoch);
        self.folder.backend().apply(files)?;
        self.store.committed(epoch);
        self.committed = at_seal;
        self.committed_epoch = epoch;
        self.record = states;
        Ok(())
    }

    fn clean(&mut self) -> Result<()> {
        let copy = self.copy.backend();
        for (partition, log) in self.folder.partitions.all().zip(&mut self.logs) {
            let kept_for_copy = copy.applied("totals", partition)?.map_or(0, |applied| applied.changelog);
            log.clean(self.random.below(log.end + 1), kept_for_copy);
        }
        Ok(())
    }

    /// Into an empty folder.
    fn restore(&self) -> Result<()> {
        let fresh = Folder::new(4, true);
        fresh.open()?;
        self.restore_into(&fresh, RestoreMode::Replace)?;
        // Again, over what is there now.
        self.restore_into(&fresh, RestoreMode::Replace)
    }

    fn restore_into(&self, folder: &Folder, mode: RestoreMode) -> Result<()> {
        let backend = folder.backend();
        for expected in &self.record {
            let log = &self.logs[expected.partition.0 as usize];
            let from = match mode {
                RestoreMode::Replace => 0,
                RestoreMode::CatchUp => {
                    backend.applied("totals", expected.partition)?.map_or(0, |applied| applied.changelog)
                }
            };
            let place = (GENERATION, self.committed_epoch);
            // Some of what is read goes through files.
            let fold = log.read_into(backend.fold("totals", expected.partition, 500)?, from)?;
            backend.restore_fold(fold, &self.lineage, mode, place, expected, log.end)?;
            backend.scrub("totals", expected.partition, |_| Ok(()))?;
        }
        assert_eq!(rows_of(&backend.view(), folder.partitions)?, self.committed, "{mode:?}");
        self.compare_row_states(folder)
    }

    /// Slots and DELETED rows are those of the store that wrote the log.
    fn compare_row_states(&self, folder: &Folder) -> Result<()> {
        for key in 0..30_u64 {
            let mut bytes = Vec::new();
            thalweg_core::encode_key(&key, &mut bytes)?;
            let partition: PartitionId = hash(&key).partition(folder.partitions);
            let state = |folder: &Folder| folder.backend().row_state("totals", partition, &bytes);
            let (restored, wrote) = (state(folder)?, state(&self.folder)?);
            // Tombstones of an abandoned checkpoint count in the log: nothing was left but DELETED.
            let buried = restored == RowState::None && wrote.is_deleted();
            assert!(restored == wrote || buried, "key {key}: {restored:?}, not {wrote:?}");
        }
        Ok(())
    }

    /// The copy takes over: what it does next must be right as well.
    fn take_over(&mut self) -> Result<()> {
        self.restore_into(&self.copy, RestoreMode::CatchUp)?;
        std::mem::swap(&mut self.folder, &mut self.copy);
        self.store = store(self.folder.backend(), 1 << 20, false);
        self.model = self.committed.clone();
        Ok(())
    }
}

fn check(seed: u64) -> Result<()> {
    let mut run = Run::new(seed);
    for _ in 0..150 {
        match run.random.below(12) {
            0..3 => run.update()?,
            3..7 => run.checkpoint()?,
            7..9 => run.clean()?,
            9 => run.restore()?,
            10 => run.restore_into(&run.copy, RestoreMode::CatchUp)?,
            _ => run.take_over()?,
        }
    }
    Ok(())
}

#[test]
fn a_changelog_restores_what_is_committed() {
    for seed in 1..=3 {
        println!("seed {seed}");
        check(seed * 6_700_417).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    }
}

#[test]
fn a_restore_that_disagrees_with_the_record_changes_nothing() -> Result<()> {
    let mut run = Run::new(99);
    while run.committed.is_empty() {
        run.update()?;
        run.checkpoint()?;
    }
    let fresh = Folder::new(4, true);
    fresh.open()?;
    let mut expected = run.record.iter().find(|state| state.entries > 0).expect("entries").clone();
    expected.digest.0 ^= 1;
    let log = &run.logs[expected.partition.0 as usize];
    let place = (GENERATION, run.committed_epoch);
    let fold = log.read_into(Fold::default(), 0)?;
    let outcome = fresh.backend().restore_fold(fold, &run.lineage, RestoreMode::Replace, place, &expected, log.end);
    assert_eq!(outcome.expect_err("another digest").code(), "state-digest");
    assert_eq!(fresh.backend().applied("totals", expected.partition)?, None);
    let left: Vec<_> = std::fs::read_dir(fresh.path().join("pending")).expect("the folder").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}
