//! The hidden sink at the end of a plan: all that the nodes of a job set aside, in one order.

use std::sync::Arc;

use thalweg_connectors::dead_letter::{self, DeadLetter, Desk, HeaderNames};
use thalweg_connectors::{EncodedBatch, Sink};
use thalweg_core::{Epoch, Result};
use timely::dataflow::operators::Exchange;

use crate::node::merged;
use crate::plan::{Node, NodeContext, NodeLogic, OriginMap, SinkNode, StoreSettings};
use crate::sink::{self, Gathered};
use crate::stream::{AnyStream, TypeTag};

/// Where the dead letters of a job go.
pub struct DeadLettersTo {
    /// What writes them.
    pub sink: Arc<dyn Sink>,
    /// Where they are looked at.
    pub desk: Arc<Desk>,
    /// Whose names their headers have.
    pub names: HeaderNames,
    /// The connector of that, for people and the fingerprint.
    pub uses: &'static str,
    /// Its settings, in one canonical text; part of the fingerprint.
    pub config: String,
}

impl DeadLettersTo {
    /// The sink as a node that reads what these nodes set aside.
    pub(crate) fn node(&self, inputs: Vec<usize>) -> Node {
        Node {
            id: dead_letter::SINK.to_owned(),
            uses: self.uses.to_owned(),
            config: self.config.clone(),
            inputs,
            store: StoreSettings::default(),
            logic: NodeLogic::DeadLetters(Box::new(DeadLetterSink { sink: self.sink.clone(), names: self.names })),
        }
    }
}

struct DeadLetterSink {
    sink: Arc<dyn Sink>,
    names: HeaderNames,
}

impl SinkNode for DeadLetterSink {
    fn input(&self) -> TypeTag {
        TypeTag::of::<DeadLetter>()
    }

    fn sink(&self) -> Arc<dyn Sink> {
        self.sink.clone()
    }

    /// One worker is given all of them: they are few, and so there is one order of an epoch whatever the number of workers.
    fn lower<'s>(&self, inputs: Vec<(AnyStream<'s>, OriginMap)>, node: &NodeContext<'_>) -> Result<()> {
        let stream = merged::<DeadLetter>(inputs, node).exchange(|_| 0);
        let (job, names) = (node.worker.job.clone(), self.names);
        let encode = move |letter: &DeadLetter, epoch: Epoch, batch: &mut EncodedBatch| {
            letter.encode(&job, epoch, names, batch);
            Ok(())
        };
        sink::build(stream, node, Gathered::InOne, Some(Arc::new(encode)));
        Ok(())
    }
}
