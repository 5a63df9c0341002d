//! Records of fastavro 1.13 (Python), and what is refused.

use super::*;
use crate::format::Fields;

/// As fastavro has written them with it.
const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"id","type":"long"},
    {"name":"who","type":["null","string"]},
    {"name":"paid","type":"boolean"},
    {"name":"share","type":"float"},
    {"name":"weight","type":"double"},
    {"name":"blob","type":"bytes"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"seen","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}},
    {"name":"tax","type":{"type":"fixed","name":"Tax","size":4,"logicalType":"decimal","precision":8,"scale":3}},
    {"name":"state","type":{"type":"enum","name":"State","symbols":["OPEN","SENT"]}},
    {"name":"last","type":"State"},
    {"name":"ref","type":{"type":"string","logicalType":"uuid"}},
    {"name":"tags","type":{"type":"array","items":"string"}},
    {"name":"stock","type":{"type":"map","values":"int"}},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[{"name":"sku","type":"string"},{"name":"inner","type":["null","Line"]}]}}},
    {"name":"either","type":["null","long","Line","string"]}]}"#;
const FULL: &str = "0d0206616461010000003f000000000000f43f0400fff4abc9cb8c3901b2b10104cfc7000004e20200483132333435363738 \
    2d313233342d353637382d313233342d35363738313233343536373804026104c3a900040262040261020002027802027900 \
    0004027a00";
const EMPTY: &str = "0d00000000003f000000000000f43f0400fff4abc9cb8c3901b2b1010205000004e202004831323334353637382d31323334 \
    2d353637382d313233342d35363738313233343536373800000000";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// What a record is with all fields, or with some.
fn read(schema: &str, fields: &[&str], record: &[u8]) -> String {
    let schema = match AvroSchema::parse(schema, &[]) {
        Ok(schema) => Arc::new(schema),
        Err(why) => return format!("no schema: {why}"),
    };
    let fields = match fields {
        ["*"] => Fields::All,
        names => Fields::Only(names.iter().map(|name| (*name).to_owned()).collect()),
    };
    match AvroRecords::new(schema, &fields, Decimals::Number).read(record) {
        Ok(value) => value.to_string(),
        Err(why) => format!("bad: {why}"),
    }
}

fn check(schema: &str, fields: &[&str], record: &str, wanted: &str) {
    let found = read(schema, fields, &bytes(record));
    assert!(
        found == wanted || wanted.ends_with("...") && found.starts_with(wanted.trim_end_matches('.')),
        "{found}, not {wanted}"
    );
}

#[test]
fn every_type_has_its_value() {
    check(
        ORDER,
        &["*"],
        FULL,
        concat!(
            r#"{"id":-7,"who":"ada","paid":true,"share":0.5,"weight":1.25,"blob":"AP8=","at":"2001-01-31T12:00:00.25Z","#,
            r#""seen":"1969-12-31T23:59:59.999999Z","day":"2001-01-31T00:00:00Z","price":-123.45,"tax":1.25,"#,
            r#""state":"SENT","last":"OPEN","ref":"12345678-1234-5678-1234-567812345678","tags":["a","é"],"#,
            r#""stock":{"a":1,"b":2},"lines":[{"sku":"x","inner":{"sku":"y","inner":null}}],"#,
            r#""either":{"sku":"z","inner":null}}"#
        ),
    );
    check(
        ORDER,
        &["price", "either", "nothing", "who", "stock", "tags"],
        EMPTY,
        r#"{"price":0.05,"either":null,"who":null,"stock":{},"tags":[]}"#,
    );
    check(ORDER, &["either", "id"], FULL, r#"{"either":{"sku":"z","inner":null},"id":-7}"#);
    check(ORDER, &[], FULL, "{}");
    check(r#""string""#, &["*"], "0461 62", r#""ab""#);
    check(
        r#"{"type":{"type":"long","logicalType":"timestamp-nanos"}}"#,
        &["*"],
        "01",
        r#""1969-12-31T23:59:59.999999Z""#,
    );
    check(r#"{"type":"int","logicalType":"unheard-of"}"#, &["*"], "02", "1");
    check(
        r#"{"type":"fixed","name":"F","size":12,"logicalType":"duration"}"#,
        &["*"],
        "010000000200000003000000",
        r#"{"months":1,"days":2,"millis":3}"#,
    );
    check(
        r#"{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}"#,
        &["*"],
        "12345678123456781234567812345678",
        r#""12345678-1234-5678-1234-567812345678""#,
    );
    // Blocks that can be passed over have a negative count, and their length.
    check(r#"{"type":"array","items":"int"}"#, &["*"], "0304 0204 02 06 00", "[1,2,3]");
    let within = r#"{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"array","items":"int"}},{"name":"b","type":"int"}]}"#;
    check(within, &["b"], "0304 0204 00 08", r#"{"b":4}"#);
}

#[test]
fn one_topic_may_have_several_kinds_of_records() {
    let union = r#"[{"type":"record","name":"a.One","fields":[{"name":"x","type":"int"}]},
        {"type":"record","name":"Two","namespace":"b","fields":[{"name":"y","type":"int"},{"name":"x","type":"string"}]}, "int"]"#;
    check(union, &["*"], "0002", r#"{"x":1}"#);
    check(union, &["x"], "0202 0261", r#"{"x":"a"}"#);
    check(union, &["x"], "04 02", "bad: not an Avro record...");
    check(union, &["*"], "06", "bad: branch 3 at byte 0, of a union that has 3");
}

#[test]
fn names_are_those_of_the_specification() {
    let names = r#"{"type":"record","name":"Outer","namespace":"a.b","fields":[
        {"name":"one","type":{"type":"enum","name":"E","symbols":["X"]}},
        {"name":"two","type":{"type":"record","name":"c.Inner","fields":[{"name":"f","type":{"type":"fixed","name":"F","size":1}}]}},
        {"name":"three","type":["null","a.b.E","c.F","Outer"]}]}"#;
    check(names, &["*"], "00 61 02 00", r#"{"one":"X","two":{"f":"YQ=="},"three":"X"}"#);
    let referred = AvroSchema::parse(
        r#"{"type":"record","name":"R","fields":[{"name":"e","type":"shop.E"}]}"#,
        &[r#"{"type":"enum","name":"shop.E","symbols":["X"]}"#],
    );
    assert!(referred.is_ok());
}

#[test]
fn what_is_no_schema_is_told() {
    for (schema, why) in [
        ("{", "it is no valid JSON: ..."),
        ("5", "5 is no type"),
        (r#""Order""#, r#"the type "Order" is named, and stands nowhere before"#),
        (r#"{"type":"record","name":"R"}"#, "R: a record has no fields"),
        (
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"b"}]}"#,
            r#"R: field "a": the type "b" is named..."#,
        ),
        (
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#,
            r#"R: the field "a" is there twice"#,
        ),
        (r#"["int",["null"]]"#, "a union stands directly in a union"),
        (r#"{"type":"fixed","name":"F","size":-1}"#, "F: a fixed has no size"),
        (
            r#"[{"type":"fixed","name":"F","size":1},{"type":"fixed","name":"F","size":1}]"#,
            r#"the type "F" is there twice"#,
        ),
    ] {
        check(schema, &["*"], "", &format!("no schema: {why}"));
    }
}

#[test]
fn what_is_no_record_is_told() {
    for (schema, record, why) in [
        (r#""string""#, "06 6162", "3 bytes are to be read at byte 1, and 2 are there"),
        (r#""string""#, "02 ff", "not UTF-8 at byte 1"),
        (r#""bytes""#, "01", "the length at byte 0 is -1"),
        (r#""long""#, "ffffffffffffffffff02", "the number at byte 0 has more than 64 bits"),
        (r#""long""#, "0202", "1 bytes stand behind the record; was it written with another schema?"),
        (r#""boolean""#, "02", "2 at byte 0 is no boolean"),
        (r#"{"type":"enum","name":"E","symbols":["X"]}"#, "02", "symbol 1 at byte 0, of an enum that has 1"),
        (r#"{"type":"int","logicalType":"date"}"#, "feffffff0f", "the time 2147483647 is further away..."),
        // Without a byte for each, there could be more of them than there is memory.
        (r#"{"type":"array","items":"null"}"#, "fefffffffffffffffe01 00", "its 11 bytes hold more than 65580 values"),
        (
            r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R"}]}"#,
            "",
            "values stand more than 128 deep in each other",
        ),
    ] {
        check(schema, &["*"], record, &format!("bad: {why}"));
    }
    let full = bytes(FULL);
    for cut in 0..full.len() {
        assert!(read(ORDER, &["*"], &full[..cut]).starts_with("bad: "), "{cut}");
        assert!(read(ORDER, &["id"], &full[..cut]).starts_with("bad: "), "{cut}");
    }
}

#[test]
fn what_is_read_is_written_as_it_was() {
    let writer = AvroWriter::new(ORDER).expect("a schema").with_id(7);
    for record in [FULL, EMPTY] {
        let schema = Arc::new(AvroSchema::parse(ORDER, &[]).expect("a schema"));
        let value =
            AvroRecords::new(schema.clone(), &Fields::All, Decimals::Text).read(&bytes(record)).expect("a record");
        let mut out = Vec::new();
        writer.encode_value(&value, &mut out).expect("it fits");
        // The order of a map is not kept: the bytes may differ, what is read of them must not.
        assert_eq!((&out[..5], out.len()), (&[0, 0, 0, 0, 7][..], bytes(record).len() + 5));
        let again = AvroRecords::new(schema, &Fields::All, Decimals::Text).read(&out[5..]).expect("a record");
        assert_eq!(again.to_string(), value.to_string());
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"int"},{"name":"t","type":["null","string",
        {"type":"long","logicalType":"timestamp-millis"}]},{"name":"b","type":["null","bytes"]}]}"#;
    let writer = AvroWriter::new(schema).expect("a schema");
    for (json, wanted) in [
        (r#"{"n":1}"#, Ok(&[2, 0, 0][..])),
        (r#"{"t":"x","n":-1}"#, Ok(&[1, 2, 2, b'x', 0])),
        (r#"{"n":1,"b":"AP8="}"#, Ok(&[2, 0, 2, 4, 0, 0xff])),
        (r#"{"n":1,"b":"?"}"#, Err(r#"field "b": takes a value of one of the types of a union, and "?" is a text"#)),
        (r#"{}"#, Err(r#"field "n": takes a whole number, and null is a null"#)),
        (r#"{"n":2147483648}"#, Err(r#"field "n": takes a whole number of 32 bits"#)),
        (r#"{"n":1,"t":true}"#, Err(r#"field "t": takes a value of one of the types of a union, and true is a bool"#)),
        (r#"{"n":1,"x":2}"#, Err(r#"the schema has no field "x"; add it there"#)),
        ("[1]", Err("takes a row, and [1] is a list")),
    ] {
        let value: Value = serde_json::from_str(json).expect("JSON");
        let mut out = Vec::new();
        match (writer.encode_value(&value, &mut out), wanted) {
            (Ok(()), Ok(wanted)) => assert_eq!(out, wanted, "{json}"),
            (Err(error), Err(wanted)) => assert!(error.message().contains(wanted), "{json}: {error}"),
            (found, wanted) => panic!("{json}: {found:?}, not {wanted:?}"),
        }
    }
    let mut out = Vec::new();
    let late = Value::Row(thalweg_core::Row::new(Shape::new(["n", "t"]), vec![Value::Int(0), Value::Time(-1)]));
    writer.encode_value(&late, &mut out).expect("a time is one of the types");
    assert_eq!(out, [0, 4, 1, 0]);
}
