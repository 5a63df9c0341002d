//! What who asks a running job sees: how many answers for the CPU time, and how late.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::child::{Task, ask};
use crate::corpus::{CorpusSpec, Random, name};
use crate::count::Count;
use crate::figure::{Report, Target, percentile};
use crate::http::{Http, until};
use crate::measured::Measured;
use crate::plain_server;
use crate::running::Running;
use crate::steady::{self, Probe, Steady, micros};
use crate::usage::threads_cpu;

const CORPUS: CorpusSpec = CorpusSpec { words: 4_000_000, distinct: 100_000, skew: 1.1 };
/// The words that are asked for; all of them have been counted soon.
const ASKED: u64 = 1000;
/// The thread that serves.
const SERVER: &str = "http";
/// How long the job settles before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 64;

/// Half of what the default settings can do on this machine, as it is now.
fn half_load() -> Result<f64, String> {
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let measured: Measured = ask(&Task::Count(Count { corpus: CORPUS, workers, checkpoint_ms: Some(1000) }))?;
    Ok(measured.records as f64 / measured.wall_seconds / 2.0)
}

fn path(word: &str) -> String {
    format!("/v1/jobs/{}/stores/counts/keys/{word}", steady::JOB)
}

/// GET of a key, at half load.
pub(crate) fn get(report: &mut Report, short: bool) -> Result<(), String> {
    let rate = half_load()?;
    let data = tempfile::tempdir().map_err(|error| error.to_string())?;
    let job = Running::task(&Task::Steady(Steady { corpus: CORPUS, rate, probes: false }), data.path())?;
    until(&mut job.ready()?, steady::JOB, WARM_UP * 10, |status| status["records_in"].as_u64() > Some(500_000))?;
    thread::sleep(WARM_UP);
    report.note("job's words per second", rate, "/s");
    let lasts = Duration::from_secs(if short { 2 } else { 5 });

    let (answers, per_second) = per_cpu_second(job.addr, (job.pid(), SERVER), lasts)?;
    report.note("GETs per second", answers as f64 / lasts.as_secs_f64(), "/s");
    report.check("GETs per CPU-second of the server", per_second, "/s", Target::AtLeast(60e3));
    // With the job still at work: what of it is the price of an answer over HTTP on this machine, whoever gives it.
    let plain = plain_server::start().map_err(|error| error.to_string())?;
    let (_, plain_per_second) = per_cpu_second(plain, (std::process::id(), plain_server::THREAD), lasts)?;
    report.note("GETs per CPU-second of a server that knows one answer", plain_per_second, "/s");
    report.note("GETs by those of that server", per_second / plain_per_second, "");

    let latencies = spaced(job.addr, lasts).map_err(|error| error.to_string())?;
    report.note("GET p50", percentile(&latencies, 0.5), "ms");
    report.check("GET p99", percentile(&latencies, 0.99), "ms", Target::AtMost(5.0));
    Ok(())
}

/// How many answers the thread of a server gave, and how many for a second of its CPU time.
fn per_cpu_second(addr: SocketAddr, (pid, thread): (u32, &str), lasts: Duration) -> Result<(u64, f64), String> {
    let before = threads_cpu(pid, thread);
    let answers = many(addr, lasts).map_err(|error| error.to_string())?;
    let cpu = threads_cpu(pid, thread) - before;
    Ok((answers, answers as f64 / cpu.as_secs_f64()))
}

/// Asks over many connections at once, each again as soon as it has its answer; returns how many answers there were.
fn many(addr: SocketAddr, lasts: Duration) -> std::io::Result<u64> {
    let mut connections = (0..CONNECTIONS).map(|_| Http::connect(addr)).collect::<Result<Vec<_>, _>>()?;
    let mut random = Random(1);
    let paths: Vec<String> = (0..ASKED).map(|rank| path(&name(rank as u32))).collect();
    let (began, mut answers) = (Instant::now(), 0);
    while began.elapsed() < lasts {
        for connection in &mut connections {
            connection.send(&paths[random.below(ASKED) as usize])?;
        }
        for connection in &mut connections {
            answers += u64::from(connection.receive()?.0 == 200);
        }
    }
    Ok(answers)
}

/// Asks one thing after the other, with a millisecond in between; returns the milliseconds that each answer took, in order.
fn spaced(addr: SocketAddr, lasts: Duration) -> std::io::Result<Vec<f64>> {
    let mut http = Http::connect(addr)?;
    let (mut random, mut latencies) = (Random(2), Vec::new());
    let began = Instant::now();
    while began.elapsed() < lasts {
        let path = path(&name(random.below(ASKED) as u32));
        let asked = Instant::now();
        http.get(&path)?;
        latencies.push(asked.elapsed().as_secs_f64() * 1e3);
        thread::sleep(Duration::from_millis(1));
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// From a record's arrival to its result in an answer, at half load.
pub(crate) fn latency(report: &mut Report, short: bool) -> Result<(), String> {
    let probes = if short { 60 } else { 300 };
    let rate = half_load()?;
    let data = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut job = Running::task(&Task::Steady(Steady { corpus: CORPUS, rate, probes: true }), data.path())?;
    let mut http = job.ready()?;
    let began = Instant::now();
    while began.elapsed() < WARM_UP {
        let _: Probe = job.hear()?;
    }
    let mut latencies = Vec::new();
    for _ in 0..probes {
        let probe: Probe = job.hear()?;
        while http.get(&path(&probe.word)).map_err(|error| error.to_string())?.0 != 200 {
            thread::sleep(Duration::from_micros(500));
        }
        latencies.push(micros().saturating_sub(probe.micros) as f64 / 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    report.note("job's words per second", rate, "/s");
    report.check("record in to readable, p50", percentile(&latencies, 0.5), "ms", Target::AtMost(30.0));
    report.check("record in to readable, p99", percentile(&latencies, 0.99), "ms", Target::AtMost(60.0));
    Ok(())
}
