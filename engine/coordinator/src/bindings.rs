//! Which bindings count: how B is chosen.

use std::collections::BTreeMap;

use thalweg_core::{Epoch, Generation};

use crate::Refusal;

/// B: the last epoch such that every epoch after `after` (C) up to it has a binding that counts; `after` where there is none.
///
/// `found` are the bindings in the log as (generation, epoch), in any order; the same one twice is an append that was
/// repeated. A cap `(generation, epoch)` is a plan of the past: bindings of generations before it count only up to that
/// epoch. What comes after a gap may be void: it was never observable, and its epoch may be cut anew.
///
/// Error: two generations have bound one epoch, and both count.
///
/// ```
/// use thalweg_coordinator::last_binding;
/// use thalweg_core::{Epoch, Generation};
/// let found = [(1, 11), (1, 13), (2, 12), (2, 13)].map(|(g, e)| (Generation(g), Epoch(e)));
/// // Generation 2 planned with B = 11: epoch 13 of generation 1, beyond a gap, is void for ever.
/// assert_eq!(last_binding(Epoch(10), &[(Generation(2), Epoch(11))], &found).unwrap(), Epoch(13));
/// ```
pub fn last_binding(
    after: Epoch,
    caps: &[(Generation, Epoch)],
    found: &[(Generation, Epoch)],
) -> Result<Epoch, Refusal> {
    let counts = |generation, epoch| {
        epoch > after && caps.iter().all(|(planned, last)| generation >= *planned || epoch <= *last)
    };
    let mut bound = BTreeMap::new();
    for (generation, epoch) in found.iter().copied().filter(|(generation, epoch)| counts(*generation, *epoch)) {
        let first = *bound.entry(epoch).or_insert(generation);
        if first != generation {
            return Err(Refusal::BoundTwice { epoch, first, second: generation });
        }
    }
    let mut last = after;
    while bound.contains_key(&last.next()) {
        last = last.next();
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: &str, after: u64, caps: &[(u64, u64)], found: &[(u64, u64)], expected: Option<u64>) {
        let typed = |pairs: &[(u64, u64)]| pairs.iter().map(|(g, e)| (Generation(*g), Epoch(*e))).collect::<Vec<_>>();
        let chosen = last_binding(Epoch(after), &typed(caps), &typed(found)).ok();
        assert_eq!(chosen, expected.map(Epoch), "{what}");
    }

    #[test]
    fn the_last_without_a_gap_behind_it() {
        check("nothing", 0, &[], &[], Some(0));
        check("nothing after C", 7, &[], &[(1, 6), (1, 7)], Some(7));
        check("a run", 0, &[], &[(1, 1), (1, 2), (1, 3)], Some(3));
        check("out of order", 0, &[], &[(1, 3), (1, 1), (1, 2)], Some(3));
        check("a gap", 0, &[], &[(1, 1), (1, 3)], Some(1));
        check("a gap at C", 5, &[], &[(1, 7)], Some(5));
        check("repeated appends", 0, &[], &[(1, 1), (1, 1), (1, 2)], Some(2));
        check("a void one", 0, &[(2, 0)], &[(1, 1)], Some(0));
        check("kept ones of the past", 0, &[(2, 2)], &[(1, 1), (1, 2), (1, 3), (2, 3)], Some(3));
        check("void stays void", 0, &[(2, 0), (3, 1)], &[(1, 2), (2, 1)], Some(1));
        check("a cap does not bind its own generation", 0, &[(2, 0)], &[(2, 1), (2, 2)], Some(2));
        check("bound by two", 0, &[], &[(1, 1), (2, 1)], None);
    }
}
