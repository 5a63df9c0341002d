//! A fold of rows that an expression describes.

use std::sync::Arc;

use thalweg_core::{Row, Shape, Value};

use super::key::KeyFields;
use crate::expression::Expression;
use crate::process::{EpochCtx, KeyedProcess, Output, ProcessError, RecordsOf};

/// Folds the values of each key with an expression over `acc` (the result so far) and `value`; the first value starts the fold.
pub(crate) struct Reduce {
    key: KeyFields,
    of: Expression,
    with: Expression,
    scope: Arc<Shape>,
    output: Arc<Shape>,
}

impl Reduce {
    /// Folds `of` with `with`; the result is named `name`.
    pub(crate) fn new(key: KeyFields, of: Expression, with: Expression, name: &str) -> Self {
        let output = Shape::new(key.names().iter().map(String::as_str).chain([name]));
        Self { key, of, with, scope: Shape::new(["acc", "value"]), output }
    }
}

impl KeyedProcess for Reduce {
    type Key = Value;
    type In = Value;
    type State = Value;
    type Out = Value;
    const TIMERS: bool = false;

    fn process(
        &self,
        key: &Value,
        records: &mut RecordsOf<'_, Value, Value>,
        state: &mut Option<Value>,
        out: &mut Output<Value>,
        _: &EpochCtx,
    ) -> Result<(), ProcessError> {
        for row in records {
            let value = self.of.evaluate(row)?;
            *state = Some(match state.take() {
                None => value,
                Some(acc) => self.with.evaluate(&Value::Row(Row::new(self.scope.clone(), vec![acc, value])))?,
            });
        }
        if let Some(result) = state {
            let mut values = self.key.values_of(key);
            values.push(result.clone());
            out.emit(Value::Row(Row::new(self.output.clone(), values)));
        }
        Ok(())
    }
}
