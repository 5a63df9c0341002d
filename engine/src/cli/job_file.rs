//! Job files: reading them, and what can be said about them offline.

use std::path::Path;

use serde_json::json;
use thalweg_connectors::dead_letter::Desk;
use thalweg_core::Error;
use thalweg_jobs::{
    Catalogue, Checked, DeadLettersSpec, apply_environment, explain as explain_job, graph as graph_of, parse,
    schema as schema_of,
};

use super::arguments::{ExplainArguments, Format, GraphArguments, GraphFormat, RunArguments, ValidateArguments};
use super::exit::{Exit, Failure};
use super::program::{Program, StoppedStore};
use super::screen::Screen;

/// The largest file that is read at all; the parser has a lower limit of its own and says so better.
const MAX_BYTES: u64 = 64 << 20;

/// The copy of the job file in the folder of a job.
const KEPT: &str = "job.toml";
const DRAFT: &str = "job.toml.new";

/// Runs a job file, with the flags of the command line before its environment before the file.
pub(super) fn run(program: &dyn Program, arguments: &RunArguments, screen: &Screen) -> Result<(), Failure> {
    let workers = arguments.workers.map(|workers| workers.to_string());
    let flags: Vec<Flag<'_>> = workers.iter().map(|text| ("--workers", ["job", "workers"], text.as_str())).collect();
    let checked = check(&arguments.job, program.catalogue(), &flags)?;
    show_warnings(&checked, screen);
    program.run(checked.job, arguments, screen)
}

/// Puts the job file beside the job's state, so that the state can be read when the job does not run: as a whole, or not at all.
pub(crate) fn keep_copy(file: &Path, folder: &Path) -> thalweg_core::Result<()> {
    let (draft, copy) = (folder.join(DRAFT), folder.join(KEPT));
    std::fs::copy(file, &draft)
        .and_then(|_| std::fs::rename(&draft, &copy))
        .map_err(|error| Error::io(format!("keeping a copy of the job file as {}", copy.display()), error))
}

/// Opens a store of a job that does not run, by the job file that it was last run with.
pub(super) fn open_stopped(
    program: &dyn Program,
    data: &Path,
    job: &str,
    store: &str,
) -> Result<StoppedStore, Failure> {
    let kept = data.join(job).join(KEPT);
    if !kept.is_file() {
        let message = format!(
            "{} is missing: --data is the folder that the job ran with; a job written in Rust answers only while it runs, \
             see --serve",
            kept.display()
        );
        return Err(Failure::Usage(Error::user("no-job", message)));
    }
    let checked = check(&kept, program.catalogue(), &[])?;
    program.open_stopped(&checked.job, data, store)
}

/// Opens the dead letters of a job that does not run; `change` says whether something is to be decided.
pub(super) fn stopped_desk(program: &dyn Program, data: &Path, job: &str, change: bool) -> Result<Desk, Failure> {
    let kept = data.join(job).join(KEPT);
    // A job that is written in Rust has no file, and keeps its dead letters in its own log.
    let (to, kafka) = match kept.is_file() {
        true => {
            let job = check(&kept, program.catalogue(), &[])?.job;
            (job.dead_letters, job.kafka)
        }
        false => (DeadLettersSpec::default(), None),
    };
    Ok(crate::run::open_stopped_desk(&data.join(job), job, (&to, kafka.as_ref()), change)?)
}

/// Checks all files, also after one that is invalid.
pub(super) fn validate(program: &dyn Program, arguments: &ValidateArguments, screen: &Screen) -> Result<(), Failure> {
    let mut worst: Option<Exit> = None;
    let format = arguments.output.format();
    for job in &arguments.jobs {
        let checked = check(job, program.catalogue(), &[]);
        let file = job.display().to_string();
        match format {
            Format::Table => {
                match &checked {
                    Ok(checked) => show_warnings(checked, screen),
                    Err(failure) => screen.report(failure),
                }
                let verdict = if checked.is_ok() { "valid" } else { "invalid" };
                screen.result(&format!("{file}: {verdict}"))?;
            }
            Format::Json => {
                match &checked {
                    Ok(checked) => lines(&checked.warnings.to_json_lines(), screen)?,
                    Err(Failure::InvalidJob(problems)) => lines(&problems.to_json_lines(), screen)?,
                    Err(failure) => screen.report(failure),
                }
                screen.result(&json!({ "file": file, "valid": checked.is_ok() }).to_string())?;
            }
        }
        if let Err(failure) = checked {
            // An invalid job outweighs a file that cannot be read: it is what was asked about.
            let exit = failure.exit();
            worst = worst.filter(|worst| worst.code() >= exit.code()).or(Some(exit));
        }
    }
    worst.map_or(Ok(()), |exit| Err(Failure::Reported(exit)))
}

pub(super) fn graph(program: &dyn Program, arguments: &GraphArguments, screen: &Screen) -> Result<(), Failure> {
    let checked = check(&arguments.job, program.catalogue(), &[])?;
    show_warnings(&checked, screen);
    let graph = graph_of(&checked.job);
    let text = match arguments.format() {
        GraphFormat::Table => graph.to_tree(),
        GraphFormat::Mermaid => graph.to_mermaid(),
        GraphFormat::Dot => graph.to_dot(),
        GraphFormat::Json => graph.to_json().to_string(),
    };
    screen.result(text.trim_end())
}

pub(super) fn explain(program: &dyn Program, arguments: &ExplainArguments, screen: &Screen) -> Result<(), Failure> {
    let checked = check(&arguments.job, program.catalogue(), &[])?;
    show_warnings(&checked, screen);
    let explanation = explain_job(&checked.job, program.catalogue());
    let text = match arguments.output.format() {
        Format::Table => explanation.to_text(),
        Format::Json => explanation.to_json().to_string(),
    };
    screen.result(text.trim_end())
}

pub(super) fn schema(program: &dyn Program, screen: &Screen) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(&schema_of(program.catalogue())).expect("maps with text keys always serialize");
    screen.result(&text)
}

/// A flag that stands for a key of the job file: its name, the key, the value.
type Flag<'a> = (&'static str, [&'static str; 2], &'a str);

fn check(path: &Path, catalogue: &Catalogue, flags: &[Flag<'_>]) -> Result<Checked, Failure> {
    let reading = |error| Failure::Usage(Error::io(format!("reading the job file {}", path.display()), error));
    let size = std::fs::metadata(path).map_err(reading)?.len();
    if size > MAX_BYTES {
        let message = format!("{}: {size} bytes are too many for a job file; check the path", path.display());
        return Err(Failure::Usage(Error::user("file-size", message)));
    }
    let text = std::fs::read_to_string(path).map_err(reading)?;
    let mut document = parse(&text, path).map_err(Failure::InvalidJob)?;
    // Variables that are not text cannot be meant: the names of all of ours are.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    apply_environment(&mut document, variables);
    for (flag, key, value) in flags {
        document.set(flag, key, value);
    }
    thalweg_jobs::validate(&document, catalogue).map_err(Failure::InvalidJob)
}

fn show_warnings(checked: &Checked, screen: &Screen) {
    if !checked.warnings.is_empty() {
        screen.note(checked.warnings.render(screen.has_color()).trim_end());
    }
}

fn lines(text: &str, screen: &Screen) -> Result<(), Failure> {
    text.lines().try_for_each(|line| screen.result(line))
}
