//! From any type with serde to a value, without a text in between.
//!
//! What JSON would say, this says too: `None` and numbers that are none are null, bytes are a list of numbers, a variant is its name
//! or a row of one field. Two things are more than JSON's: a struct keeps the order of its fields, and a map is sorted by its keys,
//! so that a hash map gives the same row on every run.

use std::fmt::Display;

use compact_str::CompactString;
use serde::ser::{self, Serialize};

use super::{Row, Value, shared_shape};

/// Why a type is no value.
#[derive(Debug)]
pub(super) struct Refused(String);

impl Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: Display>(why: T) -> Self {
        Self(why.to_string())
    }
}

/// Makes one value.
pub(super) struct ToValue;

/// The values of a sequence, and the variant that they belong to.
pub(super) struct Elements {
    variant: Option<&'static str>,
    values: Vec<Value>,
}

/// The fields of a struct, and the variant that they belong to.
pub(super) struct Fields {
    variant: Option<&'static str>,
    names: Vec<&'static str>,
    values: Vec<Value>,
}

/// The entries of a map.
pub(super) struct Entries {
    key: Option<CompactString>,
    entries: Vec<(CompactString, Value)>,
}

impl Elements {
    fn new(variant: Option<&'static str>, count: Option<usize>) -> Self {
        Self { variant, values: Vec::with_capacity(count.unwrap_or(0)) }
    }
}

impl Fields {
    fn new(variant: Option<&'static str>, count: usize) -> Self {
        Self { variant, names: Vec::with_capacity(count), values: Vec::with_capacity(count) }
    }
}

fn of_variant(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(variant) => Value::Row(Row::new(shared_shape(&[variant]), vec![value])),
        None => value,
    }
}

/// The name of a field from the key of a map.
fn field_name(key: Value) -> Result<CompactString, Refused> {
    match key {
        Value::Str(text) => Ok(text),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => Ok(key.to_string().into()),
        other => {
            Err(Refused(format!("the key of a map has to be text, a number or a truth value, it is {}", other.kind())))
        }
    }
}

impl ser::Serializer for ToValue {
    type Ok = Value;
    type Error = Refused;
    type SerializeSeq = Elements;
    type SerializeTuple = Elements;
    type SerializeTupleStruct = Elements;
    type SerializeTupleVariant = Elements;
    type SerializeMap = Entries;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    fn serialize_bool(self, bool: bool) -> Result<Value, Refused> {
        Ok(Value::Bool(bool))
    }

    fn serialize_i8(self, int: i8) -> Result<Value, Refused> {
        self.serialize_i64(int.into())
    }

    fn serialize_i16(self, int: i16) -> Result<Value, Refused> {
        self.serialize_i64(int.into())
    }

    fn serialize_i32(self, int: i32) -> Result<Value, Refused> {
        self.serialize_i64(int.into())
    }

    fn serialize_i64(self, int: i64) -> Result<Value, Refused> {
        Ok(Value::Int(int))
    }

    fn serialize_i128(self, int: i128) -> Result<Value, Refused> {
        i64::try_from(int).map(Value::Int).map_err(|_| Refused(format!("{int} is beyond 64 bits")))
    }

    fn serialize_u8(self, int: u8) -> Result<Value, Refused> {
        self.serialize_i64(int.into())
    }

    fn serialize_u16(self, int: u16) -> Result<Value, Refused> {
        self.serialize_i64(int.into())
    }

    fn serialize_u32(self, int: u32) -> Result<Value, Refused> {
        self.serialize_i64(int.into())
    }

    fn serialize_u64(self, int: u64) -> Result<Value, Refused> {
        Ok(i64::try_from(int).map_or(Value::Float(int as f64), Value::Int))
    }

    fn serialize_u128(self, int: u128) -> Result<Value, Refused> {
        u64::try_from(int)
            .map_err(|_| Refused(format!("{int} is beyond 64 bits")))
            .and_then(|int| self.serialize_u64(int))
    }

    fn serialize_f32(self, float: f32) -> Result<Value, Refused> {
        self.serialize_f64(float.into())
    }

    fn serialize_f64(self, float: f64) -> Result<Value, Refused> {
        Ok(if float.is_finite() { Value::Float(float) } else { Value::Null })
    }

    fn serialize_char(self, char: char) -> Result<Value, Refused> {
        self.serialize_str(char.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<Value, Refused> {
        Ok(Value::Str(text.into()))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, Refused> {
        Ok(Value::List(bytes.iter().map(|byte| Value::Int((*byte).into())).collect()))
    }

    fn serialize_none(self) -> Result<Value, Refused> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Refused> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Refused> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Refused> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, Refused> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, Refused> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Refused> {
        Ok(of_variant(Some(variant), value.serialize(self)?))
    }

    fn serialize_seq(self, count: Option<usize>) -> Result<Elements, Refused> {
        Ok(Elements::new(None, count))
    }

    fn serialize_tuple(self, count: usize) -> Result<Elements, Refused> {
        Ok(Elements::new(None, Some(count)))
    }

    fn serialize_tuple_struct(self, _: &'static str, count: usize) -> Result<Elements, Refused> {
        Ok(Elements::new(None, Some(count)))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Elements, Refused> {
        Ok(Elements::new(Some(variant), Some(count)))
    }

    fn serialize_map(self, count: Option<usize>) -> Result<Entries, Refused> {
        Ok(Entries { key: None, entries: Vec::with_capacity(count.unwrap_or(0)) })
    }

    fn serialize_struct(self, _: &'static str, count: usize) -> Result<Fields, Refused> {
        Ok(Fields::new(None, count))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        count: usize,
    ) -> Result<Fields, Refused> {
        Ok(Fields::new(Some(variant), count))
    }
}

/// Serde has a trait for each way of giving elements one after the other; here they are one.
macro_rules! give_elements {
    ($($way:ident :: $give:ident),+) => {$(
        impl ser::$way for Elements {
            type Ok = Value;
            type Error = Refused;

            fn $give<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.values.push(value.serialize(ToValue)?);
                Ok(())
            }

            fn end(self) -> Result<Value, Refused> {
                Ok(of_variant(self.variant, Value::List(self.values.into())))
            }
        }
    )+};
}

give_elements!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

/// And of giving named fields.
macro_rules! give_fields {
    ($($way:ident),+) => {$(
        impl ser::$way for Fields {
            type Ok = Value;
            type Error = Refused;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Refused> {
                self.names.push(name);
                self.values.push(value.serialize(ToValue)?);
                Ok(())
            }

            fn end(self) -> Result<Value, Refused> {
                Ok(of_variant(self.variant, Value::Row(Row::new(shared_shape(&self.names), self.values))))
            }
        }
    )+};
}

give_fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Entries {
    type Ok = Value;
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.key = Some(field_name(key.serialize(ToValue)?)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        let key = self.key.take().ok_or_else(|| Refused("a map gives a value without its key".to_owned()))?;
        self.entries.push((key, value.serialize(ToValue)?));
        Ok(())
    }

    fn end(mut self) -> Result<Value, Refused> {
        // Stable, and the last of equal keys stays, as in JSON.
        self.entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        self.entries.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        let (names, values): (Vec<_>, Vec<_>) = self.entries.into_iter().unzip();
        Ok(Value::Row(Row::new(shared_shape(&names), values)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use serde::Serialize;

    use super::*;

    /// What becomes of a value of a type, as text, and that JSON says the same.
    fn check<T: Serialize>(value: &T, wanted: &str) {
        let found = Value::from_serde(value).expect("a value");
        assert_eq!(found.to_string(), wanted);
        let json = serde_json::to_value(value).expect("JSON");
        assert_eq!(serde_json::to_value(&found).expect("JSON"), json, "{wanted}");
    }

    #[derive(Serialize)]
    struct Order<'a> {
        who: &'a str,
        cents: u64,
        note: Option<char>,
        inner: Inner,
    }

    #[derive(Serialize)]
    struct Inner(u8, i16, f32);

    #[derive(Serialize)]
    enum Kind {
        Unit,
        Newtype(f64),
        Tuple(bool, ()),
        Struct { z: i32, a: i32 },
    }

    #[test]
    fn every_kind_of_type_is_what_json_says() {
        check(&true, "true");
        check(&i64::MIN, "-9223372036854775808");
        check(&1.5f32, "1.5");
        check(&f64::NAN, "null");
        check(&f64::INFINITY, "null");
        check(&'ß', r#""ß""#);
        check(&Some("text"), r#""text""#);
        check(&None::<u8>, "null");
        check(&(), "null");
        check(&b"\x00\xff", "[0,255]");
        check(&(1, "two", [3.0]), r#"[1,"two",[3.0]]"#);
        let order = Order { who: "ada", cents: 250, note: None, inner: Inner(1, -2, 0.5) };
        check(&order, r#"{"who":"ada","cents":250,"note":null,"inner":[1,-2,0.5]}"#);
        check(
            &[Kind::Unit, Kind::Newtype(1.0), Kind::Tuple(false, ()), Kind::Struct { z: 1, a: 2 }],
            r#"["Unit",{"Newtype":1.0},{"Tuple":[false,null]},{"Struct":{"z":1,"a":2}}]"#,
        );
        check(&BTreeMap::from([(10, 'a'), (9, 'b')]), r#"{"10":"a","9":"b"}"#);
        check(&BTreeMap::from([(true, 1), (false, 2)]), r#"{"false":2,"true":1}"#);
        check(&(0..50).map(|n| (format!("k{n:02}"), n)).collect::<HashMap<_, _>>(), &{
            let fields: Vec<String> = (0..50).map(|n| format!(r#""k{n:02}":{n}"#)).collect();
            format!("{{{}}}", fields.join(","))
        });
    }

    #[test]
    fn a_number_beyond_i64_is_a_float() {
        assert_eq!(Value::from_serde(&u64::MAX).expect("a value"), Value::Float(u64::MAX as f64));
    }

    #[test]
    fn the_last_of_equal_keys_stays() {
        struct Twice;
        impl Serialize for Twice {
            fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map([("b", 1), ("a", 2), ("b", 3), ("b", 4), ("a", 5)])
            }
        }
        check(&Twice, r#"{"a":5,"b":4}"#);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for (refused, why) in [
            (Value::from_serde(&i128::MAX), "beyond 64 bits"),
            (Value::from_serde(&u128::MAX), "beyond 64 bits"),
            (Value::from_serde(&BTreeMap::from([((1, 2), 3)])), "the key of a map"),
        ] {
            let error = refused.expect_err("no value");
            assert_eq!(error.code(), "to-value");
            assert!(error.message().contains(why), "{error}");
        }
    }
}
