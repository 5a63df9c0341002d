//! One trial: a job is run, killed, restarted until it finishes, and everything that it gave is compared.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::feed::Feed;
use crate::outputs::check_prefix;
use crate::reference::{Reference, Run, recorded_in_kafka, recorded_run};
use crate::sketch::{JOB, JobSketch};
use crate::stores::scan_store;
use crate::{
    Binary, Client, Disturbance, Ended, Folder, Home, Observation, Outputs, Process, Random, RunFlags, input, until,
};

/// How long a job that never ends by itself may take to come to a failpoint.
const POINT_LIMIT: Duration = Duration::from_secs(8);

/// How one run of the binary comes to its end.
#[derive(Clone, Debug)]
pub enum End {
    /// It is killed so long after its start.
    Kill(Duration),
    /// At a failpoint: `name=kill@N` or `name=error@N`.
    Point(String),
    /// By itself, whatever is done to it and around it.
    During(Disturbance),
}

/// What happens to one run of the binary.
#[derive(Clone, Debug)]
pub struct Fault {
    /// How it ends.
    pub end: End,
    /// Whether its state folder is deleted then.
    pub lose_state: bool,
    /// How long the job is away then.
    pub outage: Duration,
}

impl Fault {
    /// A kill at a moment.
    pub fn kill(after: Duration) -> Self {
        Self::of(End::Kill(after))
    }

    /// A failpoint, as `THALWEG_FAILPOINTS` has it.
    pub fn point(point: impl Into<String>) -> Self {
        Self::of(End::Point(point.into()))
    }

    /// Something happens while it runs, and it has to come to its end all the same.
    pub fn during(disturbance: Disturbance) -> Self {
        Self::of(End::During(disturbance))
    }

    fn of(end: End) -> Self {
        Self { end, lose_state: false, outage: Duration::ZERO }
    }

    /// And the job is away for some time.
    #[must_use]
    pub fn with_outage(mut self, outage: Duration) -> Self {
        self.outage = outage;
        self
    }

    /// And the state folder is deleted.
    #[must_use]
    pub fn losing_state(mut self) -> Self {
        self.lose_state = true;
        self
    }
}

/// What a trial does.
#[derive(Clone, Debug, Default)]
pub struct TrialOptions {
    /// Whether the job may use the harness's own operators.
    pub custom: bool,
    /// What happens to each run, in order.
    pub faults: Vec<Fault>,
    /// A known bug that is put back in every run.
    pub bug: Option<&'static str>,
    /// Whether somebody reads the stores all the time.
    pub observe: bool,
    /// Milliseconds that the input lasts at least.
    pub life: u64,
    /// Whether all stores have a changelog; as the seed says where nothing is given.
    pub changelog: Option<bool>,
    /// Where the job lives in Kafka; on its own disk where nothing is given.
    pub kafka: Option<Home>,
    /// Whether there is a sink of every kind, whatever the seed says.
    pub every_sink: bool,
    /// Whether sources read topics of Kafka, that are written, and grow, while the job runs.
    pub topics: bool,
}

/// What came of a trial.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Runs that were killed.
    pub kills: u64,
    /// Runs that ended with an injected error.
    pub errors: u64,
    /// Checkpoints that were given up because they could not be written.
    pub given_up: u64,
    /// Failpoints at which runs were killed.
    pub points: BTreeSet<String>,
    /// Epochs of the job.
    pub epochs: u64,
    /// Records that were set aside.
    pub dead_letters: usize,
    /// What readers saw on the way.
    pub observed: usize,
}

impl TrialOptions {
    /// The kills of a seed, all at random moments: over the whole life, in the recovery, several in a row.
    pub fn kills(seed: u64, kills: u64) -> Self {
        let mut random = Random::new(seed ^ 0x6b69_6c6c);
        let life = 900;
        let moment = |random: &mut Random| match random.below(6) {
            0 => Duration::from_micros(random.below(5_000)),
            1 | 2 => Duration::from_micros(random.below(80_000)),
            _ => Duration::from_micros(random.below(500_000)),
        };
        let changelog = random.once_in(2);
        let fault = |random: &mut Random| {
            let lose_state = changelog && random.once_in(4);
            let fault = Fault::kill(moment(random));
            if lose_state { fault.losing_state() } else { fault }
        };
        Self {
            custom: seed % 2 == 1,
            faults: (0..kills).map(|_| fault(&mut random)).collect(),
            observe: seed.is_multiple_of(3),
            life,
            changelog: Some(changelog),
            ..Self::default()
        }
    }

    /// Failpoints on a job with everything that a job may have.
    pub fn points(seed: u64, faults: Vec<Fault>) -> Self {
        Self { custom: seed % 2 == 1, faults, life: 400, changelog: Some(true), every_sink: true, ..Self::default() }
    }
}

impl Trial {
    /// Runs a seed.
    ///
    /// Errors: whatever is not exact; the folder is left there then.
    pub fn run(seed: u64, options: &TrialOptions) -> Result<Self, String> {
        let mut folder = Folder::new();
        let outcome = Running::new(seed, options, &folder).run();
        outcome.map_err(|error| {
            // Where a bug was put back, an error is what is hoped for.
            let left =
                if options.bug.is_none() { format!("\n  left in {}", folder.keep().display()) } else { String::new() };
            format!("seed {seed}: {error}\n  {options:?}{left}")
        })
    }
}

struct Running<'a> {
    options: &'a TrialOptions,
    folder: &'a Folder,
    job: JobSketch,
    binary: Binary,
    data: PathBuf,
    random: Random,
    runs: u64,
    trial: Trial,
    seen: Vec<Observation>,
    shown: Outputs,
}

impl<'a> Running<'a> {
    fn new(seed: u64, options: &'a TrialOptions, folder: &'a Folder) -> Self {
        let mut job = match &options.kafka {
            Some(home) => JobSketch::generate_for_kafka(seed, options.custom).moved_to(home.clone()),
            None => JobSketch::generate(seed, options.custom),
        };
        if let Some(changelog) = options.changelog {
            job.changelog = changelog;
        }
        if options.topics {
            job = job.reading_topics();
        }
        if options.every_sink {
            job.add_every_sink();
        }
        for source in &mut job.sources {
            source.rate = (source.records * 1000).checked_div(options.life).filter(|_| !source.topic);
        }
        input::write(&job, folder);
        folder.write("job.toml", job.to_toml());
        let binary = if job.is_custom() { Binary::exact_job() } else { Binary::thalweg() };
        let data = folder.join("data");
        let random = Random::new(seed ^ 0x7275_6e73);
        Self {
            options,
            folder,
            job,
            binary,
            data,
            random,
            runs: 0,
            trial: Trial::default(),
            seen: Vec::new(),
            shown: Outputs::default(),
        }
    }

    fn run(mut self) -> Result<Trial, String> {
        let Some(home) = self.job.kafka.clone().filter(|_| self.job.reads_topics()) else {
            self.suffer()?;
            return self.finish();
        };
        let feed = Feed::new(&self.job, &home);
        let (records, life) = (feed.records(), Duration::from_millis(self.options.life));
        std::thread::scope(|scope| {
            scope.spawn(|| feed.run(life));
            self.suffer()
        })?;
        self.finish_topics(&home, &records)
    }

    /// One run after the other, until the job has come to its end or nothing more is to happen to it.
    fn suffer(&mut self) -> Result<(), String> {
        for fault in &self.options.faults {
            if self.one(fault)? {
                break;
            }
        }
        Ok(())
    }

    fn start(&mut self, fault: Option<&Fault>, http: bool, serve: bool) -> Process {
        let workers = *self.random.pick(&[1, 2, 4]);
        let bug = self.options.bug.map(|bug| format!("{bug}=bug"));
        let point = fault.and_then(|fault| match &fault.end {
            End::Point(point) => Some(point.clone()),
            End::Kill(_) | End::During(_) => None,
        });
        let failpoints = bug.into_iter().chain(point).collect::<Vec<_>>().join(";");
        let flags = RunFlags { workers, http, serve, failpoints, ..RunFlags::new(&self.data) };
        self.runs += 1;
        let log = self.folder.join(&format!("run-{}.log", self.runs));
        Process::start(&self.binary, &self.folder.join("job.toml"), &flags, &log)
    }

    /// One run with a fault; whether the job came to its end.
    fn one(&mut self, fault: &Fault) -> Result<bool, String> {
        let observe = self.options.observe;
        let mut process = self.start(Some(fault), observe, false);
        let mut ended = None;
        let stores = self.job.stores();
        let mut seen = Vec::new();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let log = process.log_path();
            let (over, stores, seen) = (&over, &stores, &mut seen);
            if observe {
                scope.spawn(move || observe_stores(&log, stores, over, seen));
            }
            if let End::During(disturbance) = &fault.end {
                let id = process.id();
                scope.spawn(move || disturbance.act(id));
            }
            ended = match &fault.end {
                End::Kill(after) => process.wait_for(*after),
                // It may not come to the point, and never ends.
                End::Point(_) if self.job.reads_topics() => process.wait_for(POINT_LIMIT),
                End::Point(_) | End::During(_) => Some(process.wait()),
            };
            if ended.is_none() {
                process.kill();
            }
            over.store(true, Ordering::Release);
        });
        self.seen.append(&mut seen);
        let log = process.log();
        self.trial.given_up += log.matches("the checkpoint is given up").count() as u64;
        let finished = match (ended, &fault.end) {
            (None, _) => {
                self.trial.kills += 1;
                false
            }
            (Some(Ended::Code(0)), _) => true,
            (Some(Ended::Killed), End::Point(_)) if log.contains(": killed") => {
                self.trial.kills += 1;
                let names = log.lines().filter_map(|line| line.strip_prefix("failpoint ")?.strip_suffix(": killed"));
                self.trial.points.extend(names.map(str::to_owned));
                false
            }
            (Some(Ended::Code(1)), End::Point(point)) if point.contains("=error") && log.contains("error[") => {
                self.trial.errors += 1;
                false
            }
            // Where epochs are cut by count, none may be added for another attempt at the last checkpoint.
            (Some(Ended::Code(1)), End::During(_))
                if self.job.interval.is_none() && log.contains("the last checkpoint was given up") =>
            {
                self.trial.errors += 1;
                false
            }
            (Some(ended), _) => return Err(format!("run {} ended with {ended:?}:\n{log}", self.runs)),
        };
        if fault.lose_state {
            let state = self.data.join(JOB).join("state");
            if state.exists() {
                std::fs::remove_dir_all(&state).map_err(|error| error.to_string())?;
            }
        }
        std::thread::sleep(fault.outage);
        self.look()?;
        Ok(finished)
    }

    /// What is shown now goes on from what was shown before.
    fn look(&mut self) -> Result<(), String> {
        // Before the first run has made its log there is nothing to read.
        if !self.data.join(JOB).join("log").join("format").exists() {
            return Ok(());
        }
        let now = Outputs::read(&self.job, self.folder.path(), &self.data)?;
        check_prefix(&self.shown, &now)?;
        self.shown = now;
        Ok(())
    }

    /// Runs until everything that is in the topics is bound, twice; stops it, and compares everything.
    fn finish_topics(mut self, home: &Home, records: &[(usize, u64)]) -> Result<Trial, String> {
        let mut scans = Vec::new();
        for _ in 0..2 {
            let mut process = self.start(None, true, false);
            let client = Client::new(process.address()?);
            until("a running job", || client.is_running(JOB) || process.ended().is_some());
            until("all records to be bound", || {
                let bound = recorded_in_kafka(&self.job, home)
                    .is_ok_and(|run| records.iter().all(|(source, all)| run.records(*source) == *all));
                bound || process.ended().is_some()
            });
            for store in self.job.stores() {
                for at in ["latest", "committed"] {
                    scans.extend(scan_store(&client, &store, at, self.random.between(3, 500) as usize)?);
                }
            }
            process.interrupt();
            let ended = process.wait();
            if ended != Ended::Code(0) {
                return Err(format!("a job that is stopped ended with {ended:?}:\n{}", process.log()));
            }
        }
        let run = recorded_in_kafka(&self.job, home)?;
        self.compare(&run, &scans)
    }

    /// Compares all that was shown with what the interpreter makes of the bindings.
    fn compare(mut self, run: &Run, scans: &[Observation]) -> Result<Trial, String> {
        self.look()?;
        let observed: BTreeSet<u64> = self.seen.iter().chain(scans).map(|seen| seen.epoch).collect();
        let reference = Reference::interpret(&self.job, self.folder.path(), run, &observed)?;
        self.shown.check(&reference)?;
        self.seen.iter().chain(scans).try_for_each(|seen| seen.check(&reference))?;
        self.trial.epochs = run.bindings.len() as u64;
        self.trial.dead_letters = reference.dead_letters.len();
        self.trial.observed = self.seen.len();
        Ok(self.trial)
    }

    /// Runs to the end, reads the stores there and after one more restart, and compares everything.
    fn finish(mut self) -> Result<Trial, String> {
        let mut scans = Vec::new();
        for again in [false, true] {
            let mut process = self.start(None, true, true);
            process.wait_for_log("input has ended")?;
            let log = process.log();
            if again && !log.contains("nothing to do") {
                return Err(format!("a job that has finished does not say so when it is started again:\n{log}"));
            }
            let client = Client::new(process.address()?);
            for store in self.job.stores() {
                for at in ["latest", "committed"] {
                    let scan = scan_store(&client, &store, at, self.random.between(3, 500) as usize)?;
                    scans.push(scan.ok_or_else(|| format!("store {store} cannot be read at {at} of a finished job"))?);
                }
            }
            process.kill();
        }
        let run = match &self.job.kafka {
            Some(home) => recorded_in_kafka(&self.job, home)?,
            None => recorded_run(&self.data)?,
        };
        let last = run.bindings.len() as u64;
        // Started again, a job that has finished has nothing to do, whatever timers it has left.
        if let Some(scan) = scans.iter().find(|scan| scan.epoch != last) {
            return Err(format!(
                "store {} at {} is of epoch {} after the last, {last}",
                scan.store, scan.at, scan.epoch
            ));
        }
        self.compare(&run, &scans)
    }
}

/// Reads all stores again and again until the process is over.
fn observe_stores(log: &std::path::Path, stores: &[String], over: &AtomicBool, seen: &mut Vec<Observation>) {
    const MOST: usize = 400;
    let address = loop {
        if over.load(Ordering::Acquire) {
            return;
        }
        match crate::process::address_in(log) {
            Some(address) => break address,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let client = Client::new(address);
    let reads = stores.iter().flat_map(|store| [(store, "latest"), (store, "committed")]).cycle();
    for (store, at) in reads.take(MOST) {
        if over.load(Ordering::Acquire) {
            return;
        }
        // An error says that the process is gone, or not there yet.
        seen.extend(scan_store(&client, store, at, 10_000).ok().flatten());
        std::thread::sleep(Duration::from_millis(2));
    }
}
