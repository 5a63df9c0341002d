//! What is not compiled: the interpreter of the crate `cel`, and the way of values into it and back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::objects::{Key, Map, Opaque, OptionalValue};
use cel::{Context, IdedExpr, Value as Cel};
use thalweg_core::{Result, Row, Shape, Value};

use super::failure;
use super::parse::LANGUAGE;

/// An expression for the interpreter.
pub(super) struct Interpreted {
    root: IdedExpr,
}

/// A time on its way through the interpreter, which has none: it is equal to itself, and cannot be looked into.
#[derive(Debug, PartialEq, Eq)]
struct Instant(i64);

impl Opaque for Instant {
    fn runtime_type_name(&self) -> &str {
        "time"
    }
}

struct Fields<'r>(&'r Value);

impl VariableResolver for Fields<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let value = match self.0.get(name) {
            Some(value) => value,
            None if name == "row" => self.0,
            None => return None,
        };
        Box::<dyn Val>::try_from(to_cel(value)).ok().map(CowVal::Owned)
    }
}

impl Interpreted {
    pub(super) fn new(root: IdedExpr) -> Self {
        Self { root }
    }

    pub(super) fn evaluate(&self, row: &Value) -> Result<Value> {
        let fields = Fields(row);
        let mut context = Context::with_env(Arc::clone(&LANGUAGE));
        context.set_variable_resolver(&fields);
        match Cel::resolve(&self.root, &context) {
            Ok(value) => from_cel(value),
            Err(cel::ExecutionError::UndeclaredReference(name)) => {
                Err(failure(format!("the row has no field {name:?}; has({name}) tells whether it is there")))
            }
            Err(error) => Err(failure(error.to_string())),
        }
    }
}

/// Rows become maps.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(bool) => Cel::Bool(*bool),
        Value::Int(int) => Cel::Int(*int),
        Value::Float(float) => Cel::Float(*float),
        Value::Time(micros) => Cel::Opaque(Arc::new(Instant(*micros))),
        Value::Str(text) => Cel::String(Arc::new(text.to_string())),
        Value::List(list) => Cel::List(Arc::new(list.iter().map(to_cel).collect())),
        Value::Row(row) => {
            let names = row.shape().names().iter().map(|name| Key::from(name.as_str()));
            let map: HashMap<_, _> = names.zip(row.values().iter().map(to_cel)).collect();
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

/// Maps become rows, their fields in the order of their names; an optional becomes its value, or null.
fn from_cel(value: Cel) -> Result<Value> {
    Ok(match value {
        Cel::Null => Value::Null,
        Cel::Bool(bool) => Value::Bool(bool),
        Cel::Int(int) => Value::Int(int),
        Cel::UInt(uint) => match i64::try_from(uint) {
            Ok(int) => Value::Int(int),
            Err(_) => return Err(failure(format!("{uint} does not fit into 64 bits with a sign"))),
        },
        Cel::Float(float) => Value::Float(float),
        Cel::String(text) => Value::from(text.as_str()),
        Cel::List(list) => {
            let list: Result<Vec<_>> = Arc::unwrap_or_clone(list).into_iter().map(from_cel).collect();
            Value::List(list?.into())
        }
        Cel::Map(map) => {
            let mut fields = BTreeMap::new();
            for (key, value) in map.map.iter() {
                fields.insert(key.to_string(), from_cel(value.clone())?);
            }
            let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
            Value::Row(Row::new(Shape::new(names), values))
        }
        Cel::Opaque(opaque) => match (opaque.downcast_ref::<Instant>(), opaque.downcast_ref::<OptionalValue>()) {
            (Some(Instant(micros)), _) => Value::Time(*micros),
            (_, Some(optional)) => optional.value().cloned().map_or(Ok(Value::Null), from_cel)?,
            (None, None) => {
                return Err(failure(format!("a {} cannot be kept in a record", opaque.runtime_type_name())));
            }
        },
        other => {
            return Err(failure(format!(
                "a {} cannot be kept in a record; turn it into text with string(…)",
                other.type_of()
            )));
        }
    })
}
