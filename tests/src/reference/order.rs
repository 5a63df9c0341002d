//! The order of an epoch's records: origin, partition, sequence; and how the plan names origins.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_connectors::dead_letter::DeadLetter;

use super::item::Item;
use crate::sketch::{JobSketch, Step};

/// Where a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) origin: u16,
    pub(super) partition: u16,
    pub(super) sequence: u64,
}

/// The records of one epoch.
pub(super) type Stream = Vec<(Place, Item)>;
/// What a node has set aside in one epoch, without what the failures say.
pub(super) type Aside = Vec<(Place, DeadLetter)>;

/// The origins of a plan, numbered in its order: first those that tell an input apart, then the node's own.
pub(super) struct Origins {
    own: Vec<u16>,
    /// By node and input: which origins are called otherwise there.
    renamed: Vec<Vec<BTreeMap<u16, u16>>>,
    /// By source and operator: how origins are called among all that is set aside.
    aside: Vec<BTreeMap<u16, u16>>,
}

/// How the origins of an input are called, so that none is met twice.
fn tell_apart(
    origins: &BTreeSet<u16>,
    seen: &mut BTreeSet<u16>,
    fresh: &mut impl FnMut() -> u16,
) -> BTreeMap<u16, u16> {
    let mut names = BTreeMap::new();
    for origin in origins {
        let name = if seen.contains(origin) { fresh() } else { *origin };
        names.insert(*origin, name);
        seen.insert(name);
    }
    names
}

impl Origins {
    pub(super) fn of(job: &JobSketch) -> Self {
        let sources = job.sources.iter().map(|_| (Vec::new(), true));
        let operators = job.operators.iter().map(|operator| {
            let own = matches!(operator.step, Step::KeyBy(_) | Step::Fold(..) | Step::Visits);
            (operator.inputs.clone(), own)
        });
        let sinks = job.sinks.iter().map(|sink| (sink.inputs.clone(), false));
        let mut origins = Self { own: Vec::new(), renamed: Vec::new(), aside: Vec::new() };
        let mut gives: Vec<BTreeSet<u16>> = Vec::new();
        let mut set_aside: Vec<BTreeSet<u16>> = Vec::new();
        let mut next = 0;
        let mut fresh = || {
            next += 1;
            next - 1
        };
        for (inputs, has_own) in sources.chain(operators).chain(sinks) {
            let mut seen = BTreeSet::new();
            let mut renamed = Vec::new();
            for input in inputs {
                renamed.push(tell_apart(&gives[input], &mut seen, &mut fresh));
            }
            let own = if has_own { fresh() } else { 0 };
            set_aside.push(seen.iter().copied().chain(has_own.then_some(own)).collect());
            gives.push(if has_own { BTreeSet::from([own]) } else { seen });
            origins.own.push(own);
            origins.renamed.push(renamed);
        }
        if job.aside {
            let mut seen = BTreeSet::new();
            let nodes = set_aside.iter().take(job.sources.len() + job.operators.len());
            origins.aside = nodes.map(|of| tell_apart(of, &mut seen, &mut fresh)).collect();
        }
        origins
    }

    /// All that the nodes have set aside, in its order.
    pub(super) fn gather<T>(&self, aside: Vec<Vec<(Place, T)>>) -> Vec<T> {
        let renamed = aside.into_iter().zip(&self.aside).flat_map(|(letters, names)| {
            letters.into_iter().map(|(place, letter)| (Place { origin: names[&place.origin], ..place }, letter))
        });
        let mut all: Vec<_> = renamed.collect();
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, letter)| letter).collect()
    }

    /// The origin of a source or keyed operator.
    pub(super) fn own(&self, node: usize) -> u16 {
        self.own[node]
    }

    /// What a node reads.
    pub(super) fn merge(&self, node: usize, inputs: &[usize], streams: &[Stream]) -> Stream {
        let mut merged = Vec::new();
        for (input, names) in inputs.iter().zip(&self.renamed[node]) {
            let renamed =
                |(place, item): &(Place, Item)| (Place { origin: names[&place.origin], ..*place }, item.clone());
            merged.extend(streams[*input].iter().map(renamed));
        }
        merged
    }
}
