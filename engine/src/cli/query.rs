//! `query`: reads the state of a job: of a running one over HTTP, of another from its folder.

use std::fmt::Write;

use thalweg_core::{At, Error, Query, QueryError, Result, ScanRange};

use super::arguments::{Format, QueryArguments};
use super::client::{Client, escape};
use super::exit::Failure;
use super::job_file::open_stopped;
use super::json_text::{elements, members, plain};
use super::program::{Program, StoppedStore};
use super::screen::Screen;
use super::table::Table;
use crate::http::answer::{self, Role};

/// The largest page that a server gives.
const PAGE: u64 = 10_000;

/// Who is asked.
enum Asked {
    /// A running job.
    Server(Client),
    /// The folder of one that does not run.
    Folder(StoppedStore),
}

pub(super) fn query(program: &dyn Program, arguments: &QueryArguments, screen: &Screen) -> Result<(), Failure> {
    let asked = match &arguments.data {
        Some(data) => Asked::Folder(open_stopped(program, data, &arguments.job, &arguments.store)?),
        None => Asked::Server(Client::new(&arguments.addr).map_err(Failure::Usage)?),
    };
    match &arguments.key {
        Some(key) => one(arguments, &asked, key, screen),
        None => range(arguments, &asked, screen),
    }
    .map_err(wrong_usage)
}

impl Asked {
    /// The answer about one key, as HTTP gives it.
    fn one(&self, arguments: &QueryArguments, key: &str) -> Result<String> {
        let store = match self {
            Asked::Server(client) => {
                let path = format!("{}/{}?at={}", path(arguments), escape(key), at(arguments.at));
                return client.get(&path);
            }
            Asked::Folder(store) => store,
        };
        let reply = store(&Query::Get { key: key.to_owned() }).map_err(refused)?;
        let found = reply.entries.first().and_then(|entry| Some((entry, entry.value.as_deref()?)));
        let Some((entry, value)) = found else {
            let text = format!("store {:?} holds no key {key:?} at epoch {}", arguments.store, reply.epoch);
            return Err(Error::user("key-not-found", text));
        };
        Ok(text(answer::one(&entry.key, value, &reply, Role::Stopped)))
    }

    /// A page, as HTTP gives it.
    fn page(&self, arguments: &QueryArguments, limit: u64, cursor: Option<&str>) -> Result<String> {
        match self {
            Asked::Server(client) => client.get(&page_target(arguments, &path(arguments), limit.min(PAGE), cursor)),
            Asked::Folder(store) => {
                let range = ScanRange {
                    from: arguments.from.clone(),
                    to: arguments.to.clone(),
                    prefix: arguments.prefix.clone(),
                    after: None,
                    // Nobody else waits: all in one page.
                    limit: usize::try_from(limit).unwrap_or(usize::MAX),
                };
                let reply = store(&Query::Scan(range)).map_err(refused)?;
                Ok(text(answer::page(&reply, Role::Stopped)))
            }
        }
    }
}

fn path(arguments: &QueryArguments) -> String {
    format!("/v1/jobs/{}/stores/{}/keys", escape(&arguments.job), escape(&arguments.store))
}

fn text(answer: Vec<u8>) -> String {
    String::from_utf8(answer).expect("JSON is text")
}

fn refused(error: QueryError) -> Error {
    match error {
        QueryError::BadKey(why) => Error::user("bad-key", why),
        QueryError::NoSuchStore(why) => Error::user("no-store", why),
        QueryError::Unavailable(why) => Error::external("unavailable", why).retryable(),
        QueryError::Failed(why) => Error::external("read-failed", why),
    }
}

/// What the server calls a wrong question was wrongly asked here.
fn wrong_usage(failure: Failure) -> Failure {
    match failure {
        Failure::Failed(error) if ["bad-key", "bad-parameter"].contains(&error.code()) => Failure::Usage(error),
        other => other,
    }
}

fn one(arguments: &QueryArguments, asked: &Asked, key: &str, screen: &Screen) -> Result<(), Failure> {
    let answer = asked.one(arguments, key)?;
    if arguments.output.format() == Format::Json {
        return screen.result(&answer);
    }
    let found = members(&answer).ok_or_else(bad_answer)?;
    let mut table = Table::new(["key", "value", "epoch", "age"]);
    let age = format!("{} ms", field(&found, "age_ms")?);
    table.row([plain(field(&found, "key")?), plain(field(&found, "value")?), field(&found, "epoch")?.to_owned(), age]);
    table.print(screen)
}

fn range(arguments: &QueryArguments, asked: &Asked, screen: &Screen) -> Result<(), Failure> {
    let mut table = Table::new(["key", "value"]);
    let mut left = arguments.limit;
    let mut cursor: Option<String> = None;
    while left > 0 {
        let answer = asked.page(arguments, left, cursor.as_deref())?;
        let page = members(&answer).ok_or_else(bad_answer)?;
        let epoch = field(&page, "epoch")?;
        let entries = elements(field(&page, "entries")?).ok_or_else(bad_answer)?;
        for entry in &entries {
            let entry = members(entry).ok_or_else(bad_answer)?;
            let (key, value) = (field(&entry, "key")?, field(&entry, "value")?);
            match arguments.output.format() {
                Format::Json => screen.result(&format!("{{\"key\":{key},\"value\":{value},\"epoch\":{epoch}}}"))?,
                Format::Table => table.row([plain(key), plain(value)]),
            }
        }
        left = left.saturating_sub(entries.len() as u64);
        cursor = serde_json::from_str(field(&page, "cursor")?).map_err(|_| bad_answer())?;
        // A page may be empty and still have a cursor only if the server is broken: then it would go on for ever.
        if cursor.is_none() || entries.is_empty() {
            break;
        }
    }
    if arguments.output.format() == Format::Table {
        table.print(screen)?;
    }
    if cursor.is_some() {
        screen.note(&format!("there are more than {} entries; --limit N shows more", arguments.limit));
    }
    Ok(())
}

fn page_target(arguments: &QueryArguments, path: &str, limit: u64, cursor: Option<&str>) -> String {
    let mut target = format!("{path}?at={}&limit={limit}", at(arguments.at));
    let rest = [
        ("from", arguments.from.as_deref()),
        ("to", arguments.to.as_deref()),
        ("prefix", arguments.prefix.as_deref()),
        ("cursor", cursor),
    ];
    for (name, value) in rest {
        if let Some(value) = value {
            write!(target, "&{name}={}", escape(value)).expect("writing to a String cannot fail");
        }
    }
    target
}

fn at(at: At) -> &'static str {
    match at {
        At::Latest => "latest",
        At::Committed => "committed",
    }
}

fn field<'a>(members: &[(String, &'a str)], name: &str) -> Result<&'a str> {
    members.iter().find(|(own, _)| own == name).map(|(_, value)| *value).ok_or_else(bad_answer)
}

fn bad_answer() -> Error {
    Error::external("bad-answer", "the server's answer is not what this version understands; is it a thalweg server?")
}
