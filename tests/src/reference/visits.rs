//! The keyed process of the harness's job binary: deletions, timers, chance, errors.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use thalweg_connectors::dead_letter::{DeadLetter, Held, Reason};
use thalweg_core::{Value, encode_key};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Store;
use super::item::Item;
use super::keyed::{group, partition_of};
use super::order::Stream;

/// Things by partition, in order.
type Of<T> = Vec<(u16, T)>;

/// The operator with its state.
pub(super) struct Visiting {
    id: String,
    seed: u64,
    partitions: u32,
    state: BTreeMap<String, (i64, f64)>,
    /// By partition: when, and for whom.
    timers: BTreeSet<(u16, i64, Vec<u8>, String)>,
}

fn encoded(word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(word, &mut bytes).expect("text is a key");
    bytes
}

/// What one call may do.
struct Call {
    seed: u64,
    epoch: u64,
    key: u64,
    draws: u64,
    emitted: Vec<Item>,
    timers: Vec<i64>,
}

impl Call {
    fn draw(&mut self) -> i64 {
        let mut bytes = Vec::new();
        for word in [self.epoch, self.key, self.draws] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        self.draws += 1;
        (xxh3_64_with_seed(&bytes, self.seed) % 1000) as i64
    }
}

impl Visiting {
    pub(super) fn new(id: &str, job_id: u128, partitions: u32) -> Self {
        let mut bytes = Vec::new();
        encode_key(&(job_id, id), &mut bytes).expect("an id and a text are a key");
        Self { id: id.to_owned(), seed: xxh3_64(&bytes), partitions, state: BTreeMap::new(), timers: BTreeSet::new() }
    }

    /// What it gives and what it sets aside, by partition.
    pub(super) fn epoch(&mut self, input: Stream, epoch: u64, time: i64) -> (Of<Item>, Of<DeadLetter>) {
        let text = |item: &Item| (encoded(item.text("w")), Value::from(item.text("w")));
        let mut groups: BTreeMap<u16, _> = group(input, self.partitions, text).into_iter().collect();
        let due: Vec<_> = self.timers.iter().filter(|(_, at, ..)| *at <= time).cloned().collect();
        due.iter().for_each(|timer| {
            self.timers.remove(timer);
        });
        let (mut output, mut aside) = (Vec::new(), Vec::new());
        for partition in 0..self.partitions as u16 {
            let mut letters = Vec::new();
            for (_, at, _, word) in due.iter().filter(|(of, ..)| *of == partition) {
                output.extend(self.fire(word, *at, epoch, &mut letters).into_iter().map(|item| (partition, item)));
            }
            for key in groups.remove(&partition).unwrap_or_default() {
                let word = key.key.as_str().expect("words are text").to_owned();
                let emitted = self.call(&word, key.records, epoch, time, &mut letters);
                output.extend(emitted.into_iter().map(|item| (partition, item)));
            }
            aside.extend(letters.into_iter().map(|letter| (partition, letter)));
        }
        (output, aside)
    }

    fn letter(&self, word: &str, reason: Reason, held: Held) -> DeadLetter {
        let letter = DeadLetter::of_operator(&self.id, reason, String::new(), held);
        DeadLetter { key: Some(json!(word).to_string().into_bytes()), ..letter }
    }

    fn begin(&self, word: &str, epoch: u64) -> Call {
        let key = xxh3_64(&encoded(word));
        Call { seed: self.seed, epoch, key, draws: 0, emitted: Vec::new(), timers: Vec::new() }
    }

    /// Repeats the call without the records that it failed on.
    fn call(
        &mut self,
        word: &str,
        mut records: Vec<Item>,
        epoch: u64,
        time: i64,
        aside: &mut Vec<DeadLetter>,
    ) -> Vec<Item> {
        while !records.is_empty() {
            let mut call = self.begin(word, epoch);
            let mut state = self.state.get(word).copied();
            let failed = records.iter().position(|record| !visit(record, word, &mut state, time, &mut call));
            match failed {
                Some(index) => {
                    let record = records.remove(index);
                    let reason = if record.int("v") % 97 == 13 { Reason::Panicked } else { Reason::Failed };
                    let letter = self.letter(word, reason, Held::Grouped);
                    aside.push(DeadLetter { value: Some(record.to_json().into_bytes()), ..letter });
                }
                None => {
                    self.keep(word, state);
                    for at in call.timers {
                        let bytes = encoded(word);
                        self.timers.insert((partition_of(&bytes, self.partitions), at, bytes, word.to_owned()));
                    }
                    return call.emitted;
                }
            }
        }
        Vec::new()
    }

    fn fire(&mut self, word: &str, at: i64, epoch: u64, aside: &mut Vec<DeadLetter>) -> Vec<Item> {
        let mut call = self.begin(word, epoch);
        let draw = call.draw();
        if draw % 7 == 0 {
            aside.push(DeadLetter { timer: Some(at), ..self.letter(word, Reason::Failed, Held::Timer) });
            return Vec::new();
        }
        let state = self.state.get(word).copied();
        let count = state.map_or(0, |(count, _)| count);
        let row = Item::row(1000 + count, word.to_owned(), draw, (at % 1000) as f64 / 8.0);
        self.keep(word, state.filter(|_| draw % 3 != 0));
        vec![row]
    }

    fn keep(&mut self, word: &str, state: Option<(i64, f64)>) {
        match state {
            Some(state) => self.state.insert(word.to_owned(), state),
            None => self.state.remove(word),
        };
    }

    pub(super) fn store(&self) -> Store {
        let entry = |(word, (count, total)): (&String, &(i64, f64))| {
            (encoded(word), (json!(word), json!({ "count": count, "total": total })))
        };
        self.state.iter().map(entry).collect()
    }
}

/// One record; whether it is wanted.
fn visit(record: &Item, word: &str, state: &mut Option<(i64, f64)>, time: i64, call: &mut Call) -> bool {
    let (count, total) = state.get_or_insert((0, 0.0));
    *count += 1;
    *total += record.float("f");
    let v = record.int("v");
    if v % 5 == 0 {
        call.timers.push(time + 500 * v);
    }
    let draw = call.draw();
    call.emitted.push(Item::row(*count, word.to_owned(), draw, *total));
    if v % 97 == 13 || v % 89 == 7 {
        return false;
    }
    if *count as usize >= 5 + word.len() % 7 {
        *state = None;
    }
    true
}
