//! The dead letters of a job: looking at them, and deciding on them.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thalweg_connectors::dead_letter::{Decided, Decision, Desk, FailedNode, Page, Range, StoredLetter, Which};
use thalweg_core::{Blame, Error};

use super::answer::{text_or_hex, time};
use super::handlers::{App, value};
use super::parameters::{dead_letters, segment};
use super::problem::Problem;
use super::routes;

type Answer = Result<Response<Body>, Problem>;

/// `GET /v1/jobs/{job}/dead-letters`
pub(super) async fn list(app: &App, uri: &Uri) -> Answer {
    let desk = desk(app, uri)?;
    let wanted = dead_letters(uri.query(), &app.limits)?;
    let page = work(app, move || desk.page(wanted.from, wanted.limit, wanted.node.as_deref())).await?;
    Ok(value(&page_json(&page)))
}

/// `GET /v1/jobs/{job}/dead-letters/{offset}`
pub(super) async fn one(app: &App, uri: &Uri) -> Answer {
    let desk = desk(app, uri)?;
    let offset = segment(uri.path(), routes::OFFSET, "offset")?;
    let offset = offset.parse().map_err(|_| Problem::bad_parameter(format!("offset {offset:?}: a whole number")))?;
    let (letter, decision) = work(app, move || desk.get(offset)).await?;
    Ok(value(&letter_json(&letter, decision)))
}

/// `POST /v1/jobs/{job}/dead-letters/retry` and `…/drop`
pub(super) async fn decide(app: &App, uri: &Uri, body: &Bytes, decision: Decision) -> Answer {
    let desk = desk(app, uri)?;
    let which = which(body, app.limits.max_scan_entries)?;
    let decided = work(app, move || desk.decide(&which, decision)).await?;
    Ok(value(&decided_json(decided, decision)))
}

fn desk(app: &App, uri: &Uri) -> Result<Arc<Desk>, Problem> {
    let served = app.served(uri)?;
    served.dead_letters.clone().ok_or_else(|| {
        let job = served.job.status().job;
        let detail = format!("job {job} sets no records aside; on_error = \"dead-letter\" in its job file does that");
        Problem::not_found("no-dead-letters", detail)
    })
}

/// Does what reads and writes files, on a thread of its own.
async fn work<T: Send + 'static>(
    app: &App,
    work: impl FnOnce() -> thalweg_core::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let Some(pass) = app.wide_reads.enter() else {
        return Err(Problem::unavailable("too many questions are being answered already; try again"));
    };
    let done = tokio::task::spawn_blocking(move || {
        let outcome = work();
        drop(pass);
        outcome
    });
    match done.await {
        Ok(outcome) => outcome.map_err(problem),
        Err(error) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", format!("the work: {error}"))),
    }
}

fn problem(error: Error) -> Problem {
    let status = match (error.code(), error.blame()) {
        ("no-dead-letter", _) => StatusCode::NOT_FOUND,
        ("decided" | "cannot-retry", _) => StatusCode::CONFLICT,
        (_, Blame::User) => StatusCode::BAD_REQUEST,
        (_, Blame::External | Blame::Internal) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, error.code(), error.message())
}

/// The body of a decision: `{"offsets":[…]}`, or `{"all":true}` with what narrows that down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    offsets: Vec<u64>,
    #[serde(default)]
    all: bool,
    node: Option<String>,
    #[serde(default)]
    from: u64,
    until: Option<u64>,
}

fn which(body: &[u8], most: usize) -> Result<Which, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-body", detail);
    let asked: Asked = serde_json::from_slice(body).map_err(|error| {
        bad(format!("the body should be {{\"offsets\":[…]}} or {{\"all\":true}}, which may have \"node\": {error}"))
    })?;
    match (asked.all, asked.offsets) {
        (true, offsets) if offsets.is_empty() => {
            Ok(Which::All(Range { node: asked.node, from: asked.from, until: asked.until }))
        }
        (false, offsets) if !offsets.is_empty() && offsets.len() <= most => Ok(Which::Offsets(offsets)),
        (false, offsets) if offsets.len() > most => {
            Err(bad(format!("{} offsets: at most {most} in one request, ask several times", offsets.len())))
        }
        _ => Err(bad("the body names either \"offsets\" or \"all\"".to_owned())),
    }
}

/// `{"dead_letters":[…],"cursor":…}`
pub(crate) fn page_json(page: &Page) -> Value {
    let letters = page.letters.iter().map(|(letter, bytes)| {
        let mut members = members(letter);
        let start = letter.letter.value.as_deref().map(|start| shown_start(start, *bytes));
        members.insert("start".to_owned(), start.unwrap_or_default());
        members.insert("bytes".to_owned(), json!(bytes));
        Value::Object(members)
    });
    json!({ "dead_letters": letters.collect::<Vec<_>>(), "cursor": page.next.map(|next| next.to_string()) })
}

/// Everything about one.
pub(crate) fn letter_json(stored: &StoredLetter, decision: Option<Decision>) -> Value {
    let mut members = members(stored);
    let letter = &stored.letter;
    let bytes = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or(Value::Null, text_or_hex);
    members.insert("value".to_owned(), bytes(&letter.value));
    if !letter.headers.is_empty() {
        let headers = letter.headers.iter().map(|(name, value)| json!({ "name": name, "value": text_or_hex(value) }));
        members.insert("headers".to_owned(), headers.collect());
    }
    members.insert("csv_header".to_owned(), bytes(&letter.csv_header));
    members.insert("decision".to_owned(), json!(decision.map(Decision::name)));
    Value::Object(members)
}

/// `{"retried":n,"left":n,"next":…,"until":…}`
pub(crate) fn decided_json(decided: Decided, decision: Decision) -> Value {
    let (next, until) = decided.next.unzip();
    json!({ decision.name(): decided.count, "left": decided.left, "next": next, "until": until })
}

/// What a list and a single one have in common.
fn members(stored: &StoredLetter) -> Map<String, Value> {
    let letter = &stored.letter;
    let kind = match letter.node {
        FailedNode::Source(_) => "source",
        FailedNode::Operator(_) => "operator",
    };
    let place = letter.place.as_ref();
    let place =
        place.map(|place| json!({ "topic": place.topic, "partition": place.partition, "offset": place.offset }));
    let members = json!({
        "offset": stored.offset,
        "time": time(stored.time),
        "epoch": stored.epoch.0,
        "kind": kind,
        "node": letter.node.id(),
        "reason": letter.reason.name(),
        "message": letter.message,
        "holds": letter.held.name(),
        "key": letter.key.as_deref().map(text_or_hex),
        "read_at": place,
        "written": letter.time.map(time),
        "backfill": letter.backfill.then_some(true),
        "timer": letter.timer.map(time),
        "truncated": stored.truncated,
        "retry_of": letter.retry_of,
    });
    match members {
        Value::Object(members) => members.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}

/// The beginning of a value, which may end within a character.
fn shown_start(start: &[u8], bytes: u64) -> Value {
    match std::str::from_utf8(start) {
        Err(error) if error.error_len().is_none() && bytes > start.len() as u64 => {
            text_or_hex(&start[..error.valid_up_to()])
        }
        _ => text_or_hex(start),
    }
}
