//! `dlq`: the dead letters of a job: of a running one over HTTP, of another from its folder.

use serde_json::{Value, json};
use thalweg_connectors::dead_letter::{Decision, Desk, Range, Which};
use thalweg_core::{Error, Result};

use super::arguments::{DlqArguments, DlqVerb, Format, JobAddress, WhichLetters, token};
use super::client::{Client, escape};
use super::exit::Failure;
use super::job_file::stopped_desk;
use super::json_text::plain;
use super::program::Program;
use super::screen::Screen;
use super::table::Table;
use crate::http::dead_letters::{decided_json, letter_json, page_json};

/// The largest page that a server gives.
const PAGE: u64 = 10_000;
/// How much of a record a table shows.
const SHOWN_CHARACTERS: usize = 60;

/// Who is asked.
enum Asked {
    /// A running job.
    Server(Client),
    /// The folder of one that does not run.
    Folder(Desk),
}

pub(super) fn dlq(program: &dyn Program, arguments: &DlqArguments, screen: &Screen) -> Result<(), Failure> {
    match &arguments.verb {
        DlqVerb::Ls { job, node, limit, output } => {
            let asked = Asked::new(program, job, None)?;
            list(&asked, job, node.as_deref(), *limit, output.format(), screen)
        }
        DlqVerb::Show { job, offset, output } => {
            let answer = Asked::new(program, job, None)?.one(job, *offset)?;
            show(&answer, output.format(), screen)
        }
        DlqVerb::Retry { job, which, output } => {
            decide(program, job, which, Decision::Retried, output.format(), screen)
        }
        DlqVerb::Drop { job, which, output } => decide(program, job, which, Decision::Dropped, output.format(), screen),
    }
    .map_err(wrong_usage)
}

/// What cannot be done as it was asked for.
fn wrong_usage(failure: Failure) -> Failure {
    match failure {
        Failure::Failed(error) if error.code() == "bad-parameter" => Failure::Usage(error),
        other => other,
    }
}

impl Asked {
    /// `change` is what is to be decided, if anything is.
    fn new(program: &dyn Program, job: &JobAddress, change: Option<&WhichLetters>) -> Result<Self, Failure> {
        match &job.data {
            Some(data) => Ok(Asked::Folder(stopped_desk(program, data, &job.job, change.is_some())?)),
            None => {
                let token = token(change.and_then(|which| which.token_file.as_deref()))?;
                Ok(Asked::Server(Client::new(&job.addr).map_err(Failure::Usage)?.with_token(token)))
            }
        }
    }

    fn page(&self, job: &JobAddress, from: u64, limit: u64, node: Option<&str>) -> Result<Value> {
        match self {
            Asked::Server(client) => {
                let node = node.map_or(String::new(), |node| format!("&node={}", escape(node)));
                parsed(&client.get(&format!("{}?limit={}&cursor={from}{node}", path(job), limit.min(PAGE)))?)
            }
            Asked::Folder(desk) => {
                Ok(page_json(&desk.page(from, usize::try_from(limit.min(PAGE)).unwrap_or(usize::MAX), node)?))
            }
        }
    }

    fn one(&self, job: &JobAddress, offset: u64) -> Result<Value> {
        match self {
            Asked::Server(client) => parsed(&client.get(&format!("{}/{offset}", path(job)))?),
            Asked::Folder(desk) => desk.get(offset).map(|(letter, decision)| letter_json(&letter, decision)),
        }
    }

    fn decide(&self, job: &JobAddress, which: &Which, decision: Decision) -> Result<Value> {
        match self {
            Asked::Server(client) => {
                let verb = match decision {
                    Decision::Retried => "retry",
                    Decision::Dropped => "drop",
                };
                let body = match which {
                    Which::Offsets(offsets) => json!({ "offsets": offsets }),
                    Which::All(Range { node, from, until }) => {
                        json!({ "all": true, "node": node, "from": from, "until": until })
                    }
                };
                parsed(&client.post(&format!("{}/{verb}", path(job)), &body.to_string())?)
            }
            Asked::Folder(desk) => desk.decide(which, decision).map(|decided| decided_json(decided, decision)),
        }
    }
}

fn path(job: &JobAddress) -> String {
    format!("/v1/jobs/{}/dead-letters", escape(&job.job))
}

fn parsed(answer: &str) -> Result<Value> {
    serde_json::from_str(answer).map_err(|_| bad_answer())
}

fn bad_answer() -> Error {
    Error::external("bad-answer", "the server's answer is not what this version understands; is it a thalweg server?")
}

fn list(
    asked: &Asked,
    job: &JobAddress,
    node: Option<&str>,
    limit: u64,
    format: Format,
    screen: &Screen,
) -> Result<(), Failure> {
    let mut table = Table::new(["offset", "time", "node", "reason", "message", "record"]);
    let (mut left, mut from) = (limit, Some(0));
    while let Some(cursor) = from.filter(|_| left > 0) {
        let page = asked.page(job, cursor, left, node)?;
        let letters = page["dead_letters"].as_array().ok_or_else(bad_answer)?;
        for letter in letters {
            match format {
                Format::Json => screen.result(&letter.to_string())?,
                Format::Table => {
                    let cell = |name: &str| shortened(&text(&letter[name]));
                    table.row(["offset", "time", "node", "reason", "message", "start"].map(cell));
                }
            }
        }
        left = left.saturating_sub(letters.len() as u64);
        from = page["cursor"].as_str().map(str::parse).transpose().map_err(|_| bad_answer())?;
    }
    if format == Format::Table {
        table.print(screen)?;
    }
    if from.is_some() {
        screen.note(&format!("there may be more than {limit} dead letters; --limit N shows more"));
    }
    Ok(())
}

fn show(letter: &Value, format: Format, screen: &Screen) -> Result<(), Failure> {
    if format == Format::Json {
        return screen.result(&letter.to_string());
    }
    let mut table = Table::new(["field", "value"]);
    for (name, value) in letter.as_object().ok_or_else(bad_answer)? {
        if !value.is_null() {
            table.row([name.clone(), text(value)]);
        }
    }
    table.print(screen)
}

fn decide(
    program: &dyn Program,
    job: &JobAddress,
    which: &WhichLetters,
    decision: Decision,
    format: Format,
    screen: &Screen,
) -> Result<(), Failure> {
    let asked = Asked::new(program, job, Some(which))?;
    let name = decision.name();
    let mut part = match which.all {
        true => Which::All(Range { node: which.node.clone(), ..Range::default() }),
        false => Which::Offsets(which.offsets.clone()),
    };
    let (mut count, mut left) = (0, 0);
    loop {
        let answer = asked.decide(job, &part, decision)?;
        count += answer[name].as_u64().ok_or_else(bad_answer)?;
        left += answer["left"].as_u64().ok_or_else(bad_answer)?;
        let Some(next) = answer["next"].as_u64() else { break };
        part = Which::All(Range { node: which.node.clone(), from: next, until: answer["until"].as_u64() });
    }
    if left > 0 {
        screen.note(&format!("{left} cannot be retried and stay; `dlq retry {} OFFSET` says why", job.job));
    }
    screen.result(&match format {
        Format::Json => json!({ name: count, "left": left }).to_string(),
        Format::Table => format!("{count} {name}"),
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        other => plain(&other.to_string()),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
