//! From CEL's tree to our own.

use std::collections::BTreeSet;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators};
use thalweg_core::{Shape, Value};

use super::ExpressionError;
use super::comprehension::{Comprehension, Step};
use super::function::{self, Known, NAMESPACES};
use super::node::{Field, Node, Scope};
use super::number::{Arithmetic, Comparison};
use super::parse::Parsed;

/// Deepest nesting: evaluation recurses, on the stack of a worker thread.
const MAX_DEPTH: usize = 200;

/// What a tree became.
pub(super) struct Compiled {
    /// Nothing where a part of it is for the interpreter.
    pub(super) node: Option<Node>,
    /// The fields that it looks at; nothing where that may be any.
    pub(super) fields: Option<BTreeSet<String>>,
}

pub(super) fn compile(parsed: &Parsed, root: &IdedExpr) -> Result<Compiled, ExpressionError> {
    let mut compiler = Compiler { parsed, locals: Vec::new(), fields: Some(BTreeSet::new()), depth: 0 };
    let node = compiler.node(root)?;
    Ok(Compiled { node, fields: compiler.fields })
}

struct Compiler<'p> {
    parsed: &'p Parsed,
    /// The variables of the comprehensions around, the innermost last.
    locals: Vec<String>,
    fields: Option<BTreeSet<String>>,
    depth: usize,
}

/// A node, or nothing where the interpreter has to do it; the walk goes on even so, to find every field and every mistake.
type Outcome = Result<Option<Node>, ExpressionError>;

impl Compiler<'_> {
    fn node(&mut self, from: &IdedExpr) -> Outcome {
        if self.depth == MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep; split the expression over several operators");
            return Err(ExpressionError::new(message, self.parsed.range(from.id)));
        }
        self.depth += 1;
        let node = match &from.expr {
            Expr::Literal(literal) => Ok(constant(literal)),
            Expr::Ident(name) => Ok(Some(self.variable(name))),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(from.id, call),
            Expr::List(list) => {
                let elements = self.nodes(&list.elements)?.filter(|_| list.optional_indices.is_empty());
                Ok(elements.map(|elements| folded(elements.iter().all(is_constant), Node::List(elements.into()))))
            }
            Expr::Map(map) => self.map(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(message) => {
                let text = format!("there is no type {:?}; a row is written as {{\"name\": value}}", message.type_name);
                Err(ExpressionError::new(text, self.parsed.range(from.id)))
            }
            Expr::Unspecified => Err(ExpressionError::new("not an expression", self.parsed.range(from.id))),
        };
        self.depth -= 1;
        node
    }

    /// All of them, or nothing where one is for the interpreter.
    fn nodes<'e>(
        &mut self,
        from: impl IntoIterator<Item = &'e IdedExpr>,
    ) -> Result<Option<Vec<Node>>, ExpressionError> {
        let mut nodes = Some(Vec::new());
        for expr in from {
            let node = self.node(expr)?;
            nodes = nodes.zip(node).map(|(mut nodes, node)| {
                nodes.push(node);
                nodes
            });
        }
        Ok(nodes)
    }

    fn uses(&mut self, field: &str) {
        if let Some(fields) = &mut self.fields {
            fields.insert(field.to_owned());
        }
    }

    fn is_row(&self, expr: &IdedExpr) -> bool {
        matches!(&expr.expr, Expr::Ident(name) if name == "row") && !self.locals.iter().any(|local| local == "row")
    }

    fn variable(&mut self, name: &str) -> Node {
        if let Some(index) = self.locals.iter().rposition(|local| local == name) {
            return Node::Local(self.locals.len() - 1 - index);
        }
        if name == "row" {
            self.fields = None;
            return Node::Row;
        }
        self.uses(name);
        Node::Field(Field::new(name))
    }

    fn select(&mut self, select: &SelectExpr) -> Outcome {
        let field = Field::new(&select.field);
        if self.is_row(&select.operand) && select.test {
            // A source that decodes only what is used may refuse a field that is nowhere; asking for it must not.
            self.fields = None;
            return Ok(Some(Node::Has(Box::new(Node::Row), field)));
        }
        if self.is_row(&select.operand) {
            self.uses(&select.field);
            return Ok(Some(Node::Field(field)));
        }
        let operand = self.node(&select.operand)?;
        Ok(operand
            .map(Box::new)
            .map(|operand| if select.test { Node::Has(operand, field) } else { Node::Select(operand, field) }))
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Outcome {
        if let Some(target) = &call.target {
            let namespace = match &target.expr {
                Expr::Ident(name) if NAMESPACES.contains(&name.as_str()) && !self.locals.contains(name) => Some(name),
                _ => None,
            };
            return match namespace {
                Some(namespace) => {
                    self.function(id, &format!("{namespace}.{}", call.func_name), false, call.args.iter().collect())
                }
                None => {
                    self.function(id, &call.func_name, true, std::iter::once(&**target).chain(&call.args).collect())
                }
            };
        }
        match (call.func_name.as_str(), &*call.args) {
            (operators::INDEX, [of, at]) if self.is_row(of) => match &at.expr {
                Expr::Literal(LiteralValue::String(name)) => {
                    self.uses(name.inner());
                    Ok(Some(Node::Field(Field::new(name.inner()))))
                }
                _ => self.binary(of, at, Node::Index),
            },
            (operators::INDEX, [of, at]) => self.binary(of, at, Node::Index),
            (operators::LOGICAL_AND, [left, right]) => self.binary(left, right, Node::And),
            (operators::LOGICAL_OR, [left, right]) => self.binary(left, right, Node::Or),
            (operators::EQUALS, [left, right]) => self.binary(left, right, Node::Equal),
            (operators::NOT_EQUALS, [left, right]) => self.binary(left, right, Node::Unequal),
            (operators::IN, [left, right]) => self.binary(left, right, Node::In),
            (operators::LOGICAL_NOT, [of]) => Ok(self.node(of)?.map(|of| Node::Not(Box::new(of)))),
            (operators::NEGATE, [of]) => {
                Ok(self.node(of)?.map(|of| folded(is_constant(&of), Node::Negate(Box::new(of)))))
            }
            // Errors in a comprehension wait for the end of it, so the condition of going on has none.
            (operators::NOT_STRICTLY_FALSE, [of]) => self.node(of),
            (operators::CONDITIONAL, args) => {
                let nodes = self.nodes(args)?.and_then(|nodes| <[Node; 3]>::try_from(nodes).ok());
                Ok(nodes.map(|nodes| Node::Choose(Box::new(nodes))))
            }
            (name, [left, right]) if let Some(operator) = arithmetic(name) => {
                self.binary(left, right, |of| Node::Arithmetic(operator, of))
            }
            (name, [left, right]) if let Some(comparison) = comparison(name) => {
                self.binary(left, right, |of| Node::Compare(comparison, of))
            }
            (operators::OPT_INDEX | operators::OPT_SELECT, args) => self.nodes(args).map(|_| None),
            (name, args) => self.function(id, name, false, args.iter().collect()),
        }
    }

    fn binary(&mut self, left: &IdedExpr, right: &IdedExpr, make: impl FnOnce(Box<[Node; 2]>) -> Node) -> Outcome {
        let (left, right) = (self.node(left)?, self.node(right)?);
        Ok(left
            .zip(right)
            .map(|(left, right)| folded(is_constant(&left) && is_constant(&right), make(Box::new([left, right])))))
    }

    fn function(&mut self, id: u64, name: &str, method: bool, args: Vec<&IdedExpr>) -> Outcome {
        let range = self.parsed.range(id);
        let function = match function::lookup(name, method, args.len()) {
            Known::Native(function) => Some(function),
            Known::Interpreted => None,
            Known::Otherwise(message) => return Err(ExpressionError::new(message, range)),
            Known::Unknown => return Err(ExpressionError::new(unknown(name), range)),
        };
        let args = self.nodes(args)?;
        let Some((function, args)) = function.zip(args) else { return Ok(None) };
        let is_constant = args.iter().all(is_constant);
        let node = Node::Call(function, args.into());
        if !is_constant {
            return Ok(Some(node));
        }
        // Once instead of for every row; and what can never succeed is a mistake in the text.
        match node.evaluate(&Scope::new(&Value::Null)) {
            Ok(value) => Ok(Some(Node::Constant(value.into_owned()))),
            Err(error) => Err(ExpressionError::new(error.message(), range)),
        }
    }

    /// Compiled where every name is a text literal.
    fn map<'e>(&mut self, entries: impl Iterator<Item = &'e EntryExpr>) -> Outcome {
        let mut names = Some(Vec::new());
        let mut values = Some(Vec::new());
        for entry in entries {
            let EntryExpr::MapEntry(entry) = entry else { return Ok(None) };
            let name = match &entry.key.expr {
                Expr::Literal(LiteralValue::String(name)) if !entry.optional => Some(name.inner().to_owned()),
                _ => self.node(&entry.key)?.and(None),
            };
            if let (Some(names), Some(name)) = (&names, &name)
                && names.contains(name)
            {
                return Err(ExpressionError::new(
                    format!("the name {name:?} is there twice"),
                    self.parsed.range(entry.key.id),
                ));
            }
            let value = self.node(&entry.value)?;
            names = push(names, name);
            values = push(values, value);
        }
        Ok(names.zip(values).map(|(names, values)| Node::Map(Shape::new(names), values.into())))
    }

    fn comprehension(&mut self, from: &ComprehensionExpr) -> Outcome {
        let over = self.node(&from.iter_range)?;
        let start = self.node(&from.accu_init)?;
        self.locals.push(from.iter_var.clone());
        self.locals.push(from.accu_var.clone());
        let goes_on = self.node(&from.loop_cond)?;
        let step = self.step(from)?;
        self.locals.truncate(self.locals.len() - 2);
        self.locals.push(from.accu_var.clone());
        let result = self.node(&from.result)?;
        self.locals.pop();
        let (Some(over), Some(start), Some(goes_on), Some(step), Some(result), None) =
            (over, start, goes_on, step, result, &from.iter_var2)
        else {
            return Ok(None);
        };
        Ok(Some(Node::Comprehension(Box::new(Comprehension { over, start, goes_on, step, result }))))
    }

    fn step(&mut self, from: &ComprehensionExpr) -> Result<Option<Step>, ExpressionError> {
        let is_accumulator = |expr: &IdedExpr| matches!(&expr.expr, Expr::Ident(name) if *name == from.accu_var);
        let appended = |expr: &IdedExpr| match called(expr, operators::ADD) {
            Some([accumulator, IdedExpr { expr: Expr::List(list), .. }]) if is_accumulator(accumulator) => {
                match &*list.elements {
                    [item] if list.optional_indices.is_empty() => Some(item.clone()),
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(item) = appended(&from.loop_step) {
            return Ok(self.node(&item)?.map(|item| Step::Append(None, item)));
        }
        if let Some([when, then, otherwise]) = called(&from.loop_step, operators::CONDITIONAL)
            && is_accumulator(otherwise)
            && let Some(item) = appended(then)
        {
            let (when, item) = (self.node(when)?, self.node(&item)?);
            return Ok(when.zip(item).map(|(when, item)| Step::Append(Some(when), item)));
        }
        let decides = |name| called(&from.loop_step, name).is_some_and(|args| args.first().is_some_and(is_accumulator));
        let (and, or) = (decides(operators::LOGICAL_AND), decides(operators::LOGICAL_OR));
        Ok(self.node(&from.loop_step)?.map(|step| if and || or { Step::Decide(step, or) } else { Step::Fold(step) }))
    }
}

/// The arguments, where it is a call of that operator.
fn called<'e>(expr: &'e IdedExpr, name: &str) -> Option<&'e [IdedExpr]> {
    match &expr.expr {
        Expr::Call(call) if call.func_name == name && call.target.is_none() => Some(&call.args),
        _ => None,
    }
}

fn push<T>(list: Option<Vec<T>>, item: Option<T>) -> Option<Vec<T>> {
    let mut list = list?;
    list.push(item?);
    Some(list)
}

fn constant(literal: &LiteralValue) -> Option<Node> {
    Some(Node::Constant(match literal {
        LiteralValue::Null => Value::Null,
        LiteralValue::Boolean(bool) => Value::Bool(*bool.inner()),
        LiteralValue::Int(int) => Value::Int(*int.inner()),
        LiteralValue::Double(double) => Value::Float(*double.inner()),
        LiteralValue::String(text) => Value::from(text.inner()),
        LiteralValue::UInt(_) | LiteralValue::Bytes(_) => return None,
    }))
}

fn is_constant(node: &Node) -> bool {
    matches!(node, Node::Constant(_))
}

/// Its value, where its operands are constants and it has one; what has none may be on a side that never counts.
fn folded(constant: bool, node: Node) -> Node {
    let value =
        if constant { node.evaluate(&Scope::new(&Value::Null)).ok().map(|value| value.into_owned()) } else { None };
    value.map_or(node, Node::Constant)
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    match name {
        operators::ADD => Some(Arithmetic::Add),
        operators::SUBSTRACT => Some(Arithmetic::Subtract),
        operators::MULTIPLY => Some(Arithmetic::Multiply),
        operators::DIVIDE => Some(Arithmetic::Divide),
        operators::MODULO => Some(Arithmetic::Remainder),
        _ => None,
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    match name {
        operators::LESS => Some(Comparison::Less),
        operators::LESS_EQUALS => Some(Comparison::AtMost),
        operators::GREATER => Some(Comparison::Greater),
        operators::GREATER_EQUALS => Some(Comparison::AtLeast),
        _ => None,
    }
}

fn unknown(name: &str) -> String {
    let near = function::names()
        .map(|own| (strsim::damerau_levenshtein(&own.to_lowercase(), &name.to_lowercase()), own))
        .min()
        .filter(|(distance, _)| *distance * 3 <= name.len().max(3));
    match near {
        Some((_, near)) => format!("unknown function {name:?}; did you mean {near:?}?"),
        None => format!("unknown function {name:?}"),
    }
}
