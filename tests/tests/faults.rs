//! Bad input and bad surroundings: each is refused with one clear error, and once the cause is mended the job goes on to the exact
//! result.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use thalweg_tests::{Binary, Client, Ended, Folder, Process, RunFlags, until};

/// Rows of every good input.
const ROWS: i64 = 3000;
/// Keys of every good input.
const KEYS: i64 = 7;

/// A job that sums `v` by `k`, in a folder of its own.
struct Sums {
    folder: Folder,
    toml: String,
}

impl Sums {
    /// Reads `in.jsonl`, writes `out/totals.jsonl`.
    fn new() -> Self {
        let job = Self { folder: Folder::new(), toml: String::new() };
        job.folder.write("in.jsonl", rows());
        job.with(
            r#"version = 1
[job]
name = "sums"
partitions = 3
[job.epoch]
interval = "5ms"
max_records = 100
[job.checkpoint]
interval = "20ms"
[sources.rows]
connector = "file"
path = "in.jsonl"
format = "json"
[operators.totals]
uses = "sum"
inputs = ["rows"]
key = "k"
of = "v"
as = "total"
[sinks.out]
connector = "file"
path = "out/totals.jsonl"
single = true
inputs = ["totals"]
"#,
        )
    }

    fn with(mut self, toml: &str) -> Self {
        self.folder.write("job.toml", toml);
        self.toml = toml.to_owned();
        self
    }

    /// With a text of the job file replaced.
    fn replacing(self, from: &str, to: &str) -> Self {
        assert!(self.toml.contains(from), "{from}");
        let toml = self.toml.replace(from, to);
        self.with(&toml)
    }

    fn rewrite(&self, from: &str, to: &str) {
        self.folder.write("job.toml", self.toml.replace(from, to));
    }

    fn flags(&self) -> RunFlags {
        RunFlags { workers: 2, ..RunFlags::new(self.folder.join("data")) }
    }

    fn start(&self, flags: &RunFlags) -> Process {
        Process::start(&Binary::thalweg(), &self.folder.join("job.toml"), flags, &self.folder.join("run.log"))
    }

    /// The job is refused with this exit code and this error, whose text says all of this.
    fn refused(&self, code: i32, error: &str, says: &[&str]) -> &Self {
        self.refused_with(&self.flags(), code, error, says)
    }

    fn refused_with(&self, flags: &RunFlags, code: i32, error: &str, says: &[&str]) -> &Self {
        let mut process = self.start(flags);
        let ended = process.wait();
        let log = process.log();
        assert_eq!(ended, Ended::Code(code), "{log}");
        assert!(log.contains(&format!("error[{error}]")), "no error[{error}]: {log}");
        says.iter().for_each(|text| assert!(log.contains(text), "it does not say {text:?}: {log}"));
        assert!(!log.contains("panicked"), "{log}");
        self
    }

    /// Goes on to the end; the last totals are these.
    fn finishes(&self, expected: &BTreeMap<i64, i64>) -> &Self {
        let mut process = self.start(&self.flags());
        let ended = process.wait();
        assert_eq!(ended, Ended::Code(0), "{}", process.log());
        assert_eq!(self.totals(), *expected);
        self
    }

    fn totals(&self) -> BTreeMap<i64, i64> {
        let text = std::fs::read_to_string(self.folder.join("out/totals.jsonl")).unwrap_or_default();
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).expect("whole lines");
            (row["k"].as_i64().expect("k"), row["total"].as_i64().expect("total"))
        };
        text.lines().map(row).collect()
    }

    /// Runs a slow version of the job and kills it when it has begun to write.
    fn killed_half_way(&self) -> &Self {
        self.rewrite("path = \"in.jsonl\"", "rate = 3000\npath = \"in.jsonl\"");
        let mut process = self.start(&self.flags());
        until("the first total", || {
            assert_eq!(process.ended(), None, "{}", process.log());
            !self.totals_so_far().is_empty()
        });
        assert_eq!(process.wait_for(process.age() + Duration::from_millis(200)), None, "{}", process.log());
        process.kill();
        self
    }

    /// It stops with a named error, or, where the damage does not matter any more, is exact.
    fn is_never_wrong(&self) {
        let mut process = self.start(&self.flags());
        match process.wait() {
            Ended::Code(0) => assert_eq!(self.totals(), totals()),
            Ended::Code(1) => assert!(process.log().contains("error[state-"), "{}", process.log()),
            ended => panic!("{ended:?}: {}", process.log()),
        }
    }

    fn totals_so_far(&self) -> Vec<u8> {
        std::fs::read(self.folder.join("out/totals.jsonl")).unwrap_or_default()
    }

    fn state(&self) -> PathBuf {
        self.folder.join("data/sums/state")
    }
}

fn value(row: i64) -> i64 {
    row * 31 % 1009
}

fn line(row: i64) -> String {
    format!("{{\"k\":{},\"v\":{}}}\n", row % KEYS, value(row))
}

fn rows() -> String {
    (0..ROWS).map(line).collect()
}

/// The totals of all rows but these.
fn totals_without(left_out: &[i64]) -> BTreeMap<i64, i64> {
    let mut totals = BTreeMap::new();
    for row in (0..ROWS).filter(|row| !left_out.contains(row)) {
        *totals.entry(row % KEYS).or_insert(0) += value(row);
    }
    totals
}

fn totals() -> BTreeMap<i64, i64> {
    totals_without(&[])
}

/// Overwrites a part of a file in place: it stays the same file of the same length.
fn overwrite(path: &std::path::Path, at: usize, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).expect("a file");
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(at as u64)).expect("seeks");
    file.write_all(bytes).expect("writes");
}

#[test]
fn a_damaged_gzip_file() {
    let job = Sums::new().replacing("in.jsonl", "in.jsonl.gz");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(rows().as_bytes()).expect("memory");
    let mut bytes = encoder.finish().expect("memory");
    // The checksum at the end.
    let (at, good) = (bytes.len() - 8, bytes.clone());
    bytes[at..].fill(0x55);
    job.folder.write("in.jsonl.gz", bytes);
    job.refused(1, "corrupt-file", &["source \"rows\"", "in.jsonl.gz", "replace it by a whole copy"]);
    overwrite(&job.folder.join("in.jsonl.gz"), at, &good[at..]);
    job.finishes(&totals());

    // In the middle it may decode to other bytes: they are no bad record, and are not dropped as one.
    for on_error in ["fail", "drop"] {
        let named = format!("name = \"sums\"\non_error = \"{on_error}\"");
        let job = Sums::new().replacing("in.jsonl", "in.jsonl.gz").replacing("name = \"sums\"", &named);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
        encoder.write_all(rows().as_bytes()).expect("memory");
        let mut bytes = encoder.finish().expect("memory");
        let at = bytes.len() / 2;
        bytes[at..at + 100].fill(b'#');
        job.folder.write("in.jsonl.gz", bytes);
        job.refused(1, "corrupt-file", &["source \"rows\"", "in.jsonl.gz", "replace it by a whole copy"]);
    }
}

#[test]
fn a_line_that_is_no_json() {
    let (job, row) = (Sums::new(), 2000);
    let at: usize = (0..row).map(|row| line(row).len()).sum();
    let path = job.folder.join("in.jsonl");
    let good = line(row);
    overwrite(&path, at, b"{nonsense");
    job.refused(1, "bad-record", &["in.jsonl", &format!("record at {at}"), "\"drop\""]);
    overwrite(&path, at, good.as_bytes());
    job.finishes(&totals());

    let job = Sums::new();
    overwrite(&job.folder.join("in.jsonl"), at, b"{nonsense");
    job.refused(1, "bad-record", &[]);
    job.rewrite("name = \"sums\"", "name = \"sums\"\non_error = \"drop\"");
    job.finishes(&totals_without(&[row]));
}

#[test]
fn a_record_of_100_megabytes() {
    let job = Sums::new();
    let large = format!("{{\"k\":0,\"v\":5,\"text\":\"{}\"}}\n", "x".repeat(100_000_000));
    job.folder.write("in.jsonl", format!("{}{large}", rows()));
    job.refused(1, "record-too-large", &["in.jsonl", "max_record_bytes"]);
    job.rewrite("format = \"json\"", "format = \"json\"\nmax_record_bytes = \"200MB\"");
    let mut expected = totals();
    *expected.entry(0).or_insert(0) += 5;
    job.finishes(&expected);
}

#[test]
fn a_missing_column() {
    let job = Sums::new().replacing("in.jsonl", "in.csv").replacing("format = \"json\"", "format = \"csv\"");
    let lines: String = (0..ROWS).map(|row| format!("{},{}\n", row % KEYS, value(row))).collect();
    job.folder.write("in.csv", format!("k,amount\n{lines}"));
    job.refused(1, "missing-column", &["in.csv", "\"v\"", "amount"]);
    job.rewrite("of = \"v\"", "of = \"amount\"");
    job.finishes(&totals());
}

#[test]
fn a_sink_whose_folder_cannot_be_made() {
    let job = Sums::new();
    job.folder.write("out", "a file where a folder should be");
    job.refused(1, "not-a-folder", &["sink \"out\"", "totals.jsonl", "Not a directory", "choose another path"]);
    std::fs::remove_file(job.folder.join("out")).expect("removed");
    job.finishes(&totals());
}

#[test]
fn a_port_that_is_taken() {
    let job = Sums::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut command = std::process::Command::new(Binary::thalweg().path());
    command.arg("run").arg(job.folder.join("job.toml")).arg("--data").arg(job.folder.join("data"));
    command.args(["--http", &address]);
    let mut process = Process::spawn(command, &job.folder.join("run.log"));
    assert_eq!(process.wait(), Ended::Code(1), "{}", process.log());
    let log = process.log();
    assert!(log.contains("error[port-in-use]") && log.contains(&address) && log.contains("--http"), "{log}");
    drop(taken);
    job.finishes(&totals());
}

#[test]
fn two_processes_on_one_data_folder() {
    let job = Sums::new();
    job.rewrite("path = \"in.jsonl\"", "rate = 6000\npath = \"in.jsonl\"");
    let flags = RunFlags { http: true, ..job.flags() };
    let log = job.folder.join("first.log");
    let mut first = Process::start(&Binary::thalweg(), &job.folder.join("job.toml"), &flags, &log);
    first.address().expect("it runs");
    job.refused(1, "locked", &["data"]);
    assert_eq!(first.wait(), Ended::Code(0), "{}", first.log());
    assert_eq!(job.totals(), totals());
}

#[test]
fn a_job_file_with_five_mistakes() {
    let job = Sums::new();
    let mut toml = job.toml.clone();
    for (from, to) in [
        ("partitions = 3", "partitions = 0"),
        ("interval = \"5ms\"", "interval = \"5 parsecs\""),
        ("uses = \"sum\"", "uses = \"sun\""),
        ("inputs = [\"totals\"]", "inputs = [\"total\"]"),
        ("format = \"json\"", "fromat = \"json\""),
    ] {
        assert!(toml.contains(from), "{from}");
        toml = toml.replace(from, to);
    }
    job.folder.write("job.toml", toml);
    let mut process = job.start(&job.flags());
    assert_eq!(process.wait(), Ended::Code(2), "{}", process.log());
    let log = process.log();
    assert_eq!(log.matches("error[").count(), 5, "{log}");
    assert!(log.contains("did you mean \"totals\"") && log.contains("job.toml:4:"), "{log}");
    job.folder.write("job.toml", &job.toml);
    job.finishes(&totals());
}

#[test]
fn missing_input() {
    let job = Sums::new();
    let (path, aside) = (job.folder.join("in.jsonl"), job.folder.join("aside"));
    std::fs::rename(&path, &aside).expect("renamed");
    job.refused(1, "no-input", &["in.jsonl", "relative to the job's file"]);
    std::fs::rename(&aside, &path).expect("renamed");
    job.killed_half_way();
    // Gone in the middle, and there again.
    std::fs::rename(&path, &aside).expect("renamed");
    job.refused(1, "file-changed", &["in.jsonl"]);
    std::fs::rename(&aside, &path).expect("renamed");
    job.finishes(&totals());
}

#[test]
fn other_partitions_on_the_same_data() {
    let job = Sums::new();
    job.killed_half_way();
    job.rewrite("partitions = 3", "partitions = 4");
    job.refused(1, "partitions", &["has 3 partitions", "4"]);
    job.rewrite("", "");
    job.finishes(&totals());
}

#[test]
fn another_job_on_the_same_data() {
    let job = Sums::new();
    job.killed_half_way();
    job.rewrite("uses = \"sum\"", "uses = \"max\"");
    job.refused(1, "fingerprint-changed", &["the job has changed", "run the old version once more"]);
    // The copy that questions are answered by is of the job that the state is of.
    let kept = std::fs::read_to_string(job.folder.join("data/sums/job.toml")).expect("a copy");
    assert!(kept.contains("uses = \"sum\""), "{kept}");
    job.rewrite("", "");
    job.finishes(&totals());
}

#[test]
fn lost_and_damaged_state() {
    // The whole folder is gone, and there is no changelog.
    let job = Sums::new();
    job.killed_half_way();
    let aside = job.folder.join("aside");
    std::fs::rename(job.state(), &aside).expect("renamed");
    job.refused(1, "state-lost", &["totals", "changelog = \"log\""]);
    std::fs::remove_dir_all(job.state()).expect("removed");
    std::fs::rename(&aside, job.state()).expect("renamed");
    job.rewrite("", "");
    job.finishes(&totals());

    // The state of another job with the same name.
    let other = Sums::new();
    other.finishes(&totals());
    let job = Sums::new();
    job.killed_half_way();
    std::fs::rename(job.state(), &aside).expect("renamed");
    std::fs::rename(other.state(), job.state()).expect("renamed");
    job.refused(1, "state-of-another-job", &[]);
    std::fs::remove_dir_all(job.state()).expect("removed");
    std::fs::rename(&aside, job.state()).expect("renamed");

    // Of a later version, and with a damaged header.
    let meta = job.state().join("state.meta");
    let good = std::fs::read(&meta).expect("a header");
    overwrite(&meta, 8, &[99]);
    job.refused(1, "state-newer", &[]);
    std::fs::write(&meta, &good).expect("written");
    overwrite(&meta, 20, &[!good[20]]);
    job.refused(1, "state-corrupt", &[]);
    std::fs::write(&meta, &good).expect("written");
    job.finishes(&totals());
}

#[test]
fn a_damaged_or_missing_table_of_the_state_is_never_a_wrong_answer() {
    let tables = |job: &Sums| -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![job.state()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path()) {
                match entry.extension() {
                    Some(extension) if extension == "sst" => found.push(entry),
                    _ if entry.is_dir() => folders.push(entry),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    };
    let job = Sums::new();
    job.killed_half_way();
    job.rewrite("", "");
    let whole = Folder::new();
    copy(&job.folder, &whole);
    let files = tables(&job);
    assert!(!files.is_empty(), "nothing was ingested");
    // Each table once with bytes turned over, once missing.
    for file in &files {
        let good = std::fs::read(file).expect("a table");
        let mut bad = good.clone();
        bad[..40].iter_mut().for_each(|byte| *byte = !*byte);
        std::fs::write(file, &bad).expect("written");
        job.is_never_wrong();
        copy(&whole, &job.folder);
        std::fs::remove_file(file).expect("removed");
        job.is_never_wrong();
        copy(&whole, &job.folder);
    }
    job.finishes(&totals());
}

/// Puts the data and the output of one folder in place of those of another; inputs are known by their inode and stay.
fn copy(from: &Folder, to: &Folder) {
    for part in ["data", "out"] {
        let _ = std::fs::remove_dir_all(to.join(part));
        let mut copying = std::process::Command::new("cp");
        let copied = copying.arg("-a").arg(from.join(part)).arg(to.path()).status();
        assert!(copied.is_ok_and(|status| status.success()));
    }
}

/// Stopping is not a fault: Ctrl-C makes a last checkpoint, and the next run goes on behind it.
#[test]
fn an_interrupted_job_goes_on_where_it_was() {
    let job = Sums::new();
    job.rewrite("path = \"in.jsonl\"", "rate = 6000\npath = \"in.jsonl\"");
    let mut process = job.start(&RunFlags { http: true, ..job.flags() });
    let client = Client::new(process.address().expect("it runs"));
    let epoch = |client: &Client| client.get("/v1/jobs/sums").ok().and_then(|answer| answer.json["epoch"].as_u64());
    until("epoch 3", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        epoch(&client).is_some_and(|epoch| epoch >= 3)
    });
    process.interrupt();
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
    assert_ne!(job.totals(), totals(), "it was stopped half way");
    job.finishes(&totals());
}
