//! The nodes that the builder and the TOML put into a plan.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use thalweg_connectors::dead_letter::Retries;
use thalweg_connectors::{EncodedBatch, EncodedRecord, RecordSource, Sink};
use thalweg_core::{Data, Epoch, Error, PartitionId, PartitionSpec, Result};
use timely::dataflow::Scope;

use crate::aside::Outputs;
use crate::keyed::{KeyedOperator, TIMERS_SUFFIX};
use crate::plan::{
    Lowered, Migrate, NodeContext, Numbering, OnError, OperatorNode, OriginMap, SinkNode, SourceNode, StoreShape,
};
use crate::process::{KeyedProcess, OldState, ProcessError};
use crate::shape::shape_of;
use crate::sink::{self, Encode, Gathered};
use crate::source::SourceOperator;
use crate::stateless::{self, Guard};
use crate::store::TypedReader;
use crate::stream::{AnyStream, Records, Time, TypeTag};

/// A source of records of one type.
pub struct SourceOf<T> {
    /// Where they come from.
    pub source: Arc<dyn RecordSource<T>>,
    /// Records per second over all partitions, at most.
    pub rate: Option<f64>,
    /// What is done with records that cannot be decoded.
    pub on_error: OnError,
}

impl<T: Data> SourceNode for SourceOf<T> {
    fn output(&self) -> TypeTag {
        TypeTag::of::<T>()
    }

    fn on_error(&self) -> OnError {
        self.on_error
    }

    fn discover(&self, index: u16) -> Result<Vec<PartitionSpec>> {
        self.source.discover(index)
    }

    fn discover_interval(&self) -> Option<Duration> {
        self.source.discover_interval()
    }

    fn discover_more(&self, index: u16, known: &[PartitionSpec]) -> Result<Vec<PartitionSpec>> {
        self.source.discover_more(index, known)
    }

    fn is_of_topic(&self, partition: &PartitionSpec) -> bool {
        self.source.topic_of(partition).is_some()
    }

    fn committed(&self, partition: PartitionId, position: u64) -> Result<()> {
        self.source.committed(partition, position)
    }

    fn set_retries(&self, retries: Retries) {
        self.source.set_retries(retries);
    }

    fn lower<'s>(&self, scope: Scope<'s, Time>, node: &NodeContext<'_>) -> Result<Lowered<'s>> {
        let operator = SourceOperator {
            id: node.id.to_owned(),
            index: node.index,
            origin: node.origin,
            source: self.source.clone(),
            rate: self.rate,
            on_error: self.on_error,
        };
        Ok(operator.build(scope, node.worker)?.into())
    }
}

impl<'s, T: Data> From<Outputs<'s, T>> for Lowered<'s> {
    fn from(outputs: Outputs<'s, T>) -> Self {
        Self { records: AnyStream::new(outputs.records), dead_letters: outputs.dead_letters.map(AnyStream::new) }
    }
}

/// All inputs as one stream of `T`.
pub(crate) fn merged<'s, T: Data>(inputs: Vec<(AnyStream<'s>, OriginMap)>, node: &NodeContext<'_>) -> Records<'s, T> {
    let mut typed: Vec<_> = inputs.into_iter().map(|(stream, map)| (stream.typed::<T>(node.worker), map)).collect();
    if typed.len() == 1 && typed[0].1.is_identity() {
        return typed.remove(0).0;
    }
    stateless::merge(typed)
}

/// One record in, any number out.
pub struct FlatMapOf<A, B, F> {
    logic: Arc<F>,
    on_error: OnError,
    types: PhantomData<fn(A) -> B>,
}

impl<A: Data, B: Data, F> FlatMapOf<A, B, F>
where
    F: Fn(A, &mut Vec<B>) -> Result<(), ProcessError> + Send + Sync + 'static,
{
    /// Calls `logic` for each record.
    pub fn new(logic: F, on_error: OnError) -> Self {
        Self { logic: Arc::new(logic), on_error, types: PhantomData }
    }
}

impl<A: Data, B: Data, F> OperatorNode for FlatMapOf<A, B, F>
where
    F: Fn(A, &mut Vec<B>) -> Result<(), ProcessError> + Send + Sync + 'static,
{
    fn input(&self) -> TypeTag {
        TypeTag::of::<A>()
    }
    fn output(&self) -> TypeTag {
        TypeTag::of::<B>()
    }
    fn numbering(&self) -> Numbering {
        Numbering::Kept
    }
    fn on_error(&self) -> OnError {
        self.on_error
    }
    fn stores(&self, _: &str) -> Vec<StoreShape> {
        Vec::new()
    }
    fn lower<'s>(&self, inputs: Vec<(AnyStream<'s>, OriginMap)>, node: &NodeContext<'_>) -> Result<Lowered<'s>> {
        let logic = self.logic.clone();
        let guard = Guard::new(node.id, self.on_error, node.worker);
        let stream = merged::<A>(inputs, node);
        Ok(stateless::flat_map(stream, node.id, guard, move |record, out| logic(record, out)).into())
    }
}

/// A keyed process behind a function that takes the key out of a record.
pub struct KeyedOf<P, A, F> {
    process: Arc<P>,
    key: Arc<F>,
    on_error: OnError,
    timers: bool,
    types: PhantomData<fn(A)>,
}

impl<P: KeyedProcess, A: Data, F> KeyedOf<P, A, F>
where
    F: Fn(A) -> Result<(P::Key, P::In), ProcessError> + Send + Sync + 'static,
{
    /// Groups records by `key`.
    pub fn new(process: P, key: F, on_error: OnError) -> Self {
        Self { process: Arc::new(process), key: Arc::new(key), on_error, timers: P::TIMERS, types: PhantomData }
    }
}

impl<P: KeyedProcess, A: Data, F> OperatorNode for KeyedOf<P, A, F>
where
    F: Fn(A) -> Result<(P::Key, P::In), ProcessError> + Send + Sync + 'static,
{
    fn input(&self) -> TypeTag {
        TypeTag::of::<A>()
    }
    fn output(&self) -> TypeTag {
        TypeTag::of::<P::Out>()
    }
    fn numbering(&self) -> Numbering {
        Numbering::Own
    }
    fn on_error(&self) -> OnError {
        self.on_error
    }

    fn stores(&self, id: &str) -> Vec<StoreShape> {
        let process = self.process.clone();
        let show: crate::store::Show<P::State> = Arc::new(move |state| process.show(state));
        let reader = TypedReader::<P::Key, P::State> { show, types: PhantomData };
        let key = shape_of::<P::Key>();
        let mut stores = vec![StoreShape {
            id: id.to_owned(),
            key: key.clone(),
            value: shape_of::<P::State>(),
            migrate: P::MIGRATES.then(|| migration(self.process.clone(), key.clone())),
            reader: Some(Arc::new(reader)),
        }];
        if self.timers {
            let id = format!("{id}{TIMERS_SUFFIX}");
            stores.push(StoreShape {
                id,
                key: format!("(i64, {key})"),
                value: "()".to_owned(),
                migrate: None,
                reader: None,
            });
        }
        stores
    }

    fn lower<'s>(&self, inputs: Vec<(AnyStream<'s>, OriginMap)>, node: &NodeContext<'_>) -> Result<Lowered<'s>> {
        let key = self.key.clone();
        let guard = || Guard::new(node.id, self.on_error, node.worker);
        let name = format!("key of {}", node.id);
        let keyed = stateless::key_by(merged::<A>(inputs, node), &name, guard(), move |record| key(record));
        let operator = KeyedOperator {
            id: node.id.to_owned(),
            origin: node.origin,
            process: self.process.clone(),
            guard: guard(),
            timers: self.timers,
        };
        let mut outputs = operator.build(keyed.records, node.worker)?;
        // What fails before the key is known, and what fails with it.
        outputs.dead_letters = match (keyed.dead_letters, outputs.dead_letters) {
            (Some(before), Some(after)) => {
                Some(stateless::merge(vec![(before, OriginMap::default()), (after, OriginMap::default())]))
            }
            (before, after) => before.or(after),
        };
        Ok(outputs.into())
    }
}

/// Rewrites rows with the process's own migration; the key has to stay what it is.
fn migration<P: KeyedProcess>(process: Arc<P>, key_shape: String) -> Migrate {
    Arc::new(move |old_key, old_value, key, value| {
        let refuse = |why: String| Error::user("state-shape", why);
        if old_key != key_shape {
            return Err(refuse(format!("the key was {old_key} and is {key_shape}; only values can be migrated")));
        }
        let old = OldState { shape: old_value, bytes: value };
        let state =
            process.migrate(&old).map_err(|error| refuse(format!("migrating a state of {old_value}: {error}")))?;
        let value = postcard::to_stdvec(&state).map_err(|error| refuse(error.to_string()))?;
        Ok((key.to_vec(), value))
    })
}

/// A sink of records of one type.
pub struct SinkOf<T> {
    sink: Arc<dyn Sink>,
    encode: Encode<T>,
}

impl<T: Data> SinkOf<T> {
    /// Writes the values that `encode` gives, without keys.
    pub fn new(sink: Arc<dyn Sink>, encode: impl Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync + 'static) -> Self {
        Self::records(sink, move |record, _, batch| {
            let start = batch.data.len();
            encode(record, &mut batch.data)?;
            let value = Some(start..batch.data.len());
            batch.records.push(EncodedRecord { value, ..EncodedRecord::default() });
            Ok(())
        })
    }

    /// Writes records as `encode` adds them, one for each, with their keys and headers.
    pub fn records(
        sink: Arc<dyn Sink>,
        encode: impl Fn(&T, Epoch, &mut EncodedBatch) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { sink, encode: Some(Arc::new(encode)) }
    }

    /// Counts records and writes nothing.
    pub fn counting(sink: Arc<dyn Sink>) -> Self {
        Self { sink, encode: None }
    }
}

impl<T: Data> SinkNode for SinkOf<T> {
    fn input(&self) -> TypeTag {
        TypeTag::of::<T>()
    }
    fn sink(&self) -> Arc<dyn Sink> {
        self.sink.clone()
    }
    fn lower<'s>(&self, inputs: Vec<(AnyStream<'s>, OriginMap)>, node: &NodeContext<'_>) -> Result<()> {
        let stream = merged::<T>(inputs, node);
        sink::build(stream, node, Gathered::ByPartition, self.encode.clone());
        Ok(())
    }
}
