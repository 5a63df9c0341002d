//! The two-slot changelog: the pure rules that its writer and its readers share. No I/O.
//!
//! A changelog keeps the rows of one partition of a store in a compacted log. Every row has two places there, slot zero
//! and slot one, which are two different keys for the log's cleaner. Why two: at any moment the log must hold the
//! *committed* version of every row, although the newest record may belong to a checkpoint that is abandoned, or whose
//! outcome nobody knows, and although cleaning keeps only the newest record of a key.
//!
//! ```text
//!             none ──Put──▶ live in 0 ◀──Put──▶ live in 1
//!              ▲              │   ▲                │   ▲
//!              │            Delete└──Put──┐      Delete└──Put──┐
//!              │              ▼           │        ▼           │
//!              │           DELETED in 1 ──┘     DELETED in 0 ──┘      (every version goes to the other slot)
//!              └── tombstones in both slots ──┘
//! ```
//!
//! # The writer's rules
//!
//! 1. A version goes to the slot that does **not** hold the last committed version ([`decide_write`]).
//! 2. A deletion is a version too, DELETED. A *later* checkpoint that finds DELETED committed and the key still absent
//!    writes tombstones into both slots, in one transaction. The row is forgotten when *that* checkpoint commits; else the
//!    next one tries again.
//! 3. A row's [`RowState`] changes when its checkpoint is **committed** ([`WritePlan::committed`]), never at the write.
//! 4. Nothing of a checkpoint is written before the one before it is decided. After an abandoned checkpoint, or one of
//!    unknown outcome, the next writes what differs from the committed version, not from what was written last.
//!
//! # The reader's rules ([`Fold`])
//!
//! 1. Of each slot only the last record that was read counts, whatever it is: a version of a checkpoint that was never
//!    committed and a tombstone also prove that what was there before is obsolete.
//! 2. It reads to the end of the log as it was fenced, not to an offset in a checkpoint record.
//! 3. A row is the later of its two versions that are in the committed lineage.
//! 4. It ends within the log's delete retention (counted from its start, or from the time of the checkpoint that the local
//!    rows are at), or starts over from nothing.
//!
//! `tests/changelog_exploration.rs` leaves out each of these rules in turn and finds the few steps that lose a row.

mod fold;
mod record;
mod row;

pub use fold::{Fold, Outcome, RestoredEnd, RowValue};
pub use record::{ChangelogKey, ChangelogValue, EndRecord, RecordBody};
pub use row::{Change, RowState, Slot, WritePlan, decide_write};
