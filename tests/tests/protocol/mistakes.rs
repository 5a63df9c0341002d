//! Known mistakes, each put back by a log that does what an implementation with that mistake would do, or in a step of the job.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg_connectors::log::simulated::{SimulatedCluster, SimulatedLog};
use thalweg_connectors::log::{Log, LogReader, LogRecord, NewRecordRef, Producer, TopicInfo, TopicSpec};
use thalweg_core::{Generation, PartitionId, Result};

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    NoSecondBarrier,
    NoLookAfterInit,
    BindingsNotFenced,
    LastBindingFromSinks,
    BindingsUnderRetention,
    VisibleBeforeDurable,
    CheckpointBeforeSinks,
    ProducerReused,
    PositionsIgnored,
    ScanToStableEnd,
}

impl Mistake {
    pub(crate) const ALL: [Self; 10] = [
        Self::NoSecondBarrier,
        Self::NoLookAfterInit,
        Self::BindingsNotFenced,
        Self::LastBindingFromSinks,
        Self::BindingsUnderRetention,
        Self::VisibleBeforeDurable,
        Self::CheckpointBeforeSinks,
        Self::ProducerReused,
        Self::PositionsIgnored,
        Self::ScanToStableEnd,
    ];
}

/// A client that makes a mistake.
pub(crate) struct WrongLog {
    pub(crate) inner: Arc<SimulatedLog>,
    pub(crate) cluster: Arc<SimulatedCluster>,
    pub(crate) mistake: Mistake,
    pub(crate) fenced: Mutex<BTreeSet<(String, Generation)>>,
}

impl Log for WrongLog {
    fn ensure(&self, topic: &TopicSpec) -> Result<()> {
        self.inner.ensure(topic)
    }

    fn topics(&self) -> Result<Vec<(String, u32)>> {
        self.inner.topics()
    }

    fn topic(&self, name: &str) -> Result<Option<TopicInfo>> {
        self.inner.topic(name)
    }

    fn fence(&self, id: &str, generation: Generation) -> Result<Box<dyn Producer>> {
        if self.mistake == Mistake::BindingsNotFenced && id.ends_with("-bindings") {
            return Ok(self.inner.same(id));
        }
        if self.mistake != Mistake::ProducerReused || !id.contains("-sinks-") {
            return self.inner.fence(id, generation);
        }
        let first = self.fenced.lock().expect("nobody panics with it").insert((id.to_owned(), generation));
        let inner = if first { self.inner.fence(id, generation)? } else { self.inner.same(id) };
        Ok(Box::new(Reused { log: Arc::clone(&self.inner), id: id.to_owned(), inner }))
    }

    fn reader(&self, topic: &str, partition: PartitionId, from: u64) -> Result<Box<dyn LogReader>> {
        let inner = self.inner.reader(topic, partition, from)?;
        Ok(if self.mistake == Mistake::PositionsIgnored { Box::new(WithoutPositions(inner)) } else { inner })
    }

    fn offsets(&self, topic: &str, partition: PartitionId) -> Result<(u64, u64)> {
        let (first, end) = self.inner.offsets(topic, partition)?;
        let stable = self.mistake == Mistake::ScanToStableEnd;
        Ok((first, if stable { self.cluster.stable_end(topic, partition)? } else { end }))
    }

    fn stable_end(&self, topic: &str, partition: PartitionId) -> Result<u64> {
        self.inner.stable_end(topic, partition)
    }

    fn trim(&self, topic: &str, partition: PartitionId, before: u64) -> Result<()> {
        self.inner.trim(topic, partition, before)
    }

    fn wait(&self, time: Duration) {
        self.inner.wait(time);
    }
}

/// A producer that goes on after an unknown outcome.
struct Reused {
    log: Arc<SimulatedLog>,
    id: String,
    inner: Box<dyn Producer>,
}

impl Producer for Reused {
    fn begin(&mut self) -> Result<()> {
        self.inner.begin()
    }

    fn append_ref(&mut self, topic: &str, partition: PartitionId, record: NewRecordRef<'_>) -> Result<()> {
        self.inner.append_ref(topic, partition, record)
    }

    fn commit(&mut self) -> Result<Vec<(String, PartitionId, u64)>> {
        let outcome = self.inner.commit();
        if self.inner.is_spent() {
            self.inner = self.log.same(&self.id);
        }
        outcome
    }

    fn abort(&mut self) -> Result<()> {
        self.inner.abort()
    }
}

/// A reader that does not know what positions are.
struct WithoutPositions(Box<dyn LogReader>);

impl LogReader for WithoutPositions {
    fn read(&mut self, max_bytes: usize, out: &mut Vec<LogRecord>) -> Result<bool> {
        let before = out.len();
        let any = self.0.read(max_bytes, out)?;
        out[before..].iter_mut().for_each(|record| record.record.headers.clear());
        Ok(any)
    }

    fn position(&self) -> u64 {
        self.0.position()
    }
}
