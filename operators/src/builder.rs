//! A job's graph, written in Rust.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use thalweg_connectors::kafka::{KafkaConfig, KafkaEncoder, KafkaSink, KafkaSinkConfig};
use thalweg_connectors::log::Delivery;
use thalweg_connectors::{RecordSource, Sink};
use thalweg_core::{Data, Error, JobName, Key, PartitionCount, Result, Value};

use crate::builtin::fold::{Count, Max, Mean, Min, Reduce, Sum, SumOf};
use crate::cluster::JobCluster;
use crate::node::{FlatMapOf, KeyedOf, SinkOf, SourceOf};
use crate::plan::{Node, NodeLogic, OnError, OperatorNode, Plan, Settings, SinkNode, SourceNode, StoreSettings};
use crate::process::{KeyedProcess, ProcessError};

struct Draft {
    settings: Settings,
    on_error: OnError,
    nodes: Vec<Node>,
    kafka: Option<KafkaConfig>,
    delivery: Delivery,
    /// Whether dead letters go to the cluster, and to which topic, where one is named.
    dead_letters: Option<Option<String>>,
    /// Each with the index of its node.
    kafka_sinks: Vec<(usize, Arc<KafkaSink>)>,
}

impl Draft {
    fn add(&mut self, id: &str, uses: &str, config: String, inputs: Vec<usize>, logic: NodeLogic) -> usize {
        self.nodes.push(Node {
            id: id.to_owned(),
            uses: uses.to_owned(),
            config,
            inputs,
            store: StoreSettings::default(),
            logic,
        });
        self.nodes.len() - 1
    }

    /// The cluster, with all that goes there.
    ///
    /// Errors: something goes there, and no cluster is named.
    fn cluster(&mut self) -> Result<Option<JobCluster>> {
        let is_sink = |node: &Node| matches!(node.logic, NodeLogic::Sink(_));
        let sinks = std::mem::take(&mut self.kafka_sinks).into_iter().map(|(node, sink)| {
            let before = self.nodes[..node].iter().filter(|node| is_sink(node)).count();
            (u16::try_from(before).unwrap_or(u16::MAX), sink)
        });
        let (sinks, dead_letters): (Vec<_>, _) = (sinks.collect(), self.dead_letters.take());
        match self.kafka.take() {
            Some(config) => Ok(Some(JobCluster { config, delivery: self.delivery, dead_letters, sinks })),
            None if sinks.is_empty() && dead_letters.is_none() => Ok(None),
            None => {
                let text = format!("job {} writes to Kafka; say where that is: JobBuilder::kafka", self.settings.name);
                Err(Error::user("kafka-missing", text))
            }
        }
    }
}

/// A job under construction. Every node gets a name: state belongs to it, and people read it.
///
/// ```
/// use thalweg_connectors::GeneratorSource;
/// use thalweg_core::Value;
/// use thalweg_operators::JobBuilder;
///
/// let job = JobBuilder::new("key-count")?;
/// let made_up = GeneratorSource { count: Some(1000), keys: 10, skew: 1.0, seed: 7, partitions: 2 };
/// let records = job.source("records", made_up);
/// records.key_by(|row: Value| (row.get("key").cloned().unwrap_or_default(), ())).count("counts");
/// let plan = job.build()?;
/// assert_eq!(plan.nodes().len(), 2);
/// # Ok::<(), thalweg_core::Error>(())
/// ```
pub struct JobBuilder {
    draft: Rc<RefCell<Draft>>,
}

/// Records of one type, somewhere in a graph; cloning reads the same ones again.
pub struct Stream<T> {
    draft: Rc<RefCell<Draft>>,
    inputs: Vec<usize>,
    types: PhantomData<fn() -> T>,
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        Self { draft: self.draft.clone(), inputs: self.inputs.clone(), types: PhantomData }
    }
}

/// A stream whose records are to be grouped: key and rest come out of a record together.
pub struct KeyedStream<T, K, V, F> {
    stream: Stream<T>,
    key: F,
    types: PhantomData<fn() -> (K, V)>,
}

impl JobBuilder {
    /// A job with the default settings.
    ///
    /// Errors: a name that is none.
    pub fn new(name: &str) -> Result<Self> {
        let settings = Settings::new(JobName::new(name)?);
        Ok(Self::with_settings(settings, OnError::Fail))
    }

    /// A job with given settings.
    pub fn with_settings(settings: Settings, on_error: OnError) -> Self {
        let draft = Draft {
            settings,
            on_error,
            nodes: Vec::new(),
            kafka: None,
            delivery: Delivery::default(),
            dead_letters: None,
            kafka_sinks: Vec::new(),
        };
        Self { draft: Rc::new(RefCell::new(draft)) }
    }

    /// P, fixed for the life of the job's state; 16 where it is not set.
    pub fn partitions(&self, count: u32) -> Result<&Self> {
        self.draft.borrow_mut().settings.partitions = PartitionCount::new(count)?;
        Ok(self)
    }

    /// Worker threads; one for each core where it is not set.
    pub fn workers(&self, count: usize) -> &Self {
        self.draft.borrow_mut().settings.workers = Some(count.max(1));
        self
    }

    /// How long an epoch is open; nothing means that epochs are cut by count alone, for bounded sources.
    pub fn epoch_interval(&self, interval: Option<Duration>) -> &Self {
        self.draft.borrow_mut().settings.epoch_interval = interval;
        self
    }

    /// Most records of one source partition in one epoch.
    pub fn epoch_max_records(&self, records: u64) -> &Self {
        self.draft.borrow_mut().settings.epoch_max_records = records.max(1);
        self
    }

    /// Most raw bytes of one source partition in one epoch.
    pub fn epoch_max_bytes(&self, bytes: u64) -> &Self {
        self.draft.borrow_mut().settings.epoch_max_bytes = bytes.max(1);
        self
    }

    /// The Kafka cluster of the job: that of its sinks and changelogs there, and of its bindings. Sources name their own.
    pub fn kafka(&self, config: KafkaConfig) -> &Self {
        self.draft.borrow_mut().kafka = Some(config);
        self
    }

    /// What sinks on Kafka promise.
    pub fn delivery(&self, delivery: Delivery) -> &Self {
        self.draft.borrow_mut().delivery = delivery;
        self
    }

    /// Dead letters go to the cluster, in the same transactions as the output; without a topic to `dead-letters-ID`, with the id of
    /// the job.
    pub fn dead_letters_to_kafka(&self, topic: Option<&str>) -> &Self {
        self.draft.borrow_mut().dead_letters = Some(topic.map(str::to_owned));
        self
    }

    /// From the start of one checkpoint to the start of the next.
    pub fn checkpoint_interval(&self, interval: Duration) -> &Self {
        self.draft.borrow_mut().settings.checkpoint_interval = interval;
        self
    }

    /// Bytes of memory for the values of all stores of a task.
    pub fn state_memory(&self, bytes: u64) -> &Self {
        self.draft.borrow_mut().settings.state_memory = bytes;
        self
    }

    /// What is done with records that fail, from here on.
    pub fn on_error(&self, on_error: OnError) -> &Self {
        self.draft.borrow_mut().on_error = on_error;
        self
    }

    /// Reads a source.
    pub fn source<T: Data>(&self, id: &str, source: impl RecordSource<T> + 'static) -> Stream<T> {
        self.source_at(id, source, None)
    }

    /// Reads a source, so many records a second at most.
    pub fn limited_source<T: Data>(&self, id: &str, source: impl RecordSource<T> + 'static, rate: f64) -> Stream<T> {
        self.source_at(id, source, Some(rate))
    }

    fn source_at<T: Data>(&self, id: &str, source: impl RecordSource<T> + 'static, rate: Option<f64>) -> Stream<T> {
        let on_error = self.draft.borrow().on_error;
        let node = SourceOf { source: Arc::new(source), rate, on_error };
        let uses = std::any::type_name::<T>();
        self.source_node(id, uses, String::new(), Box::new(node))
    }

    /// Adds a source node as the TOML makes it.
    pub fn source_node<T: Data>(&self, id: &str, uses: &str, config: String, node: Box<dyn SourceNode>) -> Stream<T> {
        let index = self.draft.borrow_mut().add(id, uses, config, Vec::new(), NodeLogic::Source(node));
        Stream { draft: self.draft.clone(), inputs: vec![index], types: PhantomData }
    }

    /// Checks the graph.
    pub fn build(self) -> Result<Plan> {
        let draft = Rc::try_unwrap(self.draft).map_err(|_| {
            Error::user(
                "open-stream",
                "a stream of this job is still held; give every stream to a sink or drop it, then build",
            )
        })?;
        let mut draft = draft.into_inner();
        draft.nodes.iter().try_for_each(check_store)?;
        let cluster = draft.cluster()?;
        Ok(Plan::new(draft.settings, draft.nodes)?.with_cluster(cluster))
    }
}

/// Errors: a node has settings for a store, and no store.
fn check_store(node: &Node) -> Result<()> {
    let stateful = matches!(&node.logic, NodeLogic::Operator(operator) if !operator.stores(&node.id).is_empty());
    if stateful || node.store == StoreSettings::default() {
        return Ok(());
    }
    let text = format!("{} {:?} keeps no state, so it has no store; leave out its settings", node.kind(), node.id);
    Err(Error::user("no-store", text))
}

impl<T: Data> Stream<T> {
    fn operator<B>(self, id: &str, uses: &str, node: impl OperatorNode + 'static) -> Stream<B> {
        self.operator_node(id, uses, String::new(), StoreSettings::default(), Box::new(node))
    }

    /// Adds an operator node as the TOML makes it.
    pub fn operator_node<B>(
        self,
        id: &str,
        uses: &str,
        config: String,
        store: StoreSettings,
        node: Box<dyn OperatorNode>,
    ) -> Stream<B> {
        let mut draft = self.draft.borrow_mut();
        let index = draft.add(id, uses, config, self.inputs.clone(), NodeLogic::Operator(node));
        draft.nodes[index].store = store;
        drop(draft);
        Stream { draft: self.draft, inputs: vec![index], types: PhantomData }
    }

    /// What is done with the store of the operator that has just been added: where its changes go, and whether it may be queried.
    #[must_use]
    pub fn store(self, settings: StoreSettings) -> Self {
        let [operator] = self.inputs[..] else { panic!("a merged stream has no store; say it of the operator") };
        self.draft.borrow_mut().nodes[operator].store = settings;
        self
    }

    fn error_rule(&self) -> OnError {
        self.draft.borrow().on_error
    }

    /// The records of both streams.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        assert!(Rc::ptr_eq(&self.draft, &other.draft), "only streams of one job can be merged");
        self.inputs.extend(other.inputs);
        self
    }

    /// One record in, any number out.
    pub fn flat_map<B: Data>(
        self,
        id: &str,
        logic: impl Fn(T, &mut Vec<B>) -> Result<(), ProcessError> + Send + Sync + 'static,
    ) -> Stream<B> {
        let rule = self.error_rule();
        self.operator(id, "flat_map", FlatMapOf::new(logic, rule))
    }

    /// One record in, one out.
    pub fn map<B: Data>(self, id: &str, logic: impl Fn(T) -> B + Send + Sync + 'static) -> Stream<B> {
        let rule = self.error_rule();
        let logic = move |record, out: &mut Vec<B>| {
            out.push(logic(record));
            Ok(())
        };
        self.operator(id, "map", FlatMapOf::new(logic, rule))
    }

    /// Only the records that pass.
    #[must_use]
    pub fn filter(self, id: &str, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Stream<T> {
        let rule = self.error_rule();
        let logic = move |record: T, out: &mut Vec<T>| {
            if keep(&record) {
                out.push(record);
            }
            Ok(())
        };
        self.operator(id, "filter", FlatMapOf::new(logic, rule))
    }

    /// Groups: takes a record apart into its key and the rest.
    pub fn key_by<K: Key, V: Data, F: Fn(T) -> (K, V) + Send + Sync + 'static>(
        self,
        key: F,
    ) -> KeyedStream<T, K, V, F> {
        KeyedStream { stream: self, key, types: PhantomData }
    }

    /// Writes to a sink, as JSON.
    pub fn sink(self, id: &str, sink: impl Sink + 'static) {
        let encode = |record: &T, out: &mut Vec<u8>| {
            serde_json::to_writer(out, record)
                .map_err(|error| Error::user("sink-encode", format!("a record cannot be written as JSON: {error}")))
        };
        self.sink_node(id, "json", String::new(), Box::new(SinkOf::<T>::new(Arc::new(sink), encode)));
    }

    /// Writes to a topic of the job's Kafka cluster; keys, headers and the like are fields of the records, as in a job file.
    pub fn kafka_sink(self, id: &str, config: KafkaSinkConfig) {
        let text = format!("{config:?}");
        let encoder = KafkaEncoder::new(&config, id);
        let sink = Arc::new(KafkaSink::new(config));
        let node = SinkOf::<T>::records(sink.clone(), move |record, _, batch| {
            match (record as &dyn std::any::Any).downcast_ref::<Value>() {
                Some(value) => encoder.encode(value, batch),
                None => encoder.encode(&Value::from_serde(record)?, batch),
            }
        });
        let mut draft = self.draft.borrow_mut();
        let index = draft.add(id, "kafka", text, self.inputs.clone(), NodeLogic::Sink(Box::new(node)));
        draft.kafka_sinks.push((index, sink));
    }

    /// Counts what arrives and writes nothing.
    pub fn discard(self, id: &str) {
        let sink = Arc::new(thalweg_connectors::BlackholeSink::default());
        self.sink_node(id, "blackhole", String::new(), Box::new(SinkOf::<T>::counting(sink)));
    }

    /// Adds a sink node as the TOML makes it.
    pub fn sink_node(self, id: &str, uses: &str, config: String, node: Box<dyn SinkNode>) {
        self.draft.borrow_mut().add(id, uses, config, self.inputs.clone(), NodeLogic::Sink(node));
    }
}

impl<T: Data, K: Key, V: Data, F: Fn(T) -> (K, V) + Send + Sync + 'static> KeyedStream<T, K, V, F> {
    /// An operator with state for each key.
    pub fn process<P: KeyedProcess<Key = K, In = V>>(self, id: &str, process: P) -> Stream<P::Out> {
        self.process_as(id, std::any::type_name::<P>(), process)
    }

    fn process_as<P: KeyedProcess<Key = K, In = V>>(self, id: &str, uses: &str, process: P) -> Stream<P::Out> {
        let rule = self.stream.error_rule();
        let key = self.key;
        self.stream.operator(id, uses, KeyedOf::new(process, move |record: T| Ok(key(record)), rule))
    }

    /// How many records each key has had.
    pub fn count(self, id: &str) -> Stream<(K, u64)>
    where
        K: serde::Serialize,
    {
        self.process_as(id, "count", Count::default())
    }

    /// The sum of the values of each key, folded in provenance order; an overflow of whole numbers is an error.
    pub fn sum(self, id: &str) -> Stream<(K, V)>
    where
        V: SumOf,
    {
        self.process_as(id, "sum", Sum::default())
    }

    /// The least value of each key.
    pub fn min(self, id: &str) -> Stream<(K, V)>
    where
        V: PartialOrd,
    {
        self.process_as(id, "min", Min::default())
    }

    /// The greatest value of each key.
    pub fn max(self, id: &str) -> Stream<(K, V)>
    where
        V: PartialOrd,
    {
        self.process_as(id, "max", Max::default())
    }

    /// The mean of the values of each key, folded in provenance order.
    pub fn mean(self, id: &str) -> Stream<(K, f64)>
    where
        V: Into<f64>,
    {
        self.process_as(id, "mean", Mean::default())
    }

    /// Folds the values of each key, in provenance order; the first value starts the fold.
    pub fn reduce(self, id: &str, fold: impl Fn(V, &V) -> V + Send + Sync + 'static) -> Stream<(K, V)> {
        self.process_as(id, "reduce", Reduce::new(fold))
    }
}
