//! What a task shows while it runs, and the way of questions to those who can answer them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use thalweg_core::{
    At, CheckpointInfo, Epoch, Error, Generation, JobId, JobName, JobService, JobStatus, Metrics, PartitionCount,
    Phase, ProgressRatio, Query, QueryError, QueryReply, QueryResult, ReadOptions, RecoveryPlan, Reply, Series,
    StoreInfo,
};
use thalweg_operators::{Barrier, Barriers, EpochGate, NodeLogic, Plan, StoreReader};

use crate::checkpointer::Committed;
use crate::clock::wall_clock;
use crate::committed::read_view;
use crate::config::TaskConfig;
use crate::event::{DriverEvent, Question, WorkerMessage, unavailable};
use crate::observed::{Observed, Seen, job_lag};
use crate::restore_progress::RestoreProgress;

/// Checkpoints that are remembered for people.
const CHECKPOINTS_KEPT: usize = 32;
/// Questions that wait for one worker, at most: a hostile client must not fill the memory.
const QUESTIONS_WAITING: usize = 4096;

/// What the counter of a sink says.
const GIVEN: &str = "Records given to a sink";

/// The way to one worker.
pub(crate) struct WorkerLink {
    inbox: Sender<WorkerMessage>,
    thread: Mutex<Option<Thread>>,
    asked: Arc<AtomicUsize>,
    pub(crate) barriers: Arc<Barriers>,
}

impl WorkerLink {
    pub(crate) fn new(inbox: Sender<WorkerMessage>) -> Self {
        Self { inbox, thread: Mutex::new(None), asked: Arc::default(), barriers: Arc::default() }
    }

    /// Which thread to wake.
    pub(crate) fn attach(&self, thread: Thread) {
        *self.thread.lock() = Some(thread);
    }

    fn send(&self, message: WorkerMessage) {
        // The receiver is gone only when the task is over.
        let _ = self.inbox.send(message);
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }
}

struct Status {
    phase: Phase,
    reason: Option<String>,
    generation: Generation,
    checkpoints: VecDeque<CheckpointInfo>,
    /// Of the checkpoint that is being taken.
    changed_keys: u64,
    /// Why no checkpoint could be taken since the last one.
    checkpoint_failure: Option<String>,
}

/// A store that may be queried.
struct Queryable {
    info: StoreInfo,
    reader: Arc<dyn StoreReader>,
}

/// See the module's description.
pub(crate) struct Shared {
    job: JobName,
    job_id: JobId,
    graph: serde_json::Value,
    partitions: PartitionCount,
    stores: Vec<Queryable>,
    status: Mutex<Status>,
    processed: AtomicU64,
    /// How many source partitions there are.
    sources: AtomicUsize,
    links: RwLock<Arc<[WorkerLink]>>,
    gate: Mutex<Option<Arc<EpochGate>>>,
    pub(crate) committed: Committed,
    pub(crate) restoring: RestoreProgress,
    observed: Mutex<Observed>,
    driver: Sender<DriverEvent>,
    records_in: Vec<Series>,
    records_out: Vec<Series>,
    /// That of the sink for records that are set aside, where the plan has one.
    dead_letters: Vec<Series>,
    checkpoint_seconds: thalweg_core::Histogram,
    checkpoint_time: Series,
    checkpoint_failures: Series,
    state_keys: Series,
}

impl Shared {
    pub(crate) fn new(config: &TaskConfig, driver: Sender<DriverEvent>) -> Self {
        let TaskConfig { plan, job_id, task, workers, metrics, .. } = config;
        let job = plan.settings().name.clone();
        let partitions = plan.settings().partitions;
        let stores = plan.stores().into_iter().filter_map(|(shape, settings)| {
            let info = StoreInfo {
                store: shape.id,
                key: shape.key,
                value: shape.value,
                query: settings.query,
                partitions: partitions.all().collect(),
                changelog: format!("{:?}", settings.changelog).to_lowercase(),
            };
            shape.reader.map(|reader| Queryable { info, reader })
        });
        let labels = [("job", job.as_str())];
        let series = |of: fn(&NodeLogic) -> bool, name: &'static str, help: &str, label| -> Vec<Series> {
            let nodes = plan.nodes().filter(|node| of(&node.logic));
            nodes.map(|node| metrics.counter(name, help, &[("job", job.as_str()), (label, &node.id)])).collect()
        };
        let sources = plan.nodes().filter(|node| node.kind() == "source").map(|node| node.id.clone()).collect();
        Self {
            graph: graph(plan),
            job_id: *job_id,
            partitions,
            stores: stores.collect(),
            status: Mutex::new(Status {
                phase: Phase::Restoring,
                reason: None,
                generation: Generation(0),
                checkpoints: VecDeque::new(),
                changed_keys: 0,
                checkpoint_failure: None,
            }),
            processed: AtomicU64::new(0),
            sources: AtomicUsize::new(0),
            links: RwLock::new(Arc::new([])),
            gate: Mutex::new(None),
            committed: Committed::default(),
            restoring: RestoreProgress::default(),
            observed: Mutex::new(Observed::new(job.as_str(), *task, sources, *workers as u32)),
            driver,
            records_in: series(
                |logic| matches!(logic, NodeLogic::Source(_)),
                "records_in",
                "Records read from a source",
                "source",
            ),
            records_out: series(|logic| matches!(logic, NodeLogic::Sink(_)), "records_out", GIVEN, "sink"),
            dead_letters: series(|logic| matches!(logic, NodeLogic::DeadLetters(_)), "records_out", GIVEN, "sink"),
            checkpoint_seconds: metrics.histogram(
                "checkpoint_duration_seconds",
                "From the start of a checkpoint to its end",
                &labels,
            ),
            checkpoint_time: metrics.gauge(
                "checkpoint_last_success_timestamp_seconds",
                "When the last checkpoint was committed, seconds since 1970",
                &labels,
            ),
            checkpoint_failures: metrics.counter(
                "checkpoint_failures",
                "Checkpoints that could not be written and were given up",
                &labels,
            ),
            state_keys: metrics.gauge("state_keys", "Keys in all stores at the last checkpoint", &labels),
            job,
        }
    }

    /// A generation runs: who answers, and from where on.
    pub(crate) fn running(&self, recovery: &RecoveryPlan, gate: &Arc<EpochGate>, links: Arc<[WorkerLink]>) {
        *self.links.write() = links;
        *self.gate.lock() = Some(gate.clone());
        self.set_sources(recovery.sources.len());
        self.processed.store(gate.processed().0, Ordering::Release);
        let mut status = self.status.lock();
        status.generation = recovery.generation;
        if let Some(record) = &recovery.checkpoint {
            // When it was committed is not kept; its epoch is a little older.
            let committed_at = record.minted_at;
            let (epoch, generation) = (record.epoch, record.generation);
            let info = CheckpointInfo { epoch, generation, committed_at, duration_ms: 0, changed_keys: 0 };
            status.checkpoints.push_front(info);
        }
        status.phase = if gate.recorded().last() > gate.processed() { Phase::Replaying } else { Phase::Running };
    }

    pub(crate) fn set_sources(&self, partitions: usize) {
        self.sources.store(partitions, Ordering::Relaxed);
    }

    pub(crate) fn set_phase(&self, phase: Phase, reason: Option<String>) {
        let mut status = self.status.lock();
        status.phase = phase;
        status.reason = reason;
    }

    pub(crate) fn processed(&self, epoch: Epoch) {
        if self.processed.swap(epoch.0, Ordering::AcqRel) < epoch.0 {
            let replayed = self.gate.lock().as_ref().is_some_and(|gate| epoch >= gate.recorded().last());
            let mut status = self.status.lock();
            if replayed && status.phase == Phase::Replaying {
                status.phase = Phase::Running;
            }
        }
    }

    pub(crate) fn changed_keys(&self, changed: u64) {
        self.status.lock().changed_keys = changed;
    }

    pub(crate) fn set_state_keys(&self, keys: u64) {
        self.state_keys.set(keys as f64);
    }

    pub(crate) fn checkpoint_failed(&self, epoch: Epoch, error: &Error) {
        self.checkpoint_failures.add(1);
        self.status.lock().checkpoint_failure = Some(format!("checkpoint {epoch}: {error}"));
    }

    pub(crate) fn checkpointed(&self, epoch: Epoch, generation: Generation, took: Duration, now: i64) {
        self.checkpoint_seconds.observe(took.as_secs_f64());
        self.checkpoint_time.set(now as f64 / 1e6);
        let mut status = self.status.lock();
        status.checkpoint_failure = None;
        status.checkpoints.truncate(CHECKPOINTS_KEPT - 1);
        let changed_keys = status.changed_keys;
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        status.checkpoints.push_front(CheckpointInfo {
            epoch,
            generation,
            committed_at: now,
            duration_ms,
            changed_keys,
        });
    }

    /// Computes what is computed only when somebody looks at the metrics.
    pub(crate) fn refresh(&self, metrics: &Metrics) {
        let phase = self.status.lock().phase;
        let gate = self.gate.lock().clone();
        let restore_remaining = self.restoring.remaining();
        let seen = Seen { phase, restore_remaining, gate: gate.as_deref(), now: wall_clock() };
        self.observed.lock().refresh(metrics, &seen);
    }

    pub(crate) fn workers(&self) -> usize {
        self.links.read().len()
    }

    /// Sends every worker a message.
    pub(crate) fn to_workers(&self, message: impl Fn() -> WorkerMessage) {
        self.links.read().iter().for_each(|link| link.send(message()));
    }

    /// Lets every worker look around.
    pub(crate) fn look(&self) {
        self.to_workers(|| WorkerMessage::Look);
    }

    /// Puts a question before every worker's next epoch.
    pub(crate) fn barriers(&self, make: impl Fn(usize) -> Barrier) {
        for (index, link) in self.links.read().iter().enumerate() {
            link.barriers.push(make(index));
            link.send(WorkerMessage::Look);
        }
    }

    fn store(&self, id: &str) -> Result<&Queryable, QueryError> {
        let found = self.stores.iter().find(|store| store.info.store == id && store.info.query);
        found.ok_or_else(|| {
            let known: Vec<_> = self.stores.iter().map(|store| store.info.store.as_str()).collect();
            QueryError::NoSuchStore(format!("job {} has no store {id:?}; it has {}", self.job, known.join(", ")))
        })
    }

    fn ask_latest(&self, store: &Queryable, query: Query, options: ReadOptions, reply: Reply) {
        let links = self.links.read().clone();
        let question = Box::new(Question { store: store.info.store.clone(), query, options, reply });
        let owner = match &question.query {
            _ if links.len() == 1 => Some(0),
            Query::Get { key } => self.only_owner(store, key, links.len()),
            Query::GetMany { .. } | Query::Scan(_) => None,
        };
        let Some(owner) = owner else {
            if let Err(refused) = self.driver.send(DriverEvent::Ask(question))
                && let DriverEvent::Ask(question) = refused.0
            {
                (question.reply)(unavailable("the job is stopping"));
            }
            return;
        };
        let link = &links[owner];
        if link.asked.fetch_add(1, Ordering::AcqRel) >= QUESTIONS_WAITING {
            link.asked.fetch_sub(1, Ordering::AcqRel);
            return (question.reply)(unavailable("too many questions are waiting for this partition"));
        }
        let (asked, inner) = (link.asked.clone(), question.reply);
        let reply: Reply = Box::new(move |answer| {
            asked.fetch_sub(1, Ordering::AcqRel);
            inner(answer);
        });
        link.send(WorkerMessage::Ask(Box::new(Question { reply, ..*question })));
    }

    /// The one worker that hosts every key that the text may mean, if there is one.
    fn only_owner(&self, store: &Queryable, key: &str, workers: usize) -> Option<usize> {
        let keys = store.reader.keys(key);
        let mut owners = keys.iter().map(|(hash, _)| usize::from(hash.partition(self.partitions).0) % workers);
        let first = owners.next()?;
        owners.all(|owner| owner == first).then_some(first)
    }

    fn read_committed(&self, store: &Queryable, query: &Query, options: ReadOptions) -> QueryResult {
        let committed = self.committed.read().clone();
        let Some((epoch, view)) = committed else { return unavailable("no checkpoint is committed yet") };
        if options.min_epoch.is_some_and(|wanted| wanted > epoch) {
            return unavailable("the epoch that was asked for is not committed yet");
        }
        let (entries, more) = read_view(&view, self.partitions, &store.info.store, &*store.reader, query)?;
        let minted_at = self.status.lock().checkpoints.front().map_or(0, |checkpoint| checkpoint.committed_at);
        Ok(QueryReply { entries, more, epoch, minted_at })
    }

    /// Whether everything that was read is processed: then the newest state is as fresh as can be.
    fn caught_up(&self) -> bool {
        let gate = self.gate.lock();
        gate.as_ref().is_some_and(|gate| gate.processed().next() >= gate.cut())
    }
}

impl JobService for Shared {
    fn status(&self) -> JobStatus {
        let status = self.status.lock();
        let gate = self.gate.lock();
        let processed = self.processed.load(Ordering::Acquire);
        let open = gate.as_ref().map_or(0, |gate| gate.cut().0.saturating_sub(1).saturating_sub(processed));
        let sum = |series: &[Series]| series.iter().map(|series| series.get() as u64).sum();
        let sources = self.sources.load(Ordering::Relaxed);
        let fraction = gate.as_ref().and_then(|gate| gate.fraction(sources));
        JobStatus {
            job: self.job.clone(),
            job_id: self.job_id,
            state: status.phase,
            reason: status.reason.clone(),
            generation: status.generation,
            epoch: Epoch(processed),
            epochs_open: open,
            checkpoint: status.checkpoints.front().cloned(),
            checkpoint_failure: status.checkpoint_failure.clone(),
            records_in: sum(&self.records_in),
            records_out: sum(&self.records_out),
            dead_letters: sum(&self.dead_letters),
            progress: fraction.map(|fraction| ProgressRatio((fraction.clamp(0.0, 1.0) * 1e6) as u32)),
            lag: gate.as_ref().and_then(|gate| job_lag(&gate.lags(), wall_clock())),
            restore: self.restoring.info(),
            workers: self.links.read().len() as u32,
        }
    }

    fn stores(&self) -> Vec<StoreInfo> {
        self.stores.iter().map(|store| store.info.clone()).collect()
    }

    fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.status.lock().checkpoints.iter().cloned().collect()
    }

    fn graph(&self) -> serde_json::Value {
        self.graph.clone()
    }

    fn ask(&self, store: &str, query: Query, options: ReadOptions, reply: Reply) {
        let store = match self.store(store) {
            Ok(store) => store,
            Err(error) => return reply(Err(error)),
        };
        match (options.at, self.status.lock().phase) {
            (_, Phase::Restoring) => return reply(unavailable("the job is restoring its state")),
            (_, Phase::Failed | Phase::Stopped) => return reply(unavailable("the job has stopped")),
            (At::Committed | At::Latest, Phase::Replaying | Phase::Running | Phase::Finished) => {}
        }
        let reply = match options.max_staleness {
            Some(bound) if !self.caught_up() => fresh_only(bound, reply),
            _ => reply,
        };
        match options.at {
            At::Committed => reply(self.read_committed(store, &query, options)),
            At::Latest => self.ask_latest(store, query, options, reply),
        }
    }
}

/// Refuses an answer that is older than the bound.
fn fresh_only(bound: Duration, reply: Reply) -> Reply {
    Box::new(move |answer: QueryResult| {
        let bound = i64::try_from(bound.as_micros()).unwrap_or(i64::MAX);
        let stale = answer.as_ref().is_ok_and(|answer| wall_clock() - answer.minted_at > bound);
        reply(if stale { unavailable("the newest state is older than max_staleness allows") } else { answer });
    })
}

fn graph(plan: &Plan) -> serde_json::Value {
    let nodes: Vec<_> = plan.nodes().collect();
    let edges = nodes.iter().flat_map(|node| {
        let from = node.inputs.iter().map(|input| nodes[*input].id.as_str());
        from.map(|from| serde_json::json!({"from": from, "to": node.id}))
    });
    serde_json::json!({
        "nodes": nodes.iter().map(|node| serde_json::json!({"id": node.id, "kind": node.kind(), "uses": node.uses})).collect::<Vec<_>>(),
        "edges": edges.collect::<Vec<_>>(),
    })
}
