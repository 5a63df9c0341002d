//! A consumer whose partitions are read each by itself, from a queue of its own.
//!
//! Partitions are assigned one by one, never by a group: the group's name serves for committed positions alone.

use std::ffi::{CString, c_int, c_void};
use std::sync::Arc;

use parking_lot::Mutex;
use rdkafka::bindings as sys;
use sys::{rd_kafka_resp_err_t, rd_kafka_type_t};
use thalweg_core::{Error, PartitionId, Result};

use super::KafkaConfig;
use super::client::{Client, NativeConfig};
use super::cluster::c_string;
use super::error::{describe, kafka_error};
use super::partitions::PartitionList;
use super::patience::patiently;
use crate::Waker;

/// How soon a broker says that there is nothing more, where what was written is read back: that ends with it, and a start waits for it.
pub(super) const END_MS: u32 = 10;
/// Messages that are taken from librdkafka at once.
const BATCH: usize = 1024;
/// What librdkafka may hold of each partition, whose queue is its own, and how it goes on after a pause.
const LIMITS: [(&str, &str); 4] = [
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.message.max.bytes", "1048576"),
    // How long a partition whose queue was full is left alone, and one that had an error: a second and a half by default.
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.error.backoff.ms", "100"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isolation {
    /// What a transaction has committed, and nothing behind an open one.
    Committed,
    /// Everything that is in the log.
    Uncommitted,
}

/// A handle that reads.
pub(super) struct Consumer {
    client: Client,
    config: Arc<KafkaConfig>,
    /// Assignments change one at a time.
    assigning: Mutex<()>,
}

impl Consumer {
    /// Makes a consumer; `group` is where positions are committed to. A broker that has nothing to give says so after `wait_ms`:
    /// where a partition ends is known then, and not earlier.
    pub(super) fn open(
        config: &Arc<KafkaConfig>,
        group: &str,
        isolation: Isolation,
        wait_ms: u32,
    ) -> Result<Arc<Self>> {
        let mut native = NativeConfig::new();
        let isolation = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let wait = wait_ms.to_string();
        let own = [
            ("group.id", group),
            ("isolation.level", isolation),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // librdkafka must never choose another place to read from: what is lost is an error.
            ("auto.offset.reset", "error"),
            ("enable.partition.eof", "true"),
        ];
        let limits = LIMITS.into_iter().chain([("fetch.wait.max.ms", wait.as_str())]);
        for (name, value) in limits.chain(config.properties()).chain(own) {
            native.set(name, value)?;
        }
        let client = Client::new(rd_kafka_type_t::RD_KAFKA_CONSUMER, native)?;
        let consumer = Self { client, config: Arc::clone(config), assigning: Mutex::new(()) };
        // Errors and the like arrive where `poll` of the client serves them.
        // Safety: the handle lives.
        unsafe { sys::rd_kafka_poll_set_consumer(consumer.client.rk) };
        Ok(Arc::new(consumer))
    }

    /// The handle.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// How the cluster is reached.
    pub(super) fn config(&self) -> &Arc<KafkaConfig> {
        &self.config
    }

    /// The first offset that is kept, and the end: of what this consumer is let see.
    pub(super) fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        let doing = format!("asking for the ends of topic {topic:?}, partition {partition}");
        let name = c_string(topic)?;
        patiently(&self.config, &self.client, &doing, |limit| {
            let (mut low, mut high) = (0, 0);
            // Safety: handle and name live, the results are written to places of ours.
            let code = unsafe {
                let partition = i32::from(partition.0);
                sys::rd_kafka_query_watermark_offsets(
                    self.client.rk,
                    name.as_ptr(),
                    partition,
                    &mut low,
                    &mut high,
                    limit,
                )
            };
            if code != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(kafka_error(code, &doing, &describe(code)));
            }
            Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
        })
    }

    /// Writes a position to the group, without waiting for it: whoever looks at the group wants to know, the job does not.
    pub(super) fn commit(&self, topic: &str, partition: PartitionId, position: u64) -> Result<()> {
        let list = PartitionList::of(topic, partition, i64::try_from(position).unwrap_or(i64::MAX))?;
        // Safety: handle and list live; the list is copied.
        let code = unsafe { sys::rd_kafka_commit(self.client.rk, list.as_ptr(), 1) };
        if code != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            tracing::debug!("topic {topic:?}, partition {partition}: position {position}: {}", describe(code));
        }
        Ok(())
    }

    /// Begins to read a partition at an offset.
    pub(super) fn partition(
        self: &Arc<Self>,
        topic: &str,
        partition: PartitionId,
        from: u64,
    ) -> Result<PartitionQueue> {
        let topic_c = c_string(topic)?;
        let _one = self.assigning.lock();
        // Safety: the handle lives, the name ends with a zero byte; the queue is owned. Forwarding it to nothing keeps its messages
        // out of the common queue.
        let queue = unsafe {
            let queue = sys::rd_kafka_queue_get_partition(self.client.rk, topic_c.as_ptr(), i32::from(partition.0));
            if queue.is_null() {
                return Err(Error::external(
                    "kafka",
                    format!("topic {topic:?}, partition {partition}: no queue for it"),
                ));
            }
            sys::rd_kafka_queue_forward(queue, std::ptr::null_mut());
            queue
        };
        let queue = PartitionQueue {
            consumer: Arc::clone(self),
            queue,
            topic: topic.to_owned(),
            topic_c,
            partition,
            fetched: Vec::with_capacity(BATCH),
            at: 0,
            waker: None,
        };
        let list = PartitionList::of(topic, partition, i64::try_from(from).unwrap_or(i64::MAX))?;
        // Safety: handle and list live; the error is destroyed by `check`.
        let outcome = unsafe {
            Client::check(sys::rd_kafka_incremental_assign(self.client.rk, list.as_ptr()), "assigning a partition")
        };
        outcome.map_err(|refused| refused.error.context(format!("topic {topic:?}, partition {partition}")))?;
        Ok(queue)
    }
}

/// What is next in a partition.
pub(super) enum Next<'a> {
    /// A record.
    Record(&'a sys::rd_kafka_message_t),
    /// Everything before this offset has been given; more may come.
    End(u64),
    /// Nothing has arrived yet.
    Nothing,
}

/// The messages of one partition, in order.
pub(super) struct PartitionQueue {
    consumer: Arc<Consumer>,
    queue: *mut sys::rd_kafka_queue_t,
    topic: String,
    /// The same for librdkafka.
    topic_c: CString,
    partition: PartitionId,
    /// Messages that librdkafka has handed over, from `at` on.
    fetched: Vec<*mut sys::rd_kafka_message_t>,
    at: usize,
    /// What librdkafka's callback points to.
    waker: Option<Box<Waker>>,
}

// Safety: queues and messages may be used from any thread; this one has one owner.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// The topic and partition, for people.
    pub(super) fn name(&self) -> String {
        format!("topic {:?}, partition {}", self.topic, self.partition)
    }

    /// Where what this consumer is let see ends now.
    pub(super) fn end(&self) -> Result<u64> {
        Ok(self.consumer.offsets(&self.topic, self.partition)?.1)
    }

    /// The next message, which [`PartitionQueue::step`] takes away; waits at most so long for one.
    ///
    /// Errors: `kafka-out-of-range` where the offset is not, or no longer, in the partition; others of the connection that librdkafka
    /// does not mend by itself.
    pub(super) fn peek(&mut self, wait_ms: c_int) -> Result<Next<'_>> {
        loop {
            if self.at == self.fetched.len() && !self.fetch(wait_ms) {
                return Ok(Next::Nothing);
            }
            // Safety: messages behind `at` are owned and not destroyed.
            let message = unsafe { &*self.fetched[self.at] };
            match message.err {
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => return Ok(Next::Record(message)),
                rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                    return Ok(Next::End(u64::try_from(message.offset).unwrap_or(0)));
                }
                code => {
                    let error = self.error(code, message);
                    self.step();
                    match error {
                        // librdkafka goes on by itself.
                        error if error.is_retryable() => tracing::debug!("{error}"),
                        error => return Err(error),
                    }
                }
            }
        }
    }

    fn error(&self, code: rd_kafka_resp_err_t, message: &sys::rd_kafka_message_t) -> Error {
        use rd_kafka_resp_err_t::*;
        // Safety: librdkafka's text ends with a zero byte and lives as long as the message.
        let why = unsafe { std::ffi::CStr::from_ptr(sys::rd_kafka_message_errstr(message)) }.to_string_lossy();
        match code {
            RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET
            | RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE
            | RD_KAFKA_RESP_ERR__LOG_TRUNCATION => {
                let text = format!("{}, offset {}: {why} ({})", self.name(), message.offset, describe(code));
                Error::external("kafka-out-of-range", text)
            }
            code => kafka_error(code, &format!("reading {}", self.name()), &why),
        }
    }

    fn fetch(&mut self, wait_ms: c_int) -> bool {
        self.fetched.clear();
        self.at = 0;
        // Safety: the buffer has room for the batch, and as many as are returned were written.
        unsafe {
            let count = sys::rd_kafka_consume_batch_queue(self.queue, wait_ms, self.fetched.as_mut_ptr(), BATCH);
            self.fetched.set_len(usize::try_from(count).unwrap_or(0));
        }
        !self.fetched.is_empty()
    }

    /// When the next record was written, where it has come already. Nothing is taken away: an error, or the end, is still there.
    pub(super) fn next_time(&mut self) -> Option<i64> {
        if self.at == self.fetched.len() && !self.fetch(0) {
            return None;
        }
        // Safety: messages behind `at` are owned and not destroyed.
        let message = unsafe { &*self.fetched[self.at] };
        (message.err == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| timestamp(message)).flatten()
    }

    /// Where the partition ended when the broker last gave something of it, open transactions included.
    pub(super) fn known_end(&self) -> Option<u64> {
        let (mut low, mut high) = (0, 0);
        // Safety: handle and name live, the results are written to places of ours. Nothing is asked of the broker.
        let code = unsafe {
            let (rk, partition) = (self.consumer.client.rk, i32::from(self.partition.0));
            sys::rd_kafka_get_watermark_offsets(rk, self.topic_c.as_ptr(), partition, &mut low, &mut high)
        };
        (code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| u64::try_from(high).ok()).flatten()
    }

    /// Calls `waker`, from a thread of librdkafka, when something comes after everything was taken.
    pub(super) fn wake(&mut self, waker: Waker) {
        assert!(self.waker.is_none(), "a queue has one waker");
        let waker = self.waker.insert(Box::new(waker));
        // Safety: the queue lives; what the pointer points to is given up after the callback is (see `drop`).
        unsafe {
            let opaque = std::ptr::from_ref::<Waker>(waker).cast_mut().cast();
            sys::rd_kafka_queue_cb_event_enable(self.queue, Some(on_event), opaque);
        }
    }

    /// Takes the message away that [`PartitionQueue::peek`] gave.
    pub(super) fn step(&mut self) {
        // Safety: it is owned, and not used after this.
        unsafe { sys::rd_kafka_message_destroy(self.fetched[self.at]) };
        self.at += 1;
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        while self.at < self.fetched.len() {
            self.step();
        }
        // Safety: the queue lives. The callback is called under the queue's lock, so none runs after this.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue, None, std::ptr::null_mut()) };
        let _one = self.consumer.assigning.lock();
        let list = PartitionList::of(&self.topic, self.partition, 0);
        // Safety: handle, list and queue live; an error says that the partition is not assigned any more.
        unsafe {
            if let Ok(list) = list {
                let rk = self.consumer.client.rk;
                let _ = Client::check(sys::rd_kafka_incremental_unassign(rk, list.as_ptr()), "leaving a partition");
            }
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

unsafe extern "C" fn on_event(_: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // Safety: the pointer is that of `PartitionQueue::wake`.
    let waker = unsafe { &*opaque.cast::<Waker>() };
    waker();
}

/// The bytes of a message.
///
/// Safe because a message that was handed over has a payload and a key of the lengths that it says, or none.
pub(super) fn parts(message: &sys::rd_kafka_message_t) -> (Option<&[u8]>, Option<&[u8]>) {
    let bytes = |start: *mut std::ffi::c_void, len: usize| {
        // Safety: see above; the slice lives as long as the message is borrowed.
        (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), len) })
    };
    (bytes(message.key, message.key_len), bytes(message.payload, message.len))
}

/// When the broker, or the producer, says that the record was written, in microseconds since 1970.
pub(super) fn timestamp(message: &sys::rd_kafka_message_t) -> Option<i64> {
    // Safety: the message lives; the kind of the time is not asked for.
    let ms = unsafe { sys::rd_kafka_message_timestamp(message, std::ptr::null_mut()) };
    (ms >= 0).then(|| ms.saturating_mul(1000))
}

/// The headers of a message, in order.
pub(super) fn headers(message: &sys::rd_kafka_message_t) -> impl Iterator<Item = (&str, &[u8])> {
    let mut all = std::ptr::null_mut();
    // Safety: the message lives, and owns what is returned.
    let found = unsafe { sys::rd_kafka_message_headers(message, &mut all) };
    let count = match found {
        // Safety: the headers were just returned.
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => unsafe { sys::rd_kafka_header_cnt(all) },
        _ => 0,
    };
    (0..count).filter_map(move |index| {
        let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
        // Safety: names end with a zero byte, values have the size that is returned; both live as long as the message.
        unsafe {
            let outcome = sys::rd_kafka_header_get_all(all, index, &mut name, &mut value, &mut size);
            if outcome != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            let name = std::ffi::CStr::from_ptr(name).to_str().ok()?;
            let value = if value.is_null() { &[][..] } else { std::slice::from_raw_parts(value.cast::<u8>(), size) };
            Some((name, value))
        }
    })
}
