//! Clients of other people that are no Java: kcat, and Python's confluent-kafka.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};

use super::client::Record;
use super::program;

/// Debian's own: its packages are not seen by another Python that may come before it.
const PYTHON: &str = "/usr/bin/python3";
const ADVICE: &str = "run scripts/setup --tests, which installs it";
/// Between two records that kcat prints: nothing that stands in one.
const END: &str = "<end of record>\n";

/// Clients for one cluster.
#[derive(Clone, Debug)]
pub struct Others {
    bootstrap: String,
}

/// What a transactional producer does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes a record.
    Write(Record),
    /// Ends its transaction, and begins another one.
    Commit,
    /// Takes back what it has written since the last end.
    Abort,
}

/// A record as kcat prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Nothing for a record without one.
    pub key: Option<Vec<u8>>,
    /// Nothing for a tombstone.
    pub value: Option<Vec<u8>>,
    /// `name=value`, with commas between; a value ends at its first zero byte.
    pub headers: Vec<u8>,
}

impl Others {
    pub(super) fn new(bootstrap: String) -> Self {
        Self { bootstrap }
    }

    /// Writes lines `key:value` by kcat; a value of no length is a tombstone. All get the same headers, `name=value`.
    pub fn kcat_writes(&self, topic: &str, lines: &[&str], headers: &[&str], settings: &[(&str, &str)]) {
        let mut arguments: Vec<String> = ["-P", "-Z", "-K", ":", "-t", topic].map(str::to_owned).to_vec();
        arguments.extend(headers.iter().flat_map(|header| ["-H".to_owned(), (*header).to_owned()]));
        for (name, value) in settings {
            arguments.extend(["-X".to_owned(), format!("{name}={value}")]);
        }
        let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.kcat(&arguments, &input);
    }

    /// All committed records of a topic by kcat, by partition and offset.
    pub fn kcat_reads(&self, topic: &str) -> Vec<Printed> {
        let format = format!("%p\\t%o\\t%T\\t%K\\t%k\\t%S\\t%s\\t%h{}", END.replace('\n', "\\n"));
        let arguments =
            ["-C", "-e", "-q", "-o", "beginning", "-X", "isolation.level=read_committed", "-t", topic, "-f"];
        let arguments: Vec<String> = arguments.into_iter().chain([format.as_str()]).map(str::to_owned).collect();
        let out = self.kcat(&arguments, "");
        let mut records = Vec::new();
        let mut rest = &out[..];
        while let Some(end) = rest.windows(END.len()).position(|bytes| bytes == END.as_bytes()) {
            records.push(printed(&rest[..end]).unwrap_or_else(|| panic!("kcat printed {:?}", &rest[..end])));
            rest = &rest[end + END.len()..];
        }
        assert!(rest.is_empty(), "kcat ended in {rest:?}");
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    fn kcat(&self, arguments: &[String], input: &str) -> Vec<u8> {
        let mut command = Command::new("kcat");
        command.args(["-b", &self.bootstrap]).args(arguments);
        let said = program::run(command, input.as_bytes(), ADVICE);
        assert!(said.succeeded, "kcat {arguments:?}: {}", said.err);
        said.out
    }

    /// Writes records by Python, and waits until the broker has them; `settings` are librdkafka's.
    pub fn python_writes(&self, topic: &str, steps: &[Step], settings: &[(&str, &str)]) {
        let line = |step: &Step| match step {
            Step::Commit => json!({ "commit": true }),
            Step::Abort => json!({ "abort": true }),
            Step::Write(record) => json!({
                "partition": record.partition,
                "timestamp": record.timestamp,
                "key": record.key.as_deref().map(hex),
                "value": record.value.as_deref().map(hex),
                "headers": record.headers.iter().map(|(name, value)| (name, value.as_deref().map(hex))).collect::<Vec<_>>(),
            }),
        };
        let input: String = steps.iter().map(|step| format!("{}\n", line(step))).collect();
        let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        self.python("write", &[&[topic], &settings[..]].concat(), &input);
    }

    /// All committed records of a topic by Python, by partition and offset.
    pub fn python_reads(&self, topic: &str) -> Vec<Record> {
        self.python("read", &[topic], "").iter().map(record).collect()
    }

    /// What a consumer group has committed in a topic, by partition, as Python sees it.
    pub fn python_sees_positions(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let said = self.python("positions", &[group, topic], "");
        let positions = said.first().and_then(Json::as_object).expect("one object");
        let position = |(partition, offset): (&String, &Json)| {
            (partition.parse().expect("a partition"), offset.as_i64().expect("an offset"))
        };
        positions.iter().map(position).collect()
    }

    /// What the program `tests/kafka/client.py` says.
    fn python(&self, what: &str, arguments: &[&str], input: &str) -> Vec<Json> {
        let mut command = Command::new(PYTHON);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/client.py"));
        command.args([what, &self.bootstrap]).args(arguments);
        let said = program::run(command, input.as_bytes(), ADVICE);
        let advice = if said.err.contains("No module named") { ADVICE } else { "" };
        assert!(said.succeeded, "{PYTHON} {what} {arguments:?}: {}{advice}", said.err);
        let out = String::from_utf8(said.out).expect("it prints JSON");
        out.lines().map(|line| serde_json::from_str(line).expect("it prints JSON")).collect()
    }
}

fn printed(bytes: &[u8]) -> Option<Printed> {
    let mut parts = bytes.splitn(8, |byte| *byte == b'\t');
    let mut next = || parts.next();
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<i64>().ok();
    let partition = i32::try_from(number(next()?)?).ok()?;
    let (offset, timestamp) = (number(next()?)?, number(next()?)?);
    // A length below 0 says that there is nothing.
    let (key_length, key) = (number(next()?)?, next()?.to_vec());
    let (value_length, value) = (number(next()?)?, next()?.to_vec());
    let (key, value) = ((key_length >= 0).then_some(key), (value_length >= 0).then_some(value));
    Some(Printed { partition, offset, timestamp, key, value, headers: next()?.to_vec() })
}

fn record(line: &Json) -> Record {
    let number = |name: &str| line[name].as_i64().unwrap_or_else(|| panic!("no {name} in {line}"));
    let header = |pair: &Json| (pair[0].as_str().expect("a name").to_owned(), bytes(&pair[1]));
    Record {
        partition: i32::try_from(number("partition")).ok(),
        offset: Some(number("offset")),
        timestamp: Some(number("timestamp")),
        key: bytes(&line["key"]),
        value: bytes(&line["value"]),
        headers: line["headers"].as_array().expect("a list").iter().map(header).collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &Json) -> Option<Vec<u8>> {
    let digits = text.as_str()?.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hexadecimal digits");
        u8::from_str_radix(pair, 16).expect("hexadecimal digits")
    };
    Some(digits.map(byte).collect())
}
