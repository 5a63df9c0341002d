//! The formats of records.

use std::sync::Arc;

use thalweg_connectors::{
    CsvOptions, Decimals, Decoder, DecoderOf, Fields, Format, Framing, GivenSchema, RawBatch, RawRecord, SchemaFormat,
    SchemaRecords, Schemas,
};
use thalweg_core::Value;

/// A record a line, with all fields and with some.
pub(crate) fn json(bytes: &[u8]) {
    for fields in [Fields::All, Fields::Only(vec!["a".to_owned(), "n".to_owned()])] {
        decode(&Format::Json, None, &fields, bytes);
    }
}

pub(crate) fn jsons() -> Vec<Vec<u8>> {
    let lines = [
        "{\"a\":1,\"n\":{\"x\":[null,true,-1.5e3]},\"\\u00e9\":\"\\ud83d\\ude00\"}\n{\"a\":2}\n\n[1]\n\"text\"\n",
        "{\"a\":9223372036854775807,\"n\":18446744073709551615}\n{\"a\":1,\"a\":2}\n{\"n\":0.1,\"a\":\"x\\ny\"}",
    ];
    lines.map(|lines| lines.as_bytes().to_vec()).into()
}

/// The first line is the header; the first byte says how cells are written.
pub(crate) fn csv(bytes: &[u8]) {
    let Some((options, rest)) = bytes.split_first() else { return };
    let (header, rows) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, &[][..]),
    };
    let format = Format::Csv(CsvOptions {
        delimiter: [b',', b';', b'\t', b'|'][usize::from(options & 3)],
        quote: if options & 4 == 0 { b'"' } else { b'\'' },
        names: (options & 8 != 0).then(|| vec!["a".to_owned(), "b".to_owned()]),
        multiline: options & 16 == 0,
    });
    for fields in [Fields::All, Fields::Only(vec!["a".to_owned()])] {
        decode(&format, (options & 8 == 0).then_some(header), &fields, rows);
    }
}

pub(crate) fn csvs() -> Vec<Vec<u8>> {
    let files = [
        "\0a,b,c\n1,\"x\"\"y\",2001-01-31T00:01:00Z\n-1.5,true,\n,,\nwrong\n\"open",
        "\u{5}a;b\n'x;y';7\n1e400;0x1\n",
        "\u{8}ignored\n1,2\n",
    ];
    files.map(|file| file.as_bytes().to_vec()).into()
}

/// The first line is the schema, the rest is the record.
pub(crate) fn avro(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let schema = String::from_utf8_lossy(&bytes[..end]);
    let record = bytes.get(end + 1..).unwrap_or_default();
    decode_one(SchemaFormat::Avro, |framing| GivenSchema::avro(&schema, framing), record);
}

pub(crate) fn avros() -> Vec<Vec<u8>> {
    let order = r#"{"type":"record","name":"a.Order","fields":[{"name":"a","type":["null","long","Order"]},
        {"name":"n","type":{"type":"map","values":{"type":"array","items":"string"}}},
        {"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]}},
        {"name":"f","type":{"type":"fixed","name":"F","size":2}},{"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"r","type":"double"},{"name":"b","type":"boolean"}]}"#
        .replace('\n', "");
    let record = b"\n\x02\x0e\x02\x02x\x04\x02a\x02b\0\0\x04\x30\x39\x02ab\xd0\x0f\0\0\0\0\0\0\xf0\x3f\x01";
    let others = [
        "\"string\"\n\0\0\0\0\x01\x06abc",
        "[\"null\",\"string\"]\n\x02\x06abc",
        "{\"type\":\"array\",\"items\":\"null\"}\n\x06\0",
    ];
    let mut examples: Vec<Vec<u8>> = others.map(|text| text.as_bytes().to_vec()).into();
    examples.push([order.as_bytes(), record].concat());
    examples
}

/// Two bytes with the length of the descriptors, whose highest bit says which type the record has, these, and the record.
pub(crate) fn protobuf(bytes: &[u8]) {
    let Some(([low, high], rest)) = bytes.split_first_chunk::<2>().map(|(length, rest)| (*length, rest)) else {
        return;
    };
    let length = usize::from(u16::from_le_bytes([low, high & 0x7f]));
    let (descriptors, record) = rest.split_at(rest.len().min(length));
    let message = if high & 0x80 == 0 { "shop.Order" } else { "old.Row" };
    decode_one(SchemaFormat::Protobuf, |framing| GivenSchema::protobuf(descriptors, message, framing), record);
}

pub(crate) fn protobufs() -> Vec<Vec<u8>> {
    let descriptors = include_bytes!("../../connectors/tests/schemas/shop.desc");
    let records: [&[u8]; 4] = [
        b"\x08\xf9\xff\xff\xff\xff\xff\xff\xff\xff\x01\x12\x03ada\x52\x03\x01\xac\x02\x62\x05\x0a\x01a\x10\x01\x72\x08\x0a\x01x\x12\x03\x0a\x01y",
        b"\xc2\x01\x0c\x0a\x0a\x0a\x01o\x12\x05\x2a\x03\x0a\x01x\x42\x08\x08\xc0\xfc\xdf\xd3\x03\x10\x01\x78\x05\x82\x01\0",
        b"\0\0\0\0\x01\x02\x02\x0a\x01x",
        b"\x08\x03\x18\0\x23\x08\x09\x24\x28\x01\x2a\x01\x02",
    ];
    let [low, high] = (descriptors.len() as u16).to_le_bytes();
    let all = records.into_iter().zip([high, high, high, high | 0x80]);
    all.map(|(record, high)| [&[low, high], &descriptors[..], record].concat()).collect()
}

/// With all fields and with some; a record that begins with a zero byte is framed.
fn decode_one(format: SchemaFormat, given: impl Fn(Framing) -> thalweg_core::Result<GivenSchema>, record: &[u8]) {
    let framing = if record.starts_with(b"\0") { Framing::Confluent } else { Framing::None };
    let Ok(given) = given(framing) else { return };
    let schemas = Schemas::Given(Arc::new(given));
    for (fields, decimals) in [
        (Fields::All, Decimals::Number),
        (Fields::Only(vec!["n".to_owned(), "a".to_owned(), "id".to_owned(), "text".to_owned()]), Decimals::Text),
    ] {
        let records = SchemaRecords { format, schemas: schemas.clone(), fields, decimals };
        check(records.decoder(None).expect("a given schema has a decoder"), record);
    }
}

/// Every record is a value, a bad record, or blank.
fn decode(format: &Format, header: Option<&[u8]>, fields: &Fields, lines: &[u8]) {
    let Ok(decoder) = format.decoder(header, fields) else { return };
    let mut batch = RawBatch::default();
    for line in lines.split(|byte| *byte == b'\n') {
        let start = batch.data.len();
        batch.data.extend_from_slice(line);
        let value = start..batch.data.len();
        batch.data.push(b'\n');
        batch.records.push(RawRecord { next: value.end as u64 + 1, value, ..RawRecord::default() });
    }
    check_batch(decoder, &batch);
}

fn check(decoder: Box<dyn Decoder<Value>>, record: &[u8]) {
    let one = RawRecord { value: 0..record.len(), next: 1, ..RawRecord::default() };
    check_batch(decoder, &RawBatch { data: record.to_vec(), records: vec![one], ..RawBatch::default() });
}

fn check_batch(mut decoder: Box<dyn Decoder<Value>>, batch: &RawBatch) {
    let (mut out, mut bad) = (Vec::new(), Vec::new());
    decoder.decode(batch, &mut out, &mut bad).expect("no error of the decoder itself");
    assert!(out.len() + bad.len() <= batch.records.len(), "more came out than went in");
    for value in out {
        let _ = value.to_string();
    }
}
