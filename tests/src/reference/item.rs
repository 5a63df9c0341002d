//! A record of the interpreter.

use thalweg_core::Value;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Int(i64),
    Float(f64),
    Text(String),
}

impl Cell {
    pub(super) fn to_json(&self) -> String {
        match self {
            Cell::Int(int) => int.to_string(),
            Cell::Float(float) => serde_json::to_string(float).expect("a number"),
            Cell::Text(text) => serde_json::to_string(text).expect("a text"),
        }
    }
}

/// Named values in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item(Vec<(String, Cell)>);

impl Item {
    pub(super) fn new<N: Into<String>>(fields: impl IntoIterator<Item = (N, Cell)>) -> Self {
        Self(fields.into_iter().map(|(name, cell)| (name.into(), cell)).collect())
    }

    pub(super) fn row(k: i64, w: String, v: i64, f: f64) -> Self {
        Self::new([("k", Cell::Int(k)), ("w", Cell::Text(w)), ("v", Cell::Int(v)), ("f", Cell::Float(f))])
    }

    /// What a reader gave.
    pub(super) fn decoded(value: &Value) -> Self {
        let Value::Row(row) = value else { panic!("a source gives rows, not {value}") };
        let cell = |value: &Value| match value {
            Value::Int(int) => Cell::Int(*int),
            Value::Float(float) => Cell::Float(*float),
            Value::Str(text) => Cell::Text(text.to_string()),
            other => panic!("the harness writes no {other}"),
        };
        Self::new(row.shape().names().iter().map(|name| name.to_string()).zip(row.values().iter().map(cell)))
    }

    pub(super) fn cell(&self, name: &str) -> &Cell {
        let found = self.0.iter().find(|(own, _)| own == name);
        &found.unwrap_or_else(|| panic!("{self:?} has no {name}")).1
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        match self.cell(name) {
            Cell::Int(int) => *int,
            other => panic!("{name} is no whole number: {other:?}"),
        }
    }

    pub(super) fn float(&self, name: &str) -> f64 {
        match self.cell(name) {
            Cell::Float(float) => *float,
            other => panic!("{name} is no fraction: {other:?}"),
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        match self.cell(name) {
            Cell::Text(text) => text,
            other => panic!("{name} is no text: {other:?}"),
        }
    }

    pub(super) fn to_json(&self) -> String {
        let fields = self.0.iter().map(|(name, cell)| format!("\"{name}\":{}", cell.to_json()));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }
}
