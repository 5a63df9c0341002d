//! Operators without state: records are converted as they come, before their epoch is closed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use thalweg_connectors::dead_letter::{DeadLetter, Held, Reason};
use thalweg_core::{Data, Epoch, Error, Key, Keyed, Provenance, Record, Result, Series, hash_key};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::activity::Activity;
use crate::aside::{Aside, Output, Outputs};
use crate::context::{Failure, WorkerContext};
use crate::plan::OnError;
use crate::process::ProcessError;
use crate::stream::{Records, Time};

/// What an operator does with the records that its user code fails on.
pub(crate) struct Guard {
    id: String,
    on_error: OnError,
    failure: std::sync::Arc<Failure>,
    dropped: Series,
    pub(crate) activity: std::sync::Arc<Activity>,
}

impl Guard {
    pub(crate) fn new(id: &str, on_error: OnError, context: &WorkerContext) -> Self {
        let labels = [("job", context.job.as_str()), ("operator", id), ("reason", on_error.counted_as("error"))];
        let dropped = context.metrics.counter("records_dropped", "Records that were not processed", &labels);
        let activity = context.gate.activity(id);
        Self { id: id.to_owned(), on_error, failure: context.failure.clone(), dropped, activity }
    }

    /// Whether failing records are set aside.
    pub(crate) fn sets_aside(&self) -> bool {
        self.on_error == OnError::DeadLetter
    }

    /// A copy of what user code is about to take, where it may have to be set aside.
    fn copy<T: Clone>(&self, value: &T) -> Option<T> {
        self.sets_aside().then(|| value.clone())
    }

    /// Whether the job stops at the first failing record: then nothing needs to be undone.
    pub(crate) fn stops(&self) -> bool {
        self.on_error == OnError::Fail
    }

    /// Decides on an error of user code: the job fails, or the record is dropped, or it is set aside; then this is the dead
    /// letter, which holds the record as JSON.
    pub(crate) fn decide<T: serde::Serialize>(
        &self,
        epoch: Epoch,
        held: Held,
        record: Option<&T>,
        error: &ProcessError,
    ) -> Result<Option<DeadLetter>> {
        let letter = match self.on_error {
            OnError::Fail => {
                return Err(Error::user(
                    "operator-failed",
                    format!(
                        "operator {:?} failed in epoch {epoch}: {error}; mend it, or set on_error = \"dead-letter\" to set such \
                         records aside, or \"drop\" to go on without them",
                        self.id
                    ),
                ));
            }
            OnError::Drop => {
                tracing::warn!(operator = self.id, %epoch, "record dropped: {error}");
                None
            }
            OnError::DeadLetter => {
                tracing::warn!(operator = self.id, %epoch, "record set aside: {error}");
                let reason = if error.is::<Panicked>() { Reason::Panicked } else { Reason::Failed };
                let mut letter = DeadLetter::of_operator(&self.id, reason, error.to_string(), held);
                letter.value = record.map(|record| self.json(record)).transpose()?;
                Some(letter)
            }
        };
        self.dropped.add(1);
        Ok(letter)
    }

    /// Decides on a record that came with a provenance of its own.
    fn refuse<T: Data>(
        &self,
        (provenance, epoch): (Provenance, Time),
        copy: Option<&T>,
        error: &ProcessError,
        aside: &mut Aside,
    ) {
        match self.decide(Epoch(epoch), Held::Record, copy, error) {
            Ok(Some(letter)) => aside.put(provenance, letter),
            Ok(None) => {}
            Err(error) => self.failure.fail(error.context(format!("record {provenance:?}"))),
        }
    }

    /// A part of a dead letter.
    pub(crate) fn json(&self, part: &impl serde::Serialize) -> Result<Vec<u8>> {
        serde_json::to_vec(part).map_err(|error| {
            let text = format!(
                "operator {:?} failed on a record that cannot be written as JSON ({error}), so it cannot be set aside; \
                 mend the operator, or set on_error = \"drop\"",
                self.id
            );
            Error::user("dead-letter", text)
        })
    }

    /// Calls user code; a panic is an error.
    pub(crate) fn call<R>(f: impl FnOnce() -> Result<R, ProcessError>) -> Result<R, ProcessError> {
        catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            Err(Panicked(text).into())
        })
    }
}

/// User code has panicked.
#[derive(Debug)]
struct Panicked(String);

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

/// An operator that takes batches as they come, and may set records aside.
fn unary<'s, A: Data, B: Data>(
    stream: Records<'s, A>,
    name: &str,
    sets_aside: bool,
    activity: std::sync::Arc<Activity>,
    mut logic: impl FnMut(Time, &mut Vec<Record<A>>, &mut Aside) -> Vec<Record<B>> + 'static,
) -> Outputs<'s, B> {
    let mut builder = OperatorBuilder::new(name.to_owned(), stream.scope());
    let mut input = builder.new_input(stream, Pipeline);
    let (output, records) = builder.new_output();
    let mut output = Output::from(output);
    let (mut aside, dead_letters) = Aside::new(&mut builder, sets_aside);
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_| {
            let _busy = activity.begin();
            let mut output = output.activate();
            input.for_each(|time, batch: &mut Vec<Record<A>>| {
                let mut out = logic(*time.time(), batch, &mut aside);
                output.session(&time).give_container(&mut out);
                aside.give(&time);
            });
        }
    });
    Outputs { records, dead_letters }
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
) -> Outputs<'s, B> {
    let mut counters: Vec<Counter> = Vec::new();
    let mut emitted = Vec::new();
    unary(stream, name, guard.sets_aside(), guard.activity.clone(), move |epoch, batch, aside| {
        let mut out: Vec<Record<B>> = Vec::with_capacity(batch.len());
        for Record { provenance, value } in batch.drain(..) {
            let copy = guard.copy(&value);
            if let Err(error) = Guard::call(|| logic(value, &mut emitted)) {
                emitted.clear();
                guard.refuse((provenance, epoch), copy.as_ref(), &error, aside);
            }
            let counter = Counter::of(&mut counters, provenance.place(), epoch);
            out.extend(emitted.drain(..).map(|value| {
                let sequence = *counter;
                *counter += 1;
                Record { provenance: provenance.with_sequence(sequence), value }
            }));
        }
        out
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
) -> Outputs<'s, Keyed<K, B>> {
    let mut scratch = Vec::new();
    unary(stream, name, guard.sets_aside(), guard.activity.clone(), move |epoch, batch, aside| {
        let mut keyed: Vec<Record<Keyed<K, B>>> = Vec::with_capacity(batch.len());
        for Record { provenance, value } in batch.drain(..) {
            let copy = guard.copy(&value);
            let outcome = Guard::call(|| {
                let (key, value) = logic(value)?;
                let hash = hash_key(&key, &mut scratch)?;
                Ok(Keyed { hash, key, value })
            });
            match outcome {
                Ok(value) => keyed.push(Record { provenance, value }),
                Err(error) => guard.refuse((provenance, epoch), copy.as_ref(), &error, aside),
            }
        }
        keyed
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
