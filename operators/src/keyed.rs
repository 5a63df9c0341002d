//! The operator behind every keyed process: buffers an epoch until the frontier passes it, then calls user code once per key,
//! partition by partition, in an order that does not depend on timing.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use thalweg_connectors::dead_letter;
use thalweg_core::{
    Epoch, Error, Key, KeyHash, Keyed, OriginId, PartitionCount, PartitionId, Provenance, Record, Result, hash_key,
};
use thalweg_state::{Handle, KeyRange, Scope, Store, StoreOptions};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::aside::{self, Aside, Outputs};
use crate::context::{OperatorStore, WorkerContext};
use crate::epoch_gate::NO_TIMER;
use crate::group::{EpochBuffer, Group, Grouping, partition_of};
use crate::process::{EpochCtx, KeyedProcess, Output, ProcessError, RecordsOf, State, Timestamp};
use crate::stateless::Guard;
use crate::store::{KeyedStore, Show, encoded};
use crate::stream::{Records, Time};

/// The suffix of the store in which an operator keeps its timers.
pub(crate) const TIMERS_SUFFIX: &str = "~timers";

/// The time in front of an encoded timer: it orders timers, and is no part of the key that they belong to.
const TIME_BYTES: usize = size_of::<i64>();

/// What a keyed operator is built from.
pub(crate) struct KeyedOperator<P> {
    pub(crate) id: String,
    pub(crate) origin: OriginId,
    pub(crate) process: Arc<P>,
    pub(crate) guard: Guard,
    /// Whether the process may set timers.
    pub(crate) timers: bool,
}

type Shared<K, V> = Rc<RefCell<KeyedStore<K, V>>>;

impl<P: KeyedProcess> KeyedOperator<P> {
    /// Builds the operator on this worker.
    pub(crate) fn build<'s>(
        self,
        stream: Records<'s, Keyed<P::Key, P::In>>,
        context: &Rc<WorkerContext>,
    ) -> Result<Outputs<'s, P::Out>> {
        let partitions = context.partitions;
        let assignment = context.assignment.clone();
        let exchange = Exchange::new(move |record: &Record<Keyed<P::Key, P::In>>| {
            u64::from(assignment[usize::from(record.value.hash.partition(partitions).0)])
        });
        let mut builder = OperatorBuilder::new(format!("operator {}", self.id), stream.scope());
        let mut input = builder.new_input(stream, exchange);
        let (output, records) = builder.new_output();
        let mut output = aside::Output::from(output);
        let (aside, dead_letters) = Aside::new(&mut builder, self.guard.sets_aside());
        let mut run = match Run::open(self, aside, context) {
            Ok(run) => run,
            Err(error) => {
                // Timely allows no operator to be given up half-built.
                builder.build(|_| |_: &[_]| {});
                return Err(error);
            }
        };
        let activity = run.operator.guard.activity.clone();
        activity.set_processed(context.gate.processed());
        let context = context.clone();
        builder.build(move |capabilities| {
            let mut epochs: BTreeMap<Time, EpochBuffer<P::Key, P::In>> = BTreeMap::new();
            let mut next = context.gate.processed().next().0;
            // Held for the first epoch that is not processed: what is behind waits for this operator.
            let mut held = aside::Held::new(&capabilities, next);
            drop(capabilities);
            move |frontiers| {
                let _busy = activity.begin();
                input.for_each(|time, batch: &mut Vec<_>| epochs.entry(*time.time()).or_default().extend(batch));
                // An empty frontier says that the dataflow is taken down, not that its last epoch is complete.
                let Some(&first_open) = frontiers[0].frontier().first() else { return };
                let mut output = output.activate();
                while next < first_open && !context.failure.failed() {
                    let buffer = epochs.remove(&next).unwrap_or_default();
                    if let Err(error) = run.epoch(Epoch(next), buffer, &context) {
                        return context.failure.fail(error);
                    }
                    if !run.out.records().is_empty() {
                        output.session(held.records()).give_container(run.out.records());
                        run.out.records().clear();
                    }
                    run.aside.give(held.dead_letters());
                    activity.set_processed(Epoch(next));
                    next += 1;
                    held.downgrade(next);
                }
            }
        });
        Ok(Outputs { records, dead_letters })
    }
}

/// A keyed operator at work on one worker.
struct Run<P: KeyedProcess> {
    operator: KeyedOperator<P>,
    partitions: PartitionCount,
    seed: u64,
    store: Shared<P::Key, P::State>,
    timers: Option<Timers<P::Key>>,
    grouping: Grouping,
    slots: Vec<Handle>,
    out: Output<P::Out>,
    aside: Aside,
    /// Where the next record that is set aside stands.
    next_aside: Provenance,
}

/// The timers of the hosted partitions: all in memory in order of time, and in a store of their own.
struct Timers<K: Key> {
    due: BTreeSet<(i64, PartitionId, Vec<u8>)>,
    store: Shared<(i64, K), ()>,
    gate_slot: usize,
}

impl<P: KeyedProcess> Run<P> {
    fn open(operator: KeyedOperator<P>, aside: Aside, context: &Rc<WorkerContext>) -> Result<Self> {
        let process = operator.process.clone();
        let store = open_store(&operator.id, Arc::new(move |state: &P::State| process.show(state)), None, context)?;
        let timers = operator.timers.then(|| Timers::open(&operator.id, context)).transpose()?;
        let mut scratch = Vec::new();
        let seed = hash_key(&(context.job_id.0, operator.id.as_str()), &mut scratch)?.0;
        Ok(Self {
            partitions: context.partitions,
            seed,
            store,
            timers,
            grouping: Grouping::new(),
            slots: Vec::new(),
            out: Output::new(operator.origin),
            aside,
            next_aside: Provenance::new(operator.origin, PartitionId(0), 0),
            operator,
        })
    }

    /// Processes one epoch; what it emits is left in `out`.
    fn epoch(&mut self, epoch: Epoch, buffer: EpochBuffer<P::Key, P::In>, context: &WorkerContext) -> Result<()> {
        // What belongs between the last epoch and this one: seals, and questions that are answered at one boundary.
        let checkpoint = context.gate.checkpoint();
        self.store.borrow_mut().seal_if_due(checkpoint);
        if let Some(timers) = &self.timers {
            timers.store.borrow_mut().seal_if_due(checkpoint);
        }
        for barrier in context.barriers.take_due(&self.operator.id, epoch) {
            let answer = self.store.borrow_mut().query(&barrier.query);
            (barrier.reply)(answer);
        }
        let time = context.gate.time_of(epoch);
        let ctx = EpochCtx::new(epoch, Timestamp(time), self.seed);
        let records = buffer.into_ordered();
        let fired = match &mut self.timers {
            Some(timers) => timers.take_due(time, epoch)?,
            None => Vec::new(),
        };
        if !records.is_empty() || !fired.is_empty() {
            self.process(epoch, &records, fired, &ctx, context)?;
        }
        if let Some(timers) = &mut self.timers {
            timers.finish(epoch, context);
        }
        self.store.borrow_mut().processed(epoch, context);
        Ok(())
    }

    fn process(
        &mut self,
        epoch: Epoch,
        records: &[Record<Keyed<P::Key, P::In>>],
        fired: Vec<Fired<P::Key>>,
        ctx: &EpochCtx,
        context: &WorkerContext,
    ) -> Result<()> {
        let store = self.store.clone();
        let mut keyed = store.borrow_mut();
        let (id, now) = (keyed.id().to_owned(), (epoch, ctx.time().0));
        let answer = |keyed: &mut KeyedStore<P::Key, P::State>, next: PartitionId| {
            context.questions.answer(&id, &mut |key| keyed.get_amid(key, next, now));
        };
        self.grouping.group(records, self.partitions);
        let groups: Vec<Group> = self.grouping.in_order().collect();
        answer(&mut keyed, PartitionId(0));
        keyed.loaded = fired.len() + groups.len();
        let store = &mut keyed.store;
        self.slots.clear();
        let keys = fired.iter().map(|timer| (timer.hash, &timer.key));
        let keys = keys.chain(groups.iter().map(|group| (group.hash, &records[group.first as usize].value.key)));
        store.load(keys, &mut self.slots)?;
        let slots = std::mem::take(&mut self.slots);
        // Both lists are in order of partition: one partition at a time, its timers first.
        let (mut timer, mut group) = (0, 0);
        while timer < fired.len() || group < groups.len() {
            let next_timer = fired.get(timer).map(|timer| timer.partition);
            let next_group = groups.get(group).map(|group| partition_of(group, self.partitions));
            let partition = match (next_timer, next_group) {
                (Some(a), Some(b)) => a.min(b),
                (a, b) => a.or(b).expect("one of them is left"),
            };
            answer(&mut keyed, partition);
            let store = &mut keyed.store;
            self.out.begin_partition(partition);
            self.next_aside = Provenance::new(self.operator.origin, partition, 0);
            while fired.get(timer).is_some_and(|timer| timer.partition == partition) {
                self.fire(&fired[timer], store, slots[timer], epoch, ctx)?;
                timer += 1;
            }
            while groups.get(group).is_some_and(|group| partition_of(group, self.partitions) == partition) {
                self.call(&groups[group], records, store, slots[fired.len() + group], epoch, ctx)?;
                group += 1;
            }
        }
        self.slots = slots;
        Ok(())
    }

    /// Gives one key its records; a failed call is undone and, where the job says so, repeated without the record it was given
    /// last.
    fn call(
        &mut self,
        group: &Group,
        records: &[Record<Keyed<P::Key, P::In>>],
        store: &mut Store<P::Key, P::State>,
        slot: Handle,
        epoch: Epoch,
        ctx: &EpochCtx,
    ) -> Result<()> {
        let key = &records[group.first as usize].value.key;
        let count = group.count as usize;
        let undo = self.undo_point(store, slot)?;
        let mut skipped: Vec<u32> = Vec::new();
        loop {
            let mark = self.out.mark();
            ctx.begin_call(group.hash);
            let mut given = RecordsOf::new(records, self.grouping.next(), group.first, count, &skipped);
            let (process, out) = (&self.operator.process, &mut self.out);
            let state = store.value_mut(slot)?;
            let outcome = Guard::call(|| process.process(key, &mut given, state, out, ctx));
            let Err(error) = outcome else { break };
            let last = given.last_given();
            self.out.rewind(mark);
            ctx.take_timers();
            if let Some(undo) = &undo {
                *store.value_mut(slot)? = undo.restore()?;
            }
            let Some(last) = last else {
                // It failed before it took a record: there is none to blame, and the call is left out, with all of its records.
                let left: Vec<u32> = self.grouping.records_of(group).filter(|index| !skipped.contains(index)).collect();
                let mut left = left.into_iter().map(|index| &records[index as usize].value.value);
                return left.try_for_each(|record| self.refuse(epoch, key, Some(record), None, &error));
            };
            skipped.push(last);
            self.refuse(epoch, key, Some(&records[last as usize].value.value), None, &error)?;
            if skipped.len() == count {
                return Ok(());
            }
        }
        store.mark(slot, epoch);
        self.set_timers(group.hash, key, ctx, epoch)
    }

    fn fire(
        &mut self,
        timer: &Fired<P::Key>,
        store: &mut Store<P::Key, P::State>,
        slot: Handle,
        epoch: Epoch,
        ctx: &EpochCtx,
    ) -> Result<()> {
        let undo = self.undo_point(store, slot)?;
        let mark = self.out.mark();
        ctx.begin_call(timer.hash);
        let (process, out) = (&self.operator.process, &mut self.out);
        let state = store.value_mut(slot)?;
        let outcome = Guard::call(|| process.on_timer(&timer.key, Timestamp(timer.at), state, out, ctx));
        if let Err(error) = outcome {
            self.out.rewind(mark);
            ctx.take_timers();
            if let Some(undo) = &undo {
                *store.value_mut(slot)? = undo.restore()?;
            }
            return self.refuse(epoch, &timer.key, None, Some(timer.at), &error);
        }
        store.mark(slot, epoch);
        self.set_timers(timer.hash, &timer.key, ctx, epoch)
    }

    /// Does with a record, or a timer, that a call has failed on what the job says.
    fn refuse(
        &mut self,
        epoch: Epoch,
        key: &P::Key,
        record: Option<&P::In>,
        timer: Option<i64>,
        error: &ProcessError,
    ) -> Result<()> {
        let held = if timer.is_some() { dead_letter::Held::Timer } else { dead_letter::Held::Grouped };
        let Some(mut letter) = self.operator.guard.decide(epoch, held, record, error)? else { return Ok(()) };
        letter.key = Some(self.operator.guard.json(key)?);
        letter.timer = timer;
        self.aside.put(self.next_aside, letter);
        self.next_aside = self.next_aside.with_sequence(self.next_aside.sequence() + 1);
        Ok(())
    }

    /// What the state was before a call, kept only where a failed call is to be undone.
    fn undo_point(&self, store: &mut Store<P::Key, P::State>, slot: Handle) -> Result<Option<Undo>> {
        if self.operator.guard.stops() {
            return Ok(None);
        }
        let state = store.value_mut(slot)?.as_ref();
        let bytes = state.map(postcard::to_stdvec).transpose();
        bytes
            .map(|bytes| Some(Undo(bytes)))
            .map_err(|error| Error::user("state-encode", format!("state cannot be encoded: {error}")))
    }

    fn set_timers(&mut self, hash: KeyHash, key: &P::Key, ctx: &EpochCtx, epoch: Epoch) -> Result<()> {
        let set = ctx.take_timers();
        if set.is_empty() {
            return Ok(());
        }
        let partition = hash.partition(self.partitions);
        match &mut self.timers {
            Some(timers) => set.into_iter().try_for_each(|at| timers.set(at.0, partition, hash, key, epoch)),
            None => Err(Error::user(
                "timers",
                format!("operator {:?} sets a timer but says TIMERS = false; set it to true", self.operator.id),
            )),
        }
    }
}

/// The encoded state before a call.
struct Undo(Option<Vec<u8>>);

impl Undo {
    fn restore<V: serde::de::DeserializeOwned>(&self) -> Result<Option<V>> {
        let decoded = self.0.as_deref().map(postcard::from_bytes).transpose();
        decoded.map_err(|error| Error::internal("state-decode", format!("state does not decode: {error}")))
    }
}

/// A timer that is due.
struct Fired<K> {
    at: i64,
    partition: PartitionId,
    hash: KeyHash,
    key: K,
}

impl<K: Key> Timers<K> {
    fn open(id: &str, context: &Rc<WorkerContext>) -> Result<Self> {
        let store: Shared<(i64, K), ()> = open_store(
            &format!("{id}{TIMERS_SUFFIX}"),
            Arc::new(|()| Ok("null".to_owned())),
            Some(TIME_BYTES),
            context,
        )?;
        let mut due = BTreeSet::new();
        let (mut scratch, partitions) = (Vec::new(), context.partitions);
        store.borrow_mut().store.scan(Scope::All, &KeyRange::all(), usize::MAX, |_, (at, key), ()| {
            let hash = hash_key(key, &mut scratch)?;
            due.insert((*at, hash.partition(partitions), scratch.clone()));
            Ok(())
        })?;
        let timers = Self { due, store, gate_slot: context.gate.timer_slot() };
        timers.publish(context);
        Ok(timers)
    }

    /// Takes the timers that are due at `time`, in order of partition, time and key; they are gone from the store.
    fn take_due(&mut self, time: i64, epoch: Epoch) -> Result<Vec<Fired<K>>> {
        let later = self.due.split_off(&(time.saturating_add(1), PartitionId(0), Vec::new()));
        let due = std::mem::replace(&mut self.due, later);
        let mut fired: Vec<_> = due
            .into_iter()
            .map(|(at, partition, encoded)| {
                let key: K = thalweg_core::decode_key(&encoded).expect("this process encoded it");
                let hash = KeyHash(xxhash_rust::xxh3::xxh3_64(&encoded));
                (partition, Fired { at, partition, hash, key })
            })
            .collect();
        fired.sort_by_key(|(partition, _)| *partition);
        let fired: Vec<_> = fired.into_iter().map(|(_, timer)| timer).collect();
        let keys: Vec<_> = fired.iter().map(|timer| (timer.hash, (timer.at, timer.key.clone()))).collect();
        self.put(&keys, None, epoch)?;
        Ok(fired)
    }

    /// Sets or removes timers in the store.
    fn put(&mut self, keys: &[(KeyHash, (i64, K))], value: Option<()>, epoch: Epoch) -> Result<()> {
        let store = &mut self.store.borrow_mut().store;
        let mut handles = Vec::with_capacity(keys.len());
        store.load(keys.iter().map(|(hash, key)| (*hash, key)), &mut handles)?;
        for handle in handles {
            *store.value_mut(handle)? = value;
            store.mark(handle, epoch);
        }
        Ok(())
    }

    fn set(&mut self, at: i64, partition: PartitionId, hash: KeyHash, key: &K, epoch: Epoch) -> Result<()> {
        if self.due.insert((at, partition, encoded(key)?)) {
            self.put(&[(hash, (at, key.clone()))], Some(()), epoch)?;
        }
        Ok(())
    }

    fn finish(&mut self, epoch: Epoch, context: &WorkerContext) {
        self.publish(context);
        self.store.borrow_mut().processed(epoch, context);
    }

    fn publish(&self, context: &WorkerContext) {
        let due = self.due.first().map_or(NO_TIMER, |(at, _, _)| *at);
        context.gate.set_timer(self.gate_slot, due);
    }
}

/// Opens a store; `ordered_by` so many bytes in front of its keys, where they are scanned all the time.
fn open_store<K: Key, V: State>(
    id: &str,
    show: Show<V>,
    ordered_by: Option<usize>,
    context: &Rc<WorkerContext>,
) -> Result<Shared<K, V>> {
    let options = StoreOptions {
        name: id.to_owned(),
        worker: context.worker,
        hosted: context.hosted(),
        budget_bytes: context.store_budget,
        ordered: ordered_by.is_some(),
        hashed_from: ordered_by.unwrap_or(0),
    };
    let store = Store::open(context.backend.clone(), options)?;
    let store = Rc::new(RefCell::new(KeyedStore::new(id.to_owned(), store, show, context)));
    context.stores.borrow_mut().push(store.clone());
    Ok(store)
}
