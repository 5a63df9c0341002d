//! A job that is a map: what the surfaces are tested before.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use thalweg_core::{
    CheckpointInfo, Entry, Epoch, Generation, JobId, JobLag, JobName, JobService, JobStatus, PartitionId, Phase,
    ProgressRatio, Query, QueryError, QueryReply, ReadOptions, Reply, RestoreInfo, ScanRange, StoreInfo,
};

/// A page may be shorter than the limit: clients have to go by the cursor.
const MOST_PER_PAGE: usize = 4;

/// A job whose stores are maps from text to JSON text. Store `stuck` never answers.
pub(crate) struct MapJob {
    pub(crate) phase: Mutex<Phase>,
    totals: BTreeMap<String, String>,
    pub(crate) stuck: Mutex<Vec<Reply>>,
    pub(crate) asked: Mutex<Vec<ReadOptions>>,
}

impl MapJob {
    pub(crate) fn new() -> Arc<Self> {
        let entries =
            [("", "0"), ("a", "{\"count\":1}"), ("a/b c?&+", "2"), ("b", "3"), ("ä", "\"text\""), ("null", "null")];
        Arc::new(Self {
            phase: Mutex::new(Phase::Running),
            totals: entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            stuck: Mutex::default(),
            asked: Mutex::default(),
        })
    }

    pub(crate) fn entry(key: &str, value: Option<&String>) -> Entry {
        Entry { encoded: key.as_bytes().to_vec(), key: Value::from(key).to_string(), value: value.cloned() }
    }

    fn get(&self, key: &str) -> Result<Entry, QueryError> {
        if key.starts_with('\u{1}') {
            return Err(QueryError::BadKey(format!("key {key:?} is not a text of this store")));
        }
        Ok(Self::entry(key, self.totals.get(key)))
    }

    fn scan(&self, range: &ScanRange) -> QueryReply {
        let inside = |key: &str| {
            range.from.as_deref().is_none_or(|from| key >= from)
                && range.to.as_deref().is_none_or(|to| key < to)
                && range.prefix.as_deref().is_none_or(|prefix| key.starts_with(prefix))
        };
        let low = match &range.after {
            Some(after) => Bound::Excluded(String::from_utf8(after.clone()).expect("a cursor of this store")),
            None => Bound::Unbounded,
        };
        let mut found = self.totals.range((low, Bound::Unbounded)).filter(|(key, _)| inside(key));
        let entries: Vec<Entry> = found
            .by_ref()
            .take(range.limit.min(MOST_PER_PAGE))
            .map(|(key, value)| Self::entry(key, Some(value)))
            .collect();
        reply(entries, found.next().is_some())
    }

    fn answer(&self, store: &str, query: Query) -> Result<QueryReply, QueryError> {
        match (store, query) {
            ("busy", _) => Err(QueryError::Unavailable("the owner's queue is full".to_owned())),
            ("broken", _) => Err(QueryError::Failed("checksum of a block".to_owned())),
            ("totals", Query::Get { key }) => Ok(reply(vec![self.get(&key)?], false)),
            ("totals", Query::GetMany { keys }) => {
                Ok(reply(keys.iter().map(|key| self.get(key)).collect::<Result<_, _>>()?, false))
            }
            ("totals", Query::Scan(range)) => Ok(self.scan(&range)),
            (other, _) => Err(QueryError::NoSuchStore(other.to_owned())),
        }
    }
}

pub(crate) fn reply(entries: Vec<Entry>, more: bool) -> QueryReply {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    QueryReply { entries, more, epoch: Epoch(7), minted_at: i64::try_from(now).expect("before 294,247") - 5_000 }
}

impl JobService for MapJob {
    fn status(&self) -> JobStatus {
        let state = *self.phase.lock().expect("lock");
        JobStatus {
            job: JobName::new("orders").expect("a name"),
            job_id: JobId(0xabc),
            state,
            reason: (state == Phase::Failed).then(|| "the disk is full".to_owned()),
            generation: Generation(3),
            epoch: Epoch(7),
            epochs_open: 1,
            checkpoint: self.checkpoints().first().cloned(),
            checkpoint_failure: Some("checkpoint 6: no answer".to_owned()),
            records_in: 10,
            records_out: 9,
            dead_letters: 1,
            progress: Some(ProgressRatio(250_000)),
            lag: Some(JobLag { records: 12, millis: Some(1500) }),
            restore: (state == Phase::Restoring).then_some(RestoreInfo { done: 5, total: 10, left_ms: Some(2000) }),
            workers: 2,
        }
    }

    fn stores(&self) -> Vec<StoreInfo> {
        let store = |name: &str, query| StoreInfo {
            store: name.to_owned(),
            key: "text".to_owned(),
            value: "value".to_owned(),
            query,
            partitions: vec![PartitionId(0), PartitionId(1)],
            changelog: "log".to_owned(),
        };
        vec![store("totals", true), store("secret", false)]
    }

    fn checkpoints(&self) -> Vec<CheckpointInfo> {
        let epoch = Epoch(5);
        vec![CheckpointInfo {
            epoch,
            generation: Generation(3),
            committed_at: 1_500_000,
            duration_ms: 4,
            changed_keys: 8,
        }]
    }

    fn graph(&self) -> Value {
        json!({ "nodes": [{ "id": "in", "kind": "source" }], "edges": [] })
    }

    fn ask(&self, store: &str, query: Query, options: ReadOptions, reply: Reply) {
        self.asked.lock().expect("lock").push(options);
        if store == "stuck" {
            return self.stuck.lock().expect("lock").push(reply);
        }
        reply(self.answer(store, query));
    }
}
