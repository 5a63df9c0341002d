//! Kafka: a broker that the tests start, and what goes through it.

use std::process::{Command, Stdio};

use thalweg_tests::kafka::{Broker, BrokerSettings, Isolation, ReadRecord, Tools, WrittenRecord};
use thalweg_tests::until;

/// Writes records of every form and checks that they are read as they were written.
fn check_records_pass(tools: &Tools, topic: &str) {
    let written = [
        WrittenRecord::new("a", "1").header("trace", "x").header("trace", "y"),
        WrittenRecord::new("b", "2"),
        WrittenRecord::tombstone("a"),
        WrittenRecord { value: Some("no key".to_owned()), ..WrittenRecord::default() },
    ];
    tools.write(topic, &written, &[("compression.type", "zstd")]);
    let read = tools.read(topic, Isolation::ReadCommitted, written.len());
    let mut read: Vec<WrittenRecord> = read.into_iter().map(as_written).collect();
    let mut written = written.to_vec();
    // Keys are spread over partitions: the order is that of each key.
    read.sort_by(|a, b| a.key.cmp(&b.key));
    written.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(read, written);
}

fn as_written(record: ReadRecord) -> WrittenRecord {
    WrittenRecord { key: record.key, value: record.value, headers: record.headers }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<WrittenRecord> {
    range.map(|number| WrittenRecord::new(&number.to_string(), "v")).collect()
}

#[test]
fn records_go_in_and_come_out_of_the_shared_broker() {
    let (tools, topic) = (Broker::shared().tools(), Broker::unique("records"));
    tools.create_topic(&topic, 2, &[("min.insync.replicas", "1")]);
    check_records_pass(&tools, &topic);
    assert_eq!(tools.end_offsets(&topic).values().sum::<i64>(), 4);
    assert!(tools.describe_topic(&topic).contains("min.insync.replicas=1"));
}

#[test]
fn aborted_transactions_are_hidden_from_a_committed_reader_alone() {
    let (tools, from, to) = (Broker::shared().tools(), Broker::unique("from"), Broker::unique("to"));
    tools.create_topic(&from, 1, &[]);
    tools.create_topic(&to, 1, &[]);
    let written = numbers(0..200);
    tools.write(&from, &written, &[]);
    tools.copy_in_transactions((&from, 0), &to, &to, 5, true);
    let read = |isolation, records| tools.read(&to, isolation, records).into_iter().map(as_written);
    assert_eq!(read(Isolation::ReadCommitted, written.len()).collect::<Vec<_>>(), written);
    // Of 40 transactions some were aborted; their records come again.
    let all = tools.end_offsets(&to)[&0];
    assert!(all > 200 + 40, "{all} offsets");
    let group = tools.group_positions(&to);
    assert_eq!(group[&(from, 0)].position, 200);
}

#[test]
fn what_a_broker_has_taken_is_there_after_a_kill_a_stop_and_a_pause() {
    let mut broker = Broker::start(&BrokerSettings::new().with("log.flush.interval.messages", 1));
    let tools = broker.tools();
    tools.create_topic("kept", 1, &[]);
    tools.write("kept", &numbers(0..3), &[]);
    broker.kill();
    broker.start_again();
    tools.write("kept", &numbers(3..5), &[]);
    broker.stop();
    broker.start_again();
    broker.pause();
    broker.resume();
    let read: Vec<_> = tools.read("kept", Isolation::ReadUncommitted, 5).into_iter().map(as_written).collect();
    assert_eq!(read, numbers(0..5));
}

#[test]
fn a_secured_broker_asks_for_tls_and_a_password() {
    let broker = Broker::start(&BrokerSettings::new().secured());
    let tools = broker.secured_tools();
    tools.create_topic("secret", 1, &[]);
    check_records_pass(&tools, "secret");
}

#[test]
fn a_broker_with_a_setting_that_does_not_exist_is_shown_with_its_log() {
    let settings = BrokerSettings::new().with("log.cleaner.threads", "many");
    let failure = std::panic::catch_unwind(|| Broker::start(&settings)).err().expect("it cannot start");
    let message = failure.downcast_ref::<String>().expect("a message");
    assert!(message.contains("Invalid value many for configuration log.cleaner.threads"), "{message}");
}

/// The other half of the test below: prints where its broker listens, and waits to be killed.
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
