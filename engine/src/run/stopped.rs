//! The state of a job that does not run, read from its folder.

use std::path::Path;
use std::sync::Arc;

use thalweg_connectors::dead_letter::Desk;
use thalweg_connectors::log::{EmbeddedLog, Log};
use thalweg_core::{CheckpointRecord, Error, QueryError, QueryReply, Result, failpoint};
use thalweg_jobs::{DeadLettersPlace, DeadLettersSpec, JobSpec, KafkaSpec, dead_letters_log};
use thalweg_operators::{ChangelogKind, Registry, StoreSettings, StoreShape};
use thalweg_runtime::read_view;
use thalweg_state::{Backend, BackendOptions, StoreSpec};

use super::journal;
use crate::cli::StoppedStore;

/// Opens one store of a job at its last checkpoint, and keeps other processes from using the job's state meanwhile.
///
/// Errors: `no-job`, `no-checkpoint`, `no-store`; `job-runs` where a process uses the state; `state-shape` where the job file is of
/// another version than the state; `state-behind` where the local state is not the one of the last checkpoint.
pub(crate) fn open_stopped(job: &JobSpec, registry: &Registry, data: &Path, store: &str) -> Result<StoppedStore> {
    let folder = data.join(job.name.as_str());
    let no_job = || Error::user("no-job", format!("{} holds no job {}; check --data", data.display(), job.name));
    if !folder.join("state").is_dir() {
        return Err(no_job());
    }
    let (history, _) = journal::read(&EmbeddedLog::open_read_only(&folder.join("log"))?)?;
    let zero = history.zero().ok_or_else(no_job)?;
    let checkpoint = history.checkpoint().ok_or_else(|| {
        Error::external("no-checkpoint", format!("job {} has no checkpoint yet; let it run for a while", job.name))
    })?;
    let (shape, settings) = find(job, registry, store)?;
    let reader = shape.reader.clone().expect("only stores with a reader are found");
    let spec = StoreSpec {
        name: shape.id,
        key_shape: shape.key,
        value_shape: shape.value,
        changelog: settings.changelog != ChangelogKind::None,
        // To read is not to change: a store of another shape is refused.
        migrate: None,
    };
    let runs = |error: Error| match error.code() {
        "state-locked" => Error::user("job-runs", format!("job {} runs: ask it, without --data", job.name)),
        _ => error,
    };
    let state = folder.join("state");
    let mut backend =
        Backend::open(&state, zero.job_id, zero.partitions, vec![spec], BackendOptions::default()).map_err(runs)?;
    backend.recover_pending(history.lineage())?;
    check_is_at(&backend, store, checkpoint)?;
    let (view, partitions) = (backend.view(), zero.partitions);
    let (store, epoch, minted_at) = (store.to_owned(), checkpoint.epoch, checkpoint.minted_at);
    Ok(Box::new(move |query| {
        // The lock on the folder goes with the backend, which has to live as long as its view.
        let _locked = &backend;
        let (entries, more) = read_view(&view, partitions, &store, &*reader, query)?;
        Ok::<_, QueryError>(QueryReply { entries, more, epoch, minted_at })
    }))
}

/// Opens the dead letters of a job that has this folder, and `kafka` as its cluster; to decide on them, no process may run the job.
///
/// Errors: `no-job`; `no-dead-letters` where it has never set a record aside; `job-runs` where a process uses the log and something is
/// to be decided.
pub(crate) fn open_stopped_desk(
    folder: &Path,
    job: &str,
    (to, kafka): (&DeadLettersSpec, Option<&KafkaSpec>),
    change: bool,
) -> Result<Desk> {
    let dir = folder.join("log");
    if !dir.is_dir() {
        return Err(Error::user("no-job", format!("{} holds no job {job}; check --data", folder.display())));
    }
    let own = EmbeddedLog::open_read_only(&dir)?;
    let (history, _) = journal::read(&own)?;
    let Some(zero) = history.zero() else {
        return Err(Error::user("no-job", format!("{} holds no job {job}; check --data", folder.display())));
    };
    let (letters, place): (Arc<dyn Log>, String) = match (&to.place, kafka) {
        (DeadLettersPlace::Kafka, Some(kafka)) => {
            (dead_letters_log(&kafka.config()?, job)?, format!("Kafka at {}", kafka.bootstrap_servers))
        }
        (DeadLettersPlace::Folder(path), _) => {
            (Arc::new(EmbeddedLog::open_read_only(path)?), path.display().to_string())
        }
        (DeadLettersPlace::Own | DeadLettersPlace::Kafka, _) => (Arc::new(own.clone()), dir.display().to_string()),
    };
    let topic = to.topic_of(zero.job_id);
    if letters.topic(&topic)?.is_none() {
        let text = format!(
            "job {job} has no dead letters in {place}, topic {topic}; on_error = \"dead-letter\" in its job file makes some"
        );
        return Err(Error::user("no-dead-letters", text));
    }
    if change {
        failpoint::arm_from_env()?;
    }
    let own = if change { super::open_log(&dir).map_err(|error| running(job, error))? } else { own };
    Ok(Desk::new(zero.job_id, letters, topic, Arc::new(own)))
}

fn running(job: &str, error: Error) -> Error {
    match error.code() {
        "locked" => Error::user("job-runs", format!("job {job} runs: ask it, without --data")),
        _ => error,
    }
}

fn find(job: &JobSpec, registry: &Registry, store: &str) -> Result<(StoreShape, StoreSettings)> {
    let stores = thalweg_jobs::stores(job, registry)?;
    let known: Vec<_> = stores
        .iter()
        .filter(|(shape, settings)| shape.reader.is_some() && settings.query)
        .map(|(shape, _)| shape.id.clone())
        .collect();
    let found = stores.into_iter().find(|(shape, _)| shape.id == store && known.contains(&shape.id));
    found.ok_or_else(|| {
        let text = format!("job {} has no store {store:?}; it has {}", job.name, known.join(", "));
        Error::user("no-store", text)
    })
}

/// Whether the local rows are those of the last checkpoint, in every partition.
fn check_is_at(backend: &Backend, store: &str, checkpoint: &CheckpointRecord) -> Result<()> {
    let mut partitions = checkpoint.stores.iter().filter(|state| state.store == store).peekable();
    if partitions.peek().is_none() {
        let text = format!("store {store:?} is newer than the last checkpoint {}; run the job", checkpoint.epoch);
        return Err(Error::user("no-store", text));
    }
    for state in partitions {
        let same = match backend.applied(store, state.partition)? {
            Some(applied) => applied.recorded == state.digest && applied.entries == state.entries,
            None => state.entries == 0,
        };
        if !same {
            let text = format!(
                "store {store:?}, partition {}: the folder does not hold checkpoint {}; run the job, which restores it",
                state.partition, checkpoint.epoch
            );
            return Err(Error::external("state-behind", text));
        }
    }
    Ok(())
}
