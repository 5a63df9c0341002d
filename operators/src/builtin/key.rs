//! Taking a key out of an untyped row, and grouping by it without state.

use std::sync::Arc;

use thalweg_core::Value;

use crate::process::{EpochCtx, KeyedProcess, Output, ProcessError, RecordsOf};

/// The fields that make the key of a row: one gives its value, several a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFields(Arc<[String]>);

impl KeyFields {
    /// By name; at least one.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let names: Arc<[String]> = names.into_iter().collect();
        assert!(!names.is_empty(), "a key has at least one field");
        Self(names)
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The key of a row.
    ///
    /// Errors: a row that lacks a field.
    pub fn key_of(&self, row: &Value) -> Result<Value, ProcessError> {
        let field = |name: &String| {
            row.get(name)
                .cloned()
                .ok_or_else(|| ProcessError::from(format!("the record {row} has no field {name:?}, which is its key")))
        };
        match &*self.0 {
            [name] => field(name),
            names => Ok(Value::List(names.iter().map(field).collect::<Result<_, _>>()?)),
        }
    }

    /// The values of the fields, given the key.
    pub(crate) fn values_of(&self, key: &Value) -> Vec<Value> {
        match (&*self.0, key) {
            ([_], key) => vec![key.clone()],
            (_, Value::List(values)) => values.to_vec(),
            (_, other) => vec![other.clone()],
        }
    }
}

/// Moves records to the partition of their key; keeps nothing.
pub(crate) struct KeyBy;

impl KeyedProcess for KeyBy {
    type Key = Value;
    type In = Value;
    type State = ();
    type Out = Value;
    const TIMERS: bool = false;

    fn process(
        &self,
        _: &Value,
        records: &mut RecordsOf<'_, Value, Value>,
        _: &mut Option<()>,
        out: &mut Output<Value>,
        _: &EpochCtx,
    ) -> Result<(), ProcessError> {
        for record in records {
            out.emit(record.clone());
        }
        Ok(())
    }
}
