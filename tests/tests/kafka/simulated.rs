//! The simulated log against a real Kafka: the same random history on both, and after each step the same is to be seen.
//!
//! Compared are the records that a reader of committed ones sees from any offset, where it stops (an open transaction holds it back),
//! those that a reader of journals sees, the ends of the partitions, the offsets that a commit returns, and by kind what a producer is told that another has fenced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thalweg_connectors::kafka::{KafkaConfig, KafkaLog};
use thalweg_connectors::log::simulated::{Calm, SimulatedCluster, SimulatedLog};
use thalweg_connectors::log::{Log, LogReader, NewRecord, Producer, Retention, TopicSpec};
use thalweg_core::{Generation, PartitionId};
use thalweg_tests::kafka::{Broker, BrokerSettings};
use thalweg_tests::{Random, until};

const SEED: u64 = 20_260_817;
/// Histories and steps of each in the gate.
const SHORT: (u64, usize) = (2, 100);
/// And in the long form.
const LONG: (u64, usize) = (40, 300);
/// Histories whose topic a broker cleans.
const CLEANED: u64 = 6;
const IDS: usize = 3;
const KEYS: u64 = 4;
const PARTITIONS: u16 = 2;
/// No transaction of this test comes to its time's end.
const TRANSACTION: Duration = Duration::from_secs(600);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const FIRST: Generation = Generation(1);
const KAFKA: usize = 0;
const SIMULATED: usize = 1;

/// What a reader sees of a record: offset, key, value.
type Seen = (u64, Option<Vec<u8>>, Option<Vec<u8>>);

/// A producer of each log; those that another has fenced are kept, and go on.
struct Pair {
    id: usize,
    both: [Box<dyn Producer>; 2],
    open: bool,
    fenced: bool,
}

struct Bench {
    seed: u64,
    cluster: Arc<SimulatedCluster>,
    logs: [Box<dyn Log>; 2],
    topic: String,
    compacted: bool,
    pairs: Vec<Pair>,
    random: Random,
    /// What was done, for people.
    done: Vec<String>,
}

impl Bench {
    fn new(broker: &Broker, seed: u64, compacted: bool) -> Self {
        let mut config = KafkaConfig::new(&broker.bootstrap(), BTreeMap::new()).expect("properties");
        config.transaction_timeout = TRANSACTION;
        let kafka = KafkaLog::new(config, "thalweg-test", Arc::new(|| Ok(FIRST))).expect("a log");
        let timeout = TRANSACTION.as_millis() as u64;
        let cluster = SimulatedCluster::new(Arc::new(Calm), timeout, 0);
        let simulated = SimulatedLog::new(Arc::clone(&cluster), Arc::new(|| Ok(FIRST)));
        let logs: [Box<dyn Log>; 2] = [Box::new(kafka), Box::new(simulated)];
        let topic = Broker::unique("simulated");
        let retention = if compacted { Retention::Compact { delete_retention_ms: DAY_MS } } else { Retention::Keep };
        for log in &logs {
            let spec = TopicSpec { name: topic.clone(), partitions: PARTITIONS.into(), retention };
            log.ensure(&spec).expect("a topic");
        }
        let (pairs, random, done) = (Vec::new(), Random::new(seed), Vec::new());
        Self { seed, cluster, logs, topic, compacted, pairs, random, done }
    }

    fn so_far(&self) -> String {
        format!("seed {}, after {:?}", self.seed, self.done)
    }

    /// Does something on both.
    fn step(&mut self, number: usize) {
        let id = self.random.below(IDS as u64) as usize;
        let partition = PartitionId(self.random.below(PARTITIONS.into()) as u16);
        let living = self.pairs.iter().position(|pair| pair.id == id && !pair.fenced);
        match (self.random.below(20), living) {
            (0, _) | (_, None) => self.fence(id),
            (1, Some(_)) if !self.compacted => self.trim(partition),
            (1 | 2, Some(_)) => self.read(partition),
            (3, Some(_)) if self.pairs.iter().any(|pair| pair.fenced) => self.fenced_one_goes_on(partition),
            (4..=6, Some(index)) if self.pairs[index].open => self.end(index, true),
            (7, Some(index)) if self.pairs[index].open => self.end(index, false),
            (_, Some(index)) => self.append(index, partition, number),
        }
        self.compare_ends();
    }

    fn fence(&mut self, id: usize) {
        self.done.push(format!("fence {id}"));
        let name = format!("{}-{id}", self.topic);
        self.pairs.iter_mut().filter(|pair| pair.id == id).for_each(|pair| pair.fenced = true);
        let both = self.logs.each_ref().map(|log| log.fence(&name, FIRST).expect("nobody is newer"));
        self.pairs.push(Pair { id, both, open: false, fenced: false });
    }

    fn append(&mut self, index: usize, partition: PartitionId, number: usize) {
        let key = Some(vec![self.random.below(KEYS) as u8]);
        let value = (!self.random.once_in(5)).then(|| number.to_string().into_bytes());
        let record = NewRecord { key, value, headers: vec![] };
        let pair = &mut self.pairs[index];
        self.done.push(format!("append {number} by {} to {partition}", pair.id));
        for producer in &mut pair.both {
            if !pair.open {
                producer.begin().expect("it is alive");
            }
            producer.append(&self.topic, partition, record.clone()).expect("it is alive");
        }
        pair.open = true;
    }

    fn end(&mut self, index: usize, commit: bool) {
        let pair = &mut self.pairs[index];
        self.done.push(format!("{} by {}", if commit { "commit" } else { "abort" }, pair.id));
        let ends = pair.both.each_mut().map(|producer| {
            if !commit {
                producer.abort().expect("it is alive");
                assert!(producer.is_spent(), "after an abort");
                return vec![];
            }
            let mut ends = producer.commit().expect("it is alive");
            ends.sort();
            ends
        });
        pair.open = false;
        // On a loaded machine a commit of Kafka's may be slow.
        let (id, spent) = (pair.id, pair.both.iter().any(|producer| producer.is_spent()));
        assert_eq!(ends[KAFKA], ends[SIMULATED], "{}", self.so_far());
        if spent {
            self.fence(id);
        }
    }

    /// A producer that another has fenced changes nothing, whatever it tries: the end of its transaction comes too late.
    fn fenced_one_goes_on(&mut self, partition: PartitionId) {
        let index = self.pairs.iter().position(|pair| pair.fenced).expect("there is one");
        let mut pair = self.pairs.swap_remove(index);
        let (appends, commits) = (self.random.once_in(2), !self.random.once_in(4));
        self.done.push(format!("a fenced one of {} goes on: {}, {appends}, {commits}", pair.id, pair.open));
        let outcomes = pair.both.each_mut().map(|producer| {
            if !pair.open && producer.begin().is_err() {
                return Some("spent".to_owned());
            }
            if appends {
                let record = NewRecord { value: Some(b"never".to_vec()), ..NewRecord::default() };
                let _ = producer.append(&self.topic, partition, record);
            }
            let outcome = if commits { producer.commit().map(drop) } else { producer.abort() };
            outcome.err().map(|error| error.code().to_owned())
        });
        assert_eq!(outcomes[KAFKA], outcomes[SIMULATED], "{}", self.so_far());
        assert!(outcomes[KAFKA].is_some() || !commits || !(pair.open || appends), "{}", self.so_far());
    }

    fn trim(&mut self, partition: PartitionId) {
        let (first, stable) = (self.ends(SIMULATED, partition).0, self.visible(SIMULATED, partition, 0).1);
        let before = self.random.between(first, first.max(stable));
        self.done.push(format!("drop before {before} of {partition}"));
        self.logs[SIMULATED].trim(&self.topic, partition, before).expect("dropped");
        // A client of Kafka drops in the background, and one request at a time.
        until("the drop of records", || {
            self.logs[KAFKA].trim(&self.topic, partition, before).expect("asked for");
            self.ends(KAFKA, partition).0 == before
        });
    }

    fn read(&mut self, partition: PartitionId) {
        let (_, end) = self.ends(SIMULATED, partition);
        let from = self.random.between(0, end);
        self.done.push(format!("read {partition} from {from}"));
        self.compare(partition, from);
        // A cleaner takes what was aborted when it likes.
        if !self.compacted {
            let seen = |log: usize| {
                let mut reader = self.logs[log].journal_reader(&self.topic, partition, from).expect("a reader");
                all(&mut *reader)
            };
            let expected = seen(SIMULATED);
            let what = format!("{expected:?} in Kafka, committed or not, from {from} on, {}", self.so_far());
            until(&what, || seen(KAFKA) == expected);
        }
    }

    fn compare(&self, partition: PartitionId, from: u64) {
        // While a broker cleans, only the last record of each key is sure to be there.
        let seen = |log| {
            let (mut records, end) = self.visible(log, partition, from);
            let all = records.clone();
            let last = |(offset, key, _): &Seen| {
                all.iter().rev().find(|(_, other, _)| other == key).is_some_and(|(last, ..)| last == offset)
            };
            records.retain(|record| !self.compacted || last(record));
            (records, end)
        };
        let expected = seen(SIMULATED);
        let what = format!("{expected:?} in Kafka from {from} on, {}", self.so_far());
        until(&what, || seen(KAFKA) == expected);
    }

    /// What a reader sees from an offset on, and where it stops.
    fn visible(&self, log: usize, partition: PartitionId, from: u64) -> (Vec<Seen>, u64) {
        all(&mut *self.logs[log].reader(&self.topic, partition, from).expect("a reader"))
    }

    fn ends(&self, log: usize, partition: PartitionId) -> (u64, u64) {
        self.logs[log].offsets(&self.topic, partition).expect("offsets")
    }

    /// Records and markers take the same offsets.
    fn compare_ends(&self) {
        for partition in (0..PARTITIONS).map(PartitionId) {
            let expected = self.ends(SIMULATED, partition);
            let what = format!("{partition} from and to {expected:?} in Kafka, {}", self.so_far());
            until(&what, || self.ends(KAFKA, partition) == expected);
        }
    }

    /// A whole history.
    fn run(&mut self, steps: usize) {
        (0..steps).for_each(|number| self.step(number));
        (0..PARTITIONS).for_each(|partition| self.compare(PartitionId(partition), 0));
    }

    /// What the broker's cleaner leaves is what is left here when the same prefix is cleaned.
    fn compare_cleaned(&mut self) {
        (0..IDS).for_each(|id| self.fence(id));
        let index = self.pairs.iter().position(|pair| !pair.fenced).expect("they were just fenced");
        for partition in (0..PARTITIONS).map(PartitionId) {
            let before = self.visible(SIMULATED, partition, 0).0.len();
            let mut number = 0_u64;
            // Each record comes into a new segment once the last is old enough, and what is before it may be cleaned.
            until(&format!("a cleaning of {partition} like the simulated one, {}", self.so_far()), || {
                number += 1;
                let key = Some(number.to_be_bytes().to_vec());
                let record = NewRecord { key, value: Some(b"last".to_vec()), headers: vec![] };
                let mut end = 0;
                for producer in &mut self.pairs[index].both {
                    producer.begin().expect("it is alive");
                    producer.append(&self.topic, partition, record.clone()).expect("it is alive");
                    end = producer.commit().expect("it is alive")[0].2;
                }
                self.cluster.clean(&self.topic, partition, end - 1).expect("it is compacted");
                self.visible(KAFKA, partition, 0) == self.visible(SIMULATED, partition, 0)
            });
            let after = self.visible(SIMULATED, partition, 0).0.len() - number as usize;
            assert!(after <= 2 * KEYS as usize && after < before, "{before} records, {after} after cleaning");
        }
    }
}

/// What a reader gives, and where it stops.
fn all(reader: &mut dyn LogReader) -> (Vec<Seen>, u64) {
    let mut records = Vec::new();
    while reader.read(1 << 20, &mut records).expect("it can be read") {}
    let seen = records.into_iter().map(|record| (record.offset, record.record.key, record.record.value));
    (seen.collect(), reader.position())
}

fn check(seeds: u64, steps: usize) {
    for seed in (0..seeds).map(|index| SEED + index) {
        let mut bench = Bench::new(Broker::shared(), seed, false);
        bench.run(steps);
        for word in ["fence", "append", "commit", "abort", "a fenced one", "drop", "read"] {
            assert!(bench.done.iter().any(|step| step.starts_with(word)), "{word} never came");
        }
    }
}

#[test]
fn the_simulated_log_does_what_kafka_does() {
    check(SHORT.0, SHORT.1);
}

#[allow(dead_code, reason = "too long for the gate: kafka_long.rs")]
pub(crate) fn the_simulated_log_does_what_kafka_does_for_long() {
    check(LONG.0, LONG.1);
}

#[allow(dead_code, reason = "too long for the gate: kafka_long.rs")]
pub(crate) fn the_simulated_cleaning_leaves_what_that_of_kafka_leaves() {
    let broker = Broker::start(&BrokerSettings::new().always_cleaning());
    for seed in (0..CLEANED).map(|index| SEED + index) {
        let mut bench = Bench::new(&broker, seed, true);
        bench.run(LONG.1);
        bench.compare_cleaned();
    }
}
