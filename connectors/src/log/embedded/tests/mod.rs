//! Tests of the embedded log.

mod compaction;
mod damage;
mod folder;
mod model;
mod random;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use thalweg_core::{Generation, PartitionId, Result};

use super::EmbeddedLog;
use crate::log::{Log, LogRecord, NewRecord, Producer, Retention, TopicSpec, conformance};

const P0: PartitionId = PartitionId(0);

/// A clock that the test moves.
#[derive(Clone, Default)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::Relaxed);
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A folder that goes with the test; in memory where the machine offers that, because a sync costs nothing there.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder")
}

fn open(dir: &Path, time: &Time, segment_bytes: u64) -> Result<EmbeddedLog> {
    let time = time.clone();
    EmbeddedLog::open_with(dir, Arc::new(move || time.get()), segment_bytes)
}

fn spec(name: &str, partitions: u32, retention: Retention) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, retention }
}

fn keyed(key: &str, value: Option<&str>) -> NewRecord {
    NewRecord { key: Some(key.into()), value: value.map(Into::into), headers: Vec::new() }
}

fn put(producer: &mut dyn Producer, topic: &str, records: Vec<NewRecord>) -> Result<u64> {
    producer.begin()?;
    for record in records {
        producer.append(topic, P0, record)?;
    }
    Ok(producer.commit()?[0].2)
}

fn all(log: &dyn Log, topic: &str, partition: PartitionId, from: u64) -> Result<Vec<LogRecord>> {
    let mut reader = log.reader(topic, partition, from)?;
    let mut out = Vec::new();
    while reader.read(10_000, &mut out)? {}
    Ok(out)
}

/// As (offset, key, value), for comparing.
fn shown(records: &[LogRecord]) -> Vec<(u64, String, Option<String>)> {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let shown = records
        .iter()
        .map(|r| (r.offset, r.record.key.as_ref().map(text).unwrap_or_default(), r.record.value.as_ref().map(text)));
    shown.collect()
}

#[test]
fn the_embedded_log_keeps_the_contract() {
    for segment_bytes in [1, 1000, 64 << 20] {
        let dirs = std::cell::RefCell::new(Vec::new());
        conformance::check(|| {
            let dir = folder();
            let log = open(dir.path(), &Time::default(), segment_bytes).expect("open");
            dirs.borrow_mut().push(dir);
            Box::new(log)
        });
    }
}

fn fenced(log: &EmbeddedLog) -> Box<dyn Producer> {
    log.fence("test", Generation(1)).expect("fence")
}
