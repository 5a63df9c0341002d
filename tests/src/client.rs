//! A plain HTTP client.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

/// What a server said.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, where it is JSON.
    pub json: Value,
    /// The body.
    pub text: String,
    /// The header `retry-after`.
    pub retry_after: Option<String>,
}

/// Asks one server.
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    /// For the server at an address.
    pub fn new(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let config = config.timeout_global(Some(Duration::from_secs(10))).build();
        Self { agent: config.into(), base: format!("http://{address}") }
    }

    /// Whether a job reads new input: from then on it can be stopped in order.
    pub fn is_running(&self, job: &str) -> bool {
        self.get(&format!("/v1/jobs/{job}")).is_ok_and(|status| status.json["state"] == "running")
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Result<Answer, String> {
        answer(self.agent.get(format!("{}{path}", self.base)).call())
    }

    /// `POST` of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let request = self.agent.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        answer(request.send(body.to_string()))
    }
}

fn answer(outcome: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, String> {
    let mut response = outcome.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
    let json = serde_json::from_str(&text).unwrap_or_default();
    Ok(Answer { status, json, text, retry_after })
}
