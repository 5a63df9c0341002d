//! Expressions over untyped rows, in CEL: `delay > 15`, `origin in ["LAX", "SFO"] ? "west" : "other"`.
//!
//! [CEL](https://cel.dev) is total and free of side effects: an expression ends, and two runs give the same. The crate `cel`
//! parses and checks the text; what jobs use of the language is compiled into a tree that is evaluated on [`Value`] without
//! conversion, and mostly without allocation. The rest (unsigned numbers, bytes, optionals, `type()`, map literals with
//! computed keys, the `math.` functions and the rarer string functions) is left to the interpreter of that crate; which of
//! the two it is, [`Expression::is_native`] tells.
//!
//! # Names
//!
//! The fields of the row are variables: `delay > 15`, `customer.address.city == "Oslo"`. `row` is the whole row, so
//! `row["a name with spaces"]` reaches any field (of a field that is itself called `row`: `row.row`). A field that the row does not
//! have is an error that names it; `has(delay)` tells whether it is there, and `&&`, `||` and `?:` need not look at it.
//!
//! # Numbers
//!
//! CEL never mixes whole numbers and fractions in arithmetic. JSON and CSV do: the same column holds `7` and `7.5`. So:
//!
//! 1. `+ - * /` of two ints give an int; `7 / 2` is 3. `%` takes ints only.
//! 2. With a double on either side the int is promoted, and the result is a double: `7 / 2.0` is 3.5.
//! 3. What does not fit is an error, never a wrapped or infinite number; so is any division by zero.
//! 4. Comparisons and `==` go by value across int and double, as CEL has it.
//!
//! Rule 2 does not hold inside an expression that the interpreter evaluates: there mixed arithmetic is an error, and `double(x)`
//! mends it; division of fractions by zero there gives CEL's infinity.
//!
//! # Times
//!
//! A time compares with a time: `time >= timestamp("2001-01-31T00:00:00Z")`. `int(time)` is seconds since 1970, and
//! `getFullYear()`, `getMonth()` (from 0), `getDate()`, `getDayOfWeek()` (from Sunday, 0), `getDayOfYear()` (from 0),
//! `getHours()`, `getMinutes()`, `getSeconds()` and `getMilliseconds()` read it in UTC. There are no durations.

mod aggregation;
mod compile;
mod comprehension;
mod function;
mod interpreter;
mod node;
mod number;
mod parse;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use thalweg_core::{Error, Result, Value};

pub use aggregation::{AggregateFunction, Aggregation};
use interpreter::Interpreted;
use node::{Node, Scope};

/// A compiled expression. Cheap to clone; clones share the compiled form.
///
/// ```
/// use thalweg_operators::Expression;
/// let late = Expression::compile("delay > 15 && origin != \"LAX\"").unwrap();
/// let row = serde_json::from_str(r#"{"origin":"SFO","delay":40}"#).unwrap();
/// assert!(late.test(&row).unwrap());
/// assert_eq!(late.fields().unwrap().into_iter().collect::<Vec<_>>(), ["delay", "origin"]);
/// ```
#[derive(Clone)]
pub struct Expression {
    inner: Arc<Inner>,
}

struct Inner {
    text: String,
    fields: Option<BTreeSet<String>>,
    form: Form,
}

enum Form {
    Native(Node),
    Interpreted(Interpreted),
}

/// Why a text is no expression, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError {
    /// What is wrong, and what to do.
    pub message: String,
    /// The bytes of the text that it is about; empty at the end of the text where something is missing.
    pub range: Range<usize>,
}

impl ExpressionError {
    fn new(message: impl Into<String>, range: Range<usize>) -> Self {
        Self { message: message.into(), range }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ExpressionError {}

impl Expression {
    /// Longest text, in bytes: what is longer belongs into an operator of the job crate.
    pub const MAX_BYTES: usize = 4096;

    /// Parses, checks and compiles.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        let parsed = parse::Parsed::new(text)?;
        Self::from_parsed(text, &parsed, &parsed.root)
    }

    fn from_parsed(text: &str, parsed: &parse::Parsed, root: &cel::IdedExpr) -> Result<Self, ExpressionError> {
        let compiled = compile::compile(parsed, root)?;
        let form = match compiled.node {
            Some(node) => Form::Native(node),
            None => Form::Interpreted(Interpreted::new(root.clone())),
        };
        Ok(Self { inner: Arc::new(Inner { text: text.to_owned(), fields: compiled.fields, form }) })
    }

    /// The value of the expression on a row.
    ///
    /// # Errors
    /// Of kind user, code `expression`: a missing field, operands that do not go together, a number that does not fit.
    pub fn evaluate(&self, row: &Value) -> Result<Value> {
        match &self.inner.form {
            Form::Native(node) => node.value(&Scope::new(row)),
            Form::Interpreted(interpreted) => interpreted.evaluate(row),
        }
        .map_err(|error| self.named(error))
    }

    /// Whether the condition holds on a row.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and where the value is neither true nor false.
    #[inline]
    pub fn test(&self, row: &Value) -> Result<bool> {
        match &self.inner.form {
            Form::Native(node) => node.test(&Scope::new(row)),
            Form::Interpreted(interpreted) => interpreted.evaluate(row).and_then(|value| node::truth(&value)),
        }
        .map_err(|error| self.named(error))
    }

    /// The fields of the row that have to be there, or nothing where that cannot be told: with `row` itself, a computed name, or
    /// `has(field)`. A source may leave out all others.
    pub fn fields(&self) -> Option<BTreeSet<String>> {
        self.inner.fields.clone()
    }

    /// Whether it is compiled (tens of nanoseconds) rather than interpreted (about a microsecond).
    pub fn is_native(&self) -> bool {
        matches!(self.inner.form, Form::Native(_))
    }

    /// The text that it was compiled from.
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    #[cold]
    fn named(&self, error: Error) -> Error {
        error.context(format_args!("expression `{}`", self.inner.text))
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.inner.text)
    }
}

/// The same text.
impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.inner.text == other.inner.text
    }
}

impl Eq for Expression {}

/// The error of everything that goes wrong while evaluating.
#[cold]
fn failure(message: impl Into<String>) -> Error {
    Error::user("expression", message)
}
