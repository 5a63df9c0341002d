//! What librdkafka's error codes mean to a job.

use rdkafka::bindings as sys;
use sys::rd_kafka_resp_err_t::{self, *};
use thalweg_core::Error;

/// The code of an error that says only that another one came before it.
pub(super) const PURGED: &str = "kafka-purged";

/// An error of ours for one of librdkafka's.
///
/// `kafka-denied`, `kafka-topic-missing` and `record-too-large` are the user's to mend; `producer-fenced` says that another producer
/// has taken the id, which may have been one of the same job; `kafka-away` may pass, and a retry can help; everything else is `kafka`.
pub(super) fn kafka_error(code: rd_kafka_resp_err_t, doing: &str, why: &str) -> Error {
    let text = |advice: &str| format!("{doing}: {why}{advice}");
    match code {
        RD_KAFKA_RESP_ERR__FENCED
        | RD_KAFKA_RESP_ERR_PRODUCER_FENCED
        | RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH
        | RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING
        | RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID => Error::external("producer-fenced", text("")),
        RD_KAFKA_RESP_ERR__PURGE_QUEUE | RD_KAFKA_RESP_ERR__PURGE_INFLIGHT => Error::external(PURGED, text("")),
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_DELEGATION_TOKEN_AUTHORIZATION_FAILED => {
            Error::user("kafka-denied", text("; give the job's user this right on the broker"))
        }
        RD_KAFKA_RESP_ERR__AUTHENTICATION
        | RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED
        | RD_KAFKA_RESP_ERR__SSL
        | RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE
        | RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM => {
            Error::user("kafka-denied", text("; check the security properties of [kafka.properties]"))
        }
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
        | RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID => {
            Error::user("kafka-topic-missing", text("; check its name, and make it where it is missing"))
        }
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE | RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE => Error::user(
            "record-too-large",
            text(
                "; raise \"message.max.bytes\" of [kafka.properties] and max.message.bytes of the topic, or write smaller records",
            ),
        ),
        RD_KAFKA_RESP_ERR__TRANSPORT
        | RD_KAFKA_RESP_ERR__TIMED_OUT
        | RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE
        | RD_KAFKA_RESP_ERR__MSG_TIMED_OUT
        | RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
        | RD_KAFKA_RESP_ERR__RESOLVE
        | RD_KAFKA_RESP_ERR__WAIT_COORD
        | RD_KAFKA_RESP_ERR__WAIT_CACHE
        // A broker has left the cluster while it was asked, or has not told yet who leads a partition.
        | RD_KAFKA_RESP_ERR__DESTROY_BROKER
        | RD_KAFKA_RESP_ERR__NOENT
        | RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
        | RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION
        // Of a leader that is new: it does not know the end yet.
        | RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE
        | RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH
        | RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH
        | RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
        | RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE
        | RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE
        | RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION
        | RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS
        | RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE
        | RD_KAFKA_RESP_ERR_NOT_COORDINATOR
        | RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS
        | RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS
        | RD_KAFKA_RESP_ERR_NOT_CONTROLLER
        | RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR => Error::external("kafka-away", text("")).retryable(),
        _ => Error::external("kafka", text("")),
    }
}

/// The message of a code.
pub(super) fn describe(code: rd_kafka_resp_err_t) -> String {
    // Safety: librdkafka's strings are static and end with a zero byte.
    unsafe { std::ffi::CStr::from_ptr(sys::rd_kafka_err2str(code)) }.to_string_lossy().into_owned()
}
