//! Operators and the plan that joins them: timely behind our own types.
//!
//! A job author implements [`KeyedProcess`] and writes a graph with [`JobBuilder`]; the TOML makes the same [`Plan`].

#![allow(
    clippy::disallowed_methods,
    reason = "a source with a rate paces itself by the clock; no record depends on it"
)]

mod activity;
mod aside;
mod builder;
mod builtin;
mod catalogue;
mod cluster;
mod context;
mod dead_letters;
mod epoch_gate;
mod expression;
mod group;
mod keyed;
mod node;
mod plan;
mod process;
mod registry;
mod shape;
mod sink;
mod source;
mod stateless;
mod store;
mod stream;

pub use activity::Activity;
pub use builder::{JobBuilder, KeyedStream, Stream};
pub use builtin::fold::{Count, Fold, Max, Mean, MeanState, Min, Reduce, Sum, SumOf};
pub use builtin::key::KeyFields;
pub use builtin::{aggregate, filter, key_by, map, reduce, words};
pub use catalogue::{Catalogue, ConfigKey, ConfigKind, KeyRule, OperatorInfo};
pub use cluster::JobCluster;
pub use context::{Barrier, Barriers, Failure, OperatorStore, PointQuestions, SinkBatch, WorkerContext};
pub use dead_letters::DeadLettersTo;
pub use epoch_gate::{Cutting, EpochGate, EpochLimits, NO_TIMER, Recorded, SourceEvent};
pub use expression::{AggregateFunction, Aggregation, Expression, ExpressionError};
pub use node::{FlatMapOf, KeyedOf, SinkOf, SourceOf};
pub use plan::{
    ChangelogKind, Lowered, Migrate, Node, NodeContext, NodeLogic, Numbering, OnError, OperatorNode, OriginMap, Plan,
    Settings, SinkNode, SourceNode, StoreSettings, StoreShape,
};
pub use process::{EpochCtx, KeyedProcess, OldState, Output, ProcessError, RecordsOf, State, Timestamp};
pub use registry::{OperatorRequest, Registry};
pub use shape::shape_of;
pub use store::{KeyBounds, StoreReader, scan_bounds, tag_range};
pub use stream::{AnyStream, TypeTag};
