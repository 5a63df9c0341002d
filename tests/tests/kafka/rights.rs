//! What `explain` says that a job uses of its cluster is all that it uses, and all that it has to be allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value as Json;
use thalweg_tests::kafka::{Broker, BrokerSettings, Record, Tools, USER};
use thalweg_tests::{Binary, Ended, Folder, Process, RunFlags, until};

const RECORDS: i64 = 60;
/// Of the records, those on which the operator fails.
const FAILING: i64 = 13;

fn job(address: &str, secrets: &BTreeMap<String, String>) -> String {
    let properties: String = secrets.iter().map(|(name, value)| format!("{name:?} = {value:?}\n")).collect();
    format!(
        r#"version = 1
[job]
name = "allowed"
partitions = 2
crate = "thalweg-tests"
on_error = "dead-letter"
[job.checkpoint]
interval = "50ms"
[kafka]
bootstrap_servers = "{address}"
wait = "10s"
[kafka.properties]
{properties}
[sources.new]
connector = "kafka"
topic = "new"
group = "lag"
[sources.new.backfill]
connector = "kafka"
topic = "old"
[operators.visits]
uses = "exact::Visits"
inputs = ["new"]
key = "w"
[stores.visits]
changelog = "kafka"
[sinks.out]
connector = "kafka"
topic = "out"
inputs = ["visits"]
[dead_letters]
connector = "kafka"
"#
    )
}

/// What a job's explanation says of its rights.
fn explained(binary: &Binary, folder: &Folder) -> Vec<Json> {
    let mut command = Command::new(binary.path());
    let output = command.arg("explain").arg(folder.join("job.toml")).args(["-o", "json"]).output();
    let output = output.expect("the binary can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let explanation: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    explanation["rights"].as_array().expect("a list").clone()
}

/// Gives the user these rights and no others; what has the job's id in its name is known by what is around it.
fn allow(tools: &Tools, rights: &[Json]) {
    let mut by_operations: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
    for right in rights {
        let (resource, name) = (right["resource"].as_str().expect("a text"), right["name"].as_str().expect("a text"));
        let (prefix, name) = match name.split_once("ID") {
            // An id begins with that of the job, which nobody knows before: any.
            Some(("", _)) => (false, "*"),
            Some((before, _)) => (true, before),
            None => (false, name),
        };
        let of = by_operations.entry((prefix, right["operations"].to_string())).or_default();
        of.extend([format!("--{resource}"), name.to_owned()]);
    }
    for ((prefix, operations), resources) in by_operations {
        let operations: Vec<String> = serde_json::from_str(&operations).expect("a list of texts");
        let mut arguments: Vec<&str> = resources.iter().map(String::as_str).collect();
        arguments.extend(operations.iter().flat_map(|operation| ["--operation", operation]));
        if prefix {
            arguments.extend(["--resource-pattern-type", "prefixed"]);
        }
        tools.allow(USER, &arguments);
    }
}

/// The names of a kind of thing, with the job's id in them.
fn names(rights: &[Json], resource: &str, id: &str) -> BTreeSet<String> {
    let of = rights.iter().filter(|right| right["resource"] == resource);
    of.map(|right| right["name"].as_str().expect("a text").replace("ID", id)).collect()
}

#[test]
fn a_job_uses_what_explain_says_and_needs_no_other_right() {
    let settings = BrokerSettings::new()
        .secured()
        .with("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .with("super.users", "User:ANONYMOUS");
    let broker = Broker::start(&settings);
    let (client, tools, folder) = (broker.client(), broker.tools(), Folder::new());
    for topic in ["old", "new"] {
        client.create_topic(topic, 1, &[]);
        let line = |v| format!(r#"{{"k": {v}, "w": "w{}", "v": {v}, "f": 0.5}}"#, v % 7);
        client.write(topic, &(0..RECORDS).map(|v| Record::new(0, "", line(v))).collect::<Vec<_>>());
    }
    let (address, secrets) = broker.secured();
    folder.write("job.toml", job(&address, &secrets.client_properties()));
    let binary = Binary::exact_job();
    let rights = explained(&binary, &folder);
    allow(&tools, &rights);

    let flags = RunFlags { workers: 2, ..RunFlags::new(folder.join("data")) };
    let mut process = Process::start(&binary, &folder.join("job.toml"), &flags, &folder.join("run.log"));
    until("all is read, and the group says so", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        client.group_positions("lag", "new").get(&0) == Some(&RECORDS)
    });
    process.interrupt();
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());

    let topics: BTreeSet<String> = client.topics().into_iter().filter(|topic| !topic.starts_with("__")).collect();
    let claims = topics.iter().find_map(|topic| topic.strip_prefix("generation-"));
    let id = claims.expect("the topic of the claims");
    assert_eq!(topics, names(&rights, "topic", id));
    assert_eq!(tools.transactional_ids(), names(&rights, "transactional-id", id));
    let aside = client.read_all(&format!("dead-letters-{id}"), thalweg_tests::kafka::Isolation::ReadCommitted);
    let failing = format!("\"v\":{FAILING},");
    assert!(
        aside
            .iter()
            .any(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).contains(&failing)),
        "{aside:?}"
    );
}
