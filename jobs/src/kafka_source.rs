//! The node of a source that reads Kafka.

use std::sync::Arc;

use thalweg_connectors::kafka::{KafkaConfig, KafkaSource, KafkaSourceConfig, Topics};
use thalweg_connectors::{
    Backfilled, DecoderOf, Fields, FileSource, FormattedSource, Include, Included, Part, RawSource, RecordSource,
};
use thalweg_core::{Error, Result, Value};

use crate::demand::Demand;
use crate::rights;
use crate::schemas::JobSchemas;
use crate::spec::{
    BackfillSpec, HistorySpec, JobSpec, KafkaSourceSpec, RecordFormat, SourceSpec, TopicsSpec, backfill_of, keys_of,
};

/// The records of a source; first those of its backfill, where it has one.
pub(crate) fn kafka_source(
    job: &JobSpec,
    source: &SourceSpec,
    spec: &KafkaSourceSpec,
    cluster: Arc<KafkaConfig>,
    schemas: &JobSchemas,
) -> Result<Arc<dyn RecordSource<Value>>> {
    let config = KafkaSourceConfig {
        topics: topics(&spec.topics)?,
        start: spec.start.clone(),
        end: None,
        on_data_loss: spec.on_data_loss,
        discover_interval: spec.discover_interval,
        group: rights::group(job, spec),
    };
    let demand = job.demand(&source.id);
    let decoders = |of: &str, format: &RecordFormat| -> Result<Arc<dyn DecoderOf<Value>>> {
        let (fields, include) = used(&demand, &spec.include);
        let values = schemas.decoders(of, format, fields)?;
        if include.fields.is_empty() {
            return Ok(values);
        }
        let reads_key = include.fields.iter().any(|(_, part)| *part == Part::Key);
        let included = Included::new(values, include);
        Ok(match source.keys.as_ref().filter(|_| reads_key) {
            Some(keys) => Arc::new(included.with_keys(schemas.records(&keys_of(&source.id), keys, Fields::All)?)),
            None => Arc::new(included),
        })
    };
    let first = spec.backfill.as_ref().map(|first| -> Result<Arc<dyn RecordSource<Value>>> {
        let values = decoders(&backfill_of(&source.id), &first.format)?;
        Ok(Arc::new(FormattedSource::new(backfill(job, first, &config, &cluster)?, values)))
    });
    let first = first.transpose()?;
    let raw = Box::new(KafkaSource::new(cluster, config));
    let records = FormattedSource::new(raw, decoders(&source.id, &spec.format)?);
    Ok(match first {
        Some(first) => Arc::new(Backfilled::new(first, Arc::new(records))),
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
) -> Result<Box<dyn RawSource>> {
    Ok(match (&spec.history, &spec.format) {
        (HistorySpec::File { paths, max_record_bytes }, RecordFormat::Plain(format)) => {
            let limit = usize::try_from(*max_record_bytes).unwrap_or(usize::MAX);
            Box::new(FileSource::new(job.base.clone(), paths.clone(), format).max_record_bytes(limit))
        }
        (HistorySpec::File { .. }, RecordFormat::Schema(_)) => {
            return Err(Error::internal("plan", "files have no records with schemas"));
        }
        (HistorySpec::Kafka { topics: names, start, end }, _) => {
            let config = KafkaSourceConfig {
                topics: topics(names)?,
                start: start.clone(),
                end: Some(end.clone()),
                discover_interval: None,
                ..of.clone()
            };
            Box::new(KafkaSource::new(cluster.clone(), config))
        }
    })
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
