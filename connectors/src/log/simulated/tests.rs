use std::sync::atomic::{AtomicBool, Ordering};

use thalweg_core::{Epoch, JobId, PartitionCount};

use super::*;
use crate::log::{LogSink, LogSinkConfig, NewRecord, Partitioner, Retention, SinkProducer, conformance, read_to_end};
use crate::{EncodedBatch, EncodedRecord, Sink, SinkContext};

const P0: PartitionId = PartitionId(0);
const TRANSACTION_MS: u64 = 1000;

fn cluster(fates: impl Fates + 'static) -> Arc<SimulatedCluster> {
    SimulatedCluster::new(Arc::new(fates), TRANSACTION_MS, TRANSACTION_MS / 2)
}

fn client(cluster: &Arc<SimulatedCluster>) -> SimulatedLog {
    SimulatedLog::new(Arc::clone(cluster), Arc::new(|| Ok(Generation(1))))
}

/// A client of brokers where every end of a transaction has this fate, with a topic that is compacted.
fn bench(fate: Fate) -> (Arc<SimulatedCluster>, SimulatedLog) {
    struct Always(Fate);
    impl Fates for Always {
        fn before(&self, _: &SimulatedCluster, _: Step) {}

        fn of_end(&self, _: &str) -> Fate {
            self.0
        }
    }
    let cluster = cluster(Always(fate));
    let log = client(&cluster);
    let retention = Retention::Compact { delete_retention_ms: 10 };
    log.ensure(&TopicSpec { name: "t".to_owned(), partitions: 1, retention }).unwrap();
    (cluster, log)
}

fn append(producer: &mut dyn Producer, key: &str, value: Option<&str>) {
    let value = value.map(|value| value.as_bytes().to_vec());
    producer.append("t", P0, NewRecord { key: Some(key.as_bytes().to_vec()), value, headers: vec![] }).unwrap();
}

/// What a reader of committed records sees: offset and value, `-` for a tombstone.
fn shown(cluster: &SimulatedCluster) -> String {
    let all = cluster.visible("t", P0, 0).unwrap();
    let value = |record: &NewRecord| record.value.clone().map_or("-".to_owned(), |v| String::from_utf8(v).unwrap());
    all.iter().map(|r| format!("{}={}", r.offset, value(&r.record))).collect::<Vec<_>>().join(" ")
}

#[test]
fn it_does_what_every_log_promises() {
    conformance::check(|| Box::new(client(&SimulatedCluster::new(Arc::new(Calm), 10_000, 1))));
}

#[test]
fn the_end_of_a_transaction_has_the_fate_that_was_chosen() {
    for (fate, known, spent, at_once, delivered, fenced) in [
        (Fate::Acknowledged, true, false, "0=a", "0=a", "0=a"),
        (Fate::AnswerLost, false, true, "0=a", "0=a", "0=a"),
        (Fate::RequestLost, false, true, "", "", ""),
        (Fate::Delayed, false, true, "", "0=a", ""),
        (Fate::SentTwice, true, true, "0=a", "0=a", "0=a"),
        (Fate::SentTwiceUnnoticed, true, false, "0=a", "0=a", "0=a"),
    ] {
        for arrives_after_the_fence in [false, true] {
            let (cluster, log) = bench(fate);
            let mut producer = log.fence("p", Generation(1)).unwrap();
            producer.begin().unwrap();
            append(&mut *producer, "k", Some("a"));
            assert_eq!((producer.commit().is_ok(), producer.is_spent()), (known, spent), "{fate:?}");
            assert_eq!(shown(&cluster), at_once, "{fate:?}");
            if arrives_after_the_fence {
                log.fence("p", Generation(1)).unwrap();
            }
            (0..cluster.under_way()).for_each(|_| cluster.deliver(0));
            let expected = if arrives_after_the_fence { fenced } else { delivered };
            assert_eq!(shown(&cluster), expected, "{fate:?}, fenced before: {arrives_after_the_fence}");
        }
    }
}

#[test]
fn a_late_end_ends_the_next_transaction_of_the_same_producer() {
    let (cluster, log) = bench(Fate::SentTwice);
    log.fence("p", Generation(1)).unwrap();
    let mut producer = log.same("p");
    producer.begin().unwrap();
    append(&mut *producer, "k", Some("a"));
    producer.commit().unwrap();
    // The same producer, as if it had not been thrown away.
    let mut same = log.same("p");
    same.begin().unwrap();
    append(&mut *same, "k", Some("half"));
    assert_eq!(shown(&cluster), "0=a");
    cluster.deliver(0);
    assert_eq!(shown(&cluster), "0=a 2=half", "markers take offsets");
}

#[test]
fn an_open_transaction_holds_readers_back_until_its_time_is_over() {
    let (cluster, log) = bench(Fate::Acknowledged);
    let mut hanging = log.fence("hanging", Generation(1)).unwrap();
    hanging.begin().unwrap();
    append(&mut *hanging, "h", Some("never"));
    let mut other = log.fence("other", Generation(1)).unwrap();
    other.begin().unwrap();
    append(&mut *other, "o", Some("b"));
    other.commit().unwrap();
    assert_eq!(shown(&cluster), "");
    let mut read = Vec::new();
    let end = read_to_end(&log, "t", P0, 0, None, |record| {
        read.push(record.offset);
        Ok(())
    });
    assert_eq!((read, end.unwrap()), (vec![1], 4), "the reader waited; two markers are behind the records");
    assert_eq!(hanging.commit().unwrap_err().code(), "producer-fenced", "its time is over");
}

#[test]
fn cleaning_keeps_the_last_of_each_key_and_tombstones_for_their_time() {
    let (cluster, log) = bench(Fate::Acknowledged);
    let mut producer = log.fence("p", Generation(1)).unwrap();
    for (key, value) in [("a", Some("1")), ("b", Some("2")), ("a", Some("3")), ("b", None), ("a", Some("4"))] {
        producer.begin().unwrap();
        append(&mut *producer, key, value);
        producer.commit().unwrap();
    }
    for (before, wait, expected) in [
        (4, 0, "0=1 2=2 4=3 6=- 8=4"),
        (5, 0, "2=2 4=3 6=- 8=4"),
        (7, 9, "4=3 6=- 8=4"),
        (9, 1, "6=- 8=4"),
        (9, 0, "8=4"),
    ] {
        cluster.clean("t", P0, before).unwrap();
        assert_eq!(shown(&cluster), expected, "cleaned up to {before}");
        cluster.advance(wait);
    }
    cluster.drop_records("t", P0, 9).unwrap();
    assert_eq!((shown(&cluster).as_str(), cluster.ends("t", P0).unwrap()), ("", (9, 10)));
}

/// Brokers that lose the marker of the first transaction that ends.
struct LosesFirst(AtomicBool);

impl Fates for LosesFirst {
    fn before(&self, _: &SimulatedCluster, _: Step) {}

    fn of_end(&self, _: &str) -> Fate {
        Fate::Acknowledged
    }

    fn lost_marker(&self, _: &str, _: usize) -> Option<usize> {
        (!self.0.swap(true, Ordering::Relaxed)).then_some(0)
    }
}

fn lossy() -> (Arc<SimulatedCluster>, SimulatedLog) {
    let cluster = cluster(LosesFirst(AtomicBool::new(false)));
    let log = client(&cluster);
    log.ensure(&TopicSpec { name: "t".to_owned(), partitions: 1, retention: Retention::Keep }).unwrap();
    (cluster, log)
}

#[test]
fn a_transaction_without_its_marker_shares_the_fate_of_the_next_one_of_its_id() {
    for (commits, expected) in [(true, "0=a 1=b"), (false, "")] {
        let (cluster, log) = lossy();
        let mut producer = log.fence("p", Generation(1)).unwrap();
        producer.begin().unwrap();
        append(&mut *producer, "k", Some("a"));
        assert_eq!(producer.commit().unwrap(), [("t".to_owned(), P0, 1)], "it is acknowledged");
        cluster.advance(10 * TRANSACTION_MS);
        let mut producer = log.fence("p", Generation(1)).unwrap();
        assert_eq!((shown(&cluster).as_str(), cluster.stable_end("t", P0).unwrap()), ("", 0), "nothing ends it");
        producer.begin().unwrap();
        append(&mut *producer, "k", Some("b"));
        let ended = if commits { producer.commit().map(drop) } else { producer.abort() };
        ended.unwrap();
        assert_eq!(shown(&cluster), expected, "the next one commits: {commits}");
    }
}

#[test]
fn what_is_read_to_its_end_drops_what_its_owner_has_left_open() {
    let (cluster, log) = lossy();
    let mut producer = log.fence("p", Generation(1)).unwrap();
    producer.begin().unwrap();
    append(&mut *producer, "k", Some("a"));
    producer.commit().unwrap();
    let mut read = 0;
    let owner = Owner::fenced("p", Generation(1));
    read_to_end(&log, "t", P0, 0, Some(owner), |_| {
        read += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!((read, cluster.stable_end("t", P0).unwrap()), (0, cluster.end("t", P0).unwrap()));
    // A process that was left for dead has no say.
    let stale = SimulatedLog::new(Arc::clone(&cluster), Arc::new(|| Ok(Generation(2))));
    assert_eq!(stale.release(owner, "t", P0).unwrap_err().code(), "fenced");
}

/// Where nothing more comes for a partition, only a restart writes again what is lost in it.
#[test]
fn a_sink_says_that_the_end_of_its_own_transaction_is_lost() {
    let (_, log) = lossy();
    let producer = Arc::new(SinkProducer::new(Arc::new(log), "p".to_owned(), Delivery::ExactlyOnce));
    let partitions = PartitionCount::new(1).unwrap();
    let config = LogSinkConfig {
        topic: "t".to_owned(),
        topic_partitions: None,
        partitioner: Partitioner::JobPartition,
        sink: 0,
        partitions,
    };
    let sink = LogSink::new(producer, config).unwrap();
    let (job_id, generation) = (JobId(7), Generation(1));
    let context = SinkContext { job_id, generation, checkpoint: Epoch(0), partitions: vec![(P0, 0)] };
    let mut writer = sink.open(&context).unwrap();
    let record = EncodedRecord { value: Some(0..1), ..EncodedRecord::default() };
    writer.write(Epoch(1), P0, EncodedBatch { data: b"a".to_vec(), records: vec![record] }).unwrap();
    writer.end_epoch(Epoch(1)).unwrap();
    let ends = writer.sync().unwrap();
    let outcome = (0..10_000).map(|_| sink.is_settled(&ends)).find(|outcome| !matches!(outcome, Ok(false)));
    assert_eq!(outcome.expect("it is noticed").unwrap_err().code(), "sink-acknowledged-lost");
}
