//! Bad surroundings: each is one clear error, and once the cause is mended the job goes on to the exact result.

use std::net::TcpListener;
use std::time::Duration;

use thalweg_tests::kafka::{Broker, BrokerSettings};
use thalweg_tests::{Ended, Process, until};

use super::job::Job;

/// Records of every job here.
const RECORDS: u64 = 600;

/// A job that would finish at once.
fn job() -> Job {
    Job::chain(Broker::shared(), RECORDS, 100_000)
}

/// The process ends with this error, whose text says all of this.
fn refused(process: &mut Process, error: &str, says: &[&str]) {
    let ended = process.wait();
    let log = process.log();
    assert_eq!(ended, Ended::Code(1), "{log}");
    assert!(log.contains(&format!("error[{error}]")), "no error[{error}]: {log}");
    says.iter().for_each(|text| assert!(log.contains(text), "it does not say {text:?}: {log}"));
    assert!(!log.contains("panicked"), "{log}");
}

/// With the cause mended it goes on to the exact result.
fn finishes(job: &Job) {
    job.finish();
    assert_eq!(job.check_chain(), RECORDS);
}

#[test]
fn no_broker_and_one_that_does_not_answer() {
    let nobody = {
        let held = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        held.local_addr().expect("a bound socket").to_string()
    };
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let silent_at = silent.local_addr().expect("a bound socket").to_string();
    for address in [nobody, silent_at] {
        let job = job();
        let there = format!("bootstrap_servers = \"{address}\"\nwait = \"3s\"");
        let here = format!("bootstrap_servers = \"{}\"\nwait = \"30s\"", Broker::shared().bootstrap());
        job.rewrite(&here, &there);
        let says =
            ["waiting for Kafka at", &address, "has not answered for", "bootstrap_servers", "start the job again"];
        refused(&mut job.start(), "kafka-away", &says);
        job.rewrite("", "");
        finishes(&job);
    }
}

#[test]
fn a_wrong_password_and_a_broker_that_wants_tls() {
    let broker = Broker::start(&BrokerSettings::new().secured());
    let (address, secrets) = broker.secured();
    let job = Job::chain(&broker, RECORDS, 100_000);
    let open = format!("bootstrap_servers = \"{}\"\nwait = \"30s\"", broker.bootstrap());
    let with = |properties: Vec<(String, String)>| {
        let lines: Vec<String> = properties.iter().map(|(name, value)| format!("{name:?} = {value:?}")).collect();
        format!("bootstrap_servers = \"{address}\"\nwait = \"4s\"\n[kafka.properties]\n{}", lines.join("\n"))
    };
    let right: Vec<(String, String)> = secrets.client_properties().into_iter().collect();
    let wrong = right.iter().cloned().map(|(name, value)| match name.as_str() {
        "sasl.password" => (name, "wrong".to_owned()),
        _ => (name, value),
    });
    job.rewrite(&open, &with(wrong.collect()));
    refused(&mut job.start(), "kafka-denied", &["Authentication failed", "[kafka.properties]"]);
    job.rewrite(&open, &with(Vec::new()));
    refused(&mut job.start(), "kafka-away", &[&address, "[kafka.properties]"]);
    job.rewrite(&open, &with(right));
    finishes(&job);
}

#[allow(dead_code, reason = "too long for the gate: kafka_long.rs")]
pub(crate) fn what_the_user_of_the_job_may_not_do() {
    let settings = BrokerSettings::new()
        .secured()
        .with("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .with("super.users", "User:ANONYMOUS");
    let broker = Broker::start(&settings);
    let (address, secrets) = broker.secured();
    let job = Job::chain(&broker, RECORDS, 100_000);
    let open = format!("bootstrap_servers = \"{}\"\nwait = \"30s\"", broker.bootstrap());
    let lines: Vec<String> =
        secrets.client_properties().iter().map(|(name, value)| format!("{name:?} = {value:?}")).collect();
    let secured =
        format!("bootstrap_servers = \"{address}\"\nwait = \"10s\"\n[kafka.properties]\n{}", lines.join("\n"));
    job.rewrite(&open, &secured);
    let (tools, all) = (broker.tools(), ["--operation", "all"]);
    // The topic is not there, and may not be made.
    let seen = ["--topic", &job.topic, "--operation", "describe"];
    tools.allow(thalweg_tests::kafka::USER, &seen);
    refused(&mut job.start(), "kafka-denied", &[&format!("making topic {:?}", job.topic), "Authorization failed"]);
    job.client.create_topic(&job.topic, 3, &[]);
    let of_prefix = |prefix, operations: &[&str]| {
        let which = ["--topic", prefix, "--resource-pattern-type", "prefixed"];
        tools.allow(thalweg_tests::kafka::USER, &[&which[..], operations].concat());
    };
    tools.allow(thalweg_tests::kafka::USER, &[&["--transactional-id", "*"][..], &all].concat());
    tools.allow(thalweg_tests::kafka::USER, &["--cluster", "--operation", "IdempotentWrite"]);
    // Its own topics may be made, and one not be written to; that of its output may be seen, which is done first.
    let config = ["--topic", &job.topic, "--operation", "DescribeConfigs", "--operation", "read"];
    tools.allow(thalweg_tests::kafka::USER, &config);
    let but_write = ["create", "describe", "DescribeConfigs", "read"].map(|operation| ["--operation", operation]);
    ["generation-", "changelog-"].into_iter().for_each(|prefix| of_prefix(prefix, &all));
    of_prefix("bindings-", but_write.as_flattened());
    refused(&mut job.start(), "kafka-denied", &["bindings-", "uthorization failed"]);
    // The topic of its output may not be written to.
    of_prefix("bindings-", &all);
    refused(&mut job.start(), "kafka-denied", &[&job.topic, "uthorization failed"]);
    tools.allow(thalweg_tests::kafka::USER, &[&["--topic", &job.topic][..], &all].concat());
    finishes(&job);
}

#[test]
fn a_topic_that_is_not_there_and_a_pattern_that_finds_none() {
    let (job, broker) = (job(), Broker::shared());
    let orders = Broker::unique("orders");
    broker.client().create_topic(&orders, 1, &[]);
    let spelled = orders.replace("orders", "ordres");
    let source = |topics: &str| format!("[sources.spelled]\nconnector = \"kafka\"\n{topics}\n[operators.rows]");
    let with = |topics: &str| {
        job.rewrite("[operators.rows]", &source(topics));
        let text = std::fs::read_to_string(job.folder.join("job.toml")).expect("the job file");
        let sink = "[sinks.nothing]\nconnector = \"blackhole\"\ninputs = [\"spelled\"]\n[sinks.out]";
        job.folder.write("job.toml", text.replace("[sinks.out]", sink));
    };
    with(&format!("topic = {spelled:?}"));
    let says = [&*format!("there is no topic {spelled:?}"), &broker.bootstrap(), &format!("did you mean {orders:?}?")];
    refused(&mut job.start(), "kafka-topic-missing", &says);
    with(&format!("topic_pattern = \"^{spelled}$\""));
    let says = [&*format!("topic_pattern = \"^{spelled}$\""), "check the pattern", "there are: "];
    refused(&mut job.start(), "kafka-topic-missing", &says);
    job.rewrite("", "");
    finishes(&job);
}

#[test]
fn a_record_that_is_too_large_for_its_topic() {
    let job = job();
    job.client.create_topic(&job.topic, 3, &[("max.message.bytes", "120")]);
    refused(&mut job.start(), "record-too-large", &[&format!("topic {:?}", job.topic), "max.message.bytes", "bytes"]);
    job.client.set_topic(&job.topic, &[("max.message.bytes", "1000000")]);
    finishes(&job);
}

#[test]
fn a_topic_with_the_wrong_number_of_partitions_and_a_changelog_with_wrong_settings() {
    let job = Job::chain(Broker::shared(), RECORDS, 300);
    job.client.create_topic(&job.topic, 2, &[]);
    refused(&mut job.start(), "topic-partitions", &[&job.topic, "has 2 partitions", "needs 3"]);
    job.client.delete_topic(&job.topic);
    until("the topic is gone", || !job.client.has_topic(&job.topic));
    let mut process = job.start();
    until("some output", || job.check_chain() > 0);
    process.kill();
    let changelog = job.own_topic("changelog-");
    let right = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.type", "LogAppendTime"),
        ("delete.retention.ms", "86400000"),
    ];
    job.client.set_topic(&changelog, &[right[1], right[2], ("cleanup.policy", "delete")]);
    let says = [&*changelog, "has cleanup.policy = delete, the job needs compact", "kafka-configs.sh"];
    refused(&mut job.start(), "kafka-topic-settings", &says);
    job.client.set_topic(&changelog, &right);
    finishes(&job);
}

#[allow(dead_code, reason = "too long for the gate: kafka_long.rs")]
pub(crate) fn a_broker_that_stays_away_and_a_stop_while_it_does() {
    let mut broker = Broker::start(&BrokerSettings::new());
    let records = 4000;
    let job = Job::chain(&broker, records, 100);
    job.rewrite("wait = \"30s\"", "wait = \"4s\"\ntransaction_timeout = \"2s\"");
    let mut process = job.start();
    until("some output", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        job.check_chain() > 50
    });
    broker.kill();
    refused(&mut process, "kafka-away", &[&broker.bootstrap(), "start the job again"]);
    broker.start_again();
    let before = job.check_chain();
    job.rewrite("wait = \"30s\"", "transaction_timeout = \"2s\"");
    let mut process = job.start();
    until("more output", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        job.check_chain() > before
    });
    broker.kill();
    process.wait_for_log("waiting for Kafka at").expect("it waits");
    process.interrupt();
    let ended = process.wait_for(process.age() + Duration::from_secs(40));
    assert!(matches!(ended, Some(Ended::Code(_))), "{ended:?}: {}", process.log());
    broker.start_again();
    job.rewrite("rate = 100", "rate = 1000000");
    job.finish();
    assert_eq!(job.check_chain(), records);
}
