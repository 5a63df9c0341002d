//! librdkafka's C API, with as little around it as a program written by hand would have.

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;

use rdkafka::bindings as sys;
use sys::{rd_kafka_resp_err_t, rd_kafka_type_t};

/// No call may take longer.
const LIMIT_MS: c_int = 60_000;
/// How long a full queue is polled before a record is offered again.
const FULL_POLL_MS: c_int = 10;
const NO_ERROR: rd_kafka_resp_err_t = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

fn c_string(text: &str) -> CString {
    CString::new(text).expect("the benchmarks' texts have no zero byte")
}

/// A handle of librdkafka.
struct Handle(*mut sys::rd_kafka_t);

impl Handle {
    fn new(kind: rd_kafka_type_t, properties: &[(&str, &str)]) -> Self {
        let mut message = [0; 512];
        // Safety: every text ends with a zero byte; the handle takes the properties.
        unsafe {
            let config = sys::rd_kafka_conf_new();
            for (name, value) in properties {
                let (name, value) = (c_string(name), c_string(value));
                let set = sys::rd_kafka_conf_set(config, name.as_ptr(), value.as_ptr(), message.as_mut_ptr(), 512);
                assert_eq!(set, sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK, "{name:?} = {value:?}");
            }
            if kind == rd_kafka_type_t::RD_KAFKA_PRODUCER {
                // Without one a flush waits in steps of 100 ms.
                sys::rd_kafka_conf_set_dr_msg_cb(config, Some(delivered));
            }
            let rk = sys::rd_kafka_new(kind, config, message.as_mut_ptr(), message.len());
            assert!(!rk.is_null(), "{}", CStr::from_ptr(message.as_ptr()).to_string_lossy());
            Self(rk)
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Safety: it is destroyed once.
        unsafe { sys::rd_kafka_destroy_flags(self.0, sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE as c_int) };
    }
}

unsafe extern "C" fn delivered(_: *mut sys::rd_kafka_t, message: *const sys::rd_kafka_message_t, _: *mut c_void) {
    // Safety: the message lives during the call.
    assert_eq!(unsafe { (*message).err }, NO_ERROR, "a record was not delivered");
}

/// Panics with what a call says; a baseline has no other way to deal with it.
///
/// # Safety
/// `error` is null or an error that may be destroyed.
unsafe fn check(error: *mut sys::rd_kafka_error_t, doing: &str) {
    if !error.is_null() {
        // Safety: it is an error, destroyed after its last use.
        unsafe {
            let text = CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned();
            sys::rd_kafka_error_destroy(error);
            panic!("{doing}: {text}");
        }
    }
}

/// A topic that is written to.
pub(crate) struct Topic(*mut sys::rd_kafka_topic_t);

/// A producer.
pub(crate) struct Writer {
    handle: Handle,
}

impl Writer {
    /// With a transactional id it fences whoever had it before.
    pub(crate) fn new(bootstrap: &str, id: Option<&str>, more: &[(&str, &str)]) -> Self {
        let mut properties = vec![("bootstrap.servers", bootstrap), ("enable.idempotence", "true")];
        properties.extend(id.map(|id| ("transactional.id", id)));
        properties.extend(more);
        let handle = Handle::new(rd_kafka_type_t::RD_KAFKA_PRODUCER, &properties);
        if id.is_some() {
            // Safety: the handle lives.
            unsafe { check(sys::rd_kafka_init_transactions(handle.0, LIMIT_MS), "init_transactions") };
        }
        Self { handle }
    }

    /// A topic of this writer, which outlives it.
    pub(crate) fn topic(&self, name: &str) -> Topic {
        // Safety: the handle lives, the name ends with a zero byte.
        Topic(unsafe { sys::rd_kafka_topic_new(self.handle.0, c_string(name).as_ptr(), ptr::null_mut()) })
    }

    pub(crate) fn begin(&self) {
        // Safety: the handle lives.
        unsafe { check(sys::rd_kafka_begin_transaction(self.handle.0), "begin_transaction") };
    }

    /// Adds a record; waits while the queue is full.
    pub(crate) fn write(&self, topic: &Topic, partition: i32, key: &[u8], value: &[u8]) {
        // Safety: the topic is of this handle; key and value are copied.
        unsafe {
            while sys::rd_kafka_produce(
                topic.0,
                partition,
                sys::RD_KAFKA_MSG_F_COPY,
                value.as_ptr() as *mut c_void,
                value.len(),
                if key.is_empty() { ptr::null() } else { key.as_ptr().cast() },
                key.len(),
                ptr::null_mut(),
            ) != 0
            {
                let code = sys::rd_kafka_last_error();
                assert_eq!(code, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL, "writing a record");
                sys::rd_kafka_poll(self.handle.0, FULL_POLL_MS);
            }
        }
    }

    /// Waits until everything is acknowledged.
    pub(crate) fn flush(&self) {
        // Safety: the handle lives.
        assert_eq!(unsafe { sys::rd_kafka_flush(self.handle.0, LIMIT_MS) }, NO_ERROR, "flush");
    }

    /// Commits the open transaction with what a reader has read.
    pub(crate) fn commit(&self, reader: &Reader) {
        self.flush();
        // Safety: the handles live; what is made here is destroyed here.
        unsafe {
            let list = reader.positions();
            let group = sys::rd_kafka_consumer_group_metadata(reader.handle.0);
            check(sys::rd_kafka_send_offsets_to_transaction(self.handle.0, list, group, LIMIT_MS), "send_offsets");
            sys::rd_kafka_consumer_group_metadata_destroy(group);
            sys::rd_kafka_topic_partition_list_destroy(list);
            check(sys::rd_kafka_commit_transaction(self.handle.0, LIMIT_MS), "commit_transaction");
        }
    }
}

/// A record as it was read.
pub(crate) struct Message<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

/// A consumer of all partitions of a topic, from the beginning.
pub(crate) struct Reader {
    handle: Handle,
    queue: *mut sys::rd_kafka_queue_t,
    topic: CString,
    next: Vec<i64>,
    batch: Vec<*mut sys::rd_kafka_message_t>,
    /// Partitions whose end was reached.
    ended: Vec<bool>,
}

impl Reader {
    pub(crate) fn new(bootstrap: &str, topic: &str, partitions: usize, more: &[(&str, &str)]) -> Self {
        let mut properties = vec![
            ("bootstrap.servers", bootstrap),
            ("group.id", "thalweg-bench"),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "earliest"),
            ("enable.partition.eof", "true"),
        ];
        properties.extend(more);
        let handle = Handle::new(rd_kafka_type_t::RD_KAFKA_CONSUMER, &properties);
        let (topic, next) = (c_string(topic), vec![0; partitions]);
        // Safety: the handle lives, the list is destroyed after its use.
        let queue = unsafe {
            sys::rd_kafka_poll_set_consumer(handle.0);
            let list = list(&topic, &next);
            let code = sys::rd_kafka_assign(handle.0, list);
            sys::rd_kafka_topic_partition_list_destroy(list);
            assert_eq!(code, NO_ERROR, "assign");
            sys::rd_kafka_queue_get_consumer(handle.0)
        };
        Self { handle, queue, topic, next, batch: Vec::with_capacity(4096), ended: vec![false; partitions] }
    }

    fn positions(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        list(&self.topic, &self.next)
    }

    /// Gives at most so many records that arrive within so long; returns how many.
    pub(crate) fn read(&mut self, most: usize, wait_ms: i64, mut take: impl FnMut(Message<'_>)) -> usize {
        let most = most.min(self.batch.capacity());
        let mut records = 0;
        // Safety: the buffer has room for as many; each message is destroyed after its use, and its parts have the lengths that it
        // says.
        unsafe {
            let wait = c_int::try_from(wait_ms.max(0)).unwrap_or(c_int::MAX);
            let count = sys::rd_kafka_consume_batch_queue(self.queue, wait, self.batch.as_mut_ptr(), most);
            self.batch.set_len(usize::try_from(count).unwrap_or(0));
            for message in self.batch.drain(..) {
                let (found, partition) = (&*message, (*message).partition as usize);
                match found.err {
                    NO_ERROR => {
                        let (key, value) = (bytes(found.key, found.key_len), bytes(found.payload, found.len));
                        take(Message { key, value });
                        self.next[partition] = found.offset + 1;
                        self.ended[partition] = false;
                        records += 1;
                    }
                    rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => self.ended[partition] = true,
                    // librdkafka goes on by itself.
                    _ => {}
                }
                sys::rd_kafka_message_destroy(message);
            }
        }
        records
    }

    /// Whether everything has been read that was visible.
    pub(crate) fn at_end(&self) -> bool {
        self.ended.iter().all(|ended| *ended)
    }
}

unsafe fn bytes<'a>(start: *const c_void, len: usize) -> &'a [u8] {
    // Safety: the caller's message has so many bytes there.
    if start.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(start.cast(), len) } }
}

fn list(topic: &CStr, next: &[i64]) -> *mut sys::rd_kafka_topic_partition_list_t {
    // Safety: the list is the caller's; its elements are in it.
    unsafe {
        let list = sys::rd_kafka_topic_partition_list_new(next.len() as c_int);
        for (partition, offset) in next.iter().enumerate() {
            let element = sys::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), partition as i32);
            (*element).offset = *offset;
        }
        list
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Safety: the queue is owned; the handle goes after it.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}
