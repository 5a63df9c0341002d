//! The operator that hands an epoch's records to a sink when the epoch is closed.

use std::collections::BTreeMap;
use std::rc::Rc;

use thalweg_connectors::{EncodedBatch, EncodedRecord};
use thalweg_core::{Data, Epoch, Record, Result};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::generic::{Operator, OutputBuilderSession};
use timely::dataflow::operators::probe::Handle;

use crate::context::{SinkBatch, WorkerContext};
use crate::stream::{Records, Time};

/// How a record becomes bytes; appends to the second argument. Nothing: the sink only counts.
pub(crate) type Encode<T> = Option<std::sync::Arc<dyn Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync>>;

/// Sends every epoch, also an empty one, to the sink `index`, in provenance order by partition.
pub(crate) fn build<T: Data>(
    stream: Records<'_, T>,
    id: &str,
    index: u16,
    encode: Encode<T>,
    context: &Rc<WorkerContext>,
    probe: &Handle<Time>,
) {
    let labels = [("job", context.job.as_str()), ("sink", id)];
    let records_out = context.metrics.counter("records_out", "Records given to a sink", &labels);
    let context = context.clone();
    let mut epochs: BTreeMap<Time, Vec<Record<T>>> = BTreeMap::new();
    let mut next = context.gate.processed().next().0;
    let done = stream.unary_frontier(Pipeline, &format!("sink {id}"), move |capability, _| {
        // Held for the first epoch that the sink has not been given, so that the probe tells what it has.
        let mut held = capability.delayed(&next);
        drop(capability);
        move |(input, frontier), _output: &mut OutputBuilderSession<'_, Time, CapacityContainerBuilder<Vec<()>>>| {
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
                match encode_epoch(records, encode.as_deref()) {
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
    done.probe_with(probe);
}

type EncodedEpoch = (Vec<(thalweg_core::PartitionId, EncodedBatch)>, u64);

fn encode_epoch<T>(
    mut records: Vec<Record<T>>,
    encode: Option<&(dyn Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync)>,
) -> Result<EncodedEpoch> {
    let count = records.len() as u64;
    let Some(encode) = encode else { return Ok((Vec::new(), count)) };
    let place = |record: &Record<T>| (record.provenance.partition(), record.provenance);
    if !records.is_sorted_by_key(place) {
        records.sort_by_key(place);
    }
    let mut partitions: Vec<(_, EncodedBatch)> = Vec::new();
    for record in &records {
        let partition = record.provenance.partition();
        if partitions.last().is_none_or(|(last, _)| *last != partition) {
            partitions.push((partition, EncodedBatch::default()));
        }
        let (_, batch) = partitions.last_mut().expect("one was pushed");
        let start = batch.data.len();
        encode(&record.value, &mut batch.data)?;
        batch.records.push(EncodedRecord { key: None, value: Some(start..batch.data.len()) });
    }
    Ok((partitions, count))
}
