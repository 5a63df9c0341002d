//! What topics are: their ids, and which offset a time stands for.

use std::ffi::{CStr, c_char};

use rdkafka::bindings as sys;
use sys::{rd_kafka_admin_op_t, rd_kafka_resp_err_t};
use thalweg_core::{Error, PartitionId, Result};

use super::cluster::{Cluster, c_string};
use super::error::{describe, kafka_error};
use super::partitions::PartitionList;

const NO_ERROR: rd_kafka_resp_err_t = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A topic as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Another one for each topic that is made, also under a name that was there before.
    pub(super) id: String,
    /// How many partitions it has.
    pub(super) partitions: u32,
    /// Whether it is the cluster's own.
    pub(super) internal: bool,
}

impl Cluster {
    /// The id that the cluster was given when it was made.
    pub(super) fn id(&self) -> Result<String> {
        let doing = "asking for the id of the cluster";
        self.patiently(doing, |limit| {
            // Safety: the handle lives; the text is owned, and is freed after it was copied.
            unsafe {
                let id = sys::rd_kafka_clusterid(self.rk(), limit);
                if id.is_null() {
                    let code = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT;
                    return Err(kafka_error(code, doing, &describe(code)));
                }
                let text = CStr::from_ptr(id).to_string_lossy().into_owned();
                sys::rd_kafka_mem_free(self.rk(), id.cast());
                Ok(text)
            }
        })
    }

    /// A topic; nothing where there is none of this name.
    pub(super) fn describe(&self, topic: &str) -> Result<Option<Described>> {
        let doing = format!("asking what topic {topic:?} is");
        let name = c_string(topic)?;
        self.patiently(&doing, |limit| {
            let mut names: [*const c_char; 1] = [name.as_ptr()];
            // Safety: the names live; what is made here is destroyed here, results are read before the event that owns them is.
            unsafe {
                let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
                let op = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
                let event = self.order(op, limit, |options, queue| {
                    sys::rd_kafka_DescribeTopics(self.rk(), topics, options, queue);
                });
                sys::rd_kafka_TopicCollection_destroy(topics);
                let event = event.map_err(|error| error.context(&doing))?;
                let mut count = 0;
                let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
                let all = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
                assert_eq!(count, 1, "one topic was asked for");
                read(*all, &doing)
            }
        })
    }

    /// The first offset whose record was written at or after a time, microseconds since 1970; nothing where all are older.
    pub(super) fn offset_at(&self, topic: &str, partition: PartitionId, time: i64) -> Result<Option<u64>> {
        let doing = format!("asking topic {topic:?}, partition {partition}, for the first offset of a time");
        self.patiently(&doing, |limit| {
            // Rounded up: a record of the same millisecond may be older.
            let list =
                PartitionList::of(topic, partition, time.div_euclid(1000) + i64::from(time.rem_euclid(1000) > 0))?;
            // Safety: handle and list live.
            let code = unsafe { sys::rd_kafka_offsets_for_times(self.rk(), list.as_ptr(), limit) };
            if code != NO_ERROR {
                return Err(kafka_error(code, &doing, &describe(code)));
            }
            match list.offsets().into_iter().next().expect("one was asked for") {
                Ok(offset) => Ok(u64::try_from(offset).ok()),
                Err(code) => Err(kafka_error(code, &doing, &describe(code))),
            }
        })
    }
}

/// # Safety
/// The description lives.
unsafe fn read(topic: *const sys::rd_kafka_TopicDescription_t, doing: &str) -> Result<Option<Described>> {
    // Safety: what is asked of a description lives as long as it does.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && sys::rd_kafka_error_code(error) != NO_ERROR {
            let code = sys::rd_kafka_error_code(error);
            let error = kafka_error(code, doing, &describe(code));
            return if error.code() == "kafka-topic-missing" { Ok(None) } else { Err(error) };
        }
        let id = sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(topic));
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        if id.is_null() {
            return Err(Error::external(
                "kafka",
                format!("{doing}: the broker gives topics no ids; it must be 2.8 or later"),
            ));
        }
        Ok(Some(Described {
            // As Kafka's own tools show it.
            id: CStr::from_ptr(id).to_string_lossy().replace('/', "_").replace('+', "-"),
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
            internal: sys::rd_kafka_TopicDescription_is_internal(topic) != 0,
        }))
    }
}
