//! Kafka's own programs: what a client that is not ours writes, reads and shows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::installation::Installation;
use super::program;
use super::records::{Isolation, NULL, ReadRecord, WrittenRecord};

/// A topic is read to its end when nothing came for so long.
const QUIET: Duration = Duration::from_secs(5);

/// Programs for one cluster. Each call starts a JVM, which takes about a second.
#[derive(Clone, Debug)]
pub struct Tools {
    bootstrap: String,
    properties: Option<PathBuf>,
}

/// How far a consumer group is in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    /// The offset of the record that is read next.
    pub position: i64,
    /// The offset behind the last record.
    pub end: i64,
}

/// What a program said.
struct Said {
    out: String,
    err: String,
    succeeded: bool,
}

impl Tools {
    /// For a cluster without passwords.
    pub(super) fn new(bootstrap: String) -> Self {
        Self { bootstrap, properties: None }
    }

    /// For clients with a file of properties.
    pub(super) fn with_properties(bootstrap: String, properties: PathBuf) -> Self {
        Self { bootstrap, properties: Some(properties) }
    }

    /// Makes a topic with as many replicas as the broker's default says.
    pub fn create_topic(&self, topic: &str, partitions: u32, config: &[(&str, &str)]) {
        let mut arguments = strings(&["--create", "--topic", topic, "--partitions", &partitions.to_string()]);
        arguments.extend(config.iter().flat_map(|(name, value)| ["--config".to_owned(), format!("{name}={value}")]));
        self.succeed(TOPICS, &arguments, "");
    }

    /// Gives a topic more partitions.
    pub fn add_partitions(&self, topic: &str, partitions: u32) {
        self.succeed(TOPICS, &strings(&["--alter", "--topic", topic, "--partitions", &partitions.to_string()]), "");
    }

    /// Lets a user do something, where the broker has an authorizer: `rights` as the program for access lists takes them.
    pub fn allow(&self, user: &str, rights: &[&str]) {
        let mut arguments = strings(&["--add", "--force", "--allow-principal", &format!("User:{user}")]);
        arguments.extend(strings(rights));
        self.succeed(ACLS, &arguments, "");
    }

    /// The ids of all transactional producers that the cluster knows.
    pub fn transactional_ids(&self) -> BTreeSet<String> {
        let out = self.succeed(TRANSACTIONS, &strings(&["list"]), "");
        let rows = out.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        rows.map(str::to_owned).collect()
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, topic: &str) {
        self.succeed(TOPICS, &strings(&["--delete", "--topic", topic]), "");
    }

    /// What the program for topics shows of one: partitions, replicas, settings.
    pub fn describe_topic(&self, topic: &str) -> String {
        self.succeed(TOPICS, &strings(&["--describe", "--topic", topic]), "")
    }

    /// Writes records, and waits until the broker has them. `settings` are the producer's: `("compression.type", "zstd")`.
    pub fn write(&self, topic: &str, records: &[WrittenRecord], settings: &[(&str, &str)]) {
        let marker = format!("null.marker={NULL}");
        let mut arguments = strings(&["--topic", topic]);
        for property in ["parse.key=true", "parse.headers=true", &marker] {
            arguments.extend(strings(&["--reader-property", property]));
        }
        for (name, value) in settings {
            arguments.extend(["--command-property".to_owned(), format!("{name}={value}")]);
        }
        let said = self.run(PRODUCER, &arguments, &records.iter().map(WrittenRecord::line).collect::<String>());
        // It ends well also where a record was refused; then it has said so.
        let refused = ["ERROR", "Error", "Exception"].iter().any(|word| said.err.contains(word));
        assert!(said.succeeded && !refused, "records for {topic} were refused:\n{}{}", said.out, said.err);
    }

    /// Copies the records of a partition with Kafka's own transactional producer, so many in a transaction; each transaction
    /// commits or, where `aborts`, some are aborted first and done again.
    pub fn copy_in_transactions(&self, from: (&str, i32), to: &str, id: &str, size: u32, aborts: bool) {
        let (partition, size) = (from.1.to_string(), size.to_string());
        let mut arguments = strings(&["--broker-list", &self.bootstrap, "--input-topic", from.0]);
        arguments.extend(strings(&["--input-partition", &partition, "--output-topic", to, "--transactional-id", id]));
        arguments.extend(strings(&["--consumer-group", id, "--transaction-size", &size]));
        arguments.extend(aborts.then(|| "--enable-random-aborts".to_owned()));
        let said = self.run_as_it_is(COPIER, &arguments, "");
        assert!(said.succeeded, "{COPIER} failed:\n{}{}", said.out, said.err);
    }

    /// Reads so many records from the beginning, in the order of partitions and offsets.
    ///
    /// Panics where fewer come. That there are not more, only [`read_all`](Self::read_all) says.
    pub fn read(&self, topic: &str, isolation: Isolation, records: usize) -> Vec<ReadRecord> {
        let limit = program::LIMIT.as_millis().to_string();
        let end = strings(&["--max-messages", &records.to_string(), "--timeout-ms", &limit]);
        let read = self.read_until(topic, isolation, &end);
        assert_eq!(read.len(), records, "{topic}: the records before the time was over: {read:?}");
        read
    }

    /// Reads all records from the beginning, in the order of partitions and offsets: until none comes for five seconds.
    pub fn read_all(&self, topic: &str, isolation: Isolation) -> Vec<ReadRecord> {
        self.read_until(topic, isolation, &strings(&["--timeout-ms", &QUIET.as_millis().to_string()]))
    }

    fn read_until(&self, topic: &str, isolation: Isolation, end: &[String]) -> Vec<ReadRecord> {
        let null = format!("null.literal={NULL}");
        let mut arguments = strings(&["--topic", topic, "--from-beginning", "--isolation-level", isolation.as_str()]);
        let shown = ["print.timestamp=true", "print.partition=true", "print.offset=true", "print.headers=true"];
        for property in shown.into_iter().chain(["print.key=true", &null]) {
            arguments.extend(strings(&["--formatter-property", property]));
        }
        arguments.extend_from_slice(end);
        let said = self.run(CONSUMER, &arguments, "");
        let record = |line| ReadRecord::parse(line).unwrap_or_else(|| panic!("{CONSUMER} printed {line:?}"));
        let mut read: Vec<ReadRecord> = said.out.lines().map(record).collect();
        let counted = format!("Processed a total of {} messages", read.len());
        assert!(said.err.contains(&counted), "{topic} could not be read; {} records and:\n{}", read.len(), said.err);
        read.sort();
        read
    }

    /// The offset behind the last record of each partition, markers of transactions counted.
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        let out = self.succeed(OFFSETS, &strings(&["--topic", topic]), "");
        let partition = |line: &str| {
            let (rest, offset) = line.rsplit_once(':')?;
            Some((rest.rsplit_once(':')?.1.parse().ok()?, offset.parse().ok()?))
        };
        let lines = out.lines().map(|line| partition(line).unwrap_or_else(|| panic!("{OFFSETS} printed {line:?}")));
        lines.collect()
    }

    /// How far a consumer group is, by topic and partition, as the usual tool for lag shows it.
    pub fn group_positions(&self, group: &str) -> BTreeMap<(String, i32), GroupPosition> {
        let out = self.succeed(GROUPS, &strings(&["--describe", "--group", group]), "");
        let position = |line: &str| {
            let mut columns = line.split_whitespace().skip(1);
            let mut next = || columns.next();
            let key = (next()?.to_owned(), next()?.parse().ok()?);
            Some((key, GroupPosition { position: next()?.parse().ok()?, end: next()?.parse().ok()? }))
        };
        // The head of the table and partitions without a position are no positions.
        out.lines().filter_map(position).collect()
    }

    fn succeed(&self, class: &str, arguments: &[String], input: &str) -> String {
        let said = self.run(class, arguments, input);
        assert!(said.succeeded, "{class} {arguments:?} failed:\n{}{}", said.out, said.err);
        said.out
    }

    fn run(&self, class: &str, arguments: &[String], input: &str) -> Said {
        let mut all = strings(&["--bootstrap-server", &self.bootstrap]);
        all.extend(self.properties.iter().flat_map(|path| strings(&["--command-config", &path.display().to_string()])));
        all.extend_from_slice(arguments);
        self.run_as_it_is(class, &all, input)
    }

    fn run_as_it_is(&self, class: &str, arguments: &[String], input: &str) -> Said {
        let mut command = Installation::get().java(class, "warn");
        command.args(arguments);
        program::run(command, input.as_bytes(), "see scripts/setup --tests").into()
    }
}

impl From<program::Said> for Said {
    fn from(said: program::Said) -> Self {
        Self { out: String::from_utf8_lossy(&said.out).into_owned(), err: said.err, succeeded: said.succeeded }
    }
}

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const ACLS: &str = "org.apache.kafka.tools.AclCommand";
const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";
const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
const COPIER: &str = "org.apache.kafka.tools.TransactionalMessageCopier";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
