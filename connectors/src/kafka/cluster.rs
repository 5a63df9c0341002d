//! Questions to the cluster, and orders: its topics, their settings, their ends.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::Arc;

use rdkafka::bindings as sys;
use sys::rd_kafka_IsolationLevel_t as IsolationLevel;
use sys::{rd_kafka_ResourceType_t, rd_kafka_admin_op_t, rd_kafka_resp_err_t};
use thalweg_core::{Error, PartitionId, Result};

use super::KafkaConfig;
use super::consumer::{Consumer, END_MS, Isolation, PartitionQueue};
use super::error::{describe, kafka_error};
use super::partitions::PartitionList;
use super::patience::patiently;

const NO_ERROR: rd_kafka_resp_err_t = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
/// Which offset is asked for.
const LATEST: i64 = sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64;
const EARLIEST: i64 = sys::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64;
/// Room for librdkafka's messages.
const MESSAGE_BYTES: usize = 512;

/// The cluster as it is asked and ordered about.
///
/// Every call waits for a broker that is away, as long as the configuration has patience.
pub(super) struct Cluster {
    consumer: Arc<Consumer>,
}

impl Cluster {
    pub(super) fn new(config: &Arc<KafkaConfig>, group: &str) -> Result<Self> {
        // Ends are those of the log itself, also behind open transactions.
        Ok(Self { consumer: Consumer::open(config, group, Isolation::Uncommitted, END_MS)? })
    }

    pub(super) fn rk(&self) -> *mut sys::rd_kafka_t {
        self.consumer.client().rk
    }

    pub(super) fn patiently<T>(&self, doing: &str, attempt: impl FnMut(c_int) -> Result<T>) -> Result<T> {
        patiently(self.consumer.config(), self.consumer.client(), doing, attempt)
    }

    /// Every topic with its number of partitions.
    pub(super) fn topics(&self) -> Result<Vec<(String, u32)>> {
        let doing = "asking for the topics";
        let all = self.patiently(doing, |limit| self.metadata(None, limit, doing))?;
        Ok(all.into_iter().filter_map(|(name, partitions)| Some((name, partitions.ok()?))).collect())
    }

    /// How many partitions a topic has; nothing where there is no such topic.
    pub(super) fn partitions(&self, topic: &str) -> Result<Option<u32>> {
        let doing = format!("asking for topic {topic:?}");
        self.patiently(&doing, |limit| {
            let found = self.metadata(Some(topic), limit, &doing)?;
            match found.into_iter().find(|(name, _)| name == topic) {
                None => Ok(None),
                Some((_, Ok(partitions))) => Ok(Some(partitions)),
                Some((_, Err(code))) => match kafka_error(code, &doing, &describe(code)) {
                    error if error.code() == "kafka-topic-missing" => Ok(None),
                    error => Err(error),
                },
            }
        })
    }

    fn metadata(
        &self,
        topic: Option<&str>,
        limit_ms: c_int,
        doing: &str,
    ) -> Result<Vec<(String, Result<u32, rd_kafka_resp_err_t>)>> {
        let only = topic.map(c_string).transpose()?;
        let mut found = std::ptr::null();
        // Safety: handle and name live; what is returned is read before it is destroyed.
        unsafe {
            let handle = match &only {
                Some(name) => sys::rd_kafka_topic_new(self.rk(), name.as_ptr(), std::ptr::null_mut()),
                None => std::ptr::null_mut(),
            };
            let code = sys::rd_kafka_metadata(self.rk(), c_int::from(only.is_none()), handle, &mut found, limit_ms);
            if !handle.is_null() {
                sys::rd_kafka_topic_destroy(handle);
            }
            if code != NO_ERROR {
                return Err(kafka_error(code, doing, &describe(code)));
            }
            let topics = slice((*found).topics, (*found).topic_cnt);
            let read = |topic: &sys::rd_kafka_metadata_topic| {
                let count = match topic.err {
                    NO_ERROR => Ok(u32::try_from(topic.partition_cnt).unwrap_or(0)),
                    code => Err(code),
                };
                (CStr::from_ptr(topic.topic).to_string_lossy().into_owned(), count)
            };
            let topics = topics.iter().map(read).collect();
            sys::rd_kafka_metadata_destroy(found);
            Ok(topics)
        }
    }

    /// The first offset that is kept, and the end of the log, open transactions included.
    pub(super) fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        let doing = format!("asking for the ends of topic {topic:?}, partition {partition}");
        self.patiently(&doing, |_| match self.consumer.offsets(topic, partition) {
            // What this client knows of the cluster may be old: a broker has just started, a topic was just made.
            Err(error) if error.code() == "kafka-topic-missing" && self.partitions(topic)?.is_some() => {
                Err(error.retryable())
            }
            outcome => outcome,
        })
    }

    /// Reads a partition from an offset on, open transactions included.
    pub(super) fn records(&self, topic: &str, partition: PartitionId, from: u64) -> Result<PartitionQueue> {
        self.consumer.partition(topic, partition, from)
    }

    /// Where readers of committed records stop in these partitions: one request to each broker that leads some.
    pub(super) fn stable_ends(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<u64>> {
        self.list_offsets(topic, partitions, LATEST, IsolationLevel::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED)
    }

    /// [`Cluster::offsets`] of several partitions: two requests to each broker that leads some.
    pub(super) fn offsets_of(&self, topic: &str, partitions: &[PartitionId]) -> Result<Vec<(u64, u64)>> {
        let all = IsolationLevel::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED;
        let first = self.list_offsets(topic, partitions, EARLIEST, all)?;
        let end = self.list_offsets(topic, partitions, LATEST, all)?;
        Ok(first.into_iter().zip(end).collect())
    }

    fn list_offsets(
        &self,
        topic: &str,
        partitions: &[PartitionId],
        which: i64,
        isolation: IsolationLevel,
    ) -> Result<Vec<u64>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let doing = format!("asking for offsets of topic {topic:?}");
        let mut asked = PartitionList::new();
        partitions.iter().try_for_each(|partition| asked.add(topic, *partition, which))?;
        let found = self.patiently(&doing, |limit| match self.try_list_offsets(&asked, isolation, limit, &doing) {
            // What this client knows of the cluster may be old, see `offsets`; of an order it keeps who led a partition.
            Err(error) if error.code() == "kafka-topic-missing" && self.partitions(topic)?.is_some() => {
                Err(error.retryable())
            }
            Err(error) if error.is_retryable() => {
                let _ = self.metadata(Some(topic), limit, &doing);
                Err(error)
            }
            outcome => outcome,
        })?;
        let offset = |partition: &PartitionId| found.get(&i32::from(partition.0)).copied();
        let missing = || Error::external("kafka", format!("{doing}: the answer does not name all of them"));
        partitions.iter().map(|partition| offset(partition).ok_or_else(missing)).collect()
    }

    fn try_list_offsets(
        &self,
        asked: &PartitionList,
        isolation: IsolationLevel,
        limit: c_int,
        doing: &str,
    ) -> Result<BTreeMap<i32, u64>> {
        // Safety: the list lives and is copied; results are read before the event that owns them is destroyed.
        unsafe {
            let event = self.order(rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS, limit, |options, queue| {
                let refused = sys::rd_kafka_AdminOptions_set_isolation_level(options.cast_mut(), isolation);
                assert!(refused.is_null(), "the order has this option");
                sys::rd_kafka_ListOffsets(self.rk(), asked.as_ptr(), options, queue);
            });
            let event = event.map_err(|error| error.context(doing))?;
            let mut count = 0;
            let result = sys::rd_kafka_event_ListOffsets_result(event.0);
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &mut count);
            let offset = |info: &*const sys::rd_kafka_ListOffsetsResultInfo_t| {
                let found = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
                match found.err {
                    NO_ERROR => Ok((found.partition, u64::try_from(found.offset).unwrap_or(0))),
                    code => Err(kafka_error(code, doing, &describe(code))),
                }
            };
            slice(infos, c_int::try_from(count).unwrap_or(0)).iter().map(offset).collect()
        }
    }

    /// Makes a topic; returns whether it was not there.
    pub(super) fn create(
        &self,
        topic: &str,
        partitions: u32,
        replication: Option<u16>,
        settings: &[(&str, String)],
    ) -> Result<bool> {
        let doing = format!("making topic {topic:?}");
        let name = c_string(topic)?;
        self.patiently(&doing, |limit| {
            let mut message = [0 as c_char; MESSAGE_BYTES];
            // Safety: names and values end with a zero byte; what is made here is destroyed here.
            unsafe {
                let new = sys::rd_kafka_NewTopic_new(
                    name.as_ptr(),
                    c_int::try_from(partitions).unwrap_or(c_int::MAX),
                    replication.map_or(-1, c_int::from),
                    message.as_mut_ptr(),
                    message.len(),
                );
                if new.is_null() {
                    let why = CStr::from_ptr(message.as_ptr()).to_string_lossy();
                    return Err(Error::user("kafka-topic", format!("{doing}: {why}")));
                }
                for (name, value) in settings {
                    let (name, value) = (c_string(name)?, c_string(value)?);
                    sys::rd_kafka_NewTopic_set_config(new, name.as_ptr(), value.as_ptr());
                }
                let event = self.order(rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS, limit, |options, queue| {
                    sys::rd_kafka_CreateTopics(self.rk(), &mut { new }, 1, options, queue);
                });
                sys::rd_kafka_NewTopic_destroy(new);
                let event = event.map_err(|error| error.context(&doing))?;
                let mut count = 0;
                let result = sys::rd_kafka_event_CreateTopics_result(event.0);
                let topics = sys::rd_kafka_CreateTopics_result_topics(result, &mut count);
                let only = *slice(topics, c_int::try_from(count).unwrap_or(0)).first().expect("one was ordered");
                match sys::rd_kafka_topic_result_error(only) {
                    NO_ERROR => Ok(true),
                    rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS => Ok(false),
                    code => {
                        let why = sys::rd_kafka_topic_result_error_string(only);
                        let why = if why.is_null() {
                            describe(code)
                        } else {
                            CStr::from_ptr(why).to_string_lossy().into_owned()
                        };
                        Err(kafka_error(code, &doing, &why))
                    }
                }
            }
        })
    }

    /// The settings of a topic.
    pub(super) fn settings(&self, topic: &str) -> Result<BTreeMap<String, String>> {
        let doing = format!("asking for the settings of topic {topic:?}");
        let name = c_string(topic)?;
        self.patiently(&doing, |limit| {
            // Safety: the name ends with a zero byte; results are read before the event that owns them is destroyed.
            unsafe {
                let kind = rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
                let resource = sys::rd_kafka_ConfigResource_new(kind, name.as_ptr());
                let op = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
                let event = self.order(op, limit, |options, queue| {
                    sys::rd_kafka_DescribeConfigs(self.rk(), &mut { resource }, 1, options, queue);
                });
                sys::rd_kafka_ConfigResource_destroy(resource);
                let event = event.map_err(|error| error.context(&doing))?;
                let mut count = 0;
                let result = sys::rd_kafka_event_DescribeConfigs_result(event.0);
                let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
                let only = *slice(resources, c_int::try_from(count).unwrap_or(0)).first().expect("one was asked for");
                let code = sys::rd_kafka_ConfigResource_error(only);
                if code != NO_ERROR {
                    return Err(kafka_error(code, &doing, &describe(code)));
                }
                let entries = sys::rd_kafka_ConfigResource_configs(only, &mut count);
                let entry = |entry: &*const sys::rd_kafka_ConfigEntry_t| {
                    let value = sys::rd_kafka_ConfigEntry_value(*entry);
                    let name = CStr::from_ptr(sys::rd_kafka_ConfigEntry_name(*entry)).to_string_lossy().into_owned();
                    (!value.is_null()).then(|| (name, CStr::from_ptr(value).to_string_lossy().into_owned()))
                };
                Ok(slice(entries, c_int::try_from(count).unwrap_or(0)).iter().filter_map(entry).collect())
            }
        })
    }

    /// Drops the records before an offset.
    pub(super) fn delete_records(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        let doing = format!("dropping records of topic {topic:?}, partition {partition}");
        let list = PartitionList::of(topic, partition, i64::try_from(before).unwrap_or(i64::MAX))?;
        self.patiently(&doing, |limit| {
            // Safety: the list lives; what is made here is destroyed here.
            unsafe {
                let records = sys::rd_kafka_DeleteRecords_new(list.as_ptr());
                let op = rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETERECORDS;
                let event = self.order(op, limit, |options, queue| {
                    sys::rd_kafka_DeleteRecords(self.rk(), &mut { records }, 1, options, queue);
                });
                sys::rd_kafka_DeleteRecords_destroy(records);
                event.map(drop).map_err(|error| error.context(&doing))
            }
        })
    }

    /// Gives an order and waits for its result.
    ///
    /// # Safety
    /// `give` gives one order with these options and this queue.
    pub(super) unsafe fn order(
        &self,
        op: rd_kafka_admin_op_t,
        limit_ms: c_int,
        give: impl FnOnce(*const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    ) -> Result<Event> {
        let mut message = [0 as c_char; MESSAGE_BYTES];
        // The broker may need a little longer than a request does.
        let limit_ms = limit_ms.saturating_mul(10);
        // Safety: what is made here is destroyed here, the event by its owner.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(self.rk(), op);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, limit_ms, message.as_mut_ptr(), message.len());
            let queue = sys::rd_kafka_queue_new(self.rk());
            give(options, queue);
            let event = sys::rd_kafka_queue_poll(queue, limit_ms.saturating_mul(2));
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            if event.is_null() {
                let code = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT;
                return Err(kafka_error(code, "an order to the cluster", &describe(code)));
            }
            let event = Event(event);
            match sys::rd_kafka_event_error(event.0) {
                NO_ERROR => Ok(event),
                code => Err(kafka_error(code, "an order to the cluster", &describe(code))),
            }
        }
    }
}

/// The result of an order.
pub(super) struct Event(pub(super) *mut sys::rd_kafka_event_t);

impl Drop for Event {
    fn drop(&mut self) {
        // Safety: it is owned.
        unsafe { sys::rd_kafka_event_destroy(self.0) };
    }
}

pub(super) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::user("kafka-name", format!("{text:?}: a zero byte has no place in a name")))
}

/// # Safety
/// `start` points to `count` elements that live as long as the result is used, or `count` is 0.
unsafe fn slice<'a, T>(start: *const T, count: c_int) -> &'a [T] {
    match usize::try_from(count) {
        Ok(count) if count > 0 => unsafe { std::slice::from_raw_parts(start, count) },
        _ => &[],
    }
}
