//! The folds of the catalogue.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use thalweg_core::Value;

use super::Store;
use super::item::{Cell, Item};
use super::keyed::by_key;
use super::order::Stream;
use crate::sketch::{Fold, KeyOf};

/// What a fold has seen of a key.
#[derive(Clone, Debug)]
enum Seen {
    Count(i64),
    Int(Option<i64>),
    Float(Option<f64>),
    Mean(f64, i64),
}

/// A fold with its state.
pub(super) struct Folding {
    key: KeyOf,
    /// The elementary folds with the names of their results.
    folds: Vec<(String, Fold)>,
    state: BTreeMap<Vec<u8>, (Value, Vec<Seen>)>,
}

impl Folding {
    pub(super) fn new(id: &str, key: KeyOf, fold: Fold) -> Self {
        let named = |parts: &[(&str, Fold)]| parts.iter().map(|(name, fold)| ((*name).to_owned(), *fold)).collect();
        let folds = match fold {
            Fold::Aggregate => named(&[
                ("n", Fold::Count),
                ("t", Fold::SumFloat),
                ("late", Fold::CountLarge),
                ("worst", Fold::Max),
                ("m", Fold::Mean),
            ]),
            other => named(&[(id, other)]),
        };
        Self { key, folds, state: BTreeMap::new() }
    }

    pub(super) fn epoch(&mut self, input: Stream, partitions: u32) -> Vec<(u16, Item)> {
        let mut output = Vec::new();
        for (partition, keys) in by_key(input, partitions, self.key) {
            for key in keys {
                let fresh = || (key.key.clone(), self.folds.iter().map(|(_, fold)| empty(*fold)).collect());
                let (_, state) = self.state.entry(key.encoded).or_insert_with(fresh);
                for item in &key.records {
                    for (seen, (_, fold)) in state.iter_mut().zip(&self.folds) {
                        see(seen, *fold, item);
                    }
                }
                let first = &key.records[0];
                let fields = self.key.fields().iter().map(|name| ((*name).to_owned(), first.cell(name).clone()));
                let results = self.folds.iter().zip(state).map(|((name, _), seen)| (name.clone(), result(seen)));
                output.push((partition, Item::new(fields.chain(results))));
            }
        }
        output
    }

    pub(super) fn store(&self) -> Store {
        let entry = |(encoded, (key, state)): (&Vec<u8>, &(Value, Vec<Seen>))| {
            let json = |text: String| serde_json::from_str::<Json>(&text).expect("JSON");
            let value = match state.as_slice() {
                [one] => result(one).to_json(),
                _ => Item::new(self.folds.iter().map(|(name, _)| name.clone()).zip(state.iter().map(result))).to_json(),
            };
            (encoded.clone(), (json(key.to_string()), json(value)))
        };
        self.state.iter().map(entry).collect()
    }
}

fn empty(fold: Fold) -> Seen {
    match fold {
        Fold::Count | Fold::CountLarge => Seen::Count(0),
        Fold::Sum | Fold::Min | Fold::Max | Fold::Reduce => Seen::Int(None),
        Fold::SumFloat => Seen::Float(None),
        Fold::Mean => Seen::Mean(0.0, 0),
        Fold::Aggregate => unreachable!("it is made of others"),
    }
}

fn see(seen: &mut Seen, fold: Fold, item: &Item) {
    match seen {
        Seen::Count(count) => *count += i64::from(fold == Fold::Count || item.int("v") > 500),
        Seen::Int(best) => {
            let value = item.int("v");
            *best = Some(match (*best, fold) {
                (None, _) => value,
                (Some(best), Fold::Sum) => best + value,
                (Some(best), Fold::Min) => best.min(value),
                (Some(best), Fold::Max) => best.max(value),
                (Some(best), _) => (best * 31 + value) % 1_000_003,
            });
        }
        Seen::Float(sum) => *sum = Some(sum.map_or(item.float("f"), |sum| sum + item.float("f"))),
        Seen::Mean(sum, count) => {
            *sum += item.float("f");
            *count += 1;
        }
    }
}

fn result(seen: &Seen) -> Cell {
    match seen {
        Seen::Count(count) => Cell::Int(*count),
        Seen::Int(value) => Cell::Int(value.expect("a key has a record")),
        Seen::Float(value) => Cell::Float(value.expect("a key has a record")),
        Seen::Mean(sum, count) => Cell::Float(sum / *count as f64),
    }
}

/// The row that is made of a result.
pub(super) fn to_row(key: KeyOf, fold: Fold, result: &str, item: &Item) -> Item {
    let k = if key == KeyOf::Word { 1 } else { item.int("k") };
    let w = if key == KeyOf::Number { "x".to_owned() } else { item.text("w").to_owned() };
    match fold {
        Fold::SumFloat | Fold::Mean => Item::row(k, w, 1, item.float(result)),
        Fold::Aggregate => Item::row(k, w, item.int("n"), item.float("t")),
        _ => Item::row(k, w, item.int(result), 0.25),
    }
}
