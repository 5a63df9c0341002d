//! The schema registry over HTTP: the routes that Confluent's, Karapace and Redpanda have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use thalweg_core::{Error, Result};
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

use super::{Authorities, RegistryConfig, SchemaDocument, SchemaText};

/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// Most schemas that one may name, directly or not.
const MAX_REFERENCES: usize = 1000;

/// Asks one registry.
pub(super) struct Client {
    agent: Agent,
    url: String,
    authorization: Option<String>,
}

/// Why there is no answer.
pub(super) enum Refused {
    /// It may answer another time.
    Away(String),
    /// There is no such thing, says the registry itself.
    Missing,
    /// It will not answer another time either.
    Wrong(Error),
}

/// What the registry says of a schema.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

/// Another schema that a schema names.
#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

/// What the registry says of a schema that is registered.
#[derive(Deserialize)]
struct Registered {
    id: u32,
}

/// What the registry says of a schema that it is asked for.
#[derive(Deserialize)]
struct Version {
    version: i64,
}

/// What the registry says of a request that fails.
#[derive(Deserialize)]
struct Problem {
    error_code: i64,
    message: String,
}

impl Client {
    pub(super) fn new(config: &RegistryConfig) -> Self {
        let roots = config.ca.as_ref().map_or(RootCerts::PlatformVerifier, Authorities::roots);
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build();
        let agent = Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None);
        let agent = agent.tls_config(tls);
        let authorization = config.user.as_ref().map(|(user, password)| {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {pair}")
        });
        Self { agent: agent.build().into(), url: config.url.trim_end_matches('/').to_owned(), authorization }
    }

    /// The schema of an id, with all that it names.
    pub(super) fn schema(&self, id: u32) -> Result<SchemaDocument, Refused> {
        let answer: Answer = self.get(&format!("/schemas/ids/{id}"))?;
        let (mut seen, mut references) = (BTreeSet::new(), Vec::new());
        self.references(&answer.references, &mut seen, &mut references).map_err(|refused| match refused {
            // The id is there, so this is no matter of the record.
            Refused::Missing => Refused::Away(format!("schema {id} names another one that it does not have")),
            other => other,
        })?;
        let kind = answer.schema_type.unwrap_or_else(|| "AVRO".to_owned());
        Ok(SchemaDocument { kind, schema: answer.schema, references })
    }

    /// The id of a schema as the newest of a subject, where it is not already one of it. What it imports is registered before it,
    /// under the names by which it is imported.
    pub(super) fn register(&self, subject: &str, schema: &SchemaText) -> Result<u32, Refused> {
        let mut versions: BTreeMap<&str, i64> = BTreeMap::new();
        for file in &schema.files {
            let body = body(schema.kind, &file.text, &file.imports, &versions);
            let path = format!("/subjects/{}", percent_encoded(&file.name));
            let _: Registered = self.post(&format!("{path}/versions"), &body)?;
            let Version { version } = self.post(&path, &body)?;
            versions.insert(&file.name, version);
        }
        let path = format!("/subjects/{}/versions", percent_encoded(subject));
        let registered: Registered = self.post(&path, &body(schema.kind, &schema.text, &schema.imports, &versions))?;
        Ok(registered.id)
    }

    fn post<T: for<'de> Deserialize<'de>>(&self, path: &str, body: &str) -> Result<T, Refused> {
        let request = self.with_headers(self.agent.post(format!("{}{path}", self.url)));
        self.answer(path, request.content_type("application/vnd.schemaregistry.v1+json").send(body))
    }

    /// Adds what is named, each behind what it names itself.
    fn references(
        &self,
        named: &[Reference],
        seen: &mut BTreeSet<String>,
        all: &mut Vec<(String, String)>,
    ) -> Result<(), Refused> {
        for reference in named {
            if !seen.insert(reference.name.clone()) {
                continue;
            }
            if seen.len() > MAX_REFERENCES {
                let text = format!("a schema of the registry {} names more than {MAX_REFERENCES} others", self.url);
                return Err(Refused::Wrong(Error::external("schema-registry", text)));
            }
            let subject = percent_encoded(&reference.subject);
            let answer: Answer = self.get(&format!("/subjects/{subject}/versions/{}", reference.version))?;
            self.references(&answer.references, seen, all)?;
            all.push((reference.name.clone(), answer.schema));
        }
        Ok(())
    }

    fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, Refused> {
        let request = self.with_headers(self.agent.get(format!("{}{path}", self.url)));
        self.answer(path, request.call())
    }

    fn with_headers<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let request = request.header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    fn answer<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, Refused> {
        let away = |error: ureq::Error| Refused::Away(error.to_string());
        let mut response = answer.map_err(|error| self.distrusted(&error).unwrap_or_else(|| away(error)))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string().map_err(away)?;
        match status {
            200..300 => serde_json::from_str(&body).map_err(|error| {
                self.wrong(format!("answered {path} with what is no schema ({error}); check url of [schema_registry]"))
            }),
            _ => Err(self.refused(status, path, &body)),
        }
    }

    /// What no second try mends of TLS: a certificate that is not good, or a server that speaks no TLS.
    fn distrusted(&self, error: &ureq::Error) -> Option<Refused> {
        let why = match error {
            ureq::Error::NativeTls(error) => error.to_string(),
            _ => return None,
        };
        let what = if why.contains("certificate verify failed") {
            // OpenSSL has the reason in brackets, behind where in itself it was found.
            let reason = why.rsplit_once('(').map_or(why.as_str(), |(_, reason)| reason.trim_end_matches(')'));
            format!(
                "has a certificate that is not trusted: {reason}; set ca of [schema_registry] to a file with the certificate of who \
                 has signed it, and write the host in url as the certificate names it"
            )
        } else if why.contains("wrong version number") || why.contains("packet length too long") {
            "does not speak TLS; write http:// in url of [schema_registry], or the port at which it does".to_owned()
        } else {
            return None;
        };
        let text = format!("the schema registry {} {what}", self.url);
        Some(Refused::Wrong(Error::user("schema-registry-tls", text)))
    }

    fn refused(&self, status: u16, path: &str, body: &str) -> Refused {
        let problem: Option<Problem> = serde_json::from_str(body).ok();
        let said = problem.as_ref().map_or_else(String::new, |problem| format!(": {}", problem.message));
        match (status, problem) {
            // 40401 to 40403: subject, version and schema not found.
            (404, Some(problem)) if problem.error_code / 100 == 404 => Refused::Missing,
            (401 | 403, _) => {
                let text = format!(
                    "the schema registry {} answered {status}{said}; check user and password of [schema_registry]",
                    self.url
                );
                Refused::Wrong(Error::user("schema-registry-denied", text))
            }
            (409 | 422, _) => {
                let text = format!("the schema registry {} refuses the schema: {status}{said}", self.url);
                Refused::Wrong(Error::user("schema-refused", text))
            }
            (408 | 429 | 500.., _) => Refused::Away(format!("it answered {status}{said}")),
            _ => self.wrong(format!("answered {path} with {status}{said}; check url of [schema_registry]")),
        }
    }

    fn wrong(&self, what: String) -> Refused {
        Refused::Wrong(Error::user("schema-registry", format!("the schema registry {} {what}", self.url)))
    }
}

/// A schema as a registry takes it; a registry of Avro alone knows no types of schemas.
fn body(kind: &str, text: &str, imports: &[String], versions: &BTreeMap<&str, i64>) -> String {
    let mut body = serde_json::json!({ "schema": text });
    if kind != "AVRO" {
        body["schemaType"] = kind.into();
    }
    if !imports.is_empty() {
        let version = |name: &String| versions.get(name.as_str()).copied();
        let reference = |name| serde_json::json!({ "name": name, "subject": name, "version": version(name) });
        body["references"] = imports.iter().map(reference).collect();
    }
    body.to_string()
}

/// A name as one segment of a path.
fn percent_encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
