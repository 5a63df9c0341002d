//! Long random runs of the changelog with real numbers: generations, epochs used again by the next generation, the lineage as
//! it is stored, folds that go on while the log changes. `changelog_exploration` is exhaustive but keeps only whether a record
//! is committed; here the numbers have to say it.
//!
//! A failure prints its seed; `THALWEG_SEED=n cargo test --release -p thalweg-state --test changelog_walks` repeats it.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_core::{Digest, Epoch, Generation, Lineage};
use thalweg_state::changelog::{
    Change, ChangelogKey, ChangelogValue, EndRecord, Fold, Outcome, RecordBody, RowState, WritePlan, decide_write,
};

type Rows = BTreeMap<u8, (RowState, u8)>;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[derive(Clone)]
struct Stored {
    offset: u64,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    /// Of a tombstone: a cleaning has seen it; its retention has passed since.
    cleaned: bool,
    expired: bool,
}

/// Rows of a past checkpoint with the slot of its end, and what was read since.
#[derive(Clone)]
struct Reader {
    rows: Rows,
    end: RowState,
    next: u64,
    read: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

struct Walk {
    random: Random,
    log: Vec<Stored>,
    next_offset: u64,
    generation: Generation,
    committed: Epoch,
    decided: Epoch,
    lineage: Lineage,
    rows: Rows,
    end: RowState,
    readers: Vec<Reader>,
    /// The retention has passed since C was written: its rows may not be kept to catch up from.
    aged: bool,
    after_c: u64,
}

impl Walk {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            log: Vec::new(),
            next_offset: 0,
            generation: Generation(1),
            committed: Epoch::ZERO,
            decided: Epoch::ZERO,
            lineage: Lineage::default(),
            rows: Rows::new(),
            end: RowState::None,
            readers: Vec::new(),
            aged: false,
            after_c: 0,
        }
    }

    fn append(&mut self, key: ChangelogKey<'_>, epoch: Epoch, body: Option<RecordBody<'_>>) {
        let mut bytes = Vec::new();
        key.encode(&mut bytes);
        let value = body.map(|body| {
            let mut value = Vec::new();
            ChangelogValue { generation: self.generation, checkpoint: epoch, body }.encode(&bytes, &mut value);
            value
        });
        self.log.push(Stored { offset: self.next_offset, key: bytes, value, cleaned: false, expired: false });
        self.next_offset += 1;
    }

    fn append_row(&mut self, key: u8, value: u8, plan: WritePlan, epoch: Epoch) {
        let (name, content) = ([key], [value]);
        let row = |slot| ChangelogKey::Row { key: &name, slot };
        match plan {
            WritePlan::Nothing(_) => {}
            WritePlan::Version(slot) => self.append(row(slot), epoch, Some(RecordBody::Version(&content))),
            WritePlan::Deleted(slot) => self.append(row(slot), epoch, Some(RecordBody::Deleted)),
            WritePlan::Tombstones { older, deleted } => {
                self.append(row(older), epoch, None);
                self.append(row(deleted), epoch, None);
            }
        }
    }

    /// A checkpoint with random changes, lost or written, then committed, abandoned, or never decided: a crash.
    fn checkpoint(&mut self) {
        let epoch = Epoch(self.decided.0 + 1 + self.random.below(3));
        let lost = self.random.below(8) == 0;
        let mut after = self.rows.clone();
        for key in 0..6 {
            let (row, value) = self.rows.get(&key).copied().unwrap_or_default();
            let (change, new) = match self.random.below(5) {
                0 => (Change::Delete, 0),
                1 | 2 => (Change::Put, 1 + self.random.below(200) as u8),
                _ => (Change::Untouched, value),
            };
            let plan = decide_write(row, change);
            if !lost {
                self.append_row(key, new, plan, epoch);
            }
            match plan.committed() {
                RowState::None => drop(after.remove(&key)),
                row => drop(after.insert(key, (row, if row.is_deleted() { 0 } else { new }))),
            }
        }
        let end_plan = decide_write(self.end, Change::Put);
        let end_row = end_plan.committed();
        if let (Some(slot), false) = (end_row.slot(), lost) {
            let end = EndRecord { entries: live(&after).count() as u64, digest: Digest(u128::from(epoch.0)) };
            self.append(ChangelogKey::End { slot }, epoch, Some(RecordBody::End(end)));
        }
        match self.random.below(6) {
            0 => self.crash(),
            1 | 2 => {
                self.lineage.abandon(self.generation, epoch);
                self.decided = epoch;
            }
            _ if lost => self.crash(),
            _ => {
                self.lineage.commit(self.generation, epoch);
                (self.decided, self.committed) = (epoch, epoch);
                (self.rows, self.end) = (after, end_row);
                (self.aged, self.after_c) = (false, self.next_offset);
            }
        }
    }

    /// The next generation restores, from the log or from a reader, and counts epochs from C again.
    fn crash(&mut self) {
        self.generation = self.generation.next();
        self.decided = self.committed;
        let restored = match self.readers.pop() {
            Some(reader) if self.random.below(2) == 0 => self.finish(reader),
            Some(_) | None => self.finish(Reader { rows: Rows::new(), end: RowState::None, next: 0, read: Vec::new() }),
        };
        (self.rows, self.end) = restored;
    }

    fn keep_rows(&mut self) {
        if !self.aged {
            let next = self.after_c;
            self.readers.push(Reader { rows: self.rows.clone(), end: self.end, next, read: Vec::new() });
        }
    }

    fn read_on(&self, reader: &mut Reader, records: usize) {
        for record in self.log.iter().filter(|record| record.offset >= reader.next).take(records) {
            reader.read.push((record.key.clone(), record.value.clone()));
        }
        let last = self.log.iter().filter(|record| record.offset >= reader.next).take(records).last();
        reader.next = last.map_or(reader.next, |record| record.offset + 1);
    }

    fn finish(&self, mut reader: Reader) -> (Rows, RowState) {
        self.read_on(&mut reader, usize::MAX);
        let mut rows = reader.rows;
        let local = rows.clone();
        let mut fold = Fold::default();
        for (key, value) in &reader.read {
            fold.push(key, value.as_deref()).expect("a record of this walk");
        }
        let restored = fold.end(&self.lineage, reader.end);
        let of = |key: &[u8]| Ok(local.get(&key[0]).copied().unwrap_or_default().0);
        let take = |key: &[u8], outcome: Outcome<'_>| {
            match outcome {
                Outcome::Keep => {}
                Outcome::Live(slot, value) => drop(rows.insert(key[0], (RowState::Live(slot), value[0]))),
                Outcome::Deleted(slot) => drop(rows.insert(key[0], (RowState::Deleted(slot), 0))),
                Outcome::Gone => drop(rows.remove(&key[0])),
            }
            Ok(())
        };
        fold.finish(&self.lineage, of, take).expect("nothing fails in memory");
        if let Some((_, epoch, end)) = restored.record {
            assert_eq!(epoch, self.committed, "the end of C is found");
            assert_eq!(end.entries, live(&rows).count() as u64);
        }
        (rows, restored.row)
    }

    fn clean(&mut self) {
        let count = self.random.below(self.log.len() as u64 + 1) as usize;
        let tail = self.log.split_off(count);
        let mut newer = BTreeSet::new();
        let mut kept = Vec::new();
        for mut record in std::mem::take(&mut self.log).into_iter().rev() {
            if newer.insert(record.key.clone()) && !record.expired {
                record.cleaned = true;
                kept.push(record);
            }
        }
        kept.reverse();
        kept.extend(tail);
        self.log = kept;
    }

    fn retention_passes(&mut self) {
        for record in self.log.iter_mut().filter(|record| record.value.is_none() && record.cleaned) {
            record.expired = true;
        }
        self.readers.clear();
        self.aged = true;
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0..=4 => self.checkpoint(),
            5 => self.crash(),
            6 | 7 => self.clean(),
            8 => self.keep_rows(),
            9 => self.readers.push(Reader { rows: Rows::new(), end: RowState::None, next: 0, read: Vec::new() }),
            10 if self.random.below(4) == 0 => self.retention_passes(),
            _ => {
                let mut readers = std::mem::take(&mut self.readers);
                for reader in &mut readers {
                    let records = self.random.below(6) as usize;
                    self.read_on(reader, records);
                }
                self.readers = readers;
            }
        }
        // Few enough that each is checked after every step.
        while self.readers.len() > 4 {
            let index = self.random.below(self.readers.len() as u64) as usize;
            self.readers.remove(index);
        }
    }

    fn check(&self, seed: u64, step: u32) {
        let full = Reader { rows: Rows::new(), end: RowState::None, next: 0, read: Vec::new() };
        for reader in self.readers.iter().cloned().chain([full]) {
            let (rows, end) = self.finish(reader);
            let (found, expected): (Vec<_>, Vec<_>) = (live(&rows).collect(), live(&self.rows).collect());
            assert_eq!(found, expected, "THALWEG_SEED={seed}, step {step}");
            assert_eq!(end, self.end, "the end's slot, THALWEG_SEED={seed}, step {step}");
        }
    }
}

fn live(rows: &Rows) -> impl Iterator<Item = (u8, u8)> {
    rows.iter().filter(|(_, (row, _))| !row.is_deleted()).map(|(key, (_, value))| (*key, *value))
}

#[test]
fn long_walks_lose_nothing() {
    let only = std::env::var("THALWEG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(0..300, |seed: u64| seed..seed + 1);
    let mut last = (0, 0);
    for seed in seeds {
        // Shown where the walk fails.
        println!("THALWEG_SEED={seed}");
        let mut walk = Walk::new(seed);
        for step in 0..300 {
            walk.step();
            walk.check(seed, step);
        }
        last = (last.0.max(walk.generation.0), last.1.max(walk.committed.0));
    }
    assert!(only.is_some() || (last.0 > 40 && last.1 > 100), "the walks went nowhere: {last:?}");
}
