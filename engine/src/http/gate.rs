//! Admission: how many questions may be with a job at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Lets in at most a fixed number; who is in holds a [`Pass`].
#[derive(Clone)]
pub(super) struct Gate {
    inside: Arc<AtomicUsize>,
    limit: usize,
}

/// A place inside; dropping it gives it back.
pub(super) struct Pass(Arc<AtomicUsize>);

impl Gate {
    pub(super) fn new(limit: usize) -> Self {
        Self { inside: Arc::default(), limit }
    }

    /// A place, where one is free. Never waits.
    pub(super) fn enter(&self) -> Option<Pass> {
        // Taken first and given back where it was one too many: two who come at once can never both be the last.
        let pass = Pass(Arc::clone(&self.inside));
        (self.inside.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(pass)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_are_inside() {
        let gate = Gate::new(2);
        let first = gate.enter();
        let second = gate.enter();
        assert!(first.is_some() && second.is_some() && gate.enter().is_none());
        drop(first);
        assert!(gate.enter().is_some());
    }
}
