//! Stateless operators over untyped rows: words, map, filter.

use std::sync::Arc;

use thalweg_core::{Row, Shape, Value};

use crate::expression::Expression;
use crate::node::FlatMapOf;
use crate::plan::{OnError, OperatorNode};

/// Splits the text of a field at white space; each word becomes `{"word": …}`.
pub fn words(field: String, on_error: OnError) -> Box<dyn OperatorNode> {
    let shape = Shape::new(["word"]);
    Box::new(FlatMapOf::new(
        move |row: Value, out: &mut Vec<Value>| {
            let text = row.get(&field).and_then(Value::as_str);
            let text = text.ok_or_else(|| format!("the record {row} has no text in the field {field:?}"))?;
            let word = |word: &str| Value::Row(Row::new(shape.clone(), vec![Value::from(word)]));
            out.extend(text.split_whitespace().map(word));
            Ok(())
        },
        on_error,
    ))
}

/// Keeps the rows on which the condition holds.
pub fn filter(condition: Expression, on_error: OnError) -> Box<dyn OperatorNode> {
    Box::new(FlatMapOf::new(
        move |row: Value, out: &mut Vec<Value>| {
            if condition.test(&row)? {
                out.push(row);
            }
            Ok(())
        },
        on_error,
    ))
}

/// Makes a row of the named expressions, and nothing else, of each row.
pub fn map(fields: Vec<(String, Expression)>, on_error: OnError) -> Box<dyn OperatorNode> {
    let (names, expressions): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    let shape: Arc<Shape> = Shape::new(names);
    Box::new(FlatMapOf::new(
        move |row: Value, out: &mut Vec<Value>| {
            let values = expressions.iter().map(|expression| expression.evaluate(&row));
            out.push(Value::Row(Row::new(shape.clone(), values.collect::<thalweg_core::Result<_>>()?)));
            Ok(())
        },
        on_error,
    ))
}
