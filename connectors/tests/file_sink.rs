//! Files as a sink: the duties of every sink, and what is particular to files.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use thalweg_connectors::conformance::{SinkBench, check_sink};
use thalweg_connectors::{EncodedBatch, EncodedRecord, FileSink, OutFormat, Sink, SinkContext, SinkWriter};
use thalweg_core::{Epoch, Generation, JobId, PartitionId, Result};

const ONE: PartitionId = PartitionId(1);

struct Folder(tempfile::TempDir);

impl Folder {
    fn path(&self, partition: PartitionId) -> PathBuf {
        self.0.path().join(format!("out/part-{:05}.jsonl", partition.0))
    }
}

fn read(path: PathBuf) -> Vec<u8> {
    fs::read(path).unwrap_or_default()
}

/// Leaves no file where nothing of it is left, as a crash before its name was durable would.
fn tear(path: PathBuf, length: u64) -> bool {
    if length == 0 {
        return fs::remove_file(path).is_ok();
    }
    fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(length)).is_ok()
}

fn add_foreign(path: PathBuf) {
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(b"foreign\n"))
        .expect("appends");
}

impl SinkBench for Folder {
    fn sink(&self) -> Box<dyn Sink> {
        Box::new(FileSink::folder(self.0.path().join("out"), OutFormat::Json))
    }
    fn shown(&self, partition: PartitionId) -> Vec<u8> {
        read(self.path(partition))
    }
    fn tear(&self, partition: PartitionId, length: u64) -> bool {
        tear(self.path(partition), length)
    }
    fn add_foreign(&self, partition: PartitionId) {
        add_foreign(self.path(partition));
    }
    fn fresh() -> Self {
        Folder(tempfile::tempdir().expect("a folder"))
    }
}

struct Single(tempfile::TempDir);

impl Single {
    fn path(&self) -> PathBuf {
        self.0.path().join("out.csv")
    }
}

impl SinkBench for Single {
    fn sink(&self) -> Box<dyn Sink> {
        Box::new(FileSink::single_file(self.path(), OutFormat::Csv).header(["a", "b"]))
    }
    fn shown(&self, _: PartitionId) -> Vec<u8> {
        read(self.path())
    }
    fn tear(&self, _: PartitionId, length: u64) -> bool {
        tear(self.path(), length)
    }
    fn add_foreign(&self, _: PartitionId) {
        add_foreign(self.path());
    }
    fn fresh() -> Self {
        Single(tempfile::tempdir().expect("a folder"))
    }
}

#[test]
fn a_folder_fulfils_the_duties() {
    check_sink::<Folder>();
}

#[test]
fn a_single_file_fulfils_the_duties() {
    check_sink::<Single>();
}

fn context(job: u128, partitions: &[(PartitionId, u64)]) -> SinkContext {
    let (generation, checkpoint) = (Generation(1), Epoch(0));
    SinkContext { job_id: JobId(job), generation, checkpoint, partitions: partitions.to_vec() }
}

fn batch(lines: &[&str]) -> EncodedBatch {
    let mut batch = EncodedBatch::default();
    for line in lines {
        let start = batch.data.len();
        batch.data.extend_from_slice(line.as_bytes());
        batch.records.push(EncodedRecord { value: Some(start..batch.data.len()), ..EncodedRecord::default() });
    }
    batch
}

fn put(writer: &mut dyn SinkWriter, epoch: u64, partition: PartitionId, lines: &[&str]) -> Result<()> {
    writer.write(Epoch(epoch), partition, batch(lines))?;
    writer.end_epoch(Epoch(epoch))
}

#[test]
fn a_new_job_appends_to_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("part-00001.csv"), "old\n").expect("a file");
    fs::write(folder.path().join("notes.txt"), "not the sink's\n").expect("a file");
    let sink = FileSink::folder(folder.path(), OutFormat::Csv).header(["x, y"]);
    assert_eq!(sink.ends().expect("ends"), [(ONE, 4)]);
    let mut writer = sink.open(&context(1, &[(ONE, 4), (PartitionId(2), 0), (PartitionId(3), 0)])).expect("opens");
    put(&mut *writer, 1, ONE, &["1"]).expect("writes");
    put(&mut *writer, 2, PartitionId(2), &["2"]).expect("writes");
    assert_eq!(writer.sync().expect("syncs"), [(ONE, 6), (PartitionId(2), 9), (PartitionId(3), 0)]);
    let content = |name: &str| fs::read_to_string(folder.path().join(name)).expect(name);
    assert_eq!(content("part-00001.csv"), "old\n1\n");
    assert_eq!(content("part-00002.csv"), "\"x, y\"\n2\n");
    assert!(!folder.path().join("part-00003.csv").exists(), "a partition without records has no file");
}

#[test]
fn more_files_than_may_be_open_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = FileSink::folder(folder.path(), OutFormat::Lines);
    let partitions: Vec<_> = (0..400).map(|index| (PartitionId(index), 0)).collect();
    let mut writer = sink.open(&context(1, &partitions)).expect("opens");
    for epoch in 1..=3 {
        for (partition, _) in &partitions {
            writer.write(Epoch(epoch), *partition, batch(&[&format!("{epoch} of {partition}")])).expect("takes");
        }
        writer.end_epoch(Epoch(epoch)).expect("writes");
    }
    assert_eq!(sink.ends().expect("ends"), writer.sync().expect("syncs"));
    for (partition, _) in partitions {
        let content = fs::read_to_string(folder.path().join(format!("part-{:05}.txt", partition.0))).expect("a file");
        assert_eq!(content, format!("1 of {partition}\n2 of {partition}\n3 of {partition}\n"));
    }
}

#[test]
fn what_is_wrong_has_its_code() {
    let check = |setup: &dyn Fn(&std::path::Path), position: u64, code: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        fs::create_dir(&path).expect("a folder");
        setup(&path);
        let sink = FileSink::folder(&path, OutFormat::Json);
        let run = || -> Result<()> {
            let mut writer = sink.open(&context(1, &[(ONE, position)]))?;
            put(&mut *writer, 1, ONE, &["a", "b"])?;
            writer.replayed()
        };
        let error = run().expect_err(code);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains("part-00001.jsonl") || code == "not-a-file" || code == "io", "{error}");
    };
    let write = |content: &'static str| {
        move |path: &std::path::Path| fs::write(path.join("part-00001.jsonl"), content).expect("a file")
    };
    check(&write("a\n"), 3, "sink-lost-data");
    check(&write("old\na\nc\n"), 4, "sink-differs");
    check(&write("a\nb\nc\n"), 0, "sink-beyond-binding");
    check(&|path| fs::create_dir(path.join("part-00001.jsonl")).expect("a folder"), 0, "not-a-file");
    let blocked = |path: &std::path::Path| {
        fs::remove_dir(path).expect("removes");
        fs::write(path, "a file in the way").expect("a file");
    };
    check(&blocked, 0, "io");
}

#[test]
fn a_broken_writer_stays_broken_and_misuse_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = FileSink::single_file(folder.path().join("out.jsonl"), OutFormat::Json);
    let mut writer = sink.open(&context(1, &[(ONE, 0), (PartitionId(2), 0)])).expect("opens");
    put(&mut *writer, 2, PartitionId(2), &["a"]).expect("writes");
    assert_eq!(put(&mut *writer, 2, ONE, &["b"]).expect_err("out of order").code(), "sink-order");
    assert_eq!(put(&mut *writer, 1, ONE, &["b"]).expect_err("out of order").code(), "sink-order");
    let deletion = EncodedBatch { data: Vec::new(), records: vec![EncodedRecord::default()] };
    assert_eq!(writer.write(Epoch(3), ONE, deletion).expect_err("a deletion").code(), "sink-deletion");
    // Another job takes the file over.
    let mut other = sink.open(&context(2, &[(ONE, 2)])).expect("opens");
    assert_eq!(put(&mut *writer, 4, ONE, &["b"]).expect_err("is kept out").code(), "fenced");
    assert_eq!(writer.sync().expect_err("has failed").code(), "sink-broken");
    add_foreign(folder.path().join("out.jsonl"));
    assert_eq!(put(&mut *other, 1, ONE, &["c"]).expect_err("somebody writes").code(), "sink-changed");
}

#[test]
fn a_file_that_is_taken_away_is_missed() {
    let check = |take_away: &dyn Fn(&std::path::Path)| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.jsonl");
        let sink = FileSink::single_file(&path, OutFormat::Json);
        let mut writer = sink.open(&context(1, &[(ONE, 0)])).expect("opens");
        put(&mut *writer, 1, ONE, &["a"]).expect("writes");
        take_away(&path);
        assert_eq!(put(&mut *writer, 2, ONE, &["b"]).expect_err("misses it").code(), "sink-changed");
    };
    check(&|path| fs::remove_file(path).expect("removes"));
    check(&|path| fs::rename(path, path.with_extension("1")).expect("rotates"));
    check(&|path| fs::write(path, "").expect("cuts"));
    check(&|path| {
        fs::remove_file(path).expect("removes");
        fs::write(path, "a\n").expect("writes another");
    });
}
