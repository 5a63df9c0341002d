//! The control plane of a job as pure decisions: `(state, event) -> (state, commands)`. No I/O, no clock, no randomness.
//!
//! Two states. [`JobHistory`] is what must survive: it changes only by [`Entry`]s of a log, each a compare-and-set on the
//! generation, and every copy that applies the same entries is equal. [`Leader`] is what one generation's leader knows beyond that:
//! who has fenced, who has scanned, which checkpoint is open. It may be lost at any moment; the next generation starts from
//! the history alone.
//!
//! ```text
//!            reports of the tasks, ticks, outcomes                    entries, in one order
//!                         │                                                   │
//!                  Leader::handle(&JobHistory, now, Event)            JobHistory::apply(Entry)
//!                         │                                                   ▲
//!                         └──▶ Send(task, Command) · Recover · Refuse         │
//!                         └──▶ Propose(Entry) ── the shell's log ─────────────┘
//! ```
//!
//! A shell performs what is decided: it appends a proposed entry to a journal (or to a replicated log), applies it to the
//! history, and tells the leader what became of it.
//!
//! `tests/exploration.rs` runs these functions through every order of crashes, zombies, late messages and unknown outcomes
//! in a small scope.

mod bindings;
mod checkpoint;
mod entry;
mod history;
mod leader;
mod lifecycle;
mod producer;
mod refusal;

pub use bindings::last_binding;
pub use entry::Entry;
pub use history::{JobHistory, PastCheckpoint, Plan, Refused};
pub use leader::{Event, Leader, Limits, Now, Output, RecoverReason};
pub use lifecycle::Stage;
pub use producer::ProducerId;
pub use refusal::Refusal;
