//! The node of a source that reads Kafka.

use std::sync::Arc;

use thalweg_connectors::dead_letter::Retries;
use thalweg_connectors::kafka::{KafkaConfig, KafkaSource, KafkaSourceConfig, Topics};
use thalweg_connectors::{DecoderOf, Fields, FormattedSource, Include, Included, Part, RecordSource, Untyped};
use thalweg_core::{Result, Value};

use crate::demand::Demand;
use crate::spec::{JobSpec, KafkaSourceSpec, SourceSpec, TopicsSpec};

/// The records of a source.
pub(crate) fn kafka_source(
    job: &JobSpec,
    source: &SourceSpec,
    spec: &KafkaSourceSpec,
    cluster: Arc<KafkaConfig>,
    retries: Retries,
) -> Result<Arc<dyn RecordSource<Value>>> {
    let config = KafkaSourceConfig {
        topics: match &spec.topics {
            TopicsSpec::Named(names) => Topics::named(names.clone())?,
            TopicsSpec::Pattern(pattern) => Topics::pattern(pattern)?,
        },
        start: spec.start.clone(),
        end: None,
        on_data_loss: spec.on_data_loss,
        group: spec.group.clone().unwrap_or_else(|| format!("thalweg-{}", job.name)),
    };
    let (fields, include) = used(&job.demand(&source.id), &spec.include);
    let values: Arc<dyn DecoderOf<Value>> = Arc::new(Untyped { format: spec.format.clone(), fields });
    let decoders = if include.fields.is_empty() { values } else { Arc::new(Included::new(values, include)) };
    let records = FormattedSource::new(Box::new(KafkaSource::new(cluster, config)), decoders);
    Ok(Arc::new(records.with_retries(retries)))
}

/// What is read of the value, and what beside it.
fn used(demand: &Demand, include: &Include) -> (Fields, Include) {
    let Demand::Fields(wanted) = demand else { return (Fields::All, include.clone()) };
    let beside = |name: &String| include.fields.iter().any(|(own, _)| own == name);
    let of_value = wanted.iter().filter(|name| !beside(name)).cloned().collect();
    // Whether tombstones are records does not depend on who looks.
    let kept = |(name, part): &&(String, Part)| *part == Part::Tombstone || wanted.contains(name);
    let fields = include.fields.iter().filter(kept).cloned().collect();
    (Fields::Only(of_value), Include { fields, key_format: include.key_format })
}
