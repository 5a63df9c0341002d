//! Job files and the expressions in them.

use thalweg_connectors::{Fields, Format, RawBatch, RawRecord};
use thalweg_core::Value;
use thalweg_jobs::{Catalogue, explain, graph, parse, validate};
use thalweg_operators::{Aggregation, Expression};

/// Parses, validates, and shows what is wrong, or what it would do.
pub(crate) fn toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let catalogue = Catalogue::built_in();
    let document = match parse(text, "job.toml") {
        Ok(document) => document,
        Err(problems) => return drop(problems.render(false)),
    };
    match validate(&document, &catalogue) {
        Ok(checked) => {
            let _ = checked.warnings.render(true);
            let _ = graph(&checked.job).to_tree();
            let _ = explain(&checked.job, &catalogue).to_text();
        }
        Err(problems) => {
            assert!(!problems.render(false).is_empty(), "refused without a word");
            let _ = problems.to_json_lines();
        }
    }
}

pub(crate) fn tomls() -> Vec<Vec<u8>> {
    const JOB: &str = r#"version = 1
[job]
name = "fuzz"
partitions = 4
on_error = "drop"
[job.epoch]
interval = "20ms"
max_bytes = "64MiB"
[sources.rows]
connector = "file"
path = ["in/*.csv", "more"]
follow = true
format = "csv"
columns = ["a", "b"]
delimiter = ";"
[sources.made]
connector = "generator"
skew = 1.5
[operators.late]
uses = "filter"
inputs = ["rows"]
where = "a > 10 && b.startsWith('x')"
[operators.totals]
uses = "aggregate"
inputs = ["late", "made"]
key = ["a"]
aggregates = { n = "count()", worst = "max(b)" }
[stores.totals]
changelog = "log"
[sinks.out]
connector = "file"
path = "out"
inputs = ["totals"]
"#;
    vec![JOB.into(), JOB.replace("uses = \"filter\"", "uses = \"fliter\"").into(), JOB.replace('=', "").into()]
}

/// The first line is the expression, the rest a record in JSON.
pub(crate) fn expression(bytes: &[u8]) {
    let (text, row) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &b"{}"[..]),
    };
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Err(error) = Aggregation::parse(text) {
        assert!(text.get(error.range.clone()).is_some(), "{error:?} is beside the text");
    }
    match Expression::compile(text) {
        Ok(expression) => {
            let row = value(row);
            let _ = expression.fields();
            let _ = expression.test(&row);
            let (first, second) = (expression.evaluate(&row), expression.evaluate(&row));
            let show = |found: thalweg_core::Result<Value>| found.map_or_else(|e| e.to_string(), |v| v.to_string());
            assert_eq!(show(first), show(second), "the same expression twice");
        }
        Err(error) => assert!(text.get(error.range.clone()).is_some(), "{error:?} is beside the text"),
    }
}

pub(crate) fn expressions() -> Vec<Vec<u8>> {
    let row = "\n{\"a\":5,\"b\":\"text\",\"c\":[1,2.5,null],\"d\":{\"e\":true}}";
    let texts = [
        "a > 10 && b == \"text\" || !d.e",
        "(a + 1) * 2 % 3 - -a / 2",
        "b.startsWith('te') && b.contains('x') && size(b) < 10",
        "c[1] + 1.5 == 4.0 ? 'yes' : 'no'",
        "c.exists(x, x > 1) && has(d.e) && a in [1, 5]",
        "sum(a * 2)",
        "count(a > 5)",
    ];
    texts.map(|text| format!("{text}{row}").into_bytes()).into()
}

fn value(json: &[u8]) -> Value {
    let record = RawRecord { value: 0..json.len(), next: json.len() as u64, ..RawRecord::default() };
    let batch = RawBatch { data: json.to_vec(), records: vec![record], ..RawBatch::default() };
    let mut found = Vec::new();
    if let Ok(mut decoder) = Format::Json.decoder(None, &Fields::All) {
        let _ = decoder.decode(&batch, &mut found, &mut Vec::new());
    }
    found.pop().unwrap_or_default()
}
