//! Records of Avro and Protobuf, read and written, with a registry that comes, goes, refuses and does not know.

use serde_json::{Value as Json, json};
use thalweg_tests::kafka::{Broker, Isolation, Record, SchemaRegistry, Secrets};
use thalweg_tests::{Binary, Ended, Folder, Process, RunFlags, until};

const FIRST: &str =
    r#"{"type":"record","name":"Order","fields":[{"name":"id","type":"long"},{"name":"who","type":"string"}]}"#;
const SECOND: &str = r#"{"type":"record","name":"Order","fields":[{"name":"who","type":"string"},{"name":"id","type":"long"},
    {"name":"state","type":"shop.State"}]}"#;
const STATE: &str = r#"{"type":"enum","name":"State","namespace":"shop","symbols":["OPEN","SENT"]}"#;
const EVENTS: &str = r#"syntax = "proto3"; package shop; import "money.proto"; import "google/protobuf/timestamp.proto";
    message Paid { int64 order = 1; money.Price price = 2; google.protobuf.Timestamp at = 3; }
    message Events { message Sent { int64 order = 1; } }"#;
const MONEY: &str = r#"syntax = "proto3"; package money; message Price { int64 cents = 1; }"#;

/// A job that passes records on, and its topics.
struct Passing {
    folder: Folder,
    orders: String,
    events: String,
    runs: u32,
}

impl Passing {
    fn new(registry: &SchemaRegistry, on_error: &str, rest: &str) -> Self {
        let passing =
            Self { folder: Folder::new(), orders: Broker::unique("orders"), events: Broker::unique("events"), runs: 0 };
        let client = Broker::shared().client();
        [&passing.orders, &passing.events].into_iter().for_each(|topic| client.create_topic(topic, 2, &[]));
        let (bootstrap, url) = (Broker::shared().bootstrap(), registry.url());
        let (orders, events) = (&passing.orders, &passing.events);
        let toml = format!(
            r#"version = 1
[job]
name = "passing"
partitions = 2
on_error = "{on_error}"
[job.epoch]
interval = "10ms"
[job.checkpoint]
interval = "50ms"
[kafka]
bootstrap_servers = "{bootstrap}"
[schema_registry]
url = "{url}"
{rest}
[sources.orders]
connector = "kafka"
topic = "{orders}"
format = "avro"
[sources.events]
connector = "kafka"
topic = "{events}"
format = "protobuf"
include = {{ key = "key" }}
[operators.seen]
uses = "map"
inputs = ["events"]
fields = {{ order = "order", key = "key" }}
[sinks.out]
connector = "file"
path = "out.jsonl"
single = true
inputs = ["orders", "seen"]
"#
        );
        passing.folder.write("password", "secret\n");
        passing.folder.write("job.toml", toml);
        passing
    }

    fn start(&mut self) -> Process {
        self.runs += 1;
        let log = self.folder.join(&format!("run-{}.log", self.runs));
        let flags = RunFlags { workers: 2, ..RunFlags::new(self.folder.join("data")) };
        Process::start(&Binary::thalweg(), &self.folder.join("job.toml"), &flags, &log)
    }

    fn write(&self, topic: &str, partition: i32, id: u32, record: &[u8]) {
        let value = [&[0][..], &id.to_be_bytes(), record].concat();
        Broker::shared().client().write(topic, &[Record::new(partition, "k", value)]);
    }

    /// What has come out, in the order of its text.
    fn rows(&self) -> Vec<Json> {
        let text = std::fs::read_to_string(self.folder.join("out.jsonl")).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.into_iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn wait_for(&self, process: &mut Process, wanted: &[Json]) {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable_by_key(Json::to_string);
        let mut seen = Vec::new();
        let what = format!("{wanted:?}");
        until(&what, || {
            assert_eq!(process.ended(), None, "{}", process.log());
            seen = self.rows();
            seen.len() >= wanted.len()
        });
        seen.sort_unstable_by_key(Json::to_string);
        assert_eq!(seen, wanted);
    }
}

#[test]
fn a_registry_is_waited_for_and_needed_once_only() {
    let mut registry = SchemaRegistry::away();
    // user:secret
    registry.ask_for("dXNlcjpzZWNyZXQ=");
    registry.register("orders-value", "AVRO", FIRST, &[]);
    registry.register("money.proto", "PROTOBUF", MONEY, &[]);
    registry.register("events-value", "PROTOBUF", EVENTS, &[("money.proto", "money.proto")]);
    let auth = "user = \"user\"\npassword = { file = \"password\" }";
    let mut passing = Passing::new(&registry, "dead-letter", auth);
    passing.write(&passing.orders, 0, 1, b"\x02\x06ada");
    // At first it is away, which is told; the job goes on as soon as it is there.
    let mut process = passing.start();
    process.wait_for_log("waiting for the schema registry").expect("it waits");
    registry.back();
    let mut wanted = vec![json!({"id": 1, "who": "ada"})];
    passing.wait_for(&mut process, &wanted);
    // The first type, and the second one within another.
    passing.write(&passing.events, 0, 3, b"\0\x08\x05\x12\x03\x08\xfa\x01");
    passing.write(&passing.events, 1, 3, b"\x04\x02\0\x08\x06");
    wanted.extend([json!({"order": 5, "key": "k"}), json!({"order": 6, "key": "k"})]);
    passing.wait_for(&mut process, &wanted);
    // It is gone: what is known is read, what is not known waits, and holds up nobody else.
    registry.kill();
    registry.register("state", "AVRO", STATE, &[]);
    let second = registry.register("orders-value", "AVRO", SECOND, &[("shop.State", "state")]);
    passing.write(&passing.orders, 1, second, b"\x06bob\x04\x02");
    process.wait_for_log("has not given schema 5").expect("it waits");
    passing.write(&passing.orders, 0, 1, b"\x06\x06cid");
    passing.write(&passing.events, 0, 3, b"\0\x08\x07");
    wanted.extend([json!({"id": 3, "who": "cid"}), json!({"order": 7, "key": "k"})]);
    passing.wait_for(&mut process, &wanted);
    registry.back();
    wanted.push(json!({"who": "bob", "id": 2, "state": "SENT"}));
    passing.wait_for(&mut process, &wanted);
    // Neither its end nor a kill of the job needs it again for what it has answered.
    registry.kill();
    process.kill();
    let mut process = passing.start();
    passing.write(&passing.orders, 1, second, b"\x06dan\x08\0");
    wanted.push(json!({"who": "dan", "id": 4, "state": "OPEN"}));
    passing.wait_for(&mut process, &wanted);
    for (path, times) in [("/schemas/ids/1", 1), ("/schemas/ids/3", 1), ("/subjects/money.proto/versions/1", 1)] {
        assert_eq!(registry.asked(path), times, "{path}");
    }
    // An id that it does not have, and a record of no registry, are set aside.
    registry.back();
    passing.write(&passing.orders, 0, 99, b"\x02\x06eve");
    Broker::shared().client().write(&passing.orders, &[Record::new(0, "k", "{\"id\":1}")]);
    passing.write(&passing.orders, 0, 1, b"\x0a\x06fay");
    wanted.push(json!({"id": 5, "who": "fay"}));
    passing.wait_for(&mut process, &wanted);
    let log = process.log();
    assert!(log.contains("has no schema 99") && log.contains("should with 0 and the id of its schema"), "{log}");
    process.interrupt();
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
}

#[test]
fn a_registry_that_does_not_help_ends_the_job_with_a_reason() {
    let (mut registry, away) = (SchemaRegistry::start(), SchemaRegistry::away());
    registry.register("orders-value", "AVRO", FIRST, &[]);
    let fails = |registry: &SchemaRegistry, rest: &str, code: &str| {
        let mut passing = Passing::new(registry, "fail", rest);
        passing.write(&passing.orders, 1, 7, b"\x02\x06ada");
        let mut process = passing.start();
        assert!(matches!(process.wait(), Ended::Code(1..)), "{}", process.log());
        assert!(process.log().contains(code), "{code}: {}", process.log());
        passing
    };
    fails(&away, "wait = \"200ms\"", "error[schema-registry-away]");
    let mut unknown = fails(&registry, "", "error[schema-unknown]");
    registry.ask_for("dXNlcjpzZWNyZXQ=");
    fails(&registry, "user = \"user\"\npassword = \"wrong\"", "error[schema-registry-denied]");
    // What stopped at an unknown schema goes on when it is there.
    registry.kill();
    let mut registry = SchemaRegistry::start();
    for id in 1..=7 {
        registry.register("orders-value", "AVRO", &FIRST.replace("Order", &format!("Order{id}")), &[]);
    }
    let job = std::fs::read_to_string(unknown.folder.join("job.toml")).expect("the job file");
    let url = job.lines().find(|line| line.starts_with("url = ")).expect("the address").to_owned();
    unknown.folder.write("job.toml", job.replace(&url, &format!("url = \"{}\"", registry.url())));
    let mut process = unknown.start();
    unknown.wait_for(&mut process, &[json!({"id": 1, "who": "ada"})]);
    registry.kill();
}

#[test]
fn a_registry_over_tls_is_asked_when_its_certificate_is_trusted() {
    let (good, other) = (Folder::new(), Folder::new());
    let secrets = Secrets::make(good.path());
    let stranger = Secrets::make(other.path());
    let registry = SchemaRegistry::start_with_tls(&secrets);
    registry.register("orders-value", "AVRO", FIRST, &[]);
    registry.ask_for("dXNlcjpzZWNyZXQ=");
    let login = "user = \"user\"\npassword = \"secret\"\n";
    let start = |ca: &str, from: &str, to: &str| {
        let mut passing = Passing::new(&registry, "fail", &format!("{login}{ca}"));
        let job = std::fs::read_to_string(passing.folder.join("job.toml")).expect("the job file");
        assert!(job.contains(from), "{job}");
        passing.folder.write("job.toml", job.replace(from, to));
        passing.write(&passing.orders, 1, 1, b"\x02\x06ada");
        let process = passing.start();
        (passing, process)
    };
    let trusting = |secrets: &Secrets| format!("ca = {:?}", secrets.certificate().display().to_string());
    let fails = |ca: &str, (from, to): (&str, &str), says: &[&str]| {
        let (_passing, mut process) = start(ca, from, to);
        assert!(matches!(process.wait(), Ended::Code(1..)), "{}", process.log());
        let log = process.log();
        says.iter().for_each(|text| assert!(log.contains(text), "it does not say {text:?}: {log}"));
    };
    let distrusted = ["error[schema-registry-tls]", &registry.url(), "set ca of [schema_registry]"];
    fails("", ("", ""), &distrusted);
    fails(&trusting(&stranger), ("", ""), &distrusted);
    let elsewhere = ("https://127.0.0.1", "https://127.0.0.2");
    fails(&trusting(&secrets), elsewhere, &["error[schema-registry-tls]", "https://127.0.0.2", "mismatch"]);
    fails("ca = \"job.toml\"", ("", ""), &["error[ca]", "job.toml", "it has no certificate"]);

    let (passing, mut process) = start(&trusting(&secrets), "", "");
    passing.wait_for(&mut process, &[json!({"id": 1, "who": "ada"})]);
}

/// A job that writes twenty numbers in Avro.
fn writing(registry: &SchemaRegistry, topic: &str) -> Folder {
    let folder = Folder::new();
    let (bootstrap, url) = (Broker::shared().bootstrap(), registry.url());
    let toml = format!(
        r#"version = 1
[job]
name = "writing"
partitions = 2
[kafka]
bootstrap_servers = "{bootstrap}"
[schema_registry]
url = "{url}"
wait = "200ms"
[sources.numbers]
connector = "generator"
count = 20
[operators.rows]
uses = "map"
inputs = ["numbers"]
fields = {{ n = "n", text = "n == 7 ? 'seven' : null" }}
[sinks.out]
connector = "kafka"
inputs = ["rows"]
topic = "{topic}"
partitions = 1
format = "avro"
schema_file = "number.avsc"
"#
    );
    folder.write("job.toml", toml);
    folder.write("number.avsc", NUMBER);
    folder
}

const NUMBER: &str = r#"{"type":"record","name":"Number","fields":[{"name":"n","type":"int"},{"name":"text","type":["null","string"]}]}"#;

#[test]
fn a_sink_registers_its_schema_and_writes_by_it() {
    let (mut registry, topic) = (SchemaRegistry::away(), Broker::unique("numbers"));
    registry.register("other", "AVRO", FIRST, &[]);
    let folder = writing(&registry, &topic);
    let run = |name: &str| {
        let flags = RunFlags::new(folder.join("data"));
        let mut process = Process::start(&Binary::thalweg(), &folder.join("job.toml"), &flags, &folder.join(name));
        (process.wait(), process.log())
    };
    let (ended, log) = run("away.log");
    assert!(ended == Ended::Code(1) && log.contains("error[schema-registry-away]"), "{ended:?}: {log}");
    registry.back();
    let (ended, log) = run("back.log");
    assert_eq!(ended, Ended::Code(0), "{log}");
    let records = Broker::shared().client().read_all(&topic, Isolation::ReadCommitted);
    let mut values: Vec<Vec<u8>> = records.into_iter().map(|record| record.value.expect("a value")).collect();
    values.sort_unstable();
    let record = |n: u8| match n {
        7 => [&[0, 0, 0, 0, 2, 14, 2, 10][..], b"seven"].concat(),
        n => vec![0, 0, 0, 0, 2, 2 * n, 0],
    };
    assert_eq!(values, (0..20).map(record).collect::<Vec<_>>());
    assert_eq!(registry.asked(&format!("/subjects/{topic}-value/versions")), 1);
    // The id is kept: the job starts again without the registry.
    registry.kill();
    let (ended, log) = run("again.log");
    assert_eq!(ended, Ended::Code(0), "{log}");
}

/// A job that writes keys and values by schemas, and one that reads them: what comes out of the second is what went into the first.
#[test]
fn keys_and_values_are_written_and_read_by_registered_schemas() {
    let registry = SchemaRegistry::start();
    let (folder, client) = (Folder::new(), Broker::shared().client());
    let (bootstrap, url) = (Broker::shared().bootstrap(), registry.url());
    let [avro, proto] = ["avro", "proto"].map(Broker::unique);
    folder.write(
        "key.avsc",
        r#"{"type":"record","name":"K","fields":[{"name":"n","type":"int"},{"name":"s","type":"string"}]}"#,
    );
    folder.write("part/money.proto", "syntax = \"proto3\"; package money; message Price { int64 cents = 1; }");
    let order = "syntax = \"proto3\"; package shop; import \"part/money.proto\"; import \"google/protobuf/timestamp.proto\";
        message Other {} message Order { message Key { int64 n = 1; } int64 n = 1; string s = 2; money.Price price = 3; }";
    folder.write("order.proto", order);
    let job = |name: &str, rest: &str| {
        format!(
            r#"version = 1
[job]
name = "{name}"
partitions = 2
[job.checkpoint]
interval = "50ms"
[kafka]
bootstrap_servers = "{bootstrap}"
[schema_registry]
url = "{url}"
{rest}"#
        )
    };
    let writing = r#"
[sources.numbers]
connector = "generator"
count = 10
[operators.rows]
uses = "map"
inputs = ["numbers"]
fields = { n = "n", s = "string(n)", price = "{'cents': n * 100}" }
[operators.flat]
uses = "map"
inputs = ["numbers"]
fields = { n = "n", s = "string(n)" }
[sinks.avro]
connector = "kafka"
inputs = ["flat"]
topic = "AVRO"
partitions = 1
key = ["n", "s"]
key_format = "avro"
key_schema_file = "key.avsc"
[sinks.proto]
connector = "kafka"
inputs = ["rows"]
topic = "PROTO"
partitions = 1
key = "n"
key_format = "protobuf"
key_schema_file = "order.proto"
key_message = "shop.Order.Key"
key_subject = "keys"
format = "protobuf"
schema_file = "order.proto"
message = "shop.Order"
"#;
    let reading = r#"
[sources.avro]
connector = "kafka"
topic = "AVRO"
include = { key = "key" }
key_format = "avro"
[sources.proto]
connector = "kafka"
topic = "PROTO"
include = { key = "key" }
key_format = "protobuf"
format = "protobuf"
[sources.again]
connector = "kafka"
topic = "PROTO"
include = { key = "key" }
key_format = "protobuf"
key_schema_file = "order.proto"
key_message = "shop.Order.Key"
key_framing = "confluent"
format = "protobuf"
[operators.named]
uses = "map"
inputs = ["again"]
fields = { again = "key" }
[sinks.out]
connector = "file"
path = "out.jsonl"
single = true
inputs = ["avro", "proto", "named"]
"#;
    let topics = |text: &str| text.replace("AVRO", &avro).replace("PROTO", &proto);
    folder.write("writing.toml", job("writing", &topics(writing)));
    folder.write("reading.toml", job("reading", &topics(reading)));
    let start = |name: &str| {
        let flags = RunFlags::new(folder.join(name));
        let job = folder.join(&format!("{name}.toml"));
        Process::start(&Binary::thalweg(), &job, &flags, &folder.join(&format!("{name}.log")))
    };
    let mut process = start("writing");
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());

    // The bytes are those of Confluent's serializers: a zero, the id, in Protobuf the indexes, and the record.
    let records = |topic: &str| {
        let mut records = client.read_all(topic, Isolation::ReadCommitted);
        records.sort_by_key(|record| record.value.as_ref().map(|value| value.len()));
        records
            .into_iter()
            .map(|record| (record.key.expect("a key"), record.value.expect("a value")))
            .collect::<Vec<_>>()
    };
    let framed = |id: u8, rest: &[u8]| [&[0, 0, 0, 0, id], rest].concat();
    let id = |subject: &str| registry.newest(subject).unwrap_or_else(|| panic!("{subject} is not registered")) as u8;
    let (key, keys, values) = (id(&format!("{avro}-key")), id("keys"), id(&format!("{proto}-value")));
    assert_eq!(keys, values, "the schema is the same");
    let of_avro = records(&avro);
    assert!(of_avro.contains(&(framed(key, b"\x06\x02\x33"), br#"{"n":3,"s":"3"}"#.to_vec())), "{of_avro:?}");
    let of_proto = records(&proto);
    let three = (framed(keys, b"\x04\x02\0\x08\x03"), framed(values, b"\x02\x02\x08\x03\x12\x013\x1a\x03\x08\xac\x02"));
    assert!(of_proto.contains(&three), "{three:?} is not in {of_proto:?}");
    assert_eq!(registry.newest("part/money.proto").map(|id| id > 0), Some(true));

    let mut process = start("reading");
    let rows = || {
        let text = std::fs::read_to_string(folder.join("out.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()).collect::<Vec<_>>()
    };
    until("all records of three sources", || {
        assert_eq!(process.ended(), None, "{}", process.log());
        rows().len() == 30
    });
    for n in 0..10 {
        let text = n.to_string();
        for wanted in [
            json!({ "n": n, "s": text, "key": { "n": n, "s": text } }),
            json!({ "n": n, "s": text, "price": { "cents": n * 100 }, "key": { "n": n } }),
            json!({ "again": { "n": n } }),
        ] {
            assert!(rows().contains(&wanted), "{wanted} is not in {:?}", rows());
        }
    }
}
