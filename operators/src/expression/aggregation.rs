//! What `aggregate` folds: `count()`, `count(delay > 15)`, `sum(x)`, `min(x)`, `max(x)`, `mean(x)`.

use cel::common::ast::Expr;
use thalweg_core::{Result, Value};

use super::parse::Parsed;
use super::{Expression, ExpressionError};

/// A fold over the records of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// How many records.
    Count,
    /// The sum of the argument.
    Sum,
    /// The least argument.
    Min,
    /// The greatest argument.
    Max,
    /// The sum of the argument by how many there were, a fraction.
    Mean,
}

impl AggregateFunction {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Count, Self::Sum, Self::Min, Self::Max, Self::Mean];

    /// Its name in a job.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Mean => "mean",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }
}

/// A fold with its argument.
///
/// ```
/// use thalweg_operators::{AggregateFunction, Aggregation};
/// let late = Aggregation::parse("count(delay > 15)").unwrap();
/// assert_eq!(late.function, AggregateFunction::Count);
/// let row = serde_json::from_str(r#"{"delay":40}"#).unwrap();
/// assert!(late.includes(&row).unwrap());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregation {
    /// The fold.
    pub function: AggregateFunction,
    /// What is folded; absent for counts. Where its value is null, the record does not count.
    pub argument: Option<Expression>,
    /// Which records count; absent means all. (`count(delay > 15)`.)
    pub filter: Option<Expression>,
}

impl Aggregation {
    /// Reads it as it is written in a job.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let parsed = Parsed::new(text)?;
        let (name, args) = match &parsed.root.expr {
            Expr::Call(call) if call.target.is_none() && !call.func_name.contains(['_', '@']) => {
                (&call.func_name, &call.args)
            }
            _ => {
                let message = "not a fold; write one of count(), count(x > 1), sum(x), min(x), max(x), mean(x)";
                return Err(ExpressionError::new(message, 0..text.len()));
            }
        };
        let range = 0..text.find('(').unwrap_or(text.len());
        let Some(function) = AggregateFunction::named(name) else {
            let message = format!("unknown fold {name:?}; there are count, sum, min, max and mean");
            return Err(ExpressionError::new(message, range));
        };
        let mut args = args.iter().map(|arg| Expression::from_parsed(text, &parsed, arg));
        let (first, more) = (args.next().transpose()?, args.next());
        match (function, first, more) {
            (AggregateFunction::Count, filter, None) => Ok(Self { function, argument: None, filter }),
            (function, Some(argument), None) => Ok(Self { function, argument: Some(argument), filter: None }),
            (function, None, _) => {
                Err(ExpressionError::new(format!("{name}() needs what to fold, as in {}(x)", function.name()), range))
            }
            (_, _, Some(_)) => Err(ExpressionError::new(format!("{name} takes one argument"), range)),
        }
    }

    /// Whether a record counts.
    pub fn includes(&self, row: &Value) -> Result<bool> {
        self.filter.as_ref().map_or(Ok(true), |filter| filter.test(row))
    }
}
