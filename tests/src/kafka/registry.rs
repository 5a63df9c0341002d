//! A schema registry over HTTP, with the routes and the answers of Confluent's: what is read by the engine's client is written by
//! this, without any of the engine's code.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use native_tls::TlsAcceptor;
use serde_json::{Value as Json, json};

use super::ports::free_ports;
use super::secrets::Secrets;

/// A registry that can be away.
pub struct SchemaRegistry {
    port: u16,
    /// Where it speaks TLS.
    tls: Option<TlsAcceptor>,
    state: Arc<Mutex<State>>,
    running: Option<Running>,
}

#[derive(Default)]
struct State {
    /// By their ids, from 1 on.
    schemas: Vec<Json>,
    /// The ids of each subject's versions, from 1 on.
    subjects: BTreeMap<String, Vec<usize>>,
    /// The header that a request has to have.
    authorization: Option<String>,
    /// The path of every request.
    asked: Vec<String>,
}

struct Running {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl SchemaRegistry {
    /// One that is away, with an address of its own.
    pub fn away() -> Self {
        let [port] = free_ports();
        Self { port, tls: None, state: Arc::default(), running: None }
    }

    /// One that answers over TLS alone.
    pub fn start_with_tls(secrets: &Secrets) -> Self {
        let mut registry = Self::away();
        registry.tls = Some(secrets.acceptor());
        registry.back();
        registry
    }

    /// One that answers.
    pub fn start() -> Self {
        let mut registry = Self::away();
        registry.back();
        registry
    }

    /// `http://host:port`, or `https://host:port`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Takes no request without this user any more.
    pub fn ask_for(&self, base64_of_user_and_password: &str) {
        self.state().authorization = Some(format!("Basic {base64_of_user_and_password}"));
    }

    /// Registers a schema as its clients do; `references` are (name, subject) of the newest versions. Returns its id.
    pub fn register(&self, subject: &str, kind: &str, schema: &str, references: &[(&str, &str)]) -> u32 {
        let mut state = self.state();
        let references: Vec<Json> = references
            .iter()
            .map(|(name, subject)| json!({ "name": name, "subject": subject, "version": state.subjects[*subject].len() }))
            .collect();
        state.register(subject, &json!({ "schema": schema, "schemaType": kind, "references": references }))
    }

    /// The id of the newest version of a subject.
    pub fn newest(&self, subject: &str) -> Option<u32> {
        let newest = *self.state().subjects.get(subject)?.last()?;
        u32::try_from(newest).ok()
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.state().asked.iter().filter(|asked| *asked == path).count()
    }

    /// Answers from now on.
    pub fn back(&mut self) {
        // Over TLS also at addresses that its certificate does not name.
        let host = if self.tls.is_some() { "0.0.0.0" } else { "127.0.0.1" };
        let listener = TcpListener::bind((host, self.port)).expect("the port is still free");
        let over = Arc::new(AtomicBool::new(false));
        let (state, stop, tls) = (self.state.clone(), over.clone(), self.tls.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // A client that goes away, or does not trust it, is no matter of the registry's.
                let Some(tls) = &tls else {
                    let _ = answer(&stream, &state);
                    let _ = stream.shutdown(Shutdown::Both);
                    continue;
                };
                if let Ok(mut stream) = tls.accept(stream) {
                    let _ = answer(&mut stream, &state);
                    let _ = stream.shutdown();
                }
            }
        });
        self.running = Some(Running { over, thread });
    }

    /// Is gone at once, as after `kill -9`: its port refuses connections.
    pub fn kill(&mut self) {
        let Some(Running { over, thread }) = self.running.take() else { return };
        over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        thread.join().expect("the registry has not failed");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SchemaRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}

impl State {
    fn register(&mut self, subject: &str, schema: &Json) -> u32 {
        let known = self.schemas.iter().position(|known| known == schema);
        let id = known.map_or(self.schemas.len() + 1, |at| at + 1);
        if known.is_none() {
            self.schemas.push(schema.clone());
        }
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        if !versions.contains(&id) {
            versions.push(id);
        }
        u32::try_from(id).expect("few schemas")
    }

    fn route(&mut self, method: &str, path: &str, body: &Json) -> (u16, Json) {
        let missing =
            |code: u32, what: &str| (404, json!({ "error_code": code, "message": format!("{what} not found.") }));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["schemas", "ids", id]) => {
                let schema = id.parse::<usize>().ok().and_then(|id| self.schemas.get(id.checked_sub(1)?)).cloned();
                schema.map_or_else(|| missing(40403, "Schema"), |schema| (200, of_avro_without_type(schema)))
            }
            ("GET", ["subjects", subject, "versions", version]) => {
                let Some(versions) = self.subjects.get(&decoded(subject)) else { return missing(40401, "Subject") };
                let version = version.parse::<usize>().unwrap_or(versions.len());
                let Some(id) = versions.get(version.wrapping_sub(1)) else { return missing(40402, "Version") };
                let mut schema = of_avro_without_type(self.schemas[id - 1].clone());
                schema["subject"] = json!(subject);
                schema["version"] = json!(version);
                schema["id"] = json!(id);
                (200, schema)
            }
            ("POST", ["subjects", subject, "versions"]) => {
                let (schema, subject) = (of_body(body), decoded(subject));
                // What is referred to has to be there.
                for reference in schema["references"].as_array().into_iter().flatten() {
                    let versions = self.subjects.get(reference["subject"].as_str().unwrap_or_default());
                    let version = reference["version"].as_u64().unwrap_or_default() as usize;
                    if versions.is_none_or(|versions| !(1..=versions.len()).contains(&version)) {
                        return (422, json!({ "error_code": 42201, "message": format!("no {reference}") }));
                    }
                }
                (200, json!({ "id": self.register(&subject, &schema) }))
            }
            ("POST", ["subjects", subject]) => {
                let schema = of_body(body);
                let Some(versions) = self.subjects.get(&decoded(subject)) else { return missing(40401, "Subject") };
                let version = versions.iter().position(|id| self.schemas[*id - 1] == schema);
                let Some(version) = version else { return missing(40403, "Schema") };
                (200, json!({ "subject": subject, "id": versions[version], "version": version + 1 }))
            }
            _ => (404, json!({ "error_code": 404, "message": "HTTP 404 Not Found" })),
        }
    }
}

fn of_body(body: &Json) -> Json {
    let kind = body.get("schemaType").cloned().unwrap_or_else(|| json!("AVRO"));
    let references = body.get("references").cloned().unwrap_or_else(|| json!([]));
    json!({ "schema": body["schema"], "schemaType": kind, "references": references })
}

/// A part of a path, of which only the slash is encoded here.
fn decoded(part: &str) -> String {
    part.replace("%2F", "/")
}

/// A registry does not name the type that was there first, nor references that a schema does not have.
fn of_avro_without_type(mut schema: Json) -> Json {
    let object = schema.as_object_mut().expect("a schema is an object");
    object.retain(|name, value| {
        !(name == "schemaType" && value == "AVRO" || name == "references" && value == &json!([]))
    });
    schema
}

fn answer(mut stream: impl Read + Write, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut stream);
    let (mut first, mut length, mut authorization) = (String::new(), 0, None);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.asked.push(path.to_owned());
    let (status, answer) = match state.authorization == authorization || state.authorization.is_none() {
        true => state.route(method, path, &serde_json::from_slice(&body).unwrap_or_default()),
        false => (401, json!({ "error_code": 401, "message": "Unauthorized" })),
    };
    let text = answer.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} -\r\ncontent-type: application/vnd.schemaregistry.v1+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    )
}
