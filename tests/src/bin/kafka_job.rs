//! A job on Kafka that is written in Rust, with everything that a job file can say of its sources and sinks there; the cluster and the
//! names of its topics come from the environment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thalweg::prelude::*;

/// A variable that the test sets.
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the variable {name} is not set"))
}

fn values(raw: KafkaSource, include: Include) -> Arc<dyn RecordSource<Value>> {
    let inner = Arc::new(Untyped { format: Format::Json, fields: Fields::All });
    Arc::new(FormattedSource::new(Box::new(raw), Arc::new(Included::new(inner, include))))
}

fn fields(names: &[(&str, Part)], key_format: KeyFormat) -> Include {
    Include { fields: names.iter().map(|(name, part)| ((*name).to_owned(), *part)).collect(), key_format }
}

/// Two topics behind a file.
fn listed(cluster: &Arc<KafkaConfig>) -> thalweg_core::Result<Backfilled<Value>> {
    let [first, second] = ["FIRST", "SECOND"].map(variable);
    let offsets = BTreeMap::from([((first.clone(), PartitionId(0)), 2)]);
    let config = KafkaSourceConfig {
        start: Bound::Offsets { offsets, other: Some(Start::Earliest) },
        on_data_loss: OnDataLoss::Skip,
        discover_interval: None,
        ..KafkaSourceConfig::new(Topics::named(vec![first, second])?, variable("GROUP"))
    };
    let include = fields(
        &[
            ("key", Part::Key),
            ("at", Part::Timestamp),
            ("with", Part::Headers),
            ("topic", Part::Topic),
            ("of", Part::Partition),
            ("offset", Part::Offset),
            ("gone", Part::Tombstone),
        ],
        if variable("KEY_FORMAT") == "text" { KeyFormat::Text } else { KeyFormat::Json },
    );
    let file = FileSource::new(variable("FOLDER"), vec!["history.jsonl".to_owned()], &Format::Json);
    let inner = Arc::new(Untyped { format: Format::Json, fields: Fields::All });
    let beside = Arc::new(Included::new(inner, include.clone()));
    let file = FormattedSource::new(Box::new(file.max_record_bytes(1000)), beside);
    Ok(Backfilled::new(Arc::new(file), values(KafkaSource::new(cluster.clone(), config), include)))
}

/// All topics of a name, behind the beginning of another one.
fn found(cluster: &Arc<KafkaConfig>) -> thalweg_core::Result<Backfilled<Value>> {
    let pattern = KafkaSourceConfig {
        start: Start::Time(1_000_000).into(),
        ..KafkaSourceConfig::new(Topics::pattern(&variable("PATTERN"))?, variable("GROUP"))
    };
    let second = variable("SECOND");
    let history = KafkaSourceConfig {
        topics: Topics::named(vec![second.clone()])?,
        start: Start::Earliest.into(),
        end: Some(Bound::Offsets { offsets: BTreeMap::from([((second, PartitionId(0)), 1)]), other: None }),
        discover_interval: None,
        ..pattern.clone()
    };
    let topics = [history, pattern].map(|config| {
        let include = fields(&[("key", Part::Key), ("topic", Part::Topic)], KeyFormat::Raw);
        values(KafkaSource::new(cluster.clone(), config), include)
    });
    let [history, pattern] = topics;
    Ok(Backfilled::new(history, pattern))
}

fn main() -> thalweg::Exit {
    thalweg::run_job(|| {
        let client = BTreeMap::from([("client.id".to_owned(), "thalweg-in-rust".to_owned())]);
        let mut cluster = KafkaConfig::new(&variable("BOOTSTRAP"), client)?;
        cluster.replication = Some(1);
        cluster.patience = Duration::from_secs(20);
        cluster.transaction_timeout = Duration::from_secs(5);
        let job = JobBuilder::new("both")?;
        job.partitions(2)?.checkpoint_interval(Duration::from_millis(50)).on_error(OnError::DeadLetter);
        job.kafka(cluster.clone()).delivery(Delivery::ExactlyOnce).dead_letters_to_kafka(Some(&variable("LETTERS")));
        let cluster = Arc::new(cluster);
        let (listed, found) = (listed(&cluster)?, found(&cluster)?);
        let listed = job.limited_source("listed", listed, 100_000.0);
        let found = job.source("found", found);
        let changelog = StoreSettings { changelog: ChangelogKind::Kafka, query: false };
        found
            .clone()
            .key_by(|row: Value| (row.get("key").map(Value::to_string).unwrap_or_default(), ()))
            .count("counts")
            .store(changelog)
            .discard("nothing");
        let out = |name: &str| KafkaSinkConfig::new(variable(name));
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let rows = listed.clone().filter("rows", |row: &Value| row.get("gone") != Some(&Value::Bool(true)));
        rows.kafka_sink(
            "named",
            KafkaSinkConfig {
                partitions: Some(3),
                key: named(&["n", "topic"]),
                partition: Some("p".to_owned()),
                headers: named(&["key", "of"]),
                ..out("OUT_NAMED")
            },
        );
        let tombstone = Some("gone".to_owned());
        let keyed = KafkaSinkConfig { partitions: Some(4), key: named(&["key"]), tombstone, ..out("OUT_KEYED") };
        listed.kafka_sink("keyed", keyed);
        let found_sink = KafkaSinkConfig {
            partitions: Some(3),
            partitioner: Partitioner::JobPartition,
            value: ValueWriter::Plain(OutFormat::Csv),
            ..out("OUT_FOUND")
        };
        found.kafka_sink("found-too", found_sink);
        job.build()
    })
}
