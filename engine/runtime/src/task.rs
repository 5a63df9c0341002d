//! A task: the worker process of a job on one node. It does what the coordinator says, and reports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thalweg_connectors::SinkContext;
use thalweg_connectors::log::{Log, Producer};
use thalweg_core::{
    Binding, CheckpointZero, Command, Epoch, Error, Fenced, Generation, JobId, JobService, Metrics, PartitionId,
    PartitionSpec, Phase, RecoveryPlan, Report, Result, ScanReport, SinkKey, SourceKey, TaskIndex, WorkerIndex,
};
use thalweg_operators::{ChangelogKind, Cutting, EpochGate, EpochLimits, Failure, Plan, Recorded, WorkerContext};
use timely::CommunicationConfig;
use timely::communication::WorkerGuards;

use crate::bindings::{self, BindingsWriter, Stored};
use crate::checkpointer::{Checkpointer, ensure_changelogs};
use crate::driver::{CheckpointState, Driver, wall_clock};
use crate::event::{CheckpointMessage, DriverEvent, TaskEvent, WorkerMessage};
use crate::minter::Minter;
use crate::restore::restore;
use crate::scrubber::Scrubber;
use crate::shared::{Shared, WorkerLink};
use crate::sinks::{SinkMessage, Sinks};
use crate::worker::WorkerLoop;

/// What a task is started with.
pub struct TaskConfig {
    /// The job.
    pub plan: Arc<Plan>,
    /// Its id.
    pub job_id: JobId,
    /// Which task of the job this is.
    pub task: TaskIndex,
    /// Worker threads.
    pub workers: usize,
    /// The log for bindings and changelogs.
    pub log: Arc<dyn Log>,
    /// Where RocksDB keeps the state.
    pub state_dir: PathBuf,
    /// The metrics of the process.
    pub metrics: Metrics,
    /// Another run, to be repeated byte for byte; nothing more is read then.
    pub recorded: Option<RecordedRun>,
    /// Whether bindings stay in the log after their checkpoint, so that the run can be repeated.
    pub keep_bindings: bool,
}

/// A run that is repeated.
pub struct RecordedRun {
    /// The job that ran: random numbers are drawn as its own.
    pub job_id: JobId,
    /// Its bindings, from the first epoch on.
    pub bindings: Vec<Binding>,
}

/// A running task.
pub struct Task {
    driver: Sender<DriverEvent>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// A panic of the engine itself ends the process: it is the fault domain.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "a thread of the engine has panicked: the process stops; started again, the job goes on where it was"
            );
            std::process::abort();
        }
    }
}

pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let guarded = move || {
        let _guard = AbortOnPanic;
        body();
    };
    thread::Builder::new().name(name).spawn(guarded).map_err(|error| Error::io("starting a thread", error))
}

/// The bindings in a log that count, from the first one that is kept on, under the caps of the job's plans.
pub fn read_bindings(log: &dyn Log, job_id: JobId, caps: &[(Generation, Epoch)]) -> Result<Vec<Binding>> {
    let stored = bindings::valid(bindings::read(log, job_id, Epoch::ZERO)?, caps, Epoch(u64::MAX));
    Ok(stored.into_iter().map(|stored| stored.binding).collect())
}

/// Checkpoint 0 of a new job: what its sources and sinks are before it reads anything.
pub fn checkpoint_zero(plan: &Plan, job_id: JobId) -> Result<CheckpointZero> {
    let sources = plan.discover()?;
    let mut sinks = Vec::new();
    for (index, (id, sink)) in plan.sinks().into_iter().enumerate() {
        let ends = sink.ends().map_err(|error| error.context(format!("sink {id:?}")))?;
        sinks.extend(ends.into_iter().map(|(partition, end)| (SinkKey { sink: index as u16, partition }, end)));
    }
    Ok(CheckpointZero {
        job_id,
        job: plan.settings().name.clone(),
        partitions: plan.settings().partitions,
        hash: "xxh3-64/memcomparable-0.2".to_owned(),
        sources,
        sinks,
        created_at: wall_clock(),
    })
}

impl Task {
    /// Starts the task's driver; it waits for commands, and tells `tell` what happens.
    pub fn start(config: TaskConfig, tell: Arc<dyn Fn(TaskEvent) + Send + Sync>) -> Result<Self> {
        let (driver, inbox) = channel();
        let shared = Arc::new(Shared::new(&config.plan, config.job_id, &config.metrics, driver.clone()));
        let mut waiting = Waiting {
            config,
            shared: shared.clone(),
            driver: driver.clone(),
            tell,
            bindings: None,
            stored: Vec::new(),
        };
        let thread = spawn("driver".to_owned(), move || waiting.run(&inbox))?;
        Ok(Self { driver, thread: Some(thread), shared })
    }

    /// Passes a command of the coordinator on.
    pub fn command(&self, command: Command) {
        let _ = self.driver.send(DriverEvent::Command(command));
    }

    /// Reads no more input; `TaskEvent::Drained` follows when what was read is processed.
    pub fn stop_reading(&self) {
        let _ = self.driver.send(DriverEvent::Stop);
    }

    /// Says where the job is in its life, for those who look from outside.
    pub fn set_phase(&self, phase: Phase, reason: Option<String>) {
        self.shared.set_phase(phase, reason);
    }

    /// The job as it is seen from outside.
    pub fn service(&self) -> Arc<dyn JobService> {
        self.shared.clone()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic in it has aborted the process.
            let _ = thread.join();
        }
    }
}

/// A task before its plan: fences, then scans, then runs.
struct Waiting {
    config: TaskConfig,
    shared: Arc<Shared>,
    driver: Sender<DriverEvent>,
    tell: Arc<dyn Fn(TaskEvent) + Send + Sync>,
    bindings: Option<(Generation, BindingsWriter, Option<Box<dyn Producer>>)>,
    stored: Vec<Stored>,
}

impl Waiting {
    fn run(&mut self, inbox: &Receiver<DriverEvent>) {
        loop {
            let outcome = match inbox.recv() {
                Ok(DriverEvent::Command(Command::Stop)) | Err(_) => return,
                Ok(DriverEvent::Command(Command::Fence { generation })) => self.fence(generation),
                Ok(DriverEvent::Command(Command::Scan { generation, after, caps })) => {
                    self.scan(generation, after, &caps)
                }
                Ok(DriverEvent::Command(Command::Run(plan))) => {
                    if let Err(error) = self.start(&plan, inbox) {
                        self.shared.set_phase(Phase::Failed, Some(error.message().to_owned()));
                        (self.tell)(TaskEvent::Failed(error));
                    }
                    return;
                }
                Ok(DriverEvent::Stop) => {
                    (self.tell)(TaskEvent::Drained(Epoch::ZERO));
                    Ok(())
                }
                Ok(DriverEvent::Ask(question)) => {
                    (question.reply)(crate::event::unavailable("the job is restoring its state"));
                    Ok(())
                }
                Ok(_) => Ok(()),
            };
            if let Err(error) = outcome {
                self.shared.set_phase(Phase::Failed, Some(error.message().to_owned()));
                return (self.tell)(TaskEvent::Failed(error));
            }
        }
    }

    fn fence(&mut self, generation: Generation) -> Result<()> {
        let TaskConfig { plan, job_id, task, log, .. } = &self.config;
        let writer = BindingsWriter::open(&**log, *job_id, generation)?;
        let logged = plan.stores().into_iter().filter(|(_, settings)| settings.changelog == ChangelogKind::Log);
        let logged: Vec<_> = logged.map(|(shape, _)| shape.id).collect();
        ensure_changelogs(&**log, *job_id, plan.settings().partitions, logged.iter().map(String::as_str))?;
        let changelogs = match logged.is_empty() {
            true => None,
            false => Some(log.fence(&format!("{job_id}-changelogs-{task}"), generation)?),
        };
        self.bindings = Some((generation, writer, changelogs));
        (self.tell)(TaskEvent::Report(Report::Fenced(Fenced { generation, task: self.config.task })));
        Ok(())
    }

    fn scan(&mut self, generation: Generation, after: Epoch, caps: &[(Generation, Epoch)]) -> Result<()> {
        let stored = bindings::read(&*self.config.log, self.config.job_id, after)?;
        self.stored = bindings::valid(stored, caps, Epoch(u64::MAX));
        let report = ScanReport {
            generation,
            task: self.config.task,
            bindings: self.stored.iter().map(|stored| (stored.binding.generation, stored.binding.epoch)).collect(),
            // The sinks of one machine compare what they show with what is repeated, byte for byte, when it is repeated.
            sinks: Vec::new(),
        };
        (self.tell)(TaskEvent::Report(Report::Scanned(report)));
        Ok(())
    }

    /// Restores, then runs until the task is stopped or fails.
    fn start(&mut self, recovery: &RecoveryPlan, inbox: &Receiver<DriverEvent>) -> Result<()> {
        let Some((generation, mut writer, changelogs)) = self.bindings.take() else {
            return Err(Error::internal("protocol", "a plan came before the fence"));
        };
        assert_eq!(generation, recovery.generation, "a task runs the plan of the generation that it fenced under");
        let checkpoint = recovery.checkpoint_epoch();
        let stored = bindings::valid(std::mem::take(&mut self.stored), &recovery.caps, recovery.last_binding);
        assert_eq!(stored.len() as u64, recovery.last_binding.0 - checkpoint.0, "every binding of (C, B] was found");
        writer.remember(&stored);
        let backend = restore(&self.config.state_dir, &self.config.plan, recovery, &*self.config.log)?;
        let running = Running::open(self, recovery, stored, backend, changelogs)?;
        running.run(self, recovery, writer, inbox)
    }
}

/// A task at work.
struct Running {
    failure: Arc<Failure>,
    gate: Arc<EpochGate>,
    sinks: (Sender<SinkMessage>, Option<JoinHandle<()>>),
    checkpoints: (Sender<CheckpointMessage>, Option<JoinHandle<()>>),
    workers: Option<WorkerGuards<()>>,
    sources: Arc<[PartitionSpec]>,
    starts: BTreeMap<SourceKey, u64>,
    minted_at: i64,
    scrubber: Option<Scrubber>,
}

impl Running {
    fn open(
        waiting: &Waiting,
        recovery: &RecoveryPlan,
        stored: Vec<Stored>,
        backend: Arc<thalweg_state::Backend>,
        changelogs: Option<Box<dyn Producer>>,
    ) -> Result<Self> {
        let config = &waiting.config;
        let checkpoint = recovery.checkpoint_epoch();
        let sources: Arc<[PartitionSpec]> = recovery.zero.sources.clone().into();
        let starts: BTreeMap<_, _> = match &recovery.checkpoint {
            Some(record) => record.sources.iter().map(|state| (state.of, state.next)).collect(),
            None => sources.iter().map(|spec| (spec.of, spec.start)).collect(),
        };
        let minted_at = stored.last().map(|stored| stored.binding.minted_at);
        let minted_at = minted_at.or(recovery.checkpoint.as_ref().map(|record| record.minted_at)).unwrap_or(0);
        let gate = open_gate(waiting, recovery, stored);
        let failure = Arc::new(Failure::default());
        let wake = waiting.driver.clone();
        failure.on_failure(move || drop(wake.send(DriverEvent::Failed)));
        let committed = waiting.shared.committed.clone();
        *committed.write() = Some((checkpoint, Arc::new(backend.view())));

        let (to_sinks, sink_inbox) = channel();
        let (to_checkpoints, checkpoint_inbox) = channel();
        let sinks = Sinks::new(
            open_sinks(waiting, recovery)?,
            config.workers,
            gate.clone(),
            recovery.last_binding,
            waiting.driver.clone(),
            to_checkpoints.clone(),
        );
        let sink_failure = failure.clone();
        let sink_thread = spawn("sinks".to_owned(), move || sinks.run(&sink_inbox, &sink_failure))?;
        let labels = [("job", config.plan.settings().name.as_str())];
        let generation = config.metrics.gauge("generation", "The current generation of the job", &labels);
        generation.set(recovery.generation.0 as f64);
        let checkpointer = Checkpointer {
            job: config.job_id,
            generation: recovery.generation,
            backend: backend.clone(),
            changelogs,
            expected: config.plan.stores().len() * config.workers,
            committed,
            events: waiting.driver.clone(),
            changelog_bytes: config.metrics.counter("changelog_bytes", "Bytes written to changelogs", &labels),
            state_bytes: config.metrics.gauge("state_bytes", "Bytes of committed state on disk", &labels),
        };
        let checkpoint_failure = failure.clone();
        let checkpoint_thread =
            spawn("checkpoints".to_owned(), move || checkpointer.run(&checkpoint_inbox, &checkpoint_failure))?;
        let mut running = Self {
            failure,
            gate,
            sinks: (to_sinks, Some(sink_thread)),
            checkpoints: (to_checkpoints, Some(checkpoint_thread)),
            workers: None,
            sources,
            starts,
            minted_at,
            scrubber: None,
        };
        let stores = config.plan.stores().into_iter().map(|(shape, _)| shape.id).collect();
        running.scrubber = Some(Scrubber::start(backend.clone(), stores, running.failure.clone())?);
        running.workers = Some(running.start_workers(waiting, recovery, &backend)?);
        Ok(running)
    }

    fn start_workers(
        &self,
        waiting: &Waiting,
        recovery: &RecoveryPlan,
        backend: &Arc<thalweg_state::Backend>,
    ) -> Result<WorkerGuards<()>> {
        let config = &waiting.config;
        let count = config.workers;
        let (links, inboxes): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (sender, inbox) = channel();
                (WorkerLink::new(sender), Mutex::new(Some(inbox)))
            })
            .unzip();
        let links: Arc<[WorkerLink]> = links.into();
        let assignment: Arc<[u32]> =
            recovery.zero.partitions.all().map(|partition| u32::from(partition.0) % count as u32).collect();
        let stores = config.plan.stores().len().max(1) * count;
        let store_budget = config.plan.settings().state_memory / stores as u64;
        let starts = Arc::new(self.starts.clone());
        let source_starts: Arc<dyn Fn(&PartitionSpec) -> u64 + Send + Sync> =
            Arc::new(move |spec| starts.get(&spec.of).copied().unwrap_or(spec.start));
        let to_sinks = self.sinks.0.clone();
        let sinks: Arc<dyn Fn(thalweg_operators::SinkBatch) + Send + Sync> = Arc::new(move |batch| {
            let _ = to_sinks.send(SinkMessage::Batch(batch));
        });
        waiting.shared.running(recovery, &self.gate, links.clone());
        let (plan, failure, gate, backend) =
            (config.plan.clone(), self.failure.clone(), self.gate.clone(), backend.clone());
        let (metrics, partitions) = (config.metrics.clone(), recovery.zero.partitions);
        let job_id = config.recorded.as_ref().map_or(config.job_id, |run| run.job_id);
        let (sources, events, checkpoints) = (self.sources.clone(), waiting.driver.clone(), self.checkpoints.0.clone());
        let communication = if count == 1 { CommunicationConfig::Thread } else { CommunicationConfig::Process(count) };
        let timely = timely::Config { communication, worker: timely::WorkerConfig::default() };
        timely::execute(timely, move |worker| {
            let _guard = AbortOnPanic;
            let index = worker.index();
            links[index].attach(thread::current());
            let inbox = inboxes[index].lock().take().expect("each worker runs once");
            let context = Rc::new(WorkerContext {
                worker: WorkerIndex(index as u32),
                job_id,
                job: plan.settings().name.as_str().to_owned(),
                partitions,
                assignment: assignment.clone(),
                sources: sources.clone(),
                source_starts: source_starts.clone(),
                gate: gate.clone(),
                backend: backend.clone(),
                store_budget,
                stores: Default::default(),
                sinks: sinks.clone(),
                failure: failure.clone(),
                barriers: links[index].barriers.clone(),
                metrics: metrics.clone(),
            });
            let (plan, events, checkpoints) = (plan.clone(), events.clone(), checkpoints.clone());
            WorkerLoop { index, context, plan, inbox, events, checkpoints }.run(worker);
        })
        .map_err(|error| Error::internal("timely", format!("the workers cannot be started: {error}")))
    }

    fn run(
        mut self,
        waiting: &Waiting,
        recovery: &RecoveryPlan,
        bindings: BindingsWriter,
        inbox: &Receiver<DriverEvent>,
    ) -> Result<()> {
        let config = &waiting.config;
        let settings = config.plan.settings();
        let interval = settings.epoch_interval.unwrap_or(Duration::ZERO);
        let (limits, open) = (self.gate.limits(), self.gate.cut());
        let labels = [("job", settings.name.as_str())];
        let mut driver = Driver {
            task: config.task,
            generation: recovery.generation,
            fingerprint: config.plan.fingerprint(),
            log: config.log.clone(),
            gate: self.gate.clone(),
            minter: Minter::new(limits, interval, open, self.sources.len()),
            bindings,
            keep_bindings: config.keep_bindings,
            sources: self.sources.clone(),
            positions: self.starts.clone(),
            replay_until: recovery.last_binding,
            next_binding: recovery.checkpoint_epoch().next(),
            last_minted: self.minted_at,
            shares: BTreeMap::new(),
            checkpoint: CheckpointState::Idle(recovery.checkpoint_epoch()),
            checkpoint_wanted: false,
            soft_cap: (settings.state_memory / 2).max(1),
            early_asked: false,
            shared: waiting.shared.clone(),
            sinks: self.sinks.0.clone(),
            checkpoints: self.checkpoints.0.clone(),
            tell: waiting.tell.clone(),
            started: Instant::now(),
            drained: false,
            epochs_open: config.metrics.gauge("epochs_open", "Epochs that are minted and not processed", &labels),
            end_to_end: config.metrics.histogram(
                "end_to_end_latency_seconds",
                "From the end of an epoch to the moment when its results can be read",
                &labels,
            ),
            observed: recovery.last_binding,
            latency: config.metrics.histogram(
                "epoch_release_seconds",
                "From an epoch's end to its durable binding",
                &labels,
            ),
        };
        let outcome = driver.run(inbox);
        self.stop(waiting);
        match self.failure.take() {
            Some(error) => Err(error),
            None => outcome,
        }
    }

    /// Takes all threads down; what is not committed is repeated by the next generation.
    fn stop(&mut self, waiting: &Waiting) {
        drop(self.scrubber.take());
        waiting.shared.to_workers(|| WorkerMessage::Stop);
        drop(self.workers.take());
        let _ = self.sinks.0.send(SinkMessage::Stop);
        let _ = self.checkpoints.0.send(CheckpointMessage::Stop);
        for thread in [self.sinks.1.take(), self.checkpoints.1.take()].into_iter().flatten() {
            // A panic in it has aborted the process.
            let _ = thread.join();
        }
    }
}

fn open_gate(waiting: &Waiting, recovery: &RecoveryPlan, stored: Vec<Stored>) -> Arc<EpochGate> {
    let settings = waiting.config.plan.settings();
    let checkpoint = recovery.checkpoint_epoch();
    let cutting = if settings.epoch_interval.is_some() { Cutting::Together } else { Cutting::ByCount };
    let limits = EpochLimits {
        cutting,
        max_records: settings.epoch_max_records,
        max_bytes: settings.epoch_max_bytes,
        max_open: settings.max_open_epochs,
    };
    let own: Vec<Binding> = stored.into_iter().map(|stored| stored.binding).collect();
    let recorded = match &waiting.config.recorded {
        // The run that is repeated; its first part may have been repeated before a restart.
        Some(other) => other.bindings.iter().filter(|binding| binding.epoch > checkpoint).cloned().collect(),
        None => own,
    };
    let driver = waiting.driver.clone();
    EpochGate::new(
        limits,
        checkpoint,
        Recorded::new(checkpoint.next(), recorded),
        waiting.config.recorded.is_some(),
        recovery.last_binding,
        waiting.config.workers,
        Box::new(move |event| drop(driver.send(DriverEvent::Source(event)))),
    )
}

fn open_sinks(waiting: &Waiting, recovery: &RecoveryPlan) -> Result<Vec<Box<dyn thalweg_connectors::SinkWriter>>> {
    let ends: &[(SinkKey, u64)] = match &recovery.checkpoint {
        Some(record) => &record.sinks,
        None => &recovery.zero.sinks,
    };
    // The source partition stands in for the job partition where nothing is keyed.
    let sources = recovery.zero.sources.iter().map(|spec| spec.of.partition);
    let all: BTreeSet<PartitionId> = recovery.zero.partitions.all().chain(sources).collect();
    let sinks = waiting.config.plan.sinks().into_iter().enumerate();
    let open = sinks.map(|(index, (id, sink))| {
        let own = ends.iter().filter(|(key, _)| usize::from(key.sink) == index);
        let mut partitions: BTreeMap<PartitionId, u64> = all.iter().map(|partition| (*partition, 0)).collect();
        partitions.extend(own.map(|(key, end)| (key.partition, *end)));
        let partitions = partitions.into_iter().collect();
        let context = SinkContext { job_id: waiting.config.job_id, generation: recovery.generation, partitions };
        sink.open(&context).map_err(|error| error.context(format!("sink {id:?}")))
    });
    open.collect()
}
