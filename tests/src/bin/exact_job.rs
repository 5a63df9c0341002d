//! The harness's own job binary: one keyed process that uses everything that user code may use, and one whose results prove their
//! own order.

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

/// The last link of a chain.
#[derive(Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Link {
    count: i64,
    hash: i64,
}

/// Each result carries its number and the hash of the one before: a reader sees by itself what is missing, twice or out of order.
#[derive(Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Chain;

impl KeyedProcess for Chain {
    type Key = String;
    type In = Line;
    type State = Link;
    type Out = Value;

    fn process(
        &self,
        word: &String,
        lines: &mut Records<Self>,
        state: &mut Option<Link>,
        out: &mut Output<Value>,
        _: &EpochCtx,
    ) -> Result<()> {
        for line in lines {
            let link = state.get_or_insert(Link { count: 0, hash: 0 });
            let before = link.hash;
            link.count += 1;
            link.hash = (before * 31 + line.v + link.count) % 1_000_000_007;
            let shape = Shape::new(["w", "count", "v", "before", "hash"]);
            let [count, v, before, hash] = [link.count, line.v, before, link.hash].map(Value::Int);
            out.emit(Value::Row(Row::new(shape, vec![Value::from(word.as_str()), count, v, before, hash])));
        }
        Ok(())
    }
}

fn row(k: i64, w: &str, v: i64, f: f64) -> Value {
    let values = vec![Value::Int(k), Value::from(w), Value::Int(v), Value::Float(f)];
    Value::Row(Row::new(Shape::new(["k", "w", "v", "f"]), values))
}

fn main() -> thalweg::Exit {
    thalweg::job! { "exact::Visits" => Visits, "exact::Chain" => Chain }
}
