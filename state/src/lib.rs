//! The keyed stores of Thalweg: committed state in RocksDB, newer state in a typed overlay, and what connects the two.
//!
//! A job's state is cut into partitions. A task keeps the partitions that it hosts in one RocksDB ([`Backend`]): one
//! column family per store, every key prefixed by its partition. RocksDB holds **only committed checkpoints**. What is
//! newer lives in an overlay of typed values ([`Store`], one per store and worker thread).
//!
//! ```text
//!  worker thread                                background thread                 RocksDB
//!  load, value_mut, mark ─▶ overlay
//!  seal(c); encode_sealed … ─▶ take_sealed ──▶ write_sealed: sort, one file ─┐
//!                                               (changelog, acknowledge)     │
//!  c is committed                               apply ───────────────────────┴──▶ rows of c, applied rows of c
//!  committed(c): what c holds is clean    ◀──── applied                            snapshot for committed reads
//! ```
//!
//! The file that [`Backend::write_sealed`] makes is synced before the checkpoint is acknowledged, so it is also the redo
//! log: [`Backend::recover_pending`] applies what was committed and not yet applied when the process died.
//!
//! # Contract of a checkpoint
//!
//! 1. [`Store::seal`] is called between epochs; one checkpoint at most is undecided at a time.
//! 2. What [`Store::take_sealed`] gives is the state at the sealed epoch, whatever was written after the seal.
//! 3. [`Store::committed`] is called after [`Backend::apply`] has returned; only then may an entry of that checkpoint
//!    leave the overlay.
//! 4. After [`Store::abandoned`] everything that differs from the last committed checkpoint is dirty again.

mod applied;
mod backend;
pub mod changelog;
mod codec;
mod cursor;
#[doc(hidden)]
pub mod decoders;
mod entry;
mod index;
mod layout;
mod meta;
mod migrate;
mod options;
mod pending;
mod range;
mod restore;
mod rocks_error;
mod rows;
mod scrub;
mod sealed;
mod sorter;
mod store;
mod view;

pub use applied::Applied;
pub use backend::Backend;
pub use layout::entry_digest;
pub use meta::{Migrate, StoreSpec};
pub use options::BackendOptions;
pub use pending::PendingFile;
pub use range::KeyRange;
pub use restore::{Restore, RestoreMode};
pub use sealed::{SealedPartition, SealedStore};
pub use store::{Handle, Scope, Store, StoreOptions};
pub use view::CommittedView;
