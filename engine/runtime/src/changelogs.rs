//! The changelogs of a task: one producer for all of its stores in a log, made anew after every failure.

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_connectors::log::{Log, NewRecord, Owner, Producer, Retention, TopicSpec, await_settled};
use thalweg_core::{Error, Generation, JobId, PartitionCount, PartitionId, Result, Series, TaskIndex, failpoint};
use thalweg_state::SealedStore;

/// Tombstones are kept so long after the first cleaning that saw them: longer than any restore reads.
const DELETE_RETENTION_MS: u64 = 24 * 60 * 60 * 1000;

/// The compacted topic of a store.
pub fn changelog_topic(job: JobId, store: &str) -> String {
    format!("changelog-{job}-{}", store.replace('~', "."))
}

/// The id of a task's producer.
pub(crate) fn id_of(job: JobId, task: TaskIndex) -> String {
    format!("{job}-changelogs-{task}")
}

/// Writes the changelogs of a task in one log.
pub struct Changelogs {
    log: Arc<dyn Log>,
    job: JobId,
    id: String,
    generation: Generation,
    stores: Vec<String>,
    /// Nothing after a failure: its last transaction is of unknown outcome, and only a new producer's fence ends it.
    producer: Option<Box<dyn Producer>>,
}

impl Changelogs {
    /// Makes the topics of these stores where they are missing, and fences every earlier writer of the task's changelogs.
    pub fn open(
        log: Arc<dyn Log>,
        (job, partitions): (JobId, PartitionCount),
        task: TaskIndex,
        generation: Generation,
        stores: Vec<String>,
    ) -> Result<Self> {
        for store in &stores {
            log.ensure(&TopicSpec {
                name: changelog_topic(job, store),
                partitions: partitions.get(),
                retention: Retention::Compact { delete_retention_ms: DELETE_RETENTION_MS },
            })?;
        }
        let id = id_of(job, task);
        let producer = Some(log.fence(&id, generation)?);
        Ok(Self { log, job, id, generation, stores, producer })
    }

    /// Writes all records of a checkpoint in one transaction, waits until they are visible, and puts the ends of the changelogs into
    /// `sealed`; counts the bytes in `written`.
    ///
    /// Not before they are visible may the checkpoint be committed: a later transaction that fails could take them with it.
    ///
    /// Errors: the outcome is unknown then, and the checkpoint has to be given up. The next call fences anew.
    pub fn write(&mut self, sealed: &mut [SealedStore], written: &Series) -> Result<()> {
        let outcome = self.try_write(sealed, written);
        if outcome.is_err() || self.producer.as_ref().is_some_and(|producer| producer.is_spent()) {
            self.producer = None;
        }
        outcome
    }

    fn try_write(&mut self, sealed: &mut [SealedStore], written: &Series) -> Result<()> {
        let producer = match &mut self.producer {
            Some(producer) => producer,
            none => none.insert(self.log.fence(&self.id, self.generation)?),
        };
        failpoint::pass("changelog-append")?;
        producer.begin()?;
        let mut bytes = 0;
        for store in sealed.iter().filter(|store| self.stores.iter().any(|own| own == store.name())) {
            let topic = changelog_topic(self.job, store.name());
            store.changelog(self.generation, |partition: PartitionId, key, value| {
                bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                producer.append(&topic, partition, NewRecord { key: Some(key), value, headers: Vec::new() })
            })?;
        }
        let ends: BTreeMap<_, _> =
            producer.commit()?.into_iter().map(|(topic, partition, end)| ((topic, partition), end)).collect();
        failpoint::pass("checkpoint-changelog")?;
        written.add(bytes as u64);
        self.settle(&ends)?;
        for store in sealed.iter_mut().filter(|store| self.stores.iter().any(|own| own == store.name())) {
            let topic = changelog_topic(self.job, store.name());
            for partition in store.partitions().iter().map(|sealed| sealed.partition).collect::<Vec<_>>() {
                if let Some(end) = ends.get(&(topic.clone(), partition)) {
                    store.set_changelog_offset(partition, *end);
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self, ends: &BTreeMap<(String, PartitionId), u64>) -> Result<()> {
        for store in &self.stores {
            let topic = changelog_topic(self.job, store);
            let own = ends.iter().filter(|((name, _), _)| *name == topic);
            let own: Vec<_> = own.map(|((_, partition), end)| (*partition, *end)).collect();
            let owner = Owner::fenced(&self.id, self.generation);
            if !own.is_empty() && await_settled(&*self.log, &topic, &own, Some(owner))? {
                let text = format!("topic {topic:?}: the log has lost the end of a transaction");
                return Err(Error::external("changelog-lost", text));
            }
        }
        Ok(())
    }
}
