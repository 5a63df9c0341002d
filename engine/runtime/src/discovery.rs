//! Looks for source partitions that have come since the job was created.
//!
//! ```text
//!  discovery ── Found ──▶ coordinator ── SourcesAdded, durable ──▶ AddSources ──▶ driver: from the open epoch on
//! ```
//!
//! What is found is part of the job when the coordinator has said so, not before: a binding that names a partition is read again by
//! somebody who knows what it is. What is lost on the way is found again.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use thalweg_core::{Blame, Generation, PartitionSpec, Report, Result, SourcesFound, failpoint};
use thalweg_operators::{Failure, Plan};

use crate::event::TaskEvent;
use crate::running::Place;
use crate::thread::spawn;

/// The source partitions of the job: the driver adds those that the coordinator has made part of it.
pub(crate) type Known = Arc<Mutex<Vec<PartitionSpec>>>;

/// One thread for each source that grows; they end when this is dropped, after the look that is under way.
pub(crate) struct Discovery {
    _threads: Vec<Sender<()>>,
}

/// Looks at one source again and again.
struct Looking {
    plan: Arc<Plan>,
    source: u16,
    interval: Duration,
    generation: Generation,
    known: Known,
    failure: Arc<Failure>,
    tell: Arc<dyn Fn(TaskEvent) + Send + Sync>,
}

impl Discovery {
    /// Starts to look. A run that is repeated has what it had.
    pub(crate) fn start(place: &Place, generation: Generation, known: &Known, failure: &Arc<Failure>) -> Result<Self> {
        let growing = if place.config.recorded.is_some() { Vec::new() } else { place.config.plan.growing() };
        let start = |(source, interval)| {
            let looking = Looking {
                plan: place.config.plan.clone(),
                source,
                interval,
                generation,
                known: known.clone(),
                failure: failure.clone(),
                tell: place.tell.clone(),
            };
            let (stop, stopped) = channel();
            // It is not joined: a broker that is away must not hold up the end.
            spawn(format!("discovery-{source}"), move || {
                while !looking.failure.failed() {
                    if let Err(error) = looking.look() {
                        return looking.failure.fail(error);
                    }
                    match stopped.recv_timeout(looking.interval) {
                        Err(RecvTimeoutError::Timeout) => {}
                        Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            })?;
            Ok(stop)
        };
        Ok(Self { _threads: growing.into_iter().map(start).collect::<Result<_>>()? })
    }
}

impl Looking {
    /// Looks once.
    ///
    /// Errors: what the user has to mend. What comes and goes is told, and it is looked again later.
    fn look(&self) -> Result<()> {
        let known = self.known.lock().clone();
        let found = match self.plan.discover_more(self.source, &known) {
            Ok(found) if found.is_empty() => return Ok(()),
            Ok(found) => found,
            Err(error) if error.blame() == Blame::External => {
                tracing::warn!("looking for new partitions: {error}; it is looked again in {:?}", self.interval);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        failpoint::pass("growth-found")?;
        (self.tell)(TaskEvent::Report(Report::Found(SourcesFound { generation: self.generation, sources: found })));
        Ok(())
    }
}
