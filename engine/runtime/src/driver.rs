//! The thread that drives a task: it ends epochs, makes their bindings durable, releases them, and carries checkpoints between
//! the coordinator and the workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use thalweg_core::{
    Binding, CheckpointAck, Command, Epoch, Error, Generation, Histogram, PartitionSpec, Report, Result, Series, Share,
    SourceKey, SourceState, TaskIndex, failpoint,
};
use thalweg_operators::{Barrier, Cutting, EpochGate, NO_TIMER, Plan, SourceEvent};

use crate::bindings::BindingsWriter;
use crate::clock::wall_clock;
use crate::discovery::Known;
use crate::event::{CheckpointMessage, DriverEvent, Durable, Question, TaskEvent, WorkerMessage, unavailable};
use crate::members::Members;
use crate::merge::merge_replies;
use crate::minter::{Cut, Facts, Minter};
use crate::retry::Retries;
use crate::shared::Shared;
use crate::sinks::SinkMessage;

/// How long the sinks may take to show an epoch that was released to them, where the driver waits for that.
const SHOWN: Duration = Duration::from_secs(20);
/// Most bindings that are appended at once.
const GROUP: usize = 64;

/// What the driver keeps about the running generation.
pub(crate) struct Driver {
    pub(crate) task: TaskIndex,
    pub(crate) generation: Generation,
    pub(crate) fingerprint: u64,
    pub(crate) plan: Arc<Plan>,
    pub(crate) gate: Arc<EpochGate>,
    pub(crate) minter: Minter,
    pub(crate) bindings: BindingsWriter,
    pub(crate) keep_bindings: bool,
    pub(crate) sources: Members,
    pub(crate) known: Known,
    /// The positions at the last released epoch.
    pub(crate) positions: BTreeMap<SourceKey, u64>,
    /// The last epoch whose binding was durable when the task started: it is repeated, not bound again.
    pub(crate) replay_until: Epoch,
    pub(crate) next_binding: Epoch,
    pub(crate) last_minted: i64,
    pub(crate) shares: BTreeMap<Epoch, Vec<Share>>,
    pub(crate) checkpoint: CheckpointState,
    /// A checkpoint was asked for and is not begun: one is open still, or there is nothing new to keep.
    pub(crate) checkpoint_wanted: bool,
    pub(crate) retries: Retries,
    /// Bytes of changes beyond which a checkpoint is wanted early; nothing is minted beyond twice as many.
    pub(crate) soft_cap: u64,
    pub(crate) early_asked: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) sinks: Sender<SinkMessage>,
    pub(crate) checkpoints: Sender<CheckpointMessage>,
    pub(crate) tell: Arc<dyn Fn(TaskEvent) + Send + Sync>,
    pub(crate) started: Instant,
    pub(crate) drained: bool,
    pub(crate) epochs_open: Series,
    pub(crate) latency: Histogram,
    pub(crate) end_to_end: Histogram,
    /// The last epoch whose latency was observed.
    pub(crate) observed: Epoch,
}

/// Where the one checkpoint that may be undecided stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CheckpointState {
    /// None is open; the last one applied is this.
    Idle(Epoch),
    /// Sealed at an epoch, with what its record says of the sources.
    Writing(Epoch, Vec<SourceState>, i64, Instant),
    /// Acknowledged, not decided.
    Undecided(Epoch, Vec<SourceState>, Instant),
    /// Decided; so many workers have not been told. None may seal the next one before it has let go of this one.
    Settling(Epoch, usize),
}

impl Driver {
    /// Runs until the task is stopped or fails.
    pub(crate) fn run(&mut self, inbox: &Receiver<DriverEvent>) -> Result<()> {
        loop {
            let wait = self.turn()?;
            let first = match wait {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => inbox.recv_timeout(wait),
            };
            match first {
                Ok(event) => {
                    for event in std::iter::once(event).chain(inbox.try_iter()) {
                        if self.handle(event)? {
                            return Ok(());
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Takes one event; returns whether the task is over.
    fn handle(&mut self, event: DriverEvent) -> Result<bool> {
        match event {
            DriverEvent::Source(SourceEvent::Share(epoch, share)) => self.shares.entry(epoch).or_default().push(share),
            DriverEvent::Source(SourceEvent::Opened(epoch, at)) => {
                self.minter.opened(epoch, at.saturating_duration_since(self.started));
            }
            DriverEvent::Source(SourceEvent::Full(epoch)) => self.minter.full(epoch),
            DriverEvent::Source(SourceEvent::Ended(_)) => self.minter.ended(),
            DriverEvent::Source(SourceEvent::Seen(_)) => self.minter.seen(),
            DriverEvent::Progress => {}
            DriverEvent::Durable(durable) => self.acknowledge(durable),
            DriverEvent::Applied(epoch) => self.applied(epoch)?,
            DriverEvent::CheckpointFailed(epoch, error) => self.checkpoint_failed(epoch, error)?,
            DriverEvent::Settled(epoch) => self.settled(epoch),
            DriverEvent::Ask(question) => self.ask_all(*question),
            DriverEvent::Stop => {
                self.minter.stop();
                self.gate.stop();
            }
            DriverEvent::Failed => return Ok(true),
            DriverEvent::Command(command) => return self.command(command),
        }
        Ok(false)
    }

    fn command(&mut self, command: Command) -> Result<bool> {
        match command {
            Command::Checkpoint { generation } if generation == self.generation => {
                self.checkpoint_wanted = true;
            }
            Command::Committed { generation, epoch } if generation == self.generation => {
                let _ = self.checkpoints.send(CheckpointMessage::Committed(epoch));
            }
            Command::Abandoned { generation, epoch } if generation == self.generation => self.abandoned(epoch),
            Command::AddSources { generation, sources } if generation == self.generation => {
                self.add_sources(&sources)?
            }
            Command::Stop => return Ok(true),
            // Of another generation, or of a step that is over: stale.
            Command::Checkpoint { .. }
            | Command::Committed { .. }
            | Command::Abandoned { .. }
            | Command::AddSources { .. } => {}
            Command::Fence { .. } | Command::Scan { .. } | Command::Run(_) => {
                let text = format!("generation {} is running and was told {command:?}", self.generation);
                return Err(Error::internal("protocol", text));
            }
        }
        Ok(false)
    }

    /// Takes source partitions in that the job's history knows: from the open epoch on. Sinks hear of them before any source does.
    fn add_sources(&mut self, sources: &[PartitionSpec]) -> Result<()> {
        failpoint::pass("growth-added")?;
        let _ = self.sinks.send(SinkMessage::Added(sources.iter().map(|spec| spec.of.partition).collect()));
        let first = self.gate.add(sources);
        let names: Vec<&str> = sources.iter().map(|spec| spec.name.as_str()).collect();
        tracing::info!(epoch = %first, "read from now on as well: {}", names.join(", "));
        self.sources.add(first, sources);
        self.known.lock().extend_from_slice(sources);
        self.minter.added(sources.len());
        self.shared.set_sources(self.sources.all());
        Ok(())
    }

    /// Does what is due; says how long nothing will be, if anything is.
    fn turn(&mut self) -> Result<Option<Duration>> {
        self.bind()?;
        let processed = self.gate.processed();
        self.epochs_open.set(self.gate.cut().0.saturating_sub(1).saturating_sub(processed.0) as f64);
        self.observe_latency(processed);
        self.shared.processed(processed);
        let retry = self.begin_checkpoint();
        self.bound_changes();
        let cut = self.cut_epochs()?;
        let tend = self.bindings.tend();
        Ok([retry, cut, tend].into_iter().flatten().min())
    }

    /// Ends the epochs that are due to end; says when another will be.
    fn cut_epochs(&mut self) -> Result<Option<Duration>> {
        let timer = self.gate.earliest_timer();
        let timer_in = (timer != NO_TIMER).then(|| Duration::from_micros((timer - wall_clock()).max(0) as u64));
        loop {
            let facts = Facts {
                now: self.started.elapsed(),
                timer_in,
                wanted: self.wants_epoch(),
                processed: self.gate.processed(),
                highest: self.gate.highest(),
            };
            // While recorded epochs are repeated nothing is minted.
            let wait = self.next_binding <= self.gate.recorded().last() || self.gate.held();
            let cut = if wait { Cut::Wait } else { self.minter.decide(facts) };
            match cut {
                Cut::Before(epoch) => {
                    failpoint::pass("epoch-cut")?;
                    self.gate.cut_before(epoch);
                }
                Cut::At(due) => return Ok(Some(due.saturating_sub(facts.now).max(Duration::from_micros(100)))),
                Cut::Wait => {
                    self.tell_drained(self.gate.recorded_only())?;
                    return Ok(None);
                }
                Cut::Over => {
                    self.tell_drained(true)?;
                    return Ok(None);
                }
            }
        }
    }

    /// Whether an epoch is needed, even an empty one: for a checkpoint after one that was given up. Where epochs are cut by count,
    /// or as another run has cut them, none may be added.
    fn wants_epoch(&self) -> bool {
        self.checkpoint_wanted
            && self.may_add_epochs()
            && self.retries.needs_epoch(self.gate.released())
            && self.retries.wait(self.started.elapsed()).is_zero()
            // Nothing that will be released is on its way.
            && self.gate.cut() == self.next_binding
    }

    fn may_add_epochs(&self) -> bool {
        self.gate.limits().cutting == Cutting::Together && !self.gate.recorded_only()
    }

    /// Makes the bindings of complete epochs durable, in order, then releases them.
    fn bind(&mut self) -> Result<()> {
        loop {
            let mut batch = Vec::new();
            while batch.len() < GROUP {
                let wanted = self.sources.at(self.next_binding);
                if self.shares.get(&self.next_binding).is_none_or(|shares| shares.len() < wanted) {
                    break;
                }
                let mut shares = self.shares.remove(&self.next_binding).expect("it is complete");
                shares.sort_by_key(|share| share.of);
                self.positions.extend(shares.iter().map(|share| (share.of, share.next)));
                let binding = Binding {
                    epoch: self.next_binding,
                    generation: self.generation,
                    minted_at: self.mint_time(self.next_binding),
                    shares,
                };
                self.next_binding = self.next_binding.next();
                // A repeated epoch has its binding already: the sources have compared their shares with it.
                if binding.epoch > self.replay_until {
                    batch.push(binding);
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            if failpoint::bug("sink-before-binding") {
                self.gate.release(&batch);
                self.await_shown(batch.last().map_or(Epoch::ZERO, |binding| binding.epoch));
                self.bindings.append(&batch)?;
            } else {
                self.bindings.append(&batch)?;
                if batch.iter().any(|binding| self.sources.joined_at(binding.epoch)) {
                    failpoint::pass("growth-bound")?;
                }
                self.gate.release(&batch);
            }
            failpoint::pass("epoch-released")?;
            let now = wall_clock();
            batch.iter().for_each(|binding| self.latency.observe((now - binding.minted_at).max(0) as f64 / 1e6));
        }
    }

    /// Of the bug `sink-before-binding`: the sinks show the epoch for certain, not by chance, when its binding may still fail.
    fn await_shown(&self, epoch: Epoch) {
        let began = Instant::now();
        while self.gate.processed() < epoch && began.elapsed() < SHOWN {
            std::thread::yield_now();
        }
    }

    /// From the end of an epoch to the moment when its results can be read.
    fn observe_latency(&mut self, processed: Epoch) {
        while self.observed < processed.min(self.gate.released()) {
            self.observed = self.observed.next();
            if let Some(minted_at) = self.gate.try_time_of(self.observed) {
                self.end_to_end.observe((wall_clock() - minted_at).max(0) as f64 / 1e6);
            }
        }
    }

    /// The time of an epoch: recorded, logical where epochs are cut by count (so that any two runs agree), else the wall clock,
    /// which never goes back.
    fn mint_time(&mut self, epoch: Epoch) -> i64 {
        let time = match self.gate.recorded().binding(epoch) {
            Some(recorded) => recorded.minted_at,
            None if self.gate.limits().cutting == Cutting::ByCount => epoch.0 as i64 * 1000,
            None => wall_clock().max(self.last_minted),
        };
        self.last_minted = time;
        time
    }

    /// Chooses the epoch of a checkpoint that was asked for: the last released one, before anything more is released. Says how long
    /// that has to wait, where the last attempt has failed.
    fn begin_checkpoint(&mut self) -> Option<Duration> {
        let CheckpointState::Idle(last) = self.checkpoint else { return None };
        if !self.checkpoint_wanted {
            return None;
        }
        let wait = self.retries.wait(self.started.elapsed());
        if !wait.is_zero() {
            return Some(wait);
        }
        let epoch = self.gate.released();
        // In a replay the positions at the last released epoch are known when it is read again.
        if epoch <= last || self.next_binding <= epoch {
            return None;
        }
        self.checkpoint_wanted = false;
        let sources = self.positions.iter().map(|(of, next)| SourceState { of: *of, next: *next }).collect();
        self.checkpoint = CheckpointState::Writing(epoch, sources, self.last_minted, Instant::now());
        let _ = self.checkpoints.send(CheckpointMessage::Begin(epoch));
        self.gate.set_checkpoint(epoch);
        self.shared.look();
        let _ = self.sinks.send(SinkMessage::Look);
        None
    }

    /// Changes that no checkpoint holds must stay in memory: beyond the soft cap an early checkpoint is asked for, beyond the hard
    /// one nothing more is minted until a checkpoint has made room, unless that checkpoint needs an epoch more.
    fn bound_changes(&mut self) {
        let dirty = self.gate.dirty();
        if dirty > self.soft_cap && matches!(self.checkpoint, CheckpointState::Idle(_)) && !self.early_asked {
            self.early_asked = true;
            (self.tell)(TaskEvent::CheckpointWanted);
        }
        let needs_epoch = self.retries.needs_epoch(self.gate.released());
        self.gate.hold(dirty > self.soft_cap.saturating_mul(2) && !needs_epoch);
    }

    fn acknowledge(&mut self, durable: Durable) {
        // One that was given up meanwhile may become durable before the checkpointer hears of that.
        let CheckpointState::Writing(epoch, sources, minted_at, since) = self.checkpoint.clone() else { return };
        if durable.epoch != epoch {
            return;
        }
        self.checkpoint = CheckpointState::Undecided(epoch, sources.clone(), since);
        self.shared.changed_keys(durable.changed);
        self.shared.set_state_keys(durable.stores.iter().map(|state| state.entries).sum());
        (self.tell)(TaskEvent::Report(Report::Acknowledged(Box::new(CheckpointAck {
            generation: self.generation,
            task: self.task,
            epoch,
            fingerprint: self.fingerprint,
            minted_at,
            sources,
            stores: durable.stores,
            sinks: durable.sinks,
            sinks_at: durable.sinks_at,
        }))));
    }

    fn applied(&mut self, epoch: Epoch) -> Result<()> {
        let CheckpointState::Undecided(undecided, sources, since) = self.checkpoint.clone() else {
            return Err(Error::internal(
                "protocol",
                format!("checkpoint {epoch} was applied in state {:?}", self.checkpoint),
            ));
        };
        assert_eq!(undecided, epoch, "the checkpoint that is applied is the undecided one");
        self.plan.committed(&sources)?;
        self.settle(epoch, WorkerMessage::Applied);
        self.early_asked = false;
        self.retries.committed();
        if !self.keep_bindings {
            self.bindings.trim(epoch)?;
        }
        self.shared.checkpointed(epoch, self.generation, since.elapsed(), wall_clock());
        (self.tell)(TaskEvent::Applied(epoch));
        Ok(())
    }

    /// The checkpointer cannot write a checkpoint: the coordinator decides that it is given up, which no crash forgets.
    fn checkpoint_failed(&mut self, epoch: Epoch, error: Error) -> Result<()> {
        match self.checkpoint {
            CheckpointState::Writing(open, ..) if open == epoch => {}
            // Given up already.
            _ => return Ok(()),
        }
        tracing::warn!(%epoch, "the checkpoint is given up, another one is tried soon: {error}");
        self.shared.checkpoint_failed(epoch, &error);
        self.retries.failed(error, self.started.elapsed())?;
        (self.tell)(TaskEvent::CheckpointFailed { generation: self.generation, epoch });
        Ok(())
    }

    fn abandoned(&mut self, epoch: Epoch) {
        let open = match self.checkpoint {
            CheckpointState::Writing(open, ..) | CheckpointState::Undecided(open, ..) => open,
            CheckpointState::Idle(_) | CheckpointState::Settling(..) => return,
        };
        if open == epoch {
            let _ = self.checkpoints.send(CheckpointMessage::Abandoned(epoch));
            self.settle(epoch, WorkerMessage::Abandoned);
            self.retries.given_up(epoch);
            self.early_asked = false;
            // Whatever the reason was to take it, it holds.
            (self.tell)(TaskEvent::CheckpointWanted);
        }
    }

    /// Tells every worker what became of a checkpoint.
    fn settle(&mut self, epoch: Epoch, message: fn(Epoch) -> WorkerMessage) {
        self.checkpoint = CheckpointState::Settling(epoch, self.shared.workers());
        self.shared.to_workers(|| message(epoch));
    }

    /// A worker has let go of a decided checkpoint.
    fn settled(&mut self, epoch: Epoch) {
        match &mut self.checkpoint {
            CheckpointState::Settling(open, 1) if *open == epoch => self.checkpoint = CheckpointState::Idle(epoch),
            CheckpointState::Settling(open, left) if *open == epoch => *left -= 1,
            state => panic!("a worker has settled checkpoint {epoch} in state {state:?}"),
        }
    }

    /// Says once that everything is processed which will ever come.
    ///
    /// Errors: why the last checkpoint was given up, where no epoch may follow for another attempt.
    fn tell_drained(&mut self, over: bool) -> Result<()> {
        let last = Epoch(self.next_binding.0 - 1);
        let idle = self.gate.processed().min(last) == last && self.gate.released() == last && self.shares.is_empty();
        let cut = self.gate.recorded_only() || self.gate.cut() == self.next_binding;
        if !(over && idle && cut && last >= self.gate.recorded().last()) {
            return Ok(());
        }
        if self.retries.needs_epoch(last) && !self.may_add_epochs() {
            return Err(self.retries.take_cause());
        }
        if !self.drained {
            self.drained = true;
            (self.tell)(TaskEvent::Drained(last));
        }
        Ok(())
    }

    /// Puts a question to all workers, to be answered after the last released epoch: nobody can be beyond it yet.
    fn ask_all(&mut self, question: Question) {
        let workers = self.shared.workers();
        let released = self.gate.released();
        if question.options.min_epoch.is_some_and(|wanted| wanted > released) {
            return (question.reply)(unavailable("the epoch that was asked for is not bound yet"));
        }
        let collect = merge_replies(workers, question.query.clone(), question.reply);
        self.shared.barriers(|worker| {
            let collect = collect.clone();
            Barrier {
                after: released,
                store: question.store.clone(),
                query: question.query.clone(),
                reply: Box::new(move |answer| collect(worker, answer)),
            }
        });
    }
}
