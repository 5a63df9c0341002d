//! The decisions of one generation.

use std::time::Duration;

use serde::Serialize;
use thalweg_core::{
    CheckpointAck, Command, Epoch, Fenced, Generation, Report, ScanReport, SinkTail, SourcesFound, TaskIndex,
};

use crate::checkpoint::Collecting;
use crate::{Entry, JobHistory, Refusal, Refused, Stage, last_binding};

/// Microseconds of a clock that never goes back; where it begins does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Now(pub u64);

impl Now {
    fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// How long a leader waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Limits {
    /// From the decision on a checkpoint to the start of the next.
    pub checkpoint_interval: Duration,
    /// From the first acknowledgement of a checkpoint to the last; then it is abandoned. Before the first there is no limit: where
    /// no epoch has passed since the last checkpoint, there is nothing to take until one has.
    pub checkpoint_limit: Duration,
    /// From the start of a generation to its plan.
    pub recovery_limit: Duration,
}

impl Default for Limits {
    /// A checkpoint each second, as in a job file that says nothing. A minute is far beyond any fence, scan or sync of a disk
    /// that still works, and short enough to notice one that does not.
    fn default() -> Self {
        Self {
            checkpoint_interval: Duration::from_secs(1),
            checkpoint_limit: Duration::from_secs(60),
            recovery_limit: Duration::from_secs(60),
        }
    }
}

/// What a leader learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A task has answered.
    Report(Report),
    /// Time has passed.
    Tick,
    /// A checkpoint is wanted as soon as none is open: the overlay is full, or the job is to stop or has read all its input.
    CheckpointWanted,
    /// A task cannot finish the checkpoint that it began: its epoch may be given up.
    CheckpointFailed {
        /// The task's generation.
        generation: Generation,
        /// The epoch that it had chosen.
        epoch: Epoch,
    },
    /// A task is gone, or its shell has seen it stand still for too long.
    TaskDied(TaskIndex),
    /// The history has answered a proposal: it was applied, or refused. The shell has applied it first.
    Decided(Entry, Result<(), Refused>),
}

/// What a leader wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append this to the history; tell what became of it with [`Event::Decided`]. Of unknown outcome: ask again, never assume.
    Propose(Entry),
    /// Give this to a task of this generation.
    Send(TaskIndex, Command),
    /// This generation is over: start another ([`Leader::start`]) once its tasks are gone.
    Recover(RecoverReason),
    /// The job cannot go on: stop it and show this.
    Refuse(Refusal),
    /// Another leader has started a newer generation: nothing is left to do here.
    Superseded,
}

/// Why a new generation is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverReason {
    /// A task is gone.
    TaskDied(TaskIndex),
    /// This stage of the recovery did not end within its limit.
    NoProgress(Stage),
}

/// The volatile state of the leader of one generation. It may be lost at any time: the next generation needs the history only.
///
/// ```
/// use thalweg_coordinator::{Entry, JobHistory, Leader, Limits, Now, Output};
/// use thalweg_core::Generation;
/// let history = JobHistory::default();
/// let (leader, outputs) = Leader::start(&history, Now(0), 1, 0xfeed, Limits::default());
/// assert_eq!(leader.generation(), Generation(1));
/// assert_eq!(outputs, [Output::Propose(Entry::GenerationStarted { generation: Generation(1), tasks: 1 })]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leader {
    generation: Generation,
    tasks: u32,
    fingerprint: u64,
    limits: Limits,
    since: Now,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
enum State {
    Starting,
    Fencing { fenced: Vec<bool> },
    Scanning { reports: Vec<Option<ScanReport>> },
    Planning,
    Running { checkpoint: Checkpoint, wanted: bool, adding: bool },
    Over,
}

/// At most one checkpoint is undecided: there is one place for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
enum Checkpoint {
    /// None since then.
    None { since: Now },
    /// The tasks were asked for one; the first has acknowledged it then.
    Collecting { first: Option<Now>, acks: Collecting },
    /// Its record, or that it is given up, is proposed: only the history decides now.
    Proposed { epoch: Epoch },
}

impl Leader {
    /// Begins the generation after the history's.
    ///
    /// `tasks` is at least 1; `fingerprint` is that of the plan which the tasks will run.
    pub fn start(history: &JobHistory, now: Now, tasks: u32, fingerprint: u64, limits: Limits) -> (Self, Vec<Output>) {
        let generation = history.generation().next();
        let leader = Self { generation, tasks, fingerprint, limits, since: now, state: State::Starting };
        (leader, vec![Output::Propose(Entry::GenerationStarted { generation, tasks })])
    }

    /// Its generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Where it is.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Starting => Stage::Starting,
            State::Fencing { .. } => Stage::Fencing,
            State::Scanning { .. } => Stage::Scanning,
            State::Planning => Stage::Planning,
            State::Running { .. } => Stage::Running,
            State::Over => Stage::Over,
        }
    }

    /// Whether a checkpoint is being taken or decided.
    pub fn checkpoint_open(&self) -> bool {
        matches!(
            self.state,
            State::Running { checkpoint: Checkpoint::Collecting { .. } | Checkpoint::Proposed { .. }, .. }
        )
    }

    /// Takes one event; says what to do. `history` is what the shell has applied so far.
    pub fn handle(&mut self, history: &JobHistory, now: Now, event: Event) -> Vec<Output> {
        if self.state == State::Over {
            return Vec::new();
        }
        // A deposed leader decides nothing. (Before its own generation is applied it is one behind.)
        if history.generation() > self.generation {
            return self.end(Output::Superseded);
        }
        match event {
            Event::Report(Report::Fenced(fenced)) => self.fenced(history, fenced),
            Event::Report(Report::Scanned(report)) => self.scanned(history, report),
            Event::Report(Report::Acknowledged(ack)) => self.acknowledged(history, now, *ack),
            Event::Report(Report::Found(found)) => self.found(history, found),
            Event::Tick => self.tick(now),
            Event::CheckpointWanted => {
                if let State::Running { wanted, .. } = &mut self.state {
                    *wanted = true;
                }
                self.tick(now)
            }
            Event::CheckpointFailed { generation, epoch } => self.failed(history, generation, epoch),
            Event::TaskDied(task) => self.end(Output::Recover(RecoverReason::TaskDied(task))),
            Event::Decided(entry, outcome) => self.decided(history, now, entry, outcome),
        }
    }

    fn enter(&mut self, next: State) {
        let from = self.stage();
        self.state = next;
        assert!(from.leads_to(self.stage()), "a generation went from {from:?} to {:?}", self.stage());
    }

    fn end(&mut self, last: Output) -> Vec<Output> {
        self.enter(State::Over);
        let mut outputs = self.to_all(|| Command::Stop);
        outputs.push(last);
        outputs
    }

    fn to_all(&self, command: impl Fn() -> Command) -> Vec<Output> {
        (0..self.tasks).map(|task| Output::Send(TaskIndex(task), command())).collect()
    }

    /// First barrier.
    fn fenced(&mut self, history: &JobHistory, report: Fenced) -> Vec<Output> {
        let State::Fencing { fenced } = &mut self.state else { return Vec::new() };
        if report.generation != self.generation {
            return Vec::new();
        }
        if let Some(fenced) = fenced.get_mut(report.task.0 as usize) {
            *fenced = true;
        }
        if !fenced.iter().all(|fenced| *fenced) {
            return Vec::new();
        }
        self.enter(State::Scanning { reports: vec![None; self.tasks as usize] });
        let (generation, after, caps) = (self.generation, history.checkpoint_epoch(), history.caps());
        self.to_all(|| Command::Scan { generation, after, caps: caps.clone() })
    }

    /// Second barrier.
    fn scanned(&mut self, history: &JobHistory, report: ScanReport) -> Vec<Output> {
        let State::Scanning { reports } = &mut self.state else { return Vec::new() };
        if report.generation != self.generation {
            return Vec::new();
        }
        if let Some(place) = reports.get_mut(report.task.0 as usize) {
            *place = Some(report);
        }
        let Some(all) = reports.iter().cloned().collect::<Option<Vec<_>>>() else { return Vec::new() };
        match plan(history, self.fingerprint, &all) {
            Ok(last_binding) => {
                self.enter(State::Planning);
                let (generation, fingerprint) = (self.generation, self.fingerprint);
                vec![Output::Propose(Entry::PlanCommitted { generation, last_binding, fingerprint })]
            }
            Err(refusal) => self.end(Output::Refuse(refusal)),
        }
    }

    fn acknowledged(&mut self, history: &JobHistory, now: Now, ack: CheckpointAck) -> Vec<Output> {
        let State::Running { checkpoint, .. } = &mut self.state else { return Vec::new() };
        let Checkpoint::Collecting { first, acks } = checkpoint else { return Vec::new() };
        // Of another generation, or late for a checkpoint that was given up.
        if ack.generation != self.generation || ack.epoch <= history.decided() {
            return Vec::new();
        }
        first.get_or_insert(now);
        let record = if ack.fingerprint == self.fingerprint {
            acks.acknowledge(ack)
        } else {
            let why = "its plan is not the one that this generation was started with";
            Err(Refusal::BrokenAcknowledgement { task: ack.task, epoch: ack.epoch, why })
        };
        match record {
            Ok(None) => Vec::new(),
            Ok(Some(record)) => {
                *checkpoint = Checkpoint::Proposed { epoch: record.epoch };
                vec![Output::Propose(Entry::CheckpointCommitted(record))]
            }
            Err(refusal) => self.end(Output::Refuse(refusal)),
        }
    }

    fn tick(&mut self, now: Now) -> Vec<Output> {
        let stage = self.stage();
        let State::Running { checkpoint, wanted, .. } = &mut self.state else {
            if now.since(self.since) < self.limits.recovery_limit {
                return Vec::new();
            }
            return self.end(Output::Recover(RecoverReason::NoProgress(stage)));
        };
        match checkpoint {
            Checkpoint::None { since } if *wanted || now.since(*since) >= self.limits.checkpoint_interval => {
                *wanted = false;
                *checkpoint = Checkpoint::Collecting { first: None, acks: Collecting::new(self.tasks) };
                let generation = self.generation;
                self.to_all(|| Command::Checkpoint { generation })
            }
            Checkpoint::Collecting { first: Some(first), acks }
                if now.since(*first) >= self.limits.checkpoint_limit =>
            {
                let epoch = acks.epoch().expect("one has acknowledged it");
                self.abandon(epoch)
            }
            Checkpoint::None { .. } | Checkpoint::Collecting { .. } | Checkpoint::Proposed { .. } => Vec::new(),
        }
    }

    fn failed(&mut self, history: &JobHistory, generation: Generation, epoch: Epoch) -> Vec<Output> {
        let State::Running { checkpoint: Checkpoint::Collecting { .. }, .. } = &self.state else { return Vec::new() };
        if generation != self.generation || epoch <= history.decided() {
            return Vec::new();
        }
        self.abandon(epoch)
    }

    /// Source partitions that nobody knew are made part of the job, before anything of them is read.
    fn found(&mut self, history: &JobHistory, found: SourcesFound) -> Vec<Output> {
        let generation = self.generation;
        // While some are decided on, others are found again later.
        let State::Running { adding: adding @ false, .. } = &mut self.state else { return Vec::new() };
        if found.generation != generation {
            return Vec::new();
        }
        match history.unknown(found.sources) {
            Ok(sources) if sources.is_empty() => Vec::new(),
            Ok(sources) => {
                *adding = true;
                vec![Output::Propose(Entry::SourcesAdded { generation, sources })]
            }
            Err(refusal) => self.end(Output::Refuse(refusal)),
        }
    }

    fn abandon(&mut self, epoch: Epoch) -> Vec<Output> {
        if let State::Running { checkpoint, .. } = &mut self.state {
            *checkpoint = Checkpoint::Proposed { epoch };
        }
        vec![Output::Propose(Entry::CheckpointAbandoned { generation: self.generation, epoch })]
    }

    fn decided(&mut self, history: &JobHistory, now: Now, entry: Entry, outcome: Result<(), Refused>) -> Vec<Output> {
        let (generation, mine) = (self.generation, self.asked_for(&entry));
        if !mine {
            return Vec::new();
        }
        if outcome.is_err() {
            // Only a newer generation, or another leader of the same number, can have come before it.
            return self.end(Output::Superseded);
        }
        match entry {
            Entry::Created(_) => Vec::new(),
            Entry::GenerationStarted { .. } => {
                self.enter(State::Fencing { fenced: vec![false; self.tasks as usize] });
                self.to_all(|| Command::Fence { generation })
            }
            Entry::PlanCommitted { .. } => {
                let plan = history.recovery_plan().expect("the shell has applied the plan");
                assert_eq!(plan.generation, generation, "a plan of another generation was applied");
                self.enter(State::Running {
                    checkpoint: Checkpoint::None { since: now },
                    wanted: false,
                    adding: false,
                });
                self.to_all(|| Command::Run(Box::new(plan.clone())))
            }
            Entry::CheckpointCommitted(record) => {
                assert!(history.lineage().contains(generation, record.epoch), "the shell has applied the checkpoint");
                self.reset_checkpoint(now);
                self.to_all(|| Command::Committed { generation, epoch: record.epoch })
            }
            Entry::CheckpointAbandoned { epoch, .. } => {
                self.reset_checkpoint(now);
                self.to_all(|| Command::Abandoned { generation, epoch })
            }
            Entry::SourcesAdded { sources, .. } => {
                if let State::Running { adding, .. } = &mut self.state {
                    *adding = false;
                }
                self.to_all(|| Command::AddSources { generation, sources: sources.clone() })
            }
        }
    }

    /// Whether the entry is the proposal that this leader waits for.
    fn asked_for(&self, entry: &Entry) -> bool {
        match (&self.state, entry) {
            (State::Starting, Entry::GenerationStarted { generation, .. })
            | (State::Planning, Entry::PlanCommitted { generation, .. }) => *generation == self.generation,
            (State::Running { checkpoint: Checkpoint::Proposed { epoch }, .. }, Entry::CheckpointCommitted(record)) => {
                (record.generation, record.epoch) == (self.generation, *epoch)
            }
            (
                State::Running { checkpoint: Checkpoint::Proposed { epoch }, .. },
                Entry::CheckpointAbandoned { generation, epoch: given_up },
            ) => (*generation, *given_up) == (self.generation, *epoch),
            (State::Running { adding, .. }, Entry::SourcesAdded { generation, .. }) => {
                *adding && *generation == self.generation
            }
            _ => false,
        }
    }

    fn reset_checkpoint(&mut self, now: Now) {
        if let State::Running { checkpoint, .. } = &mut self.state {
            *checkpoint = Checkpoint::None { since: now };
        }
    }
}

/// Chooses B, or says why the job cannot go on.
fn plan(history: &JobHistory, fingerprint: u64, reports: &[ScanReport]) -> Result<Epoch, Refusal> {
    let checkpoint = history.checkpoint_epoch();
    let found: Vec<_> = reports.iter().flat_map(|report| report.bindings.iter().copied()).collect();
    let last_binding = last_binding(checkpoint, &history.caps(), &found)?;
    if let Some(past) = history.last_plan() {
        if last_binding < past.last_binding {
            let (generation, expected) = (past.generation, past.last_binding);
            return Err(Refusal::BindingsLost { generation, expected, found: last_binding });
        }
        let stored = past.fingerprint;
        if stored != fingerprint && last_binding > checkpoint {
            return Err(Refusal::FingerprintChanged { stored, current: fingerprint, checkpoint, last_binding });
        }
    }
    for SinkTail { of, epoch, end } in reports.iter().flat_map(|report| report.sinks.iter().copied()) {
        if let Some(epoch) = epoch.filter(|epoch| *epoch > last_binding) {
            return Err(Refusal::SinkBeyondBinding { of, epoch, last_binding });
        }
        let stored = match history.checkpoint() {
            Some(record) => &record.sinks[..],
            None => history.zero().map_or(&[][..], |zero| &zero.sinks),
        };
        if let Some((_, expected)) = stored.iter().find(|(sink, expected)| *sink == of && *expected > end) {
            return Err(Refusal::SinkBehindCheckpoint { of, end, expected: *expected, checkpoint });
        }
    }
    Ok(last_binding)
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
