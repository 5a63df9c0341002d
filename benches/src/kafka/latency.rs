//! From a producer to a committed reader: a job beside the loop, at a steady rate.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use thalweg_tests::kafka::{Broker, BrokerSettings};

use super::bare::Bare;
use super::job::Counting;
use super::native::{Reader, Writer};
use super::topics::count;
use super::{PARTITIONS, Words};
use crate::child::{Task, command_of};
use crate::corpus::{Corpus, CorpusSpec};
use crate::figure::{Report, Target, percentile};
use crate::http::free_addr;
use crate::running::Running;
use crate::usage::{cpu, memory};

const PER_SECOND: u64 = 5000;
const EPOCH_MS: u64 = 20;
/// Far more than there are in an epoch: time alone ends it.
const EPOCH_RECORDS: usize = 100_000;
/// How often the producer writes what is due.
const TICK_MS: u64 = 5;
/// How long the reader waits for records at once.
const READ_MS: i64 = 1;
const WARM_UP: Duration = Duration::from_secs(5);
/// CPU time is told for so long.
const CPU_SECONDS: f64 = 15.0;

/// When each word was written for the first, second, … time.
type Written = Mutex<Words<Vec<Instant>>>;

/// What one side came to.
struct Steady {
    /// Milliseconds, sorted.
    latencies: Vec<f64>,
    cpu_per_15s: f64,
    memory: u64,
}

/// Writes words at the rate until it is told to stop. All of a word go to one partition, so that they are counted in their order.
fn produce(bootstrap: &str, topic: &str, written: &Written, stop: &AtomicBool) {
    let corpus = Corpus::new(CorpusSpec { words: 500_000, distinct: 100_000, skew: 1.1 });
    // With the settings that a producer has by itself.
    let writer = Writer::new(bootstrap, None, &[]);
    let (topic, hasher) = (writer.topic(topic), foldhash::fast::FixedState::default());
    let (began, mut done) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * PER_SECOND as f64) as u64;
        for index in done..due {
            let word = corpus.word(index % corpus.len());
            let partition = hasher.hash_one(&word) % PARTITIONS as u64;
            let mut times = written.lock().unwrap_or_else(PoisonError::into_inner);
            times.entry_ref(word.as_bytes()).or_default().push(Instant::now());
            writer.write(&topic, partition as i32, &[], word.as_bytes());
        }
        done = due;
        thread::sleep(Duration::from_millis(TICK_MS));
    }
    writer.flush();
}

/// How long each record took whose result is read from now on, for so long.
fn read(reader: &mut Reader, seen: &mut Words<u64>, written: &Written, lasts: Duration) -> Vec<f64> {
    let (began, mut latencies) = (Instant::now(), Vec::new());
    while began.elapsed() < lasts {
        reader.read(4096, READ_MS, |message| {
            let (now, count) = (Instant::now(), count(message.value).unwrap_or(0));
            let before = seen.entry_ref(message.key).or_insert(0);
            let times = written.lock().unwrap_or_else(PoisonError::into_inner);
            let of_word = times.get(message.key).map_or(&[][..], Vec::as_slice);
            let fresh = of_word.iter().take(count as usize).skip(*before as usize);
            latencies.extend(fresh.map(|time| now.duration_since(*time).as_secs_f64() * 1e3));
            *before = count;
        });
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// Measures a side that runs.
fn steady(broker: &Broker, input: &str, output: &str, job: &Running, lasts: Duration) -> Steady {
    let (written, stop) = (Written::default(), AtomicBool::new(false));
    let bootstrap = broker.bootstrap();
    thread::scope(|scope| {
        scope.spawn(|| produce(&bootstrap, input, &written, &stop));
        let mut reader = Reader::new(&bootstrap, output, PARTITIONS, &[("fetch.wait.max.ms", "10")]);
        let mut seen = Words::default();
        read(&mut reader, &mut seen, &written, WARM_UP);
        let (before, began) = (cpu(job.pid()), Instant::now());
        let latencies = read(&mut reader, &mut seen, &written, lasts);
        let share = (cpu(job.pid()) - before).as_secs_f64() / began.elapsed().as_secs_f64();
        let (now, _) = memory(job.pid());
        stop.store(true, Ordering::Relaxed);
        Steady { latencies, cpu_per_15s: share * CPU_SECONDS, memory: now }
    })
}

fn topics(broker: &Broker, names: [&str; 3]) {
    names.into_iter().for_each(|name| broker.client().create_topic(name, PARTITIONS as i32, &[]));
}

/// 5,000 records a second, transactions of 20 ms.
pub(crate) fn latency(report: &mut Report, short: bool) -> Result<(), String> {
    let lasts = Duration::from_secs(if short { 5 } else { 30 });
    let broker = Broker::start(&BrokerSettings::new());
    topics(&broker, ["in", "out", "unused"]);
    let counting = Counting {
        bootstrap: broker.bootstrap(),
        input: "in".to_owned(),
        output: "out".to_owned(),
        epoch_ms: EPOCH_MS,
        epoch_records: EPOCH_RECORDS,
        every_update: false,
        delivery: "exactly-once",
    };
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let job = counting.start(folder.path())?;
    job.ready()?;
    let engine = steady(&broker, "in", "out", &job, lasts);
    drop(job);

    topics(&broker, ["bare-in", "bare-out", "bare-changelog"]);
    let bare = Bare {
        bootstrap: broker.bootstrap(),
        input: "bare-in".to_owned(),
        output: "bare-out".to_owned(),
        changelog: "bare-changelog".to_owned(),
        records: None,
        epoch_ms: EPOCH_MS,
        epoch_records: EPOCH_RECORDS,
        every_update: false,
    };
    let looping = Running::start(command_of(&Task::Bare(bare)), free_addr())?;
    let loops = steady(&broker, "bare-in", "bare-out", &looping, lasts);
    for (side, of) in [("loop", &loops), ("job", &engine)] {
        report.note(&format!("{side}, records"), of.latencies.len() as f64, "");
    }
    report.note("loop, p50", percentile(&loops.latencies, 0.5), "ms");
    report.note("loop, p99", percentile(&loops.latencies, 0.99), "ms");
    report.note("loop, CPU per 15 s", loops.cpu_per_15s, "s");
    report.note("loop, memory", loops.memory as f64 / 1e6, "MB");
    report.check("job, p50", percentile(&engine.latencies, 0.5), "ms", Target::AtMost(35.0));
    report.check("job, p99", percentile(&engine.latencies, 0.99), "ms", Target::AtMost(80.0));
    report.check("job, CPU per 15 s", engine.cpu_per_15s, "s", Target::AtMost(4.5));
    report.check("job, memory", engine.memory as f64 / 1e6, "MB", Target::AtMost(60.0));
    Ok(())
}
