//! A task: the worker process of a job on one node. It does what the coordinator says, and reports.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use thalweg_connectors::log::Log;
use thalweg_core::{
    Binding, CheckpointZero, Command, Epoch, Error, Fenced, Generation, JobId, JobService, PartitionSpec, Phase,
    RecoveryPlan, Report, Result, ScanReport, SinkKey,
};
use thalweg_operators::{ChangelogKind, Plan};

use crate::bindings::{self, BindingsWriter, Stored};
use crate::changelogs::Changelogs;
use crate::clock::wall_clock;
use crate::config::TaskConfig;
use crate::event::{DriverEvent, TaskEvent};
use crate::restore::restore;
use crate::running::{Place, Running};
use crate::shared::Shared;
use crate::thread::spawn;

/// A running task.
pub struct Task {
    driver: Sender<DriverEvent>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// The bindings in a log that count, from the first one that is kept on, under the caps of the job's plans.
pub fn read_bindings(log: &dyn Log, job_id: JobId, caps: &[(Generation, Epoch)]) -> Result<Vec<Binding>> {
    let stored = bindings::valid(bindings::read(log, job_id, Epoch::ZERO)?, caps, Epoch(u64::MAX));
    Ok(stored.into_iter().map(|stored| stored.binding).collect())
}

/// Checkpoint 0 of a new job: what its sources and sinks are before it reads anything. Where it repeats another run, `recorded` are
/// all source partitions of that.
pub fn checkpoint_zero(plan: &Plan, job_id: JobId, recorded: &[PartitionSpec]) -> Result<CheckpointZero> {
    let sources = plan.discover(recorded)?;
    let mut sinks = Vec::new();
    for (index, id, sink) in plan.sinks() {
        let ends = sink.ends().map_err(|error| error.context(format!("sink {id:?}")))?;
        sinks.extend(ends.into_iter().map(|(partition, end)| (SinkKey { sink: index, partition }, end)));
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
        let shared = Arc::new(Shared::new(&config, driver.clone()));
        let seen = Arc::downgrade(&shared);
        config.metrics.before_render(move |metrics| {
            if let Some(shared) = seen.upgrade() {
                shared.refresh(metrics);
            }
        });
        let place = Place { config, shared: shared.clone(), driver: driver.clone(), tell };
        let mut waiting = Waiting { place, bindings: None, stored: Vec::new() };
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
    place: Place,
    bindings: Option<(Generation, BindingsWriter, Vec<Changelogs>)>,
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
                        self.place.shared.set_phase(Phase::Failed, Some(error.message().to_owned()));
                        (self.place.tell)(TaskEvent::Failed(error));
                    }
                    return;
                }
                Ok(DriverEvent::Stop) => {
                    (self.place.tell)(TaskEvent::Drained(Epoch::ZERO));
                    Ok(())
                }
                Ok(DriverEvent::Ask(question)) => {
                    (question.reply)(crate::event::unavailable("the job is restoring its state"));
                    Ok(())
                }
                Ok(_) => Ok(()),
            };
            if let Err(error) = outcome {
                self.place.shared.set_phase(Phase::Failed, Some(error.message().to_owned()));
                return (self.place.tell)(TaskEvent::Failed(error));
            }
        }
    }

    fn fence(&mut self, generation: Generation) -> Result<()> {
        let TaskConfig { plan, job_id, task, logs, .. } = &self.place.config;
        let writer = BindingsWriter::open(logs.bindings().clone(), *job_id, generation)?;
        let job = (*job_id, plan.settings().partitions);
        let mut changelogs = Vec::new();
        for kind in [ChangelogKind::Log, ChangelogKind::Kafka] {
            let own = plan.stores().into_iter().filter(|(_, settings)| settings.changelog == kind);
            let own: Vec<_> = own.map(|(shape, _)| shape.id).collect();
            if let Some(log) = if own.is_empty() { None } else { logs.changelog(kind)? } {
                changelogs.push(Changelogs::open(log.clone(), job, *task, generation, own)?);
            }
        }
        self.bindings = Some((generation, writer, changelogs));
        (self.place.tell)(TaskEvent::Report(Report::Fenced(Fenced { generation, task: self.place.config.task })));
        Ok(())
    }

    fn scan(&mut self, generation: Generation, after: Epoch, caps: &[(Generation, Epoch)]) -> Result<()> {
        let TaskConfig { logs, job_id, .. } = &self.place.config;
        let stored = bindings::read(&**logs.bindings(), *job_id, after)?;
        self.stored = bindings::valid(stored, caps, Epoch(u64::MAX));
        let report = ScanReport {
            generation,
            task: self.place.config.task,
            bindings: self.stored.iter().map(|stored| (stored.binding.generation, stored.binding.epoch)).collect(),
            // The sinks of one machine compare what they show with what is repeated, byte for byte, when it is repeated.
            sinks: Vec::new(),
        };
        (self.place.tell)(TaskEvent::Report(Report::Scanned(report)));
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
        let backend = restore(&self.place.config, recovery, &self.place.shared.restoring)?;
        let running = Running::open(&self.place, recovery, stored, backend, changelogs)?;
        running.run(&self.place, recovery, writer, inbox)
    }
}
