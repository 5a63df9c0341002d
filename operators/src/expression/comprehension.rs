//! The macros over lists and rows: `all`, `exists`, `exists_one`, `map`, `filter`, as the parser expands them: a fold.

use std::borrow::Cow;

use thalweg_core::{Error, Result, Value};

use super::failure;
use super::node::{Node, Scope};

/// A fold over the elements of a list, or the names of a row.
pub(super) struct Comprehension {
    pub(super) over: Node,
    pub(super) start: Node,
    /// Sees the element, then the accumulator, as the innermost variables; as does `step`.
    pub(super) goes_on: Node,
    pub(super) step: Step,
    /// Sees the accumulator.
    pub(super) result: Node,
}

/// What the fold does with an element.
pub(super) enum Step {
    /// Adds a value to the end of the list, where the condition holds: `map` and `filter`, in linear time.
    Append(Option<Node>, Node),
    /// `&&` or `||`: the value that decides also overrules the errors of other elements.
    Decide(Node, bool),
    /// Anything else.
    Fold(Node),
}

impl Comprehension {
    pub(super) fn evaluate(&self, scope: &Scope<'_>) -> Result<Value> {
        let over = self.over.evaluate(scope)?;
        let elements: Cow<'_, [Value]> = match &*over {
            Value::List(list) => Cow::Borrowed(list),
            Value::Row(row) => row.shape().names().iter().map(|name| Value::Str(name.clone())).collect(),
            other => {
                return Err(failure(format!(
                    "{other} is {}; all, exists, map and filter take a list or a row",
                    other.kind()
                )));
            }
        };
        let start = self.start.value(scope)?;
        let folded = match &self.step {
            Step::Append(when, item) => self.append(when.as_ref(), item, &elements, start, scope)?,
            Step::Decide(step, decisive) => self.fold(step, Some(*decisive), &elements, start, scope)?,
            Step::Fold(step) => self.fold(step, None, &elements, start, scope)?,
        };
        let accumulator = scope.bind(&folded);
        self.result.value(&scope.with(&accumulator))
    }

    fn append(
        &self,
        when: Option<&Node>,
        item: &Node,
        elements: &[Value],
        start: Value,
        scope: &Scope<'_>,
    ) -> Result<Value> {
        let mut list = match start {
            Value::List(list) => list.into_vec(),
            other => return Err(failure(format!("{other} is no list"))),
        };
        for element in elements {
            // The accumulator is a variable that neither the condition nor the item can name.
            let element = scope.bind(element);
            let inner = scope.with(&element);
            let accumulator = inner.bind(&Value::Null);
            let inner = inner.with(&accumulator);
            if when.map_or(Ok(true), |when| when.test(&inner))? {
                list.push(item.value(&inner)?);
            }
        }
        Ok(Value::List(list.into()))
    }

    fn fold(
        &self,
        step: &Node,
        decisive: Option<bool>,
        elements: &[Value],
        start: Value,
        scope: &Scope<'_>,
    ) -> Result<Value> {
        let mut accumulated = start;
        let mut pending: Option<Error> = None;
        for element in elements {
            let element = scope.bind(element);
            let inner = scope.with(&element);
            let accumulator = inner.bind(&accumulated);
            let inner = inner.with(&accumulator);
            if !self.goes_on.test(&inner)? {
                break;
            }
            match (step.value(&inner), decisive) {
                (Ok(value), _) => accumulated = value,
                (Err(error), Some(_)) => pending = pending.or(Some(error)),
                (Err(error), None) => return Err(error),
            }
        }
        match (pending, decisive) {
            (Some(error), Some(decisive)) if !matches!(accumulated, Value::Bool(value) if value == decisive) => {
                Err(error)
            }
            _ => Ok(accumulated),
        }
    }
}
