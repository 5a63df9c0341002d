//! The recorded bindings of a run.

use std::path::Path;
use std::sync::Arc;

use thalweg_connectors::log::{EmbeddedLog, Log};
use thalweg_core::{Binding, PartitionId};

use crate::Home;
use crate::sketch::{JOB, JobSketch};

/// What a run has recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// The random id of the job.
    pub job_id: u128,
    /// The bindings of all epochs, from the first on.
    pub bindings: Vec<Binding>,
}

impl Run {
    /// How many records of a source are bound.
    pub fn records(&self, source: usize) -> u64 {
        let shares = self.bindings.iter().flat_map(|binding| &binding.shares);
        shares.filter(|share| usize::from(share.of.source) == source).map(|share| share.count).sum()
    }
}

/// Opens the log of a trial's job below a data folder; nothing of it is changed.
pub(crate) fn open_log(data: &Path) -> Result<EmbeddedLog, String> {
    open_log_of(data, JOB)
}

fn open_log_of(data: &Path, job: &str) -> Result<EmbeddedLog, String> {
    EmbeddedLog::open_read_only(&data.join(job).join("log")).map_err(|error| error.to_string())
}

/// The id of the job whose log this is, once it is created; what a crash before has left is of another id.
pub(crate) fn job_id_of(log: &dyn Log) -> Result<Option<String>, String> {
    let topics = log.topics().map_err(|error| error.to_string())?;
    Ok(topics.iter().find_map(|(name, _)| name.strip_prefix("bindings-").map(str::to_owned)))
}

/// Reads what a job in Kafka has recorded there.
///
/// Errors: those of [`recorded_run_of`].
pub(crate) fn recorded_in_kafka(job: &JobSketch, home: &Home) -> Result<Run, String> {
    let Some((job_id, topic)) = home.bindings_topic(job) else { return Ok(Run::default()) };
    decoded(job_id, home.bindings(&topic))
}

/// Reads what a trial's run has recorded in its data folder.
///
/// Errors: those of [`recorded_run_of`].
pub fn recorded_run(data: &Path) -> Result<Run, String> {
    recorded_run_of(data, JOB)
}

/// Reads what a run of a job with `--keep-bindings` has recorded in its data folder.
///
/// Errors: epochs that do not follow each other: on one machine nothing is ever void, so each stands there once.
pub fn recorded_run_of(data: &Path, job: &str) -> Result<Run, String> {
    let log = Arc::new(open_log_of(data, job)?);
    let Some(id) = job_id_of(&*log)? else { return Ok(Run::default()) };
    let topic = format!("bindings-{id}");
    let job_id = u128::from_str_radix(&id, 16).map_err(|error| format!("{topic}: {error}"))?;
    let mut reader = log.reader(&topic, PartitionId(0), 0).map_err(|error| error.to_string())?;
    let (mut records, mut values) = (Vec::new(), Vec::new());
    while reader.read(1 << 20, &mut records).map_err(|error| error.to_string())? {
        values.extend(records.drain(..).map(|record| record.record.value.unwrap_or_default()));
    }
    decoded(job_id, values)
}

fn decoded(job_id: u128, values: Vec<Vec<u8>>) -> Result<Run, String> {
    let mut bindings: Vec<Binding> = Vec::new();
    for value in values {
        let binding = thalweg_runtime::decode_binding(&value).map_err(|error| error.to_string())?;
        let expected = bindings.len() as u64 + 1;
        if binding.epoch.0 != expected {
            return Err(format!("binding of epoch {} stands where that of {expected} should", binding.epoch));
        }
        bindings.push(binding);
    }
    let times: Vec<i64> = bindings.iter().map(|binding| binding.minted_at).collect();
    if !times.is_sorted() {
        return Err("the time of bindings goes back".to_owned());
    }
    Ok(Run { job_id, bindings })
}
