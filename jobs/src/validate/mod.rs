//! From a document to a job: every rule of the file, all problems at once, without looking at anything but the file.

mod backfill;
mod dead_letters;
mod kafka;
mod kafka_source;
mod operator;
mod schemas;
mod section;
mod sink;
mod source;
mod start;
mod wiring;

use std::collections::BTreeSet;

use thalweg_connectors::log::Delivery;
use thalweg_core::{JobName, PartitionCount};
use thalweg_operators::{Catalogue, OnError};

use crate::convert;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::document::{At, Document, Entry, ItemKind};
use crate::keys::{self, Kind, Member};
use crate::spec::{EpochSpec, JobSpec, OperatorSpec, SinkSpec, SourceSpec};
use section::Section;

/// A job that can run, and what is odd about it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The job.
    pub job: JobSpec,
    /// Most likely not what was meant.
    pub warnings: Diagnostics,
}

/// Checks a document against every rule, offline.
///
/// # Errors
/// All problems at once, warnings among them.
pub fn validate(document: &Document, catalogue: &Catalogue) -> Result<Checked, Diagnostics> {
    let mut checker = Checker {
        document,
        catalogue,
        found: document.problems.clone(),
        on_error: OnError::Fail,
        partitions: 16,
        kafka_users: Vec::new(),
        registry_users: Vec::new(),
        registers: false,
    };
    let job = checker.job();
    let problems = Diagnostics::new(document.source.clone(), checker.found);
    match job {
        Some(job) if !problems.has_errors() => Ok(Checked { job, warnings: problems }),
        _ => Err(problems),
    }
}

/// What the checks of one document share.
struct Checker<'d> {
    document: &'d Document,
    catalogue: &'d Catalogue,
    found: Vec<Diagnostic>,
    /// The job's, for operators that do not say otherwise.
    on_error: OnError,
    /// The job's.
    partitions: u32,
    /// Who uses Kafka, and where that stands.
    kafka_users: Vec<(String, At)>,
    /// Who needs a schema registry, and where that stands.
    registry_users: Vec<(String, At)>,
    /// Whether a sink registers its schema where there is a registry.
    registers: bool,
}

/// What `[job]` says.
struct JobSection {
    name: JobName,
    crate_name: Option<String>,
    spec: JobDefaults,
}

/// The parts of a [`JobSpec`] that `[job]` fills.
struct JobDefaults {
    crate_version: Option<String>,
    workers: Option<usize>,
    tags: Vec<String>,
    biases: Vec<(String, crate::spec::BiasLevel)>,
    epoch: EpochSpec,
    interval_at: Option<At>,
    checkpoint_interval: std::time::Duration,
    state_memory: u64,
    delivery: Delivery,
}

impl<'d> Checker<'d> {
    fn report(&mut self, problem: Diagnostic) {
        self.found.push(problem);
    }

    fn has_errors(&self) -> bool {
        self.found.iter().any(|one| one.severity == Severity::Error)
    }

    fn job(&mut self) -> Option<JobSpec> {
        let start = At::File(0..0);
        let root = self.section("the file", &start, &self.document.root, &[keys::ROOT]);
        let job = self.job_section(&root);
        let crate_name = job.as_ref().and_then(|job| job.crate_name.clone());
        let sources: Vec<Option<SourceSpec>> =
            self.members(&root, Member::Source).map(|entry| self.source(entry)).collect();
        let stores = self.stores(&root);
        let members: Vec<_> = self.members(&root, Member::Operator).collect();
        let operators: Vec<Option<OperatorSpec>> =
            members.into_iter().map(|entry| self.operator(entry, &stores, crate_name.as_deref())).collect();
        let members: Vec<_> = self.members(&root, Member::Sink).collect();
        let sinks: Vec<Option<SinkSpec>> = members.iter().map(|entry| self.sink(entry)).collect();
        self.check_patterns(&sources, members.iter().map(|entry| &entry.name_at).zip(&sinks));
        let dead_letters = self.dead_letters(&root);
        let order = self.wiring(&root);
        let kafka = self.kafka(&root);
        self.check_kafka(&root);
        let schema_registry = self.schema_registry(&root);
        let job = job?;
        if self.has_errors() {
            return None;
        }
        let sources = sources.into_iter().collect::<Option<Vec<_>>>()?;
        let operators = wiring::arrange(operators.into_iter().collect::<Option<Vec<_>>>()?, &order?);
        self.check_epochs(&job.spec, &sources);
        let job = JobSpec {
            name: job.name,
            crate_name: job.crate_name,
            crate_version: job.spec.crate_version,
            partitions: PartitionCount::new(self.partitions).ok()?,
            workers: job.spec.workers,
            tags: job.spec.tags,
            biases: job.spec.biases,
            delivery: job.spec.delivery,
            kafka,
            schema_registry,
            on_error: self.on_error,
            epoch: job.spec.epoch,
            checkpoint_interval: job.spec.checkpoint_interval,
            state_memory: job.spec.state_memory,
            base: self.document.source.base.clone(),
            sources,
            operators,
            sinks: sinks.into_iter().collect::<Option<Vec<_>>>()?,
            dead_letters,
        };
        self.check_dead_letters(&root, &job);
        Some(job)
    }

    /// The tables of a section, by id.
    fn members(&mut self, root: &Section<'d>, member: Member) -> std::vec::IntoIter<&'d Entry> {
        let name =
            keys::ROOT.iter().find(|key| matches!(key.kind, Kind::Ids(of) if of == member)).map_or("", |key| key.name);
        let Some(ItemKind::Table(table)) = root.item(name).map(|item| &item.kind) else {
            return Vec::new().into_iter();
        };
        table.entries.iter().collect::<Vec<_>>().into_iter()
    }

    fn job_section(&mut self, root: &Section<'d>) -> Option<JobSection> {
        let job = self.inner("[job]", root, "job", keys::JOB)?;
        let (epoch, interval_at) = self.epoch(&job);
        let checkpoint = self.inner("[job.checkpoint]", &job, "checkpoint", keys::CHECKPOINT);
        let state = self.inner("[job.state]", &job, "state", keys::STATE);
        self.on_error = job.or_default("on_error", convert::text).map_or(OnError::Fail, |value| on_error(&value));
        self.partitions =
            job.or_default("partitions", |item| convert::int(item, 1, 65_536)).map_or(16, |count| count as u32);
        let spec = JobDefaults {
            crate_version: job.get("crate_version", convert::text),
            workers: job.get("workers", |item| convert::int(item, 1, u64::MAX)).map(|workers| workers as usize),
            tags: job.get("tags", convert::texts).unwrap_or_default(),
            biases: job.get("biases", convert::biases).unwrap_or_default(),
            epoch,
            interval_at,
            checkpoint_interval: section::or_default(
                checkpoint.as_ref(),
                keys::CHECKPOINT,
                "interval",
                convert::duration,
            ),
            delivery: match job.or_default("delivery", convert::text).as_deref() {
                Some("at-least-once") => Delivery::AtLeastOnce,
                _ => Delivery::ExactlyOnce,
            },
            state_memory: section::or_default(state.as_ref(), keys::STATE, "memory", convert::bytes),
        };
        let name = JobName::new(job.get("name", convert::text)?).ok()?;
        Some(JobSection { name, crate_name: job.get("crate", convert::text), spec })
    }

    fn epoch(&mut self, job: &Section<'d>) -> (EpochSpec, Option<At>) {
        let epoch = self.inner("[job.epoch]", job, "epoch", keys::EPOCH);
        let spec = EpochSpec {
            interval: section::or_default(epoch.as_ref(), keys::EPOCH, "interval", convert::duration_or_none),
            max_records: section::or_default(epoch.as_ref(), keys::EPOCH, "max_records", |item| {
                convert::int(item, 1, u64::MAX)
            }),
            max_bytes: section::or_default(epoch.as_ref(), keys::EPOCH, "max_bytes", convert::bytes),
        };
        let at = epoch.as_ref().and_then(|epoch| epoch.item("interval")).map(|item| item.at.clone());
        (spec, at)
    }

    /// Without a clock only the end of the input is sure to close the last epoch.
    fn check_epochs(&mut self, job: &JobDefaults, sources: &[SourceSpec]) {
        let Some(at) = job.interval_at.as_ref().filter(|_| job.epoch.interval.is_none()) else { return };
        let unbounded: BTreeSet<_> =
            sources.iter().filter(|source| !source.is_bounded()).map(|source| source.id.as_str()).collect();
        if let Some(first) = unbounded.first() {
            let message =
                format!("[job.epoch] interval = \"none\" is for bounded sources only, and source {first:?} has no end");
            let problem = Diagnostic::error("epoch-interval", message).at(at, "records would wait for others");
            self.report(problem.help("give an interval such as \"20ms\""));
        }
    }
}

/// The value of a checked `on_error`.
fn on_error(value: &str) -> OnError {
    match value {
        "drop" => OnError::Drop,
        "dead-letter" => OnError::DeadLetter,
        _ => OnError::Fail,
    }
}
