//! What a client may hold at most.

use std::time::Duration;

/// The limits of a [`Server`](super::Server); the defaults suit a job on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; further ones are told 503 and closed. Each costs one descriptor and some 10 KiB.
    pub max_connections: usize,
    /// Questions for one key that are with the job at a time; further ones are told 503.
    pub max_point_reads: usize,
    /// Scans and multi-gets that are with the job at a time: each may touch thousands of keys, so there are few.
    pub max_wide_reads: usize,
    /// Keys in one multi-get.
    pub max_keys_per_get: usize,
    /// Entries in one page of a scan where the request says nothing.
    pub default_scan_entries: usize,
    /// Entries in one page of a scan at most.
    pub max_scan_entries: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Bytes of a request's line and headers; at least 8 KiB, which hyper needs.
    pub max_head_bytes: usize,
    /// From a connection being ready for a request to the end of that request's headers: cuts off slow senders, and idle
    /// connections too.
    pub head_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// For the job to answer; then 503, for it cannot be told now.
    pub answer_timeout: Duration,
    /// For a client to take the next bytes of an answer; then the connection is closed.
    pub write_timeout: Duration,
    /// For requests in progress at [`Server::stop`](super::Server::stop).
    pub stop_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_point_reads: 1024,
            max_wide_reads: 16,
            max_keys_per_get: 1000,
            default_scan_entries: 100,
            max_scan_entries: 10_000,
            max_body_bytes: 1 << 20,
            max_head_bytes: 64 << 10,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(2),
        }
    }
}
