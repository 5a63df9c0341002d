//! The operator that hands an epoch's records to a sink when the epoch is closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_connectors::EncodedBatch;
use thalweg_core::{Data, Epoch, PartitionId, Record, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::generic::{Operator, OutputBuilderSession};

use crate::context::SinkBatch;
use crate::plan::NodeContext;
use crate::stream::{Records, Time};

/// How a record of an epoch becomes bytes; appends to the batch. Nothing: the sink only counts.
pub(crate) type Encode<T> = Option<Arc<EncodeRecord<T>>>;
type EncodeRecord<T> = dyn Fn(&T, Epoch, &mut EncodedBatch) -> Result<()> + Send + Sync;

/// How the records of an epoch are put together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// Each partition by itself, in provenance order.
    ByPartition,
    /// All in partition 0, in provenance order; one worker has to be given all of them.
    InOne,
}

/// Sends every epoch, also an empty one, to the sink of the node.
pub(crate) fn build<T: Data>(stream: Records<'_, T>, node: &NodeContext<'_>, gathered: Gathered, encode: Encode<T>) {
    let (id, index, context) = (node.id, node.index, node.worker);
    let labels = [("job", context.job.as_str()), ("sink", id)];
    let records_out = context.metrics.counter("records_out", "Records given to a sink", &labels);
    let activity = context.gate.activity(id);
    let context = context.clone();
    let mut epochs: BTreeMap<Time, Vec<Record<T>>> = BTreeMap::new();
    let mut next = context.gate.processed().next().0;
    let done = stream.unary_frontier(Pipeline, &format!("sink {id}"), move |capability, _| {
        // Held for the first epoch that the sink has not been given, so that the probe tells what it has.
        let mut held = capability.delayed(&next);
        drop(capability);
        move |(input, frontier), _output: &mut OutputBuilderSession<'_, Time, CapacityContainerBuilder<Vec<()>>>| {
            let _busy = activity.begin();
            input.for_each(|time, batch: &mut Vec<Record<T>>| {
                let buffer = epochs.entry(*time.time()).or_default();
                if buffer.is_empty() { std::mem::swap(buffer, batch) } else { buffer.append(batch) }
            });
            if context.failure.failed() {
                return;
            }
            // An empty frontier says that the dataflow is taken down, not that its last epoch is complete.
            let Some(&first_open) = frontier.frontier().first() else { return };
            while next < first_open {
                let records = epochs.remove(&next).unwrap_or_default();
                records_out.add(records.len() as u64);
                match encode_epoch(Epoch(next), records, gathered, encode.as_deref()) {
                    Ok((partitions, count)) => {
                        let batch =
                            SinkBatch { sink: index, worker: context.worker, epoch: Epoch(next), partitions, count };
                        (context.sinks)(batch);
                    }
                    Err(error) => return context.failure.fail(error),
                }
                next += 1;
                held.downgrade(&next);
            }
        }
    });
    done.probe_with(node.probe);
}

type EncodedEpoch = (Vec<(PartitionId, EncodedBatch)>, u64);

fn encode_epoch<T>(
    epoch: Epoch,
    mut records: Vec<Record<T>>,
    gathered: Gathered,
    encode: Option<&EncodeRecord<T>>,
) -> Result<EncodedEpoch> {
    let count = records.len() as u64;
    let Some(encode) = encode else { return Ok((Vec::new(), count)) };
    let partition = |record: &Record<T>| match gathered {
        Gathered::ByPartition => record.provenance.partition(),
        Gathered::InOne => PartitionId(0),
    };
    let place = |record: &Record<T>| (partition(record), record.provenance);
    if !records.is_sorted_by_key(place) {
        records.sort_by_key(place);
    }
    let mut partitions: Vec<(_, EncodedBatch)> = Vec::new();
    for record in &records {
        let partition = partition(record);
        if partitions.last().is_none_or(|(last, _)| *last != partition) {
            partitions.push((partition, EncodedBatch::default()));
        }
        let (_, batch) = partitions.last_mut().expect("one was pushed");
        encode(&record.value, epoch, batch)?;
    }
    Ok((partitions, count))
}
