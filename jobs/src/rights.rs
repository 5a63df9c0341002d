//! What a job uses of its Kafka cluster, and what its user must be allowed to do there.

use serde::Serialize;
use thalweg_connectors::dead_letter;
use thalweg_connectors::log::Delivery;
use thalweg_operators::{Catalogue, ChangelogKind};

use crate::spec::{
    BackfillSpec, DeadLettersPlace, HistorySpec, JobSpec, KafkaSourceSpec, OperatorSpec, SinkConnector,
    SourceConnector, SourceSpec, TopicsSpec,
};

/// Stands in names for the id of the job, which is made when the job is created.
const ID: &str = "ID";

/// A kind of thing in a cluster that access lists name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KafkaResource {
    /// A topic.
    Topic,
    /// All topics whose names a regular expression finds.
    TopicPattern,
    /// A consumer group.
    Group,
    /// The id of a transactional producer.
    TransactionalId,
}

/// Something in the cluster that a job uses, and the operations that it needs on it: those are Kafka's own words for access lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KafkaRight {
    /// What it is.
    pub resource: KafkaResource,
    /// Its name; `ID` in it stands for the id of the job.
    pub name: String,
    /// What is done with it.
    pub operations: Vec<&'static str>,
    /// What for.
    pub purpose: String,
}

/// Read, and nothing else.
const SOURCE: &[&str] = &["Describe", "Read"];
/// Made where it is missing.
const SINK: &[&str] = &["Create", "Describe", "DescribeConfigs", "Write"];
/// Read back as well: what is there is not written again.
const EXACT_SINK: &[&str] = &["Create", "Describe", "DescribeConfigs", "Read", "Write"];
/// Cut at its beginning as well.
const JOURNAL: &[&str] = &["Create", "Delete", "Describe", "DescribeConfigs", "Read", "Write"];
const GROUP: &[&str] = &["Read"];
const PRODUCER: &[&str] = &["Describe", "Write"];

/// Everything in the cluster of `[kafka]` that a job uses; nothing where it has no such table.
pub(crate) fn rights(job: &JobSpec, catalogue: &Catalogue) -> Vec<KafkaRight> {
    if job.kafka.is_none() {
        return Vec::new();
    }
    let own = [("generation", "who runs the job"), ("bindings", "the bindings of its epochs")];
    let mut rights: Vec<KafkaRight> =
        own.iter().map(|(name, purpose)| topic(format!("{name}-{ID}"), JOURNAL, *purpose)).collect();
    let mut producers: Vec<KafkaRight> =
        own.iter().map(|(name, purpose)| producer(format!("{ID}-{name}"), *purpose)).collect();
    rights.extend(job.sources.iter().flat_map(|source| of_source(job, source)));
    let changelogs: Vec<KafkaRight> =
        job.operators.iter().flat_map(|operator| of_changelog(operator, catalogue)).collect();
    if !changelogs.is_empty() {
        producers.push(producer(format!("{ID}-changelogs-0"), "the changelogs"));
    }
    rights.extend(changelogs);
    let written = of_sinks(job);
    if !written.is_empty() && job.delivery == Delivery::ExactlyOnce {
        producers.push(producer(format!("{ID}-sinks-0"), "the sinks"));
    }
    rights.extend(written);
    rights.extend(producers);
    rights
}

fn topic(name: String, operations: &[&'static str], purpose: impl Into<String>) -> KafkaRight {
    KafkaRight { resource: KafkaResource::Topic, name, operations: operations.to_vec(), purpose: purpose.into() }
}

fn producer(name: String, purpose: impl Into<String>) -> KafkaRight {
    let operations = PRODUCER.to_vec();
    KafkaRight { resource: KafkaResource::TransactionalId, name, operations, purpose: purpose.into() }
}

fn of_source(job: &JobSpec, source: &SourceSpec) -> Vec<KafkaRight> {
    let SourceConnector::Kafka(kafka) = &source.connector else { return Vec::new() };
    let purpose = format!("the source {}", source.id);
    let mut rights = of_topics(&kafka.topics, &purpose);
    if let Some(BackfillSpec { history: HistorySpec::Kafka { topics, .. }, .. }) = &kafka.backfill {
        rights.extend(of_topics(topics, &format!("the backfill of {}", source.id)));
    }
    rights.push(KafkaRight {
        resource: KafkaResource::Group,
        name: group(job, kafka),
        operations: GROUP.to_vec(),
        purpose: format!("the positions of {purpose}, for tools that show lag"),
    });
    rights
}

/// The consumer group that a source writes its positions to.
pub(crate) fn group(job: &JobSpec, kafka: &KafkaSourceSpec) -> String {
    kafka.group.clone().unwrap_or_else(|| format!("thalweg-{}", job.name))
}

fn of_topics(topics: &TopicsSpec, purpose: &str) -> Vec<KafkaRight> {
    match topics {
        TopicsSpec::Named(names) => names.iter().map(|name| topic(name.clone(), SOURCE, purpose)).collect(),
        TopicsSpec::Pattern(pattern) => {
            vec![KafkaRight { resource: KafkaResource::TopicPattern, ..topic(pattern.clone(), SOURCE, purpose) }]
        }
    }
}

/// The topics of an operator's changelog: an operator with timers has a second store.
fn of_changelog(operator: &OperatorSpec, catalogue: &Catalogue) -> Vec<KafkaRight> {
    if operator.store.is_none_or(|store| store.changelog != ChangelogKind::Kafka) {
        return Vec::new();
    }
    let purpose = format!("the changelog of {}", operator.id);
    changelogs(operator, catalogue).into_iter().map(|name| topic(name, EXACT_SINK, &purpose)).collect()
}

/// The names of the topics of an operator's changelog.
pub(crate) fn changelogs(operator: &OperatorSpec, catalogue: &Catalogue) -> Vec<String> {
    let timers = catalogue.operator(&operator.uses).is_some_and(|info| info.timers);
    let of_timers = timers.then(|| format!("changelog-{ID}-{}.timers", operator.id));
    std::iter::once(format!("changelog-{ID}-{}", operator.id)).chain(of_timers).collect()
}

/// The topics of the sinks, and that of the dead letters.
fn of_sinks(job: &JobSpec) -> Vec<KafkaRight> {
    let operations = match job.delivery {
        Delivery::ExactlyOnce => EXACT_SINK,
        Delivery::AtLeastOnce => SINK,
    };
    let sinks = job.sinks.iter().filter_map(|sink| match &sink.connector {
        SinkConnector::Kafka(kafka) => Some(topic(kafka.topic.clone(), operations, format!("the sink {}", sink.id))),
        SinkConnector::File { .. } | SinkConnector::Stdout { .. } | SinkConnector::Blackhole => None,
        SinkConnector::Log { .. } => None,
    });
    let letters = (job.dead_letters.place == DeadLettersPlace::Kafka && !job.setting_aside().is_empty()).then(|| {
        let name = job.dead_letters.topic.clone().unwrap_or_else(|| format!("{}-{ID}", dead_letter::SINK));
        topic(name, EXACT_SINK, "records that are set aside")
    });
    sinks.chain(letters).collect()
}
