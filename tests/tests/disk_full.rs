//! A disk that is really full: the job's data is on a file system of its own that has little room left.
//!
//! The file system is a tmpfs in a mount namespace of its own (`unshare`), so no rights are needed where users may make
//! namespaces, and nothing of the machine is touched. It lives as long as the script that makes it, so one script does both runs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use thalweg_tests::{Binary, Ended, Folder, Process};

const ROWS: u64 = 200_000;
const KEYS: u64 = 100_000;
/// Size of the file system, far more than the job needs.
const DISK_MIB: u64 = 512;

const JOB: &str = r#"version = 1
[job]
name = "full"
partitions = 3
workers = 2
[job.epoch]
interval = "5ms"
max_records = 2000
[job.checkpoint]
interval = "50ms"
[sources.rows]
connector = "file"
path = "in.jsonl"
[operators.totals]
uses = "sum"
inputs = ["rows"]
key = "k"
of = "v"
as = "total"
[stores.totals]
changelog = "log"
[sinks.out]
connector = "file"
path = "out/totals.jsonl"
single = true
inputs = ["totals"]
"#;

/// Fills the disk but for some MiB, runs the job, makes room, runs the job again; leaves the exit codes, and the output of the
/// first run.
const SCRIPT: &str = r#"
mount -t tmpfs -o size="$DISK"m tmpfs data || exit 77
touch mounted
dd if=/dev/zero of=data/filler bs=65536 count=$(( (DISK * 1024 - FREE) / 64 )) 2> /dev/null || exit 78
run() { "$BINARY" run job.toml --data data --http none --keep-bindings 2> "$1.log"; echo $? > "$1.code"; }
run first
df data > df.txt
mkdir -p out && touch out/totals.jsonl && cp out/totals.jsonl first.jsonl
rm data/filler
run second
"#;

/// Ways to a mount namespace: as a user, as root, as whoever may become root.
const WAYS: [&[&str]; 3] = [&["unshare", "-Urm"], &["unshare", "-m"], &["sudo", "-n", "-E", "unshare", "-m"]];

fn in_a_small_disk(folder: &Folder, free_kib: u64) {
    let mut tried = String::new();
    for way in WAYS {
        let mut command = Command::new(way[0]);
        command.args(&way[1..]).args(["sh", "-c", SCRIPT]).current_dir(folder.path());
        command.env("BINARY", Binary::thalweg().path());
        command.env("DISK", DISK_MIB.to_string()).env("FREE", free_kib.to_string());
        if command.get_program() == "sudo"
            && !Command::new("sudo").arg("-V").output().is_ok_and(|out| out.status.success())
        {
            continue;
        }
        let mut process = Process::spawn(command, &folder.join("script.log"));
        let ended = process.wait();
        if folder.join("mounted").exists() {
            assert_eq!(ended, Ended::Code(0), "{}", process.log());
            return;
        }
        tried += &format!("{way:?}: {ended:?}: {}\n", process.log());
    }
    panic!(
        "this test mounts a small tmpfs; let users make namespaces (kernel.unprivileged_userns_clone=1), or be root:\n{tried}"
    );
}

/// The sums after the last row.
fn expected() -> BTreeMap<u64, u64> {
    let mut totals = BTreeMap::new();
    (0..ROWS).for_each(|row| *totals.entry(row % KEYS).or_insert(0) += row);
    totals
}

fn totals(text: &str) -> BTreeMap<u64, u64> {
    let row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).expect("whole lines");
        (row["k"].as_u64().expect("k"), row["total"].as_u64().expect("total"))
    };
    text.lines().map(row).collect()
}

/// With so much room the job stops with one clear error; with more it goes on to the exact result.
fn check(free_kib: u64) {
    let folder = Folder::new();
    folder.write("job.toml", JOB);
    folder
        .write("in.jsonl", (0..ROWS).map(|row| format!("{{\"k\":{},\"v\":{row}}}\n", row % KEYS)).collect::<String>());
    fs::create_dir(folder.join("data")).expect("a folder");
    in_a_small_disk(&folder, free_kib);
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let log = read("first.log");
    let full = format!("with {free_kib} KiB free: {log}\n{}", read("df.txt"));
    assert_eq!(read("first.code").trim(), "1", "{full}");
    assert!(log.contains("error[disk-full]") && log.contains("free some space and start again"), "{full}");
    assert!(!log.contains("panicked"), "{full}");
    assert_eq!(log.matches("error[").count(), 1, "{full}");
    assert_eq!(read("second.code").trim(), "0", "with {free_kib} KiB free at first: {}", read("second.log"));
    let (first, all) = (read("first.jsonl"), read("out/totals.jsonl"));
    assert!(all.starts_with(&first), "with {free_kib} KiB free: what was written was not kept");
    assert_eq!(totals(&all), expected(), "with {free_kib} KiB free");
}

#[test]
fn a_full_disk_stops_the_job_and_loses_nothing() {
    // From no room for anything to room for a part of the state.
    [64, 1500, 4000, 9000].into_iter().for_each(check);
}
