//! A timely stream whose record type is known only at run time, between two operators of a plan.

use std::any::TypeId;

use thalweg_core::{Data, Record, Result, Value};
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::probe::Handle;

use crate::context::WorkerContext;

/// The timestamp of every dataflow: the number of an epoch.
pub(crate) type Time = u64;

/// A stream of records of type `T` in the epochs of a job.
pub(crate) type Records<'s, T> = StreamVec<'s, Time, Record<T>>;

/// The record type of an edge, checked where two operators are joined.
#[derive(Clone, Copy)]
pub struct TypeTag {
    id: TypeId,
    name: &'static str,
}

impl TypeTag {
    /// The tag of a type.
    pub fn of<T: 'static>() -> Self {
        Self { id: TypeId::of::<T>(), name: std::any::type_name::<T>() }
    }

    /// The name of the type, for messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether records of this type can be given to an operator that wants `wanted`: the same type, or one of the two is
    /// [`Value`], which every type can be turned into and read from.
    pub fn fits(&self, wanted: &TypeTag) -> bool {
        let value = TypeId::of::<Value>();
        self.id == wanted.id || self.id == value || wanted.id == value
    }
}

impl PartialEq for TypeTag {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl std::fmt::Debug for TypeTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// A stream of a type that only its [`TypeTag`] tells.
pub struct AnyStream<'s> {
    tag: TypeTag,
    stream: Box<dyn Erased<'s> + 's>,
}

/// What any stream can do whatever its type is.
trait Erased<'s> {
    fn duplicate(&self) -> Box<dyn Erased<'s> + 's>;
    fn into_values(self: Box<Self>, context: &WorkerContext) -> Records<'s, Value>;
    fn probe(self: Box<Self>, probe: &Handle<Time>);
}

impl<'s, T: Data> Erased<'s> for Records<'s, T> {
    fn duplicate(&self) -> Box<dyn Erased<'s> + 's> {
        Box::new(self.clone())
    }

    fn probe(self: Box<Self>, probe: &Handle<Time>) {
        (*self).probe_with(probe);
    }

    fn into_values(self: Box<Self>, context: &WorkerContext) -> Records<'s, Value> {
        let failure = context.failure.clone();
        convert(*self, "to values", move |value: T| match Value::from_serde(&value) {
            Ok(value) => Some(value),
            Err(error) => {
                failure.fail(error);
                None
            }
        })
    }
}

impl<'s> AnyStream<'s> {
    /// Forgets the type.
    pub(crate) fn new<T: Data>(stream: Records<'s, T>) -> Self {
        Self { tag: TypeTag::of::<T>(), stream: Box::new(stream) }
    }

    /// The same stream once more: each reader gets every record.
    pub(crate) fn duplicate(&self) -> Self {
        Self { tag: self.tag, stream: self.stream.duplicate() }
    }

    /// Lets the probe wait for everything that the stream carries.
    pub(crate) fn probe(self, probe: &Handle<Time>) {
        self.stream.probe(probe);
    }

    /// The stream as one of `T`: as it is, or turned into or read from [`Value`].
    ///
    /// The plan has checked that the types fit; a mismatch here is a bug of the engine, and panics.
    pub(crate) fn typed<T: Data>(self, context: &WorkerContext) -> Records<'s, T> {
        if self.tag == TypeTag::of::<T>() {
            return self.downcast();
        }
        if TypeTag::of::<T>() == TypeTag::of::<Value>() {
            return AnyStream::new(self.stream.into_values(context)).downcast();
        }
        assert!(self.tag == TypeTag::of::<Value>(), "the plan let {:?} meet {:?}", self.tag, TypeTag::of::<T>());
        let values: Records<'s, Value> = self.downcast();
        let failure = context.failure.clone();
        convert(values, "from values", move |value: Value| match value.to_serde() {
            Ok(value) => Some(value),
            Err(error) => {
                failure.fail(error.context(format!("record {value}")));
                None
            }
        })
    }

    fn downcast<T: Data>(self) -> Records<'s, T> {
        assert!(self.tag == TypeTag::of::<T>(), "a stream of {:?} taken for one of {:?}", self.tag, TypeTag::of::<T>());
        // SAFETY: `new` is the only constructor besides `duplicate`, which keeps both fields' agreement: the box holds a
        // `Records<'s, T>` for the very `T` of the tag, which was compared above. The lifetime is the type's own parameter.
        unsafe { *Box::from_raw(Box::into_raw(self.stream).cast::<Records<'s, T>>()) }
    }
}

/// Turns each record into another with the same provenance, or drops it.
pub(crate) fn convert<'s, A: Data, B: Data>(
    stream: Records<'s, A>,
    name: &str,
    mut logic: impl FnMut(A) -> Option<B> + 'static,
) -> Records<'s, B> {
    stream.unary(Pipeline, name, move |_, _| {
        move |input, output| {
            input.for_each(|time, batch: &mut Vec<Record<A>>| {
                let mut converted: Vec<Record<B>> = batch
                    .drain(..)
                    .filter_map(|record| {
                        logic(record.value).map(|value| Record { provenance: record.provenance, value })
                    })
                    .collect();
                output.session(&time).give_container(&mut converted);
            });
        }
    })
}

/// The error of an edge whose ends do not fit; names both.
pub(crate) fn check_edge(from: &str, gives: &TypeTag, to: &str, wants: &TypeTag) -> Result<()> {
    if gives.fits(wants) {
        return Ok(());
    }
    Err(thalweg_core::Error::user(
        "edge-type",
        format!(
            "{from:?} gives {} but {to:?} takes {}; let the two agree, or put a map between them",
            gives.name(),
            wants.name()
        ),
    ))
}
