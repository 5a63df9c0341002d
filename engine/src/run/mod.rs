//! `run`: the whole job in one process. One task, and the same decisions as in a cluster, with the history in the job's own
//! folder.
//!
//! ```text
//! DATA/JOB/log/    the job's log: history, bindings, changelogs
//! DATA/JOB/state/  the task's RocksDB
//! ```

mod claim;
mod journal;
mod shell;
mod stopped;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use thalweg_connectors::kafka::KafkaConfig;
use thalweg_connectors::log::{Delivery, EmbeddedLog, Log, SinkProducer};
use thalweg_coordinator::Entry;
use thalweg_core::{Epoch, Error, JobId, Metrics, PartitionSpec, Phase, Result, TaskIndex};
use thalweg_jobs::{DeadLettersPlace, DeadLettersSpec, JobSpec, KafkaSpec, PlanContext};
use thalweg_operators::{Plan, Registry};
use thalweg_runtime::{Logs, RecordedRun, Task, TaskConfig, checkpoint_zero, read_bindings};

use crate::cli::{Failure, HttpAddress, RunArguments, Screen, keep_copy};
use crate::http::{Served, Server, ServerOptions};
use crate::progress::Progress;
use crate::signals::on_stop;
use claim::Claims;
use journal::Journal;
use shell::{Accepted, Shell, ShellEvent};

pub(crate) use stopped::{open_stopped, open_stopped_desk};

/// Runs a job until its input ends or it is told to stop.
pub(crate) fn run(
    job: &JobSpec,
    registry: &Registry,
    arguments: &RunArguments,
    screen: &Screen,
) -> Result<(), Failure> {
    let cluster = job.kafka.as_ref().map(KafkaSpec::config).transpose()?;
    let opened = open_job(arguments, job.name.as_str(), cluster)?;
    let open_other = |path: &Path| -> Result<Arc<dyn Log>> { Ok(Arc::new(open_log(path)?)) };
    let context = PlanContext {
        registry,
        job_id: opened.job_id,
        log: opened.log.clone(),
        log_dir: opened.log.dir().to_owned(),
        kafka: opened.kafka.as_ref().map(|kafka| -> Arc<dyn Log> { kafka.log().clone() }),
        cluster: opened.kafka.as_ref().map(|kafka| kafka.log().config().clone()),
        keep_input: arguments.keep_bindings,
        recorded: opened.recorded.as_ref().map(|(run, dir)| (run.job_id, dir.clone())),
        open_log: &open_other,
    };
    // From here on a broker may be waited for, which is told.
    screen.start_log();
    let plan = Arc::new(thalweg_jobs::plan(job, &context)?);
    let (file, folder) = (arguments.job.clone(), arguments.data.join(job.name.as_str()));
    // The state belongs to this job file from the moment when its plan is accepted.
    run_plan(plan, opened, Box::new(move || keep_copy(&file, &folder)), arguments, screen)
}

/// Runs a plan that was written in Rust.
pub(crate) fn run_built(plan: Plan, arguments: &RunArguments, screen: &Screen) -> Result<(), Failure> {
    let cluster = plan.cluster().map(|cluster| cluster.config.clone());
    let opened = open_job(arguments, plan.settings().name.as_str(), cluster)?;
    screen.start_log();
    let id = format!("{}-sinks-0", opened.job_id);
    let kafka = opened.kafka.as_ref().map(|kafka| kafka.log().clone());
    let in_kafka = plan.cluster().zip(kafka).map(|(cluster, log)| {
        let producer = Arc::new(SinkProducer::new(log.clone(), id.clone(), cluster.delivery));
        cluster.connect(&producer, plan.settings().partitions)?;
        let letters = cluster.dead_letters.clone();
        let to = letters.map(|topic| DeadLettersSpec { place: DeadLettersPlace::Kafka, topic });
        Ok((producer, to, log.config().clone()))
    });
    let (spec, producer, config) = match in_kafka.transpose().map_err(Failure::Failed)? {
        Some((producer, Some(spec), config)) => (spec, producer, Some(config)),
        Some((_, None, _)) | None => {
            let own = SinkProducer::new(opened.log.clone(), id, Delivery::ExactlyOnce);
            (DeadLettersSpec::default(), Arc::new(own), None)
        }
    };
    let plan = thalweg_jobs::with_dead_letters(plan, &spec, opened.job_id, producer, opened.log.clone(), config)?;
    run_plan(Arc::new(plan), opened, Box::new(|| Ok(())), arguments, screen)
}

/// A job's folder.
struct Opened {
    log: Arc<EmbeddedLog>,
    /// The cluster of its `[kafka]`.
    kafka: Option<Arc<Claims>>,
    journal: Journal,
    /// That which it was created with, or a new one.
    job_id: JobId,
    /// The run that is to be repeated, and the folder of its log.
    recorded: Option<(RecordedRun, PathBuf)>,
}

fn open_job(arguments: &RunArguments, job: &str, kafka: Option<KafkaConfig>) -> Result<Opened> {
    let dir = arguments.data.join(job).join("log");
    std::fs::create_dir_all(&dir)
        .map_err(|error| Error::io(format!("making the job's folder {}", dir.display()), error))?;
    let log = Arc::new(open_log(&dir)?);
    let journal = Journal::open(log.clone())?;
    let job_id = match journal.history().zero() {
        Some(zero) => zero.job_id,
        None => JobId(random_number()?),
    };
    let open_kafka = |kafka| Claims::open(kafka, &format!("thalweg-{job}"), job_id, random_number()?);
    let kafka = kafka.map(open_kafka).transpose()?;
    let other = |data| recorded_run(data, job, kafka.as_deref().map(|kafka| -> &dyn Log { &**kafka.log() }));
    let recorded = arguments.bindings.as_deref().map(other).transpose()?;
    Ok(Opened { log, kafka, journal, job_id, recorded })
}

/// A log to write to.
fn open_log(dir: &Path) -> Result<EmbeddedLog> {
    EmbeddedLog::open(dir, clock())
}

/// Runs a plan; `accepted` is called when it has taken over what the job's folder holds.
fn run_plan(
    plan: Arc<Plan>,
    opened: Opened,
    accepted: Accepted,
    arguments: &RunArguments,
    screen: &Screen,
) -> Result<(), Failure> {
    let Opened { log, kafka, mut journal, job_id, recorded } = opened;
    let own: Arc<dyn Log> = log.clone();
    plan.set_retries(job_id, &own);
    let repeated = recorded.as_ref().map_or(&[][..], |(run, _)| &run.sources);
    create_or_check(&plan, job_id, repeated, &mut journal)?;
    let metrics = Metrics::default();
    let workers = plan.settings().workers.unwrap_or_else(cores);
    let (events, inbox) = channel();
    let (stop, to_shell) = (events.clone(), events);
    let tell = Arc::new(move |event| drop(to_shell.send(ShellEvent::Task(event))));
    let config = TaskConfig {
        plan: plan.clone(),
        job_id,
        task: TaskIndex(0),
        workers,
        logs: Logs::new(log.clone(), kafka.as_ref().map(|kafka| -> Arc<dyn Log> { kafka.log().clone() })),
        state_dir: arguments.data.join(plan.settings().name.as_str()).join("state"),
        metrics: metrics.clone(),
        recorded: recorded.map(|(run, _)| run),
        keep_bindings: arguments.keep_bindings,
    };
    let task = Task::start(config, tell)?;
    let server = match arguments.http {
        HttpAddress::None => None,
        HttpAddress::At(addr) => {
            let options = ServerOptions { token: arguments.token()?, ..ServerOptions::default() };
            let served = Served { job: task.service(), dead_letters: plan.dead_letters() };
            Some(Server::start(addr, options, vec![served], metrics)?)
        }
    };
    if let Some(server) = &server {
        tracing::info!("serving http://{}", server.local_addr());
    }
    let cluster = kafka.as_ref().map(|kafka| kafka.log().config().clone());
    on_stop(move |_| {
        // A broker that is away must not hold up the end.
        if let Some(cluster) = &cluster {
            cluster.stop();
        }
        drop(stop.send(ShellEvent::Stop));
    })?;
    let progress = Progress::start(task.service(), screen);
    let mut shell = Shell::new(journal, task, &plan, log, (kafka, accepted));
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

/// Commits checkpoint 0 of a new job, or checks that an old one fits the plan. `repeated` are the source partitions of the run that
/// a new one repeats.
fn create_or_check(plan: &Plan, job_id: JobId, repeated: &[PartitionSpec], journal: &mut Journal) -> Result<()> {
    let Some(zero) = journal.history().zero() else {
        let zero = checkpoint_zero(plan, job_id, repeated)?;
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

/// The run that another data folder holds, with all of its bindings, and the folder of its log.
fn recorded_run(data: &Path, job: &str, kafka: Option<&dyn Log>) -> Result<(RecordedRun, PathBuf)> {
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
    let bindings = read_bindings(kafka.unwrap_or(&log), zero.job_id, &history.caps())?;
    match bindings.first() {
        Some(first) if first.epoch == Epoch(1) => {
            let sources = history.sources().cloned().collect();
            Ok((RecordedRun { job_id: zero.job_id, sources, bindings }, dir))
        }
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

fn random_number() -> Result<u128> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Error::io("reading /dev/urandom for the id of a job", error))?;
    Ok(u128::from_le_bytes(bytes))
}
