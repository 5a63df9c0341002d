//! Folds over untyped rows: count, sum, min, max, mean, and several of them at once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_core::{Row, Shape, Value};

use super::key::KeyFields;
use crate::expression::{AggregateFunction, Aggregation};
use crate::process::{EpochCtx, KeyedProcess, Output, ProcessError, RecordsOf};

/// What a fold has seen of a key. Null arguments do not count; a fold that has seen nothing gives null, a count 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Accumulator {
    /// Records.
    Count(u64),
    /// A sum, whole as long as all arguments are.
    Sum(Option<Value>),
    /// The least or the greatest argument.
    Extreme(Option<Value>),
    /// Sum and number of the arguments.
    Mean(f64, u64),
}

impl Accumulator {
    fn new(function: AggregateFunction) -> Self {
        match function {
            AggregateFunction::Count => Self::Count(0),
            AggregateFunction::Sum => Self::Sum(None),
            AggregateFunction::Min | AggregateFunction::Max => Self::Extreme(None),
            AggregateFunction::Mean => Self::Mean(0.0, 0),
        }
    }

    fn add(&mut self, aggregation: &Aggregation, row: &Value) -> Result<(), ProcessError> {
        if !aggregation.includes(row)? {
            return Ok(());
        }
        let argument = match &aggregation.argument {
            Some(expression) => expression.evaluate(row)?,
            None => Value::Null,
        };
        let name = aggregation.function.name();
        match self {
            Self::Count(count) => *count += 1,
            _ if argument == Value::Null => {}
            Self::Sum(sum) => *sum = Some(add(sum.take(), &argument)?),
            Self::Mean(sum, count) => {
                *sum += argument.as_f64().ok_or_else(|| no_number(name, &argument))?;
                *count += 1;
            }
            Self::Extreme(best) => {
                let better = |best: &Value| match aggregation.function {
                    AggregateFunction::Min => argument < *best,
                    _ => argument > *best,
                };
                if best.as_ref().is_none_or(better) {
                    *best = Some(argument);
                }
            }
        }
        Ok(())
    }

    fn result(&self) -> Value {
        match self {
            Self::Count(count) => Value::Int(i64::try_from(*count).unwrap_or(i64::MAX)),
            Self::Sum(value) | Self::Extreme(value) => value.clone().unwrap_or_default(),
            Self::Mean(_, 0) => Value::Null,
            Self::Mean(sum, count) => Value::Float(sum / *count as f64),
        }
    }
}

fn no_number(name: &str, value: &Value) -> ProcessError {
    format!("{name}() takes numbers, and {value} is none; filter such records out before").into()
}

fn add(sum: Option<Value>, value: &Value) -> Result<Value, ProcessError> {
    match (sum, value) {
        (None, Value::Int(_) | Value::Float(_)) => Ok(value.clone()),
        (Some(Value::Int(a)), Value::Int(b)) => a
            .checked_add(*b)
            .map(Value::Int)
            .ok_or_else(|| format!("the sum {a} + {b} does not fit 64 bits; sum double(x)").into()),
        (Some(a), b) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => Ok(Value::Float(a + b)),
            _ => Err(no_number("sum", b)),
        },
        (None, other) => Err(no_number("sum", other)),
    }
}

/// Folds the rows of each key; gives the key's fields and the results once per key and epoch.
pub(crate) struct Aggregate {
    key: KeyFields,
    folds: Vec<Aggregation>,
    results: Arc<Shape>,
    output: Arc<Shape>,
}

impl Aggregate {
    /// Folds with names for their results.
    pub(crate) fn new(key: KeyFields, folds: Vec<(String, Aggregation)>) -> Self {
        let (names, folds): (Vec<_>, Vec<_>) = folds.into_iter().unzip();
        let output = Shape::new(key.names().iter().chain(&names).map(String::as_str));
        Self { key, folds, results: Shape::new(names), output }
    }
}

impl KeyedProcess for Aggregate {
    type Key = Value;
    type In = Value;
    type State = Vec<Accumulator>;
    type Out = Value;
    const TIMERS: bool = false;

    fn process(
        &self,
        key: &Value,
        records: &mut RecordsOf<'_, Value, Value>,
        state: &mut Option<Vec<Accumulator>>,
        out: &mut Output<Value>,
        _: &EpochCtx,
    ) -> Result<(), ProcessError> {
        let fresh = || self.folds.iter().map(|fold| Accumulator::new(fold.function)).collect();
        let accumulators = state.get_or_insert_with(fresh);
        for row in records {
            for (accumulator, fold) in accumulators.iter_mut().zip(&self.folds) {
                accumulator.add(fold, row)?;
            }
        }
        let mut values = self.key.values_of(key);
        values.extend(accumulators.iter().map(Accumulator::result));
        out.emit(Value::Row(Row::new(self.output.clone(), values)));
        Ok(())
    }

    /// The results by name, or the bare value where there is one only.
    fn show(&self, state: &Vec<Accumulator>) -> Result<String, ProcessError> {
        let mut results: Vec<Value> = state.iter().map(Accumulator::result).collect();
        let shown = match results.len() {
            1 => results.remove(0),
            _ => Value::Row(Row::new(self.results.clone(), results)),
        };
        Ok(serde_json::to_string(&shown)?)
    }
}
