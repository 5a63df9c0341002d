//! What each node of a job keeps, how it is partitioned, and what it costs.

use std::fmt::Write;

use serde::Serialize;
use thalweg_connectors::dead_letter;
use thalweg_connectors::kafka::Bound;
use thalweg_connectors::log::{Delivery, Partitioner, Start};
use thalweg_core::{format_bytes, format_duration};
use thalweg_operators::{Catalogue, ChangelogKind, OnError};

use crate::demand::Demand;
use crate::graph::{NodeKind, graph};
use crate::rights::{self, KafkaResource, KafkaRight, rights};
use crate::spec::{
    BackfillSpec, ConfigValue, DeadLettersPlace, DeadLettersSpec, HistorySpec, JobSpec, OperatorSpec, SinkConnector,
    SinkSpec, SourceConnector, SourceSpec, TopicsSpec,
};

/// An explained job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The job's name.
    pub job: String,
    /// What holds for all of it.
    pub settings: Vec<String>,
    /// Its nodes, in the order of the graph.
    pub nodes: Vec<ExplainedNode>,
    /// Files, folders and topics that it reads, writes or makes.
    pub needs: Vec<String>,
    /// What it uses of its Kafka cluster, and has to be allowed to do there.
    pub rights: Vec<KafkaRight>,
}

/// An explained node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedNode {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// Connector or operator.
    pub uses: String,
    /// What it emits.
    pub output: String,
    /// What it keeps.
    pub keeps: String,
    /// How its work is divided.
    pub partitioning: String,
    /// What it costs.
    pub costs: Vec<String>,
}

/// Explains a job.
pub fn explain(job: &JobSpec, catalogue: &Catalogue) -> Explanation {
    let mut needs = Vec::new();
    if job.kafka.is_some() {
        needs.push("makes the topic generation-ID of Kafka, 1 partition: who runs the job".to_owned());
        needs.push("makes the topic bindings-ID of Kafka, 1 partition: the bindings of its epochs".to_owned());
    }
    let mut nodes: Vec<ExplainedNode> = graph(job)
        .nodes
        .into_iter()
        .map(|node| ExplainedNode {
            id: node.id,
            kind: node.kind,
            uses: node.uses,
            output: String::new(),
            keeps: "nothing".to_owned(),
            partitioning: String::new(),
            costs: Vec::new(),
        })
        .collect();
    let (sources, rest) = nodes.split_at_mut(job.sources.len());
    let (operators, sinks) = rest.split_at_mut(job.operators.len());
    for (node, source) in sources.iter_mut().zip(&job.sources) {
        explain_source(node, source, job, &mut needs);
    }
    for (node, operator) in operators.iter_mut().zip(&job.operators) {
        explain_operator(node, operator, job, catalogue, &mut needs);
    }
    for (node, sink) in sinks.iter_mut().zip(&job.sinks) {
        explain_sink(node, sink, job, &mut needs);
    }
    if let Some(node) = sinks.get_mut(job.sinks.len()) {
        explain_dead_letters(node, &job.dead_letters, &mut needs);
    }
    Explanation { job: job.name.to_string(), settings: settings(job), nodes, needs, rights: rights(job, catalogue) }
}

fn settings(job: &JobSpec) -> Vec<String> {
    let partitions = job.partitions.get();
    let epoch = match job.epoch.interval {
        Some(interval) => format!("an epoch is cut after {}", format_duration(interval)),
        None => "an epoch is cut by its size alone".to_owned(),
    };
    let limit =
        format!("{} records or {} of a source partition", job.epoch.max_records, format_bytes(job.epoch.max_bytes));
    let bounded = if job.is_bounded() { "ends when its input ends" } else { "runs until it is stopped" };
    vec![
        format!(
            "{partitions} partitions, fixed for the life of the state; at most {partitions} workers share keyed work"
        ),
        format!("{epoch}, or {limit}"),
        format!("a checkpoint every {}; it never stops a worker", format_duration(job.checkpoint_interval)),
        format!("stores use at most {} of memory for values, the rest is on disk", format_bytes(job.state_memory)),
        format!("a record that fails {}", failing(job.on_error)),
        format!("the job {bounded}"),
    ]
}

fn failing(on_error: OnError) -> &'static str {
    match on_error {
        OnError::Fail => "stops the job",
        OnError::Drop => "is dropped and counted",
        OnError::DeadLetter => "is set aside as a dead letter and counted",
    }
}

fn explain_source(node: &mut ExplainedNode, source: &SourceSpec, job: &JobSpec, needs: &mut Vec<String>) {
    node.keeps = "its position, in every checkpoint".to_owned();
    let (output, partitioning) = match &source.connector {
        SourceConnector::File { paths, follow, .. } => {
            needs.extend(paths.iter().map(|path| format!("reads {}", job.base.join(path).display())));
            if *follow {
                needs.push("keeps the records in the job's log until a checkpoint holds them".to_owned());
                ("the records of files, as they grow and are rotated".to_owned(), "one partition".to_owned())
            } else {
                let parts = "a file is a partition; large plain files are several".to_owned();
                ("the records of files, as they are when the job is created".to_owned(), parts)
            }
        }
        SourceConnector::Generator(generator) => {
            let count = generator.count.map_or_else(|| "without end".to_owned(), |count| format!("{count} records"));
            (
                format!("{{\"n\", \"key\", \"value\"}}, {} keys, {count}", generator.keys),
                format!("{} partitions", generator.partitions),
            )
        }
        SourceConnector::Log { topic, start, .. } => {
            needs.push(format!("reads the topic {topic:?} of the embedded log, {}", begins_at(*start)));
            (format!("a record per record of the topic {topic:?}"), "as the topic".to_owned())
        }
        SourceConnector::Kafka(kafka) => {
            let topics = named(&kafka.topics);
            needs.extend(kafka.backfill.as_ref().map(|backfill| first(job, backfill)));
            needs.push(format!("reads the topics of Kafka {topics}, {}", begins(&kafka.start)));
            if let Some(interval) = kafka.discover_interval {
                needs.push(format!("looks for new partitions and topics every {}", format_duration(interval)));
            }
            let group = rights::group(job, kafka);
            needs.push(format!("writes its positions to the consumer group {group:?}, for tools that show lag"));
            (format!("a record per committed record of the topics {topics}"), "as the topics".to_owned())
        }
        SourceConnector::Stdin { .. } => {
            needs.push("reads standard input, and keeps its lines in the job's log".to_owned());
            ("a record per line".to_owned(), "one partition".to_owned())
        }
    };
    node.output = output;
    node.partitioning = partitioning;
    needs.extend(source.schemas().into_iter().map(|(_, schema)| match (&schema.file, &job.schema_registry) {
        (Some(path), _) => format!("reads the schema {}", path.display()),
        (None, registry) => {
            let url = registry.as_ref().map_or("", |registry| registry.url.as_str());
            format!("asks the schema registry {url} for each schema once, and keeps it in the topic schemas-ID of the job's own log")
        }
    }));
    if job.on_error == OnError::DeadLetter && !matches!(source.connector, SourceConnector::Generator(_)) {
        needs.push(format!("reads what is retried from the topic retry-ID-{} of the job's own log", source.id));
        node.partitioning += ", and one for what is retried";
    }
    if let Demand::Fields(fields) = job.demand(&source.id) {
        let fields: Vec<_> = fields.into_iter().collect();
        node.costs.push(match &*fields {
            [] => "no field is used".to_owned(),
            fields => format!("only these fields are used: {}", fields.join(", ")),
        });
    }
    if let Some(rate) = source.rate {
        node.costs.push(format!("at most {rate} records/s"));
    }
}

fn named(topics: &TopicsSpec) -> String {
    match topics {
        TopicsSpec::Named(names) => names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "),
        TopicsSpec::Pattern(pattern) => format!("whose names {pattern} finds"),
    }
}

/// What a backfill reads.
fn first(job: &JobSpec, backfill: &BackfillSpec) -> String {
    match &backfill.history {
        HistorySpec::File { paths, .. } => {
            let paths = paths.iter().map(|path| job.base.join(path).display().to_string());
            format!(
                "reads {} first, to the end that they have when the job is created",
                paths.collect::<Vec<_>>().join(", ")
            )
        }
        HistorySpec::Kafka { topics, start, end } => {
            let end = match end {
                Bound::At(Start::Latest) => "up to the end that they have when the job is created".to_owned(),
                Bound::At(Start::Earliest) => "up to their first record".to_owned(),
                Bound::At(Start::Time(_)) | Bound::Offsets { .. } => {
                    format!("up to where one would begin {}", begins(end))
                }
            };
            format!("reads the topics of Kafka {} first, {}, {end}", named(topics), begins(start))
        }
    }
}

/// What is read first where there is no checkpoint yet.
fn begins_at(start: Start) -> String {
    match start {
        Start::Earliest => "from the first record that is kept".to_owned(),
        Start::Latest => "from what comes after the job is created".to_owned(),
        Start::Time(time) => match jiff::Timestamp::from_microsecond(time) {
            Ok(time) => format!("from the first record at or after {time}"),
            Err(_) => format!("from the first record at or after {time} microseconds since 1970"),
        },
    }
}

fn begins(bound: &Bound) -> String {
    match bound {
        Bound::At(start) => begins_at(*start),
        Bound::Offsets { offsets, other } => {
            let of_each = offsets.iter().map(|((topic, partition), offset)| format!("{offset} of {topic}/{partition}"));
            let rest = other.map_or_else(String::new, |start| format!(", other partitions {}", begins_at(start)));
            format!("from the offsets {}{rest}", of_each.collect::<Vec<_>>().join(", "))
        }
    }
}

fn explain_operator(
    node: &mut ExplainedNode,
    operator: &OperatorSpec,
    job: &JobSpec,
    catalogue: &Catalogue,
    needs: &mut Vec<String>,
) {
    let info = catalogue.operator(&operator.uses);
    node.output = info.map_or_else(String::new, |info| info.output.clone());
    node.partitioning = match &operator.key {
        Some(key) => {
            node.costs.push("an exchange: each record goes to the worker of its partition".to_owned());
            format!("by {}, over {} partitions", key.join(", "), job.partitions.get())
        }
        None if operator.store.is_some() => format!("by its own key, over {} partitions", job.partitions.get()),
        None => "as its input".to_owned(),
    };
    if let Some(store) = operator.store {
        let seen = if store.query { "can be queried" } else { "cannot be queried" };
        node.keeps = format!("a value per key, in the store {:?}, which {seen}", operator.id);
        node.costs.push("one read and one write of state per distinct key and epoch".to_owned());
        node.costs.push(match store.changelog {
            ChangelogKind::Kafka => {
                needs.extend(rights::changelogs(operator, catalogue).into_iter().map(|topic| {
                    format!("makes the compacted topic {topic} of Kafka, {} partitions", job.partitions.get())
                }));
                "each changed key is written to the changelog once per checkpoint".to_owned()
            }
            ChangelogKind::None => "changes are kept on the local disk only".to_owned(),
            ChangelogKind::Log => {
                needs.push(format!(
                    "makes the changelog of {:?} in the embedded log, {} partitions",
                    operator.id,
                    job.partitions.get()
                ));
                "each changed key is written to the changelog once per checkpoint".to_owned()
            }
        });
    }
    if let Some((name, text)) = interpreted(operator) {
        node.costs.push(format!("{name}: `{text}` is interpreted, about a microsecond each, not compiled"));
    }
    if operator.on_error == OnError::DeadLetter {
        node.costs.push("a copy of each record, to have it when the operator fails on it".to_owned());
    }
    if operator.on_error != job.on_error {
        node.costs.push(format!("a record that fails {}", failing(operator.on_error)));
    }
}

/// The first expression that is left to the interpreter.
fn interpreted(operator: &OperatorSpec) -> Option<(&str, &str)> {
    operator.config.iter().find_map(|(name, value)| {
        let expressions: Vec<_> = match value {
            ConfigValue::Expression(expression) => vec![expression],
            ConfigValue::Expressions(named) => named.iter().map(|(_, expression)| expression).collect(),
            ConfigValue::Aggregations(named) => {
                named.iter().flat_map(|(_, fold)| fold.argument.iter().chain(&fold.filter)).collect()
            }
            ConfigValue::Duration(_)
            | ConfigValue::Bytes(_)
            | ConfigValue::Int(_)
            | ConfigValue::Float(_)
            | ConfigValue::Bool(_)
            | ConfigValue::Text(_)
            | ConfigValue::Texts(_)
            | ConfigValue::Any(_) => Vec::new(),
        };
        expressions
            .into_iter()
            .find(|expression| !expression.is_native())
            .map(|expression| (name.as_str(), expression.text()))
    })
}

fn explain_sink(node: &mut ExplainedNode, sink: &SinkSpec, job: &JobSpec, needs: &mut Vec<String>) {
    node.keeps = "its position, in every checkpoint".to_owned();
    let partitions = job.partitions.get();
    node.partitioning = match &sink.connector {
        SinkConnector::File { path, single: false, .. } => {
            needs.push(format!("writes up to {partitions} files into {}", path.display()));
            "a file per partition".to_owned()
        }
        SinkConnector::File { path, single: true, .. } => {
            needs.push(format!("writes {}", path.display()));
            node.costs.push("all records go through one worker".to_owned());
            "one file, in the order of epoch, partition, sequence".to_owned()
        }
        SinkConnector::Stdout { .. } => "one stream, through one worker".to_owned(),
        SinkConnector::Blackhole => "none".to_owned(),
        SinkConnector::Log { topic, partitions, .. } => {
            let partitions = partitions.unwrap_or_else(|| job.partitions.get());
            needs.push(format!("writes the topic {topic:?} of the embedded log, {partitions} partitions"));
            "as the topic".to_owned()
        }
        SinkConnector::Kafka(kafka) => {
            let made = kafka.partitions.unwrap_or(partitions);
            needs.push(format!(
                "writes the topic {:?} of Kafka; made with {made} partitions where it is missing",
                kafka.topic
            ));
            let key = job.kafka_key(sink, kafka);
            match (&kafka.partition, kafka.partitioner) {
                (Some(field), _) => format!("by the field {field:?}"),
                (None, Partitioner::Key) if !key.is_empty() => {
                    format!("by the key {}, as other clients do", key.join(", "))
                }
                (None, Partitioner::Key | Partitioner::JobPartition) => "by the partition of the job".to_owned(),
            }
        }
    };
    node.output = match job.delivery {
        Delivery::ExactlyOnce => "each record once, also after a crash".to_owned(),
        Delivery::AtLeastOnce => "each record, those since the last checkpoint perhaps again after a crash".to_owned(),
    };
}

fn explain_dead_letters(node: &mut ExplainedNode, to: &DeadLettersSpec, needs: &mut Vec<String>) {
    let topic = to.topic.clone().unwrap_or_else(|| format!("{}-ID, with the id of the job,", dead_letter::SINK));
    let log = match &to.place {
        DeadLettersPlace::Own => "the job's own log".to_owned(),
        DeadLettersPlace::Folder(path) => format!("the embedded log {}", path.display()),
        DeadLettersPlace::Kafka => "Kafka; made with one partition where it is missing".to_owned(),
    };
    needs.push(format!("writes records that are set aside to the topic {topic} of {log}"));
    node.keeps = "its position, in every checkpoint".to_owned();
    node.partitioning = "one partition, through one worker, in the order of epoch and provenance".to_owned();
    node.output = "each record that is set aside once, also after a crash".to_owned();
}

impl Explanation {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("job {}\n", self.job);
        for line in &self.settings {
            let _ = writeln!(text, "  {line}");
        }
        for node in &self.nodes {
            let kind = match node.kind {
                NodeKind::Source => "source",
                NodeKind::Operator => "operator",
                NodeKind::Sink => "sink",
            };
            let _ = writeln!(text, "\n{kind} {} ({})", node.id, node.uses);
            let _ = writeln!(text, "  gives       {}", node.output);
            let _ = writeln!(text, "  keeps       {}", node.keeps);
            let _ = writeln!(text, "  partitioned {}", node.partitioning);
            for (index, cost) in node.costs.iter().enumerate() {
                let _ = writeln!(text, "  {:<11} {cost}", if index == 0 { "costs" } else { "" });
            }
        }
        if !self.needs.is_empty() {
            text.push_str("\nneeds\n");
            for need in &self.needs {
                let _ = writeln!(text, "  {need}");
            }
        }
        if !self.rights.is_empty() {
            text.push_str(
                "\nrights on Kafka, where it asks for them; ID is the id of the job, made when it is created\n",
            );
        }
        for KafkaRight { resource, name, operations, purpose } in &self.rights {
            let kind = match resource {
                KafkaResource::Topic => "topic",
                KafkaResource::TopicPattern => "topics by pattern",
                KafkaResource::Group => "group",
                KafkaResource::TransactionalId => "transactional id",
            };
            let _ = writeln!(text, "  {kind} {name}: {} ({purpose})", operations.join(", "));
        }
        text
    }

    /// `{"job","settings","nodes":[{"id","kind","uses","output","keeps","partitioning","costs"}],"needs","rights":[{"resource","name","operations","purpose"}]}`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("texts are JSON")
    }
}
