//! Values into the bytes of a sink's records.

use serde::Serialize;
use thalweg_core::{Error, Result, Row, Value};

use super::cell;

/// How the records of a sink are written.
///
/// ```
/// use thalweg_connectors::OutFormat;
///
/// let mut out = Vec::new();
/// OutFormat::Json.encode(&("the", 3), &mut out)?;
/// assert_eq!(out, br#"["the",3]"#);
/// # Ok::<(), thalweg_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutFormat {
    /// JSON on one line.
    Json,
    /// The text of the single field, or of a value that is no row; it may not hold a line end.
    Lines,
    /// The values of a row, in order; read back they have the same types. Lists and rows inside are JSON.
    Csv,
    /// As `Lines`, with any text.
    Raw,
}

impl OutFormat {
    /// What the names of files in this format end with.
    pub fn extension(self) -> &'static str {
        match self {
            OutFormat::Json => "jsonl",
            OutFormat::Csv => "csv",
            OutFormat::Lines | OutFormat::Raw => "txt",
        }
    }

    /// Appends the record of anything with serde, without a line end.
    ///
    /// Errors: `encode` where the format cannot hold the value.
    pub fn encode<T: Serialize + ?Sized>(self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        match self {
            OutFormat::Json => serde_json::to_writer(out, value)
                .map_err(|error| Error::user("encode", format!("cannot be written as JSON: {error}"))),
            OutFormat::Lines | OutFormat::Csv | OutFormat::Raw => self.encode_value(&Value::from_serde(value)?, out),
        }
    }

    /// Appends the record of an untyped value, without a line end.
    pub fn encode_value(self, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        match self {
            OutFormat::Json => self.encode(value, out),
            OutFormat::Csv => csv_row(value, out),
            OutFormat::Raw => text(value, "raw", out),
            OutFormat::Lines => {
                let start = out.len();
                text(value, "lines", out)?;
                if memchr::memchr2(b'\n', b'\r', &out[start..]).is_some() {
                    out.truncate(start);
                    return Err(Error::user(
                        "encode",
                        format!("the text {value} holds a line end; use format = \"json\""),
                    ));
                }
                Ok(())
            }
        }
    }

    /// Appends the line that names the columns, where the format has one, without a line end.
    pub fn header<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>, out: &mut Vec<u8>) {
        if self == OutFormat::Csv {
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                csv_text(name.as_ref(), out);
            }
        }
    }
}

/// The value as text where it is not already: as JSON shows it, without quotes around times.
fn shown(value: &Value) -> String {
    let json = value.to_string();
    match value {
        Value::Time(_) => json.trim_matches('"').to_owned(),
        _ => json,
    }
}

fn text(value: &Value, format: &str, out: &mut Vec<u8>) -> Result<()> {
    let single = match value {
        Value::Row(row) if row.values().len() == 1 => &row.values()[0],
        other => other,
    };
    match single {
        Value::Null => {}
        Value::Str(text) => out.extend_from_slice(text.as_bytes()),
        Value::List(_) | Value::Row(_) => {
            return Err(Error::user(
                "encode",
                format!(
                    "format = \"{format}\" takes one text, and the record is {value}; use format = \"json\", or a map to one field"
                ),
            ));
        }
        scalar => out.extend_from_slice(shown(scalar).as_bytes()),
    }
    Ok(())
}

fn csv_row(value: &Value, out: &mut Vec<u8>) -> Result<()> {
    let values: &[Value] = match value {
        Value::Row(row) => Row::values(row),
        Value::List(list) => list,
        scalar => std::slice::from_ref(scalar),
    };
    // A record of one empty cell would be a blank line, which is no record.
    if matches!(values, [] | [Value::Null]) {
        return Err(Error::user(
            "encode",
            format!("format = \"csv\" cannot hold the record {value}, it would be a blank line; use format = \"json\""),
        ));
    }
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match value {
            Value::Null => {}
            Value::Str(text) => csv_text(text, out),
            Value::List(_) | Value::Row(_) => quote(&value.to_string(), out),
            scalar => out.extend_from_slice(shown(scalar).as_bytes()),
        }
    }
    Ok(())
}

/// Text that would be read as something else, or as several cells, is quoted.
fn csv_text(text: &str, out: &mut Vec<u8>) {
    let special = text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) || text.trim().is_empty();
    if special || !matches!(cell::typed(text.as_bytes()), Ok(Value::Str(_))) {
        quote(text, out);
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::super::{CsvOptions, Format};
    use super::*;

    fn check(format: OutFormat, json: &str, shown: &str) {
        let value: Value = serde_json::from_str(json).expect(json);
        let mut out = Vec::new();
        let found = match format.encode_value(&value, &mut out) {
            Ok(()) => String::from_utf8(out).expect("text"),
            Err(error) => format!("{}!", error.code()),
        };
        assert_eq!(found, shown, "{format:?} of {json}");
    }

    #[test]
    fn values_have_their_text() {
        check(OutFormat::Json, r#"{"a":[1,"x\ny"]}"#, r#"{"a":[1,"x\ny"]}"#);
        check(OutFormat::Lines, r#"{"line":"a b"}"#, "a b");
        check(OutFormat::Lines, "1.5", "1.5");
        check(OutFormat::Lines, r#""a\nb""#, "encode!");
        check(OutFormat::Raw, r#"{"value":"a\nb"}"#, "a\nb");
        check(OutFormat::Raw, r#"{"a":1,"b":2}"#, "encode!");
        check(OutFormat::Csv, r#"{"a":1,"b":null,"c":"x","d":true}"#, "1,,x,true");
        check(OutFormat::Csv, r#"["1","true","","a,b","a\"b",[1,"x"]]"#, r#""1","true","","a,b","a""b","[1,""x""]""#);
        check(OutFormat::Csv, "{\"a\":null}", "encode!");
    }

    #[test]
    fn csv_survives_being_read_back() {
        let texts = ["", " ", "007", "1", "x\"y", "a,b", "l1\nl2\r", "2001-01-01T00:01:00Z", "true", "é"];
        let mut values: Vec<Value> = texts.map(Value::from).to_vec();
        values.extend([
            Value::Null,
            Value::Int(-5),
            Value::Float(2.0),
            Value::Float(1e300),
            Value::Bool(false),
            Value::Time(978_307_260_250_000),
        ]);
        let names: Vec<String> = (0..values.len()).map(|index| format!("c {index}\"")).collect();
        let row = Value::Row(Row::new(thalweg_core::Shape::new(names.iter().map(String::as_str)), values));
        let (mut header, mut out) = (Vec::new(), Vec::new());
        OutFormat::Csv.header(&names, &mut header);
        OutFormat::Csv.encode_value(&row, &mut out).expect("encodes");
        let header = String::from_utf8(header).expect("text");
        assert_eq!(decode(&Format::Csv(CsvOptions::default()), Some(&header), &["*"], &[&out]), [row.to_string()]);
    }
}
