//! The node of a source that reads Kafka.

use std::sync::Arc;

use thalweg_connectors::dead_letter::Retries;
use thalweg_connectors::kafka::{KafkaConfig, KafkaSource, KafkaSourceConfig, Topics};
use thalweg_connectors::{
    Backfilled, DecoderOf, Fields, FileSource, Format, FormattedSource, Include, Included, Part, RawSource,
    RecordSource, Untyped,
};
use thalweg_core::{Result, Value};

use crate::demand::Demand;
use crate::spec::{BackfillSpec, HistorySpec, JobSpec, KafkaSourceSpec, SourceSpec, TopicsSpec};

/// The records of a source; first those of its backfill, where it has one.
pub(crate) fn kafka_source(
    job: &JobSpec,
    source: &SourceSpec,
    spec: &KafkaSourceSpec,
    cluster: Arc<KafkaConfig>,
    retries: Retries,
) -> Result<Arc<dyn RecordSource<Value>>> {
    let group = spec.group.clone().unwrap_or_else(|| format!("thalweg-{}", job.name));
    let config = KafkaSourceConfig {
        topics: topics(&spec.topics)?,
        start: spec.start.clone(),
        end: None,
        on_data_loss: spec.on_data_loss,
        discover_interval: spec.discover_interval,
        group,
    };
    let demand = job.demand(&source.id);
    let first = spec.backfill.as_ref().map(|first| backfill(job, first, &config, &cluster, (&demand, &spec.include)));
    let raw = Box::new(KafkaSource::new(cluster, config));
    let records = FormattedSource::new(raw, decoders(&spec.format, &demand, &spec.include)).with_retries(retries);
    Ok(match first {
        Some(first) => Arc::new(Backfilled::new(first?, Arc::new(records))),
        None => Arc::new(records),
    })
}

fn topics(spec: &TopicsSpec) -> Result<Topics> {
    match spec {
        TopicsSpec::Named(names) => Topics::named(names.clone()),
        TopicsSpec::Pattern(pattern) => Topics::pattern(pattern),
    }
}

/// What is read first.
fn backfill(
    job: &JobSpec,
    spec: &BackfillSpec,
    of: &KafkaSourceConfig,
    cluster: &Arc<KafkaConfig>,
    (demand, include): (&Demand, &Include),
) -> Result<Arc<dyn RecordSource<Value>>> {
    let raw: Box<dyn RawSource> = match &spec.history {
        HistorySpec::File { paths, max_record_bytes } => {
            let limit = usize::try_from(*max_record_bytes).unwrap_or(usize::MAX);
            Box::new(FileSource::new(job.base.clone(), paths.clone(), &spec.format).max_record_bytes(limit))
        }
        HistorySpec::Kafka { topics: names, start, end } => {
            let config = KafkaSourceConfig {
                topics: topics(names)?,
                start: start.clone(),
                end: Some(end.clone()),
                discover_interval: None,
                ..of.clone()
            };
            Box::new(KafkaSource::new(cluster.clone(), config))
        }
    };
    Ok(Arc::new(FormattedSource::new(raw, decoders(&spec.format, demand, include))))
}

fn decoders(format: &Format, demand: &Demand, include: &Include) -> Arc<dyn DecoderOf<Value>> {
    let (fields, include) = used(demand, include);
    let values: Arc<dyn DecoderOf<Value>> = Arc::new(Untyped { format: format.clone(), fields });
    if include.fields.is_empty() { values } else { Arc::new(Included::new(values, include)) }
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
