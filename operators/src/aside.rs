//! The second output of an operator: what it sets aside as dead letters.

use thalweg_connectors::dead_letter::DeadLetter;
use thalweg_core::{Provenance, Record};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::{Capability, CapabilityTrait};

use crate::stream::{Records, Time};

/// An output of an operator.
pub(crate) type Output<T> = OutputBuilder<Time, CapacityContainerBuilder<Vec<Record<T>>>>;

/// What an operator gives: its own records, and its dead letters where it is to set records aside.
pub(crate) struct Outputs<'s, T> {
    pub(crate) records: Records<'s, T>,
    pub(crate) dead_letters: Option<Records<'s, DeadLetter>>,
}

/// The output of dead letters; without one nothing is ever set aside.
pub(crate) struct Aside {
    output: Option<Output<DeadLetter>>,
    waiting: Vec<Record<DeadLetter>>,
}

impl Aside {
    /// Adds the output to an operator, behind its others, where it is wanted.
    pub(crate) fn new<'s>(
        builder: &mut OperatorBuilder<'s, Time>,
        wanted: bool,
    ) -> (Self, Option<Records<'s, DeadLetter>>) {
        let made = wanted.then(|| builder.new_output());
        let (output, stream) = made.map_or((None, None), |(output, stream)| (Some(output), Some(stream)));
        (Self { output: output.map(Output::from), waiting: Vec::new() }, stream)
    }

    /// Sets a record aside; [`Aside::give`] sends it.
    pub(crate) fn put(&mut self, provenance: Provenance, letter: DeadLetter) {
        self.waiting.push(Record { provenance, value: letter });
    }

    /// Sends what was set aside in one epoch.
    pub(crate) fn give(&mut self, capability: &impl CapabilityTrait<Time>) {
        if self.waiting.is_empty() {
            return;
        }
        let output = self.output.as_mut().expect("only an operator with the output sets records aside");
        output.activate().session(capability).give_container(&mut self.waiting);
        self.waiting.clear();
    }
}

/// The capabilities that an operator holds for all of its outputs, which go together.
pub(crate) struct Held(Vec<Capability<Time>>);

impl Held {
    /// For the first epoch of which the operator may give something.
    pub(crate) fn new(capabilities: &[Capability<Time>], first: Time) -> Self {
        Self(capabilities.iter().map(|capability| capability.delayed(&first)).collect())
    }

    /// That of the records.
    pub(crate) fn records(&self) -> &Capability<Time> {
        &self.0[0]
    }

    /// That of the dead letters; where there are none, any will do for giving nothing.
    pub(crate) fn dead_letters(&self) -> &Capability<Time> {
        self.0.last().expect("an operator has an output")
    }

    /// Gives up what is before `first`.
    pub(crate) fn downgrade(&mut self, first: Time) {
        self.0.iter_mut().for_each(|capability| capability.downgrade(&first));
    }
}
