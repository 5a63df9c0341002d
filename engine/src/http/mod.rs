//! The HTTP surface: status, stores and metrics of the jobs of this process.
//!
//! One OS thread serves everything, beside the workers and never inside them: a question goes to the job as a message and the
//! answer comes back as one. Every resource that a client can hold has a limit, see [`Limits`], so that a slow or hostile
//! client cannot slow the job. The routes are those of `openapi.json`, which the server hands out itself.

pub(crate) mod answer;
pub(crate) mod dead_letters;
mod gate;
mod handlers;
mod keys;
mod limits;
mod parameters;
mod problem;
mod process;
mod routes;
mod server;
mod stall;
mod status;

pub use limits::Limits;
pub use server::{Served, Server, ServerOptions};
