//! The routes, in one table.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use thalweg_connectors::dead_letter::Decision;

use super::handlers::{self, App};
use super::problem::Problem;
use super::{dead_letters, keys};

/// The index of the segment with the job's name in every path that has one.
pub(super) const JOB: usize = 2;
/// The index of the segment with the store's name.
pub(super) const STORE: usize = 4;
/// The index of the segment with the offset of a dead letter.
pub(super) const OFFSET: usize = 4;
/// The index of the segment with the key.
pub(super) const KEY: usize = 6;

/// The description of all routes, as it is handed out.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

type Route = MethodRouter<Arc<App>>;

/// Every route by its path as OpenAPI writes it.
fn table() -> Vec<(&'static str, Route)> {
    vec![
        ("/livez", get(async || handlers::alive())),
        ("/readyz", get(async |State(app): State<Arc<App>>| handlers::ready(&app))),
        ("/metrics", get(async |State(app): State<Arc<App>>| handlers::metrics(&app))),
        ("/openapi.json", get(async || handlers::openapi())),
        ("/v1/jobs", get(async |State(app): State<Arc<App>>| handlers::jobs(&app))),
        ("/v1/jobs/{job}", about_job(handlers::job)),
        ("/v1/jobs/{job}/graph", about_job(handlers::graph)),
        ("/v1/jobs/{job}/checkpoints", about_job(handlers::checkpoints)),
        ("/v1/jobs/{job}/tasks", about_job(handlers::job_tasks)),
        ("/v1/jobs/{job}/stores", about_job(handlers::stores)),
        ("/v1/jobs/{job}/stores/{store}/keys", get(range)),
        ("/v1/jobs/{job}/stores/{store}/keys/{key}", get(one)),
        ("/v1/jobs/{job}/stores/{store}/get", post(many)),
        ("/v1/jobs/{job}/dead-letters", get(dead_letter_page)),
        ("/v1/jobs/{job}/dead-letters/{offset}", get(dead_letter)),
        ("/v1/jobs/{job}/dead-letters/retry", deciding(Decision::Retried)),
        ("/v1/jobs/{job}/dead-letters/drop", deciding(Decision::Dropped)),
    ]
}

/// All of it as one service.
pub(super) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for (path, route) in table() {
        router = router.route(path, route);
    }
    // The empty text is a key too, and an empty segment is how a path says it.
    router = router.route("/v1/jobs/{job}/stores/{store}/keys/", get(one));
    router.fallback(unknown).method_not_allowed_fallback(wrong_method).with_state(app)
}

/// Whether a path is that of one key: `/v1/jobs/{job}/stores/{store}/keys/{key}`.
pub(super) fn is_key_path(path: &str) -> bool {
    let mut segments = path.split('/');
    let mut next_is = |name| segments.next() == Some(name);
    if !(next_is("") && next_is("v1") && next_is("jobs")) {
        return false;
    }
    let rest = [segments.next(), segments.next(), segments.next(), segments.next(), segments.next(), segments.next()];
    matches!(rest, [Some(_), Some("stores"), Some(_), Some("keys"), Some(_), None])
}

fn about_job(handler: fn(&App, &Uri) -> Result<Response<Body>, Problem>) -> Route {
    get(async move |State(app): State<Arc<App>>, uri: Uri| handler(&app, &uri))
}

async fn one(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    keys::get_one(&app, &uri).await
}

async fn range(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    keys::get_range(&app, &uri).await
}

async fn many(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = handlers::read_body(&app, body).await?;
    keys::get_many(&app, &parts.uri, &body).await
}

async fn dead_letter_page(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    dead_letters::list(&app, &uri).await
}

async fn dead_letter(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Problem> {
    dead_letters::one(&app, &uri).await
}

fn deciding(decision: Decision) -> Route {
    post(async move |State(app): State<Arc<App>>, request: Request| -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        app.require_token(&parts.headers)?;
        let body = handlers::read_body(&app, body).await?;
        dead_letters::decide(&app, &parts.uri, &body, decision).await
    })
}

async fn unknown(uri: Uri) -> Response {
    let detail = format!("no route {:?}; GET /openapi.json lists them all", uri.path());
    Problem::not_found("route-not-found", detail).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let detail = format!("{method} is not possible on {:?}; GET /openapi.json says what is", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openapi_describes_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("openapi.json is JSON");
        let mut described: Vec<&str> =
            document["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        let mut served: Vec<&str> = table().into_iter().map(|(path, _)| path).collect();
        described.sort_unstable();
        served.sort_unstable();
        assert_eq!(described, served);
    }
}
