//! Performs what the leader decides: entries into the journal, commands to the task, events back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thalweg_connectors::log::EmbeddedLog;
use thalweg_coordinator::{Event, Leader, Limits, Now, Output, RecoverReason};
use thalweg_core::{Command, Epoch, Error, Phase, Result};
use thalweg_operators::Plan;
use thalweg_runtime::{Task, TaskEvent};

use super::claim::Claims;
use super::journal::Journal;

/// How often the leader looks at the clock.
const TICK: Duration = Duration::from_millis(100);
/// How often the log is cleaned of what compaction and retention have made obsolete.
const CLEAN: Duration = Duration::from_secs(60);
/// The task lives and dies with this process: there is no silent loss to notice by waiting.
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Errors that say that a topic holds something else than what this process has written or expects.
const UNEXPECTED: [&str; 6] =
    ["kafka-out-of-range", "sink-acknowledged-lost", "sink-differs", "sink-lost", "sink-order", "state-digest"];

/// What the shell waits for.
pub(super) enum ShellEvent {
    /// From the task.
    Task(TaskEvent),
    /// Somebody asks to stop.
    Stop,
}

/// What is done when the plan has taken over what the job's folder holds.
pub(super) type Accepted = Box<dyn FnOnce() -> Result<()>>;

/// The coordinator of one job in one process.
pub(super) struct Shell {
    journal: Journal,
    leader: Option<Leader>,
    limits: Limits,
    fingerprint: u64,
    task: Task,
    log: Arc<EmbeddedLog>,
    /// Where the job has something in Kafka: the claims on it there.
    claims: Option<Arc<Claims>>,
    cleaning: Option<JoinHandle<()>>,
    cleaned: Instant,
    started: Instant,
    /// Everything up to this epoch is processed, and nothing more will come.
    drained: Option<Epoch>,
    asked_to_stop: bool,
    /// The checkpoint that was there at the start.
    found: Epoch,
    /// The last checkpoint that is in RocksDB.
    applied: Epoch,
    accepted: Option<Accepted>,
}

impl Shell {
    pub(super) fn new(
        journal: Journal,
        task: Task,
        plan: &Plan,
        log: Arc<EmbeddedLog>,
        (claims, accepted): (Option<Arc<Claims>>, Accepted),
    ) -> Self {
        let limits = Limits {
            checkpoint_interval: plan.settings().checkpoint_interval,
            checkpoint_limit: NEVER,
            recovery_limit: NEVER,
        };
        let applied = journal.history().checkpoint_epoch();
        Self {
            journal,
            leader: None,
            limits,
            fingerprint: plan.fingerprint(),
            task,
            log,
            claims,
            cleaning: None,
            cleaned: Instant::now(),
            started: Instant::now(),
            drained: None,
            asked_to_stop: false,
            found: applied,
            applied,
            accepted: Some(accepted),
        }
    }

    /// Whether the job has come to its end by itself.
    pub(super) fn finished(&self) -> bool {
        self.drained.is_some() && !self.asked_to_stop
    }

    /// Whether it had come to its end before it was started.
    pub(super) fn had_finished(&self) -> bool {
        self.finished() && self.found > Epoch::ZERO && self.applied == self.found
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.task.set_phase(phase, None);
    }

    /// Returns when somebody asks to stop.
    pub(super) fn wait_for_stop(&self, inbox: &Receiver<ShellEvent>) {
        while !matches!(inbox.recv(), Ok(ShellEvent::Stop) | Err(_)) {}
    }

    /// One generation, from its fences to the last checkpoint.
    pub(super) fn run(&mut self, inbox: &Receiver<ShellEvent>) -> Result<()> {
        let now = self.now();
        let (leader, outputs) = Leader::start(self.journal.history(), now, 1, self.fingerprint, self.limits);
        self.leader = Some(leader);
        self.perform(outputs)?;
        while !self.is_done() {
            match inbox.recv_timeout(TICK) {
                Ok(ShellEvent::Stop) => {
                    self.asked_to_stop = true;
                    self.task.stop_reading();
                }
                Ok(ShellEvent::Task(TaskEvent::Report(report))) => self.tell(Event::Report(report))?,
                Ok(ShellEvent::Task(TaskEvent::CheckpointWanted)) => self.tell(Event::CheckpointWanted)?,
                Ok(ShellEvent::Task(TaskEvent::CheckpointFailed { generation, epoch })) => {
                    self.tell(Event::CheckpointFailed { generation, epoch })?;
                }
                Ok(ShellEvent::Task(TaskEvent::Drained(epoch))) => {
                    self.drained = Some(epoch);
                    self.want_last_checkpoint()?;
                }
                Ok(ShellEvent::Task(TaskEvent::Applied(epoch))) => {
                    self.applied = epoch;
                    self.want_last_checkpoint()?;
                }
                Ok(ShellEvent::Task(TaskEvent::Failed(error))) => return Err(self.cause(error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("task-gone", "the task has ended without a word"));
                }
            }
            self.tell(Event::Tick)?;
            self.clean();
        }
        Ok(())
    }

    /// Why the task has failed. A process that was left for dead, and goes on, may find the work of the one that has taken the job over,
    /// and not know it for that.
    fn cause(&self, error: Error) -> Error {
        let Some(claims) = self.claims.as_ref().filter(|_| UNEXPECTED.contains(&error.code())) else { return error };
        match claims.taken_over() {
            Ok(Some(generation)) => {
                let text = format!(
                    "another process runs the job at generation {generation}; leave it to that one, and do not start this copy of its \
                     data folder again (this one has found: {})",
                    error.message()
                );
                Error::external("fenced", text)
            }
            Ok(None) | Err(_) => error,
        }
    }

    /// Whether the last checkpoint that there will be is committed and applied.
    fn is_done(&self) -> bool {
        self.drained.is_some_and(|last| self.applied >= last)
    }

    fn want_last_checkpoint(&mut self) -> Result<()> {
        let behind = self.drained.is_some_and(|last| self.journal.history().checkpoint_epoch() < last);
        if behind { self.tell(Event::CheckpointWanted) } else { Ok(()) }
    }

    fn tell(&mut self, event: Event) -> Result<()> {
        let now = self.now();
        let leader = self.leader.as_mut().expect("the generation has begun");
        let outputs = leader.handle(self.journal.history(), now, event);
        self.perform(outputs)
    }

    fn perform(&mut self, outputs: Vec<Output>) -> Result<()> {
        let mut queue: VecDeque<Output> = outputs.into();
        while let Some(output) = queue.pop_front() {
            match output {
                Output::Propose(entry) => {
                    let outcome = self.journal.propose(entry.clone())?;
                    let now = self.now();
                    let leader = self.leader.as_mut().expect("the generation has begun");
                    queue.extend(leader.handle(self.journal.history(), now, Event::Decided(entry, outcome)));
                }
                Output::Send(_, command) => {
                    if let (Some(claims), Command::Fence { generation }) = (&self.claims, &command) {
                        claims.claim(*generation)?;
                    }
                    if let Some(accepted) = self.accepted.take_if(|_| matches!(command, Command::Run(_))) {
                        accepted()?;
                    }
                    self.task.command(command);
                }
                Output::Refuse(refusal) => return Err(refusal.into()),
                Output::Recover(RecoverReason::TaskDied(_) | RecoverReason::NoProgress(_)) | Output::Superseded => {
                    let text = format!("the only task of the job was given up: {output:?}");
                    return Err(Error::internal("generation-over", text));
                }
            }
        }
        Ok(())
    }

    /// Cleans the log from time to time, beside everything else.
    fn clean(&mut self) {
        let idle = self.cleaning.as_ref().is_none_or(JoinHandle::is_finished);
        if !idle || self.cleaned.elapsed() < CLEAN {
            return;
        }
        self.cleaned = Instant::now();
        let log = self.log.clone();
        let work = move || {
            if let Err(error) = log.clean() {
                tracing::warn!("cleaning the log: {error}; it is tried again later");
            }
        };
        self.cleaning = std::thread::Builder::new().name("cleaner".to_owned()).spawn(work).ok();
    }

    fn now(&self) -> Now {
        Now(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(cleaning) = self.cleaning.take() {
            // It logs its own errors; a panic in it has been printed.
            let _ = cleaning.join();
        }
    }
}
