//! What the tasks of a job do, each step by the code that does it in a job that runs.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use thalweg_connectors::log::{Log, LogSink, LogSinkConfig, Partitioner, SinkProducer};
use thalweg_connectors::{EncodedBatch, EncodedRecord, Sink, SinkContext, SinkWriter};
use thalweg_coordinator::{Event, ProducerId};
use thalweg_core::{
    Binding, Blame, CheckpointAck, Command, ContentHash, Epoch, Error, Fenced, Generation, PartitionId, RecoveryPlan,
    Report, Result, ScanReport, Share, SinkKey, SourceKey, StoreState, TaskIndex,
};
use thalweg_runtime::bindings::{self, BindingsWriter};
use thalweg_runtime::changelogs::Changelogs;
use thalweg_state::{PendingFile, SealedStore};

use crate::mistakes::Mistake;
use crate::reference::{count, partitions, rows, value};
use crate::state::Keyed;
use crate::world::{Action, JOB, PARTITIONS, PLAN, SINKS, STORE, Step, World, sink_topic};

/// A task of a generation: its process, which nobody stops but itself.
pub(crate) struct Task {
    log: Arc<dyn Log>,
    producer: Arc<SinkProducer>,
    sinks: Vec<LogSink>,
    writers: Vec<Box<dyn SinkWriter>>,
    bindings: Option<BindingsWriter>,
    changelogs: Option<Changelogs>,
    keyed: Option<Keyed>,
    /// Its disk.
    folder: PathBuf,
    pub(crate) inbox: VecDeque<Command>,
    pub(crate) running: bool,
    /// A checkpoint was asked for and is not sealed.
    pub(crate) asked: bool,
    open: Option<Open>,
    pub(crate) written: usize,
    pub(crate) flushed: usize,
    pub(crate) synced: usize,
    pub(crate) dead: bool,
}

/// A checkpoint on its way.
struct Open {
    at: usize,
    sinks: Vec<(SinkKey, u64)>,
    stores: Vec<StoreState>,
    stage: Stage,
    told: bool,
}

enum Stage {
    Sealed(Box<SealedStore>),
    Logged(Box<SealedStore>),
    Filed(Vec<PendingFile>),
    /// Its changelog could not be written: it waits to be given up.
    Failed,
}

/// What may happen to a process in a run. Anything else is wrong.
const BEARABLE: [&str; 4] = ["fenced", "producer-fenced", "kafka-away", "sink-acknowledged-lost"];

impl Task {
    pub(crate) fn new(log: Arc<dyn Log>, producer: Arc<SinkProducer>, folder: PathBuf) -> Self {
        Self {
            log,
            producer,
            sinks: Vec::new(),
            writers: Vec::new(),
            bindings: None,
            changelogs: None,
            keyed: None,
            folder,
            inbox: VecDeque::new(),
            running: false,
            asked: false,
            open: None,
            written: 0,
            flushed: 0,
            synced: 0,
            dead: false,
        }
    }

    /// The end of its process: what is open stays open.
    pub(crate) fn die(&mut self) {
        self.dead = true;
        self.keyed = None;
        self.open = None;
    }

    /// Where the sink ended at the checkpoint that is sealed.
    fn ends_of(&self, sink: u16) -> Vec<(PartitionId, u64)> {
        let ends = self.open.iter().flat_map(|open| &open.sinks).filter(|(key, _)| key.sink == sink);
        ends.map(|(key, end)| (key.partition, *end)).collect()
    }
}

/// The steps of a checkpoint.
impl World {
    /// The next one that a task can do.
    pub(crate) fn checkpoint_step(&self, g: usize, t: usize) -> Option<Action> {
        let task = &self.gens[g].tasks[t];
        let open = task.open.as_ref()?;
        match open.stage {
            Stage::Sealed(_) => Some(Action::Log(g, t)),
            Stage::Logged(_) => Some(Action::File(g, t)),
            Stage::Filed(_) => (!open.told && self.is_settled(task)).then_some(Action::Acknowledge(g, t)),
            Stage::Failed => None,
        }
    }

    /// Whether its sinks show everything up to the checkpoint.
    fn is_settled(&self, task: &Task) -> bool {
        (0..).zip(&task.sinks).all(|(index, sink)| {
            let ends = task.ends_of(index);
            let is_decided = |(partition, end): &(PartitionId, u64)| {
                self.cluster.stable_end(&sink_topic(index), *partition).expect("the topic is there") >= *end
            };
            match self.scope.mistake {
                Some(Mistake::CheckpointBeforeSinks | Mistake::SettledNotAwaited) => true,
                Some(Mistake::DecidedTakenForVisible) => ends.iter().all(is_decided),
                _ => sink.is_settled(&ends).expect("the topic is there"),
            }
        })
    }
}

/// Orders.
impl World {
    /// Nothing where the task is dead now. What it must never meet is wrong, and so is the end of a task only because somebody had its
    /// ids for a while.
    fn outcome<T>(&mut self, g: usize, t: usize, outcome: Result<T>) -> std::result::Result<Option<T>, String> {
        let error = match outcome {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        let current = self.gens[g].number == self.history().generation();
        // What a process of the past finds is not what it wants any more: in a changelog the checkpoint, in a sink its own records alone.
        // It stops, and is told why: see `Shell::cause`.
        let past = !current && ["state-digest", "sink-differs"].contains(&error.code());
        if !(past || BEARABLE.contains(&error.code())) {
            return Err(format!("task {t} of generation {}: {error}", g + 1));
        }
        if error.code() == "fenced" && current {
            return Err(format!("task {t} of the current generation {} stops: {error}", g + 1));
        }
        self.trace.push(format!("task {t} of generation {} dies: {error}", g + 1));
        self.gens[g].tasks[t].die();
        self.tell(g, Event::TaskDied(TaskIndex(t as u32)))?;
        Ok(None)
    }

    pub(crate) fn obey(&mut self, g: usize, t: usize) -> Step {
        let Some(command) = self.next_command(g, t) else { return Ok(()) };
        match command {
            Command::Fence { generation } => {
                let outcome = self.fence(g, t, generation);
                if self.outcome(g, t, outcome)?.is_some() {
                    for task in self.reporters(g, t, self.is(Mistake::NoFirstBarrier)) {
                        self.tell(g, Event::Report(Report::Fenced(Fenced { generation, task })))?;
                    }
                }
                Ok(())
            }
            Command::Scan { generation, after, caps } => {
                let outcome = self.scan(g, t, after, &caps);
                let Some(bindings) = self.outcome(g, t, outcome)? else { return Ok(()) };
                for task in self.reporters(g, t, self.is(Mistake::NoSecondBarrier)) {
                    let bindings = if task.0 as usize == t { bindings.clone() } else { vec![] };
                    let report = ScanReport { generation, task, bindings, sinks: vec![] };
                    self.tell(g, Event::Report(Report::Scanned(report)))?;
                }
                Ok(())
            }
            Command::Run(plan) => {
                self.take_plan(g, &plan)?;
                let outcome = self.open(g, t, &plan);
                if self.outcome(g, t, outcome)?.is_some() { self.compare_rows(g, t) } else { Ok(()) }
            }
            Command::Checkpoint { .. } => {
                let generation = &mut self.gens[g];
                let written = generation.tasks.iter().map(|task| task.written).max().unwrap_or(0);
                generation.checkpoint.get_or_insert(written);
                generation.tasks[t].asked = true;
                Ok(())
            }
            Command::Committed { epoch, .. } => self.decided_on(g, t, epoch, true),
            Command::Abandoned { epoch, .. } => self.decided_on(g, t, epoch, false),
            // A process that hears nothing goes on; the sources of this world never grow.
            Command::Stop | Command::AddSources { .. } => Ok(()),
        }
    }

    fn fence(&mut self, g: usize, t: usize, generation: Generation) -> Result<()> {
        let ids: Vec<ProducerId> = self.history().fences_of(TaskIndex(t as u32)).collect();
        let (count, stores) = (self.tasks(g), self.scope.stores);
        let only_new = self.is(Mistake::OnlyNewIdsFenced);
        let task = &mut self.gens[g].tasks[t];
        for id in ids {
            match id {
                ProducerId::Bindings => {
                    task.bindings = Some(BindingsWriter::open(task.log.clone(), JOB, generation)?);
                }
                ProducerId::Sinks(owner) | ProducerId::Changelog(owner) if only_new && owner.0 as usize >= count => {}
                // A task alone fences its own when it opens its sinks: nobody else can write what it will find there.
                ProducerId::Sinks(owner) if count == 1 && owner.0 as usize == t => {}
                ProducerId::Sinks(owner) => drop(task.log.fence(&format!("{JOB}-sinks-{owner}"), generation)?),
                ProducerId::Changelog(_) if !stores => {}
                ProducerId::Changelog(owner) if owner.0 as usize == t => {
                    let (log, job) = (task.log.clone(), (JOB, partitions()));
                    task.changelogs = Some(Changelogs::open(log, job, owner, generation, vec![STORE.to_owned()])?);
                }
                ProducerId::Changelog(owner) => {
                    drop(task.log.fence(&format!("{JOB}-changelogs-{owner}"), generation)?);
                }
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
        let shown = self.observer.in_sinks();
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
        if self.scope.stores {
            let hosted = self.hosted(g, t);
            let recovery = self.recovery_of(plan, &hosted);
            let task = &mut self.gens[g].tasks[t];
            task.keyed = Some(Keyed::open(&task.folder, TaskIndex(t as u32), &task.log, &recovery, hosted)?);
        }
        let ends = plan.checkpoint.as_ref().map_or(&plan.zero.sinks, |record| &record.sinks);
        let (alone, until) = (self.tasks(g) == 1, self.gens[g].replay_until);
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
            let sink = LogSink::new(Arc::clone(&task.producer), config)?;
            let mut writer = sink.open(&context)?;
            if alone && until as u64 == checkpoint.0 {
                writer.replayed()?;
            }
            task.sinks.push(sink);
            task.writers.push(writer);
        }
        task.written = checkpoint.0 as usize;
        task.flushed = task.written;
        task.running = true;
        Ok(())
    }

    /// What was restored is what a run without faults has at C.
    fn compare_rows(&mut self, g: usize, t: usize) -> Step {
        let hosted = self.hosted(g, t);
        let task = &mut self.gens[g].tasks[t];
        let Some(keyed) = &mut task.keyed else { return Ok(()) };
        for partition in hosted {
            let (found, right) =
                (keyed.rows(partition).map_err(|e| e.to_string())?, rows(&self.committed[..task.written], partition));
            if found != right {
                return Err(format!("partition {partition} is restored as {found:?}, without faults it is {right:?}"));
            }
        }
        Ok(())
    }

    /// The job partitions of a task: they change places from generation to generation.
    fn hosted(&self, g: usize, t: usize) -> BTreeSet<PartitionId> {
        let hosts = |partition: usize| (partition + g) % self.tasks(g) == t;
        (0..PARTITIONS).filter(|partition| hosts(usize::from(*partition))).map(PartitionId).collect()
    }
}

/// Epochs.
impl World {
    pub(crate) fn write(&mut self, g: usize, t: usize) -> Step {
        let outcome = self.try_write(g, t);
        self.gens[g].tasks[t].written += 1;
        self.outcome(g, t, outcome).map(drop)
    }

    fn try_write(&mut self, g: usize, t: usize) -> Result<()> {
        let (alone, hosted) = (self.tasks(g) == 1, self.hosted(g, t));
        let generation = &mut self.gens[g];
        let (until, task) = (generation.replay_until, &mut generation.tasks[t]);
        let cuts = &generation.cuts[..=task.written];
        let epoch = Epoch(cuts.len() as u64);
        let mut texts = Vec::new();
        for partition in &hosted {
            let rows = task.keyed.as_mut().map(|keyed| keyed.process(cuts, *partition)).transpose()?;
            texts.push((*partition, value(cuts, rows.as_ref())));
        }
        for (sink, writer) in (0..).zip(&mut task.writers) {
            for (partition, text) in &texts {
                writer.write(epoch, *partition, batch(text, count(cuts, *partition, sink)))?;
            }
            writer.end_epoch(epoch)?;
            if alone && until as u64 == epoch.0 {
                writer.replayed()?;
            }
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self, g: usize, t: usize) -> Step {
        let task = &mut self.gens[g].tasks[t];
        let outcome = task.writers.iter_mut().try_for_each(|writer| writer.flush());
        if self.outcome(g, t, outcome)?.is_some() {
            let task = &mut self.gens[g].tasks[t];
            task.flushed = task.written;
        }
        Ok(())
    }

    pub(crate) fn bind(&mut self, g: usize) -> Step {
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
        writer.tend();
        if self.outcome(g, 0, outcome)?.is_some() {
            let generation = &mut self.gens[g];
            generation.durable = generation.cuts.len();
            let cuts = generation.cuts.clone();
            // From now on it is announced: latest reads and watches see it.
            self.observer.see(&cuts)?;
        }
        Ok(())
    }
}

/// Checkpoints.
impl World {
    pub(crate) fn seal(&mut self, g: usize, t: usize) -> Step {
        let (hosted, early) = (self.hosted(g, t), self.is(Mistake::CheckpointBeforeSinks));
        let generation = &mut self.gens[g];
        let at = generation.checkpoint.expect("it was chosen");
        let task = &mut generation.tasks[t];
        let sync = |sink: u16| -> Result<Vec<(SinkKey, u64)>> {
            let writer = &mut task.writers[usize::from(sink)];
            let ends: Vec<(PartitionId, u64)> =
                if early { (0..PARTITIONS).map(|p| (PartitionId(p), 0)).collect() } else { writer.sync()? };
            let own = ends.into_iter().filter(|(partition, _)| hosted.contains(partition));
            Ok(own.map(|(partition, end)| (SinkKey { sink, partition }, end)).collect())
        };
        let sinks: Result<Vec<Vec<_>>> = (0..SINKS).map(sync).collect();
        let sealed = match &mut task.keyed {
            // What is sealed has to be written up to there, also where the sinks are not waited for.
            Some(keyed) if task.written == at => keyed.seal(at).map(Some),
            _ => Ok(None),
        };
        let outcome = sinks.and_then(|sinks| Ok((sinks, sealed?)));
        let Some((sinks, sealed)) = self.outcome(g, t, outcome)? else { return Ok(()) };
        let task = &mut self.gens[g].tasks[t];
        task.asked = false;
        task.synced = at;
        task.flushed = if early { task.flushed } else { task.written };
        let stores = sealed.as_ref().map_or_else(Vec::new, SealedStore::states);
        let alone = sealed.is_none();
        let stage = sealed.map_or_else(|| Stage::Filed(Vec::new()), |sealed| Stage::Sealed(Box::new(sealed)));
        task.open = Some(Open { at, sinks: sinks.into_iter().flatten().collect(), stores, stage, told: false });
        let settled = self.is_settled(&self.gens[g].tasks[t]);
        let now = alone || self.is(Mistake::CheckpointBeforeChangelog);
        if settled && now { self.acknowledge(g, t) } else { Ok(()) }
    }

    pub(crate) fn write_changelog(&mut self, g: usize, t: usize) -> Step {
        let generation = &mut self.gens[g];
        let (number, task) = (generation.number, &mut generation.tasks[t]);
        let open = task.open.as_mut().expect("it is sealed");
        let Stage::Sealed(mut sealed) = std::mem::replace(&mut open.stage, Stage::Failed) else { return Ok(()) };
        let epoch = Epoch(open.at as u64);
        let changelogs = task.changelogs.as_mut().expect("it has fenced");
        match changelogs.write(std::slice::from_mut(&mut *sealed), &crate::state::unmeasured()) {
            Ok(()) => {
                open.stores = sealed.states();
                open.stage = Stage::Logged(sealed);
                Ok(())
            }
            Err(error) if error.blame() == Blame::External && error.code() != "fenced" => {
                self.tell(g, Event::CheckpointFailed { generation: number, epoch })
            }
            Err(error) => self.outcome(g, t, Err::<(), Error>(error)).map(drop),
        }
    }

    pub(crate) fn write_file(&mut self, g: usize, t: usize) -> Step {
        let generation = &mut self.gens[g];
        let (number, task) = (generation.number, &mut generation.tasks[t]);
        let open = task.open.as_mut().expect("it is sealed");
        let Stage::Logged(sealed) = std::mem::replace(&mut open.stage, Stage::Failed) else { return Ok(()) };
        let keyed = task.keyed.as_mut().expect("it has sealed");
        open.stage = Stage::Filed(keyed.file(*sealed, number).map_err(|error| error.to_string())?);
        Ok(())
    }

    pub(crate) fn acknowledge(&mut self, g: usize, t: usize) -> Step {
        let generation = &mut self.gens[g];
        let open = generation.tasks[t].open.as_mut().expect("it is sealed");
        open.told = true;
        let epoch = Epoch(open.at as u64);
        let mut ack = CheckpointAck {
            generation: generation.number,
            task: TaskIndex(t as u32),
            epoch,
            fingerprint: PLAN,
            minted_at: 0,
            sources: vec![],
            stores: open.stores.clone(),
            sinks: open.sinks.clone(),
            sinks_at: epoch,
        };
        let current = self.gens.len() - 1;
        if self.is(Mistake::StaleAckCounted) && g < current {
            ack.generation = self.gens[current].number;
            return self.tell(current, Event::Report(Report::Acknowledged(Box::new(ack))));
        }
        self.tell(g, Event::Report(Report::Acknowledged(Box::new(ack))))
    }

    /// A task learns what became of a checkpoint.
    fn decided_on(&mut self, g: usize, t: usize, epoch: Epoch, committed: bool) -> Step {
        let committed_too = self.is(Mistake::AbandonedTakenForCommitted);
        let generation = &mut self.gens[g];
        // The next one may have been chosen by another task already.
        generation.checkpoint = generation.checkpoint.filter(|at| *at as u64 > epoch.0);
        let (number, task) = (generation.number, &mut generation.tasks[t]);
        task.asked = false;
        let Some(open) = task.open.take() else { return Ok(()) };
        assert_eq!(open.at as u64, epoch.0, "the open checkpoint is the one that is decided");
        let Some(keyed) = &mut task.keyed else { return Ok(()) };
        let outcome = match (open.stage, committed) {
            (Stage::Filed(files), true) => keyed.committed(files, epoch),
            (Stage::Sealed(sealed) | Stage::Logged(sealed), true) => {
                keyed.file(*sealed, number).and_then(|files| keyed.committed(files, epoch))
            }
            (Stage::Filed(files), false) if !committed_too => keyed.abandoned(files, epoch),
            (_, false) if !committed_too => keyed.abandoned(vec![], epoch),
            (Stage::Filed(files), false) => keyed.committed(files, epoch),
            _ => keyed.committed(vec![], epoch),
        };
        outcome.map_err(|error| error.to_string())
    }
}

/// What a job partition gives a sink in an epoch.
fn batch(text: &str, count: u64) -> EncodedBatch {
    let data = text.as_bytes().to_vec();
    let one = EncodedRecord { value: Some(0..data.len()), ..EncodedRecord::default() };
    EncodedBatch { data, records: vec![one; count as usize] }
}
