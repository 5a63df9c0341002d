//! The harness's own job binary: one keyed process that uses everything that user code may use.

use thalweg::prelude::*;
use thalweg_core::{Row, Shape};

/// A row of the harness.
#[derive(Clone, Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Line {
    k: i64,
    w: String,
    v: i64,
    f: f64,
}

/// What is kept of a word.
#[derive(Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Seen {
    count: i64,
    total: f64,
}

/// Counts visits of a word; deletes its state when there were enough; sets timers, draws random numbers, fails and panics.
#[derive(Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Visits;

impl KeyedProcess for Visits {
    type Key = String;
    type In = Line;
    type State = Seen;
    type Out = Value;

    fn process(
        &self,
        word: &String,
        lines: &mut Records<Self>,
        state: &mut Option<Seen>,
        out: &mut Output<Value>,
        ctx: &EpochCtx,
    ) -> Result<()> {
        for line in lines {
            let seen = state.get_or_insert(Seen { count: 0, total: 0.0 });
            seen.count += 1;
            seen.total += line.f;
            if line.v % 5 == 0 {
                ctx.set_timer(ctx.time() + std::time::Duration::from_micros(500 * line.v as u64));
            }
            let draw = (ctx.random() % 1000) as i64;
            out.emit(row(seen.count, word, draw, seen.total));
            match line.v {
                v if v % 97 == 13 => panic!("line {v} is not wanted"),
                v if v % 89 == 7 => return Err(format!("line {v} is not wanted").into()),
                _ => {}
            }
            if seen.count as usize >= 5 + word.len() % 7 {
                *state = None;
            }
        }
        Ok(())
    }

    fn on_timer(
        &self,
        word: &String,
        at: Timestamp,
        state: &mut Option<Seen>,
        out: &mut Output<Value>,
        ctx: &EpochCtx,
    ) -> Result<()> {
        let draw = (ctx.random() % 1000) as i64;
        let count = state.as_ref().map_or(0, |seen| seen.count);
        out.emit(row(1000 + count, word, draw, (at.0 % 1000) as f64 / 8.0));
        if draw % 7 == 0 {
            return Err("the timer is not wanted".into());
        }
        if draw % 3 == 0 {
            *state = None;
        }
        Ok(())
    }
}

fn row(k: i64, w: &str, v: i64, f: f64) -> Value {
    let values = vec![Value::Int(k), Value::from(w), Value::Int(v), Value::Float(f)];
    Value::Row(Row::new(Shape::new(["k", "w", "v", "f"]), values))
}

fn main() -> thalweg::Exit {
    thalweg::job! { "exact::Visits" => Visits }
}
