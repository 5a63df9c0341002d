//! What valid jobs become, and that the example of the contract is known to its last key.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use thalweg_connectors::kafka::{Bound, OnDataLoss};
use thalweg_connectors::log::Start;
use thalweg_connectors::{CsvOptions, Format, KeyFormat, OutFormat, Part};
use thalweg_core::PartitionId;
use thalweg_jobs::{
    Catalogue, Checked, ConfigValue, Demand, Diagnostics, HistorySpec, Severity, SinkConnector, SourceConnector,
    TopicsSpec, apply_environment, explain, graph, parse, schema, validate,
};
use thalweg_operators::{ConfigKey, ConfigKind, OnError, OperatorInfo};

fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::built_in();
    let totals = OperatorInfo::keyed("orders::Totals", "Totals", "totals").with(ConfigKey::optional(
        "limit",
        ConfigKind::Int,
        "Most",
    ));
    catalogue.add(totals).expect("the name is free");
    catalogue
}

fn check(text: &str, environment: &[(&str, &str)]) -> Result<Checked, Diagnostics> {
    let mut document = parse(text, "jobs/test.toml")?;
    apply_environment(&mut document, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    validate(&document, &catalogue())
}

fn job_file(name: &str) -> (String, PathBuf) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    (fs::read_to_string(&path).expect("the job is there"), path)
}

#[test]
fn the_flights_job() {
    let (text, path) = job_file("flights.toml");
    let checked = validate(&parse(&text, &path).expect("is TOML"), &Catalogue::built_in()).expect("is valid");
    assert!(checked.warnings.is_empty());
    let job = checked.job;
    assert_eq!(
        (job.name.as_str(), job.partitions.get(), job.workers, job.on_error),
        ("flights", 16, None, OnError::Fail)
    );
    assert_eq!(job.epoch.interval, Some(Duration::from_millis(20)));
    assert_eq!((job.epoch.max_records, job.epoch.max_bytes, job.state_memory), (100_000, 64 << 20, 256 << 20));
    assert_eq!(job.checkpoint_interval, Duration::from_secs(1));
    let SourceConnector::File { paths, format, follow, max_record_bytes } = &job.sources[0].connector else {
        panic!("a file")
    };
    assert_eq!(
        (paths[0].as_str(), *follow, *max_record_bytes),
        ("../examples/flights/flights-2001-01.csv.gz", false, 16 << 20)
    );
    assert_eq!(*format, Format::Csv(CsvOptions::default()));
    assert!(job.sources[0].is_bounded() && job.base == path.parent().expect("a folder"));
    let by_origin = &job.operators[0];
    assert_eq!(by_origin.key.as_deref(), Some(&["origin".to_owned()][..]));
    let Some(ConfigValue::Aggregations(folds)) = by_origin.config.get("aggregates") else { panic!("folds") };
    assert_eq!(
        folds.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["flights", "mean_delay", "late", "worst"]
    );
    assert!(by_origin.store.expect("it keeps state").query);
    let SinkConnector::File { path: folder, single, format } = &job.sinks[0].connector else { panic!("a file") };
    assert_eq!((folder.clone(), *single, *format), (job.base.join("flights-out"), false, OutFormat::Json));
}

#[test]
fn the_wordcount_job() {
    let (text, path) = job_file("wordcount.toml");
    let checked = validate(&parse(&text, path).expect("is TOML"), &Catalogue::built_in()).expect("is valid");
    assert!(checked.warnings.is_empty());
    assert_eq!(
        graph(&checked.job).to_tree(),
        "text (file)\n└─ words (words)\n   └─ count (count)\n      └─ out (file)\n"
    );
}

/// Section 1 of the contract.
const CONTRACT: &str = r#"
version = 1
[job]
name = "orders"
crate = "orders"
crate_version = "1.2"
partitions = 16
workers = 2
tasks = 2
tags = ["cpu"]
biases = [["heavy-disk", "never"], ["kafka", "prefer"]]
standbys = 1
delivery = "exactly-once"
on_error = "fail"
[job.epoch]
interval = "20ms"
max_records = 100_000
[job.checkpoint]
interval = "1s"
[kafka]
bootstrap_servers = "localhost:9092"
[kafka.properties]
"security.protocol" = "SASL_SSL"
"sasl.password" = { env = "KAFKA_PASSWORD" }
[sources.orders]
connector = "kafka"
topic = "orders"
format = "json"
start = "earliest"
[sources.orders.time]
field = "ts"
max_out_of_orderness = "5s"
idle_timeout = "30s"
[operators.totals]
uses = "orders::Totals"
inputs = ["orders"]
key = "customer_id"
limit = 3
[stores.totals]
ttl = "7d"
changelog = "kafka"
query = true
[sinks.out]
connector = "kafka"
inputs = ["totals"]
topic = "order-totals"
format = "json"
emit = "updates"
"#;

#[test]
fn the_contract_is_known() {
    let problems = check(CONTRACT, &[]).expect_err("some of it is not available yet");
    let codes: BTreeSet<_> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, BTreeSet::from(["cluster-only", "not-available"]), "{problems}");
    assert_eq!(problems.iter().len(), 4, "{problems}");
    assert!(!problems.render(false).contains("KAFKA_PASSWORD"));
}

const SMALL: &str = r#"
version = 1
[job]
name = "small"
[sources.made-up]
connector = "generator"
count = 10
[operators.last]
uses = "orders::Totals"
inputs = ["first", "made-up"]
key = ["key", "n"]
limit = 3
[operators.first]
uses = "filter"
inputs = ["made-up"]
where = "value > 3 && math.abs(n) > 1"
on_error = "drop"
[sinks.out]
connector = "stdout"
inputs = ["last"]
"#;

fn small() -> String {
    SMALL.replace("name = \"small\"", "name = \"small\"\ncrate = \"orders\"")
}

#[test]
fn operators_come_behind_their_inputs() {
    let checked = check(&small(), &[]).expect("is valid");
    let [first, last] = &*checked.job.operators else { panic!("two operators") };
    assert_eq!((first.id.as_str(), first.on_error, first.store), ("first", OnError::Drop, None));
    assert_eq!((last.id.as_str(), last.on_error), ("last", OnError::Fail));
    assert_eq!(last.config.get("limit"), Some(&ConfigValue::Int(3)));
    assert_eq!(Value::from(last.raw_config.clone()), json!({ "limit": 3 }));
}

#[test]
fn a_log_begins_where_it_is_told() {
    let job = |start: &str| {
        let log = format!("connector = \"log\"\ntopic = \"t\"\nstart = {start}");
        small().replace("connector = \"generator\"\ncount = 10", &log)
    };
    for (start, expected) in [
        ("\"earliest\"", Start::Earliest),
        ("\"latest\"", Start::Latest),
        ("\"1970-01-02T00:00:00Z\"", Start::Time(86_400_000_000)),
        ("1970-01-01T01:00:00.5+01:00", Start::Time(500_000)),
    ] {
        let checked = check(&job(start), &[]).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let SourceConnector::Log { start: found, .. } = &checked.job.sources[0].connector else { panic!("a log") };
        assert_eq!(*found, expected, "{start}");
    }
    let problems = check(&job("\"1970-01-02\""), &[]).expect_err("a day is no moment").render(false);
    assert!(problems.contains("\"earliest\", \"latest\", a time such as"), "{problems}");
}

#[test]
fn a_source_of_kafka_reads_its_topics_in_one_way() {
    let job = |keys: &str| {
        let source = format!("connector = \"kafka\"\n{keys}");
        let job = small().replace("connector = \"generator\"\ncount = 10", &source);
        format!("{job}[kafka]\nbootstrap_servers = \"localhost:9092\"\n")
    };
    let read = |keys: &str| {
        let checked = check(&job(keys), &[]).unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        let SourceConnector::Kafka(kafka) = checked.job.sources[0].connector.clone() else {
            panic!("another connector")
        };
        kafka
    };
    let names = |names: &[&str]| TopicsSpec::Named(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(read("topic = \"a\"").topics, names(&["a"]));
    assert_eq!(read("topics = [\"b\", \"a\"]").topics, names(&["b", "a"]));
    let pattern = read("topic_pattern = \"^a\"\non_data_loss = \"skip\"\ngroup = \"g\"");
    assert_eq!(pattern.topics, TopicsSpec::Pattern("^a".to_owned()));
    assert_eq!((pattern.on_data_loss, pattern.group.as_deref()), (OnDataLoss::Skip, Some("g")));
    let at = |given: &[(&str, u16, u64)], other| Bound::Offsets {
        offsets: given.iter().map(|(topic, part, at)| (((*topic).to_owned(), PartitionId(*part)), *at)).collect(),
        other,
    };
    for (keys, start) in [
        ("topic = \"a\"", Start::Earliest.into()),
        ("topic = \"a\"\nstart = \"latest\"", Start::Latest.into()),
        ("topic = \"a\"\nstart = { offsets = { 0 = 120, 11 = 0 } }", at(&[("a", 0, 120), ("a", 11, 0)], None)),
        (
            "topics = [\"b\", \"a\"]\nstart = { offsets = { \"b/0\" = 3, \"a/0\" = 4 }, other = \"earliest\" }",
            at(&[("a", 0, 4), ("b", 0, 3)], Some(Start::Earliest)),
        ),
        ("topic_pattern = \"^a\"\nstart = { offsets = { \"a-1/2\" = 3 } }", at(&[("a-1", 2, 3)], None)),
    ] {
        assert_eq!(read(keys).start, start, "{keys}");
    }
    assert_eq!(read("topic = \"a\"").discover_interval, Some(Duration::from_secs(30)));
    assert_eq!(read("topic = \"a\"\ndiscover_interval = \"none\"").discover_interval, None);
    let first = |keys: &str| read(&format!("topic = \"a\"\nbackfill = {{ {keys} }}")).backfill.expect("it has one");
    let files = first("connector = \"file\", path = \"in/*\", format = \"lines\"");
    assert_eq!(files.format, thalweg_jobs::RecordFormat::Plain(Format::Lines));
    assert!(matches!(files.history, HistorySpec::File { paths, .. } if paths == ["in/*"]));
    let (topics, end) = (names(&["b"]), at(&[("b", 0, 7)], None));
    assert_eq!(
        first("connector = \"kafka\", topic = \"b\", end = { offsets = { 0 = 7 } }").history,
        HistorySpec::Kafka { topics, start: Start::Earliest.into(), end }
    );
    let include = read("topic = \"a\"\nkey_format = \"json\"\ninclude = { tombstone = \"gone\", key = \"k\" }").include;
    assert_eq!(include.fields, [("k".to_owned(), Part::Key), ("gone".to_owned(), Part::Tombstone)]);
    assert_eq!(include.key_format, KeyFormat::Json);
    for (keys, problem) in [
        ("", "takes one of topic, topics and topic_pattern, and has 0"),
        ("topic = \"a\"\ntopics = [\"b\"]", "and has 2"),
        ("topic = \"a b\"", "a b"),
        ("topic_pattern = \"(\"", "is no regular expression"),
        ("topic = \"a\"\ninclude = { key = \"x\", offset = \"x\" }", "has the field \"x\" twice"),
        ("topic = \"a\"\ninclude = { keys = \"x\" }", "did you mean \"key\""),
        ("topic = \"a\"\non_data_loss = \"ignore\"", "one of \"fail\", \"skip\""),
        ("topic = \"a\"\ndiscover_interval = \"0s\"", "discover_interval takes a duration"),
        ("topic = \"a\"\nbackfill = { path = \"in\" }", "backfill: \"connector\" is missing"),
        ("topic = \"a\"\nbackfill = { connector = \"log\" }", "unknown connector \"log\""),
        (
            "topic = \"a\"\nbackfill = { connector = \"file\", path = \"in\", rate = 5 }",
            "backfill: unknown key \"rate\"",
        ),
        (
            "topic = \"a\"\nbackfill = { connector = \"kafka\" }",
            "backfill takes one of topic, topics and topic_pattern",
        ),
        (
            "topic = \"a\"\nbackfill = { connector = \"kafka\", topic = \"b\", end = { offsets = { \"a/0\" = 1 } } }",
            "backfill does not read the topic \"a\"",
        ),
    ] {
        let problems = check(&job(keys), &[]).expect_err(keys).render(false);
        assert!(problems.contains(problem), "{problem} is missing in: {problems}");
    }
}

#[test]
fn the_environment_stands_over_the_file() {
    let set = [
        ("THALWEG__JOB__PARTITIONS", "4"),
        ("THALWEG__JOB__EPOCH__INTERVAL", "none"),
        ("THALWEG__SOURCES__MADE_UP__COUNT", "7"),
        ("THALWEG__SINKS__OUT__INPUTS", "[\"first\", \"last\"]"),
        ("THALWEG__JOB__TAGS", "cpu"),
        ("THALWEG_ADDR", "ignored"),
    ];
    let job = check(&small(), &set).expect("is valid").job;
    assert_eq!((job.partitions.get(), job.epoch.interval, job.tags), (4, None, vec!["cpu".to_owned()]));
    let SourceConnector::Generator(generator) = &job.sources[0].connector else { panic!("a generator") };
    assert_eq!(generator.count, Some(7));
    assert_eq!(job.sinks[0].inputs, ["first", "last"]);
    for (name, value, expected) in [
        ("THALWEG__JOB__PARTITIONS", "many", "found the text \"many\" (from THALWEG__JOB__PARTITIONS)"),
        ("THALWEG__JOB__PARTITONS", "4", "unknown key \"partitons\" (from THALWEG__JOB__PARTITONS)"),
        ("THALWEG__JOB__NAME__X", "4", "\"name\" is a value, and has no keys"),
        ("THALWEG__", "4", "names no key"),
    ] {
        let problems = check(&small(), &[(name, value)]).expect_err(name).render(false);
        assert!(problems.contains(expected), "{name}: {problems}");
    }
}

#[test]
fn flags_stand_over_the_environment() {
    let mut document = parse(&small(), "small.toml").expect("is TOML");
    apply_environment(&mut document, [("THALWEG__JOB__WORKERS".to_owned(), "3".to_owned())]);
    document.set("--workers", &["job", "workers"], "2");
    assert_eq!(validate(&document, &catalogue()).expect("is valid").job.workers, Some(2));
}

#[test]
fn warnings_do_not_stop_a_job() {
    let text = small()
        .replace("inputs = [\"last\"]", "inputs = [\"made-up\"]")
        .replace("inputs = [\"first\", \"made-up\"]", "inputs = [\"made-up\"]");
    let warnings = check(&text, &[]).expect("is valid").warnings;
    let found: Vec<_> = warnings.iter().map(|warning| (warning.severity, warning.code)).collect();
    assert_eq!(found, [(Severity::Warning, "unread")], "{warnings}");
}

#[test]
fn a_pattern_that_finds_what_the_job_writes_is_told() {
    let told = |pattern: &str| {
        let text = format!(
            "version = 1\n[job]\nname = \"loop\"\n[kafka]\nbootstrap_servers = \"localhost:9092\"\n[sources.in]\nconnector = \
             \"kafka\"\ntopic_pattern = \"{pattern}\"\n[sinks.out]\nconnector = \"kafka\"\ntopic = \"orders-out\"\ninputs = [\"in\"]\n"
        );
        let warnings = check(&text, &[]).unwrap_or_else(|problems| panic!("{}", problems.render(false))).warnings;
        warnings.iter().map(|warning| warning.code).collect::<Vec<_>>()
    };
    assert_eq!(told("^orders-"), ["kafka-loop"]);
    assert!(told("^orders-[0-9]+$").is_empty());
}

#[test]
fn demands() {
    let source = |name: &str| format!("[sources.{name}]\nconnector = \"generator\"\n");
    let operator = |id: &str, rest: &str| format!("[operators.{id}]\nuses = {rest}\n");
    let head = "version = 1\n[job]\nname = \"demand\"\n".to_owned() + &source("s");
    let sink = "[sinks.out]\nconnector = \"stdout\"\ninputs = [\"last\"]\n";
    for (operators, expected) in [
        (operator("last", "\"count\"\ninputs = [\"s\"]\nkey = [\"a\", \"b\"]\nwhere = \"c.d > 1\""), Some("a b c")),
        (operator("last", "\"filter\"\ninputs = [\"s\"]\nwhere = \"c > 1\""), None),
        (operator("last", "\"map\"\ninputs = [\"s\"]\nfields = { x = \"has(c)\" }"), None),
        (operator("last", "\"words\"\ninputs = [\"s\"]"), Some("line")),
        (
            operator("last", "\"reduce\"\ninputs = [\"s\"]\nkey = \"k\"\nof = \"v\"\nwith = \"acc + value\""),
            Some("k v"),
        ),
        (
            operator("f", "\"filter\"\ninputs = [\"s\"]\nwhere = \"c > 1\"")
                + &operator(
                    "last",
                    "\"aggregate\"\ninputs = [\"f\"]\nkey = \"k\"\naggregates = { m = \"mean(d)\", n = \"count()\" }",
                ),
            Some("c d k"),
        ),
    ] {
        let job = check(&format!("{head}{operators}{sink}"), &[]).expect(&operators).job;
        let expected =
            expected.map_or(Demand::All, |fields| Demand::Fields(fields.split(' ').map(str::to_owned).collect()));
        assert_eq!(job.demand("s"), expected, "{operators}");
    }
}

/// Files with pieces taken out, doubled or swapped: an answer for each, never a panic.
#[test]
fn any_text_is_read_or_refused() {
    let mut state: u64 = 7;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut invalid, mut total) = (0, 0);
    for text in [CONTRACT.to_owned(), small(), job_file("flights.toml").0] {
        let pieces: Vec<&str> = text.split_inclusive([' ', '\n', '"', '=', '[', ']']).collect();
        for _ in 0..1_000 {
            let mut changed = pieces.clone();
            for _ in 0..=random(3) {
                let (at, from) = (random(changed.len()), random(pieces.len()));
                match random(3) {
                    0 => drop(changed.remove(at)),
                    1 => changed.insert(at, pieces[from]),
                    _ => changed[at] = pieces[from],
                }
            }
            total += 1;
            if let Err(problems) = check(&changed.concat(), &[]) {
                invalid += 1;
                assert!(!problems.render(true).is_empty() && !problems.to_json_lines().is_empty());
            }
        }
    }
    assert!(invalid * 2 > total, "{invalid} of {total}");
}

#[test]
fn graphs() {
    let graph = graph(&check(&small(), &[]).expect("is valid").job);
    assert_eq!(
        graph.to_tree(),
        "made-up (generator)\n├─ first (filter)\n│  └─ last (orders::Totals)\n│     └─ out (stdout)\n└─ last (orders::Totals) …\n"
    );
    assert_eq!(graph.to_json()["nodes"][0], json!({ "id": "made-up", "kind": "source", "uses": "generator" }));
    assert_eq!(graph.to_json()["edges"][0], json!({ "from": "made-up", "to": "first" }));
    assert!(graph.to_mermaid().contains("n0([\"made-up<br/>generator\"])\n"));
    assert!(graph.to_mermaid().contains("n0 --> n2\n"));
    assert!(graph.to_dot().contains("\"first\" -> \"last\";"));
}

#[test]
fn explanations() {
    let job = check(&small(), &[]).expect("is valid").job;
    let explanation = explain(&job, &catalogue());
    let text = explanation.to_text();
    for part in [
        "job small\n",
        "by key, n, over 16 partitions",
        "one read and one write of state per distinct key and epoch",
        "`value > 3 && math.abs(n) > 1` is interpreted",
        "the job ends when its input ends",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert_eq!(explanation.to_json()["nodes"][1]["keeps"], "nothing");
}

/// The part of JSON Schema that the schema of jobs uses; why a value does not fit.
fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    let Value::Object(rules) = schema else {
        return if schema == &json!(false) { Err(format!("{value} is not allowed")) } else { Ok(()) };
    };
    let fail = |rule: &str| Err(format!("{value} breaks {rule} = {}", rules[rule]));
    for (rule, wanted) in rules {
        let holds = match rule.as_str() {
            "type" => wanted.as_array().map_or_else(|| vec![wanted], |list| list.iter().collect()).iter().any(|name| {
                match name.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("integer") => value.is_i64(),
                    Some("number") => value.is_number(),
                    Some("boolean") => value.is_boolean(),
                    _ => false,
                }
            }),
            "const" => value == wanted,
            "enum" => wanted.as_array().is_some_and(|list| list.contains(value)),
            "minimum" => value.as_i64() >= wanted.as_i64(),
            "maximum" => value.as_i64() <= wanted.as_i64(),
            "minLength" => value.as_str().map(|text| text.len() as u64) >= wanted.as_u64(),
            "required" => wanted
                .as_array()
                .is_some_and(|list| list.iter().all(|name| value.get(name.as_str().unwrap_or_default()).is_some())),
            "anyOf" => wanted.as_array().is_some_and(|list| list.iter().any(|one| fits(one, value).is_ok())),
            "oneOf" => {
                wanted.as_array().is_some_and(|list| list.iter().filter(|one| fits(one, value).is_ok()).count() == 1)
            }
            _ => true,
        };
        if !holds {
            return fail(rule);
        }
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let rule = rules
            .get("properties")
            .and_then(|properties| properties.get(name))
            .or_else(|| rules.get("additionalProperties"));
        rule.map_or(Ok(()), |rule| fits(rule, inner)).map_err(|why| format!("{name}: {why}"))?;
    }
    for inner in value.as_array().into_iter().flatten() {
        rules.get("items").map_or(Ok(()), |rule| fits(rule, inner))?;
    }
    Ok(())
}

#[test]
fn the_schema_fits_valid_jobs_only() {
    let schema = schema(&catalogue());
    let json = |text: &str| toml::from_str::<Value>(text).expect("is TOML");
    for text in [job_file("flights.toml").0, job_file("wordcount.toml").0, small(), CONTRACT.to_owned()] {
        fits(&schema, &json(&text)).unwrap_or_else(|why| panic!("{why}\n{text}"));
    }
    for (from, to) in [
        ("version = 1", "version = 2"),
        ("count = 10", "count = \"10\""),
        ("count = 10", "path = \"x\""),
        ("uses = \"filter\"", "uses = \"fliter\""),
        ("where =", "were ="),
        ("key = [\"key\", \"n\"]", ""),
        ("connector = \"stdout\"", "connector = \"stdout\"\nsingle = true"),
    ] {
        assert!(small().contains(from) && fits(&schema, &json(&small().replace(from, to))).is_err(), "{to}");
    }
}
