//! Word count against the same in timely by hand, both in processes of their own, by turns.

use crate::child::{Task, ask};
use crate::corpus::CorpusSpec;
use crate::count::Count;
use crate::figure::{Report, Target, median};
use crate::handwritten::Handwritten;
use crate::measured::Measured;

/// From the start of one checkpoint to the next where state is on disk.
const CHECKPOINT_MS: u64 = 1000;

/// How much is counted, and how often.
#[derive(Clone, Copy, Debug)]
struct Size {
    corpus: CorpusSpec,
    rounds: usize,
}

fn size(short: bool) -> Size {
    if short {
        Size { corpus: CorpusSpec { words: 4_000_000, distinct: 200_000, skew: 1.1 }, rounds: 1 }
    } else {
        Size { corpus: CorpusSpec { words: 20_000_000, distinct: 1_000_000, skew: 1.1 }, rounds: 3 }
    }
}

/// One worker, with state in RocksDB and a checkpoint each second.
pub(crate) fn on_disk(report: &mut Report, short: bool) -> Result<(), String> {
    against_timely(report, size(short), Some(CHECKPOINT_MS), 0.35)
}

/// One worker, with state in memory.
pub(crate) fn in_memory(report: &mut Report, short: bool) -> Result<(), String> {
    against_timely(report, size(short), None, 0.5)
}

fn against_timely(report: &mut Report, size: Size, checkpoint_ms: Option<u64>, least: f64) -> Result<(), String> {
    let mut rounds = Vec::new();
    for _ in 0..size.rounds {
        let engine: Measured = ask(&Task::Count(Count { corpus: size.corpus, workers: 1, checkpoint_ms }))?;
        // Epochs as large as the engine's were, so that both give as many results.
        let epoch_words = engine.records / engine.epochs.max(1);
        let timely: Measured = ask(&Task::Handwritten(Handwritten { corpus: size.corpus, workers: 1, epoch_words }))?;
        rounds.push((engine, timely));
    }
    let of = |pick: fn(&Measured) -> f64| median(rounds.iter().map(|(engine, _)| pick(engine)));
    report.note("words per CPU-second", of(Measured::records_per_cpu_second), "/s");
    report.note("words per epoch", of(|engine| engine.records as f64 / engine.epochs as f64), "");
    let timely = median(rounds.iter().map(|(_, timely)| timely.records_per_cpu_second()));
    report.note("timely words per CPU-second", timely, "/s");
    let ratios = rounds.iter().map(|(engine, timely)| timely.cpu_seconds / engine.cpu_seconds);
    report.check("ratio to timely", median(ratios), "", Target::AtLeast(least));
    Ok(())
}

/// Two workers against one.
pub(crate) fn workers(report: &mut Report, short: bool) -> Result<(), String> {
    let size = size(short);
    let (mut wall, mut busiest, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..size.rounds {
        let count = |workers, checkpoint_ms| Task::Count(Count { corpus: size.corpus, workers, checkpoint_ms });
        let (one, two): (Measured, Measured) = (ask(&count(1, None))?, ask(&count(2, None))?);
        wall.push(one.wall_seconds / two.wall_seconds);
        busiest.push(one.busiest_seconds / two.busiest_seconds);
        let (one, two): (Measured, Measured) =
            (ask(&count(1, Some(CHECKPOINT_MS)))?, ask(&count(2, Some(CHECKPOINT_MS)))?);
        cpu.push(two.cpu_seconds / one.cpu_seconds);
    }
    report.note("busiest worker's CPU: 1 by 2 workers", median(busiest), "");
    report.check("wall, in memory: 1 by 2 workers", median(wall), "", Target::AtLeast(1.6));
    report.check("CPU, on disk: 2 by 1 workers", median(cpu), "", Target::AtMost(1.15));
    Ok(())
}
