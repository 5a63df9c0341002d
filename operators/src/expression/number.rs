//! Arithmetic, order and equality of values: the numeric rule of the expressions, in one place.

use std::cmp::Ordering;

use thalweg_core::{Error, Result, Value};

use super::failure;

/// An arithmetic operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Comparison {
    #[inline]
    pub(super) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Less => ordering.is_lt(),
            Comparison::AtMost => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::AtLeast => ordering.is_ge(),
        }
    }
}

impl Arithmetic {
    fn symbol(self) -> &'static str {
        match self {
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Remainder => "%",
        }
    }

    /// `left op right`.
    #[inline]
    pub(super) fn apply(self, left: &Value, right: &Value) -> Result<Value> {
        match (left, right) {
            (Value::Int(a), Value::Int(b)) => self.ints(*a, *b).map(Value::Int),
            (Value::Float(a), Value::Float(b)) => self.floats(*a, *b).map(Value::Float),
            (Value::Int(a), Value::Float(b)) => self.floats(*a as f64, *b).map(Value::Float),
            (Value::Float(a), Value::Int(b)) => self.floats(*a, *b as f64).map(Value::Float),
            (Value::Str(a), Value::Str(b)) if self == Arithmetic::Add => Ok(Value::Str(a.clone() + b)),
            (Value::List(a), Value::List(b)) if self == Arithmetic::Add => {
                Ok(Value::List(a.iter().chain(b.iter()).cloned().collect()))
            }
            (a, b) => Err(self.mismatch(a, b)),
        }
    }

    #[inline]
    fn ints(self, a: i64, b: i64) -> Result<i64> {
        let result = match self {
            Arithmetic::Add => a.checked_add(b),
            Arithmetic::Subtract => a.checked_sub(b),
            Arithmetic::Multiply => a.checked_mul(b),
            Arithmetic::Divide if b == 0 => return Err(self.by_zero(a)),
            Arithmetic::Remainder if b == 0 => return Err(self.by_zero(a)),
            Arithmetic::Divide => a.checked_div(b),
            Arithmetic::Remainder => a.checked_rem(b),
        };
        result.ok_or_else(|| {
            failure(format!("{a} {} {b} does not fit into 64 bits; use double(…) for larger numbers", self.symbol()))
        })
    }

    #[inline]
    fn floats(self, a: f64, b: f64) -> Result<f64> {
        let result = match self {
            Arithmetic::Add => a + b,
            Arithmetic::Subtract => a - b,
            Arithmetic::Multiply => a * b,
            Arithmetic::Divide if b == 0.0 => return Err(self.by_zero(a)),
            Arithmetic::Divide => a / b,
            Arithmetic::Remainder => return Err(failure(format!("{a:?} % {b:?}: % takes whole numbers; use int(…)"))),
        };
        if result.is_finite() || !a.is_finite() || !b.is_finite() {
            Ok(result)
        } else {
            Err(failure(format!("{a:?} {} {b:?} is too large for a number", self.symbol())))
        }
    }

    #[cold]
    fn by_zero(self, a: impl std::fmt::Debug) -> Error {
        failure(format!(
            "{a:?} {} 0: division by zero; test the divisor first, as in `n == 0 ? 0 : sum / n`",
            self.symbol()
        ))
    }

    #[cold]
    fn mismatch(self, a: &Value, b: &Value) -> Error {
        failure(format!("{a} {} {b}: {} and {} do not go together", self.symbol(), a.kind(), b.kind()))
    }
}

/// `-value`.
pub(super) fn negate(value: &Value) -> Result<Value> {
    match value {
        Value::Int(int) => match int.checked_neg() {
            Some(negated) => Ok(Value::Int(negated)),
            None => Err(failure(format!("-({int}) does not fit into 64 bits"))),
        },
        Value::Float(float) => Ok(Value::Float(-float)),
        other => Err(failure(format!("-{other}: a {} cannot be negated", other.kind()))),
    }
}

/// The order of two values that have one.
#[inline]
pub(super) fn order(left: &Value, right: &Value) -> Result<Ordering> {
    let ordering = match (left, right) {
        (Value::Int(a), Value::Int(b)) | (Value::Time(a), Value::Time(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::Float(b)) => (*a as f64).partial_cmp(b),
        (Value::Float(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Str(a), Value::Str(b)) => Some(a.as_str().cmp(b.as_str())),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    };
    ordering.ok_or_else(|| unordered(left, right))
}

#[cold]
fn unordered(left: &Value, right: &Value) -> Error {
    let advice = match (left, right) {
        (Value::Null, _) | (_, Value::Null) => "; test for null first, as in `x != null && x > 0`",
        (Value::Str(_), Value::Time(_)) | (Value::Time(_), Value::Str(_)) => "; use timestamp(…) on the text",
        (Value::Str(_), Value::Int(_) | Value::Float(_)) | (Value::Int(_) | Value::Float(_), Value::Str(_)) => {
            "; use int(…) or double(…) on the text"
        }
        _ => "",
    };
    failure(format!("{left} and {right}: {} and {} cannot be compared{advice}", left.kind(), right.kind()))
}

/// CEL's `==`: numbers by value, rows by name whatever the order of their fields; values of different kinds are not equal.
#[inline]
pub(super) fn equals(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) | (Value::Time(a), Value::Time(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Null, Value::Null) => true,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equals(a, b)),
        (Value::Row(a), Value::Row(b)) => {
            a.values().len() == b.values().len()
                && a.shape().names().iter().zip(a.values()).all(|(name, a)| b.get(name).is_some_and(|b| equals(a, b)))
        }
        _ => false,
    }
}
