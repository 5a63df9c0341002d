//! The job TOML: parse, validate (all errors at once), draw and explain.
//!
//! Three phases, each with a type of its own: [`parse`] gives a [`Document`], TOML with the place of everything in it;
//! [`apply_environment`] puts the environment over it; [`validate`] gives a [`JobSpec`], in which nothing is left to check or to
//! fill in, or [`Diagnostics`], with every problem at once. None of them looks at anything but the text: they work offline.

mod convert;
mod demand;
mod diagnostic;
mod document;
mod explain;
mod graph;
mod kafka;
mod kafka_source;
mod keys;
mod plan;
mod rights;
mod schema;
mod schemas;
mod spec;
mod suggest;
mod validate;

pub use demand::Demand;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use document::{Document, apply_environment, parse};
pub use explain::{ExplainedNode, Explanation, explain};
pub use graph::{Graph, GraphEdge, GraphNode, NodeKind, graph};
pub use kafka::dead_letters_log;
pub use plan::{PlanContext, plan, stores, with_dead_letters};
pub use rights::{KafkaResource, KafkaRight};
pub use schema::schema;
pub use spec::{
    BackfillSpec, BiasLevel, ConfigValue, DeadLettersPlace, DeadLettersSpec, EpochSpec, GeneratorSpec, HistorySpec,
    JobSpec, KafkaSourceSpec, KafkaSpec, OperatorSpec, Property, RecordFormat, SchemaRegistrySpec, SchemaSpec,
    SinkConnector, SinkRecordFormat, SinkSchemaSpec, SinkSpec, SourceConnector, SourceSpec, StoreSpec, TopicsSpec,
};
pub use thalweg_operators::Catalogue;
pub use validate::{Checked, validate};
