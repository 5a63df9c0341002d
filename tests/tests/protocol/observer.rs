//! Sees at once whatever anybody may see, and says what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_connectors::log::simulated::SimulatedCluster;
use thalweg_connectors::log::{LogRecord, Position};
use thalweg_core::PartitionId;
use thalweg_runtime::decode_binding;

use crate::reference::{Cuts, count, cuts_of, rows, value};
use crate::world::{PARTITIONS, SINKS, STRANGE, bindings_topic, sink_topic};

/// See the module's description.
#[derive(Default)]
pub(crate) struct Observer {
    /// Records tell the rows of their job partition.
    stores: bool,
    /// The longest history that was seen.
    pub(crate) seen: Cuts,
    /// Up to which offset each partition of each sink was seen, and the last position of each.
    at: BTreeMap<(u16, PartitionId), (u64, (u64, u64))>,
    /// Every binding that was ever durable: epoch and cut.
    bound: BTreeSet<(u64, u64)>,
}

impl Observer {
    pub(crate) fn new(stores: bool) -> Self {
        Self { stores, ..Self::default() }
    }

    /// Looks at everything that is new.
    pub(crate) fn look(&mut self, cluster: &SimulatedCluster) -> Result<(), String> {
        for record in cluster.appended(&bindings_topic(), PartitionId(0), 0).unwrap_or_default() {
            let Some(value) = record.record.value.as_deref() else { continue };
            let binding = decode_binding(value).expect("a binding");
            self.bound.insert((binding.epoch.0, binding.shares[0].next));
        }
        for sink in 0..SINKS {
            for partition in (0..PARTITIONS).map(PartitionId) {
                let from = self.at.get(&(sink, partition)).map_or(0, |(from, _)| *from);
                let new = cluster.visible(&sink_topic(sink), partition, from).expect("the topic is there");
                self.records(sink, partition, &new)?;
            }
        }
        Ok(())
    }

    fn records(&mut self, sink: u16, partition: PartitionId, new: &[LogRecord]) -> Result<(), String> {
        new.iter().try_for_each(|record| {
            let place = format!("sink {sink}, partition {partition}, offset {}", record.offset);
            self.record(sink, partition, record).map_err(|why| format!("{place}: {why}"))
        })
    }

    fn record(&mut self, sink: u16, partition: PartitionId, record: &LogRecord) -> Result<(), String> {
        let Some(position) = Position::of(&record.record.headers) else {
            let of_stranger = record.record.value.as_deref() == Some(STRANGE);
            return if of_stranger { Ok(()) } else { Err("nobody has given the sink this record".to_owned()) };
        };
        let text = String::from_utf8_lossy(record.record.value.as_deref().unwrap_or_default()).into_owned();
        let cuts = cuts_of(&text);
        if cuts.len() as u64 != position.epoch.0 {
            return Err(format!("epoch {} holds {text}", position.epoch));
        }
        self.see(&cuts)?;
        if !cuts.iter().zip(1..).all(|(cut, epoch)| self.bound.contains(&(epoch, *cut))) {
            return Err(format!("epoch {} is seen as {text}, which is not in the bindings", position.epoch));
        }
        let right = value(&cuts, self.stores.then(|| rows(&cuts, position.partition)).as_ref());
        if text != right {
            return Err(format!("{text} is seen, without faults it is {right}"));
        }
        let (_, last) = self.at.get(&(sink, partition)).copied().unwrap_or((0, (0, 0)));
        let expected = next(&cuts, partition, sink, last);
        let found = (position.epoch.0, position.sequence);
        if Some(found) != expected {
            return Err(format!("epoch and record {found:?} follow {last:?}, expected {expected:?}"));
        }
        // A sequence counts from 0; `last` counts how many of the epoch are there.
        self.at.insert((sink, partition), (record.offset + 1, (found.0, found.1 + 1)));
        Ok(())
    }

    /// Somebody has seen this history.
    pub(crate) fn see(&mut self, cuts: &[u64]) -> Result<(), String> {
        let both = cuts.len().min(self.seen.len());
        if cuts[..both] != self.seen[..both] {
            return Err(format!("epochs were seen as {:?} and as {cuts:?}", self.seen));
        }
        if cuts.len() > self.seen.len() {
            self.seen = cuts.to_vec();
        }
        Ok(())
    }

    /// The last epoch of which a sink shows anything.
    pub(crate) fn in_sinks(&self) -> u64 {
        self.at.values().map(|(_, (epoch, _))| *epoch).max().unwrap_or(0)
    }

    /// Whether every sink shows everything of these cuts.
    pub(crate) fn shows(&self, cuts: &[u64]) -> Result<(), String> {
        for sink in 0..SINKS {
            for partition in (0..PARTITIONS).map(PartitionId) {
                let (_, last) = self.at.get(&(sink, partition)).copied().unwrap_or((0, (0, 0)));
                if let Some(missing) = next(cuts, partition, sink, last) {
                    return Err(format!("sink {sink}, partition {partition}: {missing:?} of {cuts:?} is missing"));
                }
            }
        }
        Ok(())
    }
}

/// The position after `last` (an epoch, and how many of its records are there), where the cuts have one.
fn next(cuts: &[u64], partition: PartitionId, sink: u16, last: (u64, u64)) -> Option<(u64, u64)> {
    let (mut epoch, mut there) = last;
    if epoch > cuts.len() as u64 {
        return None;
    }
    while epoch == 0 || there >= count(&cuts[..epoch as usize], partition, sink) {
        (epoch, there) = (epoch + 1, 0);
        if epoch > cuts.len() as u64 {
            return None;
        }
    }
    Some((epoch, there))
}
