//! Cutting JSON texts without decoding them: values come out as the job wrote them, with all their digits and in their order.

use serde::de::IgnoredAny;
use serde_json::Deserializer;

/// The members of an object, as texts, in their order. Nothing where this is no object.
pub(super) fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim_start();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (name, after) = first_value(rest)?;
        let (value, after) = first_value(after.trim_start().strip_prefix(':')?)?;
        found.push((serde_json::from_str(name).ok()?, value));
        rest = next(after)?;
    }
    Some(found)
}

/// The elements of an array, as texts. Nothing where this is no array.
pub(super) fn elements(text: &str) -> Option<Vec<&str>> {
    let mut rest = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim_start();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (value, after) = first_value(rest)?;
        found.push(value);
        rest = next(after)?;
    }
    Some(found)
}

/// A text as people read it: a JSON string without its quotes, everything else as it is.
pub(super) fn plain(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

fn first_value(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    let mut values = Deserializer::from_str(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(text.split_at(values.byte_offset()))
}

/// What follows a comma, or nothing at the end. A comma at the end is no JSON.
fn next(after: &str) -> Option<&str> {
    let after = after.trim_start();
    if after.is_empty() {
        return Some(after);
    }
    after.strip_prefix(',').map(str::trim_start).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_text() {
        let text =
            r#"{"entries":[{"key":"a,]}","value":{"z":18446744073709551616,"a":1.50}}, [2 ,3]] , "cursor":null}"#;
        let found = members(text).expect("an object");
        assert_eq!(found[1], ("cursor".to_owned(), "null"));
        let entries = elements(found[0].1).expect("an array");
        assert_eq!(entries, [r#"{"key":"a,]}","value":{"z":18446744073709551616,"a":1.50}}"#, "[2 ,3]"]);
        assert_eq!(members(entries[0]).expect("an object")[1].1, r#"{"z":18446744073709551616,"a":1.50}"#);
        assert_eq!(plain("\"a\\\"b\""), "a\"b");
        assert_eq!(plain("[1]"), "[1]");
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for text in ["", "1", "{", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1 \"b\":2}", "{1:2}"] {
            assert!(members(text).is_none(), "{text}");
        }
        for text in ["", "[", "[1,]", "[1 2]", "[,]", "{}"] {
            assert!(elements(text).is_none(), "{text}");
        }
        assert_eq!((members("{}"), elements("[ ]")), (Some(vec![]), Some(vec![])));
    }
}
