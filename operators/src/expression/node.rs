//! The compiled form: a tree that is evaluated on borrowed values.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use thalweg_core::{Error, Result, Row, Shape, Value};

use super::comprehension::Comprehension;
use super::failure;
use super::function::Function;
use super::number::{self, Arithmetic, Comparison};

/// One node of the tree.
pub(super) enum Node {
    Constant(Value),
    /// The whole row.
    Row,
    /// A field of the row.
    Field(Field),
    /// A variable of a comprehension, by how many were bound after it.
    Local(usize),
    Select(Box<Node>, Field),
    Has(Box<Node>, Field),
    Index(Box<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Choose(Box<[Node; 3]>),
    Equal(Box<[Node; 2]>),
    Unequal(Box<[Node; 2]>),
    Compare(Comparison, Box<[Node; 2]>),
    Arithmetic(Arithmetic, Box<[Node; 2]>),
    In(Box<[Node; 2]>),
    List(Box<[Node]>),
    Map(Arc<Shape>, Box<[Node]>),
    Call(Function, Box<[Node]>),
    Comprehension(Box<Comprehension>),
}

/// A field by name; remembers where it was in the last row, so that rows of one shape need no search.
pub(super) struct Field {
    name: Box<str>,
    hint: AtomicUsize,
}

impl Field {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), hint: AtomicUsize::new(0) }
    }

    #[inline]
    fn of<'s>(&self, row: &'s Row) -> Option<&'s Value> {
        let hint = self.hint.load(Relaxed);
        match row.shape().names().get(hint) {
            Some(name) if name.as_str() == &*self.name => Some(&row.values()[hint]),
            _ => self.search(row),
        }
    }

    #[cold]
    fn search<'s>(&self, row: &'s Row) -> Option<&'s Value> {
        let index = row.shape().index_of(&self.name)?;
        self.hint.store(index, Relaxed);
        Some(&row.values()[index])
    }

    #[inline]
    fn get<'s>(&self, value: &'s Value) -> Result<&'s Value> {
        match value {
            Value::Row(row) => self.of(row).ok_or_else(|| self.missing(row)),
            other => Err(failure(format!("field {:?} of {other}: a {} has no fields", &*self.name, other.kind()))),
        }
    }

    #[cold]
    fn missing(&self, row: &Row) -> Error {
        let names: Vec<_> = row.shape().names().iter().map(|name| name.as_str()).collect();
        failure(format!(
            "the row has no field {:?}, only {}; has({}) tells whether it is there",
            self.name,
            names.join(", "),
            self.name
        ))
    }
}

/// What a node sees: the row, and the variables of the comprehensions around it.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    row: &'s Value,
    local: Option<&'s Local<'s>>,
}

/// A variable of a comprehension.
pub(super) struct Local<'s> {
    value: &'s Value,
    outer: Option<&'s Local<'s>>,
}

impl<'s> Scope<'s> {
    #[inline]
    pub(super) fn new(row: &'s Value) -> Self {
        Self { row, local: None }
    }

    /// A new variable; give it to [`Scope::with`].
    pub(super) fn bind(&self, value: &'s Value) -> Local<'s> {
        Local { value, outer: self.local }
    }

    /// The scope that sees the variable.
    pub(super) fn with(&self, local: &'s Local<'s>) -> Self {
        Self { row: self.row, local: Some(local) }
    }

    fn local(&self, depth: usize) -> &'s Value {
        let mut local = self.local.expect("the compiler counts the variables");
        for _ in 0..depth {
            local = local.outer.expect("the compiler counts the variables");
        }
        local.value
    }
}

/// The value of a condition.
#[inline]
pub(super) fn truth(value: &Value) -> Result<bool> {
    match value {
        Value::Bool(bool) => Ok(*bool),
        other => Err(failure(format!("{other} is {}; a condition is true or false", other.kind()))),
    }
}

impl Node {
    /// The value of a constant, or of a field that is there: most operands, and not worth a `Result` of a `Cow`.
    #[inline(always)]
    fn peek<'s>(&'s self, scope: &Scope<'s>) -> Option<&'s Value> {
        match (self, scope.row) {
            (Node::Constant(value), _) => Some(value),
            (Node::Field(field), Value::Row(row)) => field.of(row),
            _ => None,
        }
    }

    /// The value; borrowed where it exists already.
    #[inline]
    pub(super) fn evaluate<'s>(&'s self, scope: &Scope<'s>) -> Result<Cow<'s, Value>> {
        match self {
            Node::Constant(value) => Ok(Cow::Borrowed(value)),
            Node::Field(field) => field.get(scope.row).map(Cow::Borrowed),
            other => other.compute(scope),
        }
    }

    /// The value, owned: as [`Node::evaluate`], without a detour for what is new anyway.
    #[inline]
    pub(super) fn value(&self, scope: &Scope<'_>) -> Result<Value> {
        match self {
            Node::Compare(..) | Node::Equal(_) | Node::Unequal(_) | Node::And(_) | Node::Or(_) | Node::Not(_) => {
                self.test(scope).map(Value::Bool)
            }
            Node::Arithmetic(operator, of) => pair(of, scope, |left, right| operator.apply(left, right)),
            other => other.evaluate(scope).map(Cow::into_owned),
        }
    }

    fn compute<'s>(&'s self, scope: &Scope<'s>) -> Result<Cow<'s, Value>> {
        let owned = match self {
            Node::Constant(_) | Node::Field(_) => return self.evaluate(scope),
            Node::Row => return Ok(Cow::Borrowed(scope.row)),
            Node::Local(depth) => return Ok(Cow::Borrowed(scope.local(*depth))),
            Node::Select(from, field) => {
                return match from.evaluate(scope)? {
                    Cow::Borrowed(value) => field.get(value).map(Cow::Borrowed),
                    Cow::Owned(value) => field.get(&value).cloned().map(Cow::Owned),
                };
            }
            Node::Index(of) => {
                let at = of[1].evaluate(scope)?;
                return match of[0].evaluate(scope)? {
                    Cow::Borrowed(value) => element(value, &at).map(Cow::Borrowed),
                    Cow::Owned(value) => element(&value, &at).cloned().map(Cow::Owned),
                };
            }
            Node::Choose(of) => {
                let chosen = if of[0].test(scope)? { &of[1] } else { &of[2] };
                return chosen.evaluate(scope);
            }
            Node::Negate(of) => number::negate(&*of.evaluate(scope)?)?,
            Node::Arithmetic(operator, of) => pair(of, scope, |left, right| operator.apply(left, right))?,
            Node::List(of) => Value::List(all(of, scope)?.into()),
            Node::Map(shape, of) => Value::Row(Row::new(shape.clone(), all(of, scope)?)),
            Node::Call(function, of) => function.call(of, scope)?,
            Node::Comprehension(comprehension) => comprehension.evaluate(scope)?,
            Node::Has(..)
            | Node::Not(_)
            | Node::And(_)
            | Node::Or(_)
            | Node::Equal(_)
            | Node::Unequal(_)
            | Node::Compare(..)
            | Node::In(_) => Value::Bool(self.test(scope)?),
        };
        Ok(Cow::Owned(owned))
    }

    /// The truth of a condition, without making a value of it.
    pub(super) fn test(&self, scope: &Scope<'_>) -> Result<bool> {
        match self {
            Node::Compare(comparison, of) => {
                pair(of, scope, |left, right| number::order(left, right).map(|ordering| comparison.holds(ordering)))
            }
            Node::Equal(of) => pair(of, scope, |left, right| Ok(number::equals(left, right))),
            Node::Unequal(of) => pair(of, scope, |left, right| Ok(!number::equals(left, right))),
            Node::And(of) => decide(&of[0], &of[1], false, scope),
            Node::Or(of) => decide(&of[0], &of[1], true, scope),
            Node::Not(of) => Ok(!of.test(scope)?),
            Node::Has(from, field) => match &*from.evaluate(scope)? {
                Value::Row(row) => Ok(field.of(row).is_some()),
                other => Err(failure(format!("has({}) on {other}: a {} has no fields", field.name, other.kind()))),
            },
            Node::In(of) => pair(of, scope, |value, of| contains(of, value)),
            Node::Constant(value) => truth(value),
            Node::Row
            | Node::Field(_)
            | Node::Local(_)
            | Node::Select(..)
            | Node::Index(_)
            | Node::Negate(_)
            | Node::Choose(_)
            | Node::Arithmetic(..)
            | Node::List(_)
            | Node::Map(..)
            | Node::Call(..)
            | Node::Comprehension(_) => truth(&*self.evaluate(scope)?),
        }
    }
}

/// Both operands at once.
#[inline(always)]
fn pair<T>(of: &[Node; 2], scope: &Scope<'_>, apply: impl FnOnce(&Value, &Value) -> Result<T>) -> Result<T> {
    match (of[0].peek(scope), of[1].peek(scope)) {
        (Some(left), Some(right)) => apply(left, right),
        _ => {
            let left = of[0].evaluate(scope)?;
            let right = of[1].evaluate(scope)?;
            apply(&left, &right)
        }
    }
}

/// `&&` and `||`: one side that decides is enough, even where the other is an error. (CEL: the two commute.)
#[inline]
fn decide(left: &Node, right: &Node, decisive: bool, scope: &Scope<'_>) -> Result<bool> {
    match left.test(scope) {
        Ok(value) if value == decisive => Ok(decisive),
        Ok(_) => right.test(scope),
        Err(error) => match right.test(scope) {
            Ok(value) if value == decisive => Ok(decisive),
            Ok(_) | Err(_) => Err(error),
        },
    }
}

fn all(nodes: &[Node], scope: &Scope<'_>) -> Result<Vec<Value>> {
    nodes.iter().map(|node| node.value(scope)).collect()
}

/// A whole number, also where it is written as a fraction.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(int) => Some(*int),
        Value::Float(float) if float.fract() == 0.0 && float.abs() < 9e15 => Some(*float as i64),
        _ => None,
    }
}

fn element<'v>(of: &'v Value, at: &Value) -> Result<&'v Value> {
    let found = match (of, at) {
        (Value::Row(row), Value::Str(name)) => row.get(name),
        (Value::List(list), at) => {
            whole(at).and_then(|index| usize::try_from(index).ok()).and_then(|index| list.get(index))
        }
        _ => None,
    };
    found.ok_or_else(|| match of {
        Value::Row(_) => failure(format!("the row has no field {at}")),
        Value::List(list) => failure(format!("index {at} of a list of {}; the first is 0", list.len())),
        other => failure(format!("{other} is {}; only rows and lists have elements", other.kind())),
    })
}

fn contains(of: &Value, value: &Value) -> Result<bool> {
    match of {
        Value::List(list) => Ok(list.iter().any(|own| number::equals(own, value))),
        Value::Row(row) => Ok(value.as_str().is_some_and(|name| row.get(name).is_some())),
        other => Err(failure(format!("in {other}: a {} contains nothing; use a list or a row", other.kind()))),
    }
}
