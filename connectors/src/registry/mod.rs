//! Schemas by their ids, from a schema registry.
//!
//! What an id stands for never changes, so each is asked for once, by a thread of its own: whoever needs it waits with its
//! partition, and everything else goes on. An answer is kept in the job's log before it is used ([`KeptSchemas`]), also that there
//! is no schema of an id: a record must not be read in one way now and in another when it is read again.

mod authorities;
mod client;
mod kept;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use thalweg_core::{Blame, Error, JobId, Result};

use crate::Waker;
use crate::format::{ParsedSchema, ProtoFile, ProtoTexts};
use crate::log::Log;
pub use authorities::Authorities;
use client::{Client, Refused};
use kept::Answer;
pub use kept::KeptSchemas;

/// The first and the longest pause before the registry is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// For how long an answer that there is no such schema is not believed: a copy of the registry may lag behind the one that gave
/// the id out.
const DOUBT: Duration = Duration::from_secs(1);
/// How often the user is told that the registry is waited for.
const WORD: Duration = Duration::from_secs(10);

/// How a schema registry is reached.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Where it is: `http://host:port` or `https://host:port`, and a path where it has one.
    pub url: String,
    /// Who may have signed its certificate; nothing means whom the system trusts.
    pub ca: Option<Authorities>,
    /// The user and the password.
    pub user: Option<(String, String)>,
    /// For how long it is waited for before the job fails.
    pub patience: Duration,
    /// What is done with a record whose schema it does not have.
    pub unknown: UnknownSchema,
}

/// What is done with a record that names a schema which the registry does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownSchema {
    /// It stops the job; the registry is asked again when it is started again.
    #[default]
    Fails,
    /// It is a bad record, and stays one.
    IsBad,
}

/// A schema as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SchemaDocument {
    /// `AVRO`, `PROTOBUF`, `JSON`.
    pub(crate) kind: String,
    /// Its text.
    pub(crate) schema: String,
    /// Name and text of those that it names, each behind those that it names itself.
    pub(crate) references: Vec<(String, String)>,
}

/// A schema that is to be registered.
pub(crate) struct SchemaText {
    kind: &'static str,
    text: String,
    /// What it names itself.
    imports: Vec<String>,
    /// All that it needs, each behind what that names itself.
    files: Vec<ProtoFile>,
}

impl SchemaText {
    pub(crate) fn avro(text: &str) -> Self {
        Self { kind: "AVRO", text: text.to_owned(), imports: Vec::new(), files: Vec::new() }
    }

    pub(crate) fn protobuf(texts: &ProtoTexts) -> Self {
        let ProtoTexts { main, imports, files } = texts.clone();
        Self { kind: "PROTOBUF", text: main, imports, files }
    }

    fn document(&self) -> SchemaDocument {
        let references = self.files.iter().map(|file| (file.name.clone(), file.text.clone())).collect();
        SchemaDocument { kind: self.kind.to_owned(), schema: self.text.clone(), references }
    }
}

/// What is known of an id.
pub(crate) enum Known {
    /// Its schema, or why records cannot be read with it.
    Schema(Arc<Result<ParsedSchema, String>>),
    /// Nothing yet; the waker is called when it is.
    Waiting,
}

/// The schemas of a job.
pub struct SchemaRegistry {
    shared: Arc<Shared>,
}

struct Shared {
    config: RegistryConfig,
    client: Client,
    state: Mutex<State>,
    kept: Mutex<Option<KeptSchemas>>,
    /// That nobody needs schemas any more.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    known: BTreeMap<u32, Arc<Result<ParsedSchema, String>>>,
    /// What the job has registered: by subject and text.
    registered: BTreeMap<(String, String), u32>,
    wanted: VecDeque<u32>,
    wakers: Vec<Waker>,
    /// Why there will be no more answers.
    failed: Option<(Blame, &'static str, String)>,
    /// Whether the thread is there that asks.
    asking: bool,
    over: bool,
}

impl SchemaRegistry {
    /// A registry whose answers are not kept.
    pub fn new(config: RegistryConfig) -> Self {
        let client = Client::new(&config);
        Self {
            shared: Arc::new(Shared {
                config,
                client,
                state: Mutex::default(),
                kept: Mutex::default(),
                ended: Condvar::new(),
            }),
        }
    }

    /// With all that was answered before, and in `kept` what will be.
    ///
    /// Errors: those of the log.
    pub fn kept_in(self, kept: KeptSchemas) -> Result<Self> {
        let answers = kept.load()?;
        self.know(answers);
        *self.shared.kept.lock() = Some(kept);
        Ok(self)
    }

    /// With what another run has kept, which is to be repeated.
    ///
    /// Errors: those of the log.
    pub fn as_recorded(self, log: &dyn Log, job: JobId) -> Result<Self> {
        self.know(KeptSchemas::read(log, job)?);
        Ok(self)
    }

    fn know(&self, answers: Vec<Answer>) {
        let mut state = self.shared.state.lock();
        for Answer { id, subject, schema, .. } in answers {
            match (subject, schema) {
                (Some(subject), Some(schema)) => drop(state.registered.insert((subject, schema.schema), id)),
                (_, schema) => drop(state.known.insert(id, self.shared.parsed(id, schema))),
            }
        }
    }

    /// The id of a schema, as the newest of a subject; the registry is asked for it once.
    ///
    /// Errors: as [`SchemaRegistry::find`]; `schema-refused` where it does not fit what the subject has.
    pub(crate) fn register(&self, subject: &str, schema: &SchemaText) -> Result<u32> {
        let key = (subject.to_owned(), schema.text.clone());
        if let Some(id) = self.shared.state.lock().registered.get(&key) {
            return Ok(*id);
        }
        let what = format!("taken the schema of {subject:?}");
        let id = self.shared.patiently(&what, || self.shared.client.register(subject, schema))?;
        let Some(Some(id)) = id else {
            let text = format!("the schema registry {} cannot register schemas", self.shared.config.url);
            return Err(Error::user("schema-registry", text));
        };
        self.shared.keep(&Answer::new(id, Some(key.0.clone()), Some(schema.document())))?;
        self.shared.state.lock().registered.insert(key, id);
        Ok(id)
    }

    /// What is known of an id; what is not known is asked for.
    ///
    /// Errors: `schema-registry-away` where the registry has not answered for too long; `schema-unknown` where it has no such schema;
    /// `schema-registry-denied`, `schema-registry` where it refuses; those of the log that keeps its answers.
    pub(crate) fn find(&self, id: u32, waker: &Waker) -> Result<Known> {
        let mut state = self.shared.state.lock();
        if let Some(schema) = state.known.get(&id) {
            return Ok(Known::Schema(schema.clone()));
        }
        if let Some(failed) = &state.failed {
            return Err(error(failed));
        }
        if !state.wanted.contains(&id) {
            state.wanted.push_back(id);
        }
        if !state.wakers.iter().any(|known| Arc::ptr_eq(known, waker)) {
            state.wakers.push(waker.clone());
        }
        if !state.asking {
            state.asking = true;
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("schemas".to_owned());
            thread.spawn(move || shared.ask()).map_err(|error| Error::io("starting a thread for schemas", error))?;
        }
        Ok(Known::Waiting)
    }
}

impl Drop for SchemaRegistry {
    fn drop(&mut self) {
        self.shared.state.lock().over = true;
        self.shared.ended.notify_all();
    }
}

fn error((blame, code, message): &(Blame, &'static str, String)) -> Error {
    match blame {
        Blame::User => Error::user(code, message.clone()),
        Blame::External => Error::external(code, message.clone()),
        Blame::Internal => Error::internal(code, message.clone()),
    }
}

impl Shared {
    /// Asks for everything that is wanted, one after the other, until nothing is.
    fn ask(&self) {
        loop {
            let id = {
                let mut state = self.state.lock();
                match state.wanted.front().filter(|_| !state.over && state.failed.is_none()) {
                    Some(id) => *id,
                    None => {
                        state.asking = false;
                        return;
                    }
                }
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| self.answer(id)));
            let outcome = outcome.unwrap_or_else(|_| {
                // The texts of others go through a parser of others; whoever waits must not wait for ever.
                Err(Error::internal("schema-registry", format!("the text of schema {id} has made its parser panic")))
            });
            let mut state = self.state.lock();
            match outcome {
                Ok(Some(schema)) => drop(state.known.insert(id, schema)),
                Ok(None) => {}
                Err(error) => state.failed = Some((error.blame(), error.code(), error.message().to_owned())),
            }
            state.wanted.pop_front();
            let wakers = std::mem::take(&mut state.wakers);
            drop(state);
            wakers.iter().for_each(|waker| waker());
        }
    }

    /// The schema of an id, kept; nothing where nobody needs it any more.
    fn answer(&self, id: u32) -> Result<Option<Arc<Result<ParsedSchema, String>>>> {
        let answer = self.patiently(&format!("given schema {id}"), || self.client.schema(id))?;
        let Some(answer) = answer else { return Ok(None) };
        if answer.is_none() && self.config.unknown == UnknownSchema::Fails {
            let text = format!(
                "the schema registry {} has no schema {id}, by which a record is written; register it there, or set on_error = \
                 \"dead-letter\" to set such records aside",
                self.config.url
            );
            return Err(Error::user("schema-unknown", text));
        }
        self.keep(&Answer::new(id, None, answer.clone()))?;
        Ok(Some(self.parsed(id, answer)))
    }

    /// Makes an answer durable, where answers are kept.
    fn keep(&self, answer: &Answer) -> Result<()> {
        // Whoever is woken looks at the state, so that must not be locked for as long as a disk takes.
        self.kept.lock().as_mut().map_or(Ok(()), |kept| kept.keep(answer))
    }

    fn parsed(&self, id: u32, answer: Option<SchemaDocument>) -> Arc<Result<ParsedSchema, String>> {
        Arc::new(match answer {
            Some(document) => ParsedSchema::of_registry(&document).map_err(|why| format!("schema {id}: {why}")),
            None => Err(format!("the schema registry {} has no schema {id}", self.config.url)),
        })
    }

    /// Asks until there is an answer, or the patience is over; nothing where nobody needs it any more, and nothing in it where
    /// there is no such thing. `what` the registry has not done is told meanwhile.
    fn patiently<T>(&self, what: &str, ask: impl Fn() -> Result<T, Refused>) -> Result<Option<Option<T>>> {
        let (began, mut pause, mut next_word) = (Instant::now(), PAUSES.0, Duration::ZERO);
        loop {
            let why = match ask() {
                Ok(answer) => return Ok(Some(Some(answer))),
                Err(Refused::Missing) if began.elapsed() >= DOUBT.min(self.config.patience) => return Ok(Some(None)),
                Err(Refused::Missing) => None,
                Err(Refused::Wrong(error)) => return Err(error),
                Err(Refused::Away(why)) => Some(why),
            };
            let waited = began.elapsed();
            if let Some(why) = why {
                if waited >= self.config.patience {
                    return Err(self.away(what, waited, &why));
                }
                if waited >= next_word {
                    next_word = waited + WORD;
                    tracing::warn!("waiting for the schema registry {}, which has not {what}: {why}", self.config.url);
                }
            }
            let mut state = self.state.lock();
            if !state.over {
                self.ended.wait_for(&mut state, pause);
            }
            if state.over {
                return Ok(None);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn away(&self, what: &str, waited: Duration, why: &str) -> Error {
        let text = format!(
            "the schema registry {} has not {what} for {} s (last: {why}); check that it runs, and url of \
             [schema_registry]; nothing is lost, start the job again then",
            self.config.url,
            waited.as_secs()
        );
        Error::external("schema-registry-away", text)
    }
}
