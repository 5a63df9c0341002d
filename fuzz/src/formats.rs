//! The formats of records.

use thalweg_connectors::{CsvOptions, Fields, Format, RawBatch, RawRecord};

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

/// Every record is a value, a bad record, or blank.
fn decode(format: &Format, header: Option<&[u8]>, fields: &Fields, lines: &[u8]) {
    let Ok(mut decoder) = format.decoder(header, fields) else { return };
    let mut batch = RawBatch::default();
    for line in lines.split(|byte| *byte == b'\n') {
        let start = batch.data.len();
        batch.data.extend_from_slice(line);
        let value = start..batch.data.len();
        batch.data.push(b'\n');
        batch.records.push(RawRecord { next: value.end as u64 + 1, value, ..RawRecord::default() });
    }
    let (mut out, mut bad) = (Vec::new(), Vec::new());
    decoder.decode(&batch, &mut out, &mut bad).expect("no error of the decoder itself");
    assert!(out.len() + bad.len() <= batch.records.len(), "more came out than went in");
    for value in out {
        let _ = value.to_string();
    }
}
