//! The surfaces of the engine, HTTP over real sockets and the command line in a process of its own, before a job that is a map.

#![allow(clippy::disallowed_methods, reason = "tests of limits in time, against clients on threads of their own")]

mod client;
mod command_line;
mod limits;
mod map_job;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thalweg::http::{Limits, Served, Server, ServerOptions};
use thalweg_core::Metrics;

use map_job::MapJob;

/// The longest that a test waits for anything.
const LIMIT: Duration = Duration::from_secs(20);
/// The route of the keys of the store that holds something.
const KEYS: &str = "/v1/jobs/orders/stores/totals/keys";

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn served(job: &Arc<MapJob>) -> Served {
    Served { job: job.clone(), dead_letters: None }
}

fn start(job: &Arc<MapJob>, limits: Limits) -> Server {
    let metrics = Metrics::default();
    metrics.counter("records_in", "Records read", &[("job", "orders")]).add(10);
    Server::start(loopback(), ServerOptions { token: None, limits }, vec![served(job)], metrics).expect("start")
}
