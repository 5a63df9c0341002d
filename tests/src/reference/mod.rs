//! What a job has to give, worked out the slow way: one thread, one epoch after the other, BTreeMaps and sorts.
//!
//! It shares with the engine the readers of sources (they decode), the encoding of keys (a documented format), and nothing of the
//! data plane: not its expressions, folds, grouping, stores or sinks.

mod fold;
mod item;
mod keyed;
mod order;
mod run;
mod sources;
mod topic;
mod visits;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value as Json;
use thalweg_connectors::dead_letter::{DeadLetter, Held, Reason};
use thalweg_core::Value;

use crate::letters::Letter;
use crate::sketch::{JobSketch, KeyOf, SinkKind, SourceFormat, Step};
use fold::Folding;
use item::{Cell, Item};
use keyed::by_key;
use order::{Aside, Origins, Place, Stream};
use sources::Inputs;
use visits::Visiting;

pub use run::{Run, recorded_run, recorded_run_of};
pub(crate) use run::{job_id_of, open_log, recorded_in_kafka};

/// The entries of a store in key order: encoded key, key, value.
pub(crate) type Store = BTreeMap<Vec<u8>, (Json, Json)>;

/// What a run has to have given.
#[derive(Debug, Default)]
pub struct Reference {
    /// Every output file, by its path below `out/`.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The records of each sink on a log, by its index, job partition and partition of the topic, in order.
    pub topics: BTreeMap<(usize, u16, u16), Vec<Vec<u8>>>,
    /// The records that are set aside, in order.
    pub dead_letters: Vec<Letter>,
    /// Every store at the epochs that were asked for.
    pub snapshots: BTreeMap<u64, BTreeMap<String, Store>>,
}

/// An operator with what it keeps.
enum Node {
    Stateless(Step, Vec<String>),
    KeyBy(KeyOf),
    Fold(Folding),
    Visits(Visiting),
}

impl Reference {
    /// Interprets the recorded run of a job whose folder is `folder`; `observed` are the epochs whose stores are wanted.
    ///
    /// Errors: bindings that do not fit the input.
    pub fn interpret(job: &JobSketch, folder: &Path, run: &Run, observed: &BTreeSet<u64>) -> Result<Self, String> {
        let mut reference = Self::default();
        let origins = Origins::of(job);
        let mut inputs = Inputs::open(job, folder)?;
        let node = |(index, operator): (usize, &crate::sketch::OperatorSketch)| match operator.step {
            Step::KeyBy(key) => Node::KeyBy(key),
            Step::Fold(key, fold) => Node::Fold(Folding::new(&format!("op{index}"), key, fold)),
            Step::Visits => Node::Visits(Visiting::new(&format!("op{index}"), run.job_id, job.partitions)),
            step => Node::Stateless(step, operator.inputs.iter().map(|input| job.id(*input)).collect()),
        };
        let mut nodes: Vec<Node> = job.operators.iter().enumerate().map(node).collect();
        if observed.contains(&0) {
            reference.snapshots.insert(0, stores(&nodes));
        }
        for binding in &run.bindings {
            let (mut streams, mut aside) = inputs.epoch(binding, &origins)?;
            for (index, (operator, node)) in job.operators.iter().zip(&mut nodes).enumerate() {
                let own = job.sources.len() + index;
                let input = origins.merge(own, &operator.inputs, &streams);
                let mut letters = Vec::new();
                let output = match node {
                    Node::Stateless(step, inputs) => stateless(*step, inputs, input, &job.id(own), &mut letters),
                    Node::KeyBy(key) => number(
                        origins.own(own),
                        by_key(input, job.partitions, *key).into_iter().flat_map(|(partition, keys)| {
                            let records = keys.into_iter().flat_map(|key| key.records);
                            records.map(move |item| (partition, item))
                        }),
                    ),
                    Node::Fold(folding) => number(origins.own(own), folding.epoch(input, job.partitions)),
                    Node::Visits(visiting) => {
                        let (output, failed) = visiting.epoch(input, binding.epoch.0, binding.minted_at);
                        letters = number(origins.own(own), failed);
                        number(origins.own(own), output)
                    }
                };
                streams.push(output);
                aside.push(letters);
            }
            let letters = origins.gather(aside).into_iter();
            reference.dead_letters.extend(letters.map(|letter| Letter { epoch: binding.epoch, letter }));
            for (index, sink) in job.sinks.iter().enumerate() {
                let node = job.sources.len() + job.operators.len() + index;
                let mut records = origins.merge(node, &sink.inputs, &streams);
                records.sort_by_key(|(place, _)| (place.partition, *place));
                for (place, item) in records {
                    reference.write(index, sink.kind, place.partition, item.to_json());
                }
            }
            if observed.contains(&binding.epoch.0) {
                reference.snapshots.insert(binding.epoch.0, stores(&nodes));
            }
        }
        inputs.check_finished(run)?;
        Ok(reference)
    }

    fn write(&mut self, sink: usize, kind: SinkKind, partition: u16, line: String) {
        let file = match kind {
            SinkKind::Folder => format!("sink{sink}/part-{partition:05}.jsonl"),
            SinkKind::Single => format!("sink{sink}.jsonl"),
            SinkKind::Log(_) | SinkKind::Kafka(..) => {
                let (to, record) = crate::home::expected(kind, partition, &line);
                self.topics.entry((sink, partition, to)).or_default().push(record);
                return;
            }
        };
        let bytes = self.files.entry(file).or_default();
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
}

fn stores(nodes: &[Node]) -> BTreeMap<String, Store> {
    let store = |node: &Node| match node {
        Node::Fold(folding) => Some(folding.store()),
        Node::Visits(visiting) => Some(visiting.store()),
        Node::Stateless(..) | Node::KeyBy(_) => None,
    };
    nodes.iter().enumerate().filter_map(|(index, node)| Some((format!("op{index}"), store(node)?))).collect()
}

/// Numbers the output of a keyed operator by (partition, sequence).
fn number<T>(origin: u16, items: impl IntoIterator<Item = (u16, T)>) -> Vec<(Place, T)> {
    let mut sequences: BTreeMap<u16, u64> = BTreeMap::new();
    let numbered = items.into_iter().map(|(partition, item)| {
        let sequence = sequences.entry(partition).or_default();
        let place = Place { origin, partition, sequence: *sequence };
        *sequence += 1;
        (place, item)
    });
    numbered.collect()
}

/// Record by record; the output of each origin and partition is numbered anew.
fn stateless(step: Step, inputs: &[String], mut input: Stream, id: &str, aside: &mut Aside) -> Stream {
    input.sort_by_key(|(place, _)| *place);
    let mut sequences: BTreeMap<(u16, u16), u64> = BTreeMap::new();
    let mut output = Vec::new();
    for (place, item) in input {
        if fails(step, &item) {
            let letter = DeadLetter::of_operator(id, Reason::Failed, String::new(), Held::Record);
            aside.push((place, DeadLetter { value: Some(item.to_json().into_bytes()), ..letter }));
            continue;
        }
        for item in step_of(step, inputs, item) {
            let sequence = sequences.entry((place.origin, place.partition)).or_default();
            output.push((Place { sequence: *sequence, ..place }, item));
            *sequence += 1;
        }
    }
    output
}

fn fails(step: Step, item: &Item) -> bool {
    matches!(step, Step::Divide(divisor) if item.int("v") % divisor as i64 == 0)
}

fn step_of(step: Step, inputs: &[String], item: Item) -> Vec<Item> {
    match step {
        Step::Words => {
            let words =
                item.text("line").split_whitespace().map(|word| Item::new([("word", Cell::Text(word.to_owned()))]));
            words.collect()
        }
        Step::Rows(SourceFormat::Lines) => {
            let word = item.text("word").to_owned();
            let size = word.chars().count() as i64;
            vec![Item::row(size, word, size * 3, 0.5)]
        }
        Step::Rows(SourceFormat::Generator) => {
            let (key, value) = (item.int("key"), item.int("value"));
            vec![Item::row(key, key.to_string(), value, value as f64 / 7.0)]
        }
        Step::Rows(SourceFormat::Json | SourceFormat::Csv) => {
            vec![Item::row(item.int("k"), item.text("w").to_owned(), item.int("v"), item.float("f"))]
        }
        Step::Filter(divisor, rest) => {
            if item.int("v") % divisor as i64 != rest as i64 {
                vec![item]
            } else {
                Vec::new()
            }
        }
        Step::Shift => {
            vec![Item::row(item.int("k"), item.text("w").to_owned(), item.int("v") + 1, item.float("f") * 1.5)]
        }
        Step::Regroup => {
            let key = (item.int("k") * 7 + 3) % 11;
            vec![Item::row(key, item.text("w").to_owned(), item.int("v"), item.float("f"))]
        }
        Step::Divide(divisor) => {
            let v = item.int("v");
            vec![Item::row(item.int("k"), item.text("w").to_owned(), v / (v % divisor as i64), item.float("f"))]
        }
        Step::FromFold(key, fold) => vec![fold::to_row(key, fold, &inputs[0], &item)],
        Step::KeyBy(_) | Step::Fold(..) | Step::Visits => unreachable!("{step:?} is keyed"),
    }
}

/// The key of an item: the value, or a list of several.
fn key_of(item: &Item, key: KeyOf) -> Value {
    let of = |name: &&str| match item.cell(name) {
        Cell::Int(int) => Value::Int(*int),
        Cell::Text(text) => Value::from(text.as_str()),
        Cell::Float(float) => Value::Float(*float),
    };
    match key.fields() {
        [name] => of(name),
        names => Value::List(names.iter().map(of).collect()),
    }
}
