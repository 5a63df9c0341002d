//! The same count as somebody would write it in timely: in memory, on arrival, without order, recovery or queries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::generic::{Operator, OutputBuilderSession, source};
use timely::dataflow::operators::probe::Handle;
use timely::{CommunicationConfig, Config, WorkerConfig};

use crate::corpus::{Corpus, CorpusSpec};
use crate::measured::Measured;
use crate::usage::own_cpu;

/// As many as the engine's sources read in one turn.
const BATCH_RECORDS: u64 = 2048;
/// As many epochs as the engine has open at most.
const OPEN_EPOCHS: u64 = 8;

/// What is counted, and how.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Handwritten {
    pub(crate) corpus: CorpusSpec,
    pub(crate) workers: usize,
    /// Words of one worker in one epoch.
    pub(crate) epoch_words: u64,
}

struct Entry {
    count: u64,
    /// The last epoch in which it changed.
    epoch: u64,
}

/// Counts, and says what it took.
pub(crate) fn run(job: Handwritten) -> Measured {
    let corpus = Arc::new(Corpus::new(job.corpus));
    let emitted = Arc::new(AtomicU64::new(0));
    let counted = emitted.clone();
    let communication = match job.workers {
        1 => CommunicationConfig::Thread,
        workers => CommunicationConfig::Process(workers),
    };
    let (began, cpu) = (Instant::now(), own_cpu());
    let words = corpus.len();
    let guards = timely::execute(Config { communication, worker: WorkerConfig::default() }, move |worker| {
        let (corpus, emitted) = (corpus.clone(), emitted.clone());
        let mut part = corpus.part(worker.index() as u64, worker.peers() as u64);
        let probe = Handle::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let done = probe.clone();
            let worker = scope.worker();
            let words = source(scope, "words", |capability, info| {
                let activator = worker.activator_for(info.address);
                let (mut capability, mut epoch, mut left) = (Some(capability), 0, job.epoch_words);
                move |output: &mut OutputBuilderSession<'_, u64, _>| {
                    let Some(held) = capability.as_mut() else { return };
                    activator.activate();
                    if epoch >= OPEN_EPOCHS && done.less_than(&(epoch - OPEN_EPOCHS + 1)) {
                        return;
                    }
                    let count = BATCH_RECORDS.min(left).min(part.end - part.start);
                    let mut batch: Vec<String> =
                        (part.start..part.start + count).map(|index| corpus.word(index)).collect();
                    output.session(held).give_container(&mut batch);
                    part.start += count;
                    left -= count;
                    if left == 0 {
                        (epoch, left) = (epoch + 1, job.epoch_words);
                        held.downgrade(&epoch);
                    }
                    if part.is_empty() {
                        capability = None;
                    }
                }
            });
            let hasher = foldhash::fast::FixedState::default();
            let route = Exchange::new(move |word: &String| std::hash::BuildHasher::hash_one(&hasher, word));
            words
                .unary_frontier(route, "count", move |_, _| {
                    let mut counts: HashMap<String, Entry, _> =
                        HashMap::with_hasher(foldhash::fast::FixedState::default());
                    let mut open = BTreeMap::new();
                    move |(input, frontier), output: &mut OutputBuilderSession<'_, u64, _>| {
                        input.for_each(|time, batch: &mut Vec<String>| {
                            let epoch = *time.time();
                            let (_, changed) =
                                open.entry(epoch).or_insert_with(|| (time.retain(0), Vec::<String>::new()));
                            for word in batch.drain(..) {
                                match counts.get_mut(&word) {
                                    Some(entry) => {
                                        entry.count += 1;
                                        if entry.epoch != epoch {
                                            entry.epoch = epoch;
                                            changed.push(word);
                                        }
                                    }
                                    None => {
                                        counts.insert(word.clone(), Entry { count: 1, epoch });
                                        changed.push(word);
                                    }
                                }
                            }
                        });
                        while let Some(first) = open.first_entry().filter(|first| !frontier.less_equal(first.key())) {
                            let (capability, changed) = first.remove();
                            let mut out: Vec<(String, u64)> = changed
                                .into_iter()
                                .map(|word| {
                                    let count = counts[&word].count;
                                    (word, count)
                                })
                                .collect();
                            output.session(&capability).give_container(&mut out);
                        }
                    }
                })
                .unary(Pipeline, "out", move |_, _| {
                    move |input,
                          output: &mut OutputBuilderSession<
                        '_,
                        u64,
                        timely::container::CapacityContainerBuilder<Vec<()>>,
                    >| {
                        input.for_each(|time, batch: &mut Vec<(String, u64)>| {
                            emitted.fetch_add(batch.len() as u64, Ordering::Relaxed);
                            batch.clear();
                            let _ = output.session(&time);
                        });
                    }
                })
                .probe_with(&probe);
        });
        while !probe.done() {
            worker.step_or_park(None);
        }
    });
    for guard in guards.expect("the workers start").join() {
        guard.expect("the worker ends well");
    }
    Measured {
        cpu_seconds: (own_cpu() - cpu).as_secs_f64(),
        wall_seconds: began.elapsed().as_secs_f64(),
        busiest_seconds: 0.0,
        records: words,
        epochs: words / (job.epoch_words * job.workers as u64).max(1) + 1,
        emitted: counted.load(Ordering::Relaxed),
    }
}
