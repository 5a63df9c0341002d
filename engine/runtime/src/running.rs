//! A task at work: its threads, and what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thalweg_connectors::{SinkContext, SinkWriter};
use thalweg_core::{Binding, Error, PartitionId, PartitionSpec, RecoveryPlan, Result, SinkKey, SourceKey, WorkerIndex};
use thalweg_operators::{Cutting, EpochGate, EpochLimits, Failure, Recorded, WorkerContext};
use timely::CommunicationConfig;
use timely::communication::WorkerGuards;

use crate::bindings::{BindingsWriter, Stored};
use crate::changelogs::Changelogs;
use crate::checkpointer::Checkpointer;
use crate::config::TaskConfig;
use crate::discovery::{Discovery, Known};
use crate::driver::{CheckpointState, Driver};
use crate::event::{CheckpointMessage, DriverEvent, TaskEvent, WorkerMessage};
use crate::members::Members;
use crate::minter::Minter;
use crate::retry::Retries;
use crate::scrubber::Scrubber;
use crate::shared::{Shared, WorkerLink};
use crate::sinks::{SinkMessage, Sinks};
use crate::thread::{AbortOnPanic, spawn};
use crate::worker::{Inbox, WorkerLoop};

/// Where a task is: what it was started with, and the ways to and from it.
pub(crate) struct Place {
    pub(crate) config: TaskConfig,
    pub(crate) shared: Arc<Shared>,
    pub(crate) driver: Sender<DriverEvent>,
    pub(crate) tell: Arc<dyn Fn(TaskEvent) + Send + Sync>,
}

/// A task at work.
pub(crate) struct Running {
    failure: Arc<Failure>,
    gate: Arc<EpochGate>,
    sinks: (Sender<SinkMessage>, Option<JoinHandle<()>>),
    checkpoints: (Sender<CheckpointMessage>, Option<JoinHandle<()>>),
    workers: Option<WorkerGuards<()>>,
    sources: Arc<[PartitionSpec]>,
    starts: BTreeMap<SourceKey, u64>,
    minted_at: i64,
    scrubber: Option<Scrubber>,
    discovery: Option<Discovery>,
    known: Known,
}

impl Running {
    /// Starts every thread of the task, from checkpoint C on.
    pub(crate) fn open(
        place: &Place,
        recovery: &RecoveryPlan,
        stored: Vec<Stored>,
        backend: Arc<thalweg_state::Backend>,
        changelogs: Vec<Changelogs>,
    ) -> Result<Self> {
        let config = &place.config;
        let checkpoint = recovery.checkpoint_epoch();
        let sources: Arc<[PartitionSpec]> = recovery.sources.clone().into();
        let starts: BTreeMap<_, _> = match &recovery.checkpoint {
            Some(record) => record.sources.iter().map(|state| (state.of, state.next)).collect(),
            None => recovery.zero.sources.iter().map(|spec| (spec.of, spec.start)).collect(),
        };
        let minted_at = stored.last().map(|stored| stored.binding.minted_at);
        let minted_at = minted_at.or(recovery.checkpoint.as_ref().map(|record| record.minted_at)).unwrap_or(0);
        let gate = open_gate(place, recovery, stored);
        let failure = Arc::new(Failure::default());
        let wake = place.driver.clone();
        failure.on_failure(move || drop(wake.send(DriverEvent::Failed)));
        let committed = place.shared.committed.clone();
        *committed.write() = Some((checkpoint, Arc::new(backend.view())));

        let (to_sinks, sink_inbox) = channel();
        let (to_checkpoints, checkpoint_inbox) = channel();
        let sinks = Sinks::new(
            open_sinks(place, recovery)?,
            config.workers,
            gate.clone(),
            recovery.last_binding,
            place.driver.clone(),
            to_checkpoints.clone(),
        );
        let sink_failure = failure.clone();
        let sink_thread = spawn("sinks".to_owned(), move || sinks.run(&sink_inbox, &sink_failure))?;
        let labels = [("job", config.plan.settings().name.as_str())];
        let generation = config.metrics.gauge("generation", "The current generation of the job", &labels);
        generation.set(recovery.generation.0 as f64);
        let checkpointer = Checkpointer {
            generation: recovery.generation,
            backend: backend.clone(),
            changelogs,
            sinks: config.plan.sinks().into_iter().map(|(index, _, sink)| (index, sink)).collect(),
            expected: config.plan.stores().len() * config.workers,
            committed,
            events: place.driver.clone(),
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
            discovery: None,
            known: Arc::new(Mutex::new(recovery.sources.clone())),
        };
        let stores = config.plan.stores().into_iter().map(|(shape, _)| shape.id).collect();
        running.scrubber = Some(Scrubber::start(backend.clone(), stores, running.failure.clone())?);
        running.workers = Some(running.start_workers(place, recovery, &backend)?);
        running.discovery = Some(Discovery::start(place, recovery.generation, &running.known, &running.failure)?);
        Ok(running)
    }

    fn start_workers(
        &self,
        place: &Place,
        recovery: &RecoveryPlan,
        backend: &Arc<thalweg_state::Backend>,
    ) -> Result<WorkerGuards<()>> {
        let config = &place.config;
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
        place.shared.running(recovery, &self.gate, links.clone());
        let (plan, failure, gate, backend) =
            (config.plan.clone(), self.failure.clone(), self.gate.clone(), backend.clone());
        let (metrics, partitions) = (config.metrics.clone(), recovery.zero.partitions);
        let job_id = config.recorded.as_ref().map_or(config.job_id, |run| run.job_id);
        let (sources, events, checkpoints) = (self.sources.clone(), place.driver.clone(), self.checkpoints.0.clone());
        let communication = if count == 1 { CommunicationConfig::Thread } else { CommunicationConfig::Process(count) };
        let timely = timely::Config { communication, worker: timely::WorkerConfig::default() };
        timely::execute(timely, move |worker| {
            let _guard = AbortOnPanic;
            let index = worker.index();
            links[index].attach(thread::current());
            let inbox = inboxes[index].lock().take().expect("each worker runs once");
            let inbox = Rc::new(Inbox::new(inbox));
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
                questions: inbox.clone(),
                metrics: metrics.clone(),
            });
            let (plan, events, checkpoints) = (plan.clone(), events.clone(), checkpoints.clone());
            WorkerLoop { index, context, plan, inbox, events, checkpoints }.run(worker);
        })
        .map_err(|error| Error::internal("timely", format!("the workers cannot be started: {error}")))
    }

    /// Drives the task until it is stopped or fails, then takes its threads down.
    pub(crate) fn run(
        mut self,
        place: &Place,
        recovery: &RecoveryPlan,
        bindings: BindingsWriter,
        inbox: &Receiver<DriverEvent>,
    ) -> Result<()> {
        let config = &place.config;
        let settings = config.plan.settings();
        let interval = settings.epoch_interval.unwrap_or(Duration::ZERO);
        let (limits, open) = (self.gate.limits(), self.gate.cut());
        let labels = [("job", settings.name.as_str())];
        let mut driver = Driver {
            task: config.task,
            generation: recovery.generation,
            fingerprint: config.plan.fingerprint(),
            plan: config.plan.clone(),
            gate: self.gate.clone(),
            minter: Minter::new(limits, interval, open, self.sources.len()),
            bindings,
            keep_bindings: config.keep_bindings,
            sources: Members::new(&self.sources, self.gate.recorded()),
            known: self.known.clone(),
            positions: self.starts.clone(),
            replay_until: recovery.last_binding,
            next_binding: recovery.checkpoint_epoch().next(),
            last_minted: self.minted_at,
            shares: BTreeMap::new(),
            checkpoint: CheckpointState::Idle(recovery.checkpoint_epoch()),
            checkpoint_wanted: false,
            retries: Retries::default(),
            soft_cap: (settings.state_memory / 4).max(1),
            early_asked: false,
            shared: place.shared.clone(),
            sinks: self.sinks.0.clone(),
            checkpoints: self.checkpoints.0.clone(),
            tell: place.tell.clone(),
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
        self.stop(place);
        match self.failure.take() {
            Some(error) => Err(error),
            None => outcome,
        }
    }

    /// Takes all threads down; what is not committed is repeated by the next generation.
    fn stop(&mut self, place: &Place) {
        drop((self.scrubber.take(), self.discovery.take()));
        place.shared.to_workers(|| WorkerMessage::Stop);
        drop(self.workers.take());
        let _ = self.sinks.0.send(SinkMessage::Stop);
        let _ = self.checkpoints.0.send(CheckpointMessage::Stop);
        for thread in [self.sinks.1.take(), self.checkpoints.1.take()].into_iter().flatten() {
            // A panic in it has aborted the process.
            let _ = thread.join();
        }
    }
}

fn open_gate(place: &Place, recovery: &RecoveryPlan, stored: Vec<Stored>) -> Arc<EpochGate> {
    let settings = place.config.plan.settings();
    let checkpoint = recovery.checkpoint_epoch();
    let cutting = if settings.epoch_interval.is_some() { Cutting::Together } else { Cutting::ByCount };
    let limits = EpochLimits {
        cutting,
        max_records: settings.epoch_max_records,
        max_bytes: settings.epoch_max_bytes,
        max_open: settings.max_open_epochs,
    };
    let own: Vec<Binding> = stored.into_iter().map(|stored| stored.binding).collect();
    let recorded = match &place.config.recorded {
        // The run that is repeated; its first part may have been repeated before a restart.
        Some(other) => other.bindings.iter().filter(|binding| binding.epoch > checkpoint).cloned().collect(),
        None => own,
    };
    let driver = place.driver.clone();
    EpochGate::new(
        limits,
        checkpoint,
        Recorded::new(checkpoint.next(), recorded),
        place.config.recorded.is_some(),
        recovery.last_binding,
        place.config.workers,
        Box::new(move |event| drop(driver.send(DriverEvent::Source(event)))),
    )
}

fn open_sinks(place: &Place, recovery: &RecoveryPlan) -> Result<Vec<(u16, Box<dyn SinkWriter>)>> {
    let ends: &[(SinkKey, u64)] = match &recovery.checkpoint {
        Some(record) => &record.sinks,
        None => &recovery.zero.sinks,
    };
    // The source partition stands in for the job partition where nothing is keyed.
    let sources = recovery.sources.iter().map(|spec| spec.of.partition);
    let all: BTreeSet<PartitionId> = recovery.zero.partitions.all().chain(sources).collect();
    let open = place.config.plan.sinks().into_iter().map(|(index, id, sink)| {
        let own = ends.iter().filter(|(key, _)| key.sink == index);
        let mut partitions: BTreeMap<PartitionId, u64> = all.iter().map(|partition| (*partition, 0)).collect();
        partitions.extend(own.map(|(key, end)| (key.partition, *end)));
        let partitions = partitions.into_iter().collect();
        let (generation, checkpoint) = (recovery.generation, recovery.checkpoint_epoch());
        let context = SinkContext { job_id: place.config.job_id, generation, checkpoint, partitions };
        let writer = sink.open(&context).map_err(|error| error.context(format!("sink {id:?}")))?;
        Ok((index, writer))
    });
    open.collect()
}
