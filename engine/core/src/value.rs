//! The one compact type of untyped data: what formats decode into and built-in operators work on.

mod serializer;

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use compact_str::CompactString;
use serde::de::{self, DeserializeOwned, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::key::is_decoding_key;
use crate::{Error, Result};

/// Untyped data, 32 bytes; short text needs no allocation, rows share their field names.
///
/// In text formats it is plain JSON (times as RFC 3339); in binary ones (state, keys, the wire) it is tagged. Equality and
/// order are total: numbers compare by value within a type, types by their order here.
#[derive(Clone, Default)]
pub enum Value {
    /// Absent.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Time(i64),
    /// Text.
    Str(CompactString),
    /// Several values.
    List(Box<[Value]>),
    /// Named values.
    Row(Row),
}

/// The field names that rows of one kind share.
#[derive(Debug, PartialEq, Eq)]
pub struct Shape {
    names: Box<[CompactString]>,
}

/// Named values; the names are shared.
#[derive(Clone)]
pub struct Row {
    shape: Arc<Shape>,
    values: Box<[Value]>,
}

impl Shape {
    /// A shape with these field names, in this order.
    pub fn new<N: Into<CompactString>>(names: impl IntoIterator<Item = N>) -> Arc<Self> {
        Arc::new(Self { names: names.into_iter().map(Into::into).collect() })
    }

    /// The field names, in order.
    pub fn names(&self) -> &[CompactString] {
        &self.names
    }

    /// Where the field is.
    #[inline]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|own| own == name)
    }
}

impl Row {
    /// A row; panics unless there is one value for each name.
    pub fn new(shape: Arc<Shape>, values: Vec<Value>) -> Self {
        assert_eq!(shape.names.len(), values.len(), "a row has one value for each name of its shape");
        Self { shape, values: values.into() }
    }

    /// The names.
    pub fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// The values, in the order of the names.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.shape.index_of(name).map(|index| &self.values[index])
    }
}

impl Value {
    /// The value of a field, where this is a row that has it.
    #[inline]
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Row(row) => row.get(name),
            _ => None,
        }
    }

    /// A number, whole or not.
    #[inline]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(int) => Some(*int as f64),
            Value::Float(float) => Some(*float),
            _ => None,
        }
    }

    /// Text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Time(_) => "time",
            Value::Str(_) => "text",
            Value::List(_) => "list",
            Value::Row(_) => "row",
        }
    }

    /// From any type with serde: what its JSON would be. A struct keeps the order of its fields, a map is sorted by its keys.
    ///
    /// Error (`to-value`): the type's own; numbers beyond 64 bits; maps whose keys are neither text nor numbers nor truth values.
    pub fn from_serde<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        value
            .serialize(serializer::ToValue)
            .map_err(|error| Error::user("to-value", format!("cannot be turned into a value: {error}")))
    }

    /// Into any type with serde, field by field.
    pub fn to_serde<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(self).map_err(|error| Error::user("from-value", format!("the record does not fit: {error}")))
    }

    fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Int(_) => 2,
            Value::Float(_) => 3,
            Value::Time(_) => 4,
            Value::Str(_) => 5,
            Value::List(_) => 6,
            Value::Row(_) => 7,
        }
    }
}

/// Numbers compare by value across `Int` and `Float`; everything else by kind, then by content. Floats are in total order.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Int(a), Value::Int(b)) | (Value::Time(a), Value::Time(b)) => a.cmp(b),
            (Value::Float(a), Value::Float(b)) => a.total_cmp(b),
            (Value::Int(a), Value::Float(b)) => (*a as f64).total_cmp(b).then(Ordering::Less),
            (Value::Float(a), Value::Int(b)) => a.total_cmp(&(*b as f64)).then(Ordering::Greater),
            (Value::Str(a), Value::Str(b)) => a.cmp(b),
            (Value::List(a), Value::List(b)) => a.cmp(b),
            (Value::Row(a), Value::Row(b)) => a.shape.names.cmp(&b.shape.names).then_with(|| a.values.cmp(&b.values)),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            Value::Null => {}
            Value::Bool(bool) => bool.hash(state),
            Value::Int(int) | Value::Time(int) => int.hash(state),
            Value::Float(float) => float.to_bits().hash(state),
            Value::Str(text) => text.hash(state),
            Value::List(list) => list.hash(state),
            Value::Row(row) => {
                row.shape.names.hash(state);
                row.values.hash(state);
            }
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Value {
    /// As JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Str(value.into())
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(bool) => Value::Bool(bool),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
            }
            serde_json::Value::String(text) => Value::Str(text.into()),
            serde_json::Value::Array(list) => Value::List(list.into_iter().map(Value::from).collect()),
            serde_json::Value::Object(map) => {
                let (names, values): (Vec<_>, Vec<_>) = map.into_iter().unzip();
                Value::Row(Row::new(shared_shape(&names), values.into_iter().map(Value::from).collect()))
            }
        }
    }
}

/// A shape with these names; the last ones of this thread are used again, so that rows of one kind share theirs.
fn shared_shape<N: AsRef<str>>(names: &[N]) -> Arc<Shape> {
    const KEPT: usize = 8;
    thread_local! {
        static RECENT: RefCell<Vec<Arc<Shape>>> = const { RefCell::new(Vec::new()) };
    }
    RECENT.with_borrow_mut(|recent| {
        let same = |shape: &Arc<Shape>| {
            shape.names.len() == names.len() && shape.names.iter().zip(names).all(|(a, b)| a == b.as_ref())
        };
        match recent.iter().position(same) {
            Some(index) => recent[index].clone(),
            None => {
                let shape = Shape::new(names.iter().map(AsRef::as_ref));
                if recent.len() == KEPT {
                    recent.remove(0);
                }
                recent.push(shape.clone());
                shape
            }
        }
    })
}

/// The binary form: tags in a fixed order; a change needs a new format version of everything that holds values.
/// Text is owned: the decoder of keys has no borrowed text.
#[derive(Deserialize)]
enum Tagged {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Time(i64),
    Str(String),
    List(Vec<Value>),
    Row(Vec<(String, Value)>),
}

fn rfc3339(micros: i64) -> Option<String> {
    jiff::Timestamp::from_microsecond(micros).ok().map(|time| time.to_string())
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return match self {
                Value::Null => serializer.serialize_unit(),
                Value::Bool(bool) => serializer.serialize_bool(*bool),
                Value::Int(int) => serializer.serialize_i64(*int),
                Value::Float(float) => serializer.serialize_f64(*float),
                Value::Time(micros) => match rfc3339(*micros) {
                    Some(text) => serializer.serialize_str(&text),
                    None => serializer.serialize_i64(*micros),
                },
                Value::Str(text) => serializer.serialize_str(text),
                Value::List(list) => {
                    let mut seq = serializer.serialize_seq(Some(list.len()))?;
                    list.iter().try_for_each(|value| seq.serialize_element(value))?;
                    seq.end()
                }
                Value::Row(row) => row.serialize(serializer),
            };
        }
        match self {
            Value::Null => serializer.serialize_unit_variant("Value", 0, "Null"),
            Value::Bool(bool) => serializer.serialize_newtype_variant("Value", 1, "Bool", bool),
            Value::Int(int) => serializer.serialize_newtype_variant("Value", 2, "Int", int),
            Value::Float(float) => serializer.serialize_newtype_variant("Value", 3, "Float", float),
            Value::Time(micros) => serializer.serialize_newtype_variant("Value", 4, "Time", micros),
            Value::Str(text) => serializer.serialize_newtype_variant("Value", 5, "Str", text.as_str()),
            Value::List(list) => serializer.serialize_newtype_variant("Value", 6, "List", &**list),
            Value::Row(row) => {
                let pairs: Vec<_> = row.shape.names.iter().zip(&row.values).collect();
                serializer.serialize_newtype_variant("Value", 7, "Row", &pairs)
            }
        }
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len()))?;
        for (name, value) in self.shape.names.iter().zip(&self.values) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() && !is_decoding_key() {
            return deserializer.deserialize_any(JsonVisitor);
        }
        Ok(match Tagged::deserialize(deserializer)? {
            Tagged::Null => Value::Null,
            Tagged::Bool(bool) => Value::Bool(bool),
            Tagged::Int(int) => Value::Int(int),
            Tagged::Float(float) => Value::Float(float),
            Tagged::Time(micros) => Value::Time(micros),
            Tagged::Str(text) => Value::Str(text.into()),
            Tagged::List(list) => Value::List(list.into()),
            Tagged::Row(pairs) => {
                let (names, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
                Value::Row(Row::new(shared_shape(&names), values))
            }
        })
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
    fn visit_bool<E>(self, bool: bool) -> Result<Value, E> {
        Ok(Value::Bool(bool))
    }
    fn visit_i64<E>(self, int: i64) -> Result<Value, E> {
        Ok(Value::Int(int))
    }
    fn visit_u64<E>(self, int: u64) -> Result<Value, E> {
        Ok(i64::try_from(int).map_or(Value::Float(int as f64), Value::Int))
    }
    fn visit_f64<E>(self, float: f64) -> Result<Value, E> {
        Ok(Value::Float(float))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Str(text.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::List(list.into()))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let (mut names, mut values) = (Vec::<CompactString>::new(), Vec::new());
        while let Some((name, value)) = map.next_entry()? {
            names.push(name);
            values.push(value);
        }
        Ok(Value::Row(Row::new(shared_shape(&names), values)))
    }
}

/// Reads a user's type out of a value.
impl<'de> Deserializer<'de> for &Value {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self {
            Value::Null => visitor.visit_unit(),
            Value::Bool(bool) => visitor.visit_bool(*bool),
            Value::Int(int) => visitor.visit_i64(*int),
            Value::Float(float) => visitor.visit_f64(*float),
            Value::Time(micros) => match rfc3339(*micros) {
                Some(text) => visitor.visit_string(text),
                None => visitor.visit_i64(*micros),
            },
            Value::Str(text) => visitor.visit_str(text),
            Value::List(list) => visitor.visit_seq(de::value::SeqDeserializer::new(list.iter())),
            Value::Row(row) => {
                let pairs = row.shape.names.iter().map(|name| name.as_str()).zip(row.values.iter());
                visitor.visit_map(de::value::MapDeserializer::new(pairs))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self {
            Value::Null => visitor.visit_none(),
            other => visitor.visit_some(other),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self {
            Value::Str(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Row(row) => {
                let pairs = row.shape.names.iter().map(|name| name.as_str()).zip(row.values.iter());
                visitor.visit_enum(de::value::MapAccessDeserializer::new(de::value::MapDeserializer::new(pairs)))
            }
            other => Err(de::Error::custom(format!("expected the name of a variant, found {}", other.kind()))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de> for &Value {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode_key, encode_key};

    fn sample() -> Value {
        serde_json::from_str(
            r#"{"a":1,"b":[true,null,1.5],"c":{"d":"text longer than the inline limit of compact text"}}"#,
        )
        .expect("json")
    }

    #[test]
    fn values_survive_json_postcard_and_keys() {
        let value = Value::List(vec![sample(), Value::Time(979_000_000_000_000)].into());
        assert_eq!(
            postcard::from_bytes::<Value>(&postcard::to_stdvec(&value).expect("encodes")).expect("decodes"),
            value
        );
        let mut key = Vec::new();
        encode_key(&value, &mut key).expect("encodes");
        assert_eq!(decode_key::<Value>(&key).expect("decodes"), value);
        assert_eq!(sample().to_string().parse::<serde_json::Value>().expect("json")["b"][2], 1.5);
        assert_eq!(size_of::<Value>(), 32);
    }

    #[test]
    fn values_become_typed_and_back() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Order {
            customer: String,
            cents: u64,
            note: Option<String>,
        }
        let value: Value = serde_json::from_str(r#"{"customer":"ada","cents":250}"#).expect("json");
        let order: Order = value.to_serde().expect("fits");
        assert_eq!(order, Order { customer: "ada".into(), cents: 250, note: None });
        assert_eq!(Value::from_serde(&order).expect("fits").get("cents"), Some(&Value::Int(250)));
        assert!(Value::Int(1).to_serde::<Order>().is_err());
    }
}
