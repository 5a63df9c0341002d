//! The operator that reads the partitions of a source which its worker hosts, and cuts them into shares of epochs.

mod partition;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thalweg_connectors::dead_letter::{DeadLetter, Place, is_retry};
use thalweg_connectors::{BadRecord, ReadLimit, ReadState, RecordSource, Waker};
use thalweg_core::{
    ContentHash, Data, Epoch, Error, OriginId, PartitionSpec, Provenance, Record, Result, Series, Share, SourceKey,
    failpoint,
};
use timely::dataflow::Scope;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::scheduling::SyncActivator;

use crate::aside::{Aside, Held, Output, Outputs};
use crate::context::WorkerContext;
use crate::epoch_gate::{Cutting, EpochGate, SourceEvent};
use crate::plan::OnError;
use crate::stream::Time;
use partition::{Losses, Pace, Partition, Turn};

/// Records read from one partition before the others, and the operators behind, have their turn.
const BATCH_RECORDS: usize = 2048;
/// Raw bytes read from one partition in one turn.
const BATCH_BYTES: usize = 1 << 20;
/// How soon an idle source looks again; doubles from the first to the second.
const IDLE_POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));
/// The longest wait of a source that knows when its rate lets it read the next record.
const PACED_POLL: Duration = Duration::from_millis(200);
/// How often the partitions are asked how far they are behind.
const LAG_INTERVAL: Duration = Duration::from_millis(500);
/// How soon a source that the bound on open epochs holds back looks again, if nothing wakes it before.
const HELD_BACK_POLL: Duration = Duration::from_millis(1);

/// What a source operator is built from.
pub(crate) struct SourceOperator<T> {
    pub(crate) id: String,
    pub(crate) index: u16,
    pub(crate) origin: OriginId,
    pub(crate) source: Arc<dyn RecordSource<T>>,
    /// Records per second over all partitions.
    pub(crate) rate: Option<f64>,
    pub(crate) on_error: OnError,
}

impl<T: Data> SourceOperator<T> {
    /// Builds the operator on this worker.
    pub(crate) fn build<'s>(self, scope: Scope<'s, Time>, context: &Rc<WorkerContext>) -> Result<Outputs<'s, T>> {
        let labels = [("job", context.job.as_str()), ("source", self.id.as_str())];
        let records_in = context.metrics.counter("records_in", "Records read from a source", &labels);
        let dropped = |reason| {
            let labels = [labels[0], labels[1], ("reason", reason)];
            context.metrics.counter("records_dropped", "Records that were not processed", &labels)
        };
        let (dropped, lost) = (dropped(self.on_error.counted_as("decode")), dropped("lost"));
        let losses = context.metrics.counter("source_losses", "Times that input was gone before it was read", &labels);
        let mut losses = Losses { series: losses, seen: 0 };
        // Before the operator is begun: timely allows none to be given up half-built.
        let partitions = self.open_all(context)?;
        let own = context.sources.iter().filter(|spec| spec.of.source == self.index && !is_retry(spec));
        let (following, leading): (Vec<_>, Vec<_>) = own.partition(|spec| self.source.follows(spec));
        let sharing = [leading.len(), following.len()];
        let leading = if following.is_empty() { Vec::new() } else { leading.into_iter().map(|spec| spec.of).collect() };
        let mut builder = OperatorBuilder::new(format!("source {}", self.id), scope);
        let address = builder.operator_info().address;
        let (output, records) = builder.new_output();
        let mut output = Output::from(output);
        let (aside, dead_letters) = Aside::new(&mut builder, self.on_error == OnError::DeadLetter);
        let activity = context.gate.activity(&self.id);
        let gate = context.gate.clone();
        let mut reading = Reading {
            partitions,
            sharing,
            leading,
            led_until: None,
            added: 0,
            context: context.clone(),
            gate,
            waker: waker(scope.worker().sync_activator_for(address.to_vec())),
            source: self,
            records_in,
            dropped,
            lost,
            aside,
            lag_told: None,
        };
        reading.be_woken();
        reading.share_rate();
        let failure = context.failure.clone();
        let activator = scope.worker().activator_for(address.clone());
        builder.build(move |capabilities| {
            let mut held = Held::new(&capabilities, 0);
            drop(capabilities);
            let (mut looks, mut buffer) = (Looks::default(), Vec::new());
            move |_| {
                if failure.failed() {
                    return;
                }
                let _busy = activity.begin();
                if let Err(error) = reading.take_in() {
                    return failure.fail(error);
                }
                let mut output = output.activate();
                let mut best = Turn::Waiting;
                for index in 0..reading.partitions.len() {
                    let turn = reading.turn(index, &mut buffer, &held, |epoch, records| {
                        output.session(&held.records().delayed(&epoch.0)).give_container(records);
                    });
                    match turn {
                        Ok(turn) => {
                            reading.partitions[index].turn = turn;
                            best = best.max(turn);
                        }
                        Err(error) => return failure.fail(error),
                    }
                }
                held.downgrade(reading.frontier().0);
                reading.tell_lag(best);
                losses.note(reading.partitions.iter().map(|partition| partition.reader.losses()).sum());
                match best {
                    Turn::Read => {
                        looks.poll = IDLE_POLL.0;
                        activator.activate();
                    }
                    Turn::HeldBack => activator.activate_after(HELD_BACK_POLL),
                    Turn::Idle => {
                        if let Some(wait) = looks.again_in(reading.idle_wait(looks.poll)) {
                            activator.activate_after(wait);
                        }
                    }
                    Turn::Waiting => {}
                }
            }
        });
        context.gate.register(scope.worker().sync_activator_for(address.to_vec()));
        Ok(Outputs { records, dead_letters })
    }

    /// Opens one partition, to read it from its position on, or from what is recorded of it.
    fn open(&self, context: &WorkerContext, spec: &PartitionSpec, first: Epoch) -> Result<Partition<T>> {
        let from = (context.source_starts)(spec);
        let reader = self.source.open(spec, from).map_err(|error| error.context(format!("source {:?}", self.id)))?;
        let follows = self.source.follows(spec);
        Ok(Partition { follows, ..Partition::new(spec.clone(), reader, first) })
    }

    /// The partitions that this worker hosts.
    fn open_all(&self, context: &WorkerContext) -> Result<Vec<Partition<T>>> {
        let own = context.sources.iter().filter(|spec| spec.of.source == self.index);
        let here = own.filter(|spec| context.host_of(spec.of.partition) == context.worker.0);
        here.map(|spec| self.open(context, spec, context.gate.recorded().first_of(spec.of))).collect()
    }
}

/// Wakes an operator, from any thread.
fn waker(activator: SyncActivator) -> Waker {
    let activator = Mutex::new(activator);
    Arc::new(move || {
        // An error says that the worker has ended: then there is nothing to wake.
        let _ = activator.lock().activate();
    })
}

/// When an idle source looks again by itself.
struct Looks {
    /// How soon where nobody knows better.
    poll: Duration,
    at: Option<Instant>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { poll: IDLE_POLL.0, at: None }
    }
}

impl Looks {
    /// Whether a look has to be asked for, so long from now. Whoever wakes the operator earlier must not begin another row of them.
    fn again_in(&mut self, wait: Duration) -> Option<Duration> {
        let now = Instant::now();
        if self.at.is_some_and(|at| at > now && at <= now + wait) {
            return None;
        }
        self.at = Some(now + wait);
        self.poll = (self.poll * 2).min(IDLE_POLL.1);
        Some(wait)
    }
}

/// The partitions of one source on one worker.
struct Reading<T> {
    partitions: Vec<Partition<T>>,
    /// How many partitions share the source's rate, on all workers: those that lead, and those that follow, which are read later. The
    /// one of retried records comes beside them, and takes nothing from it.
    sharing: [usize; 2],
    /// The partitions that lead, on all workers, where others follow.
    leading: Vec<SourceKey>,
    /// The last epoch with a record of them, once all have ended.
    led_until: Option<Epoch>,
    /// How many of the task's partitions that have come were looked at.
    added: usize,
    context: Rc<WorkerContext>,
    gate: Arc<EpochGate>,
    waker: Waker,
    source: SourceOperator<T>,
    records_in: Series,
    dropped: Series,
    lost: Series,
    aside: Aside,
    lag_told: Option<Instant>,
}

impl<T: Data> Reading<T> {
    /// Asks the readers to wake the operator.
    fn be_woken(&mut self) {
        for partition in &mut self.partitions {
            partition.wakes = partition.reader.wake(self.waker.clone());
        }
    }

    /// Divides the source's rate among the partitions that are read at one time.
    fn share_rate(&mut self) {
        for partition in &mut self.partitions {
            let sharing = self.sharing[usize::from(partition.follows)].max(1);
            partition.pace = self.source.rate.map(|rate| Pace::new(rate / sharing as f64));
        }
    }

    /// How long to wait where nothing is there for now: those that are paced know it.
    fn idle_wait(&self, poll: Duration) -> Duration {
        let idle = self.partitions.iter().filter(|partition| partition.turn == Turn::Idle);
        let wait = idle.map(|partition| partition.pace.as_ref().and_then(Pace::due_in).unwrap_or(poll)).min();
        wait.unwrap_or(poll).min(PACED_POLL)
    }

    /// Begins to read partitions that have come.
    fn take_in(&mut self) -> Result<()> {
        let added = self.gate.added_since(self.added);
        if added.is_empty() {
            return Ok(());
        }
        self.added += added.len();
        let known = self.sharing;
        for (first, spec) in added.into_iter().filter(|(_, spec)| spec.of.source == self.source.index) {
            self.sharing[usize::from(self.source.source.follows(&spec))] += 1;
            if self.context.host_of(spec.of.partition) == self.context.worker.0 {
                let mut partition = self.source.open(&self.context, &spec, first)?;
                failpoint::pass("growth-opened")?;
                partition.wakes = partition.reader.wake(self.waker.clone());
                self.partitions.push(partition);
            }
        }
        if self.sharing != known {
            self.share_rate();
        }
        Ok(())
    }

    /// The first epoch that this operator may still give records of: every binding before it is durable, and every share before
    /// it has ended.
    fn frontier(&self) -> Epoch {
        let released = self.gate.released().next();
        self.partitions.iter().map(|partition| partition.epoch).fold(released, Epoch::min)
    }

    /// Says from time to time how far the partitions are behind; at once where nothing happens before somebody wakes the operator.
    fn tell_lag(&mut self, turn: Turn) {
        let due = self.lag_told.is_none_or(|told| told.elapsed() >= LAG_INTERVAL);
        if !due && turn != Turn::Waiting {
            return;
        }
        self.lag_told = Some(Instant::now());
        for partition in &mut self.partitions {
            // One that had nothing to read, now and the last time, is not asked.
            let quiet = partition.turn == Turn::Idle || partition.ended;
            if !quiet || partition.lag.is_none_or(|lag| lag.records > 0) {
                partition.lag = partition.reader.lag();
                if let Some(lag) = partition.lag {
                    self.gate.set_lag(partition.spec.of, lag);
                }
            }
        }
    }

    /// Ends what has to end, then reads one batch.
    fn turn(
        &mut self,
        index: usize,
        buffer: &mut Vec<Record<T>>,
        held: &Held,
        mut give: impl FnMut(Epoch, &mut Vec<Record<T>>),
    ) -> Result<Turn> {
        let mut turn = Turn::Waiting;
        loop {
            let partition = &mut self.partitions[index];
            let recorded = self.gate.recorded().share(partition.epoch, partition.spec.of);
            if recorded.is_none() && self.must_end(index) {
                self.end_share(index, None)?;
                continue;
            }
            let partition = &mut self.partitions[index];
            if let Some(share) = recorded {
                if !self.gate.may_open(partition.epoch) {
                    return Ok(turn.max(Turn::HeldBack));
                }
                if partition.reader.position() == share.next {
                    self.end_share(index, Some(share))?;
                    continue;
                }
            } else if self.gate.recorded_only() || self.gate.stopping() || partition.ended {
                return Ok(turn.max(self.when_ended(index)));
            } else if self.must_wait(index)? {
                // It is known that it has not ended.
                self.seen(index);
                return Ok(turn);
            } else if !self.gate.may_open(self.partitions[index].epoch) {
                return Ok(turn.max(Turn::HeldBack));
            }
            if turn == Turn::Read {
                return Ok(turn);
            }
            match self.read(index, recorded, buffer)? {
                0 if recorded.is_some()
                    && self.partitions[index].reader.position() == recorded.map_or(0, |s| s.next) => {}
                // Its last share may have to end at once: nobody wakes it for an epoch that others have reached before.
                0 if self.partitions[index].ended => {}
                0 => {
                    let partition = &self.partitions[index];
                    let woken = partition.wakes && partition.pace.is_none() && recorded.is_none();
                    return Ok(turn.max(if woken { Turn::Waiting } else { Turn::Idle }));
                }
                _ => {
                    turn = Turn::Read;
                    self.aside.give(&held.dead_letters().delayed(&self.partitions[index].epoch.0));
                    if !buffer.is_empty() {
                        give(self.partitions[index].epoch, buffer);
                        buffer.clear();
                    }
                }
            }
        }
    }

    /// Whether a partition follows others, and the open epoch is not behind the last one with a record of those.
    fn must_wait(&mut self, index: usize) -> Result<bool> {
        if !self.partitions[index].follows {
            return Ok(false);
        }
        if self.led_until.is_none() {
            self.led_until = self.gate.all_ended(&self.leading);
            if self.led_until.is_some() {
                failpoint::pass("backfill-over")?;
                // Their rate is theirs from now on.
                self.share_rate();
            }
        }
        Ok(self.led_until.is_none_or(|last| self.partitions[index].epoch <= last))
    }

    /// Tells the driver once that nothing more comes.
    fn when_ended(&mut self, index: usize) -> Turn {
        let partition = &mut self.partitions[index];
        if !partition.told_end {
            partition.told_end = true;
            if partition.ended && !self.leading.is_empty() && !partition.follows {
                let last = if partition.count > 0 { partition.epoch } else { Epoch(partition.epoch.0 - 1) };
                self.gate.ended(partition.spec.of, last);
            }
            self.gate.tell(SourceEvent::Ended(partition.spec.of));
        }
        self.seen(index);
        Turn::Waiting
    }

    /// Tells the driver once that a partition was looked at.
    fn seen(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        if !partition.told_seen {
            partition.told_seen = true;
            self.gate.tell(SourceEvent::Seen(partition.spec.of));
        }
    }

    /// Whether the share that is open has to end.
    fn must_end(&self, index: usize) -> bool {
        let partition = &self.partitions[index];
        match self.gate.limits().cutting {
            Cutting::Together => partition.epoch < self.gate.cut(),
            Cutting::ByCount => {
                let limits = self.gate.limits();
                let full = partition.count >= limits.max_records;
                let over = partition.ended || self.gate.stopping();
                // The last share of a partition that has ended is closed when another one goes beyond it, or at the very end.
                full || over && (partition.epoch < self.gate.highest() || partition.epoch < self.gate.cut())
            }
        }
    }

    /// Ends the open share: a manifest for the driver, and the next epoch begins.
    fn end_share(&mut self, index: usize, recorded: Option<Share>) -> Result<()> {
        let partition = &mut self.partitions[index];
        let share = Share {
            of: partition.spec.of,
            next: partition.reader.position(),
            count: partition.count,
            hash: partition.reader.take_hash(),
        };
        if let Some(recorded) = recorded.filter(|recorded| *recorded != share) {
            return Err(Error::external(
                "source-changed",
                format!(
                    "source {:?}, {}: epoch {} held {} records up to position {} when it was first read, and now {} other ones; \
                     the input before the last checkpoint must not be changed",
                    self.source.id, partition.spec.name, partition.epoch, recorded.count, recorded.next, share.count
                ),
            ));
        }
        if !failpoint::bug("dropped-manifest") || partition.epoch.0 % 7 != 3 {
            self.gate.tell(SourceEvent::Share(partition.epoch, share));
        } else {
            self.gate
                .tell(SourceEvent::Share(partition.epoch, Share { count: 0, hash: ContentHash::default(), ..share }));
        }
        if let Some(fraction) = partition.reader.fraction() {
            self.gate.set_fraction(partition.spec.of, fraction);
        }
        partition.epoch = partition.epoch.next();
        partition.count = 0;
        partition.sequence = 0;
        partition.set_aside = 0;
        partition.started_at = partition.reader.bytes();
        Ok(())
    }

    /// Reads one batch into the open share; returns how many records were there, good and bad.
    fn read(&mut self, index: usize, recorded: Option<Share>, buffer: &mut Vec<Record<T>>) -> Result<u64> {
        let limits = self.gate.limits();
        let partition = &mut self.partitions[index];
        let allowance = partition.pace.as_ref().map_or(BATCH_RECORDS, Pace::allowance);
        // A recorded share ends where it ended: blank lines behind its last record belong to it as well.
        let left = if recorded.is_some() { u64::MAX } else { limits.max_records - partition.count };
        let limit = ReadLimit {
            records: BATCH_RECORDS.min(usize::try_from(left).unwrap_or(usize::MAX)).min(allowance),
            bytes: BATCH_BYTES,
            // A reader knows its own end.
            until: recorded.map(|share| share.next),
        };
        if limit.records == 0 {
            return Ok(0);
        }
        let (mut values, mut bad) = (Vec::with_capacity(limit.records), Vec::new());
        let state = partition.reader.read(limit, &mut values, &mut bad);
        let state = state.map_err(|error| error.context(format!("source {:?}", self.source.id)))?;
        let (origin, of) = (self.source.origin, partition.spec.of.partition);
        buffer.extend(
            values
                .into_iter()
                .zip(partition.sequence..)
                .map(|(value, sequence)| Record { provenance: Provenance::new(origin, of, sequence), value }),
        );
        partition.sequence += buffer.len() as u64;
        let read = buffer.len() as u64 + bad.len() as u64;
        let first = partition.count == 0 && read > 0;
        partition.count += read;
        if let Some(pace) = &mut partition.pace {
            pace.read += read;
        }
        let full = partition.count >= limits.max_records
            || partition.reader.bytes().saturating_sub(partition.started_at) >= limits.max_bytes;
        let epoch = partition.epoch;
        if recorded.is_none() {
            // The job ends without waiting for what may be retried yet; as long as it runs, that is read.
            let enough = partition.retries && read == 0 && state == ReadState::Idle;
            partition.ended = state == ReadState::End || enough && limits.cutting == Cutting::ByCount;
            if enough {
                self.when_ended(index);
            }
            if first {
                self.gate.reached(epoch);
                self.gate.tell(SourceEvent::Opened(epoch, Instant::now()));
            }
            if full && limits.cutting == Cutting::Together {
                self.gate.tell(SourceEvent::Full(epoch));
            }
            // One that is empty and has ended says first that it has; of one that has not arrived nothing is known.
            if read > 0 || !matches!(state, ReadState::End | ReadState::Pending) {
                self.seen(index);
            }
        } else if read == 0
            && matches!(state, ReadState::Idle | ReadState::End)
            && self.partitions[index].reader.position() != limit.until.unwrap_or(0)
        {
            return Err(self.lost(index, recorded.map_or(0, |share| share.next)));
        }
        self.records_in.add(read);
        self.lost.add(self.partitions[index].reader.take_lost());
        self.refuse(index, bad)?;
        Ok(read)
    }

    fn lost(&self, index: usize, wanted: u64) -> Error {
        let partition = &self.partitions[index];
        Error::external(
            "source-lost-data",
            format!(
                "source {:?}, {}: the recorded epoch {} goes up to position {wanted}, but nothing more is there after {}",
                self.source.id,
                partition.spec.name,
                partition.epoch,
                partition.reader.position()
            ),
        )
    }

    /// Does with records that cannot be decoded what the job says.
    fn refuse(&mut self, index: usize, bad: Vec<BadRecord>) -> Result<()> {
        let Some(first) = bad.first() else { return Ok(()) };
        let count = bad.len() as u64;
        match self.source.on_error {
            OnError::Fail => {
                return Err(Error::user(
                    "bad-record",
                    format!(
                        "source {:?}, {}: {}; mend the input, or set on_error = \"dead-letter\" to set such records aside, \
                         or \"drop\" to go on without them",
                        self.source.id, self.partitions[index].spec.name, first.why
                    ),
                ));
            }
            OnError::Drop => {
                for record in &bad {
                    tracing::warn!(source = self.source.id, "record dropped: {}", record.why);
                }
            }
            OnError::DeadLetter => self.set_aside(index, bad),
        }
        self.dropped.add(count);
        Ok(())
    }

    fn set_aside(&mut self, index: usize, bad: Vec<BadRecord>) {
        let (source, partition) = (&self.source, &mut self.partitions[index]);
        let backfill = source.source.is_backfill(&partition.spec);
        let named = || (source.id.clone(), partition.spec.name.clone());
        let of_topic = source.source.topic_of(&partition.spec);
        let (topic, name) = of_topic.map(|(topic, number)| (topic, number.to_string())).unwrap_or_else(named);
        for record in bad {
            tracing::warn!(source = source.id, "record set aside: {}", record.why);
            let provenance = Provenance::new(source.origin, partition.spec.of.partition, partition.set_aside);
            partition.set_aside += 1;
            let place = Place { topic: topic.clone(), partition: name.clone(), offset: record.at };
            self.aside.put(provenance, DeadLetter::of_source(&source.id, backfill, place, record));
        }
    }
}
