//! What became of the records of a transaction: where each partition ends, and the first error.

use rdkafka::bindings as sys;
use sys::rd_kafka_resp_err_t;
use thalweg_core::Error;

use super::error::{describe, kafka_error};

/// Delivery reports since they were last taken.
#[derive(Default)]
pub(super) struct Deliveries {
    /// Per topic handle and partition, the offset after the last record.
    ends: Vec<(usize, i32, u64)>,
    first_error: Option<Error>,
}

impl Deliveries {
    /// Takes one report.
    pub(super) fn note(&mut self, message: &sys::rd_kafka_message_t) {
        if message.err != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            // The records behind the first one that failed are purged: their errors say nothing.
            if self.first_error.is_none() {
                // Safety: a report carries its topic.
                let topic =
                    unsafe { std::ffi::CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt)) }.to_string_lossy();
                let doing = format!(
                    "writing a record of {} bytes to topic {topic:?}, partition {}",
                    message.len, message.partition
                );
                self.first_error = Some(kafka_error(message.err, &doing, &describe(message.err)));
            }
            return;
        }
        // A record that was sent twice and kept once is acknowledged without its offset: the end is known a little too low then.
        let Ok(offset) = u64::try_from(message.offset) else { return };
        let (topic, next) = (message.rkt as usize, offset + 1);
        match self.ends.iter_mut().find(|(known, partition, _)| (*known, *partition) == (topic, message.partition)) {
            Some((_, _, end)) => *end = next.max(*end),
            None => self.ends.push((topic, message.partition, next)),
        }
    }

    /// The ends, or the first error, of everything that was reported; forgets both.
    pub(super) fn take(&mut self) -> Result<Vec<(usize, i32, u64)>, Error> {
        let ends = std::mem::take(&mut self.ends);
        match self.first_error.take() {
            Some(error) => Err(error),
            None => Ok(ends),
        }
    }
}
