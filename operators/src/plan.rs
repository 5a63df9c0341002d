//! The plan: a typed graph with stable ids, that the TOML and the Rust builder both produce and that every worker lowers in
//! the same order.

mod sources;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use thalweg_connectors::Sink;
use thalweg_connectors::dead_letter::{self, Retries};
use thalweg_core::{Error, JobName, OriginId, PartitionCount, PartitionId, PartitionSpec, Provenance, Result};
use timely::dataflow::Scope;
use timely::dataflow::operators::probe::Handle;
use xxhash_rust::xxh3::xxh3_64;

use crate::cluster::JobCluster;
use crate::context::WorkerContext;
use crate::dead_letters::DeadLettersTo;
use crate::store::StoreReader;
use crate::stream::{AnyStream, Time, TypeTag, check_edge};

/// What is done with a record that user code or a format fails on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The job stops with the error; nothing is lost.
    #[default]
    Fail,
    /// The record is dropped, logged and counted.
    Drop,
    /// The record is set aside: it becomes a dead letter of the job, and is counted.
    DeadLetter,
}

impl OnError {
    /// The reason under which a record that is not processed is counted; `cause` where it is dropped.
    pub(crate) fn counted_as(self, cause: &'static str) -> &'static str {
        match self {
            OnError::Fail | OnError::Drop => cause,
            OnError::DeadLetter => "dead-letter",
        }
    }
}

/// The settings of a job that are not part of its graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The name.
    pub name: JobName,
    /// P, fixed for the life of the job's state.
    pub partitions: PartitionCount,
    /// Worker threads; nothing means one for each core.
    pub workers: Option<usize>,
    /// How long an epoch is open; nothing means that epochs are cut by count alone.
    pub epoch_interval: Option<Duration>,
    /// Most records of one source partition in one epoch.
    pub epoch_max_records: u64,
    /// Most raw bytes of one source partition in one epoch.
    pub epoch_max_bytes: u64,
    /// Most epochs that are minted and not processed.
    pub max_open_epochs: u64,
    /// From the start of one checkpoint to the start of the next.
    pub checkpoint_interval: Duration,
    /// Bytes of memory for the values of all stores of a task.
    pub state_memory: u64,
}

impl Settings {
    /// The defaults of the contract.
    pub fn new(name: JobName) -> Self {
        Self {
            name,
            partitions: PartitionCount::new(16).expect("16 is in range"),
            workers: None,
            epoch_interval: Some(Duration::from_millis(20)),
            epoch_max_records: 100_000,
            epoch_max_bytes: 64 << 20,
            max_open_epochs: 8,
            checkpoint_interval: Duration::from_secs(1),
            state_memory: 256 << 20,
        }
    }
}

/// How the changes of a store are kept beyond the local disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangelogKind {
    /// Not at all: the local disk is the only copy.
    #[default]
    None,
    /// In a compacted topic of the embedded log.
    Log,
    /// In a compacted topic of Kafka.
    Kafka,
}

/// What the job says about the store of one operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Where its changes go.
    pub changelog: ChangelogKind,
    /// Whether it may be queried.
    pub query: bool,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { changelog: ChangelogKind::None, query: true }
    }
}

/// `(old key shape, old value shape, encoded key, encoded value)` to the encoded key and value of now.
pub type Migrate = Arc<dyn Fn(&str, &str, &[u8], &[u8]) -> Result<(Vec<u8>, Vec<u8>)> + Send + Sync>;

/// A store that an operator keeps.
#[derive(Clone)]
pub struct StoreShape {
    /// The operator id, or with a suffix a store beside it.
    pub id: String,
    /// The type of its keys.
    pub key: String,
    /// The type of its values.
    pub value: String,
    /// How rows of another shape are read, where the operator can.
    pub migrate: Option<Migrate>,
    /// Reads it from outside; nothing for stores that are not to be queried.
    pub reader: Option<Arc<dyn StoreReader>>,
}

/// How a node numbers what it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// Records keep their provenance, or are numbered anew within it.
    Kept,
    /// The node is an origin of its own.
    Own,
}

/// What a node is given when it is lowered.
pub struct NodeContext<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its own origin, where it has one.
    pub origin: OriginId,
    /// Its index among the sources or sinks.
    pub index: u16,
    /// The worker.
    pub worker: &'a Rc<WorkerContext>,
    /// Sinks attach it: it tells which epochs are processed.
    pub probe: &'a Handle<Time>,
}

/// What a node gives once it is lowered.
pub struct Lowered<'s> {
    /// Its records.
    pub records: AnyStream<'s>,
    /// What it sets aside, where it is to do that.
    pub dead_letters: Option<AnyStream<'s>>,
}

/// The logic of a source.
pub trait SourceNode: Send + Sync {
    /// What it gives.
    fn output(&self) -> TypeTag;
    /// What is done with a record that it fails on.
    fn on_error(&self) -> OnError;
    /// Every partition, with its resolved start.
    fn discover(&self, index: u16) -> Result<Vec<PartitionSpec>>;
    /// How often it is looked for partitions that have come.
    fn discover_interval(&self) -> Option<Duration>;
    /// Partitions that are not in `known`.
    fn discover_more(&self, index: u16, known: &[PartitionSpec]) -> Result<Vec<PartitionSpec>>;
    /// Whether a partition is one of a topic.
    fn is_of_topic(&self, partition: &PartitionSpec) -> bool;
    /// A committed checkpoint holds everything of a partition before a position.
    fn committed(&self, partition: PartitionId, position: u64) -> Result<()>;
    /// Gives it a partition more, for records that are to be read once more.
    fn set_retries(&self, retries: Retries);
    /// Builds the operator.
    fn lower<'s>(&self, scope: Scope<'s, Time>, node: &NodeContext<'_>) -> Result<Lowered<'s>>;
}

/// The logic of an operator.
pub trait OperatorNode: Send + Sync {
    /// What it takes.
    fn input(&self) -> TypeTag;
    /// What it gives.
    fn output(&self) -> TypeTag;
    /// How it numbers that.
    fn numbering(&self) -> Numbering;
    /// What is done with a record that it fails on.
    fn on_error(&self) -> OnError;
    /// The stores that it keeps.
    fn stores(&self, id: &str) -> Vec<StoreShape>;
    /// Builds the operator; one input for each of the node's, with its origins told apart.
    fn lower<'s>(&self, inputs: Vec<(AnyStream<'s>, OriginMap)>, node: &NodeContext<'_>) -> Result<Lowered<'s>>;
}

/// The logic of a sink.
pub trait SinkNode: Send + Sync {
    /// What it takes.
    fn input(&self) -> TypeTag;
    /// Where records go.
    fn sink(&self) -> Arc<dyn Sink>;
    /// Builds the operator.
    fn lower<'s>(&self, inputs: Vec<(AnyStream<'s>, OriginMap)>, node: &NodeContext<'_>) -> Result<()>;
}

/// What a node does.
pub enum NodeLogic {
    /// Reads.
    Source(Box<dyn SourceNode>),
    /// Computes.
    Operator(Box<dyn OperatorNode>),
    /// Writes.
    Sink(Box<dyn SinkNode>),
    /// Writes what its inputs set aside.
    DeadLetters(Box<dyn SinkNode>),
}

/// Tells apart the records of inputs that could be numbered alike: a stream that reaches a node in two ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginMap {
    renamed: Vec<(OriginId, OriginId)>,
}

impl OriginMap {
    pub(crate) fn is_identity(&self) -> bool {
        self.renamed.is_empty()
    }

    #[inline]
    pub(crate) fn map(&self, origin: OriginId) -> OriginId {
        self.renamed.iter().find(|(from, _)| *from == origin).map_or(origin, |(_, to)| *to)
    }
}

/// A node of a plan.
pub struct Node {
    /// Stable across versions of the job; state belongs to it.
    pub id: String,
    /// What it is, for people and the fingerprint: `aggregate`, `orders::Totals`, `file`.
    pub uses: String,
    /// Its settings, in one canonical text; part of the fingerprint.
    pub config: String,
    /// The nodes that it reads, by index; each before this one.
    pub inputs: Vec<usize>,
    /// What the job says about its store.
    pub store: StoreSettings,
    /// What it does.
    pub logic: NodeLogic,
}

impl Node {
    /// `source`, `operator` or `sink`.
    pub fn kind(&self) -> &'static str {
        match self.logic {
            NodeLogic::Source(_) => "source",
            NodeLogic::Operator(_) => "operator",
            NodeLogic::Sink(_) | NodeLogic::DeadLetters(_) => "sink",
        }
    }

    /// Whether it sets aside records that it fails on.
    pub fn sets_aside(&self) -> bool {
        let on_error = match &self.logic {
            NodeLogic::Source(source) => source.on_error(),
            NodeLogic::Operator(operator) => operator.on_error(),
            NodeLogic::Sink(_) | NodeLogic::DeadLetters(_) => return false,
        };
        on_error == OnError::DeadLetter
    }
}

/// A node with what the plan has worked out about it.
struct Placed {
    node: Node,
    origin: OriginId,
    index: u16,
    maps: Vec<OriginMap>,
}

/// A checked graph, ready to be lowered.
pub struct Plan {
    settings: Settings,
    nodes: Vec<Placed>,
    fingerprint: u64,
    dead_letters: Option<Arc<dead_letter::Desk>>,
    cluster: Option<JobCluster>,
}

impl Plan {
    /// Checks the graph: ids are unique, inputs come first, types fit, limits hold.
    ///
    /// Errors are the user's; each names the node, and what to do.
    pub fn new(settings: Settings, nodes: Vec<Node>) -> Result<Self> {
        let mut ids = BTreeSet::new();
        for (index, node) in nodes.iter().enumerate() {
            if !ids.insert(node.id.as_str()) {
                return Err(Error::user(
                    "duplicate-id",
                    format!("two nodes are named {:?}; give one another name", node.id),
                ));
            }
            assert!(node.inputs.iter().all(|input| *input < index), "inputs come before the nodes that read them");
            check_inputs(&nodes, node)?;
        }
        if !nodes.iter().any(|node| matches!(node.logic, NodeLogic::Source(_))) {
            return Err(Error::user("no-source", format!("job {} reads nothing; add a source", settings.name)));
        }
        let fingerprint = fingerprint(&settings, &nodes);
        let nodes = place(nodes)?;
        Ok(Self { settings, nodes, fingerprint, dead_letters: None, cluster: None })
    }

    /// Whether any node sets records aside, and nothing says yet where they go.
    pub fn wants_dead_letters(&self) -> bool {
        let collected = self.nodes().any(|node| matches!(node.logic, NodeLogic::DeadLetters(_)));
        !collected && self.nodes().any(Node::sets_aside)
    }

    /// The plan with a sink for what its nodes set aside, at its end; as it is where none does.
    ///
    /// Errors: a node has the id of that sink.
    pub fn with_dead_letters(self, to: DeadLettersTo) -> Result<Self> {
        if !self.wants_dead_letters() {
            return Ok(self);
        }
        let mut nodes: Vec<Node> = self.nodes.into_iter().map(|placed| placed.node).collect();
        let inputs = (0..nodes.len()).filter(|index| nodes[*index].sets_aside()).collect();
        nodes.push(to.node(inputs));
        Ok(Self { dead_letters: Some(to.desk), cluster: self.cluster, ..Self::new(self.settings, nodes)? })
    }

    /// The plan of a job that was written in Rust, with the cluster that it uses.
    pub(crate) fn with_cluster(self, cluster: Option<JobCluster>) -> Self {
        Self { cluster, ..self }
    }

    /// The cluster that a job which was written in Rust uses; that of a job file is in its `[kafka]`.
    pub fn cluster(&self) -> Option<&JobCluster> {
        self.cluster.as_ref()
    }

    /// Where the dead letters of the job are looked at, where it sets records aside.
    pub fn dead_letters(&self) -> Option<Arc<dead_letter::Desk>> {
        self.dead_letters.clone()
    }

    /// The job's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// For settings that the command line overrides; the graph stays as it is.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// xxh3-64 over P and every node's id, kind, settings and inputs: two plans with the same fingerprint compute the same.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The nodes, inputs first.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.iter().map(|placed| &placed.node)
    }

    /// The sinks with their indices, in that order.
    pub fn sinks(&self) -> Vec<(u16, &str, Arc<dyn Sink>)> {
        let sinks = self.nodes.iter().filter_map(|placed| match &placed.node.logic {
            NodeLogic::Sink(sink) | NodeLogic::DeadLetters(sink) => {
                Some((placed.index, placed.node.id.as_str(), sink.sink()))
            }
            NodeLogic::Source(_) | NodeLogic::Operator(_) => None,
        });
        sinks.collect()
    }

    /// Every store, with what the job says about it.
    pub fn stores(&self) -> Vec<(StoreShape, StoreSettings)> {
        let mut stores = Vec::new();
        for Placed { node, .. } in &self.nodes {
            if let NodeLogic::Operator(operator) = &node.logic {
                stores.extend(operator.stores(&node.id).into_iter().map(|shape| (shape, node.store)));
            }
        }
        stores
    }

    /// Builds the dataflow of one worker. Every worker builds the same operators in the same order.
    pub fn lower(&self, scope: Scope<'_, Time>, worker: &Rc<WorkerContext>, probe: &Handle<Time>) -> Result<()> {
        if self.wants_dead_letters() {
            let text = format!("job {} sets records aside, and nothing says where they go", self.settings.name);
            return Err(Error::internal("no-dead-letters", text));
        }
        let mut streams = Streams::new(&self.nodes);
        for (place, placed) in self.nodes.iter().enumerate() {
            let Placed { node, origin, index, maps } = placed;
            let context = NodeContext { id: &node.id, origin: *origin, index: *index, worker, probe };
            let lowered = match &node.logic {
                NodeLogic::Source(source) => Some(source.lower(scope, &context)?),
                NodeLogic::Operator(operator) => Some(operator.lower(streams.records(&node.inputs, maps), &context)?),
                NodeLogic::Sink(sink) => {
                    sink.lower(streams.records(&node.inputs, maps), &context)?;
                    None
                }
                NodeLogic::DeadLetters(sink) => {
                    sink.lower(streams.dead_letters(&node.inputs, maps), &context)?;
                    None
                }
            };
            streams.push(place, lowered, probe);
        }
        Ok(())
    }
}

/// The streams of the nodes that are lowered already.
struct Streams<'s> {
    /// By node, how many of its readers are not lowered yet.
    readers: Vec<usize>,
    lowered: Vec<(Option<AnyStream<'s>>, Option<AnyStream<'s>>)>,
}

impl<'s> Streams<'s> {
    fn new(nodes: &[Placed]) -> Self {
        let mut readers = vec![0; nodes.len()];
        let of_records = nodes.iter().filter(|placed| !matches!(placed.node.logic, NodeLogic::DeadLetters(_)));
        for input in of_records.flat_map(|placed| &placed.node.inputs) {
            readers[*input] += 1;
        }
        Self { readers, lowered: Vec::new() }
    }

    fn push(&mut self, place: usize, lowered: Option<Lowered<'s>>, probe: &Handle<Time>) {
        let (records, dead_letters) =
            lowered.map_or((None, None), |lowered| (Some(lowered.records), lowered.dead_letters));
        self.lowered.push(match records {
            // What nothing reads is waited for as well: its store is part of every epoch.
            Some(unread) if self.readers[place] == 0 => {
                unread.probe(probe);
                (None, dead_letters)
            }
            records => (records, dead_letters),
        });
    }

    fn records(&mut self, inputs: &[usize], maps: &[OriginMap]) -> Vec<(AnyStream<'s>, OriginMap)> {
        let mut taken = Vec::with_capacity(maps.len());
        for (input, map) in inputs.iter().zip(maps) {
            self.readers[*input] -= 1;
            let records = &mut self.lowered[*input].0;
            let stream = match self.readers[*input] {
                // The last reader takes the stream itself: every other one costs a copy of each record.
                0 => records.take(),
                _ => records.as_ref().map(AnyStream::duplicate),
            };
            taken.push((stream.expect("a sink is nobody's input"), map.clone()));
        }
        taken
    }

    fn dead_letters(&mut self, inputs: &[usize], maps: &[OriginMap]) -> Vec<(AnyStream<'s>, OriginMap)> {
        let streams = inputs.iter().map(|input| self.lowered[*input].1.take());
        let streams = streams.map(|stream| stream.expect("each input sets records aside, and is read once"));
        streams.zip(maps.iter().cloned()).collect()
    }
}

fn output_of(node: &Node) -> Option<TypeTag> {
    match &node.logic {
        NodeLogic::Source(source) => Some(source.output()),
        NodeLogic::Operator(operator) => Some(operator.output()),
        NodeLogic::Sink(_) | NodeLogic::DeadLetters(_) => None,
    }
}

fn check_inputs(nodes: &[Node], node: &Node) -> Result<()> {
    let wants = match &node.logic {
        // The plan has made this node itself, of those that set records aside.
        NodeLogic::Source(_) | NodeLogic::DeadLetters(_) => return Ok(()),
        NodeLogic::Operator(operator) => operator.input(),
        NodeLogic::Sink(sink) => sink.input(),
    };
    if node.inputs.is_empty() {
        return Err(Error::user("no-input", format!("{:?} has no inputs; name at least one", node.id)));
    }
    for input in &node.inputs {
        let from = &nodes[*input];
        let Some(gives) = output_of(from) else {
            let text =
                format!("{:?} reads the sink {:?}; a sink gives nothing, read what the sink reads", node.id, from.id);
            return Err(Error::user("sink-as-input", text));
        };
        check_edge(&from.id, &gives, &node.id, &wants)?;
    }
    Ok(())
}

/// Gives out origins and indices, and finds inputs that could be numbered alike.
fn place(nodes: Vec<Node>) -> Result<Vec<Placed>> {
    let mut origins = Origins::default();
    let (mut sources, mut sinks) = (0u16, 0u16);
    let mut placed: Vec<Placed> = Vec::new();
    // By node, the origins of its records and of its dead letters.
    let mut gives: Vec<[BTreeSet<OriginId>; 2]> = Vec::new();
    for node in nodes {
        let dead = usize::from(matches!(node.logic, NodeLogic::DeadLetters(_)));
        let mut seen = BTreeSet::new();
        let mut maps = Vec::new();
        for input in &node.inputs {
            maps.push(origins.tell_apart(&gives[*input][dead], &mut seen)?);
        }
        let own = match &node.logic {
            NodeLogic::Operator(operator) => operator.numbering() == Numbering::Own,
            NodeLogic::Source(_) => true,
            NodeLogic::Sink(_) | NodeLogic::DeadLetters(_) => false,
        };
        let origin = if own { origins.fresh()? } else { OriginId(0) };
        // A record may fail before a node numbers it anew, and after.
        let set_aside: BTreeSet<OriginId> = seen.iter().copied().chain(own.then_some(origin)).collect();
        gives.push([if own { BTreeSet::from([origin]) } else { seen }, set_aside]);
        let index = match &node.logic {
            NodeLogic::Source(_) | NodeLogic::Operator(_) => sources,
            NodeLogic::Sink(_) => sinks,
            NodeLogic::DeadLetters(_) => dead_letter::SINK_INDEX,
        };
        match &node.logic {
            NodeLogic::Source(_) => sources += 1,
            NodeLogic::Sink(_) => sinks += 1,
            NodeLogic::Operator(_) | NodeLogic::DeadLetters(_) => {}
        }
        placed.push(Placed { node, origin, index, maps });
    }
    Ok(placed)
}

/// Gives out origins.
#[derive(Default)]
struct Origins {
    next: usize,
}

impl Origins {
    fn fresh(&mut self) -> Result<OriginId> {
        self.next += 1;
        if self.next > Provenance::MAX_ORIGINS {
            return Err(Error::user(
                "too-many-nodes",
                format!("a job has at most {} origins", Provenance::MAX_ORIGINS),
            ));
        }
        Ok(OriginId((self.next - 1) as u16))
    }

    /// Renames the origins of an input that another one has as well.
    fn tell_apart(&mut self, input: &BTreeSet<OriginId>, seen: &mut BTreeSet<OriginId>) -> Result<OriginMap> {
        let mut map = OriginMap::default();
        for origin in input {
            let own = if seen.contains(origin) { self.fresh()? } else { *origin };
            if own != *origin {
                map.renamed.push((*origin, own));
            }
            seen.insert(own);
        }
        Ok(map)
    }
}

fn fingerprint(settings: &Settings, nodes: &[Node]) -> u64 {
    let mut text = format!("P={}", settings.partitions.get());
    for node in nodes {
        let inputs: Vec<_> = node.inputs.iter().map(|input| nodes[*input].id.as_str()).collect();
        text += &format!("\n{:?} {:?} {:?} {:?}", node.id, node.uses, inputs, node.config);
    }
    xxh3_64(text.as_bytes())
}
