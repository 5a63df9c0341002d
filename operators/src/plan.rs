//! The plan: a typed graph with stable ids, that the TOML and the Rust builder both produce and that every worker lowers in
//! the same order.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use thalweg_connectors::Sink;
use thalweg_core::{Error, JobName, OriginId, PartitionCount, PartitionSpec, Provenance, Result};
use timely::dataflow::Scope;
use timely::dataflow::operators::probe::Handle;
use xxhash_rust::xxh3::xxh3_64;

use crate::context::WorkerContext;
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

/// The logic of a source.
pub trait SourceNode: Send + Sync {
    /// What it gives.
    fn output(&self) -> TypeTag;
    /// Every partition, with its resolved start.
    fn discover(&self, index: u16) -> Result<Vec<PartitionSpec>>;
    /// Builds the operator.
    fn lower<'s>(&self, scope: Scope<'s, Time>, node: &NodeContext<'_>) -> Result<AnyStream<'s>>;
}

/// The logic of an operator.
pub trait OperatorNode: Send + Sync {
    /// What it takes.
    fn input(&self) -> TypeTag;
    /// What it gives.
    fn output(&self) -> TypeTag;
    /// How it numbers that.
    fn numbering(&self) -> Numbering;
    /// The stores that it keeps.
    fn stores(&self, id: &str) -> Vec<StoreShape>;
    /// Builds the operator; one input for each of the node's, with its origins told apart.
    fn lower<'s>(&self, inputs: Vec<(AnyStream<'s>, OriginMap)>, node: &NodeContext<'_>) -> Result<AnyStream<'s>>;
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
            NodeLogic::Sink(_) => "sink",
        }
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
        Ok(Self { settings, nodes, fingerprint })
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

    /// Finds the partitions of every source.
    pub fn discover(&self) -> Result<Vec<PartitionSpec>> {
        let mut found = Vec::new();
        for placed in &self.nodes {
            if let NodeLogic::Source(source) = &placed.node.logic {
                let specs = source.discover(placed.index);
                found.extend(specs.map_err(|error| error.context(format!("source {:?}", placed.node.id)))?);
            }
        }
        found.sort_by_key(|spec| spec.of);
        Ok(found)
    }

    /// The sinks, in the order of their index.
    pub fn sinks(&self) -> Vec<(&str, Arc<dyn Sink>)> {
        let sinks = self.nodes.iter().filter_map(|placed| match &placed.node.logic {
            NodeLogic::Sink(sink) => Some((placed.node.id.as_str(), sink.sink())),
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
        let mut readers: Vec<usize> = vec![0; self.nodes.len()];
        for input in self.nodes.iter().flat_map(|placed| &placed.node.inputs) {
            readers[*input] += 1;
        }
        let mut streams: Vec<Option<AnyStream<'_>>> = Vec::new();
        for (place, placed) in self.nodes.iter().enumerate() {
            let Placed { node, origin, index, maps } = placed;
            let context = NodeContext { id: &node.id, origin: *origin, index: *index, worker, probe };
            let mut inputs = Vec::with_capacity(maps.len());
            for (input, map) in node.inputs.iter().zip(maps) {
                readers[*input] -= 1;
                let stream = match readers[*input] {
                    // The last reader takes the stream itself: every other one costs a copy of each record.
                    0 => streams[*input].take(),
                    _ => streams[*input].as_ref().map(AnyStream::duplicate),
                };
                inputs.push((stream.expect("a sink is nobody's input"), map.clone()));
            }
            let output = match &node.logic {
                NodeLogic::Source(source) => Some(source.lower(scope, &context)?),
                NodeLogic::Operator(operator) => Some(operator.lower(inputs, &context)?),
                NodeLogic::Sink(sink) => {
                    sink.lower(inputs, &context)?;
                    None
                }
            };
            // What nothing reads is waited for as well: its store is part of every epoch.
            match output {
                Some(unread) if readers[place] == 0 => {
                    unread.probe(probe);
                    streams.push(None);
                }
                output => streams.push(output),
            }
        }
        Ok(())
    }
}

fn output_of(node: &Node) -> Option<TypeTag> {
    match &node.logic {
        NodeLogic::Source(source) => Some(source.output()),
        NodeLogic::Operator(operator) => Some(operator.output()),
        NodeLogic::Sink(_) => None,
    }
}

fn check_inputs(nodes: &[Node], node: &Node) -> Result<()> {
    let wants = match &node.logic {
        NodeLogic::Source(_) => return Ok(()),
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
    let (mut next_origin, mut sources, mut sinks) = (0usize, 0u16, 0u16);
    let mut fresh = || {
        next_origin += 1;
        if next_origin > Provenance::MAX_ORIGINS {
            return Err(Error::user(
                "too-many-nodes",
                format!("a job has at most {} origins", Provenance::MAX_ORIGINS),
            ));
        }
        Ok(OriginId((next_origin - 1) as u16))
    };
    let mut placed: Vec<Placed> = Vec::new();
    let mut gives: Vec<BTreeSet<OriginId>> = Vec::new();
    for node in nodes {
        let mut seen = BTreeSet::new();
        let mut maps = Vec::new();
        for input in &node.inputs {
            let mut map = OriginMap::default();
            for origin in &gives[*input] {
                let own = if seen.contains(origin) { fresh()? } else { *origin };
                if own != *origin {
                    map.renamed.push((*origin, own));
                }
                seen.insert(own);
            }
            maps.push(map);
        }
        let own = match &node.logic {
            NodeLogic::Operator(operator) => operator.numbering() == Numbering::Own,
            NodeLogic::Source(_) => true,
            NodeLogic::Sink(_) => false,
        };
        let origin = if own { fresh()? } else { OriginId(0) };
        gives.push(if own { BTreeSet::from([origin]) } else { seen });
        let counter = if matches!(node.logic, NodeLogic::Sink(_)) { &mut sinks } else { &mut sources };
        let index = *counter;
        if !matches!(node.logic, NodeLogic::Operator(_)) {
            *counter += 1;
        }
        placed.push(Placed { node, origin, index, maps });
    }
    Ok(placed)
}

fn fingerprint(settings: &Settings, nodes: &[Node]) -> u64 {
    let mut text = format!("P={}", settings.partitions.get());
    for node in nodes {
        let inputs: Vec<_> = node.inputs.iter().map(|input| nodes[*input].id.as_str()).collect();
        text += &format!("\n{:?} {:?} {:?} {:?}", node.id, node.uses, inputs, node.config);
    }
    xxh3_64(text.as_bytes())
}
