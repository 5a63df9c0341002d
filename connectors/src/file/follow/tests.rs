//! Followed files under every kind of rotation: nothing twice, nothing lost that can be had.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::file::{Followed, Found};
use super::mark::FileId;
use super::*;
use crate::conformance::check_source;
use crate::log::{EmbeddedLog, Log};
use crate::random::Random;
use crate::{CsvOptions, Fields, FormattedSource, RawBatch, ReadLimit, ReadState};

const MAX_RECORD_BYTES: usize = 10_000;

/// A folder with the files, and a log beside it.
struct Bench {
    dir: tempfile::TempDir,
    log: EmbeddedLog,
    paths: Vec<String>,
    format: Format,
}

impl Bench {
    fn new(paths: &[&str], format: Format) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("in")).expect("a folder");
        let log = EmbeddedLog::open_with(&dir.path().join("log"), Arc::new(|| 0), 1 << 14).expect("the log");
        let paths = paths.iter().map(|path| format!("in/{path}")).collect();
        Self { dir, log, paths, format }
    }

    /// As another process would make it.
    fn source(&self) -> FollowSource {
        let dir = self.dir.path().join("log");
        let topic = IngestTopic::new(Arc::new(self.log.clone()), dir, "input".to_owned(), false);
        FollowSource::new(topic, self.dir.path(), self.paths.clone(), &self.format, MAX_RECORD_BYTES)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("in").join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.path(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("appends");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("renames");
    }
}

/// Reads on until so many records are there.
fn read(reader: &mut dyn RawReader, count: usize, found: &mut Vec<String>) {
    let limit = ReadLimit { records: 1, bytes: 1 << 20, until: None };
    let began = std::time::Instant::now();
    while found.len() < count {
        let mut batch = RawBatch::default();
        reader.read(limit, &mut batch).expect("reads");
        found.extend(batch.records.iter().map(|record| String::from_utf8_lossy(batch.value(record)).into_owned()));
        assert!(began.elapsed().as_secs() < 60, "{count} records are wanted, found are {found:?}");
        std::thread::yield_now();
    }
}

/// Steps of a run: what happens to the files, and the records that are there after it.
struct Run<'a> {
    bench: &'a Bench,
    source: Option<FollowSource>,
    reader: Option<Box<dyn RawReader>>,
    found: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(bench: &'a Bench) -> Self {
        let mut run = Self { bench, source: None, reader: None, found: Vec::new() };
        run.restart();
        run
    }

    /// The job is stopped; it is started again and goes on where it was.
    fn restart(&mut self) {
        self.stop();
        let source = self.bench.source();
        let partition = source.discover(0).expect("discovers").remove(0);
        self.reader = Some(source.open(&partition, self.found.len() as u64).expect("opens"));
        self.source = Some(source);
    }

    fn stop(&mut self) {
        self.reader = None;
        self.source = None;
    }

    fn finds(&mut self, new: &[&str]) {
        let before = self.found.len();
        read(&mut **self.reader.as_mut().expect("runs"), before + new.len(), &mut self.found);
        assert_eq!(self.found[before..], *new);
    }

    fn losses(&self) -> u64 {
        self.reader.as_ref().expect("runs").losses()
    }
}

#[test]
fn files_that_grow_are_renamed_and_come_new() {
    let bench = Bench::new(&["*.log"], Format::Lines);
    let mut run = Run::new(&bench);
    bench.append("a.log", "1\n2\r\n3");
    run.finds(&["1", "2"]);
    bench.append("a.log", "3\n");
    run.finds(&["33"]);
    // Renamed, and still written to; the new file comes after it.
    bench.rename("a.log", "a.log.1");
    bench.append("a.log.1", "4\n");
    bench.append("a.log", "5\n");
    run.finds(&["4", "5"]);
    bench.append("b.log", "6\n");
    run.finds(&["6"]);
    // Removed under the reader's hands.
    bench.append("b.log", "7\n");
    run.finds(&["7"]);
    fs::remove_file(bench.path("b.log")).expect("removes");
    bench.append("b.log", "8\n");
    run.finds(&["8"]);
    assert_eq!(run.losses(), 0);
    // A name of the same pattern is the same file.
    bench.rename("a.log", "c.log");
    bench.append("c.log", "9\n");
    run.finds(&["9"]);
}

#[test]
fn a_rotation_while_the_job_is_down_is_made_up_for() {
    let bench = Bench::new(&["a.log"], Format::Lines);
    let mut run = Run::new(&bench);
    bench.append("a.log", "1\n2\n");
    run.finds(&["1", "2"]);
    run.stop();
    bench.append("a.log", "3\n");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "4\n");
    run.restart();
    run.finds(&["3", "4"]);
    assert_eq!(run.losses(), 0);
    // Two rotations, and the older file is gone: that is said.
    run.stop();
    fs::remove_file(bench.path("a.log.1")).expect("removes");
    bench.rename("a.log", "a.log.1");
    bench.append("a.log", "5\n");
    run.restart();
    run.finds(&["5"]);
    assert_eq!(run.losses(), 1);
}

#[test]
fn a_file_that_is_cut_in_place_is_read_from_its_start() {
    let bench = Bench::new(&["a.log"], Format::Lines);
    let mut run = Run::new(&bench);
    let cut = |text: &str| {
        let file = fs::OpenOptions::new().write(true).truncate(true).open(bench.path("a.log"));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("cuts");
    };
    bench.append("a.log", "one\ntwo\n");
    run.finds(&["one", "two"]);
    cut("");
    bench.append("a.log", "3\n");
    run.finds(&["3"]);
    assert_eq!(run.losses(), 1);
    // Longer than before at once: its first bytes tell.
    cut("four\nfive\nsix\n");
    run.finds(&["four", "five", "six"]);
    assert_eq!(run.losses(), 2);
    // While the job is down, shorter and longer.
    for (text, lines) in [("7\n", ["7"]), ("a longer line\n", ["a longer line"])] {
        run.stop();
        cut(text);
        run.restart();
        run.finds(&lines);
        assert_eq!(run.losses(), 1);
    }
}

#[test]
fn compressed_files_are_no_input() {
    let bench = Bench::new(&["*.log*"], Format::Lines);
    bench.append("old.log.gz", "\u{1f}");
    let error = bench.source().discover(0).expect_err("a compressed file");
    assert_eq!(error.code(), "corrupt-file");
    fs::write(bench.path("old.log.gz"), b"\x1f\x8b\x08").expect("writes");
    assert_eq!(bench.source().discover(0).expect_err("a compressed file").code(), "follow-compressed");
    fs::remove_file(bench.path("old.log.gz")).expect("removes");
    let mut run = Run::new(&bench);
    // What rotation makes later: by its name while it is written, by its first bytes under any other.
    bench.append("a.log.1.gz", "1\n");
    fs::write(bench.path("b.log.zip"), b"\x1f\x8b\x08\n").expect("writes");
    fs::write(bench.path("c.log"), b"\x28\xb5\x2f\xfd\n").expect("writes");
    bench.append("z.log", "z\n");
    run.finds(&["z"]);
    bench.append("z.log", "y\n");
    run.finds(&["y"]);
}

#[test]
fn columns_are_those_of_the_first_file() {
    let bench = Bench::new(&["*.csv"], Format::Csv(CsvOptions::default()));
    let mut run = Run::new(&bench);
    bench.append("a.csv", "\u{feff}a,");
    bench.append("a.csv", "b\n1,\"x\n");
    bench.append("a.csv", "y\"\n");
    run.finds(&["1,\"x\ny\""]);
    assert_eq!(run.reader.as_ref().and_then(|reader| reader.header()), Some(b"a,b".as_slice()));
    bench.append("b.csv", "a,b\n2,z\n");
    run.finds(&["2,z"]);
    run.restart();
    assert_eq!(run.reader.as_ref().and_then(|reader| reader.header()), Some(b"a,b".as_slice()));
    bench.append("c.csv", "b,a\n3,z\n");
    let reader = run.reader.as_mut().expect("runs");
    let error = loop {
        match reader.read(ReadLimit { records: 1, bytes: 1, until: None }, &mut RawBatch::default()) {
            Ok(state) => assert_eq!(state, ReadState::Idle),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "columns-changed");
    assert!(error.message().starts_with("in/c.csv: the columns are \"b,a\""), "{error}");
}

#[test]
fn what_is_kept_fulfils_the_duties_of_a_source() {
    let lines: String = (0..40).map(|line| format!("{{\"n\":{line}}}\n{}", ["", "\n", "no\n"][line % 3])).collect();
    let bench = Bench::new(&["*"], Format::Json);
    bench.append("a", &lines);
    bench.append("b", &lines);
    let mut run = Run::new(&bench);
    let count = 2 * lines.matches('\n').count();
    let mut found = Vec::new();
    read(&mut **run.reader.as_mut().expect("runs"), count, &mut found);
    run.stop();
    check_source(
        || Box::new(FormattedSource::values(Box::new(bench.source()), Format::Json, Fields::All)),
        0x00f0_110e,
    );
}

#[test]
fn a_recorded_run_is_read_as_it_was_and_nothing_is_added() {
    let bench = Bench::new(&["*.csv"], Format::Csv(CsvOptions::default()));
    bench.append("a.csv", "a\n1\n2\n");
    let mut run = Run::new(&bench);
    run.finds(&["1", "2"]);
    run.stop();
    bench.append("a.csv", "3\n");
    let topic = IngestTopic::recorded(bench.dir.path().join("log"), "input".to_owned());
    let source = FollowSource::new(topic, bench.dir.path(), bench.paths.clone(), &bench.format, MAX_RECORD_BYTES);
    let partition = source.discover(0).expect("discovers").remove(0);
    let mut reader = source.open(&partition, 0).expect("opens");
    assert_eq!(reader.header(), Some(b"a".as_slice()));
    let mut batch = RawBatch::default();
    let limit = ReadLimit { records: 10, bytes: 1 << 20, until: None };
    assert_eq!(reader.read(limit, &mut batch).expect("reads"), ReadState::End);
    assert_eq!(batch.records.len(), 2);
}

/// What is committed goes; what a restart needs to know of the files stays.
#[test]
fn the_topic_is_trimmed_behind_the_table_of_files() {
    let bench = Bench::new(&["*.log"], Format::Lines);
    let line = "x".repeat(9_000);
    let mut run = Run::new(&bench);
    bench.append("quiet.log", "q\n");
    run.finds(&["q"]);
    // More than the bytes after which a table is written, three times.
    let lines = 3 * (17 << 20) / line.len();
    let chunk = format!("{line}\n").repeat(100);
    for _ in 0..lines / 100 {
        bench.append("a.log", &chunk);
        let count = run.found.len() + 100;
        read(&mut **run.reader.as_mut().expect("runs"), count, &mut run.found);
        let source = run.source.as_ref().expect("runs");
        source.committed(PartitionId(0), run.found.len() as u64).expect("drops");
    }
    let (first, end) = bench.log.offsets("input", PartitionId(0)).expect("offsets");
    assert!(first > end / 3, "from {first} of {end} is kept");
    run.restart();
    bench.append("quiet.log", "r\n");
    run.finds(&["r"]);
    assert_eq!(run.losses(), 0);
}

/// Rotation of every kind between any two reads, with restarts from any mark: nothing twice, and nothing lost by renaming.
#[test]
fn any_rotation_between_any_reads() {
    let seed = Random::seed_for_tests();
    for round in 0..300 {
        let mut random = Random::at(seed, round);
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a");
        let open = |name: &str| {
            let file = fs::File::open(dir.path().join(name)).expect("opens");
            let id = FileId::of(&file.metadata().expect("is there"));
            Followed::new(id, name.to_owned(), file, Framing::of(&Format::Lines), 100)
        };
        let append = |path: &Path, text: &str| {
            let file = fs::OpenOptions::new().create(true).append(true).open(path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).expect("appends");
        };
        append(&path, "");
        let (mut file, mut records, mut written, mut expected) = (open("a"), Vec::new(), 0, Vec::new());
        let mut cuts = 0;
        for _ in 0..random.below(40) {
            match random.below(5) {
                0 | 1 => {
                    let text = format!("{written}:{}\n", "y".repeat(random.below(60) as usize));
                    let (first, second) = text.split_at(random.below(text.len() as u64) as usize);
                    append(&path, first);
                    file.read(&mut records).expect("reads");
                    append(&path, second);
                    expected.push(text.trim_end().to_owned());
                    written += 1;
                }
                2 => drop(file.read(&mut records).expect("reads")),
                3 => {
                    // A restart goes on behind the last mark.
                    let mark = file.mark();
                    file = open("a");
                    if let Some(mark) = mark {
                        assert!(file.resume(&mark).expect("looks"), "seed {seed}, round {round}");
                    }
                }
                _ => {
                    while file.read(&mut records).expect("reads") != Found::default() {}
                    let had_bytes = file.mark().is_some();
                    fs::write(&path, "").expect("cuts");
                    if random.below(2) == 0 {
                        // Found out by the first bytes alone.
                        let text = format!("{written}:{}", "z".repeat(90));
                        append(&path, &format!("{text}\n"));
                        expected.push(text);
                        written += 1;
                    }
                    let found = file.read(&mut records).expect("reads");
                    assert_eq!(found.cut_at.is_some(), had_bytes, "seed {seed}, round {round}: {expected:?}");
                    cuts += 1;
                }
            }
        }
        while file.read(&mut records).expect("reads") != Found::default() {}
        let found: Vec<String> = records
            .iter()
            .map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned())
            .collect();
        assert_eq!(found, expected, "seed {seed}, round {round}, {cuts} cuts");
    }
}

#[test]
fn the_last_line_of_a_file_that_is_over_is_a_record() {
    let bench = Bench::new(&["a"], Format::Lines);
    bench.append("a", "1\n2");
    let file = fs::File::open(bench.path("a")).expect("opens");
    let id = FileId::of(&file.metadata().expect("is there"));
    let mut file = Followed::new(id, "a".to_owned(), file, Framing::of(&Format::Lines), 100);
    let mut records = Vec::new();
    file.read(&mut records).expect("reads");
    assert_eq!((records.len(), file.mark().map(|mark| mark.position)), (1, Some(2)));
    file.finish(&mut records).expect("ends");
    assert_eq!((records.len(), file.mark().map(|mark| mark.position)), (2, Some(3)));
    file.finish(&mut records).expect("ends");
    assert_eq!(records.len(), 2);
}
