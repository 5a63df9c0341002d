//! A job on simulated brokers: the real decisions, sinks and bindings, driven one call at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg_connectors::log::simulated::{SimulatedCluster, SimulatedLog};
use thalweg_connectors::log::{
    Delivery, Log, LogSink, LogSinkConfig, NewRecord, Partitioner, Producer, Retention, SinkProducer, TopicSpec,
};
use thalweg_connectors::{EncodedBatch, EncodedRecord, Sink, SinkContext, SinkWriter};
use thalweg_coordinator::{Entry, Event, JobHistory, Leader, Limits, Now, Output, ProducerId};
use thalweg_core::{
    Binding, Blame, CheckpointAck, CheckpointZero, Command, ContentHash, Epoch, Fenced, Generation, JobId, JobName,
    PartitionCount, PartitionId, RecoveryPlan, Report, Result, ScanReport, Share, SinkKey, SourceKey, TaskIndex,
};
use thalweg_runtime::bindings::{self, BindingsWriter, Stored};

use crate::chance::{Chance, Question};
use crate::mistakes::{Mistake, WrongLog};
use crate::observer::{Cuts, Observer, count, value};

pub(crate) const SINKS: u16 = 2;
/// Of the job, and of each sink's topic.
pub(crate) const PARTITIONS: u16 = 2;
const JOB: JobId = JobId(7);
const PLAN: u64 = 1;
const TRANSACTION_MS: u64 = 10_000;
/// Far more than any run needs: a run that does not end is a mistake.
const MOST_STEPS: usize = 600;

pub(crate) fn sink_topic(sink: u16) -> String {
    format!("sink-{sink}")
}

pub(crate) fn bindings_topic() -> String {
    format!("bindings-{JOB}")
}

/// What may happen in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) tasks: u32,
    pub(crate) epochs: usize,
    pub(crate) generations: usize,
    pub(crate) checkpoints: usize,
    pub(crate) mistake: Option<Mistake>,
}

/// Something that can be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A task does what the leader's next command says.
    Obey(usize, usize),
    Acknowledge(usize, usize),
    Flush(usize, usize),
    Write(usize, usize),
    Bind(usize),
    Mint(usize),
    CheckpointWanted(usize),
    NewGeneration,
    /// Open transactions come to their time's end.
    TimePasses,
    /// Somebody else's transaction in a topic of the job.
    StrangerBegins,
    StrangerEnds,
    BindingsDropped,
}

impl Action {
    fn actor(self) -> Option<(usize, usize)> {
        match self {
            Self::Obey(g, t) | Self::Acknowledge(g, t) | Self::Flush(g, t) | Self::Write(g, t) => Some((g, t)),
            Self::Bind(g) | Self::Mint(g) | Self::CheckpointWanted(g) => Some((g, 0)),
            _ => None,
        }
    }
}

/// A task of a generation: its process, which nobody stops but itself.
struct Task {
    log: Arc<dyn Log>,
    producer: Arc<SinkProducer>,
    writers: Vec<Box<dyn SinkWriter>>,
    bindings: Option<BindingsWriter>,
    inbox: VecDeque<Command>,
    running: bool,
    asked: bool,
    written: usize,
    flushed: usize,
    synced: usize,
    dead: bool,
}

struct Gen {
    number: Generation,
    leader: Leader,
    tasks: Vec<Task>,
    stored: Vec<Stored>,
    /// What each epoch was cut to, and how many are bound for sure.
    cuts: Cuts,
    durable: usize,
    /// B.
    replay_until: usize,
    checkpoint: Option<usize>,
}

/// See the module's description.
pub(crate) struct World {
    scope: Scope,
    chance: Arc<Chance>,
    cluster: Arc<SimulatedCluster>,
    history: Arc<Mutex<JobHistory>>,
    gens: Vec<Gen>,
    pub(crate) observer: Observer,
    /// The cuts of the epochs up to C, which the state holds.
    committed: Cuts,
    stranger: Option<Box<dyn Producer>>,
    strangers_left: usize,
    checkpoints_left: usize,
    last: Option<(usize, usize)>,
    pub(crate) trace: Vec<String>,
    pub(crate) steps: usize,
}

type Step = std::result::Result<(), String>;

impl World {
    pub(crate) fn new(scope: Scope, chance: Arc<Chance>) -> Self {
        let cluster = SimulatedCluster::new(chance.clone(), TRANSACTION_MS, TRANSACTION_MS);
        let history = Arc::new(Mutex::new(JobHistory::default()));
        let world = Self {
            scope,
            chance,
            cluster,
            history,
            gens: Vec::new(),
            observer: Observer::default(),
            committed: Vec::new(),
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
            partitions: PartitionCount::new(PARTITIONS.into()).expect("a count"),
            hash: String::new(),
            sources: vec![],
            sinks: keys.map(|key| (key, 0)).collect(),
            created_at: 0,
        };
        world.history().apply(Entry::Created(zero)).expect("there is no job yet");
        world
    }

    fn history(&self) -> std::sync::MutexGuard<'_, JobHistory> {
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
        match self.scope.mistake {
            None => inner,
            Some(mistake) => {
                let (cluster, fenced) = (Arc::clone(&self.cluster), Mutex::default());
                Arc::new(WrongLog { inner, cluster, mistake, fenced })
            }
        }
    }

    fn is(&self, mistake: Mistake) -> bool {
        self.scope.mistake == Some(mistake)
    }

    /// Runs until nothing is left to do, then lets a new generation alone show one more epoch.
    pub(crate) fn run(&mut self) -> Step {
        self.new_generation()?;
        while let Some(action) = self.choose() {
            self.act(action)?;
        }
        self.chance.calm();
        self.scope.epochs += 1;
        self.stranger = None;
        self.new_generation()?;
        loop {
            let current = self.gens.len() - 1;
            let Some(action) =
                self.progress(current, 0).or_else(|| (1..self.tasks()).find_map(|t| self.progress(current, t)))
            else {
                break;
            };
            self.act(action)?;
        }
        let cuts = self.gens.last().expect("one was started").cuts.clone();
        if cuts.len() < self.scope.epochs {
            return Err(format!("after all faults only {cuts:?} is cut"));
        }
        self.observer.shows(&cuts)
    }

    fn tasks(&self) -> usize {
        self.scope.tasks as usize
    }

    /// The first thing that a task has to do.
    fn progress(&self, g: usize, t: usize) -> Option<Action> {
        self.of_task(g, t).into_iter().next()
    }

    fn choose(&mut self) -> Option<Action> {
        let current = self.gens.len() - 1;
        let mut actors: Vec<(usize, usize)> = self.last.into_iter().collect();
        for g in (0..=current).rev() {
            actors.extend((0..self.tasks()).map(|t| (g, t)).filter(|actor| Some(*actor) != self.last));
        }
        let mut actions: Vec<Action> = actors.into_iter().flat_map(|(g, t)| self.of_task(g, t)).collect();
        let dead = self.gens[current].tasks.iter().any(|task| task.dead);
        if actions.is_empty() && dead {
            actions.push(Action::NewGeneration);
        }
        if self.checkpoints_left > 0 && self.may_checkpoint(current) {
            actions.push(Action::CheckpointWanted(current));
        }
        let calm = actions.len();
        if self.gens.len() < self.scope.generations {
            actions.push(Action::NewGeneration);
        }
        actions.push(Action::TimePasses);
        if self.stranger.is_some() {
            actions.push(Action::StrangerEnds);
        } else if self.strangers_left > 0 {
            actions.push(Action::StrangerBegins);
        }
        if self.is(Mistake::BindingsUnderRetention) && self.gens[current].durable > 0 {
            actions.push(Action::BindingsDropped);
        }
        if calm == 0 {
            return None;
        }
        Some(actions[self.chance.choose(Question::Action, actions.len())])
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
            Some(Command::Checkpoint { .. }) if most.max(generation.checkpoint.unwrap_or(0)) <= self.decided() => {}
            Some(_) => all.push(Action::Obey(g, t)),
            None => {}
        }
        if !task.running {
            return all;
        }
        let early = self.is(Mistake::CheckpointBeforeSinks);
        if task.asked && generation.checkpoint.is_some_and(|at| at == task.written || early) {
            all.push(Action::Acknowledge(g, t));
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
            Action::Acknowledge(g, t) => self.acknowledge(g, t)?,
            Action::Flush(g, t) => {
                let task = &mut self.gens[g].tasks[t];
                let outcome = task.writers.iter_mut().try_for_each(|writer| writer.flush());
                if self.outcome(g, t, outcome)?.is_some() {
                    let task = &mut self.gens[g].tasks[t];
                    task.flushed = task.written;
                }
            }
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
            Action::NewGeneration => self.new_generation()?,
            Action::TimePasses => self.cluster.advance(TRANSACTION_MS),
            Action::StrangerBegins => {
                self.strangers_left -= 1;
                let mut stranger = self.client().fence("stranger", Generation(u64::MAX)).expect("nobody else has it");
                let record = NewRecord { value: Some(b"strange".to_vec()), ..NewRecord::default() };
                let written = stranger.begin().and_then(|()| stranger.append(&sink_topic(0), PartitionId(0), record));
                written.expect("nothing fails for it");
                self.stranger = Some(stranger);
            }
            Action::StrangerEnds => {
                // Its time may be over; whatever comes of it is its own matter.
                let _ = self.stranger.take().map(|mut stranger| stranger.commit());
            }
            Action::BindingsDropped => {
                let dropped = self.cluster.drop_records(&bindings_topic(), PartitionId(0), u64::MAX);
                dropped.expect("the topic is there");
            }
        }
        self.observer.look(&self.cluster)
    }

    /// Nothing where the task is dead now. What it must never meet is wrong.
    fn outcome<T>(&mut self, g: usize, t: usize, outcome: Result<T>) -> std::result::Result<Option<T>, String> {
        match outcome {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.blame() == Blame::Internal || error.code() == "sink-lost" => Err(error.to_string()),
            Err(error) => {
                self.trace.push(format!("task {t} of generation {} dies: {error}", g + 1));
                self.gens[g].tasks[t].dead = true;
                self.tell(g, Event::TaskDied(TaskIndex(t as u32)))?;
                Ok(None)
            }
        }
    }
}

/// The coordinator.
impl World {
    fn new_generation(&mut self) -> Step {
        let limits = Limits { checkpoint_interval: Duration::MAX, ..Limits::default() };
        let (leader, outputs) = Leader::start(&self.history(), Now(0), self.scope.tasks, PLAN, limits);
        let tasks = (0..self.scope.tasks).map(|task| {
            let log = self.log();
            let id = format!("{JOB}-sinks-{task}");
            let producer = Arc::new(SinkProducer::new(log.clone(), id, Delivery::ExactlyOnce));
            Task {
                log,
                producer,
                writers: Vec::new(),
                bindings: None,
                inbox: VecDeque::new(),
                running: false,
                asked: false,
                written: 0,
                flushed: 0,
                synced: 0,
                dead: false,
            }
        });
        let tasks = tasks.collect();
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

    fn tell(&mut self, g: usize, event: Event) -> Step {
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
                    if let (Entry::CheckpointCommitted(record), Ok(())) = (&entry, &outcome) {
                        let cuts = self.gens[g].cuts[..record.epoch.0 as usize].to_vec();
                        let behind = |why| format!("checkpoint {} is committed: {why}", record.epoch);
                        self.observer.look(&self.cluster)?;
                        self.observer.see(&cuts)?;
                        self.observer.holds(&self.cluster, &cuts).map_err(behind)?;
                        self.committed = cuts;
                    }
                    self.tell(g, Event::Decided(entry, outcome))?;
                }
                Output::Send(task, command) => self.gens[g].tasks[task.0 as usize].inbox.push_back(command),
                Output::Refuse(refusal) => return Err(refusal.to_string()),
                Output::Recover(_) | Output::Superseded => {}
            }
        }
        Ok(())
    }
}

/// A task.
impl World {
    fn obey(&mut self, g: usize, t: usize) -> Step {
        let Some(command) = self.gens[g].tasks[t].inbox.pop_front() else { return Ok(()) };
        match command {
            Command::Fence { generation } => {
                let outcome = self.fence(g, t, generation);
                if self.outcome(g, t, outcome)?.is_some() {
                    let task = TaskIndex(t as u32);
                    self.tell(g, Event::Report(Report::Fenced(Fenced { generation, task })))?;
                }
                Ok(())
            }
            Command::Scan { generation, after, caps } => {
                let outcome = self.scan(g, t, after, &caps);
                let Some(bindings) = self.outcome(g, t, outcome)? else { return Ok(()) };
                let forge = self.is(Mistake::NoSecondBarrier);
                for task in self.reporters(t, forge) {
                    let bindings = if task.0 as usize == t { bindings.clone() } else { vec![] };
                    let report = ScanReport { generation, task, bindings, sinks: vec![] };
                    self.tell(g, Event::Report(Report::Scanned(report)))?;
                }
                Ok(())
            }
            Command::Run(plan) => {
                self.take_plan(g, &plan)?;
                let outcome = self.open(g, t, &plan);
                self.outcome(g, t, outcome).map(drop)
            }
            Command::Checkpoint { .. } => {
                let generation = &mut self.gens[g];
                let written = generation.tasks.iter().map(|task| task.written).max().unwrap_or(0);
                generation.checkpoint.get_or_insert(written);
                generation.tasks[t].asked = true;
                Ok(())
            }
            Command::Committed { epoch, .. } | Command::Abandoned { epoch, .. } => {
                let generation = &mut self.gens[g];
                generation.tasks[t].asked = false;
                // The next one may have been chosen by another task already.
                generation.checkpoint = generation.checkpoint.filter(|at| *at as u64 > epoch.0);
                Ok(())
            }
            // A process that hears nothing goes on; the sources of this world never grow.
            Command::Stop | Command::AddSources { .. } => Ok(()),
        }
    }

    /// Who reports: the task itself, and with a forgery all the others.
    fn reporters(&self, t: usize, forge: bool) -> Vec<TaskIndex> {
        (0..self.scope.tasks).map(TaskIndex).filter(|task| forge || task.0 as usize == t).collect()
    }

    fn fence(&mut self, g: usize, t: usize, generation: Generation) -> Result<()> {
        let ids: Vec<ProducerId> = self.history().fences_of(TaskIndex(t as u32)).collect();
        let (alone, task) = (self.scope.tasks == 1, &mut self.gens[g].tasks[t]);
        for id in ids {
            match id {
                ProducerId::Bindings => {
                    task.bindings = Some(BindingsWriter::open(task.log.clone(), JOB, generation)?);
                }
                // A task alone fences them when it opens its sinks: nobody else can write what it will find there.
                ProducerId::Sinks(_) if alone => {}
                ProducerId::Sinks(owner) => drop(task.log.fence(&format!("{JOB}-sinks-{owner}"), generation)?),
                // There are no stores.
                ProducerId::Changelog(_) => {}
            }
        }
        Ok(())
    }

    fn scan(
        &mut self,
        g: usize,
        t: usize,
        after: Epoch,
        caps: &[(Generation, Epoch)],
    ) -> Result<Vec<(Generation, Epoch)>> {
        if t > 0 {
            return Ok(vec![]);
        }
        let generation = &mut self.gens[g];
        let stored = bindings::read(&*generation.tasks[t].log, JOB, after)?;
        generation.stored = bindings::valid(stored, caps, Epoch(u64::MAX));
        let found = generation.stored.iter().map(|stored| (stored.binding.generation, stored.binding.epoch));
        let shown = self.observer.seen.len() as u64;
        let from_sinks = self.scope.mistake == Some(Mistake::LastBindingFromSinks);
        Ok(found.filter(|(_, epoch)| !from_sinks || epoch.0 <= shown).collect())
    }

    /// What every task of the generation knows from the plan.
    fn take_plan(&mut self, g: usize, plan: &RecoveryPlan) -> Step {
        let (checkpoint, last) = (plan.checkpoint_epoch(), plan.last_binding);
        let committed = self.committed.clone();
        let generation = &mut self.gens[g];
        if generation.replay_until > 0 || !generation.cuts.is_empty() {
            return Ok(());
        }
        let stored = bindings::valid(std::mem::take(&mut generation.stored), &plan.caps, last);
        if stored.len() as u64 != last.0 - checkpoint.0 {
            return Err(format!("of the bindings of ({checkpoint}, {last}] {} were found", stored.len()));
        }
        generation.cuts = committed[..checkpoint.0 as usize].to_vec();
        generation.cuts.extend(stored.iter().map(|stored| stored.binding.shares[0].next));
        generation.durable = generation.cuts.len();
        generation.replay_until = generation.cuts.len();
        if let Some(writer) = &mut generation.tasks[0].bindings {
            writer.remember(&stored);
        }
        let cuts = generation.cuts.clone();
        self.observer.see(&cuts)
    }

    fn open(&mut self, g: usize, t: usize, plan: &RecoveryPlan) -> Result<()> {
        let checkpoint = plan.checkpoint_epoch();
        let ends = plan.checkpoint.as_ref().map_or(&plan.zero.sinks, |record| &record.sinks);
        let (alone, until) = (self.scope.tasks == 1, self.gens[g].replay_until);
        let task = &mut self.gens[g].tasks[t];
        for sink in 0..SINKS {
            let config = LogSinkConfig {
                topic: sink_topic(sink),
                topic_partitions: None,
                partitioner: Partitioner::JobPartition,
                sink,
                partitions: plan.zero.partitions,
            };
            let of_sink = ends.iter().filter(|(key, _)| key.sink == sink);
            let partitions = of_sink.map(|(key, end)| (key.partition, *end)).collect();
            let context = SinkContext { job_id: JOB, generation: plan.generation, checkpoint, partitions };
            let mut writer = LogSink::new(Arc::clone(&task.producer), config)?.open(&context)?;
            if alone && until as u64 == checkpoint.0 {
                writer.replayed()?;
            }
            task.writers.push(writer);
        }
        task.written = checkpoint.0 as usize;
        task.flushed = task.written;
        task.running = true;
        Ok(())
    }

    /// The job partitions of a task: they change places from generation to generation.
    fn hosted(&self, g: usize, t: usize) -> Vec<PartitionId> {
        let hosts = |partition: usize| (partition + g) % self.tasks() == t;
        (0..PARTITIONS).filter(|partition| hosts(usize::from(*partition))).map(PartitionId).collect()
    }

    fn write(&mut self, g: usize, t: usize) -> Step {
        let (alone, hosted) = (self.scope.tasks == 1, self.hosted(g, t));
        let generation = &mut self.gens[g];
        let (until, task) = (generation.replay_until, &mut generation.tasks[t]);
        let cuts = &generation.cuts[..=task.written];
        let epoch = Epoch(cuts.len() as u64);
        let write = |(sink, writer): (usize, &mut Box<dyn SinkWriter>)| {
            for partition in &hosted {
                writer.write(epoch, *partition, batch(cuts, *partition, sink as u16))?;
            }
            writer.end_epoch(epoch)?;
            if alone && until as u64 == epoch.0 { writer.replayed() } else { Ok(()) }
        };
        let outcome = task.writers.iter_mut().enumerate().try_for_each(write);
        task.written += 1;
        self.outcome(g, t, outcome).map(drop)
    }

    fn bind(&mut self, g: usize) -> Step {
        let generation = &mut self.gens[g];
        let new: Vec<Binding> = (generation.durable..generation.cuts.len())
            .map(|index| Binding {
                epoch: Epoch(index as u64 + 1),
                generation: generation.number,
                minted_at: 0,
                shares: vec![Share {
                    of: SourceKey { source: 0, partition: PartitionId(0) },
                    next: generation.cuts[index],
                    count: 1,
                    hash: ContentHash(0),
                }],
            })
            .collect();
        let writer = generation.tasks[0].bindings.as_mut().expect("the first task has fenced");
        let outcome = writer.append(&new);
        if self.outcome(g, 0, outcome)?.is_some() {
            let generation = &mut self.gens[g];
            generation.durable = generation.cuts.len();
            let cuts = generation.cuts.clone();
            // From now on it is announced: latest reads and watches see it.
            self.observer.see(&cuts)?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, g: usize, t: usize) -> Step {
        let hosted: BTreeSet<PartitionId> = self.hosted(g, t).into_iter().collect();
        let early = self.is(Mistake::CheckpointBeforeSinks);
        let generation = &mut self.gens[g];
        let (number, at) = (generation.number, generation.checkpoint.expect("it was chosen"));
        let task = &mut generation.tasks[t];
        let sync = |sink: u16| -> Result<Vec<(SinkKey, u64)>> {
            let writer = &mut task.writers[usize::from(sink)];
            let ends: Vec<(PartitionId, u64)> =
                if early { (0..PARTITIONS).map(|p| (PartitionId(p), 0)).collect() } else { writer.sync()? };
            let own = ends.into_iter().filter(|(partition, _)| hosted.contains(partition));
            Ok(own.map(|(partition, end)| (SinkKey { sink, partition }, end)).collect())
        };
        let outcome: Result<Vec<Vec<_>>> = (0..SINKS).map(sync).collect();
        let Some(sinks) = self.outcome(g, t, outcome)? else { return Ok(()) };
        let task = &mut self.gens[g].tasks[t];
        task.asked = false;
        task.synced = at;
        task.flushed = if early { task.flushed } else { task.written };
        let ack = CheckpointAck {
            generation: number,
            task: TaskIndex(t as u32),
            epoch: Epoch(at as u64),
            fingerprint: PLAN,
            minted_at: 0,
            sources: vec![],
            stores: vec![],
            sinks: sinks.into_iter().flatten().collect(),
            sinks_at: Epoch(at as u64),
        };
        self.tell(g, Event::Report(Report::Acknowledged(Box::new(ack))))
    }
}

/// What a job partition gives a sink in the last epoch of these cuts.
fn batch(cuts: &[u64], partition: PartitionId, sink: u16) -> EncodedBatch {
    let data = value(cuts);
    let one = EncodedRecord { value: Some(0..data.len()), ..EncodedRecord::default() };
    let records = vec![one; count(cuts, partition, sink) as usize];
    EncodedBatch { data, records }
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
