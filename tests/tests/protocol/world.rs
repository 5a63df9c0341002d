//! A job on simulated brokers: the real decisions, sinks, bindings, stores and changelogs, driven one call at a time.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use thalweg_connectors::log::simulated::{SimulatedCluster, SimulatedLog};
use thalweg_connectors::log::{Delivery, Log, NewRecord, Producer, Retention, SinkProducer, TopicSpec};
use thalweg_coordinator::{Entry, Event, JobHistory, Leader, Limits, Now, Output};
use thalweg_core::{
    CheckpointZero, Command, Epoch, Generation, JobId, JobName, Lineage, PartitionId, RecoveryPlan, SinkKey, TaskIndex,
};
use thalweg_runtime::bindings::Stored;

use crate::chance::{Chance, Question, THIRDS, clean};
use crate::mistakes::{Known, Mistake, WrongLog};
use crate::observer::Observer;
use crate::reference::{Cuts, partitions};
use crate::task::Task;

pub(crate) const SINKS: u16 = 2;
/// Of the job, and of each sink's topic.
pub(crate) const PARTITIONS: u16 = 2;
pub(crate) const JOB: JobId = JobId(7);
pub(crate) const PLAN: u64 = 1;
pub(crate) const STORE: &str = "rows";
/// The id of somebody else.
pub(crate) const STRANGER: &str = "stranger";
/// What that one writes.
pub(crate) const STRANGE: &[u8] = b"strange";
const TRANSACTION_MS: u64 = 10_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Far more than any run needs: a run that does not end is a mistake.
const MOST_STEPS: usize = 800;

pub(crate) fn sink_topic(sink: u16) -> String {
    format!("sink-{sink}")
}

pub(crate) fn bindings_topic() -> String {
    format!("bindings-{JOB}")
}

pub(crate) fn changelog() -> String {
    thalweg_runtime::changelogs::changelog_topic(JOB, STORE)
}

/// What may happen in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) tasks: u32,
    /// Every second generation has one task.
    pub(crate) merged: bool,
    /// There is a keyed store, with a changelog.
    pub(crate) stores: bool,
    pub(crate) epochs: usize,
    pub(crate) generations: usize,
    pub(crate) checkpoints: usize,
    pub(crate) mistake: Option<Mistake>,
}

/// Something that can be done next. Indices are of a generation and a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A task does what the leader's next command says.
    Obey(usize, usize),
    /// A task seals its store and syncs its sinks at the checkpoint.
    Seal(usize, usize),
    /// It writes the changelog.
    Log(usize, usize),
    /// It writes the synced file.
    File(usize, usize),
    Acknowledge(usize, usize),
    Flush(usize, usize),
    Write(usize, usize),
    Bind(usize),
    Mint(usize),
    CheckpointWanted(usize),
    /// A checkpoint that is being taken is given up.
    GiveUp(usize),
    /// The processes of the last generation go on, somewhere else, for nobody has told them.
    NewGeneration,
    /// They were killed; what is on their disks is found again.
    Killed,
    /// Open transactions come to their time's end.
    TimePasses,
    /// So do tombstones that a cleaning has seen.
    DayPasses,
    /// A prefix of a partition of the changelog is cleaned.
    Clean(u16, u64),
    /// Somebody else's transaction in a topic of the job.
    StrangerBegins,
    StrangerEnds,
    BindingsDropped,
}

impl Action {
    fn actor(self) -> Option<(usize, usize)> {
        match self {
            Self::Obey(g, t)
            | Self::Seal(g, t)
            | Self::Log(g, t)
            | Self::File(g, t)
            | Self::Acknowledge(g, t)
            | Self::Flush(g, t)
            | Self::Write(g, t) => Some((g, t)),
            Self::Bind(g) | Self::Mint(g) | Self::CheckpointWanted(g) | Self::GiveUp(g) => Some((g, 0)),
            Self::NewGeneration
            | Self::Killed
            | Self::TimePasses
            | Self::DayPasses
            | Self::Clean(..)
            | Self::StrangerBegins
            | Self::StrangerEnds
            | Self::BindingsDropped => None,
        }
    }
}

pub(crate) struct Gen {
    pub(crate) number: Generation,
    leader: Leader,
    pub(crate) tasks: Vec<Task>,
    pub(crate) stored: Vec<Stored>,
    /// What each epoch was cut to, and how many are bound for sure.
    pub(crate) cuts: Cuts,
    pub(crate) durable: usize,
    /// B.
    pub(crate) replay_until: usize,
    pub(crate) checkpoint: Option<usize>,
}

/// See the module's description.
pub(crate) struct World {
    pub(crate) scope: Scope,
    chance: Arc<Chance>,
    pub(crate) cluster: Arc<SimulatedCluster>,
    history: Arc<Mutex<JobHistory>>,
    known: Arc<Mutex<Known>>,
    pub(crate) gens: Vec<Gen>,
    pub(crate) observer: Observer,
    /// The cuts of the epochs up to C, which the state holds.
    pub(crate) committed: Cuts,
    /// Every checkpoint that was committed.
    all_committed: Vec<(Generation, Epoch)>,
    /// The disk that each task index used last, and who used it.
    folders: Vec<Option<(PathBuf, (usize, usize))>>,
    disk: Option<tempfile::TempDir>,
    stranger: Option<Box<dyn Producer>>,
    strangers_left: usize,
    checkpoints_left: usize,
    last: Option<(usize, usize)>,
    pub(crate) trace: Vec<String>,
    pub(crate) steps: usize,
}

pub(crate) type Step = std::result::Result<(), String>;

/// In memory where there is such a thing: what is written there is synced.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

impl World {
    fn new(scope: Scope, chance: Arc<Chance>) -> Self {
        let cluster = SimulatedCluster::new(chance.clone(), TRANSACTION_MS, TRANSACTION_MS);
        let world = Self {
            scope,
            chance,
            cluster,
            history: Arc::default(),
            known: Arc::default(),
            gens: Vec::new(),
            observer: Observer::new(scope.stores),
            committed: Vec::new(),
            all_committed: Vec::new(),
            folders: vec![None; scope.tasks as usize],
            disk: scope.stores.then(disk),
            stranger: None,
            strangers_left: 1,
            checkpoints_left: scope.checkpoints,
            last: None,
            trace: Vec::new(),
            steps: 0,
        };
        for sink in 0..SINKS {
            let topic = TopicSpec { name: sink_topic(sink), partitions: PARTITIONS.into(), retention: Retention::Keep };
            world.client().ensure(&topic).expect("a topic");
        }
        let keys =
            (0..SINKS).flat_map(|sink| (0..PARTITIONS).map(move |p| SinkKey { sink, partition: PartitionId(p) }));
        let zero = CheckpointZero {
            job_id: JOB,
            job: JobName::new("simulated").expect("a name"),
            partitions: partitions(),
            hash: String::new(),
            sources: vec![],
            sinks: keys.map(|key| (key, 0)).collect(),
            created_at: 0,
        };
        world.history().apply(Entry::Created(zero)).expect("there is no job yet");
        world
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, JobHistory> {
        self.history.lock().expect("nobody panics with it")
    }

    /// A client of a process of its own.
    fn client(&self) -> Arc<SimulatedLog> {
        let (history, mistake) = (Arc::clone(&self.history), self.scope.mistake);
        let look = move || {
            let current = history.lock().expect("nobody panics with it").generation();
            Ok(if mistake == Some(Mistake::NoLookAfterInit) { Generation(0) } else { current })
        };
        Arc::new(SimulatedLog::new(Arc::clone(&self.cluster), Arc::new(look)))
    }

    fn log(&self) -> Arc<dyn Log> {
        let inner = self.client();
        let Some(mistake) = self.scope.mistake else { return inner };
        Arc::new(WrongLog {
            inner,
            cluster: Arc::clone(&self.cluster),
            history: Arc::clone(&self.history),
            mistake,
            known: Arc::clone(&self.known),
            done: Arc::default(),
        })
    }

    pub(crate) fn is(&self, mistake: Mistake) -> bool {
        self.scope.mistake == Some(mistake)
    }

    /// Runs until nothing is left to do, then lets a new generation alone show one more epoch.
    fn run(&mut self) -> Step {
        self.new_generation()?;
        while let Some(action) = self.choose() {
            self.act(action)?;
        }
        self.chance.calm();
        self.scope.epochs += 1;
        self.stranger = None;
        self.new_generation()?;
        let current = self.gens.len() - 1;
        while let Some(action) = (0..self.tasks(current)).find_map(|t| self.of_task(current, t).into_iter().next()) {
            self.act(action)?;
        }
        let cuts = self.gens[current].cuts.clone();
        if cuts.len() < self.scope.epochs {
            return Err(format!("after all faults only {cuts:?} is cut"));
        }
        self.observer.shows(&cuts)
    }

    /// How many tasks a generation has.
    pub(crate) fn tasks(&self, g: usize) -> usize {
        if self.scope.merged && g % 2 == 1 { 1 } else { self.scope.tasks as usize }
    }

    fn choose(&mut self) -> Option<Action> {
        let current = self.gens.len() - 1;
        let mut actors: Vec<(usize, usize)> = self.last.into_iter().collect();
        for g in (0..=current).rev() {
            actors.extend((0..self.tasks(g)).map(|t| (g, t)).filter(|actor| Some(*actor) != self.last));
        }
        let mut actions = Vec::new();
        // Where there is state, checkpoints are what it is about.
        if self.scope.stores && self.checkpoints_left > 0 && self.may_checkpoint(current) {
            actions.push(Action::CheckpointWanted(current));
        }
        actions.extend(actors.into_iter().flat_map(|(g, t)| self.of_task(g, t)));
        if actions.is_empty() && self.gens[current].tasks.iter().any(|task| task.dead) {
            actions.push(Action::NewGeneration);
        }
        if !self.scope.stores && self.checkpoints_left > 0 && self.may_checkpoint(current) {
            actions.push(Action::CheckpointWanted(current));
        }
        if actions.is_empty() {
            return None;
        }
        self.faults(current, &mut actions);
        Some(actions[self.chance.choose(Question::Action, actions.len())])
    }

    fn faults(&self, current: usize, actions: &mut Vec<Action>) {
        if self.gens.len() < self.scope.generations {
            actions.push(Action::NewGeneration);
            actions.extend(self.scope.stores.then_some(Action::Killed));
        }
        actions.push(Action::TimePasses);
        if self.stranger.is_some() {
            actions.push(Action::StrangerEnds);
        } else if self.strangers_left > 0 {
            actions.push(Action::StrangerBegins);
        }
        if self.gens[current].leader.checkpoint_open() && self.gens[current].checkpoint.is_some() {
            actions.push(Action::GiveUp(current));
        }
        if self.scope.stores {
            actions.push(Action::DayPasses);
            let thirds = self.steps as u64 % THIRDS + 1;
            actions.extend((0..PARTITIONS).map(|partition| Action::Clean(partition, thirds)));
        }
        if self.is(Mistake::BindingsUnderRetention) && self.gens[current].durable > 0 {
            actions.push(Action::BindingsDropped);
        }
    }

    fn may_checkpoint(&self, g: usize) -> bool {
        let generation = &self.gens[g];
        let running = generation.tasks.iter().all(|task| task.running && !task.dead);
        running && !generation.leader.checkpoint_open() && generation.durable > self.committed.len()
    }

    /// Everything that a task can do next.
    fn of_task(&self, g: usize, t: usize) -> Vec<Action> {
        let (generation, mut all) = (&self.gens[g], Vec::new());
        let task = &generation.tasks[t];
        if task.dead {
            return all;
        }
        let most = generation.tasks.iter().map(|task| task.written).max().unwrap_or(0);
        match task.inbox.front() {
            // A checkpoint needs an epoch after the one that is decided.
            Some(Command::Checkpoint { .. }) if most.max(generation.checkpoint.unwrap_or(0)) <= self.decided() => {}
            Some(_) => all.push(Action::Obey(g, t)),
            None => {}
        }
        if !task.running {
            return all;
        }
        all.extend(self.checkpoint_step(g, t));
        let early = self.is(Mistake::CheckpointBeforeSinks);
        let decision = |command: &Command| matches!(command, Command::Committed { .. } | Command::Abandoned { .. });
        let told = !task.inbox.iter().any(decision);
        if task.asked
            && told
            && generation.checkpoint.is_some_and(|at| at == task.written || early && at > task.written)
        {
            all.push(Action::Seal(g, t));
        }
        if task.flushed < task.written {
            all.push(Action::Flush(g, t));
        }
        let bound = if self.is(Mistake::VisibleBeforeDurable) { generation.cuts.len() } else { generation.durable };
        let held = generation.checkpoint.is_some_and(|at| task.written >= at && task.synced < at);
        if task.written < bound && !held {
            all.push(Action::Write(g, t));
        }
        if t == 0 {
            if generation.durable < generation.cuts.len() {
                all.push(Action::Bind(g));
            }
            if generation.cuts.len() < self.scope.epochs {
                all.push(Action::Mint(g));
            }
        }
        all
    }

    fn decided(&self) -> usize {
        self.history().decided().0 as usize
    }

    fn act(&mut self, action: Action) -> Step {
        self.steps += 1;
        self.trace.push(format!("{action:?}"));
        if self.steps > MOST_STEPS {
            return Err("the run does not end".to_owned());
        }
        if let Some(actor) = action.actor() {
            self.last = Some(actor);
        }
        match action {
            Action::Obey(g, t) => self.obey(g, t)?,
            Action::Seal(g, t) => self.seal(g, t)?,
            Action::Log(g, t) => self.write_changelog(g, t)?,
            Action::File(g, t) => self.write_file(g, t)?,
            Action::Acknowledge(g, t) => self.acknowledge(g, t)?,
            Action::Flush(g, t) => self.flush(g, t)?,
            Action::Write(g, t) => self.write(g, t)?,
            Action::Bind(g) => self.bind(g)?,
            Action::Mint(g) => {
                let generation = &mut self.gens[g];
                // Every generation would cut an epoch in its own way.
                let cut = (generation.cuts.len() as u64 + 1) * 10 + generation.number.0;
                generation.cuts.push(cut);
            }
            Action::CheckpointWanted(g) => {
                self.checkpoints_left -= 1;
                self.tell(g, Event::CheckpointWanted)?;
            }
            Action::GiveUp(g) => {
                let (generation, at) = (self.gens[g].number, self.gens[g].checkpoint.expect("it was chosen"));
                self.tell(g, Event::CheckpointFailed { generation, epoch: Epoch(at as u64) })?;
            }
            Action::NewGeneration => self.new_generation()?,
            Action::Killed => {
                let current = self.gens.len() - 1;
                self.gens[current].tasks.iter_mut().for_each(Task::die);
                self.new_generation()?;
            }
            Action::TimePasses => self.cluster.advance(TRANSACTION_MS / 2),
            Action::DayPasses => self.cluster.advance(DAY_MS),
            Action::Clean(partition, thirds) => clean(&self.cluster, partition, thirds),
            Action::StrangerBegins | Action::StrangerEnds => self.stranger(),
            Action::BindingsDropped => {
                let dropped = self.cluster.drop_records(&bindings_topic(), PartitionId(0), u64::MAX);
                dropped.expect("the topic is there");
            }
        }
        self.observer.look(&self.cluster)
    }

    fn stranger(&mut self) {
        if let Some(mut stranger) = self.stranger.take() {
            // Its time may be over; whatever comes of it is its own matter.
            let _ = stranger.commit();
            return;
        }
        self.strangers_left -= 1;
        let mut stranger = self.client().fence(STRANGER, Generation(u64::MAX)).expect("nobody else has it");
        let record = NewRecord { value: Some(STRANGE.to_vec()), ..NewRecord::default() };
        let written = stranger.begin().and_then(|()| stranger.append(&sink_topic(0), PartitionId(0), record));
        written.expect("nothing fails for it");
        self.stranger = Some(stranger);
    }

    /// What a task restores from, with its own partitions.
    pub(crate) fn recovery_of(&self, plan: &RecoveryPlan, hosted: &BTreeSet<PartitionId>) -> RecoveryPlan {
        let mut plan = plan.clone();
        if let Some(record) = &mut plan.checkpoint {
            record.stores.retain(|state| hosted.contains(&state.partition));
        }
        if self.is(Mistake::AbandonedCounted) {
            plan.lineage = Lineage::default();
            self.all_committed.iter().for_each(|(generation, epoch)| plan.lineage.commit(*generation, *epoch));
        }
        plan
    }

    /// The disk of a task: that of the one before it, where that is dead, else an empty one.
    fn folder(&mut self, g: usize, t: usize) -> PathBuf {
        let Some(disk) = self.disk.as_ref().map(|disk| disk.path()) else { return PathBuf::new() };
        let free = |user: &(usize, usize)| self.gens[user.0].tasks[user.1].dead;
        let found = self.folders[t].take().filter(|(_, user)| free(user));
        let path = found.map_or_else(|| disk.join(format!("{g}-{t}")), |(path, _)| path);
        self.folders[t] = Some((path.clone(), (g, t)));
        path
    }
}

/// The coordinator.
impl World {
    fn new_generation(&mut self) -> Step {
        let limits = Limits { checkpoint_interval: Duration::MAX, ..Limits::default() };
        let count = self.tasks(self.gens.len());
        let (leader, outputs) = Leader::start(&self.history(), Now(0), count as u32, PLAN, limits);
        let g = self.gens.len();
        let task = |task: usize| {
            let log = self.log();
            let producer = SinkProducer::new(Arc::clone(&log), format!("{JOB}-sinks-{task}"), Delivery::ExactlyOnce);
            Task::new(log, Arc::new(producer), self.folder(g, task))
        };
        let tasks = (0..count).map(task).collect();
        let number = leader.generation();
        self.gens.push(Gen {
            number,
            leader,
            tasks,
            stored: Vec::new(),
            cuts: Vec::new(),
            durable: 0,
            replay_until: 0,
            checkpoint: None,
        });
        self.last = None;
        self.perform(self.gens.len() - 1, outputs)
    }

    pub(crate) fn tell(&mut self, g: usize, event: Event) -> Step {
        let outputs = {
            let history = self.history.lock().expect("nobody panics with it");
            self.gens[g].leader.handle(&history, Now(0), event)
        };
        self.perform(g, outputs)
    }

    fn perform(&mut self, g: usize, outputs: Vec<Output>) -> Step {
        for output in outputs {
            match output {
                Output::Propose(entry) => {
                    let outcome = self.history().apply(entry.clone());
                    if outcome.is_ok() {
                        self.applied(g, &entry)?;
                    }
                    self.tell(g, Event::Decided(entry, outcome))?;
                }
                Output::Send(task, command) => {
                    self.gens[g].tasks[task.0 as usize].inbox.push_back(command);
                }
                Output::Refuse(refusal) => return Err(refusal.to_string()),
                Output::Recover(_) | Output::Superseded => {}
            }
        }
        Ok(())
    }

    /// A checkpoint is committed: everything is at it.
    fn applied(&mut self, g: usize, entry: &Entry) -> Step {
        let Entry::CheckpointCommitted(record) = entry else { return Ok(()) };
        let cuts = self.gens[g].cuts[..record.epoch.0 as usize].to_vec();
        let behind = |why| format!("checkpoint {} is committed: {why}", record.epoch);
        self.observer.look(&self.cluster)?;
        self.observer.see(&cuts)?;
        self.observer.shows(&cuts).map_err(behind)?;
        self.committed = cuts;
        self.all_committed.push((record.generation, record.epoch));
        let mut known = self.known.lock().expect("nobody panics with it");
        let ends = record.stores.iter().filter(|state| state.changelog > 0);
        known.ends_of_c.extend(ends.map(|state| (state.partition, state.changelog)));
        Ok(())
    }

    /// Who is told of: the task itself, and with a forgery all the others.
    pub(crate) fn reporters(&self, g: usize, t: usize, forge: bool) -> Vec<TaskIndex> {
        let all = (0..self.tasks(g)).filter(|task| forge || *task == t);
        all.map(|task| TaskIndex(task as u32)).collect()
    }

    /// The inbox's next command. Where nobody waits for the fences of others, they may come last.
    pub(crate) fn next_command(&mut self, g: usize, t: usize) -> Option<Command> {
        let late = self.is(Mistake::NoFirstBarrier) && t > 0;
        let inbox: &mut VecDeque<Command> = &mut self.gens[g].tasks[t].inbox;
        let overtaken = late && inbox.len() > 1 && matches!(inbox.front(), Some(Command::Fence { .. }));
        inbox.remove(usize::from(overtaken))
    }
}

/// A run; what is wrong with it, with its steps.
pub(crate) fn run(scope: Scope, chance: &Arc<Chance>) -> std::result::Result<World, String> {
    let mut world = World::new(scope, Arc::clone(chance));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    let said = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    };
    match outcome.unwrap_or_else(said) {
        Ok(()) => Ok(world),
        Err(why) => Err(format!("{why}\nafter {}", world.trace.join(" > "))),
    }
}
