//! Word count from topic to topic: a job beside the loop.

use std::time::Instant;

use thalweg_tests::kafka::{Broker, BrokerSettings};

use super::bare::Bare;
use super::job::{Counting, finished};
use super::{PARTITIONS, Words, topics};
use crate::child::{Task, ask};
use crate::corpus::CorpusSpec;
use crate::figure::{Report, Target, median};
use crate::measured::Measured;
use crate::usage::{cpu, memory};

/// How long an epoch is open, and how many records it has at most.
const EPOCH: (u64, usize) = (100, 100_000);
const INPUT: &str = "words";

/// One broker with the words in it.
struct Bench {
    broker: Broker,
    corpus: CorpusSpec,
    expected: Words<u64>,
    runs: u32,
}

impl Bench {
    fn new(words: u32) -> Self {
        let broker = Broker::start(&BrokerSettings::new());
        let corpus = CorpusSpec { words, distinct: 100_000, skew: 1.1 };
        broker.client().create_topic(INPUT, PARTITIONS as i32, &[]);
        let expected = topics::write_words(&broker.bootstrap(), INPUT, corpus);
        Self { broker, corpus, expected, runs: 0 }
    }

    fn topic(&mut self, prefix: &str) -> String {
        self.runs += 1;
        let name = format!("{prefix}-{}", self.runs);
        self.broker.client().create_topic(&name, PARTITIONS as i32, &[]);
        name
    }

    /// One run of the loop, recounted.
    fn bare(&mut self, epoch_records: usize, every_update: bool) -> Result<Measured, String> {
        let (output, changelog) = (self.topic("bare"), self.topic("bare-changelog"));
        let bare = Bare {
            bootstrap: self.broker.bootstrap(),
            input: INPUT.to_owned(),
            output: output.clone(),
            changelog,
            records: Some(u64::from(self.corpus.words)),
            epoch_ms: EPOCH.0,
            epoch_records,
            every_update,
        };
        let measured: Measured = ask(&Task::Bare(bare))?;
        let found = topics::read_counts(&self.broker.bootstrap(), &output);
        found.check("the loop", &self.expected, true)?;
        self.broker.client().delete_topic(&output);
        Ok(measured)
    }

    /// One run of the job, recounted; and its highest memory.
    fn job(&mut self, every_update: bool, delivery: &'static str) -> Result<(Measured, u64), String> {
        let output = self.topic("job");
        let counting = Counting {
            bootstrap: self.broker.bootstrap(),
            input: INPUT.to_owned(),
            output: output.clone(),
            epoch_ms: EPOCH.0,
            epoch_records: EPOCH.1,
            every_update,
            delivery,
        };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let began = Instant::now();
        let mut job = counting.start(folder.path())?;
        let records = u64::from(self.corpus.words);
        let status = finished(&job, records)?;
        let (wall, used) = (began.elapsed(), cpu(job.pid()));
        let (_, highest) = memory(job.pid());
        job.kill();
        let found = topics::read_counts(&self.broker.bootstrap(), &output);
        found.check("the job", &self.expected, true)?;
        self.broker.client().delete_topic(&output);
        let measured = Measured {
            cpu_seconds: used.as_secs_f64(),
            wall_seconds: wall.as_secs_f64(),
            busiest_seconds: 0.0,
            records,
            epochs: status["epoch"].as_u64().unwrap_or(0),
            emitted: found.records,
        };
        Ok((measured, highest))
    }

    /// Both sides by turns, with epochs of the same mean size.
    fn beside(&mut self, report: &mut Report, rounds: usize, every_update: bool) -> Result<(), String> {
        let form = if every_update { "every update" } else { "per epoch" };
        let mut pairs = Vec::new();
        for _ in 0..rounds {
            let (job, highest) = self.job(every_update, "exactly-once")?;
            let bare = self.bare((job.records / job.epochs.max(1)) as usize, every_update)?;
            pairs.push((job, bare, highest));
        }
        let of = |pick: &dyn Fn(&(Measured, Measured, u64)) -> f64| median(pairs.iter().map(pick));
        let note =
            |report: &mut Report, what: &str, value: f64, unit| report.note(&format!("{form}: {what}"), value, unit);
        note(report, "job, records per CPU-second", of(&|pair| pair.0.records_per_cpu_second()), "/s");
        note(report, "loop, records per CPU-second", of(&|pair| pair.1.records_per_cpu_second()), "/s");
        note(report, "job, records per epoch", of(&|pair| pair.0.records as f64 / pair.0.epochs as f64), "");
        note(report, "loop, records per epoch", of(&|pair| pair.1.records as f64 / pair.1.epochs as f64), "");
        note(report, "job, results", of(&|pair| pair.0.emitted as f64), "");
        note(report, "loop, results", of(&|pair| pair.1.emitted as f64), "");
        note(report, "wall, loop by job", of(&|pair| pair.1.wall_seconds / pair.0.wall_seconds), "");
        note(report, "job, memory at most", of(&|pair| pair.2 as f64 / 1e6), "MB");
        let ratio = of(&|pair| pair.1.cpu_seconds / pair.0.cpu_seconds);
        report.check(&format!("{form}: ratio to the loop"), ratio, "", Target::AtLeast(0.8));
        Ok(())
    }
}

/// Word count from topic to topic.
pub(crate) fn count(report: &mut Report, short: bool) -> Result<(), String> {
    let (words, rounds) = if short { (1_000_000, 1) } else { (10_000_000, 3) };
    let mut bench = Bench::new(words);
    bench.beside(report, rounds, false)?;
    bench.beside(report, 1, true)?;
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (exactly, _) = bench.job(false, "exactly-once")?;
        let (at_least, _) = bench.job(false, "at-least-once")?;
        ratios.push(at_least.cpu_seconds / exactly.cpu_seconds);
    }
    report.check("exactly once by at least once, CPU", median(ratios), "", Target::AtLeast(0.9));
    Ok(())
}
