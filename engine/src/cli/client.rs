//! A client of the HTTP surface: bounded in time and size, no TLS.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use thalweg_core::{Error, Result};

/// The longest that one request may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read: a page of 10,000 entries of some kilobytes.
const MAX_ANSWER_BYTES: u64 = 256 << 20;
/// What may stand in a segment or a parameter as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Asks one server.
pub(super) struct Client {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

impl Client {
    /// A client of the server at `addr`: `host:port`, with or without `http://`.
    pub(super) fn new(addr: &str) -> Result<Self> {
        let host = addr.strip_prefix("http://").unwrap_or(addr).trim_end_matches('/');
        if host.is_empty() || host.contains("://") || host.contains('/') {
            let message = format!("--addr {addr:?}: write host:port, such as 127.0.0.1:7171");
            return Err(Error::user("bad-address", message));
        }
        let config =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None).build();
        Ok(Self { agent: config.into(), base: format!("http://{host}"), token: None })
    }

    /// With the token that requests which change something carry.
    pub(super) fn with_token(self, token: Option<String>) -> Self {
        Self { token, ..self }
    }

    /// The body of a successful answer. Errors: a problem has its own `code`; otherwise `unreachable`.
    pub(super) fn get(&self, path: &str) -> Result<String> {
        self.answer(self.agent.get(format!("{}{path}", self.base)).call())
    }

    /// As [`Client::get`], of a request with a JSON body.
    pub(super) fn post(&self, path: &str, body: &str) -> Result<String> {
        let mut request = self.agent.post(format!("{}{path}", self.base)).content_type("application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.answer(request.send(body))
    }

    fn answer(&self, answer: std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<String> {
        let unreachable = |error: ureq::Error| {
            let message = format!("{}: {error}; does the job run there? --addr says where", self.base);
            Error::external("unreachable", message).retryable()
        };
        let mut response = answer.map_err(unreachable)?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string().map_err(unreachable)?;
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_str::<Problem>(&body) {
            Ok(problem) => told(status.as_u16(), problem),
            Err(_) => {
                let message = format!("{} answered {status} without a reason; is that a thalweg server?", self.base);
                Error::external("bad-answer", message)
            }
        })
    }
}

/// A text as one segment of a path, or one value in a query.
pub(super) fn escape(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, ESCAPED)
}

fn told(status: u16, problem: Problem) -> Error {
    // The codes are those of the contract; an error's code is part of the program, so an unknown one gets a general name.
    const CODES: [&str; 12] = [
        "key-not-found",
        "job-not-found",
        "store-not-found",
        "bad-key",
        "bad-parameter",
        "unavailable",
        "read-failed",
        "bad-token",
        "no-dead-letters",
        "no-dead-letter",
        "decided",
        "cannot-retry",
    ];
    let code = CODES.into_iter().find(|code| *code == problem.code).unwrap_or("server");
    match status {
        400..500 => Error::user(code, problem.detail),
        503 => Error::external(code, problem.detail).retryable(),
        _ => Error::external(code, problem.detail),
    }
}
