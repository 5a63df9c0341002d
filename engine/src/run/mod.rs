//! `run`: the whole job in one process. One task, and the same decisions as in a cluster, with the history in the job's own
//! folder.
//!
//! ```text
//! DATA/JOB/log/    the job's log: history, bindings, changelogs
//! DATA/JOB/state/  the task's RocksDB
//! ```

mod journal;
mod shell;
mod stopped;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use thalweg_connectors::log::{EmbeddedLog, Log};
use thalweg_coordinator::Entry;
use thalweg_core::{Epoch, Error, JobId, Metrics, Phase, Result, TaskIndex};
use thalweg_jobs::{DeadLettersSpec, JobSpec, PlanContext};
use thalweg_operators::{Plan, Registry};
use thalweg_runtime::{RecordedRun, Task, TaskConfig, checkpoint_zero, read_bindings};

use crate::cli::{Failure, HttpAddress, RunArguments, Screen};
use crate::http::{Server, ServerOptions};
use crate::progress::Progress;
use crate::signals::on_stop;
use journal::Journal;
use shell::{Shell, ShellEvent};

pub(crate) use stopped::open_stopped;

/// Runs a job until its input ends or it is told to stop.
pub(crate) fn run(
    job: &JobSpec,
    registry: &Registry,
    arguments: &RunArguments,
    screen: &Screen,
) -> Result<(), Failure> {
    let (log, journal, job_id) = open_job(&arguments.data, job.name.as_str())?;
    let open_other = |path: &Path| -> Result<Arc<dyn Log>> { Ok(Arc::new(EmbeddedLog::open(path, clock())?)) };
    let context =
        PlanContext { registry, job_id, log: log.clone(), log_dir: log.dir().to_owned(), open_log: &open_other };
    let plan = Arc::new(thalweg_jobs::plan(job, &context)?);
    run_plan(plan, job_id, log, journal, arguments, screen)
}

/// Runs a plan that was written in Rust.
pub(crate) fn run_built(plan: Plan, arguments: &RunArguments, screen: &Screen) -> Result<(), Failure> {
    let (log, journal, job_id) = open_job(&arguments.data, plan.settings().name.as_str())?;
    let plan = thalweg_jobs::with_dead_letters(plan, &DeadLettersSpec::default(), job_id, log.clone())?;
    run_plan(Arc::new(plan), job_id, log, journal, arguments, screen)
}

/// The job's log, its history, and its id: the one that it was created with, or a new one.
fn open_job(data: &Path, job: &str) -> Result<(Arc<EmbeddedLog>, Journal, JobId)> {
    let dir = data.join(job).join("log");
    std::fs::create_dir_all(&dir)
        .map_err(|error| Error::io(format!("making the job's folder {}", dir.display()), error))?;
    let log = Arc::new(EmbeddedLog::open(&dir, clock())?);
    let journal = Journal::open(log.clone())?;
    let job_id = match journal.history().zero() {
        Some(zero) => zero.job_id,
        None => random_job_id()?,
    };
    Ok((log, journal, job_id))
}

fn run_plan(
    plan: Arc<Plan>,
    job_id: JobId,
    log: Arc<EmbeddedLog>,
    mut journal: Journal,
    arguments: &RunArguments,
    screen: &Screen,
) -> Result<(), Failure> {
    screen.start_log();
    create_or_check(&plan, job_id, &mut journal)?;
    let metrics = Metrics::default();
    let workers = plan.settings().workers.unwrap_or_else(cores);
    let recorded =
        arguments.bindings.as_deref().map(|dir| recorded_run(dir, plan.settings().name.as_str())).transpose()?;
    let (events, inbox) = channel();
    let (stop, to_shell) = (events.clone(), events);
    let tell = Arc::new(move |event| drop(to_shell.send(ShellEvent::Task(event))));
    let config = TaskConfig {
        plan: plan.clone(),
        job_id,
        task: TaskIndex(0),
        workers,
        log: log.clone(),
        state_dir: arguments.data.join(plan.settings().name.as_str()).join("state"),
        metrics: metrics.clone(),
        recorded,
        keep_bindings: arguments.keep_bindings,
    };
    let task = Task::start(config, tell)?;
    let server = match arguments.http {
        HttpAddress::None => None,
        HttpAddress::At(addr) => {
            let options = ServerOptions { token: arguments.token()?, ..ServerOptions::default() };
            Some(Server::start(addr, options, vec![task.service()], metrics)?)
        }
    };
    if let Some(server) = &server {
        tracing::info!("serving http://{}", server.local_addr());
    }
    on_stop(move |_| drop(stop.send(ShellEvent::Stop)))?;
    let progress = Progress::start(task.service(), screen);
    let mut shell = Shell::new(journal, task, &plan, log);
    let outcome = shell.run(&inbox);
    if outcome.is_ok() {
        shell.set_phase(if shell.finished() { Phase::Finished } else { Phase::Stopped });
    }
    progress.finish();
    if outcome.is_ok() && shell.had_finished() {
        screen.note("nothing to do: all input was processed by an earlier run");
    }
    if outcome.is_ok() && arguments.serve && shell.finished() {
        if let Some(server) = &server {
            screen
                .note(&format!("input has ended; queries are answered at http://{} until Ctrl-C", server.local_addr()));
        }
        shell.wait_for_stop(&inbox);
    }
    drop(server);
    outcome.map_err(Failure::Failed)
}

/// Commits checkpoint 0 of a new job, or checks that an old one fits the plan.
fn create_or_check(plan: &Plan, job_id: JobId, journal: &mut Journal) -> Result<()> {
    let Some(zero) = journal.history().zero() else {
        let zero = checkpoint_zero(plan, job_id)?;
        return Ok(journal.propose(Entry::Created(zero))??);
    };
    let (kept, wanted) = (zero.partitions.get(), plan.settings().partitions.get());
    if kept != wanted {
        let text = format!(
            "job {} has {kept} partitions and is now to have {wanted}; partitions are fixed for the life of its state: set it \
             back, or begin anew with another --data or name",
            zero.job
        );
        return Err(Error::user("partitions", text));
    }
    Ok(())
}

/// The run that another data folder holds, with all of its bindings.
fn recorded_run(data: &Path, job: &str) -> Result<RecordedRun> {
    let dir = data.join(job).join("log");
    let log = EmbeddedLog::open_read_only(&dir)?;
    let (history, _) = journal::read(&log)?;
    let Some(zero) = history.zero() else {
        let text = format!(
            "{} has no recorded run of job {job}; give the --data of one that ran with --keep-bindings",
            data.display()
        );
        return Err(Error::user("no-bindings", text));
    };
    let bindings = read_bindings(&log, zero.job_id, &history.caps())?;
    match bindings.first() {
        Some(first) if first.epoch == Epoch(1) => Ok(RecordedRun { job_id: zero.job_id, bindings }),
        _ => {
            let text = format!(
                "the run of job {job} in {} has not kept its bindings from the first epoch on; run it with --keep-bindings",
                data.display()
            );
            Err(Error::user("no-bindings", text))
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn clock() -> thalweg_connectors::log::Clock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    })
}

fn random_job_id() -> Result<JobId> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Error::io("reading /dev/urandom for the id of a new job", error))?;
    Ok(JobId(u128::from_le_bytes(bytes)))
}
