//! Messages of Google's Python, and what is refused.

use std::path::PathBuf;

use super::*;
use crate::Fields;

/// As Python's protobuf 7.36 has written one of `shop.Order`.
const FULL: &str = "08f9ffffffffffffffff0112036164611a0020012d0000003f31000000000000f43f3a0200ff420b08c0fcdfd3031080e59a \
    774801520d01ffffffffffffffffff01ac025a01615a02c3a962050a0161100162050a016210026a1008ffffffffffffffff \
    ff0112030a017a72080a017812030a01798201030a016c9001ffffffffffffffffff01980105a501ffffffffa901fbffffff \
    ffffffffb2010808011080cab5ee01ba0100c2012f0a140a016c120f320d0a0220010a0208000a031a01730a0e0a016e1209 \
    11000000000000f83f0a070a016f12022a00ca010808fa011203455552d001ffffffffffffffffff01d801ffffffff0fe201 \
    03010007";

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/schemas").join(name)
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn shop() -> MessageTypes {
    MessageTypes::of_file(&file("order.proto")).unwrap_or_else(|why| panic!("{why}"))
}

/// What a record is with all fields, or with some; of one type, or by the indexes in front of it.
fn read(types: MessageTypes, message: &str, fields: &[&str], record: &[u8]) -> String {
    let which = match message {
        "" => Which::Indexed,
        name => Which::One { index: types.named(name).expect("the type is there"), framed: false },
    };
    let fields = match fields {
        ["*"] => Fields::All,
        names => Fields::Only(names.iter().map(|name| (*name).to_owned()).collect()),
    };
    match ProtobufRecords::new(Arc::new(types), which, &fields).read(record) {
        Ok(value) => value.to_string(),
        Err(why) => format!("bad: {why}"),
    }
}

fn check(proto: &str, fields: &[&str], record: &str, wanted: &str) {
    let types = MessageTypes::of_texts(proto, &[]).unwrap_or_else(|why| panic!("{proto}: {why}"));
    let found = read(types, "M", fields, &bytes(record));
    assert!(
        found == wanted || wanted.ends_with("...") && found.starts_with(wanted.trim_end_matches('.')),
        "{found}, not {wanted}"
    );
}

#[test]
fn every_type_has_its_value() {
    let wanted = concat!(
        r#"{"id":-7,"who":"ada","note":"","paid":true,"share":0.5,"weight":1.25,"blob":"AP8=","#,
        r#""at":"2001-01-31T12:00:00.25Z","state":"SENT","sizes":[1,-1,300],"tags":["a","é"],"stock":{"a":1,"b":2},"#,
        r#""by_number":{"-1":{"sku":"z","inner":null}},"lines":[{"sku":"x","inner":{"sku":"y","inner":null}}],"#,
        r#""number":null,"line":{"sku":"l","inner":null},"text":null,"large":1.8446744073709552e+19,"small":-3,"#,
        r#""f32":4294967295,"f64":-5,"took":1.5,"maybe":"","extra":{"l":[true,null,"s"],"n":1.5,"o":{}},"#,
        r#""price":{"cents":250,"currency":"EUR"},"neg":-9223372036854775808,"u32":4294967295,"states":["SENT","OPEN",7]}"#
    );
    assert_eq!(read(shop(), "shop.Order", &["*"], &bytes(FULL)), wanted);
    let compiled = || MessageTypes::of_set(&std::fs::read(file("shop.desc")).expect("the file")).expect("a set");
    assert_eq!(read(compiled(), "shop.Order", &["*"], &bytes(FULL)), wanted);
    assert_eq!(
        read(shop(), "shop.Order", &["line", "id", "nothing", "number"], &bytes(FULL)),
        r#"{"line":{"sku":"l","inner":null},"id":-7,"number":null}"#
    );
    assert_eq!(
        read(shop(), "shop.Order", &["id", "note", "maybe", "states", "stock", "state", "price"], b""),
        r#"{"id":0,"note":null,"maybe":null,"states":[],"stock":{},"state":"OPEN","price":null}"#
    );
    assert_eq!(
        read(compiled(), "old.Row", &["*"], &bytes("080318002308092428012802")),
        r#"{"id":3,"name":"none","plain":0,"part":[{"n":9}],"loose":[1,2]}"#
    );
}

#[test]
fn the_indexes_in_front_of_a_record_say_its_type() {
    assert_eq!(read(shop(), "", &["x"], &bytes("0202 0a0161")), r#"{"x":"a"}"#);
    assert_eq!(read(shop(), "", &["id"], &bytes("00 0805")), r#"{"id":5}"#);
    assert_eq!(read(shop(), "", &["*"], &bytes("040000 0a0161")), r#"{"sku":"a","inner":null}"#);
    for (record, why) in [
        ("0208", "bad: the schema has no message type with the indexes [4]"),
        ("060000", "bad: in the indexes of its message type: the bytes end within a number"),
        ("01", "bad: in the indexes of its message type: 1 is not how many they are"),
        ("0201", "bad: in the indexes of its message type: one is below 0"),
        ("", "bad: in the indexes of its message type: the bytes end within a number"),
    ] {
        assert_eq!(read(shop(), "", &["*"], &bytes(record)), why);
    }
}

#[test]
fn what_comes_twice_is_one() {
    let proto = "syntax = 'proto3'; message M { int32 a = 1; M m = 2; oneof o { int32 x = 3; M y = 4; } repeated int32 r = 5; }";
    check(proto, &["a"], "0801 0802", r#"{"a":2}"#);
    // Messages are merged, what is repeated follows, packed or not.
    check(proto, &["m"], "1202 0801 1202 2801 1203 2a0102", r#"{"m":{"a":1,"m":null,"x":null,"y":null,"r":[1,2]}}"#);
    check(proto, &["x"], "1805 2200", r#"{"x":null}"#);
    check(proto, &["y"], "2200 1805", r#"{"y":null}"#);
    check(proto, &["x", "y"], "2200 1805 2202 0801", r#"{"x":null,"y":{"a":1,"m":null,"x":null,"y":null,"r":[]}}"#);
    // What is unknown, or written as another type, is passed over: groups as well.
    check(proto, &["a"], "f206 0161 f306 0801 fb06 1801 fc06 f406 0a0161 0801", r#"{"a":1}"#);
}

#[test]
fn entries_of_maps_may_lack_their_parts() {
    let proto = "syntax = 'proto3'; message M { map<string, M> m = 1; map<bool, int32> b = 2; }";
    check(proto, &["*"], "0a00 1204 0801 1005 1200", r#"{"m":{"":{"m":{},"b":{}}},"b":{"false":0,"true":5}}"#);
}

#[test]
fn what_is_no_record_is_told() {
    let proto = "syntax = 'proto2'; message M { optional string s = 1; optional M m = 2; repeated M r = 3; }";
    for (record, why) in [
        ("0a02 61", "2 bytes are to be read at byte 2, and 1 are there"),
        ("0a01 ff", r#"field "s": not UTF-8 at byte 0 of the text"#),
        ("00", "the tag at byte 0 is none..."),
        ("0f", "wire type 7 before byte 1 is none..."),
        ("0c", "a group ends at byte 0 that has not begun"),
        ("0b14", "a group ends at byte 1 that has not begun"),
        ("0b", "byte 1: the bytes end within a number"),
        ("08ffffffffffffffffff7f", "byte 1: a number of more than 64 bits"),
        ("1205 1a03 0a01 ff", r#"field "r": field "s": not UTF-8 at byte 0 of the text"#),
    ] {
        check(proto, &["*"], record, &format!("bad: {why}"));
    }
    check(
        "syntax = 'proto2'; message M { required int32 a = 1; }",
        &[],
        "",
        r#"bad: the field "a" is required, and not there"#,
    );
    let mut deep = Vec::new();
    for _ in 0..120 {
        let mut outer = vec![0x12];
        let mut length = deep.len();
        while length >= 0x80 {
            outer.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut deep);
        deep = outer;
    }
    let types = MessageTypes::of_texts(proto, &[]).expect("a schema");
    assert_eq!(read(types, "M", &["*"], &deep), "bad: messages stand more than 100 deep in each other");
}

#[test]
fn what_is_no_schema_is_told() {
    let refused = |main: &str, imports: &[(&str, &str)]| {
        let imports: Vec<_> = imports.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        MessageTypes::of_texts(main, &imports).map(|_| ()).expect_err("it is no schema")
    };
    for (main, imports, why) in [
        ("message", &[][..], "the-schema.proto"),
        ("syntax = 'proto3'; import 'a.proto';", &[], "a.proto"),
        ("syntax = 'proto3'; message M { N n = 1; }", &[], "N"),
        ("syntax = 'proto3';", &[("../a.proto", "")], "no path within a folder"),
    ] {
        let found = refused(main, imports);
        assert!(found.contains(why), "{found}");
    }
    assert!(MessageTypes::of_set(b"{}").is_err_and(|why| why.starts_with("no compiled set of descriptors: ")));
    assert!(MessageTypes::of_set(b"").is_err_and(|why| why.contains("nothing in it")));
    let proposal = |name: &str| shop().proposal(name);
    assert_eq!(proposal("Order"), r#"did you mean "shop.Order"?"#);
    assert_eq!(proposal("zzz"), "its types are money.Price, shop.Order, shop.Order.Line, shop.Other");
}

/// Writes what JSON says as messages of a type.
fn write(proto: &str, message: &str, json: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m.proto");
    std::fs::write(&path, proto).expect("a file");
    let writer = ProtobufWriter::of_file(&path, message).unwrap_or_else(|error| panic!("{proto}: {error}"));
    let value: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
    let mut out = Vec::new();
    match writer.encode_value(&value, &mut out) {
        Ok(()) => out.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(error) => {
            assert!(out.is_empty(), "{json}: something is left of what was refused");
            error.message().to_owned()
        }
    }
}

fn check_written(proto: &str, json: &str, wanted: &str) {
    let found = write(proto, "M", json);
    assert!(found == wanted || found.contains(wanted) && wanted.contains(' '), "{json}: {found}, not {wanted}");
}

#[test]
fn what_python_has_written_is_written_again_byte_for_byte() {
    // 64 bits without a sign are the nearest number of floating point beyond 63, so those are no round trip.
    let record = bytes(&FULL.replace(' ', "").replace("9001ffffffffffffffffff01", "900105"));
    let value = ProtobufRecords::new(
        Arc::new(shop()),
        Which::One { index: shop().named("shop.Order").expect("the type is there"), framed: false },
        &Fields::All,
    )
    .read(&record)
    .expect("a message");
    for name in ["order.proto", "shop.desc"] {
        let writer = ProtobufWriter::of_file(&file(name), "shop.Order").unwrap_or_else(|error| panic!("{error}"));
        let mut out = Vec::new();
        writer.encode_value(&value, &mut out).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(out, record, "{name}");
    }
}

#[test]
fn the_indexes_of_a_type_are_those_of_confluents_serializers() {
    let proto = "syntax = \"proto3\"; message A { message I { string s = 1; } } message M { message X {} message N { message D \
                 { bool b = 1; } } bool b = 1; }";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m.proto");
    std::fs::write(&path, proto).expect("a file");
    // As `ProtobufSerializer` of confluent-kafka 2.16 for Python has written them.
    for (message, indexes) in [("A", "00"), ("M", "0202"), ("A.I", "040000"), ("M.N", "040202"), ("M.N.D", "06020200")]
    {
        let writer = ProtobufWriter::of_file(&path, message).expect("a writer").with_id(0x0102_0304);
        let mut out = Vec::new();
        let empty: Value = serde_json::from_str("{}").expect("JSON");
        writer.encode_value(&empty, &mut out).expect("an empty message");
        assert_eq!(out, bytes(&format!("0001020304{indexes}")), "{message}");
        let (found, rest) = indexes_of(&out[5..]);
        assert!(rest.is_empty() && MessageTypes::of_file(&path).expect("types").indexed(&found).is_some(), "{message}");
    }
}

fn indexes_of(bytes: &[u8]) -> (Vec<usize>, &[u8]) {
    indexes(bytes).expect("indexes")
}

#[test]
fn fields_are_written_as_their_types_say() {
    let three = |fields: &str| format!("syntax = \"proto3\"; enum E {{ A = 0; B = -1; }} message M {{ {fields} }}");
    for (fields, json, wanted) in [
        // As Python's protobuf writes them. In the order of numbers, and nothing of what is zero.
        ("string b = 2; int32 a = 1;", r#"{"b":"x","a":1}"#, "0801120178"),
        ("string b = 2; int32 a = 1;", r#"{"b":"","a":0}"#, ""),
        ("optional string b = 2; optional int32 a = 1;", r#"{"b":"","a":0}"#, "08001200"),
        ("oneof o { string b = 2; int32 a = 1; }", r#"{"a":0,"b":null}"#, "0800"),
        ("oneof o { string b = 2; int32 a = 1; }", r#"{"a":0,"b":"x"}"#, "are of one oneof"),
        ("int32 a = 1;", r#"{"a":-1}"#, "08ffffffffffffffffff01"),
        ("int32 a = 1;", r#"{"a":2147483648}"#, "takes i32, and 2147483648 does not fit"),
        ("uint32 a = 1;", r#"{"a":-1}"#, "takes u32, and -1 does not fit"),
        ("uint64 a = 1;", r#"{"a":1e19}"#, "088080a0cfc8e0c8e38a01"),
        ("double a = 1;", r#"{"a":-0.0}"#, "090000000000000080"),
        ("E a = 1;", r#"{"a":"B"}"#, "08ffffffffffffffffff01"),
        ("E a = 1;", r#"{"a":"C"}"#, "takes a name of an enum"),
        ("repeated int32 a = 1;", r#"{"a":[1,300]}"#, "0a0301ac02"),
        ("repeated int32 a = 1 [packed = false];", r#"{"a":[1,300]}"#, "080108ac02"),
        ("repeated int32 a = 1;", r#"{"a":[]}"#, ""),
        ("repeated string a = 1;", r#"{"a":["",null]}"#, "takes a text, and null is a null"),
        ("map<string, int32> a = 1;", r#"{"a":{"":0}}"#, "0a040a001000"),
        ("map<bool, string> a = 1;", r#"{"a":{"true":"x"}}"#, "0a050801120178"),
        ("map<int32, string> a = 1;", r#"{"a":{"x":"y"}}"#, "takes numbers as keys"),
        ("M a = 1; bytes b = 2;", r#"{"a":{"b":"AP8="}}"#, "0a04120200ff"),
        ("bytes b = 2;", r#"{"b":"?"}"#, "takes base64"),
        ("int32 a = 1;", r#"{"b":1}"#, "the type has no field \"b\""),
        ("int32 a = 1;", r#"[1]"#, "takes a row"),
    ] {
        check_written(&three(fields), json, wanted);
    }
    check_written("syntax = \"proto2\"; message M { required int32 a = 1; }", "{}", "it is required, and not there");
    let group =
        "syntax = \"proto2\"; message M { repeated group G = 1 { optional int32 n = 2; } repeated int32 l = 3; }";
    check_written(group, r#"{"g":[{"n":0},{}],"l":[1,2]}"#, "0b10000c0b0c18011802");
}
