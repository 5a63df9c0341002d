//! The data plane of a task: a plan on timely's workers, its epochs, checkpoints, recovery, and queries on its state.
//!
//! ```text
//!            commands                 ┌────────────────────────── task ──────────────────────────┐
//!  coordinator ─────▶ driver ─ cut, release ─▶ gate ─▶ workers (timely) ─ encoded epochs ─▶ sinks │
//!            ◀─────     ▲  ▲                            │                                    │     │
//!            reports    │  └─ shares of epochs ─────────┤ sealed rows                       │ ends│
//!                       └──── durable ──────── checkpointer ◀──────────────────────────────┘     │
//!                                     └──────────────────────────────────────────────────────────┘
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "the shell around the decisions: it times epochs and starts the threads of a task"
)]

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod changelogs;
mod checkpointer;
mod clock;
mod committed;
mod config;
mod discovery;
mod driver;
mod event;
mod members;
mod merge;
mod minter;
mod observed;
#[doc(hidden)]
pub mod restore;
mod restore_progress;
mod retry;
mod running;
mod scrubber;
mod shared;
mod sinks;
mod task;
mod thread;
mod worker;

pub use bindings::decode as decode_binding;
pub use committed::read_view;
pub use config::{Logs, RecordedRun, TaskConfig};
pub use event::TaskEvent;
pub use task::{Task, checkpoint_zero, read_bindings};
