//! Random operations on a store against a map, with checkpoints, abandoned ones, crashes, and a budget for no entry at all.

mod harness;

use std::collections::BTreeMap;

use harness::{Folder, Random, hash, rows_of, store};
use thalweg_core::{Digest, Epoch, Generation, Lineage, PartitionId, Result};
use thalweg_state::{Backend, Handle, KeyRange, PendingFile, Scope, Store, entry_digest};

type Model = BTreeMap<u64, String>;

/// One random run.
#[derive(Clone, Copy, Debug)]
struct Case {
    seed: u64,
    keys: u64,
    budget: u64,
    changelog: bool,
    ordered: bool,
    steps: u32,
}

/// What has been written of the checkpoint that is undecided.
enum Undecided {
    Encoding,
    Written(Vec<PendingFile>),
}

struct Run {
    case: Case,
    random: Random,
    folder: Folder,
    /// Nothing while the process is dead.
    store: Option<Store<u64, String>>,
    /// The newest values.
    model: Model,
    /// As of the last committed checkpoint.
    committed: Model,
    /// As of the seal.
    sealed: Option<(Epoch, Model, Undecided)>,
    lineage: Lineage,
    generation: Generation,
    epoch: Epoch,
}

fn alive(store: &mut Option<Store<u64, String>>) -> &mut Store<u64, String> {
    store.as_mut().expect("the process lives")
}

impl Run {
    fn new(case: Case) -> Self {
        let folder = Folder::new(8, case.changelog);
        let backend = folder.open().expect("opens");
        Self {
            case,
            random: Random(case.seed | 1),
            store: Some(store(backend, case.budget, case.ordered)),
            folder,
            model: Model::new(),
            committed: Model::new(),
            sealed: None,
            lineage: Lineage::default(),
            generation: Generation(1),
            epoch: Epoch(1),
        }
    }

    fn step(&mut self) -> Result<()> {
        match self.random.below(100) {
            0..50 => self.update()?,
            50..60 => self.read()?,
            60..68 => self.scan()?,
            68..73 => {
                alive(&mut self.store).trim(self.random.below(200) as usize);
            }
            73..85 => self.advance()?,
            85..93 => self.decide()?,
            93..95 => self.abandon()?,
            95..97 => self.crash()?,
            _ => self.epoch = self.epoch.next(),
        }
        Ok(())
    }

    fn some_key(&mut self) -> u64 {
        self.random.below(self.case.keys)
    }

    fn load(&mut self, keys: &[u64]) -> Result<Vec<Handle>> {
        let mut handles = Vec::new();
        alive(&mut self.store).load(keys.iter().map(|key| (hash(key), key)), &mut handles)?;
        assert_eq!(handles.len(), keys.len());
        Ok(handles)
    }

    fn update(&mut self) -> Result<()> {
        self.epoch = self.epoch.next();
        let mut keys: Vec<u64> = (0..self.random.below(40)).map(|_| self.some_key()).collect();
        keys.sort_unstable();
        keys.dedup();
        let handles = self.load(&keys)?;
        for (key, handle) in keys.into_iter().zip(handles) {
            assert_eq!(alive(&mut self.store).value(handle), self.model.get(&key), "key {key}");
            match self.random.below(10) {
                0..3 => {
                    *alive(&mut self.store).value_mut(handle)? = None;
                    self.model.remove(&key);
                }
                // Marked, but as it was.
                3 => {
                    alive(&mut self.store).value_mut(handle)?;
                }
                _ => {
                    let text = "x".repeat(self.random.below(20) as usize) + &self.random.below(5).to_string();
                    *alive(&mut self.store).value_mut(handle)? = Some(text.clone());
                    self.model.insert(key, text);
                }
            }
            alive(&mut self.store).mark(handle, self.epoch);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let key = self.some_key();
        let found = alive(&mut self.store).get(hash(&key), &key)?;
        assert_eq!(found, self.model.get(&key), "key {key}");
        Ok(())
    }

    fn scan(&mut self) -> Result<()> {
        let (from, to) = (self.some_key(), self.some_key());
        let limit = self.random.below(50) as usize;
        let partition = PartitionId(self.random.below(8) as u16);
        let scope = if self.random.below(2) == 0 { Scope::All } else { Scope::One(partition) };
        let range = KeyRange::of(from..to)?;
        let mut found = Vec::new();
        let more = alive(&mut self.store).scan(scope, &range, limit, |_, key, value| {
            found.push((*key, value.clone()));
            Ok(())
        })?;
        let inside = |key: &u64| match scope {
            Scope::All => true,
            Scope::One(partition) => hash(key).partition(self.folder.partitions) == partition,
        };
        let expected: Vec<_> = self
            .model
            .iter()
            .filter(|(key, _)| (from..to).contains(*key) && inside(key))
            .map(|(key, value)| (*key, value.clone()))
            .collect();
        let shown = expected.len().min(limit);
        assert_eq!(found, expected[..shown], "{scope:?} {from}..{to} limit {limit}");
        assert_eq!(more, expected.len() > limit);
        Ok(())
    }

    /// Seals, encodes a slice, or writes.
    fn advance(&mut self) -> Result<()> {
        match &mut self.sealed {
            None => {
                alive(&mut self.store).seal(self.epoch);
                self.sealed = Some((self.epoch, self.model.clone(), Undecided::Encoding));
                self.epoch = self.epoch.next();
            }
            Some((_, _, undecided @ Undecided::Encoding)) => {
                if alive(&mut self.store).encode_sealed(self.random.below(30) as usize)? {
                    let mut sealed = alive(&mut self.store).take_sealed();
                    for partition in self.folder.partitions.all() {
                        sealed.set_changelog_offset(partition, 7);
                    }
                    let file = self.folder.backend().write_sealed(sealed, self.generation)?;
                    *undecided = Undecided::Written(file.into_iter().collect());
                }
            }
            Some((_, _, Undecided::Written(_))) => {}
        }
        Ok(())
    }

    fn decide(&mut self) -> Result<()> {
        let Some((epoch, model, Undecided::Written(files))) = &self.sealed else { return Ok(()) };
        let epoch = *epoch;
        self.lineage.commit(self.generation, epoch);
        self.folder.backend().apply(files.clone())?;
        alive(&mut self.store).committed(epoch);
        self.committed = model.clone();
        self.sealed = None;
        self.check_committed()
    }

    fn abandon(&mut self) -> Result<()> {
        let Some((epoch, _, undecided)) = self.sealed.take() else { return Ok(()) };
        if let Undecided::Written(files) = undecided {
            self.folder.backend().discard(files)?;
        }
        self.lineage.abandon(self.generation, epoch);
        alive(&mut self.store).abandoned(epoch);
        Ok(())
    }

    /// The process dies; a checkpoint that is written may have been committed all the same.
    fn crash(&mut self) -> Result<()> {
        if let Some((epoch, model, Undecided::Written(_))) = self.sealed.take()
            && self.random.below(2) == 0
        {
            self.lineage.commit(self.generation, epoch);
            self.committed = model;
        }
        self.sealed = None;
        self.generation = self.generation.next();
        self.store = None;
        let backend = self.folder.reopen(&self.lineage)?;
        self.store = Some(store(backend, self.case.budget, self.case.ordered));
        self.model = self.committed.clone();
        self.epoch = self.epoch.next();
        self.check_committed()
    }

    /// RocksDB holds the last committed checkpoint, and says so.
    fn check_committed(&mut self) -> Result<()> {
        let backend = self.folder.backend();
        let mut expected = BTreeMap::<PartitionId, (Digest, u64)>::new();
        for (key, value) in &self.committed {
            let mut bytes = Vec::new();
            thalweg_core::encode_key(key, &mut bytes)?;
            let sums = expected.entry(hash(key).partition(self.folder.partitions)).or_default();
            sums.0 += entry_digest(&bytes, &postcard::to_stdvec(value).expect("text"));
            sums.1 += 1;
        }
        for partition in self.folder.partitions.all() {
            let (digest, entries) = expected.get(&partition).copied().unwrap_or_default();
            assert_eq!(alive(&mut self.store).digest(partition)?, digest, "{partition}");
            assert_eq!(alive(&mut self.store).entries(partition)?, entries);
            assert_eq!(backend.scrub("totals", partition, |_| Ok(()))?.unwrap_or_default(), digest);
        }
        let rows: Model = rows_of(&backend.view(), self.folder.partitions)?;
        assert_eq!(rows, self.committed);
        Ok(())
    }
}

fn check(case: Case) {
    println!("{case:?}");
    let mut run = Run::new(case);
    for step in 0..case.steps {
        run.step().unwrap_or_else(|error| panic!("{case:?}, step {step}: {error:?}"));
    }
}

#[test]
fn stores_agree_with_a_map() {
    let case = Case { seed: 0, keys: 300, budget: 0, changelog: false, ordered: false, steps: 1500 };
    for seed in 1..=3 {
        for changelog in [false, true] {
            for ordered in [false, true] {
                check(Case { seed: seed * 7919, changelog, ordered, ..case });
                check(Case { seed: seed * 104_729, changelog, ordered, budget: 20_000, keys: 100, ..case });
            }
        }
    }
}

#[test]
fn a_large_budget_never_reads_what_is_in_memory() {
    for changelog in [false, true] {
        for ordered in [false, true] {
            check(Case { seed: 31, keys: 2000, budget: 1 << 30, changelog, ordered, steps: 600 });
        }
    }
}

/// The backend of a process that died must be gone before the folder is opened again.
#[test]
fn a_folder_has_one_owner() {
    let folder = Folder::new(8, false);
    let backend = folder.open().expect("opens");
    let second = folder.try_open();
    assert_eq!(second.err().expect("locked").code(), "state-locked");
    drop::<std::sync::Arc<Backend>>(backend);
}
