//! Kafka: a broker that the tests start, and what goes through it.

#[path = "kafka/backfill.rs"]
mod backfill;
#[path = "kafka/dead_letters.rs"]
mod dead_letters;
#[path = "kafka/exactness.rs"]
mod exactness;
#[path = "kafka/example.rs"]
mod example;
#[path = "kafka/faults.rs"]
mod faults;
#[path = "kafka/growth.rs"]
mod growth;
#[path = "kafka/invariants.rs"]
mod invariants;
#[path = "kafka/job.rs"]
mod job;
#[path = "kafka/log.rs"]
mod log;
#[path = "kafka/others.rs"]
mod others;
#[path = "kafka/rights.rs"]
mod rights;
#[path = "kafka/rust.rs"]
mod rust;
#[path = "kafka/schemas.rs"]
mod schemas;
#[path = "kafka/simulated.rs"]
mod simulated;
#[path = "kafka/source.rs"]
mod source;
#[path = "kafka/surroundings.rs"]
mod surroundings;

use std::process::{Command, Stdio};

use thalweg_tests::kafka::{Broker, BrokerSettings, Client, Isolation, ReadRecord, Record, Tools, WrittenRecord};
use thalweg_tests::until;

/// What Kafka's own consumer should print of a record.
fn printed(record: &Record) -> ReadRecord {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).expect("the records of these tests are text");
    let header = |(name, value): &(String, Option<Vec<u8>>)| (name.clone(), value.as_ref().map(text).expect("a value"));
    ReadRecord {
        partition: record.partition.expect("it was read"),
        offset: record.offset.expect("it was read"),
        timestamp: record.timestamp.expect("it was read"),
        key: record.key.as_ref().map(text),
        value: record.value.as_ref().map(text),
        headers: record.headers.iter().map(header).collect(),
    }
}

/// Writes records of every form with both clients, and checks that each reads what the other wrote.
fn check_records_pass(client: &Client, tools: &Tools, topic: &str) {
    client.create_topic(topic, 2, &[("message.timestamp.after.max.ms", "9223372036854775807")]);
    let ours = [
        Record::new(1, "a", "1").at(1_000_000_000_123).header("trace", "x").header("trace", "y"),
        Record { value: None, ..Record::new(0, "a", "").at(2_000_000_000_456) },
        Record { key: None, ..Record::new(1, "", "no key").at(3) },
    ];
    client.write(topic, &ours);
    let javas = [
        WrittenRecord::new("b", "2").header("from", "java"),
        WrittenRecord::tombstone("a"),
        WrittenRecord { value: Some("no key".to_owned()), ..WrittenRecord::default() },
    ];
    tools.write(topic, &javas, &[("compression.type", "zstd")]);
    let read = client.read_all(topic, Isolation::ReadCommitted);
    for record in &ours {
        let written = |read: &Record| Record { offset: None, ..read.clone() } == *record;
        assert!(read.iter().any(written), "{record:?} is not in {read:?}");
    }
    let both = ours.len() + javas.len();
    assert_eq!(read.len(), both);
    assert_eq!(read.iter().map(printed).collect::<Vec<_>>(), tools.read(topic, Isolation::ReadCommitted, both));
    for java in javas {
        let written = |read: &Record| {
            let ReadRecord { key, value, headers, .. } = printed(read);
            WrittenRecord { key, value, headers } == java
        };
        assert!(read.iter().any(written), "{java:?} is not in {read:?}");
    }
    let ends: Vec<i64> = client.offsets(topic).values().map(|(_, end)| *end).collect();
    assert_eq!(ends.iter().sum::<i64>(), i64::try_from(both).expect("few records"));
}

fn numbers(range: std::ops::Range<u32>) -> Vec<Record> {
    range.map(|number| Record::new(0, number.to_string(), "v")).collect()
}

fn keys(records: &[Record]) -> Vec<&[u8]> {
    records.iter().map(|record| record.key.as_deref().expect("a key")).collect()
}

#[test]
fn records_pass_between_two_clients_and_the_shared_broker() {
    let broker = Broker::shared();
    check_records_pass(&broker.client(), &broker.tools(), &Broker::unique("records"));
}

#[test]
fn a_secured_broker_takes_the_same_with_tls_and_a_password() {
    let broker = Broker::start(&BrokerSettings::new().secured());
    check_records_pass(&broker.secured_client(), &broker.secured_tools(), "secret");
}

#[test]
fn a_committed_reader_sees_neither_aborted_nor_open_transactions() {
    let (client, topic) = (Broker::shared().client(), Broker::unique("transactions"));
    client.create_topic(&topic, 1, &[]);
    let writer = client.producer(Some(&topic), &[]);
    for (records, committed) in [(numbers(0..3), true), (numbers(3..5), false), (numbers(5..6), true)] {
        writer.begin();
        writer.write(&topic, &records);
        if committed {
            writer.commit().expect("nobody else has this id");
        } else {
            writer.abort();
        }
    }
    writer.begin();
    writer.write(&topic, &numbers(6..7));
    let read = |isolation| client.read_all(&topic, isolation);
    assert_eq!(keys(&read(Isolation::ReadCommitted)), keys(&[numbers(0..3), numbers(5..6)].concat()));
    assert_eq!(keys(&read(Isolation::ReadUncommitted)), keys(&numbers(0..7)));
    // Another producer of this id fences the first.
    let _second = client.producer(Some(&topic), &[]);
    assert!(writer.commit().is_err());
    assert_eq!(keys(&read(Isolation::ReadCommitted)), keys(&[numbers(0..3), numbers(5..6)].concat()));
}

#[test]
fn javas_transactions_are_read_as_java_reads_them() {
    let (broker, from, to) = (Broker::shared(), Broker::unique("from"), Broker::unique("to"));
    let (client, tools) = (broker.client(), broker.tools());
    [&from, &to].into_iter().for_each(|topic| client.create_topic(topic, 1, &[]));
    client.write(&from, &numbers(0..100));
    tools.copy_in_transactions((&from, 0), &to, &to, 5, true);
    let committed = client.read_all(&to, Isolation::ReadCommitted);
    assert_eq!(keys(&committed), keys(&numbers(0..100)));
    let printed: Vec<_> = committed.iter().map(printed).collect();
    assert_eq!(tools.read_all(&to, Isolation::ReadCommitted), printed);
    assert_eq!(client.group_positions(&to, &from)[&0], 100);
    assert_eq!(tools.group_positions(&to)[&(from, 0)].position, 100);
    assert_eq!(tools.end_offsets(&to)[&0], client.offsets(&to)[&0].1);
}

#[test]
fn topics_grow_shrink_and_go() {
    let (client, topic) = (Broker::shared().client(), Broker::unique("topics"));
    client.create_topic(&topic, 1, &[]);
    client.write(&topic, &numbers(0..4));
    client.delete_records(&topic, 0, 3);
    assert_eq!(client.offsets(&topic)[&0], (3, 4));
    client.add_partitions(&topic, 2);
    until("the second partition", || client.offsets(&topic).len() == 2);
    client.write(&topic, &[Record::new(1, "far", "v")]);
    assert_eq!(keys(&client.read_all(&topic, Isolation::ReadCommitted)), [&b"3"[..], b"far"]);
    client.delete_topic(&topic);
    client.create_topic(&topic, 1, &[]);
    until("the new, empty topic", || client.offsets(&topic).into_iter().eq([(0, (0, 0))]));
}

#[test]
fn a_record_that_is_refused_is_an_error() {
    let (client, topic) = (Broker::shared().client(), Broker::unique("refused"));
    client.create_topic(&topic, 1, &[("max.message.bytes", "1000")]);
    let large = Record::new(0, "large", vec![0; 2_000]);
    let refused = client.producer(None, &[]).try_write(&topic, &[large]).expect_err("it is too large");
    assert!(refused.to_string().contains("Message size too large"), "{refused}");
}

#[test]
fn what_a_broker_has_taken_is_there_after_a_kill_a_stop_and_a_pause() {
    let mut broker = Broker::start(&BrokerSettings::new());
    let client = broker.client();
    client.create_topic("kept", 1, &[]);
    client.write("kept", &numbers(0..3));
    broker.kill();
    assert!(!broker.answers());
    broker.start_again();
    client.write("kept", &numbers(3..5));
    broker.stop();
    broker.start_again();
    broker.pause();
    assert!(!broker.answers());
    broker.resume();
    assert!(broker.answers());
    client.write("kept", &numbers(5..6));
    assert_eq!(keys(&client.read_all("kept", Isolation::ReadCommitted)), keys(&numbers(0..6)));
}

#[test]
fn a_broker_that_does_not_start_is_shown_with_its_log() {
    let settings = BrokerSettings::new().with("log.cleaner.threads", "many");
    let failure = std::panic::catch_unwind(|| Broker::start(&settings)).err().expect("it cannot start");
    let message = failure.downcast_ref::<String>().expect("a message");
    assert!(message.contains("Invalid value many for configuration log.cleaner.threads"), "{message}");
}

/// The other half of the test below: says where its broker listens, and waits to be killed.
const PARENT: &str = "THALWEG_BROKER_PARENT";

#[test]
fn a_broker_ends_with_the_process_that_started_it() {
    if std::env::var_os(PARENT).is_some() {
        println!("at {}", Broker::shared().bootstrap());
        std::io::stdin().read_line(&mut String::new()).expect("an open pipe");
        return;
    }
    let name = "a_broker_ends_with_the_process_that_started_it";
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own path"));
    command.args([name, "--exact", "--nocapture"]).env(PARENT, "1").stdin(Stdio::piped());
    let output = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut parent = command.stdout(output.reopen().expect("a temporary file")).spawn().expect("this test again");
    let mut address = None;
    until("a broker of the other process", || {
        let text = std::fs::read_to_string(output.path()).expect("a temporary file");
        address = text.split_once("at ").and_then(|(_, rest)| Some(rest.split_once('\n')?.0.to_owned()));
        address.is_some()
    });
    let address = address.expect("it was waited for");
    std::net::TcpStream::connect(&address).expect("the broker listens");
    parent.kill().expect("a child that runs can be killed");
    parent.wait().expect("a child can be waited for");
    until("the end of the broker", || std::net::TcpStream::connect(&address).is_err());
}
