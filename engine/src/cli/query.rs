//! `query`: reads the state of a running job.

use std::fmt::Write;

use thalweg_core::{At, Error, Result};

use super::arguments::{Format, QueryArguments};
use super::client::{Client, escape};
use super::exit::Failure;
use super::json_text::{elements, members, plain};
use super::screen::Screen;
use super::table::Table;

/// The largest page that a server gives.
const PAGE: u64 = 10_000;

pub(super) fn query(arguments: &QueryArguments, screen: &Screen) -> Result<(), Failure> {
    let client = Client::new(&arguments.addr).map_err(Failure::Usage)?;
    let store = format!("/v1/jobs/{}/stores/{}/keys", escape(&arguments.job), escape(&arguments.store));
    match &arguments.key {
        Some(key) => one(arguments, &client, &format!("{store}/{}", escape(key)), screen),
        None => range(arguments, &client, &store, screen),
    }
    .map_err(wrong_usage)
}

/// What the server calls a wrong question was wrongly asked here.
fn wrong_usage(failure: Failure) -> Failure {
    match failure {
        Failure::Failed(error) if ["bad-key", "bad-parameter"].contains(&error.code()) => Failure::Usage(error),
        other => other,
    }
}

fn one(arguments: &QueryArguments, client: &Client, path: &str, screen: &Screen) -> Result<(), Failure> {
    let answer = client.get(&format!("{path}?at={}", at(arguments.at)))?;
    if arguments.output.format() == Format::Json {
        return screen.result(&answer);
    }
    let found = members(&answer).ok_or_else(bad_answer)?;
    let mut table = Table::new(["key", "value", "epoch", "age"]);
    let age = format!("{} ms", field(&found, "age_ms")?);
    table.row([plain(field(&found, "key")?), plain(field(&found, "value")?), field(&found, "epoch")?.to_owned(), age]);
    table.print(screen)
}

fn range(arguments: &QueryArguments, client: &Client, path: &str, screen: &Screen) -> Result<(), Failure> {
    let mut table = Table::new(["key", "value"]);
    let mut left = arguments.limit;
    let mut cursor: Option<String> = None;
    while left > 0 {
        let answer = client.get(&page_target(arguments, path, left.min(PAGE), cursor.as_deref()))?;
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
