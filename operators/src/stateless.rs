//! Operators without state: records are converted as they come, before their epoch is closed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thalweg_core::{Data, Error, Key, Keyed, Record, Series, hash_key};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::context::{Failure, WorkerContext};
use crate::plan::OnError;
use crate::process::ProcessError;
use crate::stream::Records;

/// What a stateless operator does with the records that its user code fails on.
pub(crate) struct Guard {
    id: String,
    on_error: OnError,
    failure: std::sync::Arc<Failure>,
    dropped: Series,
}

impl Guard {
    pub(crate) fn new(id: &str, on_error: OnError, context: &WorkerContext) -> Self {
        let labels = [("job", context.job.as_str()), ("operator", id), ("reason", "error")];
        let dropped = context.metrics.counter("records_dropped", "Records that were not processed", &labels);
        Self { id: id.to_owned(), on_error, failure: context.failure.clone(), dropped }
    }

    /// Decides on an error of user code: the job fails, or the record is dropped and counted.
    pub(crate) fn refuse(&self, what: impl std::fmt::Display, error: &ProcessError) {
        match self.on_error {
            OnError::Fail => self.failure.fail(Error::user(
                "operator-failed",
                format!(
                    "operator {:?} failed on {what}: {error}; mend it, or set on_error = \"drop\" to go on without such records",
                    self.id
                ),
            )),
            OnError::Drop => {
                tracing::warn!(operator = self.id, "record dropped: {error}");
                self.dropped.add(1);
            }
        }
    }

    /// Calls user code; a panic is an error.
    pub(crate) fn call<R>(f: impl FnOnce() -> Result<R, ProcessError>) -> Result<R, ProcessError> {
        catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            Err(format!("panicked: {text}").into())
        })
    }
}

/// One record in, any number out; the output is numbered anew where that may be other than one.
///
/// On an edge inside a worker the records of one origin come in order, and an origin's epoch ends before its next begins; so
/// one counter per origin is enough, and the numbers do not depend on how origins interleave.
pub(crate) fn flat_map<'s, A: Data, B: Data>(
    stream: Records<'s, A>,
    name: &str,
    guard: Guard,
    logic: impl Fn(A, &mut Vec<B>) -> Result<(), ProcessError> + 'static,
) -> Records<'s, B> {
    stream.unary(Pipeline, name, move |_, _| {
        let mut counters: Vec<Counter> = Vec::new();
        let mut emitted = Vec::new();
        move |input, output| {
            input.for_each(|time, batch: &mut Vec<Record<A>>| {
                let mut out: Vec<Record<B>> = Vec::with_capacity(batch.len());
                for record in batch.drain(..) {
                    let provenance = record.provenance;
                    let value = record.value;
                    if let Err(error) = Guard::call(|| logic(value, &mut emitted)) {
                        emitted.clear();
                        guard.refuse(format_args!("record {provenance:?} of epoch {}", time.time()), &error);
                    }
                    let counter = Counter::of(&mut counters, provenance.place(), *time.time());
                    out.extend(emitted.drain(..).map(|value| {
                        let sequence = *counter;
                        *counter += 1;
                        Record { provenance: provenance.with_sequence(sequence), value }
                    }));
                }
                output.session(&time).give_container(&mut out);
            });
        }
    })
}

/// The next number of one origin in one epoch.
struct Counter {
    place: u64,
    epoch: u64,
    next: u64,
}

impl Counter {
    fn of(counters: &mut Vec<Counter>, place: u64, epoch: u64) -> &mut u64 {
        // A worker reads few partitions, and a batch is of one: the last one used is nearly always the one.
        let index = counters.iter().rposition(|counter| counter.place == place).unwrap_or_else(|| {
            counters.push(Counter { place, epoch, next: 0 });
            counters.len() - 1
        });
        let last = counters.len() - 1;
        counters.swap(index, last);
        let counter = &mut counters[last];
        if counter.epoch != epoch {
            assert!(counter.epoch < epoch, "an origin's epochs come in order on an edge inside a worker");
            (counter.epoch, counter.next) = (epoch, 0);
        }
        &mut counter.next
    }
}

/// Gives each record a key, the key's hash, and what is left.
pub(crate) fn key_by<'s, A: Data, K: Key, B: Data>(
    stream: Records<'s, A>,
    name: &str,
    guard: Guard,
    logic: impl Fn(A) -> Result<(K, B), ProcessError> + 'static,
) -> Records<'s, Keyed<K, B>> {
    stream.unary(Pipeline, name, move |_, _| {
        let mut scratch = Vec::new();
        move |input, output| {
            input.for_each(|time, batch: &mut Vec<Record<A>>| {
                let mut keyed: Vec<Record<Keyed<K, B>>> = Vec::with_capacity(batch.len());
                for record in batch.drain(..) {
                    let provenance = record.provenance;
                    let value = record.value;
                    let outcome = Guard::call(|| {
                        let (key, value) = logic(value)?;
                        let hash = hash_key(&key, &mut scratch)?;
                        Ok(Keyed { hash, key, value })
                    });
                    match outcome {
                        Ok(value) => keyed.push(Record { provenance, value }),
                        Err(error) => {
                            guard.refuse(format_args!("record {provenance:?} of epoch {}", time.time()), &error);
                        }
                    }
                }
                output.session(&time).give_container(&mut keyed);
            });
        }
    })
}

/// Several streams as one; where two of them could number records alike, the map of an input tells them apart.
pub(crate) fn merge<'s, T: Data>(streams: Vec<(Records<'s, T>, crate::plan::OriginMap)>) -> Records<'s, T> {
    use timely::dataflow::operators::Concatenate;
    let scope = streams[0].0.scope();
    let told_apart: Vec<_> = streams
        .into_iter()
        .map(|(stream, origins)| {
            if origins.is_identity() {
                return stream;
            }
            stream.unary(Pipeline, "tell apart", move |_, _| {
                move |input, output| {
                    input.for_each(|time, batch: &mut Vec<Record<T>>| {
                        for record in batch.iter_mut() {
                            record.provenance = record.provenance.with_origin(origins.map(record.provenance.origin()));
                        }
                        output.session(&time).give_container(batch);
                    });
                }
            })
        })
        .collect();
    scope.concatenate(told_apart)
}
