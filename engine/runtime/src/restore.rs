//! Brings the local state to checkpoint C: from local disk where it is at C, else from the changelog; never a wrong answer.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use thalweg_connectors::log::{Log, Owner, ToEnd};
use thalweg_core::{Epoch, Error, Generation, RecoveryPlan, Result, StoreState, TaskIndex};
use thalweg_operators::ChangelogKind;
use thalweg_state::{Applied, Backend, BackendOptions, RestoreMode, StoreSpec};

use crate::changelogs::{self, changelog_topic};
use crate::config::TaskConfig;
use crate::restore_progress::RestoreProgress;

/// Threads that restore partitions from changelogs, at most.
const MAX_THREADS: usize = 4;
/// About what they hold of changelogs in memory, all together, before it is sorted on disk. The client's queues come to it, and a
/// record of each file that is merged.
const MEMORY_BYTES: usize = 64 << 20;

/// Opens the state folder and brings every store to C.
///
/// Errors: `state-of-another-job` and the other refusals of [`Backend::open`]; `state-lost` where neither the disk nor a
/// changelog has C; `state-ahead` where the disk is beyond C; `state-digest` where what was restored is not what C says.
pub(crate) fn restore(
    config: &TaskConfig,
    recovery: &RecoveryPlan,
    progress: &RestoreProgress,
) -> Result<Arc<Backend>> {
    let TaskConfig { plan, logs, state_dir, .. } = config;
    let specs: Vec<_> = plan
        .stores()
        .into_iter()
        .map(|(shape, settings)| StoreSpec {
            name: shape.id,
            key_shape: shape.key,
            value_shape: shape.value,
            changelog: settings.changelog != ChangelogKind::None,
            migrate: shape.migrate.map(|migrate| -> thalweg_state::Migrate {
                Box::new(move |old_key: &str, old_value: &str, key: &[u8], value: &[u8]| {
                    migrate(old_key, old_value, key, value)
                })
            }),
        })
        .collect();
    let stores = plan.stores().into_iter();
    let stores = stores.map(|(shape, settings)| Ok((shape.id, logs.changelog(settings.changelog)?.cloned())));
    let stores: Vec<StoreLog> = stores.collect::<Result<_>>()?;
    let mut backend =
        Backend::open(state_dir, recovery.zero.job_id, recovery.zero.partitions, specs, BackendOptions::default())?;
    backend.recover_pending(&recovery.lineage)?;
    let threads = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN).get().min(MAX_THREADS);
    restore_stores(&backend, &stores, config.task, recovery, progress, threads)?;
    Ok(Arc::new(backend))
}

/// A store, and the log with its changelog where it has one.
pub type StoreLog = (String, Option<Arc<dyn Log>>);

/// Brings every store of a folder, whose pending files are recovered, to C: from changelogs by so many threads, at least one. A
/// changelog that does not come to what C says is read once more, before that is an error.
///
/// Errors: those of [`restore`].
pub fn restore_stores(
    backend: &Backend,
    stores: &[StoreLog],
    task: TaskIndex,
    recovery: &RecoveryPlan,
    progress: &RestoreProgress,
    threads: usize,
) -> Result<()> {
    let Some(checkpoint) = &recovery.checkpoint else { return refuse_leftovers(backend, stores, recovery) };
    let mut from_changelogs = Vec::new();
    for state in &checkpoint.stores {
        let Some((name, changelog)) = stores.iter().find(|(name, _)| *name == state.store) else { continue };
        let applied = backend.applied(name, state.partition)?;
        match compare(applied, state, checkpoint.epoch)? {
            Local::AtC => {}
            local @ (Local::Behind | Local::Missing) => match (changelog, local) {
                (Some(log), _) => {
                    from_changelogs.push(Changelog::of(state, &**log, recovery)?);
                }
                (None, Local::Behind) => return Err(lost(state, "is of an earlier checkpoint")),
                (None, _) => return Err(lost(state, "is not on this disk")),
            },
        }
    }
    if !from_changelogs.is_empty() {
        progress.begin(from_changelogs.iter().map(Changelog::records).sum());
        let id = changelogs::id_of(recovery.zero.job_id, task);
        let owner = Owner::fenced(&id, recovery.generation);
        let threads = threads.clamp(1, from_changelogs.len());
        let committed = (checkpoint.generation, checkpoint.epoch);
        let (opening, stop) = (Mutex::default(), AtomicBool::default());
        let to = Target { backend, owner, recovery, committed, progress, opening, stop: &stop };
        in_threads(threads, &stop, &from_changelogs, |changelog| to.restore(changelog, MEMORY_BYTES / threads))?;
        progress.end();
    }
    Ok(())
}

/// What the local disk has of a partition.
enum Local {
    AtC,
    Behind,
    Missing,
}

fn compare(applied: Option<Applied>, state: &StoreState, checkpoint: Epoch) -> Result<Local> {
    let Some(applied) = applied else {
        return Ok(if state.entries == 0 && state.changelog == 0 { Local::AtC } else { Local::Missing });
    };
    if applied.epoch > checkpoint {
        let text = format!(
            "store {:?}, partition {}: the disk holds checkpoint {}, but the last committed one is {checkpoint}; \
             the job's folder was put together from two copies, restore one whole copy",
            state.store, state.partition, applied.epoch
        );
        return Err(Error::external("state-ahead", text));
    }
    if applied.recorded == state.digest && applied.entries == state.entries {
        return Ok(Local::AtC);
    }
    if applied.epoch == checkpoint {
        let text = format!(
            "store {:?}, partition {}: the disk does not hold what checkpoint {checkpoint} says (digest differs); \
             the state is damaged, restore the job's folder from a copy or start the job anew",
            state.store, state.partition
        );
        return Err(Error::external("state-digest", text));
    }
    Ok(Local::Behind)
}

fn lost(state: &StoreState, what: &str) -> Error {
    let text = format!(
        "store {:?}: partition {} {what} and the store has no changelog to restore it from; restore the job's folder from a \
         copy, or remove it to begin anew, and set changelog = \"log\" or \"kafka\" for [stores.{}] to be able to restore it next time",
        state.store, state.partition, state.store
    );
    Error::external("state-lost", text)
}

/// Before the first checkpoint there is no state: what a disk holds then belongs to something else.
fn refuse_leftovers(backend: &Backend, stores: &[StoreLog], recovery: &RecoveryPlan) -> Result<()> {
    for (name, _) in stores {
        for partition in recovery.zero.partitions.all() {
            if let Some(applied) = backend.applied(name, partition)? {
                let text = format!("store {name:?} holds checkpoint {}, but none is committed", applied.epoch);
                return Err(Error::external("state-ahead", text));
            }
        }
    }
    Ok(())
}

/// The changelog of a partition whose state is restored from it.
struct Changelog<'a> {
    state: &'a StoreState,
    log: &'a dyn Log,
    topic: String,
    /// The first that is kept, and the end.
    offsets: (u64, u64),
}

impl<'a> Changelog<'a> {
    fn of(state: &'a StoreState, log: &'a dyn Log, recovery: &RecoveryPlan) -> Result<Self> {
        let topic = changelog_topic(recovery.zero.job_id, &state.store);
        let offsets = log.offsets(&topic, state.partition)?;
        Ok(Self { state, log, topic, offsets })
    }

    /// How many records there are to read, as offsets tell.
    fn records(&self) -> u64 {
        self.offsets.1 - self.offsets.0
    }
}

/// What is restored, and to which checkpoint.
struct Target<'a> {
    backend: &'a Backend,
    owner: Owner<'a>,
    recovery: &'a RecoveryPlan,
    committed: (Generation, Epoch),
    progress: &'a RestoreProgress,
    /// One changelog is opened at a time: what the owner has left open is ended there by a new producer of its one id.
    opening: Mutex<()>,
    /// Another partition could not be restored.
    stop: &'a AtomicBool,
}

impl Target<'_> {
    /// Restores a partition, with about so many bytes of memory.
    fn restore(&self, changelog: &Changelog<'_>, memory: usize) -> Result<()> {
        match self.read(changelog, memory) {
            // What is cleaned while it is read may have kept two records from each other.
            Err(error) if error.code() == "state-digest" => {
                tracing::warn!("{error}; the changelog is read once more");
                self.progress.again(changelog.records());
                self.read(changelog, memory)
            }
            outcome => outcome,
        }
    }

    /// Reads the whole changelog of a partition and puts what it comes to in place of what is there.
    fn read(&self, changelog: &Changelog<'_>, memory: usize) -> Result<()> {
        let Changelog { state, log, topic, offsets: (first, _) } = changelog;
        let mut fold = self.backend.fold(&state.store, state.partition, memory)?;
        let mut reached = *first;
        // To the fenced end of the log, not to C's offset: what is there may prove that a record of C is obsolete.
        let opening = self.opening.lock();
        let all = ToEnd::open(*log, topic, state.partition, *first, Some(self.owner))?;
        drop(opening);
        let end = all.read_ref(|record| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::internal("restore-stopped", "another partition could not be restored"));
            }
            // By offsets, as the total is: compaction leaves gaps in both.
            self.progress.advance(record.offset + 1 - reached);
            reached = record.offset + 1;
            fold.push(record.key.unwrap_or_default(), record.value)
        })?;
        self.progress.advance(end - reached);
        let lineage = &self.recovery.lineage;
        self.backend.restore_fold(fold, lineage, RestoreMode::Replace, self.committed, state, end)
    }
}

/// Does something with every item, by so many threads. The first error ends it: `stop` is set then.
fn in_threads<T: Sync>(
    threads: usize,
    stop: &AtomicBool,
    items: &[T],
    work: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    if threads <= 1 {
        return items.iter().try_for_each(work);
    }
    let (next, first) = (AtomicUsize::new(0), Mutex::new(None));
    let fail = |error| {
        first.lock().get_or_insert(error);
        stop.store(true, Ordering::Release);
    };
    let some = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
            && !stop.load(Ordering::Acquire)
        {
            work(item).unwrap_or_else(&fail);
        }
    };
    std::thread::scope(|scope| {
        for index in 0..threads {
            let thread = std::thread::Builder::new().name(format!("restore-{index}"));
            if let Err(error) = thread.spawn_scoped(scope, some) {
                return fail(Error::io("starting a thread", error));
            }
        }
    });
    first.into_inner().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_has_its_turn_until_one_fails() {
        for threads in 1..4 {
            let sum = AtomicUsize::new(0);
            let add = |item: &usize| {
                sum.fetch_add(*item, Ordering::Relaxed);
                Ok(())
            };
            let stop = AtomicBool::default();
            in_threads(threads, &stop, &[1, 20, 300, 4000], add).unwrap();
            assert_eq!(sum.into_inner(), 4321);
            let fail = |item: &usize| if *item == 2 { Err(Error::user("two", "")) } else { Ok(()) };
            assert_eq!(in_threads(threads, &stop, &[1, 2, 3], fail).unwrap_err().code(), "two");
            assert_eq!(stop.into_inner(), threads > 1);
        }
        in_threads(3, &AtomicBool::default(), &[], |(): &()| Err(Error::user("none", ""))).unwrap();
    }
}
