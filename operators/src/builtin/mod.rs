//! The operators that need no Rust: one file for the folds of the Rust builder, one for each kind over untyped rows.

pub(crate) mod aggregate;
pub(crate) mod fold;
pub(crate) mod key;
pub(crate) mod reduce;
pub(crate) mod row;
