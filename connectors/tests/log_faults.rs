//! The embedded log under injected errors and kills: what was acknowledged is there, a transaction is whole or absent.
//!
//! The points are global to a process, so there is one test here, which also starts this binary again to have it killed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use thalweg_connectors::log::{EmbeddedLog, Log, NewRecord, Retention, TopicSpec};
use thalweg_core::{Generation, PartitionId, Result, failpoint};

const TOPICS: [(&str, Retention); 2] =
    [("kept", Retention::Keep), ("compact", Retention::Compact { delete_retention_ms: 1 << 40 })];
const KEYS: u64 = 7;
const PARTITIONS: u16 = 2;
const DIR_VARIABLE: &str = "THALWEG_TEST_LOG_DIR";

fn open(dir: &Path) -> Result<EmbeddedLog> {
    let log = EmbeddedLog::open_with(dir, Arc::new(|| 0), 2000)?;
    for (name, retention) in TOPICS {
        log.ensure(&TopicSpec { name: name.to_owned(), partitions: u32::from(PARTITIONS), retention })?;
    }
    Ok(log)
}

/// Transaction `n`: two records to each partition of each topic.
fn commit(log: &EmbeddedLog, n: u64) -> Result<()> {
    let mut producer = log.fence("test", Generation(1))?;
    producer.begin()?;
    for (topic, _) in TOPICS {
        for partition in (0..PARTITIONS).map(PartitionId) {
            for part in 0..2u64 {
                let record = NewRecord {
                    key: Some(vec![((2 * n + part) % KEYS) as u8]),
                    value: Some(n.to_le_bytes().to_vec()),
                    headers: Vec::new(),
                };
                producer.append(topic, partition, record)?;
            }
        }
    }
    producer.commit().map(drop)
}

/// Every partition shows the transactions up to `acknowledged`, and perhaps one more, whole.
fn check(log: &EmbeddedLog, acknowledged: u64, doing: &str) -> u64 {
    let mut most = acknowledged;
    for (topic, _) in TOPICS {
        for partition in (0..PARTITIONS).map(PartitionId) {
            let mut records = Vec::new();
            let mut reader = log.reader(topic, partition, 0).expect("reader");
            while reader.read(1000, &mut records).expect("read") {}
            let (_, end) = log.offsets(topic, partition).expect("offsets");
            assert!(
                end == 2 * acknowledged || end == 2 * acknowledged + 2,
                "{doing}: {topic}/{partition} ends at {end}, {acknowledged} commits"
            );
            most = most.max(end / 2);
            assert!(
                records.iter().all(|r| r.record.value == Some((r.offset / 2).to_le_bytes().to_vec())),
                "{doing}: wrong values"
            );
            let last_of_each = |offset: u64| offset + KEYS >= end;
            let shown: Vec<u64> = records.iter().map(|r| r.offset).collect();
            match topic {
                "kept" => assert!(shown.iter().copied().eq(0..end), "{doing}: {shown:?}"),
                _ => assert!(
                    (0..end).filter(|o| last_of_each(*o)).all(|o| shown.contains(&o)),
                    "{doing}: {shown:?} of {end}"
                ),
            }
        }
    }
    most
}

/// Brings all partitions to the same number of transactions: those that are behind get what they lack.
fn repair(dir: &Path, acknowledged: u64, doing: &str) {
    let log = open(dir).expect("opens again");
    let most = check(&log, acknowledged, doing);
    let mut producer = log.fence("repair", Generation(1)).expect("fence");
    producer.begin().expect("begin");
    for (topic, _) in TOPICS {
        for partition in (0..PARTITIONS).map(PartitionId) {
            let (_, end) = log.offsets(topic, partition).expect("offsets");
            for offset in end..2 * most {
                let record = NewRecord {
                    key: Some(vec![(offset % KEYS) as u8]),
                    value: Some((offset / 2).to_le_bytes().to_vec()),
                    headers: Vec::new(),
                };
                producer.append(topic, partition, record).expect("append");
            }
        }
    }
    producer.commit().expect("commit");
    assert_eq!(check(&log, most, doing), most);
}

#[test]
fn faults_lose_nothing() {
    if std::env::var_os(DIR_VARIABLE).is_none() {
        an_error_stops_the_partition();
        a_kill_leaves_whole_transactions();
    }
}

fn an_error_stops_the_partition() {
    for point in ["log-append", "log-sync", "log-commit", "log-clean-rename"] {
        for hit in 1..=6 {
            let dir = tempfile::tempdir().expect("a folder");
            let doing = format!("{point}=error@{hit}");
            let log = open(dir.path()).expect("open");
            let mut acknowledged = 0;
            failpoint::arm(&doing).expect("armed");
            let error = loop {
                assert!(acknowledged < 100, "{doing}: never reached");
                if let Err(error) = commit(&log, acknowledged) {
                    break error;
                }
                acknowledged += 1;
                if acknowledged % 5 == 0
                    && let Err(error) = log.clean()
                {
                    break error;
                }
            };
            failpoint::arm("").expect("disarmed");
            assert_eq!(error.code(), "disk-full", "{doing}: {error}");
            if point == "log-clean-rename" {
                log.clean().expect("cleaning works again");
                commit(&log, acknowledged).expect("a failed cleaning stops nobody");
                acknowledged += 1;
            } else {
                assert_eq!(commit(&log, acknowledged).err().map(|e| e.code()), Some("log-failed"), "{doing}");
            }
            assert!(check(&log, acknowledged, &doing) == acknowledged, "{doing}: what failed is not shown");
            drop(log);
            repair(dir.path(), acknowledged, &doing);
        }
    }
}

/// Not a test by itself: the process that is killed.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let log = open(Path::new(&dir)).expect("open");
    failpoint::arm_from_env().expect("armed");
    let (_, end) = log.offsets("kept", PartitionId(0)).expect("offsets");
    for n in end / 2..end / 2 + 60 {
        commit(&log, n).expect("commit");
        println!("\nacknowledged {}", n + 1);
        if n % 5 == 0 {
            log.clean().expect("clean");
        }
    }
}

fn a_kill_leaves_whole_transactions() {
    for point in ["log-append", "log-sync", "log-commit", "log-clean-rename"] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut acknowledged = 0;
        for hit in [1, 2, 3, 6, 9] {
            let doing = format!("{point}=kill@{hit}");
            let mut child = Command::new(std::env::current_exe().expect("this binary"));
            child
                .args(["child", "--exact", "--nocapture"])
                .env(DIR_VARIABLE, dir.path())
                .env(failpoint::VARIABLE, &doing);
            let output = child.stderr(Stdio::piped()).output().expect("runs");
            assert!(!output.status.success(), "{doing}: not killed");
            let text = String::from_utf8_lossy(&output.stdout);
            let told = text.lines().filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok()).next_back();
            acknowledged = told.unwrap_or(acknowledged);
            repair(dir.path(), acknowledged, &doing);
            let log = open(dir.path()).expect("open");
            acknowledged = log.offsets("kept", PartitionId(0)).expect("offsets").1 / 2;
        }
    }
}
