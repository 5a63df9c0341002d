//! The operators that need no Rust: one file for the folds of the Rust builder, one for each kind over untyped rows.

pub(crate) mod aggregate;
pub(crate) mod fold;
pub(crate) mod key;
pub(crate) mod reduce;
pub(crate) mod row;

use crate::expression::{Aggregation, Expression};
use crate::node::KeyedOf;
use crate::plan::{OnError, OperatorNode};
use key::KeyFields;

pub use row::{filter, map, words};

/// Moves records to the partition of their key.
pub fn key_by(key: KeyFields, on_error: OnError) -> Box<dyn OperatorNode> {
    keyed(key::KeyBy, key, on_error)
}

/// Folds the rows of each key; each fold has a name for its result.
pub fn aggregate(key: KeyFields, folds: Vec<(String, Aggregation)>, on_error: OnError) -> Box<dyn OperatorNode> {
    keyed(aggregate::Aggregate::new(key.clone(), folds), key, on_error)
}

/// Folds `of` of the rows of each key with an expression over `acc` and `value`.
pub fn reduce(
    key: KeyFields,
    of: Expression,
    with: Expression,
    name: &str,
    on_error: OnError,
) -> Box<dyn OperatorNode> {
    keyed(reduce::Reduce::new(key.clone(), of, with, name), key, on_error)
}

fn keyed<P>(process: P, key: KeyFields, on_error: OnError) -> Box<dyn OperatorNode>
where
    P: crate::process::KeyedProcess<Key = thalweg_core::Value, In = thalweg_core::Value>,
{
    let take = move |row: thalweg_core::Value| Ok((key.key_of(&row)?, row));
    Box::new(KeyedOf::new(process, take, on_error))
}
