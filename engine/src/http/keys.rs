//! Reading stores: one key, several keys, a range.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::Value;
use thalweg_core::{JobService, Query, QueryError, QueryReply, ReadOptions};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::gate::Gate;
use super::handlers::App;
use super::parameters::{read_options, scan, segment};
use super::problem::Problem;
use super::{answer, routes};

type Answer = Result<Response<Body>, Problem>;

/// `GET /v1/jobs/{job}/stores/{store}/keys/{key}`
pub(super) async fn get_one(app: &App, uri: &Uri) -> Answer {
    let (job, store) = target(app, uri)?;
    let key = segment(uri.path(), routes::KEY, "key")?;
    let options = read_options(uri.query())?;
    let query = Query::Get { key: key.clone().into_owned() };
    let reply = ask(app, &app.point_reads, job, &store, query, options).await?;
    let found = reply.entries.first().and_then(|entry| Some((entry, entry.value.as_deref()?)));
    let Some((entry, value)) = found else {
        let detail = format!("store {store:?} holds no key {key:?} at epoch {}", reply.epoch);
        return Err(Problem::not_found("key-not-found", detail));
    };
    Ok(json(answer::one(&entry.key, value, &reply, answer::Role::Active)))
}

/// `GET /v1/jobs/{job}/stores/{store}/keys`
pub(super) async fn get_range(app: &App, uri: &Uri) -> Answer {
    let (job, store) = target(app, uri)?;
    let (range, options) = scan(uri.query(), &app.limits)?;
    let reply = ask(app, &app.wide_reads, job, &store, Query::Scan(range), options).await?;
    Ok(json(answer::page(&reply, answer::Role::Active)))
}

/// `POST /v1/jobs/{job}/stores/{store}/get`
pub(super) async fn get_many(app: &App, uri: &Uri, body: &Bytes) -> Answer {
    let (job, store) = target(app, uri)?;
    let options = read_options(uri.query())?;
    let keys = wanted_keys(body, app.limits.max_keys_per_get)?;
    let reply = ask(app, &app.wide_reads, job, &store, Query::GetMany { keys }, options).await?;
    Ok(json(answer::many(&reply)))
}

/// A JSON text as an answer.
pub(super) fn json(body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn target<'a, 'u>(app: &'a App, uri: &'u Uri) -> Result<(&'a Arc<dyn JobService>, std::borrow::Cow<'u, str>), Problem> {
    Ok((app.job(uri)?, segment(uri.path(), routes::STORE, "store")?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    keys: Vec<Value>,
}

fn wanted_keys(body: &[u8], limit: usize) -> Result<Vec<String>, Problem> {
    let bad = |detail| Problem::new(StatusCode::BAD_REQUEST, "bad-body", detail);
    let wanted: Wanted = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the body should be {{\"keys\":[…]}}, a list of keys: {error}")))?;
    if wanted.keys.len() > limit {
        return Err(bad(format!("{} keys: at most {limit} in one request, ask several times", wanted.keys.len())));
    }
    // A key is the text that it would be in a path: text as it is, numbers in decimal, composite keys as a JSON array.
    let text = |key| match key {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(wanted.keys.into_iter().map(text).collect())
}

async fn ask(
    app: &App,
    gate: &Gate,
    job: &Arc<dyn JobService>,
    store: &str,
    query: Query,
    options: ReadOptions,
) -> Result<QueryReply, Problem> {
    let Some(pass) = gate.enter() else {
        return Err(Problem::unavailable("too many questions are being answered already; try again"));
    };
    let (send, receive) = oneshot::channel();
    // The pass goes with the question, not with the connection: who asks and hangs up still takes a place until the job is done.
    let reply = Box::new(move |result| {
        drop(pass);
        // Nobody waits any more where the client has gone or the time is over.
        let _ = send.send(result);
    });
    job.ask(store, query, options, reply);
    match timeout(app.limits.answer_timeout, receive).await {
        Ok(Ok(Ok(reply))) => Ok(reply),
        Ok(Ok(Err(QueryError::NoSuchStore(_)))) => Err(no_such_store(&**job, store)),
        Ok(Ok(Err(error))) => Err(error.into()),
        Ok(Err(_)) => Err(Problem::unavailable("the job went away before it answered")),
        Err(_) => {
            let limit = app.limits.answer_timeout.as_secs_f32();
            Err(Problem::unavailable(format!("no answer within {limit} s; the job is busy or has not got that far")))
        }
    }
}

fn no_such_store(job: &dyn JobService, store: &str) -> Problem {
    let name = job.status().job;
    let stores = job.stores();
    let detail = if stores.iter().any(|own| own.store == store) {
        format!(
            "store {store:?} of job {name} may not be read from outside; allow it with query = true in [stores.{store}]"
        )
    } else {
        let open: Vec<String> = stores.into_iter().filter(|own| own.query).map(|own| own.store).collect();
        format!("job {name} has no store {store:?}; it has: {}", open.join(", "))
    };
    Problem::not_found("store-not-found", detail)
}
