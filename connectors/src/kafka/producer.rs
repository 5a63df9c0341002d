//! A transactional producer over librdkafka's C API.
//!
//! The Rust wrapper waits in steps of 100 ms in `flush` and `commit_transaction`; the C calls return as soon as the last delivery
//! report is in, where delivery reports come by callback: a commit takes 3 to 5 ms then.
//!
//! librdkafka cannot tell a delayed EndTxn of one transaction from that of the next (it lacks the second part of KIP-890). So a
//! producer is spent after an abort, an error, a slow commit or a lost connection: [`Producer::is_spent`]; the next one fences it.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use sys::{rd_kafka_resp_err_t, rd_kafka_type_t, rd_kafka_vtype_t};
use thalweg_core::{Error, PartitionId, Result, failpoint};

use super::KafkaConfig;
use super::client::{Client, NativeConfig};
use super::cluster::c_string;
use super::error::{PURGED, describe, kafka_error};
use super::patience::{STOPPING, patiently};
use crate::log::{NewRecordRef, Producer};

/// A commit that takes longer may have been sent twice.
const SLOW_COMMIT: Duration = Duration::from_secs(1);
/// librdkafka asks again after 500 ms where no broker is connected yet, and where the transaction of a producer that was killed is
/// being aborted; each new call asks at once.
const FENCE_STEP: Duration = Duration::from_millis(10);
/// How long the queue is polled before a record is offered to it again.
const FULL_POLL_MS: c_int = 10;
/// Records and bytes that wait for the broker, at most: enough for the full rate, little enough for the memory.
const QUEUE: [(&str, &str); 3] = [
    ("queue.buffering.max.messages", "500000"),
    ("queue.buffering.max.kbytes", "65536"),
    // Whoever waits flushes, which does not linger; until then a batch may fill, and its thread sleep.
    ("linger.ms", "50"),
];
/// Longest wait for the abort of what a failed job leaves open.
const ABORT_MS: c_int = 2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Open,
    /// A commit failed, or something was aborted: another producer has to go on.
    Spent,
}

/// The living producer of an id, until another one is fenced.
pub(super) struct KafkaProducer {
    client: Client,
    config: Arc<KafkaConfig>,
    id: String,
    transactional: bool,
    phase: Phase,
    /// librdkafka's handles of topics, by name.
    topics: BTreeMap<String, Topic>,
}

struct Topic(*mut sys::rd_kafka_topic_t);

// Safety: handles of topics may be used from any thread.
unsafe impl Send for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        // Safety: it is owned, and the client outlives it: see the order of the fields' drop in `KafkaProducer::drop`.
        unsafe { sys::rd_kafka_topic_destroy(self.0) };
    }
}

impl KafkaProducer {
    /// Fences every earlier producer of the id, and waits until its open transaction is aborted.
    pub(super) fn transactional(config: &Arc<KafkaConfig>, id: &str) -> Result<Self> {
        let timeout = config.transaction_timeout.as_millis().to_string();
        let own = [("transactional.id", id), ("transaction.timeout.ms", timeout.as_str())];
        let producer = Self::open(config, id, true, &own)?;
        patiently(config, &producer.client, &format!("fencing producer {id:?}"), |limit_ms| producer.fence(limit_ms))?;
        Ok(producer)
    }

    fn fence(&self, limit_ms: c_int) -> Result<()> {
        let (began, limit) = (Instant::now(), Duration::from_millis(u64::try_from(limit_ms).unwrap_or(0)));
        loop {
            let step = Instant::now();
            // Safety: the handle lives; the error is destroyed by `check`.
            let outcome = unsafe {
                let asked = sys::rd_kafka_init_transactions(self.client.rk, FENCE_STEP.as_millis() as c_int);
                Client::check(asked, "init_transactions")
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(refused) if !refused.retriable => return Err(refused.error),
                Err(refused) if began.elapsed() >= limit => return Err(refused.error.retryable()),
                Err(_) => std::thread::sleep(FENCE_STEP.saturating_sub(step.elapsed())),
            }
        }
    }

    /// A producer without transactions: what it writes is seen at once, and `commit` waits until it is durable.
    pub(super) fn plain(config: &Arc<KafkaConfig>, id: &str) -> Result<Self> {
        let timeout = config.patience.as_millis().to_string();
        Self::open(config, id, false, &[("message.timeout.ms", timeout.as_str())])
    }

    fn open(config: &Arc<KafkaConfig>, id: &str, transactional: bool, own: &[(&str, &str)]) -> Result<Self> {
        let mut native = NativeConfig::new();
        for (name, value) in QUEUE.into_iter().chain(config.properties()).chain(own.iter().copied()) {
            native.set(name, value)?;
        }
        native.set("enable.idempotence", "true")?;
        let client = Client::new(rd_kafka_type_t::RD_KAFKA_PRODUCER, native)?;
        let (config, id) = (Arc::clone(config), id.to_owned());
        Ok(Self { client, config, id, transactional, phase: Phase::Idle, topics: BTreeMap::new() })
    }

    fn expect(&self, phase: Phase, doing: &str) -> Result<()> {
        if self.phase == phase {
            return Ok(());
        }
        let why = match self.phase {
            Phase::Spent => "it is spent; fence anew",
            Phase::Open => "a transaction is open already",
            Phase::Idle => "no transaction is open; begin one first",
        };
        Err(Error::internal("producer-state", format!("producer {:?} cannot {doing}: {why}", self.id)))
    }

    fn topic(&mut self, name: &str) -> Result<*mut sys::rd_kafka_topic_t> {
        if let Some(Topic(known)) = self.topics.get(name) {
            return Ok(*known);
        }
        let name_c = c_string(name)?;
        // Safety: the handle lives, the name ends with a zero byte, and the properties are the default ones.
        let topic = unsafe { sys::rd_kafka_topic_new(self.client.rk, name_c.as_ptr(), std::ptr::null_mut()) };
        if topic.is_null() {
            return Err(Error::user("topic-name", format!("topic {name:?}: Kafka allows no such name")));
        }
        self.topics.insert(name.to_owned(), Topic(topic));
        Ok(topic)
    }

    /// Waits until every record is acknowledged; the ends of the partitions.
    pub(super) fn deliver(&self, limit: Duration) -> Result<Vec<(usize, i32, u64)>> {
        let began = Instant::now();
        loop {
            // Safety: the handle lives.
            let outcome = unsafe { sys::rd_kafka_flush(self.client.rk, 500) };
            if outcome == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return self.client.heard().deliveries.lock().take().map_err(|error| self.cause(error));
            }
            if began.elapsed() >= limit || self.gives_up(began) {
                let seconds = began.elapsed().as_secs_f64();
                let doing = format!(
                    "waiting for acknowledgements for {seconds:.1} s; where the brokers need longer, raise transaction_timeout of [kafka]"
                );
                return Err(kafka_error(outcome, &doing, &describe(outcome)));
            }
        }
    }

    /// Whether the job is to stop, and a broker that is away must not hold that up.
    fn gives_up(&self, began: Instant) -> bool {
        self.config.stopping() && began.elapsed() >= STOPPING
    }

    /// It is not used any more, and leaves what is open to the next fence.
    pub(super) fn spend(&mut self) {
        self.phase = Phase::Spent;
    }

    /// Why the transaction has failed, where its records say only that they were purged: its commit tells.
    fn cause(&self, error: Error) -> Error {
        if error.code() != PURGED || !self.transactional {
            return error;
        }
        // Safety: the handle lives; the error is destroyed by `check`.
        let outcome =
            unsafe { Client::check(sys::rd_kafka_commit_transaction(self.client.rk, ABORT_MS), "commit_transaction") };
        match outcome {
            Err(refused) => refused.error.context(error.message()),
            Ok(()) => error,
        }
    }

    fn end(&mut self) -> Result<Vec<(usize, i32, u64)>> {
        if !self.transactional {
            return self.deliver(self.config.patience + SLOW_COMMIT);
        }
        let limit = self.config.transaction_timeout;
        let began = Instant::now();
        let ends = self.deliver(limit)?;
        failpoint::pass("kafka-commit")?;
        loop {
            // Safety: the handle lives; the error is destroyed by `check`.
            let outcome =
                unsafe { Client::check(sys::rd_kafka_commit_transaction(self.client.rk, 500), "commit_transaction") };
            match outcome {
                Ok(()) => break,
                Err(refused) if refused.retriable && began.elapsed() < limit && !self.gives_up(began) => {}
                Err(refused) => return Err(refused.error),
            }
        }
        failpoint::pass("kafka-committed")?;
        self.client.poll(0);
        let disturbed = self.client.heard().disturbed.swap(false, Ordering::Relaxed);
        if disturbed || began.elapsed() >= SLOW_COMMIT {
            self.phase = Phase::Spent;
        }
        Ok(ends)
    }

    fn abort_open(&mut self) {
        if self.transactional && self.phase == Phase::Open {
            // Safety: the handle lives; the error is destroyed by `check`. Where it fails, the next fence aborts.
            let _ = unsafe { Client::check(sys::rd_kafka_abort_transaction(self.client.rk, ABORT_MS), "abort") };
        }
    }
}

fn memory(bytes: &[u8]) -> sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
    sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: bytes.as_ptr() as *mut c_void, size: bytes.len() }
}

/// The arguments of `rd_kafka_produceva`.
struct Arguments {
    all: [sys::rd_kafka_vu_t; Self::MOST],
    count: usize,
}

impl Arguments {
    /// Topic, partition, flags, key, value, headers.
    const MOST: usize = 6;

    fn new() -> Self {
        let end = sys::rd_kafka_vu_t {
            vtype: rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
            u: sys::rd_kafka_vu_s__bindgen_ty_1 { i: 0 },
        };
        Self { all: [end; Self::MOST], count: 0 }
    }

    fn push(&mut self, vtype: rd_kafka_vtype_t, u: sys::rd_kafka_vu_s__bindgen_ty_1) {
        self.all[self.count] = sys::rd_kafka_vu_t { vtype, u };
        self.count += 1;
    }
}

/// Headers in librdkafka's form, until a record has taken them.
struct Headers(*mut sys::rd_kafka_headers_t);

impl Headers {
    fn new(headers: &[(&str, &[u8])]) -> Self {
        if headers.is_empty() {
            return Self(std::ptr::null_mut());
        }
        // Safety: names and values are copied, each with its length.
        unsafe {
            let all = sys::rd_kafka_headers_new(headers.len());
            for (name, value) in headers {
                let (name, name_bytes) = (name.as_ptr().cast(), name.len() as isize);
                sys::rd_kafka_header_add(all, name, name_bytes, value.as_ptr().cast(), value.len() as isize);
            }
            Self(all)
        }
    }

    /// The record owns them now.
    fn given_away(self) {
        std::mem::forget(self);
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // Safety: no record has taken them.
            unsafe { sys::rd_kafka_headers_destroy(self.0) };
        }
    }
}

impl Producer for KafkaProducer {
    fn begin(&mut self) -> Result<()> {
        self.expect(Phase::Idle, "begin")?;
        if self.transactional {
            // Safety: the handle lives; the error is destroyed by `check`.
            let outcome =
                unsafe { Client::check(sys::rd_kafka_begin_transaction(self.client.rk), "begin_transaction") };
            if let Err(refused) = outcome {
                self.phase = Phase::Spent;
                return Err(refused.error);
            }
        }
        self.phase = Phase::Open;
        Ok(())
    }

    fn append_ref(&mut self, topic: &str, partition: PartitionId, record: NewRecordRef<'_>) -> Result<()> {
        use rd_kafka_vtype_t::*;
        type Union = sys::rd_kafka_vu_s__bindgen_ty_1;
        self.expect(Phase::Open, "append")?;
        let rkt = self.topic(topic)?;
        let mut arguments = Arguments::new();
        arguments.push(RD_KAFKA_VTYPE_RKT, Union { rkt });
        arguments.push(RD_KAFKA_VTYPE_PARTITION, Union { i32_: i32::from(partition.0) });
        arguments.push(RD_KAFKA_VTYPE_MSGFLAGS, Union { i: sys::RD_KAFKA_MSG_F_COPY });
        if let Some(key) = record.key {
            arguments.push(RD_KAFKA_VTYPE_KEY, Union { mem: memory(key) });
        }
        if let Some(value) = record.value {
            arguments.push(RD_KAFKA_VTYPE_VALUE, Union { mem: memory(value) });
        }
        let (headers, mut full_since) = (Headers::new(record.headers), None);
        if !record.headers.is_empty() {
            arguments.push(RD_KAFKA_VTYPE_HEADERS, Union { headers: headers.0 });
        }
        loop {
            // Safety: every argument has the type that it says, and lives during the call; records are copied.
            let code = unsafe {
                let error = sys::rd_kafka_produceva(self.client.rk, arguments.all.as_ptr(), arguments.count);
                if error.is_null() {
                    headers.given_away();
                    return Ok(());
                }
                let code = sys::rd_kafka_error_code(error);
                sys::rd_kafka_error_destroy(error);
                code
            };
            // A blocking produce call deadlocks with a delivery callback in the same thread: poll, and try again.
            if code != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL {
                let bytes = record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
                let doing = format!("writing a record of {bytes} bytes to topic {topic:?}, partition {partition}");
                return Err(kafka_error(code, &doing, &describe(code)));
            }
            // The transaction is over when the broker has not taken anything for so long.
            if full_since.get_or_insert_with(Instant::now).elapsed() >= self.config.transaction_timeout {
                return Err(kafka_error(code, "writing while the broker takes nothing", &describe(code)));
            }
            self.client.poll(FULL_POLL_MS);
        }
    }

    fn commit(&mut self) -> Result<Vec<(String, PartitionId, u64)>> {
        self.expect(Phase::Open, "commit")?;
        self.phase = Phase::Idle;
        let ends = self.end().inspect_err(|_| self.phase = Phase::Spent)?;
        let name =
            |handle: usize| self.topics.iter().find(|(_, topic)| topic.0 as usize == handle).map(|(name, _)| name);
        let end =
            |(handle, partition, end)| Some((name(handle)?.clone(), PartitionId(u16::try_from(partition).ok()?), end));
        Ok(ends.into_iter().filter_map(end).collect())
    }

    fn abort(&mut self) -> Result<()> {
        self.expect(Phase::Open, "abort")?;
        self.abort_open();
        self.phase = Phase::Spent;
        Ok(())
    }

    fn is_spent(&self) -> bool {
        self.phase == Phase::Spent
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.abort_open();
        // Handles of topics go before that of the client, which waits for them.
        self.topics.clear();
    }
}
