//! A job file and the Rust builder make the same kind of plan.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_connectors::GeneratorSource;
use thalweg_connectors::log::{EmbeddedLog, Log};
use thalweg_core::{JobId, Value};
use thalweg_jobs::{PlanContext, parse, plan, stores, validate};
use thalweg_operators::{EpochCtx, JobBuilder, KeyedProcess, Output, Plan, ProcessError, RecordsOf, Registry};

#[derive(Clone, Serialize, Deserialize)]
struct Made {
    key: u64,
    value: f64,
}

/// How often each key came.
#[derive(Deserialize)]
struct Totals;

impl KeyedProcess for Totals {
    type Key = u64;
    type In = Made;
    type State = (u64, f64);
    type Out = Made;

    fn process(
        &self,
        key: &u64,
        made: &mut RecordsOf<'_, u64, Made>,
        state: &mut Option<(u64, f64)>,
        out: &mut Output<Made>,
        _: &EpochCtx,
    ) -> Result<(), ProcessError> {
        let (count, sum) = state.get_or_insert((0, 0.0));
        for made in made {
            *count += 1;
            *sum += made.value;
        }
        out.emit(Made { key: *key, value: *sum });
        Ok(())
    }
}

const JOB: &str = r#"
version = 1
[job]
name = "both"
crate = "both-ways"
partitions = 8
[sources.numbers]
connector = "generator"
count = 100
keys = 7
[operators.totals]
uses = "both_ways::Totals"
inputs = ["numbers"]
key = "key"
[operators.again]
uses = "count"
inputs = ["totals"]
key = "key"
[sinks.out]
connector = "blackhole"
inputs = ["totals"]
"#;

/// What of a plan is the same however it was written: the nodes with what they use, their inputs, and the stores with their shapes.
fn outline(plan: &Plan) -> Vec<String> {
    let ids: Vec<&str> = plan.nodes().map(|node| node.id.as_str()).collect();
    let nodes = plan.nodes().map(|node| {
        let inputs: Vec<_> = node.inputs.iter().map(|input| ids[*input]).collect();
        // A source is named after what it reads in a file, and after what it gives in Rust.
        let uses = if node.kind() == "source" { "" } else { node.uses.as_str() };
        format!("{} {} {uses} reads {inputs:?}", node.kind(), node.id)
    });
    let stores = plan.stores().into_iter();
    let stores = stores.filter(|(shape, _)| shape.id.starts_with("totals"));
    let stores =
        stores.map(|(shape, settings)| format!("{}: {} to {}, {settings:?}", shape.id, shape.key, shape.value));
    nodes.chain(stores).collect()
}

#[test]
fn a_job_file_and_the_builder_make_the_same_graph() {
    let registry = Registry::new("both-ways", "1.0.0").keyed::<Totals>("both_ways::Totals");
    let document = parse(JOB, "both.toml").expect("it is TOML");
    let job =
        validate(&document, registry.catalogue()).unwrap_or_else(|problems| panic!("{}", problems.render(false))).job;
    let dir = tempfile::tempdir().expect("a folder");
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(dir.path(), Arc::new(|| 0)).expect("a log"));
    let open_log = |_: &std::path::Path| Ok(log.clone());
    let context = PlanContext {
        registry: &registry,
        job_id: JobId(1),
        log: log.clone(),
        log_dir: dir.path().to_owned(),
        keep_input: false,
        recorded: None,
        kafka: None,
        cluster: None,
        open_log: &open_log,
    };
    let from_file = plan(&job, &context).expect("a plan");

    let builder = JobBuilder::new("both").expect("a name");
    builder.partitions(8).expect("in range");
    let numbers = GeneratorSource { count: Some(100), keys: 7, skew: 0.0, seed: 0, partitions: 1 };
    let totals = builder
        .source::<Value>("numbers", numbers)
        .map("typed", |row: Value| row.to_serde::<Made>().expect("the generator's record"))
        .key_by(|made| (made.key, made))
        .process("totals", Totals);
    totals.clone().key_by(|made: Made| (made.key, ())).count("again");
    totals.discard("out");
    let from_rust = builder.build().expect("a plan");

    let left: Vec<_> = outline(&from_file);
    // In Rust the records are typed by a node, in a job file at the edge.
    let right: Vec<_> = outline(&from_rust)
        .into_iter()
        .filter(|line| !line.contains(" typed "))
        .map(|line| line.replace("[\"typed\"]", "[\"numbers\"]"))
        .collect();
    assert_eq!(left, right);
    assert_eq!(from_file.settings().partitions, from_rust.settings().partitions);

    let offline: Vec<_> = stores(&job, &registry).expect("the stores").into_iter().map(|(shape, _)| shape.id).collect();
    let planned: Vec<_> = from_file.stores().into_iter().map(|(shape, _)| shape.id).collect();
    assert_eq!(offline, planned, "what is read of a stopped job is what runs");
}

/// The keys of a connector of `sources` or `sinks`, but for those that all of them have and those of CSV.
fn keys(section: &str, connector: &str) -> Vec<String> {
    let schema = thalweg_jobs::schema(Registry::default().catalogue());
    let variants = &schema["properties"][section]["additionalProperties"]["oneOf"];
    let variant = variants.as_array().expect("a list").iter();
    let mut variant = variant.filter(|variant| variant["properties"]["connector"]["const"] == connector);
    let properties = variant.next().expect("the connector")["properties"].as_object().expect("an object").clone();
    let other = ["connector", "inputs", "emit", "time", "delimiter", "quote", "columns", "multiline"];
    properties.into_iter().map(|(name, _)| name).filter(|name| !other.contains(&name.as_str())).collect()
}

#[test]
fn the_page_on_rust_says_how_every_key_of_kafka_is_said_there() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rust.md")).expect("the page");
    let (_, section) = page.split_once("\n## On Kafka\n").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("another one behind it");
    let firsts = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let firsts: String = firsts.collect::<Vec<_>>().join("\n");
    for name in keys("sources", "kafka").iter().chain(&keys("sinks", "kafka")) {
        assert!(firsts.contains(&format!("`{name}`")), "{name:?} is not in the table of docs/rust.md");
    }
}
