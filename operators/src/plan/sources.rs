//! What a plan asks of its sources, and tells them.

use std::sync::Arc;
use std::time::Duration;

use thalweg_connectors::dead_letter::{Retries, retry_topic};
use thalweg_connectors::log::Log;
use thalweg_core::{JobId, PartitionSpec, Result, SourceState};

use super::{NodeLogic, Plan};

impl Plan {
    /// Gives each source a partition more, for its records that were dead letters and are to be read once more; `log` is the job's
    /// own. To be called before anything is discovered or built.
    pub fn set_retries(&self, job: JobId, log: &Arc<dyn Log>) {
        for placed in &self.nodes {
            if let NodeLogic::Source(source) = &placed.node.logic {
                let topic = retry_topic(job, &placed.node.id, false);
                source.set_retries(Retries { log: log.clone(), topic, wanted: placed.node.sets_aside() });
            }
        }
    }

    /// Finds the partitions of every source. Where another run is repeated, whose partitions are `recorded`, a source of topics has
    /// those: the topics may begin elsewhere by now, and have grown.
    pub fn discover(&self, recorded: &[PartitionSpec]) -> Result<Vec<PartitionSpec>> {
        let mut found = Vec::new();
        for placed in &self.nodes {
            let NodeLogic::Source(source) = &placed.node.logic else { continue };
            let own: Vec<_> = recorded.iter().filter(|spec| spec.of.source == placed.index).cloned().collect();
            if own.iter().any(|spec| source.is_of_topic(spec)) {
                found.extend(own);
                continue;
            }
            let specs = source.discover(placed.index);
            found.extend(specs.map_err(|error| error.context(format!("source {:?}", placed.node.id)))?);
        }
        found.sort_by_key(|spec| spec.of);
        Ok(found)
    }

    /// The sources that are to be asked again and again for partitions that have come: by index, with how often.
    pub fn growing(&self) -> Vec<(u16, Duration)> {
        let growing = self.nodes.iter().filter_map(|placed| match &placed.node.logic {
            NodeLogic::Source(source) => Some((placed.index, source.discover_interval()?)),
            NodeLogic::Operator(_) | NodeLogic::Sink(_) | NodeLogic::DeadLetters(_) => None,
        });
        growing.collect()
    }

    /// Partitions of a source that have come and are not in `known`.
    ///
    /// Errors are those of the source, with its name.
    pub fn discover_more(&self, index: u16, known: &[PartitionSpec]) -> Result<Vec<PartitionSpec>> {
        let mut found = Vec::new();
        for placed in self.nodes.iter().filter(|placed| placed.index == index) {
            let NodeLogic::Source(source) = &placed.node.logic else { continue };
            let own: Vec<_> = known.iter().filter(|spec| spec.of.source == index).cloned().collect();
            let more = source.discover_more(index, &own);
            found.extend(more.map_err(|error| error.context(format!("source {:?}", placed.node.id)))?);
        }
        Ok(found)
    }

    /// Tells every source what a committed checkpoint holds of it.
    ///
    /// Errors are those of the source, with its name.
    pub fn committed(&self, states: &[SourceState]) -> Result<()> {
        for placed in &self.nodes {
            let NodeLogic::Source(source) = &placed.node.logic else { continue };
            for state in states.iter().filter(|state| state.of.source == placed.index) {
                let told = source.committed(state.of.partition, state.next);
                told.map_err(|error| error.context(format!("source {:?}", placed.node.id)))?;
            }
        }
        Ok(())
    }
}
