//! Every run of the exactness protocol in a small scope, with the real decisions: [`JobHistory`] and [`Leader`].
//!
//! Around them stands a model of the data plane: two tasks, one transactional sink producer each, one bindings producer, two
//! job partitions that move between the tasks from generation to generation. A generation cuts epochs (a free choice, so
//! that cutting an epoch anew shows), binds them, and writes them to the sinks in any groups. A commit may be acknowledged,
//! of unknown outcome and land at any later time, or land although its producer is dead. A new generation may start at any
//! moment; the old one goes on as a zombie until each of its ids is fenced, and may call init again. Commands wait in
//! inboxes; reports and proposals arrive as late as they like, also in later generations. Source partitions come at any time: the
//! first task finds them, and a binding names how many its generation reads.
//!
//! The observer sees at once all that anybody may see. The check, in every state: no epoch is seen with two contents, the
//! sinks have no gap and no duplicate, a committed checkpoint is behind all sinks, nobody is refused without a cause, and a
//! run that cannot go on has shown every epoch and reads every source partition; who replays a binding knows all that it names. Then each rule is left out in turn, and the exploration must find the harm.
//! `THALWEG_EXPLORE=large cargo test --release` takes larger scopes.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use serde::Serialize;
use stateright::{Checker, HasDiscoveries, Model, Property};
use thalweg_coordinator::{Entry, Event, JobHistory, Leader, Limits, Now, Output, ProducerId, Stage};
use thalweg_core::{
    CheckpointAck, CheckpointZero, Command, Epoch, Fenced, Generation, JobId, JobName, PartitionCount, PartitionId,
    PartitionSpec, RecoveryPlan, Report, ScanReport, SinkKey, SinkTail, SourceKey, SourcesFound, TaskIndex,
};

/// What an epoch was cut to hold, for all epochs from the first: a free choice, and above it how many source partitions its binding
/// names.
type Cuts = Vec<u8>;

const CHOICE: u8 = 1;

/// How many source partitions the binding of an epoch names.
fn named(cut: u8) -> u8 {
    cut >> CHOICE
}

/// Nobody owns the id.
const NOBODY: u64 = 0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Status {
    /// Fenced by its generation, positions not scanned.
    Fenced,
    /// After init: the generation is to be looked at.
    Looking,
    /// Found current: positions are to be scanned.
    Current,
    Ready,
    /// A commit up to this epoch has an unknown outcome.
    Unknown(u8),
    /// It cannot be used any more.
    Dead,
}

/// The sink producer of a task index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Writer {
    owner: u64,
    status: Status,
    /// Per job partition: up to which epoch it has written, as it knows.
    base: [u8; 2],
}

/// The data plane of one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Gen {
    cuts: Cuts,
    /// Which bindings are durable, and known to be.
    landed: u8,
    acked: u8,
    /// How many source partitions its open epoch reads.
    members: u8,
    running: [bool; 2],
    checkpoint: Option<(u8, [bool; 2])>,
}

/// How many faults may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Faults {
    ghosts: u8,
    unknown: u8,
    late_inits: u8,
    late_reports: u8,
    checkpoints: u8,
    /// Source partitions that come.
    sources: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct State {
    history: JobHistory,
    leader: Leader,
    proposals: Vec<Entry>,
    inboxes: [Vec<Command>; 2],
    late: Vec<Report>,
    gens: Vec<Gen>,
    /// The bindings log: who bound which history; sorted, without those at or below C.
    log: Vec<(u64, Cuts)>,
    bindings_owner: u64,
    bindings_looking: bool,
    sinks: [Writer; 2],
    /// Per job partition: the last epoch that its sink shows.
    shown: [u8; 2],
    seen: Cuts,
    faults: Faults,
    wrong: Option<String>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&postcard::to_allocvec(self).expect("a vector takes any state"));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    NewGeneration,
    TaskStep { task: usize, late: bool },
    TakeCheckpoint { task: usize, epoch: u8 },
    Acknowledge { task: usize, late: bool },
    LateReport(usize),
    Decide(usize),
    Tick,
    Find { late: bool },
    CheckpointFails,
    Mint { generation: u64, cut: u8 },
    BindingLands { generation: u64, epoch: u8 },
    BindingKnown { generation: u64 },
    Recut { generation: u64 },
    Commit { task: usize, epoch: u8 },
    CommitUnknown { task: usize, epoch: u8 },
    GhostCommit { task: usize, epoch: u8 },
    UnknownLands { task: usize },
    NewProducer { task: usize },
    Look { task: usize },
    Rescan { task: usize },
    LookBindings,
    LateInit { generation: u64, task: usize },
    LateInitBindings { generation: u64 },
    TakeBack { task: usize },
    TakeBackBindings,
    Retention(usize),
}

/// The rules that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    NoFirstBarrier,
    NoSecondBarrier,
    NoLookAfterInit,
    FencesOnlyNewIds,
    BindingsNotFenced,
    VisibleBeforeDurable,
    LastBindingFromSinks,
    VoidBindingsForgotten,
    StaleAckCounted,
    CheckpointBeforeSinks,
    CommitOfAnyGeneration,
    NoRescan,
    EpochCutAgain,
    BindingsUnderRetention,
    FencedMeansOver,
    SourceReadBeforeEntry,
    AddedSourcesForgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hosting {
    Same,
    Swapped,
    /// Every second generation has one task.
    Merged,
}

#[derive(Clone, Debug)]
struct Scope {
    epochs: u8,
    generations: usize,
    hosting: Hosting,
    /// Bindings become durable in any order.
    gaps: bool,
    faults: Faults,
    mutant: Option<Mutant>,
}

/// How many epochs from the first have their bit.
fn prefix(mask: u8) -> u8 {
    mask.trailing_ones() as u8
}

fn epoch_of(cuts: &Cuts) -> Epoch {
    Epoch(cuts.len() as u64)
}

impl Scope {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn tasks(&self, generation: u64) -> u32 {
        if self.hosting == Hosting::Merged && generation.is_multiple_of(2) { 1 } else { 2 }
    }

    fn hosts(&self, generation: u64, task: usize, partition: usize) -> bool {
        let moved = generation.is_multiple_of(2);
        match self.hosting {
            Hosting::Swapped if moved => task != partition,
            Hosting::Merged if moved => task == 0,
            Hosting::Same | Hosting::Swapped | Hosting::Merged => task == partition,
        }
    }

    fn hosted(&self, generation: u64, task: usize) -> impl Iterator<Item = usize> {
        let scope = self.clone();
        (0..2).filter(move |partition| scope.hosts(generation, task, *partition))
    }

    /// Up to which epoch a task of the generation may write.
    fn writable(&self, generation: &Gen) -> u8 {
        if self.is(Mutant::VisibleBeforeDurable) { generation.cuts.len() as u8 } else { prefix(generation.acked) }
    }
}

impl State {
    fn current(&self) -> u64 {
        self.gens.len() as u64
    }

    fn gen_of(&mut self, generation: u64) -> &mut Gen {
        &mut self.gens[generation as usize - 1]
    }

    /// How many source partitions the job has.
    fn sources(&self) -> u8 {
        self.history.sources().count() as u8
    }

    fn committed(&self) -> u8 {
        self.history.checkpoint_epoch().0 as u8
    }

    fn fail(&mut self, why: impl Into<String>) {
        self.wrong.get_or_insert(why.into());
    }

    /// Somebody sees these epochs.
    fn see(&mut self, cuts: &[u8]) {
        let common = cuts.len().min(self.seen.len());
        if cuts[..common] != self.seen[..common] {
            self.fail(format!("an epoch was seen as {:?} and as {cuts:?}", self.seen));
        } else if cuts.len() > self.seen.len() {
            self.seen = cuts.to_vec();
        }
    }

    fn is_done(&self, epochs: u8) -> bool {
        let current = self.gens.last().expect("there is a generation");
        let bound = current.cuts.len() == usize::from(epochs) && prefix(current.acked) == epochs;
        self.leader.stage() == Stage::Running && bound && self.shown == [epochs; 2] && current.members == self.sources()
    }
}

/// The coordinator and its messages.
impl Scope {
    fn new_generation(&self, state: &mut State) {
        let tasks = self.tasks(state.current() + 1);
        let (leader, outputs) = Leader::start(&state.history, Now(0), tasks, 1, limits());
        state.leader = leader;
        state.inboxes = Default::default();
        state.gens.push(Gen::default());
        self.perform(state, outputs);
    }

    fn perform(&self, state: &mut State, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Propose(
                    entry @ (Entry::CheckpointCommitted(_)
                    | Entry::CheckpointAbandoned { .. }
                    | Entry::SourcesAdded { .. }),
                ) => {
                    state.proposals.push(entry);
                }
                Output::Propose(entry) => self.decide(state, entry),
                Output::Send(_, Command::Committed { .. } | Command::Abandoned { .. }) => {
                    let current = state.current();
                    state.gen_of(current).checkpoint = None;
                }
                Output::Send(_, Command::Stop) | Output::Superseded | Output::Recover(_) => {}
                Output::Send(task, command) => state.inboxes[task.0 as usize].push(command),
                Output::Refuse(refusal) => state.fail(refusal.code()),
            }
        }
    }

    fn handle(&self, state: &mut State, event: Event) {
        let outputs = state.leader.handle(&state.history, Now(0), event);
        self.perform(state, outputs);
    }

    /// The history's log has come to this entry.
    fn decide(&self, state: &mut State, mut entry: Entry) {
        let current = state.history.generation();
        if let Entry::CheckpointCommitted(record) = &mut entry
            && self.is(Mutant::CommitOfAnyGeneration)
            && state.leader.stage() == Stage::Running
        {
            if record.generation != current && record.epoch > state.history.checkpoint_epoch() {
                state.fail("C moved under a generation that started from another one");
            }
            record.generation = current;
        }
        let outcome = state.history.apply(entry.clone());
        if let (Entry::CheckpointCommitted(record), Ok(())) = (&entry, &outcome)
            && state.shown.iter().any(|shown| u64::from(*shown) < record.epoch.0)
        {
            state.fail("a checkpoint is committed, and a sink is behind it");
        }
        self.handle(state, Event::Decided(entry, outcome));
    }

    fn report(&self, state: &mut State, report: Report, late: bool) {
        if late {
            state.late.push(report);
            state.faults.late_reports -= 1;
            return;
        }
        self.handle(state, Event::Report(report.clone()));
        let others = |me: TaskIndex, tasks: u32| (0..tasks).map(TaskIndex).filter(move |task| *task != me);
        let tasks = self.tasks(state.current());
        match report {
            Report::Fenced(fenced) if self.is(Mutant::NoFirstBarrier) => {
                for task in others(fenced.task, tasks) {
                    self.handle(state, Event::Report(Report::Fenced(Fenced { task, ..fenced })));
                }
            }
            Report::Scanned(scan) if self.is(Mutant::NoSecondBarrier) => {
                for task in others(scan.task, tasks) {
                    let forged = ScanReport { generation: scan.generation, task, bindings: vec![], sinks: vec![] };
                    self.handle(state, Event::Report(Report::Scanned(forged)));
                }
            }
            Report::Fenced(_) | Report::Scanned(_) | Report::Acknowledged(_) | Report::Found(_) => {}
        }
    }

    fn late_report(&self, state: &mut State, index: usize) {
        let mut report = state.late.remove(index);
        if let Report::Acknowledged(ack) = &mut report
            && self.is(Mutant::StaleAckCounted)
        {
            ack.generation = state.history.generation();
        }
        self.handle(state, Event::Report(report));
    }
}

/// The tasks of the current generation.
impl Scope {
    fn task_step(&self, state: &mut State, task: usize, late: bool) {
        let index = TaskIndex(task as u32);
        match state.inboxes[task].remove(0) {
            Command::Fence { generation } => {
                self.fence(state, generation.0, index);
                self.report(state, Report::Fenced(Fenced { generation, task: index }), late);
            }
            Command::Scan { generation, after, .. } => {
                let report = self.scan(state, generation, index, after);
                self.report(state, Report::Scanned(report), late);
            }
            Command::Run(plan) => self.run(state, task, &plan),
            Command::AddSources { generation, sources } => {
                // The first task cuts the epochs; the second has none to read.
                if task == 0 && !self.is(Mutant::SourceReadBeforeEntry) {
                    state.gen_of(generation.0).members += sources.len() as u8;
                }
            }
            Command::Checkpoint { .. } | Command::Committed { .. } | Command::Abandoned { .. } | Command::Stop => {
                unreachable!("it has its own action, or was performed at once")
            }
        }
    }

    fn fence(&self, state: &mut State, generation: u64, task: TaskIndex) {
        let ids: Vec<_> = state.history.fences_of(task).collect();
        for id in ids {
            match id {
                ProducerId::Bindings if self.is(Mutant::BindingsNotFenced) => {}
                ProducerId::Bindings => {
                    state.bindings_owner = generation;
                    state.bindings_looking = false;
                }
                ProducerId::Sinks(owner) if self.is(Mutant::FencesOnlyNewIds) && owner.0 >= self.tasks(generation) => {}
                ProducerId::Sinks(owner) => {
                    state.sinks[owner.0 as usize] = Writer { owner: generation, status: Status::Fenced, base: [0; 2] };
                }
                ProducerId::Changelog(_) => {}
            }
        }
    }

    fn scan(&self, state: &mut State, generation: Generation, task: TaskIndex, after: Epoch) -> ScanReport {
        let mut bindings = Vec::new();
        if task.0 == 0 {
            let found = state.log.iter().filter(|(_, cuts)| epoch_of(cuts) > after);
            bindings.extend(found.map(|(by, cuts)| (Generation(*by), epoch_of(cuts))));
        }
        if self.is(Mutant::LastBindingFromSinks) {
            bindings.retain(|(_, epoch)| state.shown.iter().any(|shown| epoch.0 <= u64::from(*shown)));
        }
        if self.is(Mutant::VoidBindingsForgotten) {
            bindings.iter_mut().for_each(|(by, _)| *by = generation);
        }
        let mut sinks = Vec::new();
        for partition in self.hosted(generation.0, task.0 as usize) {
            let of = SinkKey { sink: 0, partition: PartitionId(partition as u16) };
            let shown = u64::from(state.shown[partition]);
            sinks.push(SinkTail { of, epoch: (shown > 0).then_some(Epoch(shown)), end: shown });
        }
        let writer = &mut state.sinks[task.0 as usize];
        if writer.owner == generation.0 && writer.status == Status::Fenced {
            *writer = Writer { status: Status::Ready, base: state.shown, ..*writer };
        }
        ScanReport { generation, task, bindings, sinks }
    }

    /// Replays what the plan says.
    fn run(&self, state: &mut State, task: usize, plan: &RecoveryPlan) {
        let after = plan.checkpoint_epoch().0 as usize;
        let mut cuts = state.seen[..after.min(state.seen.len())].to_vec();
        let counts = |by: u64, epoch: Epoch| {
            self.is(Mutant::VoidBindingsForgotten)
                || plan.caps.iter().all(|(planned, last)| by >= planned.0 || epoch <= *last)
        };
        while epoch_of(&cuts) < plan.last_binding {
            let next = epoch_of(&cuts).next();
            let mut bound = state.log.iter().filter(|(by, found)| epoch_of(found) == next && counts(*by, next));
            let Some((_, first)) = bound.next() else { return state.fail("a binding up to B is missing") };
            if !first.starts_with(&cuts) || bound.any(|(_, other)| other != first) {
                return state.fail(format!("the binding {first:?} does not continue {cuts:?}, or is not the only one"));
            }
            cuts = first.clone();
        }
        state.see(&cuts);
        let forgotten = self.is(Mutant::AddedSourcesForgotten);
        let members = if forgotten { plan.zero.sources.len() } else { plan.sources.len() } as u8;
        if let Some(cut) = cuts.iter().find(|cut| named(**cut) > members) {
            state.fail(format!("a binding names {} source partitions, its plan knows {members}", named(*cut)));
        }
        if !cuts.is_sorted_by_key(|cut| named(*cut)) {
            state.fail(format!("of {cuts:?} a binding does not name what the one before it names"));
        }
        let known = (1u8 << cuts.len()) - 1;
        let generation = state.gen_of(plan.generation.0);
        generation.running[task] = true;
        generation.members = generation.members.max(members);
        if generation.cuts.len() < cuts.len() {
            *generation = Gen { cuts, landed: known, acked: known, ..generation.clone() };
        }
    }

    /// The first task finds the next source partition.
    fn find(&self, state: &mut State, late: bool) {
        let generation = Generation(state.current());
        let owner = state.gen_of(generation.0);
        let identity = format!("partition {}", owner.members);
        if self.is(Mutant::SourceReadBeforeEntry) {
            owner.members += 1;
        }
        let of = SourceKey { source: 0, partition: PartitionId(0) };
        let spec = PartitionSpec { of, name: identity.clone(), identity, start: 0, end: None };
        self.report(state, Report::Found(SourcesFound { generation, sources: vec![spec] }), late);
    }

    fn may_find(&self, state: &State) -> bool {
        let generation = state.gens.last().expect("there is a generation");
        let is_added = |entry: &Entry| matches!(entry, Entry::SourcesAdded { .. });
        let is_told = |command: &Command| matches!(command, Command::AddSources { .. });
        generation.running[0]
            && generation.members < state.faults.sources
            && !state.proposals.iter().any(is_added)
            && !state.inboxes[0].iter().any(is_told)
    }

    fn take_checkpoint(&self, state: &mut State, task: usize, epoch: u8) {
        state.inboxes[task].remove(0);
        let current = state.current();
        state.gen_of(current).checkpoint.get_or_insert((epoch, [false; 2]));
    }

    fn may_acknowledge(&self, state: &State, task: usize) -> bool {
        let (generation, writer) = (state.current(), state.sinks[task]);
        let Some((epoch, acked)) = state.gens[generation as usize - 1].checkpoint else { return false };
        let asked = !state.inboxes[task].iter().any(|command| matches!(command, Command::Checkpoint { .. }));
        let written = writer.owner == generation
            && writer.status == Status::Ready
            && self.hosted(generation, task).all(|partition| writer.base[partition] >= epoch);
        let idle = self.hosted(generation, task).next().is_none();
        (task as u32) < self.tasks(generation)
            && asked
            && !acked[task]
            && (written || idle || self.is(Mutant::CheckpointBeforeSinks))
    }

    fn acknowledge(&self, state: &mut State, task: usize, late: bool) {
        let generation = state.current();
        let hosted: Vec<_> = self.hosted(generation, task).collect();
        let Some((epoch, acked)) = &mut state.gen_of(generation).checkpoint else { return };
        acked[task] = true;
        let epoch = Epoch(u64::from(*epoch));
        let sinks = hosted.iter().map(|partition| SinkKey { sink: 0, partition: PartitionId(*partition as u16) });
        let ack = CheckpointAck {
            generation: Generation(generation),
            task: TaskIndex(task as u32),
            epoch,
            fingerprint: 1,
            minted_at: 0,
            sources: vec![],
            stores: vec![],
            // Without them the leader cannot see that two tasks claim one partition; the generation alone must do.
            sinks: if self.is(Mutant::StaleAckCounted) { vec![] } else { sinks.map(|sink| (sink, epoch.0)).collect() },
            sinks_at: epoch,
        };
        self.report(state, Report::Acknowledged(Box::new(ack)), late);
    }
}

/// The data plane, of the current generation and of zombies.
impl Scope {
    fn mint(&self, state: &mut State, generation: u64, cut: u8) {
        let owner = state.gen_of(generation);
        owner.cuts.push(cut | owner.members << CHOICE);
    }

    /// The cuts that are worth trying: contents are interchangeable until somebody knows one.
    fn cuts(&self, state: &State, Gen { cuts, members, .. }: &Gen) -> u8 {
        let first = [&cuts[..], &[*members << CHOICE]].concat();
        let known = state.gens.iter().map(|generation| &generation.cuts).chain(state.log.iter().map(|(_, cuts)| cuts));
        if known.chain([&state.seen]).any(|known| known.starts_with(&first)) { 2 } else { 1 }
    }

    fn binding_lands(&self, state: &mut State, generation: u64, epoch: u8) {
        let owner = state.gen_of(generation);
        owner.landed |= 1 << (epoch - 1);
        let entry = (generation, owner.cuts[..usize::from(epoch)].to_vec());
        if !state.log.contains(&entry) {
            state.log.push(entry);
            state.log.sort();
        }
    }

    /// The append of the last binding lands, unknown to the generation, and it cuts that epoch anew.
    fn recut(&self, state: &mut State, generation: u64) {
        let epoch = state.gen_of(generation).cuts.len() as u8;
        self.binding_lands(state, generation, epoch);
        let owner = state.gen_of(generation);
        owner.landed &= !(1 << (epoch - 1));
        if let Some(cut) = owner.cuts.last_mut() {
            *cut ^= 1;
        }
    }

    /// A transaction up to an epoch becomes visible.
    fn land(&self, state: &mut State, task: usize, epoch: u8) -> [u8; 2] {
        let Writer { owner, mut base, .. } = state.sinks[task];
        for partition in self.hosted(owner, task) {
            if epoch <= base[partition] {
                continue;
            }
            if state.shown[partition] != base[partition] {
                let shown = state.shown[partition];
                state.fail(format!("a sink shows {shown} epochs, a commit went on after {}", base[partition]));
            }
            base[partition] = epoch;
            state.shown[partition] = epoch;
        }
        let cuts = state.gen_of(owner).cuts[..usize::from(epoch)].to_vec();
        state.see(&cuts);
        base
    }

    fn new_producer(&self, state: &mut State, task: usize) {
        state.sinks[task].status = if self.is(Mutant::NoRescan) {
            Status::Ready
        } else if self.is(Mutant::NoLookAfterInit) {
            Status::Current
        } else {
            Status::Looking
        };
    }

    fn init(&self, state: &mut State, generation: u64, task: usize) {
        state.sinks[task] = Writer { owner: generation, status: Status::Dead, base: [0; 2] };
        self.new_producer(state, task);
    }

    fn init_bindings(&self, state: &mut State, generation: u64) {
        state.bindings_owner = generation;
        state.bindings_looking = !self.is(Mutant::NoLookAfterInit);
    }

    /// A zombie without an id is forgotten, after all that it could still show was shown; bindings up to C are not needed.
    fn reduce(&self, state: &mut State) {
        let committed = state.history.checkpoint_epoch();
        if !self.is(Mutant::VoidBindingsForgotten) {
            state.log.retain(|(_, cuts)| epoch_of(cuts) > committed);
        }
        if self.mutant.is_some() {
            return;
        }
        for generation in 1..state.current() {
            if state.bindings_owner == generation || state.gens[generation as usize - 1] == Gen::default() {
                continue;
            }
            if state.sinks.iter().any(|writer| writer.owner == generation) {
                continue;
            }
            let zombie = std::mem::take(state.gen_of(generation));
            state.see(&zombie.cuts[..usize::from(prefix(zombie.landed))]);
        }
    }
}

/// Which actions are possible.
impl Scope {
    fn control_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let current = state.current();
        let lates: &[bool] = if state.faults.late_reports > 0 { &[false, true] } else { &[false] };
        if state.gens.len() < self.generations {
            actions.push(Action::NewGeneration);
        }
        actions.extend((0..state.late.len()).map(Action::LateReport));
        actions.extend((0..state.proposals.len()).map(Action::Decide));
        let generation = &state.gens[current as usize - 1];
        for task in 0..2 {
            match state.inboxes[task].first() {
                Some(Command::Checkpoint { .. }) => {
                    let first = state.committed().max(state.history.decided().0 as u8) + 1;
                    let epochs = match generation.checkpoint {
                        Some((epoch, _)) => epoch..=epoch,
                        None => first..=prefix(generation.acked),
                    };
                    actions.extend(epochs.map(|epoch| Action::TakeCheckpoint { task, epoch }));
                }
                Some(Command::Run(_)) => actions.push(Action::TaskStep { task, late: false }),
                Some(_) => actions.extend(lates.iter().map(|late| Action::TaskStep { task, late: *late })),
                None => {}
            }
            if self.may_acknowledge(state, task) {
                actions.extend(lates.iter().map(|late| Action::Acknowledge { task, late: *late }));
            }
        }
        if state.leader.stage() == Stage::Running {
            let may_bind = prefix(generation.acked) > state.history.decided().0 as u8;
            if state.faults.checkpoints > 0 && !state.leader.checkpoint_open() && may_bind {
                actions.push(Action::Tick);
            }
            if self.may_find(state) {
                actions.extend(lates.iter().map(|late| Action::Find { late: *late }));
            }
            if generation.checkpoint.is_some() && state.proposals.is_empty() {
                actions.push(Action::CheckpointFails);
            }
        }
        if self.is(Mutant::BindingsUnderRetention) {
            actions.extend((0..state.log.len()).map(Action::Retention));
        }
    }

    fn binding_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for generation in 1..=state.current() {
            let Gen { cuts, landed, acked, running, .. } = &state.gens[generation as usize - 1];
            let owns =
                (state.bindings_owner == generation && !state.bindings_looking) || self.is(Mutant::BindingsNotFenced);
            if owns && running[0] {
                if cuts.len() < usize::from(self.epochs) {
                    actions.extend(
                        (0..self.cuts(state, &state.gens[generation as usize - 1]))
                            .map(|cut| Action::Mint { generation, cut }),
                    );
                }
                let open = (1..=cuts.len() as u8).filter(|epoch| landed >> (epoch - 1) & 1 == 0);
                let open = open.take(if self.gaps { usize::from(self.epochs) } else { 1 });
                actions.extend(open.map(|epoch| Action::BindingLands { generation, epoch }));
                if self.is(Mutant::EpochCutAgain) && landed >> cuts.len().saturating_sub(1) & 1 == 0 && !cuts.is_empty()
                {
                    actions.push(Action::Recut { generation });
                }
            }
            if landed != acked {
                actions.push(Action::BindingKnown { generation });
            }
            let zombie = generation < state.current() && state.faults.late_inits > 0;
            // A forgotten zombie can only look, and stop.
            if zombie && (running[0] || self.mutant.is_none()) {
                let tasks = 0..self.tasks(generation) as usize;
                let others = tasks.filter(|task| ![generation, NOBODY].contains(&state.sinks[*task].owner));
                actions.extend(others.map(|task| Action::LateInit { generation, task }));
                if ![generation, NOBODY].contains(&state.bindings_owner) {
                    actions.push(Action::LateInitBindings { generation });
                }
            }
        }
        if state.bindings_looking && state.bindings_owner != NOBODY {
            actions.push(Action::LookBindings);
        }
    }

    fn sink_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let current = state.current();
        for (task, writer) in state.sinks.iter().enumerate() {
            if state.gens[current as usize - 1].running[task]
                && writer.owner != current
                && !self.is(Mutant::FencedMeansOver)
            {
                actions.push(Action::TakeBack { task });
            }
            if writer.owner == NOBODY {
                continue;
            }
            let generation = &state.gens[writer.owner as usize - 1];
            match writer.status {
                Status::Ready if generation.running[task] => {
                    let behind =
                        |epoch: &u8| self.hosted(writer.owner, task).any(|partition| writer.base[partition] < *epoch);
                    for epoch in (state.committed() + 1..=self.writable(generation)).filter(behind) {
                        actions.push(Action::Commit { task, epoch });
                        if state.faults.unknown > 0 {
                            actions.push(Action::CommitUnknown { task, epoch });
                        }
                        if state.faults.ghosts > 0 {
                            actions.push(Action::GhostCommit { task, epoch });
                        }
                    }
                }
                Status::Unknown(_) => actions.extend([Action::UnknownLands { task }, Action::NewProducer { task }]),
                Status::Dead => actions.push(Action::NewProducer { task }),
                Status::Looking => actions.push(Action::Look { task }),
                Status::Current => actions.push(Action::Rescan { task }),
                Status::Ready | Status::Fenced => {}
            }
        }
        let taken = state.bindings_owner != current && state.gens[current as usize - 1].running[0];
        if taken && !self.is(Mutant::FencedMeansOver) && !self.is(Mutant::BindingsNotFenced) {
            actions.push(Action::TakeBackBindings);
        }
    }

    fn first_state(&self) -> State {
        let mut history = JobHistory::default();
        let zero = CheckpointZero {
            job_id: JobId(1),
            job: JobName::new("explored").expect("a legal name"),
            partitions: PartitionCount::new(2).expect("a legal count"),
            hash: String::new(),
            sources: vec![],
            sinks: vec![],
            created_at: 0,
        };
        history.apply(Entry::Created(zero)).expect("the first entry");
        let (leader, _) = Leader::start(&history, Now(0), 2, 1, limits());
        let writer = Writer { owner: NOBODY, status: Status::Fenced, base: [0; 2] };
        let mut state = State {
            history,
            leader,
            proposals: vec![],
            inboxes: Default::default(),
            late: vec![],
            gens: vec![],
            log: vec![],
            bindings_owner: NOBODY,
            bindings_looking: false,
            sinks: [writer; 2],
            shown: [0; 2],
            seen: vec![],
            faults: self.faults,
            wrong: None,
        };
        self.new_generation(&mut state);
        while let Some(task) = (0..2).find(|task| !state.inboxes[*task].is_empty()) {
            self.task_step(&mut state, task, false);
        }
        assert_eq!(state.leader.stage(), Stage::Running);
        if self.is(Mutant::BindingsNotFenced) {
            state.bindings_owner = 1;
        }
        state
    }
}

fn limits() -> Limits {
    Limits { checkpoint_interval: Duration::ZERO, ..Limits::default() }
}

impl Model for Scope {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_none() {
            self.control_actions(state, actions);
            self.binding_actions(state, actions);
            self.sink_actions(state, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let current = state.current();
        match action {
            Action::NewGeneration => self.new_generation(&mut state),
            Action::TaskStep { task, late } => self.task_step(&mut state, task, late),
            Action::TakeCheckpoint { task, epoch } => self.take_checkpoint(&mut state, task, epoch),
            Action::Acknowledge { task, late } => self.acknowledge(&mut state, task, late),
            Action::LateReport(index) => self.late_report(&mut state, index),
            Action::Decide(index) => {
                let entry = state.proposals.remove(index);
                self.decide(&mut state, entry);
            }
            Action::Tick => {
                state.faults.checkpoints -= 1;
                self.handle(&mut state, Event::Tick);
            }
            Action::Find { late } => self.find(&mut state, late),
            Action::CheckpointFails => {
                let (epoch, _) = state.gen_of(current).checkpoint?;
                let (generation, epoch) = (Generation(current), Epoch(u64::from(epoch)));
                self.handle(&mut state, Event::CheckpointFailed { generation, epoch });
                state
                    .inboxes
                    .iter_mut()
                    .for_each(|inbox| inbox.retain(|command| !matches!(command, Command::Checkpoint { .. })));
            }
            Action::Mint { generation, cut } => self.mint(&mut state, generation, cut),
            Action::BindingLands { generation, epoch } => self.binding_lands(&mut state, generation, epoch),
            Action::BindingKnown { generation } => {
                let owner = state.gen_of(generation);
                owner.acked = owner.landed;
                let known = owner.cuts[..usize::from(prefix(owner.acked))].to_vec();
                state.see(&known);
            }
            Action::Recut { generation } => self.recut(&mut state, generation),
            Action::Commit { task, epoch } => state.sinks[task].base = self.land(&mut state, task, epoch),
            Action::CommitUnknown { task, epoch } => {
                state.faults.unknown -= 1;
                state.sinks[task].status = Status::Unknown(epoch);
            }
            Action::GhostCommit { task, epoch } => {
                state.faults.ghosts -= 1;
                self.land(&mut state, task, epoch);
                state.sinks[task].status = Status::Dead;
            }
            Action::UnknownLands { task } => {
                let Status::Unknown(epoch) = state.sinks[task].status else { return None };
                self.land(&mut state, task, epoch);
                state.sinks[task].status = Status::Dead;
            }
            Action::NewProducer { task } => self.new_producer(&mut state, task),
            Action::Look { task } => {
                let writer = &mut state.sinks[task];
                if writer.owner == state.history.generation().0 {
                    writer.status = Status::Current;
                } else {
                    *writer = Writer { owner: NOBODY, status: Status::Dead, base: [0; 2] };
                }
            }
            Action::Rescan { task } => {
                let writer = &mut state.sinks[task];
                *writer = Writer { status: Status::Ready, base: state.shown, ..*writer };
            }
            Action::LookBindings => {
                if state.bindings_owner != state.history.generation().0 {
                    state.bindings_owner = NOBODY;
                }
                state.bindings_looking = false;
            }
            Action::LateInit { generation, task } => {
                state.faults.late_inits -= 1;
                self.init(&mut state, generation, task);
            }
            Action::LateInitBindings { generation } => {
                state.faults.late_inits -= 1;
                self.init_bindings(&mut state, generation);
            }
            Action::TakeBack { task } => self.init(&mut state, current, task),
            Action::TakeBackBindings => self.init_bindings(&mut state, current),
            Action::Retention(index) => {
                state.log.remove(index);
            }
        }
        self.reduce(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXACT, |_: &Self, state: &State| state.wrong.is_none()),
            Property::always(LIVE, |scope: &Self, state: &State| {
                let mut actions = Vec::new();
                scope.actions(state, &mut actions);
                !actions.is_empty() || state.wrong.is_some() || state.is_done(scope.epochs)
            }),
            Property::sometimes(REPLAYED, |_, state: &State| {
                state
                    .history
                    .last_plan()
                    .is_some_and(|plan| plan.last_binding > plan.checkpoint && plan.checkpoint.0 > 0)
            }),
        ]
    }
}

const EXACT: &str = "nothing is seen twice, lost, or in two ways";
const LIVE: &str = "what cannot go on has shown every epoch";
const REPLAYED: &str = "a plan replays epochs after a checkpoint";

fn check(scope: Scope) {
    #[allow(clippy::disallowed_methods, reason = "says how long it took; decides nothing")]
    let started = std::time::Instant::now();
    let name = format!("{scope:?}");
    let mutant = scope.mutant;
    let checker = scope.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    eprintln!("{name}: {states} states in {:.1?}", started.elapsed());
    let found = checker.discovery(EXACT).or_else(|| checker.discovery(LIVE));
    match (mutant, found) {
        (None, None) => assert!(checker.discovery(REPLAYED).is_some(), "the scope is too small to mean anything"),
        (None, Some(path)) => {
            let wrong = path.last_state().wrong.clone();
            panic!("a rule does not hold: {wrong:?} after {:#?}", path.into_actions());
        }
        (Some(_), Some(path)) => {
            eprintln!("  found: {:?} after {:?}", path.last_state().wrong.clone(), path.into_actions());
        }
        (Some(mutant), None) => panic!("{mutant:?} was not found in {states} states"),
    }
}

const NO_FAULTS: Faults = Faults { ghosts: 0, unknown: 0, late_inits: 0, late_reports: 0, checkpoints: 0, sources: 0 };

fn scope(epochs: u8, generations: usize, hosting: Hosting, faults: Faults) -> Scope {
    Scope { epochs, generations, hosting, gaps: false, faults, mutant: None }
}

/// How many generations: one more where larger scopes are asked for.
fn generations(count: usize) -> usize {
    count + usize::from(std::env::var_os("THALWEG_EXPLORE").is_some_and(|scope| scope == "large"))
}

#[test]
fn sinks_of_unknown_outcome() {
    let faults = Faults { ghosts: 1, unknown: 1, checkpoints: 1, ..NO_FAULTS };
    check(scope(2, generations(3), Hosting::Swapped, faults));
}

#[test]
fn zombies_and_late_messages() {
    let faults = Faults { late_inits: 1, late_reports: 1, checkpoints: 1, ..NO_FAULTS };
    check(scope(2, generations(2), Hosting::Swapped, faults));
}

#[test]
fn partitions_merged_onto_one_task_and_back() {
    let faults = Faults { ghosts: 1, unknown: 1, checkpoints: 1, ..NO_FAULTS };
    check(scope(2, generations(3), Hosting::Merged, faults));
}

#[test]
fn three_epochs() {
    let faults = Faults { ghosts: 1, checkpoints: 1, ..NO_FAULTS };
    check(scope(3, generations(2), Hosting::Swapped, faults));
}

#[test]
fn bindings_that_land_out_of_order() {
    let faults = Faults { checkpoints: 1, ..NO_FAULTS };
    check(Scope { gaps: true, ..scope(3, generations(3), Hosting::Swapped, faults) });
}

#[test]
fn checkpoints_abandoned_and_acknowledged_late() {
    let faults = Faults { checkpoints: 3, late_reports: 2, ..NO_FAULTS };
    check(scope(2, generations(2), Hosting::Swapped, faults));
    check(scope(2, generations(2), Hosting::Same, Faults { unknown: 1, checkpoints: 2, late_reports: 1, ..NO_FAULTS }));
}

#[test]
fn source_partitions_that_come() {
    let faults = Faults { sources: 1, checkpoints: 1, ..NO_FAULTS };
    check(scope(2, generations(2), Hosting::Same, Faults { sources: 2, ..faults }));
    check(scope(2, generations(2), Hosting::Same, Faults { late_reports: 1, ..faults }));
}

#[test]
fn every_rule_is_needed() {
    use Hosting::{Merged, Swapped};
    use Mutant::*;
    let ghosts = Faults { ghosts: 1, ..NO_FAULTS };
    let late_inits = Faults { late_inits: 1, ..NO_FAULTS };
    let checkpoints = Faults { checkpoints: 1, ..NO_FAULTS };
    let sources = Faults { sources: 1, ..NO_FAULTS };
    let late_acks = Faults { checkpoints: 2, late_reports: 1, ..NO_FAULTS };
    for (mutant, hosting, faults) in [
        (NoFirstBarrier, Swapped, NO_FAULTS),
        (NoSecondBarrier, Swapped, NO_FAULTS),
        (NoLookAfterInit, Swapped, late_inits),
        (FencesOnlyNewIds, Merged, NO_FAULTS),
        (BindingsNotFenced, Swapped, NO_FAULTS),
        (VisibleBeforeDurable, Swapped, NO_FAULTS),
        (LastBindingFromSinks, Swapped, NO_FAULTS),
        (StaleAckCounted, Swapped, late_acks),
        (CheckpointBeforeSinks, Swapped, checkpoints),
        (CommitOfAnyGeneration, Swapped, checkpoints),
        (NoRescan, Swapped, ghosts),
        (EpochCutAgain, Swapped, NO_FAULTS),
        (BindingsUnderRetention, Swapped, NO_FAULTS),
        (FencedMeansOver, Swapped, late_inits),
        (SourceReadBeforeEntry, Swapped, sources),
        (AddedSourcesForgotten, Swapped, sources),
    ] {
        check(Scope { mutant: Some(mutant), ..scope(2, 2, hosting, faults) });
    }
    check(Scope { mutant: Some(VoidBindingsForgotten), gaps: true, ..scope(3, 3, Swapped, NO_FAULTS) });
}
