//! Dead letters in a topic of Kafka: each once, with the bytes that were read and the headers that other tools know.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value as Json, json};
use thalweg_tests::kafka::{Broker, Isolation, Record};
use thalweg_tests::{Binary, Ended, Folder, Process, RunFlags, until};

/// Records of the input, of which every third is no JSON, and of the others every tenth fails in the operator.
const RECORDS: usize = 300;

/// A job that sets records aside into a topic, perhaps beside another job.
struct Aside {
    folder: Folder,
    input: String,
    output: String,
    letters: String,
    runs: u32,
}

/// The topic, the partition and the offset that a record was read at.
type Place = (String, String, String);

impl Aside {
    fn new(name: &str, letters: &str) -> Self {
        let aside = Self {
            folder: Folder::new(),
            input: Broker::unique("input"),
            output: Broker::unique("output"),
            letters: letters.to_owned(),
            runs: 0,
        };
        Broker::shared().client().create_topic(&aside.input, 2, &[]);
        let (bootstrap, Self { input, output, .. }) = (Broker::shared().bootstrap(), &aside);
        let toml = format!(
            r#"version = 1
[job]
name = "{name}"
partitions = 3
on_error = "dead-letter"
[job.epoch]
interval = "5ms"
[job.checkpoint]
interval = "50ms"
[kafka]
bootstrap_servers = "{bootstrap}"
[dead_letters]
connector = "kafka"
topic = "{letters}"
[sources.in]
connector = "kafka"
topic = "{input}"
[operators.shares]
uses = "map"
inputs = ["in"]
fields = {{ n = "n", share = "1000 / n" }}
[sinks.out]
connector = "kafka"
topic = "{output}"
partitions = 1
inputs = ["shares"]
"#
        );
        aside.folder.write("job.toml", toml);
        aside
    }

    fn start(&mut self) -> Process {
        self.runs += 1;
        let flags = RunFlags { workers: 2, http: true, ..RunFlags::new(self.folder.join("data")) };
        let log = self.folder.join(&format!("run-{}.log", self.runs));
        Process::start(&Binary::thalweg(), &self.folder.join("job.toml"), &flags, &log)
    }

    fn read(&self, topic: &str) -> Vec<Record> {
        let client = Broker::shared().client();
        if client.has_topic(topic) { client.read_all(topic, Isolation::ReadCommitted) } else { Vec::new() }
    }

    /// `dlq`, of the running job where it has an address.
    fn dlq(&self, words: &[&str], at: Option<&str>) -> Vec<Json> {
        let mut command = Command::new(Binary::thalweg().path());
        command.arg("dlq").args(words).args(["-o", "json"]);
        match at {
            Some(at) => command.args(["--addr", at]),
            None => command.arg("--data").arg(self.folder.join("data")),
        };
        let output = command.output().expect("the binary starts");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).expect("text");
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn is_bad(number: usize) -> bool {
    number.is_multiple_of(3)
}

fn fails(number: usize) -> bool {
    !is_bad(number) && number % 10 == 1
}

/// Record `number` of the input; keys and bad values are any bytes.
fn record(number: usize) -> Record {
    let partition = i32::try_from(number % 2).expect("small");
    let value = match (is_bad(number), fails(number)) {
        (true, _) => [b"no JSON \xff\x00 ", number.to_string().as_bytes()].concat(),
        (_, true) => b"{\"n\":0}".to_vec(),
        _ => format!("{{\"n\":{number}}}").into_bytes(),
    };
    let key = [&b"\xfe"[..], number.to_string().as_bytes()].concat();
    Record { key: number.is_multiple_of(2).then_some(key), ..Record::new(partition, "", value) }
}

fn header<'a>(record: &'a Record, name: &str) -> &'a str {
    let found = record.headers.iter().find(|(own, _)| own == name);
    let (_, value) = found.unwrap_or_else(|| panic!("{record:?} has no header {name:?}"));
    std::str::from_utf8(value.as_deref().expect("a value")).expect("text")
}

fn place(record: &Record, names: &str) -> Place {
    let part = |part: &str| header(record, &format!("{names}.{part}")).to_owned();
    (part("topic"), part("partition"), part("offset"))
}

/// Everything that is bad in the input is among the letters, once, with its bytes; what failed behind it is there as often.
fn check_letters(aside: &Aside) {
    let letters = aside.read(&aside.letters);
    let mut wanted: BTreeMap<Place, Record> = BTreeMap::new();
    for record in aside.read(&aside.input) {
        if record.value.as_deref().is_some_and(|value| value.starts_with(b"no JSON")) {
            let number = |part: Option<i64>| part.expect("it was read").to_string();
            let place = (aside.input.clone(), number(record.partition.map(i64::from)), number(record.offset));
            wanted.insert(place, record);
        }
    }
    let (of_source, of_operator): (Vec<_>, Vec<_>) =
        letters.iter().partition(|letter| letter.headers.iter().any(|(name, _)| name == "thalweg.source"));
    for letter in &of_source {
        let found = wanted.remove(&place(letter, "__streams.errors")).expect("a bad record that is there once");
        assert_eq!((&letter.key, &letter.value), (&found.key, &found.value));
        assert_eq!(place(letter, "__connect.errors"), place(letter, "__streams.errors"));
        for (name, value) in [
            ("__streams.errors.exception", "bad-record"),
            ("__connect.errors.exception.class.name", "bad-record"),
            ("__connect.errors.connector.name", "aside"),
            ("thalweg.source", "in"),
        ] {
            assert_eq!(header(letter, name), value);
        }
        assert!(header(letter, "__connect.errors.exception.message").contains("not a JSON object"), "{letter:?}");
    }
    assert!(wanted.is_empty(), "not set aside: {wanted:?}");
    assert_eq!(of_operator.len(), (0..RECORDS).filter(|number| fails(*number)).count());
    for letter in of_operator {
        assert_eq!((header(letter, "thalweg.operator"), letter.value.as_deref()), ("shares", Some(&b"{\"n\":0}"[..])));
    }
    let good = (0..RECORDS).filter(|number| !is_bad(*number) && !fails(*number));
    let rows = aside.read(&aside.output);
    let rows: BTreeSet<Vec<u8>> = rows.into_iter().map(|record| record.value.expect("a value")).collect();
    assert_eq!(rows, good.map(|n| format!("{{\"n\":{n},\"share\":{}}}", 1000 / n).into_bytes()).collect());
}

#[test]
fn dead_letters_in_kafka_are_there_once_and_decided_on() {
    let mut aside = Aside::new("aside", &Broker::unique("letters"));
    let client = Broker::shared().client();
    let bad = (0..RECORDS).filter(|number| is_bad(*number) || fails(*number)).count();
    let mut process = aside.start();
    for part in 0..3 {
        let numbers = part * RECORDS / 3..(part + 1) * RECORDS / 3;
        let behind = aside.read(&aside.letters).len();
        client.write(&aside.input, &numbers.map(record).collect::<Vec<_>>());
        until("some of them are set aside", || aside.read(&aside.letters).len() > behind);
        process.kill();
        process = aside.start();
    }
    until("all of them are set aside", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        aside.read(&aside.letters).len() >= bad && aside.read(&aside.output).len() >= RECORDS - bad
    });
    check_letters(&aside);
    // Another job has its letters in the same topic, and each sees its own.
    let mut other = Aside::new("other", &aside.letters);
    client.write(&other.input, &[record(0)]);
    let mut second = other.start();
    let other_at = second.address().expect("it serves").to_string();
    until("the letter of the other job", || other.dlq(&["ls", "other"], Some(&other_at)).len() == 1);
    let at = process.address().expect("it serves").to_string();
    let listed = |at: Option<&str>| -> Vec<u64> {
        let lines = aside.dlq(&["ls", "aside", "--limit", "1000"], at);
        lines.iter().map(|letter| letter["offset"].as_u64().expect("an offset")).collect()
    };
    let all = listed(Some(&at));
    assert_eq!(all.len(), bad);
    let of_source = aside.dlq(&["ls", "aside", "--node", "in", "--limit", "2"], Some(&at));
    let offsets: Vec<String> = of_source.iter().map(|letter| letter["offset"].to_string()).collect();
    let shown = aside.dlq(&["show", "aside", &offsets[0]], Some(&at));
    assert_eq!(shown[0]["read_at"]["topic"], json!(aside.input));
    // What is retried fails again, and is a new letter; what is dropped is listed no more.
    assert_eq!(aside.dlq(&["retry", "aside", &offsets[0]], Some(&at)), [json!({ "retried": 1, "left": 0 })]);
    until("it has failed again", || listed(Some(&at)).last() > all.last());
    assert_eq!(aside.dlq(&["drop", "aside", &offsets[1]], Some(&at)), [json!({ "dropped": 1, "left": 0 })]);
    second.interrupt();
    process.interrupt();
    assert_eq!((process.wait(), second.wait()), (Ended::Code(0), Ended::Code(0)));
    // The same of a job that does not run.
    assert_eq!(listed(None).len(), bad - 1);
    let failed = (0..RECORDS).filter(|number| fails(*number)).count();
    let retried = aside.dlq(&["retry", "aside", "--all"], None);
    assert_eq!(retried, [json!({ "retried": bad - failed - 1, "left": failed })]);
    assert_eq!(aside.dlq(&["drop", "aside", "--all"], None), [json!({ "dropped": failed, "left": 0 })]);
    assert_eq!(listed(None), Vec::<u64>::new());
    assert_eq!(other.dlq(&["ls", "other"], None).len(), 1);
}
