//! Files that are followed while they are rotated, with the job killed in between: every line counts once.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use thalweg_tests::{Binary, Client, Ended, Folder, Process, Random, RunFlags, until};

const JOB: &str = r#"version = 1
[job]
name = "lines"
partitions = 3
[job.epoch]
interval = "5ms"
[job.checkpoint]
interval = "20ms"
[sources.rows]
connector = "file"
path = "PATH"
follow = true
format = "json"
[operators.totals]
uses = "aggregate"
inputs = ["rows"]
key = "k"
aggregates = { rows = "count()", total = "sum(v)" }
[sinks.out]
connector = "file"
path = "out/totals.jsonl"
single = true
inputs = ["totals"]
"#;

/// Random numbers; `THALWEG_SEED` repeats a failure.
fn seeded() -> Random {
    let given = std::env::var("THALWEG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(u64::from(std::process::id()));
    println!("repeat with THALWEG_SEED={seed}");
    Random::new(seed)
}

/// Rows and sum by key.
type Totals = BTreeMap<i64, (i64, i64)>;

/// A job that follows files, and who writes them.
struct Lines {
    folder: Folder,
    written: i64,
    expected: Totals,
}

impl Lines {
    fn new(path: &str) -> Self {
        let folder = Folder::new();
        folder.write("job.toml", JOB.replace("PATH", path));
        folder.write("in/a.log", "");
        Self { folder, written: 0, expected: Totals::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join("in").join(name)
    }

    /// Appends rows, the last one in two writes.
    fn write(&mut self, name: &str, rows: u64) {
        let mut text = String::new();
        for _ in 0..rows {
            let (k, v) = (self.written % 7, self.written * 31 % 1009);
            text += &format!("{{\"k\":{k},\"v\":{v}}}\n");
            let of = self.expected.entry(k).or_default();
            *of = (of.0 + 1, of.1 + v);
            self.written += 1;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).expect("a file");
        let (first, second) = text.split_at(text.len() - text.len().min(5));
        file.write_all(first.as_bytes()).and_then(|()| file.write_all(second.as_bytes())).expect("written");
    }

    fn flags(&self) -> RunFlags {
        RunFlags { workers: 2, http: true, ..RunFlags::new(self.folder.join("data")) }
    }

    fn start(&self) -> Process {
        let (job, log) = (self.folder.join("job.toml"), self.folder.join("run.log"));
        Process::start(&Binary::thalweg(), &job, &self.flags(), &log)
    }

    /// The last totals of each key that are in the file.
    fn totals(&self) -> Totals {
        let text = fs::read_to_string(self.folder.join("out/totals.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).expect("whole lines");
            let field = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("{name} in {line}"));
            (field("k"), (field("rows"), field("total")))
        };
        whole.lines().map(row).collect()
    }

    /// Waits until every row that was written is counted; more than that never are.
    fn settles(&self, process: &mut Process) {
        until("every row is counted", || {
            assert_eq!(process.ended(), None, "{}", process.log());
            let rows: i64 = self.totals().values().map(|(rows, _)| rows).sum();
            assert!(rows <= self.written, "{rows} rows are counted and {} were written", self.written);
            rows == self.written
        });
        assert_eq!(self.totals(), self.expected);
    }

    fn stops(&self, process: &mut Process) {
        process.interrupt();
        assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
    }
}

/// How often a running job says that input was gone.
fn losses(process: &mut Process) -> String {
    let client = Client::new(process.address().expect("it runs"));
    let metrics = client.get("/metrics").expect("metrics").text;
    let line = metrics.lines().find(|line| line.starts_with("thalweg_source_losses"));
    line.unwrap_or_else(|| panic!("no losses in {metrics}")).rsplit(' ').next().expect("a value").to_owned()
}

#[test]
fn renamed_files_and_kills() {
    let mut random = seeded();
    // A file may be renamed before anybody has looked: so the paths mean the old files as well.
    let mut job = Lines::new("in/*.log*");
    let mut process = job.start();
    let mut rotations = 0;
    for _ in 0..12 {
        for _ in 0..random.below(6) {
            let (name, rows) = (*random.pick(&["a.log", "b.log"]), random.below(300));
            job.write(name, rows);
            if random.once_in(3) && job.path("a.log").exists() {
                rotations += 1;
                fs::rename(job.path("a.log"), job.path(&format!("a.log.{rotations}"))).expect("renamed");
                if random.once_in(2) {
                    // The writer has not heard of it yet.
                    job.write(&format!("a.log.{rotations}"), 3);
                }
            }
        }
        if random.once_in(4) {
            job.settles(&mut process);
        }
        if random.once_in(2) {
            assert_eq!(process.kill(), Ended::Killed, "{}", process.log());
            if random.once_in(2) && job.path("a.log").exists() {
                job.write("a.log", 10);
                rotations += 1;
                fs::rename(job.path("a.log"), job.path(&format!("a.log.{rotations}"))).expect("renamed");
            }
            process = job.start();
        }
    }
    job.write("a.log", 10);
    job.settles(&mut process);
    assert_eq!(losses(&mut process), "0");
    job.stops(&mut process);
    // The whole run again, from what it has kept: the files are not needed.
    let again = Folder::new();
    fs::copy(job.folder.join("job.toml"), again.join("job.toml")).expect("copied");
    let flags = RunFlags { bindings: Some(job.folder.join("data")), ..RunFlags::new(again.join("data")) };
    let log = again.join("run.log");
    let mut process = Process::start(&Binary::thalweg(), &again.join("job.toml"), &flags, &log);
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
    let written = |folder: &Folder| fs::read_to_string(folder.join("out/totals.jsonl")).expect("an output");
    assert!(written(&again) == written(&job.folder), "the repeated run wrote something else");
}

#[test]
fn files_cut_in_place_and_kills() {
    let mut random = seeded();
    let mut job = Lines::new("in/*.log");
    let mut process = job.start();
    for round in 0..8 {
        let rows = 1 + random.below(200);
        job.write("a.log", rows);
        // Whoever cuts a file loses what is not read; so it is waited for.
        job.settles(&mut process);
        let down = random.once_in(2);
        if down {
            assert_eq!(process.kill(), Ended::Killed, "{}", process.log());
        }
        fs::copy(job.path("a.log"), job.path(&format!("a.log.{round}"))).expect("copied");
        OpenOptions::new().write(true).truncate(true).open(job.path("a.log")).expect("cut");
        let rows = 1 + random.below(400);
        job.write("a.log", rows);
        if down {
            process = job.start();
        }
        job.settles(&mut process);
        if down {
            assert_eq!(losses(&mut process), "1");
            assert!(process.log().contains("a.log: the file was removed, replaced or cut"), "{}", process.log());
        } else {
            assert!(process.log().contains("a.log: the file was cut, or written anew"), "{}", process.log());
        }
    }
    job.stops(&mut process);
}

/// Kills at every step of what is kept before it is used.
#[test]
fn kills_while_lines_are_kept() {
    for point in ["log-append", "log-sync", "log-commit", "epoch-cut", "epoch-released"] {
        let mut job = Lines::new("in/*.log");
        for count in [2, 5, 9] {
            job.write("a.log", 100);
            let flags = RunFlags { failpoints: format!("{point}=kill@{count}"), ..job.flags() };
            let (toml, log) = (job.folder.join("job.toml"), job.folder.join("run.log"));
            let mut process = Process::start(&Binary::thalweg(), &toml, &flags, &log);
            until("it is killed", || {
                job.write("b.log", 1);
                process.ended().is_some()
            });
            assert_eq!(process.wait(), Ended::Killed, "{point}: {}", process.log());
        }
        let mut process = job.start();
        job.settles(&mut process);
        job.stops(&mut process);
    }
}
