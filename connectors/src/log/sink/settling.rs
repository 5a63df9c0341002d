//! What of a sink is visible for good.
//!
//! A commit that is acknowledged is decided. Yet until a partition has the marker of its end, that decision may be lost there, and then
//! its transaction shares the fate of the next one of the same producer that touches the partition: where that is dropped, what was
//! acknowledged goes with it. So where a partition is decided up to an end, what is before the end is visible only if no transaction
//! of the sink's topic was open when that was looked at, or the one that was open is committed. Where one has failed, the records
//! themselves are looked for, by whoever writes again what was in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_core::{Error, JobId, PartitionId, Result};

use super::producer::{Doubt, SinkProducer, Transaction};
use crate::log::{Delivery, Position};

/// After so many looks in a row without success it is looked whose transaction holds a partition back: some seconds of those of a
/// checkpoint.
const FRUITLESS_LOOKS: u32 = 1000;

/// What the sides of a sink that make its checkpoints and that write share.
pub(super) struct Settling {
    producer: Arc<SinkProducer>,
    topic: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By partition of the topic; it only grows.
    visible: Vec<u64>,
    /// These ends are decided, and visible if this transaction is committed.
    awaited: Option<(Transaction, Vec<(PartitionId, u64)>)>,
    /// The job that writes.
    job: Option<JobId>,
    /// Looks without success in a row.
    fruitless: u32,
}

impl State {
    fn is_visible(&self, (partition, end): (PartitionId, u64)) -> bool {
        self.visible[usize::from(partition.0)] >= end
    }

    fn see(&mut self, ends: &[(PartitionId, u64)]) {
        for (partition, end) in ends {
            let visible = &mut self.visible[usize::from(partition.0)];
            *visible = (*visible).max(*end);
        }
    }
}

impl Settling {
    pub(super) fn new(producer: Arc<SinkProducer>, topic: String, partitions: u32) -> Self {
        let state = State { visible: vec![0; partitions as usize], ..State::default() };
        Self { producer, topic, state: Mutex::new(state) }
    }

    /// Who writes from now on.
    pub(super) fn enter(&self, job: JobId) {
        self.state.lock().job = Some(job);
    }

    /// Whether everything before these ends is visible. Asks the log, once, for those that are not known to be.
    ///
    /// Errors: those of the log; `sink-acknowledged-lost` where the log has lost the end of a transaction of the job.
    pub(super) fn look(&self, ends: &[(PartitionId, u64)]) -> Result<bool> {
        if self.producer.delivery() == Delivery::AtLeastOnce {
            return Ok(true);
        }
        let state = &mut *self.state.lock();
        if let Some((transaction, decided)) = state.awaited.take() {
            match self.producer.is_committed(transaction) {
                true => state.see(&decided),
                false if self.producer.is_open(transaction) => state.awaited = Some((transaction, decided)),
                false => {}
            }
        }
        let asked: Vec<_> = ends.iter().copied().filter(|end| !state.is_visible(*end)).collect();
        if asked.is_empty() || state.awaited.is_some() {
            state.fruitless = 0;
            return Ok(asked.is_empty());
        }
        let partitions: Vec<_> = asked.iter().map(|(partition, _)| *partition).collect();
        let stable = self.producer.log().stable_ends(&self.topic, &partitions)?;
        let decided = asked.iter().zip(stable).filter(|((_, end), stable)| stable >= end);
        let decided: Vec<_> = decided.map(|(asked, _)| *asked).collect();
        // Behind the look: a transaction that has failed before it is known to have, or is still taken for open.
        match self.producer.doubt(&self.topic) {
            Doubt::None => state.see(&decided),
            Doubt::Open(transaction) if !decided.is_empty() => state.awaited = Some((transaction, decided)),
            Doubt::Open(_) | Doubt::Failed => {}
        }
        let held = asked.iter().find(|end| !state.is_visible(**end));
        state.fruitless = if held.is_some() { state.fruitless + 1 } else { 0 };
        if let (Some((partition, _)), FRUITLESS_LOOKS..) = (held, state.fruitless) {
            state.fruitless = 0;
            self.refuse_own(*partition, state.job)?;
        }
        Ok(held.is_none())
    }

    /// What was acknowledged was forgotten here: only a start from the last checkpoint can end it and write it again. Where nothing
    /// more comes for the partition, nobody else would.
    fn refuse_own(&self, partition: PartitionId, job: Option<JobId>) -> Result<()> {
        let held_back = self.producer.log().first_held_back(&self.topic, partition)?;
        let Some(first) = held_back else { return Ok(()) };
        if Position::of(&first.record.headers).is_none_or(|position| Some(position.job) != job) {
            return Ok(());
        }
        let message = format!(
            "sink topic {:?} partition {partition}: the broker has acknowledged the transaction that begins at offset {} and has lost \
             its end; start the job again, which writes it once more",
            self.topic, first.offset
        );
        Err(Error::external("sink-acknowledged-lost", message))
    }

    /// What was acknowledged in the partitions of the topic and is not known to be visible: the end of each.
    pub(super) fn acknowledged(&self) -> BTreeMap<PartitionId, u64> {
        let state = self.state.lock();
        let partitions = (0..state.visible.len()).map(|index| PartitionId(index as u16));
        let ends = partitions.filter_map(|partition| Some((partition, self.producer.end(&self.topic, partition)?)));
        ends.filter(|end| !state.is_visible(*end)).collect()
    }

    /// The records before these ends were seen, behind the fence of everything that was open: there is no doubt any more.
    pub(super) fn seen(&self, ends: &BTreeMap<PartitionId, u64>) {
        let state = &mut *self.state.lock();
        state.see(&ends.iter().map(|(partition, end)| (*partition, *end)).collect::<Vec<_>>());
        state.awaited = None;
        self.producer.trust(&self.topic);
    }
}
