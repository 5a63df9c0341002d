//! Thalweg, a stream-processing engine: what a job author adds, and the surfaces of every binary: command line and HTTP.

#![allow(clippy::disallowed_methods, reason = "the edge itself: it gives clocks and threads to everything below")]

pub mod cli;
mod files;
pub mod http;
mod job;
pub mod prelude;
mod progress;
mod run;
mod signals;

#[doc(hidden)]
pub mod macros {
    pub use thalweg_operators::Registry;
}

/// For types of a job crate that does not depend on serde itself: `#[serde(crate = "thalweg::serde")]`.
pub use serde;

pub use cli::Exit;
pub use files::files;
pub use job::{main_with, run_job};
pub use progress::Progress;
pub use signals::{StopSignal, on_stop};
pub use thalweg_core::Error;

#[cfg(doctest)]
#[doc = include_str!("../../docs/rust.md")]
mod rust_page {}
