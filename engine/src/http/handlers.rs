//! What the routes other than those of keys do, and the state that all of them share.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use thalweg_core::{JobService, Metrics};
use tokio::time::timeout;

use super::gate::Gate;
use super::keys::json;
use super::limits::Limits;
use super::parameters::segment;
use super::problem::Problem;
use super::server::Served;
use super::status::{CheckpointAnswer, JobAnswer, StoreAnswer, not_ready, tasks};
use super::{process, routes};

type Answer = Result<Response<Body>, Problem>;

/// What every request sees.
pub(super) struct App {
    pub(super) jobs: Vec<(String, Served)>,
    pub(super) metrics: Metrics,
    pub(super) limits: Limits,
    pub(super) token: Option<String>,
    pub(super) point_reads: Gate,
    pub(super) wide_reads: Gate,
}

impl App {
    /// The job that a path names.
    pub(super) fn job(&self, uri: &Uri) -> Result<&Arc<dyn JobService>, Problem> {
        Ok(&self.served(uri)?.job)
    }

    /// The job that a path names, with what else is served of it.
    pub(super) fn served(&self, uri: &Uri) -> Result<&Served, Problem> {
        let name = segment(uri.path(), routes::JOB, "job")?;
        self.jobs.iter().find(|(own, _)| *own == name).map(|(_, served)| served).ok_or_else(|| {
            let names: Vec<&str> = self.jobs.iter().map(|(own, _)| own.as_str()).collect();
            Problem::not_found("job-not-found", format!("no job {name:?} runs here; there is: {}", names.join(", ")))
        })
    }

    /// Refuses a bearer token that is not the configured one. Reads need none.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let (Some(own), Some(given)) = (&self.token, headers.get(header::AUTHORIZATION)) else { return Ok(()) };
        let given = given.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default();
        // Takes the same time wherever the first difference is, so that it cannot be guessed byte by byte.
        let differences = own.bytes().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
        if own.len() == given.len() && differences == 0 {
            return Ok(());
        }
        Err(Problem::new(StatusCode::UNAUTHORIZED, "bad-token", "the bearer token is not the one of this server"))
    }
}

impl App {
    /// Refuses a request that changes something without the bearer token, where one is configured.
    pub(super) fn require_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.token.is_some() && !headers.contains_key(header::AUTHORIZATION) {
            let detail =
                "this changes something and needs the bearer token of the server, as in \"Authorization: Bearer …\"";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "bad-token", detail));
        }
        self.check_token(headers)
    }
}

/// `GET /livez`
pub(super) fn alive() -> Response<Body> {
    json(b"{\"status\":\"alive\"}".to_vec())
}

/// `GET /readyz`
pub(super) fn ready(app: &App) -> Answer {
    match app.jobs.iter().find_map(|(_, served)| not_ready(&served.job.status())) {
        Some(reason) => Err(Problem::unavailable(reason)),
        None => Ok(json(b"{\"status\":\"ready\"}".to_vec())),
    }
}

/// `GET /metrics`
pub(super) fn metrics(app: &App) -> Response<Body> {
    let mut response = Response::new(Body::from(process::with_process_metrics(app.metrics.render())));
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// `GET /openapi.json`
pub(super) fn openapi() -> Response<Body> {
    json(routes::OPENAPI.as_bytes().to_vec())
}

/// `GET /v1/jobs`
pub(super) fn jobs(app: &App) -> Answer {
    let all: Vec<JobAnswer> = app.jobs.iter().map(|(_, served)| served.job.status().into()).collect();
    Ok(value(&json!({ "jobs": all })))
}

/// `GET /v1/jobs/{job}`
pub(super) fn job(app: &App, uri: &Uri) -> Answer {
    Ok(value(&JobAnswer::from(app.job(uri)?.status())))
}

/// `GET /v1/jobs/{job}/graph`
pub(super) fn graph(app: &App, uri: &Uri) -> Answer {
    Ok(value(&app.job(uri)?.graph()))
}

/// `GET /v1/jobs/{job}/checkpoints`
pub(super) fn checkpoints(app: &App, uri: &Uri) -> Answer {
    let all: Vec<CheckpointAnswer> = app.job(uri)?.checkpoints().into_iter().map(Into::into).collect();
    Ok(value(&json!({ "checkpoints": all })))
}

/// `GET /v1/jobs/{job}/tasks`
pub(super) fn job_tasks(app: &App, uri: &Uri) -> Answer {
    Ok(value(&json!({ "tasks": tasks(&**app.job(uri)?) })))
}

/// `GET /v1/jobs/{job}/stores`
pub(super) fn stores(app: &App, uri: &Uri) -> Answer {
    let all: Vec<StoreAnswer> = app.job(uri)?.stores().into_iter().map(Into::into).collect();
    Ok(value(&json!({ "stores": all })))
}

/// The whole body of a request, within its limits of size and time.
pub(super) async fn read_body(app: &App, body: Body) -> Result<Bytes, Problem> {
    let limit = app.limits.max_body_bytes;
    match timeout(app.limits.body_timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is longer than {limit} bytes; ask in several requests");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail))
        }
        Ok(Err(error)) => Err(Problem::new(StatusCode::BAD_REQUEST, "bad-body", format!("reading the body: {error}"))),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "the body did not come in time")),
    }
}

pub(super) fn value(of: &impl serde::Serialize) -> Response<Body> {
    json(serde_json::to_vec(of).expect("maps with text keys always serialize"))
}
