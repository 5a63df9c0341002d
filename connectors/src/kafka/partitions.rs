//! librdkafka's lists of topic partitions.

use rdkafka::bindings as sys;
use thalweg_core::{PartitionId, Result};

use super::cluster::c_string;

/// An owned list.
pub(super) struct PartitionList(*mut sys::rd_kafka_topic_partition_list_t);

impl PartitionList {
    /// An empty list.
    pub(super) fn new() -> Self {
        // Safety: no precondition; the list is owned.
        Self(unsafe { sys::rd_kafka_topic_partition_list_new(1) })
    }

    /// A list of one partition with an offset.
    pub(super) fn of(topic: &str, partition: PartitionId, offset: i64) -> Result<Self> {
        let mut list = Self::new();
        list.add(topic, partition, offset)?;
        Ok(list)
    }

    /// Adds a partition with an offset.
    pub(super) fn add(&mut self, topic: &str, partition: PartitionId, offset: i64) -> Result<()> {
        let topic = c_string(topic)?;
        // Safety: the list lives, the name is copied; the element that is returned is in the list.
        unsafe {
            let element = sys::rd_kafka_topic_partition_list_add(self.0, topic.as_ptr(), i32::from(partition.0));
            (*element).offset = offset;
        }
        Ok(())
    }

    /// The offsets, in the order in which the partitions were added; an error of one is in its place.
    pub(super) fn offsets(&self) -> Vec<Result<i64, sys::rd_kafka_resp_err_t>> {
        // Safety: a list has as many elements as it says.
        let elements = unsafe {
            let list = &*self.0;
            std::slice::from_raw_parts(list.elems, usize::try_from(list.cnt).unwrap_or(0))
        };
        let offset = |element: &sys::rd_kafka_topic_partition_t| match element.err {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(element.offset),
            code => Err(code),
        };
        elements.iter().map(offset).collect()
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        self.0
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // Safety: it is owned.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.0) };
    }
}
