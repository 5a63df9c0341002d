//! JSON into untyped values: the names of the last rows are used again, so that a row costs its values only.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use thalweg_core::{Row, Shape, Value};

use super::{Decoder, Fields, OfValues, ValueDecoder, is_blank};

pub(super) fn decoder(fields: &Fields) -> Box<dyn Decoder<Value>> {
    match fields {
        Fields::All => Box::new(OfValues(AllFields { shapes: Shapes::default() })),
        Fields::Only(names) => Box::new(OfValues(SomeFields {
            shape: Shape::new(names.iter().map(String::as_str)),
            found: vec![false; names.len()],
            shapes: Shapes::default(),
        })),
    }
}

/// The shapes seen lately, the last one first.
#[derive(Default)]
struct Shapes {
    recent: Vec<Arc<Shape>>,
}

impl Shapes {
    /// More kinds of rows than this in one source share their names less well, and nothing else changes.
    const KEPT: usize = 16;

    fn last(&self) -> Option<Arc<Shape>> {
        self.recent.first().cloned()
    }

    fn get(&mut self, names: &[&str]) -> Arc<Shape> {
        let same = |shape: &Arc<Shape>| shape.names().iter().map(|name| name.as_str()).eq(names.iter().copied());
        match self.recent.iter().position(same) {
            Some(index) => self.recent[..=index].rotate_right(1),
            None => {
                self.recent.truncate(Self::KEPT - 1);
                self.recent.insert(0, Shape::new(names.iter().copied()));
            }
        }
        self.recent[0].clone()
    }
}

fn whole<'de, S: DeserializeSeed<'de>>(seed: S, bytes: &'de [u8]) -> Result<S::Value, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = seed.deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

fn is_object(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

struct AllFields {
    shapes: Shapes,
}

impl ValueDecoder<Value> for AllFields {
    fn value(&mut self, bytes: &[u8]) -> Result<Option<Value>, String> {
        if is_blank(bytes) {
            return Ok(None);
        }
        let value = if is_object(bytes) {
            whole(AnyRow { shapes: &mut self.shapes }, bytes)
        } else {
            serde_json::from_slice(bytes)
        };
        value.map(Some).map_err(invalid)
    }
}

fn invalid(error: serde_json::Error) -> String {
    format!("no valid JSON: {error}")
}

/// An object with whatever fields it has, in its own order; of a name that comes twice the last value counts.
struct AnyRow<'a> {
    shapes: &'a mut Shapes,
}

impl<'de> DeserializeSeed<'de> for AnyRow<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AnyRow<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        // As long as the names are those of the last row, none is allocated.
        let last = self.shapes.last();
        let expected = last.as_ref().map_or(&[][..], |shape| shape.names());
        let mut values = Vec::with_capacity(expected.len());
        let mut others: Vec<String> = Vec::new();
        while let Some(name) = map.next_key_seed(Expected(expected.get(values.len()).map(|name| name.as_str())))? {
            let Some(name) = name else {
                values.push(map.next_value()?);
                continue;
            };
            others.extend(expected[..values.len()].iter().map(|name| name.as_str().to_owned()));
            put(&mut others, &mut values, name, map.next_value()?);
            while let Some((name, value)) = map.next_entry()? {
                put(&mut others, &mut values, name, value);
            }
        }
        let shape = match last {
            Some(shape) if others.is_empty() && values.len() == shape.names().len() => shape,
            _ if others.is_empty() => {
                let names: Vec<&str> = expected[..values.len()].iter().map(|name| name.as_str()).collect();
                self.shapes.get(&names)
            }
            _ => self.shapes.get(&others.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        Ok(Value::Row(Row::new(shape, values)))
    }
}

fn put(names: &mut Vec<String>, values: &mut Vec<Value>, name: String, value: Value) {
    match names.iter().position(|own| *own == name) {
        Some(index) => values[index] = value,
        None => {
            names.push(name);
            values.push(value);
        }
    }
}

/// A field name: nothing where it is the expected one.
struct Expected<'a>(Option<&'a str>);

impl<'de> DeserializeSeed<'de> for Expected<'_> {
    type Value = Option<String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Expected<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<String>, E> {
        Ok((self.0 != Some(name)).then(|| name.to_owned()))
    }
}

struct SomeFields {
    /// All wanted fields.
    shape: Arc<Shape>,
    /// Which of them the present record has.
    found: Vec<bool>,
    /// The shapes of records that lack some.
    shapes: Shapes,
}

impl ValueDecoder<Value> for SomeFields {
    fn value(&mut self, bytes: &[u8]) -> Result<Option<Value>, String> {
        if is_blank(bytes) {
            return Ok(None);
        }
        if !is_object(bytes) {
            return Err("not a JSON object, so it has no fields".to_owned());
        }
        self.found.fill(false);
        let values = whole(WantedRow { shape: &self.shape, found: &mut self.found }, bytes).map_err(invalid)?;
        Ok(Some(self.row(values)))
    }
}

impl SomeFields {
    /// A field that the record lacks is absent in the row as well, as it would be without a projection.
    fn row(&mut self, mut values: Vec<Value>) -> Value {
        if self.found.iter().all(|found| *found) {
            return Value::Row(Row::new(self.shape.clone(), values));
        }
        let names = self.shape.names().iter().zip(&self.found);
        let names: Vec<&str> = names.filter(|(_, found)| **found).map(|(name, _)| name.as_str()).collect();
        let mut found = self.found.iter();
        values.retain(|_| found.next().copied().unwrap_or(false));
        Value::Row(Row::new(self.shapes.get(&names), values))
    }
}

/// The wanted fields of an object, in the order of the shape.
struct WantedRow<'a> {
    shape: &'a Shape,
    found: &'a mut [bool],
}

impl<'de> DeserializeSeed<'de> for WantedRow<'_> {
    type Value = Vec<Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Value>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WantedRow<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Value>, A::Error> {
        let mut values = vec![Value::Null; self.found.len()];
        while let Some(slot) = map.next_key_seed(Wanted(self.shape))? {
            match slot {
                Some(slot) => {
                    values[slot] = map.next_value()?;
                    self.found[slot] = true;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// A field name: where it is in the shape, if it is wanted.
struct Wanted<'a>(&'a Shape);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = Option<usize>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Wanted<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.index_of(name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::tests::decode;

    fn check(fields: &[&str], cases: &[(&str, &str)]) {
        // All through one decoder: what it remembers of one record must not show in the next.
        let records: Vec<&[u8]> = cases.iter().map(|(record, _)| record.as_bytes()).collect();
        let shown: Vec<&str> = cases.iter().map(|(_, shown)| *shown).filter(|shown| !shown.is_empty()).collect();
        let found = decode(&Format::Json, None, fields, &records);
        assert_eq!(found.len(), shown.len(), "{found:?}");
        for (found, shown) in found.iter().zip(shown) {
            let fits =
                if shown.ends_with("...") { found.starts_with(shown.trim_end_matches('.')) } else { found == shown };
            assert!(fits, "{found}, not {shown}");
        }
    }

    #[test]
    fn objects_of_any_shape_follow_each_other() {
        check(
            &["*"],
            &[
                (r#"{"a":1,"b":"x"}"#, r#"{"a":1,"b":"x"}"#),
                (r#"{"a":2,"b":{"c":[1.5,null]}}"#, r#"{"a":2,"b":{"c":[1.5,null]}}"#),
                (r#"{"b":2,"a":1}"#, r#"{"b":2,"a":1}"#),
                (r#"{"b":2}"#, r#"{"b":2}"#),
                (r#"{"b":2,"c":3}"#, r#"{"b":2,"c":3}"#),
                (r#"{"b":2,"b":3}"#, r#"{"b":3}"#),
                ("", ""),
                ("{}", "{}"),
                (r#"{"a":1"#, "bad: no valid JSON: EOF..."),
                (r#"{"a":1} x"#, "bad: no valid JSON: trailing characters..."),
                (r#"[1,"x"]"#, r#"[1,"x"]"#),
                (r#"{"a":1}"#, r#"{"a":1}"#),
                (r#"{"\u0061":1}"#, r#"{"a":1}"#),
                (r#"{"a":9223372036854775808}"#, r#"{"a":9.223372036854776e+18}"#),
            ],
        );
    }

    #[test]
    fn only_wanted_fields_are_decoded() {
        check(
            &["delay", "origin"],
            &[
                (r#"{"x":[{}],"origin":"SEA","delay":3}"#, r#"{"delay":3,"origin":"SEA"}"#),
                (r#"{"origin":"SEA"}"#, r#"{"origin":"SEA"}"#),
                (r#"{"origin":null,"delay":1,"delay":2}"#, r#"{"delay":2,"origin":null}"#),
                ("{}", "{}"),
                ("[1]", "bad: not a JSON object..."),
                (r#"{"delay":1,"x":tru}"#, "bad: no valid JSON..."),
            ],
        );
    }
}
