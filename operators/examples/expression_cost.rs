//! What an evaluation of an expression costs.
//!
//! `cargo run --release -p thalweg-operators --example expression_cost`

#![allow(clippy::disallowed_methods, reason = "a measurement of time")]

use std::time::Instant;

use thalweg_core::Value;
use thalweg_operators::Expression;

const ROUNDS: u32 = 20_000;

fn main() {
    let row = r#"{"time":"2001-01-01T00:01:00Z","delay":33,"distance":2176,"origin":"LAS","destination":"PHL"}"#;
    let row: Value = serde_json::from_str(row).expect("a record");
    for text in [
        "delay > 15",
        "delay > 15 && origin == \"LAS\"",
        "delay * 2 + distance",
        "origin in [\"LAX\", \"SFO\", \"LAS\"]",
    ] {
        let expression = Expression::compile(text).expect(text);
        cost(text, || expression.evaluate(&row).expect(text));
        if text.contains('>') {
            cost(&format!("{text}, as a condition"), || expression.test(&row).expect(text));
        }
    }
}

/// The least of many short batches: what else runs on the machine disturbs some of them.
fn cost<T>(what: &str, run: impl Fn() -> T) {
    let batch = |_| {
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| drop(std::hint::black_box(run())));
        start.elapsed()
    };
    let least = (0..200).map(batch).min().expect("there are batches");
    println!("{what}: {:.1} ns", least.as_nanos() as f64 / f64::from(ROUNDS));
}
