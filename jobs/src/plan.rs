//! From a valid job to a plan: the nodes of the file, with the operators that the binary brings.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use thalweg_connectors::dead_letter::{self, HeaderNames};
use thalweg_connectors::kafka::{KafkaConfig, KafkaEncoder, OnDataLoss};
use thalweg_connectors::log::{
    Delivery, Log, LogSink, LogSinkConfig, LogSource, LogSourceConfig, Partitioner, SinkProducer, Start,
};
use thalweg_connectors::{
    BlackholeSink, FileSink, FileSource, FollowSource, Format, FormattedSource, GeneratorSource, IngestTopic,
    OutFormat, RawSource, RecordSource, Sink, StdinSource, StdoutSink,
};
use thalweg_core::{Error, JobId, Result, Value};
use thalweg_operators::{
    self as operators, Aggregation, DeadLettersTo, KeyFields, Node, NodeLogic, OperatorNode, OperatorRequest, Plan,
    Registry, Settings, SinkOf, SourceOf, StoreSettings, StoreShape,
};

use crate::demand::Demand;
use crate::kafka::{dead_letters_log, sink_config};
use crate::kafka_source::kafka_source;
use crate::schemas::JobSchemas;
use crate::spec::{
    ConfigValue, DeadLettersPlace, DeadLettersSpec, HistorySpec, JobSpec, OperatorSpec, SinkConnector, SinkSpec,
    SourceConnector, SourceSpec,
};

/// What a plan needs of the place where it is to run.
pub struct PlanContext<'a> {
    /// The operators of the binary.
    pub registry: &'a Registry,
    /// The job.
    pub job_id: JobId,
    /// The job's own log.
    pub log: Arc<dyn Log>,
    /// The folder of that log.
    pub log_dir: PathBuf,
    /// Whether what sources keep in that log stays there, for a run that will be repeated.
    pub keep_input: bool,
    /// The run that is repeated: its job, and the folder of its log.
    pub recorded: Option<(JobId, PathBuf)>,
    /// The cluster of `[kafka]`, where the job has one.
    pub kafka: Option<Arc<dyn Log>>,
    /// How that cluster is reached.
    pub cluster: Option<Arc<KafkaConfig>>,
    /// Opens another log to write to.
    pub open_log: &'a dyn Fn(&std::path::Path) -> Result<Arc<dyn Log>>,
}

/// Makes the plan of a job.
///
/// Errors: `crate-mismatch` where the job was written for another binary; whatever an operator says of its configuration; logs
/// that cannot be opened.
pub fn plan(spec: &JobSpec, context: &PlanContext<'_>) -> Result<Plan> {
    check_crate(spec, context.registry)?;
    let mut settings = Settings::new(spec.name.clone());
    settings.partitions = spec.partitions;
    settings.workers = spec.workers;
    settings.epoch_interval = spec.epoch.interval;
    settings.epoch_max_records = spec.epoch.max_records;
    settings.epoch_max_bytes = spec.epoch.max_bytes;
    settings.checkpoint_interval = spec.checkpoint_interval;
    settings.state_memory = spec.state_memory;

    let schemas = JobSchemas::open(spec, context)?;
    let mut nodes: Vec<Node> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for source in &spec.sources {
        places.insert(&source.id, nodes.len());
        nodes.push(source_node(spec, source, context, &schemas)?);
    }
    for operator in &spec.operators {
        let node = operator_node(operator, &inputs(&operator.inputs, &places), context.registry)?;
        places.insert(&operator.id, nodes.len());
        nodes.push(node);
    }
    let mut producers = SinkProducers { context, delivery: spec.delivery, made: BTreeMap::new() };
    for (index, sink) in spec.sinks.iter().enumerate() {
        nodes.push(sink_node(spec, sink, index as u16, &inputs(&sink.inputs, &places), &mut producers, &schemas)?);
    }
    let plan = Plan::new(settings, nodes)?;
    if !plan.wants_dead_letters() {
        return Ok(plan);
    }
    let place = match &spec.dead_letters.place {
        DeadLettersPlace::Own => SinkPlace::Own,
        DeadLettersPlace::Folder(path) => SinkPlace::Folder(path.clone()),
        DeadLettersPlace::Kafka => SinkPlace::Kafka,
    };
    let (producer, cluster) = (producers.of(place)?, context.cluster.clone());
    with_dead_letters(plan, &spec.dead_letters, context.job_id, producer, context.log.clone(), cluster)
}

/// The plan with a sink on the log of `producer` for the records that its nodes set aside; as it is where none of them does.
/// `own` is the job's own log, `cluster` that of its `[kafka]`.
///
/// Errors: the topic cannot be made; a node has the id of that sink.
pub fn with_dead_letters(
    plan: Plan,
    spec: &DeadLettersSpec,
    job_id: JobId,
    producer: Arc<SinkProducer>,
    own: Arc<dyn Log>,
    cluster: Option<Arc<KafkaConfig>>,
) -> Result<Plan> {
    if !plan.wants_dead_letters() {
        return Ok(plan);
    }
    let topic = spec.topic_of(job_id);
    let (desk, names) = match cluster.filter(|_| spec.place == DeadLettersPlace::Kafka) {
        Some(cluster) => {
            let name = plan.settings().name.to_string();
            let open: dead_letter::OpenLetters = Box::new(move || dead_letters_log(&cluster, &name));
            (dead_letter::Desk::opening(job_id, open, topic.clone(), own), HeaderNames::StreamsAndConnect)
        }
        None => (dead_letter::Desk::new(job_id, producer.log(), topic.clone(), own), HeaderNames::Streams),
    };
    let (desk, sink) = (Arc::new(desk), Arc::new(dead_letter::sink(producer, &topic)?));
    let (uses, config) = (spec.place.uses(), format!("{spec:?}"));
    plan.with_dead_letters(DeadLettersTo { sink, desk, names, uses, config })
}

/// The stores of a job, as its plan would have them; nothing is opened for it.
///
/// Errors: `crate-mismatch`; whatever an operator says of its configuration.
pub fn stores(spec: &JobSpec, registry: &Registry) -> Result<Vec<(StoreShape, StoreSettings)>> {
    check_crate(spec, registry)?;
    let mut stores = Vec::new();
    for operator in &spec.operators {
        let shapes = logic(operator, registry)?.stores(&operator.id);
        let settings = settings_of(operator);
        stores.extend(shapes.into_iter().map(|shape| (shape, settings)));
    }
    Ok(stores)
}

fn inputs(ids: &[String], places: &BTreeMap<&str, usize>) -> Vec<usize> {
    ids.iter().map(|id| *places.get(id.as_str()).expect("validation has found every input before")).collect()
}

fn check_crate(spec: &JobSpec, registry: &Registry) -> Result<()> {
    let Some(wanted) = &spec.crate_name else { return Ok(()) };
    let (name, version) = (registry.crate_name(), registry.crate_version());
    let own = if name.is_empty() { "no job crate".to_owned() } else { format!("{name} {version}") };
    let fits = |wanted: &String| version == wanted || version.starts_with(&format!("{wanted}."));
    if wanted != name || !spec.crate_version.as_ref().is_none_or(fits) {
        let asked = spec.crate_version.as_ref().map_or_else(|| wanted.clone(), |version| format!("{wanted} {version}"));
        let text = format!(
            "job {} is written for {asked}, this binary has {own}; run it with the binary of that crate",
            spec.name
        );
        return Err(Error::user("crate-mismatch", text));
    }
    Ok(())
}

/// A source's settings as far as they decide what is computed: a limit that was raised makes no other plan, so that a job that
/// stopped at it goes on.
fn computed(connector: &SourceConnector) -> SourceConnector {
    let mut computed = connector.clone();
    match &mut computed {
        SourceConnector::File { max_record_bytes, .. } => *max_record_bytes = 0,
        SourceConnector::Kafka(kafka) => {
            (kafka.group, kafka.on_data_loss, kafka.start) = (None, OnDataLoss::Fail, Start::Earliest.into());
            kafka.discover_interval = None;
            match kafka.backfill.as_mut().map(|backfill| &mut backfill.history) {
                Some(HistorySpec::File { max_record_bytes, .. }) => *max_record_bytes = 0,
                Some(HistorySpec::Kafka { start, end, .. }) => {
                    (*start, *end) = (Start::Earliest.into(), Start::Latest.into());
                }
                None => {}
            }
            // What is in the file counts, not where it is.
            kafka.format.forget_file();
            if let Some(backfill) = &mut kafka.backfill {
                backfill.format.forget_file();
            }
        }
        SourceConnector::Log { start, format, .. } => {
            *start = Start::Earliest;
            format.forget_file();
        }
        SourceConnector::Generator(_) | SourceConnector::Stdin { .. } => {}
    }
    computed
}

fn source_node(spec: &JobSpec, source: &SourceSpec, context: &PlanContext<'_>, schemas: &JobSchemas) -> Result<Node> {
    let fields = || match spec.demand(&source.id) {
        Demand::All => thalweg_connectors::Fields::All,
        Demand::Fields(fields) => thalweg_connectors::Fields::Only(fields.into_iter().collect()),
    };
    let formatted = |raw: Box<dyn RawSource>, format: &Format| -> Arc<dyn RecordSource<Value>> {
        Arc::new(FormattedSource::values(raw, format.clone(), fields()))
    };
    let records: Arc<dyn RecordSource<Value>> = match &source.connector {
        SourceConnector::File { paths, format, follow, max_record_bytes } => {
            let limit = usize::try_from(*max_record_bytes).unwrap_or(usize::MAX);
            let (base, paths) = (spec.base.clone(), paths.clone());
            let files: Box<dyn RawSource> = match follow {
                true => Box::new(FollowSource::new(input_topic(source, context), base, paths, format, limit)),
                false => Box::new(FileSource::new(base, paths, format).max_record_bytes(limit)),
            };
            formatted(files, format)
        }
        SourceConnector::Generator(generator) => Arc::new(GeneratorSource {
            count: generator.count,
            keys: generator.keys,
            skew: generator.skew,
            seed: generator.seed,
            partitions: generator.partitions,
        }),
        SourceConnector::Log { path, topic, start, format } => {
            let start = *start;
            let path = path.clone().unwrap_or_else(|| context.log_dir.clone());
            let log = LogSource::new(LogSourceConfig { path, topic: topic.clone(), start, bounded: false });
            Arc::new(FormattedSource::new(Box::new(log), schemas.decoders(&source.id, format, fields())?))
        }
        SourceConnector::Kafka(kafka) => {
            let missing = || Error::internal("plan", "a source reads Kafka, and the job has no [kafka]");
            let cluster = context.cluster.clone().ok_or_else(missing)?;
            kafka_source(spec, source, kafka, cluster, schemas)?
        }
        SourceConnector::Stdin { format, max_record_bytes } => {
            let limit = usize::try_from(*max_record_bytes).unwrap_or(usize::MAX);
            let lines = StdinSource::new(input_topic(source, context), limit);
            formatted(Box::new(lines), format)
        }
    };
    let rate = source.rate.map(|rate| rate as f64);
    Ok(Node {
        id: source.id.clone(),
        uses: source.uses().to_owned(),
        config: format!("{:?}{}", computed(&source.connector), schemas.fingerprint(source)),
        inputs: Vec::new(),
        store: StoreSettings::default(),
        logic: NodeLogic::Source(Box::new(SourceOf { source: records, rate, on_error: spec.on_error })),
    })
}

/// Where a source keeps what it cannot read again.
fn input_topic(source: &SourceSpec, context: &PlanContext<'_>) -> IngestTopic {
    let name = |job: JobId| format!("input-{job}-{}", source.id);
    match &context.recorded {
        Some((job, dir)) => IngestTopic::recorded(dir.clone(), name(*job)),
        None => {
            let (log, dir) = (context.log.clone(), context.log_dir.clone());
            IngestTopic::new(log, dir, name(context.job_id), context.keep_input)
        }
    }
}

fn operator_node(operator: &OperatorSpec, inputs: &[usize], registry: &Registry) -> Result<Node> {
    Ok(Node {
        id: operator.id.clone(),
        uses: operator.uses.clone(),
        config: format!("key={:?} {:?}", operator.key, operator.raw_config),
        inputs: inputs.to_vec(),
        store: settings_of(operator),
        logic: NodeLogic::Operator(logic(operator, registry)?),
    })
}

fn settings_of(operator: &OperatorSpec) -> StoreSettings {
    operator
        .store
        .map_or_else(StoreSettings::default, |store| StoreSettings { changelog: store.changelog, query: store.query })
}

/// The built-in operators by name; everything else is of the job crate.
fn logic(operator: &OperatorSpec, registry: &Registry) -> Result<Box<dyn OperatorNode>> {
    let on_error = operator.on_error;
    let key = operator.key.clone().map(KeyFields::new);
    let keyed = || key.clone().ok_or_else(|| Error::internal("plan", format!("operator {:?} has no key", operator.id)));
    let text = |name: &str| match operator.config.get(name) {
        Some(ConfigValue::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let expression = |name: &str| match operator.config.get(name) {
        Some(ConfigValue::Expression(expression)) => Ok(expression.clone()),
        _ => Err(Error::internal("plan", format!("operator {:?} has no expression {name:?}", operator.id))),
    };
    let result = text("as").unwrap_or_else(|| operator.id.clone());
    Ok(match operator.uses.as_str() {
        "words" => operators::words(text("field").unwrap_or_else(|| "line".to_owned()), on_error),
        "filter" => operators::filter(expression("where")?, on_error),
        "map" => match operator.config.get("fields") {
            Some(ConfigValue::Expressions(fields)) => operators::map(fields.clone(), on_error),
            _ => return Err(Error::internal("plan", format!("operator {:?} has no fields", operator.id))),
        },
        "key_by" => operators::key_by(keyed()?, on_error),
        "count" => {
            let function = operators::AggregateFunction::Count;
            let fold = Aggregation { function, argument: None, filter: expression("where").ok() };
            operators::aggregate(keyed()?, vec![(result, fold)], on_error)
        }
        "sum" | "min" | "max" | "mean" => {
            let function =
                operators::AggregateFunction::ALL.into_iter().find(|function| function.name() == operator.uses);
            let function = function.expect("each of these names is one of a function");
            let fold = Aggregation { function, argument: Some(expression("of")?), filter: None };
            operators::aggregate(keyed()?, vec![(result, fold)], on_error)
        }
        "aggregate" => match operator.config.get("aggregates") {
            Some(ConfigValue::Aggregations(folds)) => operators::aggregate(keyed()?, folds.clone(), on_error),
            _ => return Err(Error::internal("plan", format!("operator {:?} has no aggregates", operator.id))),
        },
        "reduce" => operators::reduce(keyed()?, expression("of")?, expression("with")?, &result, on_error),
        name => {
            let request =
                OperatorRequest { id: operator.id.clone(), key, config: operator.raw_config.clone(), on_error };
            registry.create(name, &request)?
        }
    })
}

/// One producer for all sinks of the task on one log: what is ready goes out in one transaction.
struct SinkProducers<'a> {
    context: &'a PlanContext<'a>,
    delivery: Delivery,
    made: BTreeMap<SinkPlace, Arc<SinkProducer>>,
}

/// A log that sinks write to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SinkPlace {
    Own,
    Folder(PathBuf),
    Kafka,
}

impl SinkProducers<'_> {
    fn of(&mut self, place: SinkPlace) -> Result<Arc<SinkProducer>> {
        if let Some(made) = self.made.get(&place) {
            return Ok(Arc::clone(made));
        }
        let log = match &place {
            SinkPlace::Own => self.context.log.clone(),
            SinkPlace::Folder(path) => (self.context.open_log)(path)?,
            SinkPlace::Kafka => {
                let missing = || Error::internal("plan", "a sink writes to Kafka, and the job has no [kafka]");
                self.context.kafka.clone().ok_or_else(missing)?
            }
        };
        let id = format!("{}-sinks-0", self.context.job_id);
        let made = Arc::new(SinkProducer::new(log, id, self.delivery));
        self.made.insert(place, Arc::clone(&made));
        Ok(made)
    }
}

fn sink_node(
    spec: &JobSpec,
    sink: &SinkSpec,
    index: u16,
    inputs: &[usize],
    producers: &mut SinkProducers<'_>,
    schemas: &JobSchemas,
) -> Result<Node> {
    let target: (Arc<dyn Sink>, Option<OutFormat>) = match &sink.connector {
        SinkConnector::File { path, single: true, format } => {
            (Arc::new(FileSink::single_file(path, *format)), Some(*format))
        }
        SinkConnector::File { path, single: false, format } => {
            (Arc::new(FileSink::folder(path, *format)), Some(*format))
        }
        SinkConnector::Stdout { format } => (Arc::new(StdoutSink), Some(*format)),
        SinkConnector::Blackhole => (Arc::new(BlackholeSink::new()), None),
        SinkConnector::Log { path, topic, partitions, format } => {
            let config = LogSinkConfig {
                topic: topic.clone(),
                topic_partitions: *partitions,
                partitioner: Partitioner::JobPartition,
                sink: index,
                partitions: spec.partitions,
            };
            let place = path.clone().map_or(SinkPlace::Own, SinkPlace::Folder);
            (Arc::new(LogSink::new(producers.of(place)?, config)?), Some(*format))
        }
        SinkConnector::Kafka(kafka) => {
            let config = sink_config(spec, sink, kafka, schemas)?;
            let target = LogSink::new(producers.of(SinkPlace::Kafka)?, config.log_sink(index, spec.partitions))?;
            let (target, encoder) = (Arc::new(target), KafkaEncoder::new(&config, &sink.id));
            let records = SinkOf::<Value>::records(target, move |value, _, batch| encoder.encode(value, batch));
            return Ok(sink_plan_node(sink, inputs, records, schemas));
        }
    };
    let node = match target {
        (target, Some(format)) => {
            SinkOf::new(target, move |value: &Value, out: &mut Vec<u8>| format.encode_value(value, out))
        }
        (target, None) => SinkOf::counting(target),
    };
    Ok(sink_plan_node(sink, inputs, node, schemas))
}

fn sink_plan_node(sink: &SinkSpec, inputs: &[usize], node: SinkOf<Value>, schemas: &JobSchemas) -> Node {
    Node {
        id: sink.id.clone(),
        uses: sink.uses().to_owned(),
        config: schemas.sink_config(sink),
        inputs: inputs.to_vec(),
        store: StoreSettings::default(),
        logic: NodeLogic::Sink(Box::new(node)),
    }
}
