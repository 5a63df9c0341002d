//! Avro schemas (specification 1.12) as they are needed to read records: resolved names, no defaults, no aliases.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use thalweg_core::{Shape, Value};

/// A schema with everything that it names.
#[derive(Debug)]
pub(crate) struct AvroSchema {
    pub(super) root: Type,
    pub(super) named: Vec<Named>,
}

/// What stands at a place of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Bool,
    /// `int` and `long` are written alike.
    Int(Number, Width),
    Float,
    Double,
    Bytes(Octets),
    Text,
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
    /// One of [`AvroSchema::named`].
    Named(usize),
}

/// How large a whole number may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Int,
    Long,
}

/// What a whole number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Plain,
    Days,
    Millis,
    Micros,
    Nanos,
}

/// What bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Octets {
    Plain,
    /// With so many digits behind the point.
    Decimal(usize),
    Uuid,
    Duration,
}

/// A type with a name.
#[derive(Debug)]
pub(super) enum Named {
    /// Seen from inside of itself, before its fields are known.
    Open,
    Record(Record),
    Enum(Vec<Value>),
    Fixed(usize, Octets),
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) shape: Arc<Shape>,
    pub(super) fields: Vec<Type>,
}

/// Most digits behind the point of a decimal.
const MAX_SCALE: u64 = 1000;
/// Most named types of a schema.
const MAX_NAMED: usize = 10_000;

impl AvroSchema {
    /// Reads a schema; `references` are others that it names, each behind those that it names itself.
    ///
    /// Errors: what is wrong with it, and where.
    pub(crate) fn parse(text: &str, references: &[&str]) -> Result<Self, String> {
        let mut parser = Parser::default();
        for text in references {
            parser.parse(text)?;
        }
        let root = parser.parse(text)?;
        Ok(Self { root, named: parser.named })
    }

    pub(super) fn named(&self, index: usize) -> &Named {
        &self.named[index]
    }
}

#[derive(Default)]
struct Parser {
    named: Vec<Named>,
    names: BTreeMap<String, usize>,
}

impl Parser {
    fn parse(&mut self, text: &str) -> Result<Type, String> {
        let json: Json = serde_json::from_str(text).map_err(|error| format!("it is no valid JSON: {error}"))?;
        self.value(&json, "")
    }

    fn value(&mut self, json: &Json, namespace: &str) -> Result<Type, String> {
        match json {
            Json::String(name) => self.name(name, namespace),
            Json::Array(branches) => {
                let branches = branches.iter().map(|branch| self.value(branch, namespace));
                let branches = branches.collect::<Result<Vec<_>, _>>()?;
                match branches.iter().any(|branch| matches!(branch, Type::Union(_))) {
                    true => Err("a union stands directly in a union".to_owned()),
                    false => Ok(Type::Union(branches)),
                }
            }
            Json::Object(object) => self.object(object, namespace),
            other => Err(format!("{other} is no type")),
        }
    }

    fn name(&self, name: &str, namespace: &str) -> Result<Type, String> {
        if let Some(primitive) = primitive(name) {
            return Ok(primitive);
        }
        let known = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
        known
            .map(|index| Type::Named(*index))
            .ok_or_else(|| format!("the type {name:?} is named, and stands nowhere before"))
    }

    fn object(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<Type, String> {
        let logical = object.get("logicalType").and_then(Json::as_str);
        let of = |name: &str| {
            object.get(name).ok_or_else(|| format!("a type has no {name:?}: {}", Json::from(object.clone())))
        };
        let kind = of("type")?;
        let Some(kind) = kind.as_str() else { return self.value(kind, namespace) };
        match kind {
            "array" => Ok(Type::Array(Box::new(self.value(of("items")?, namespace)?))),
            "map" => Ok(Type::Map(Box::new(self.value(of("values")?, namespace)?))),
            "record" | "error" | "enum" | "fixed" => self.definition(kind, object, namespace),
            name => self.name(name, namespace).map(|primitive| meaning(primitive, logical, object)),
        }
    }

    /// A type that gets a name: it is known from its beginning on, for it may hold itself.
    fn definition(&mut self, kind: &str, object: &Map<String, Json>, namespace: &str) -> Result<Type, String> {
        let Some(name) = object.get("name").and_then(Json::as_str) else {
            return Err(format!("a type of kind {kind:?} has no name"));
        };
        let namespace = match (name.rsplit_once('.'), object.get("namespace").and_then(Json::as_str)) {
            (Some((namespace, _)), _) | (None, Some(namespace)) => namespace,
            (None, None) => namespace,
        };
        let name = full_name(name, namespace);
        if self.named.len() == MAX_NAMED {
            return Err(format!("it has more than {MAX_NAMED} named types"));
        }
        let index = self.named.len();
        self.named.push(Named::Open);
        if self.names.insert(name.clone(), index).is_some() {
            return Err(format!("the type {name:?} is there twice"));
        }
        let within = |why: String| format!("{name}: {why}");
        self.named[index] = match kind {
            "enum" => Named::Enum(symbols(object).map_err(within)?),
            "fixed" => fixed(object).map_err(within)?,
            _ => Named::Record(self.record(object, namespace).map_err(within)?),
        };
        Ok(Type::Named(index))
    }

    fn record(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<Record, String> {
        let fields = object.get("fields").and_then(Json::as_array).ok_or("a record has no fields")?;
        let (mut names, mut types) = (Vec::<&str>::new(), Vec::new());
        for field in fields {
            let name = field.get("name").and_then(Json::as_str).ok_or("a field has no name")?;
            if names.contains(&name) {
                return Err(format!("the field {name:?} is there twice"));
            }
            let kind = field.get("type").ok_or_else(|| format!("the field {name:?} has no type"))?;
            types.push(self.value(kind, namespace).map_err(|why| format!("field {name:?}: {why}"))?);
            names.push(name);
        }
        Ok(Record { shape: Shape::new(names), fields: types })
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

fn primitive(name: &str) -> Option<Type> {
    Some(match name {
        "null" => Type::Null,
        "boolean" => Type::Bool,
        "int" => Type::Int(Number::Plain, Width::Int),
        "long" => Type::Int(Number::Plain, Width::Long),
        "float" => Type::Float,
        "double" => Type::Double,
        "bytes" => Type::Bytes(Octets::Plain),
        "string" => Type::Text,
        _ => return None,
    })
}

/// A primitive with its logical type; one that is not known, or does not fit, does not count, as the specification has it.
fn meaning(primitive: Type, logical: Option<&str>, object: &Map<String, Json>) -> Type {
    match (primitive, logical) {
        (Type::Int(_, width), Some("date")) => Type::Int(Number::Days, width),
        (Type::Int(_, width), Some("timestamp-millis" | "local-timestamp-millis")) => Type::Int(Number::Millis, width),
        (Type::Int(_, width), Some("timestamp-micros" | "local-timestamp-micros")) => Type::Int(Number::Micros, width),
        (Type::Int(_, width), Some("timestamp-nanos" | "local-timestamp-nanos")) => Type::Int(Number::Nanos, width),
        (Type::Bytes(_), Some("decimal")) => Type::Bytes(decimal(object)),
        (primitive, _) => primitive,
    }
}

fn decimal(object: &Map<String, Json>) -> Octets {
    match object.get("scale").map_or(Some(0), Json::as_u64) {
        Some(scale) if scale <= MAX_SCALE => Octets::Decimal(scale as usize),
        _ => Octets::Plain,
    }
}

fn symbols(object: &Map<String, Json>) -> Result<Vec<Value>, String> {
    let symbols = object.get("symbols").and_then(Json::as_array).ok_or("an enum has no symbols")?;
    symbols
        .iter()
        .map(|symbol| symbol.as_str().map(Value::from).ok_or_else(|| "a symbol is no text".to_owned()))
        .collect()
}

fn fixed(object: &Map<String, Json>) -> Result<Named, String> {
    let size = object.get("size").and_then(Json::as_u64).and_then(|size| usize::try_from(size).ok());
    let size = size.ok_or("a fixed has no size")?;
    let octets = match object.get("logicalType").and_then(Json::as_str) {
        Some("decimal") => decimal(object),
        Some("uuid") if size == 16 => Octets::Uuid,
        Some("duration") if size == 12 => Octets::Duration,
        _ => Octets::Plain,
    };
    Ok(Named::Fixed(size, octets))
}
