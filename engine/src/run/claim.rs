//! Who runs a job whose output is in Kafka, told by the cluster itself.
//!
//! The lock on the data folder lets one process at a time use it; a copy of the folder has a lock, a journal and generations of its
//! own, and the ids of the same job. So a generation claims the job in the cluster before it fences anything else: topic
//! `generation-{job}`, one partition, the last record counts. Value: format version (1 byte, now 1), generation (u64 little
//! endian), a random number of the process (u128 little endian).
//!
//! Claims are a journal with an id of its own, written after its fence and after a read behind that: of two processes that claim
//! at once one is fenced, and none follows a claim of the same or a later generation. So the last claim is the current generation,
//! and a look at it is linearizable.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use thalweg_connectors::kafka::{KafkaConfig, KafkaLog};
use thalweg_connectors::log::{Log, NewRecord, Retention, TopicSpec, read_journal};
use thalweg_core::{Blame, Error, Generation, JobId, PartitionId, Result, failpoint};

const VERSION: u8 = 1;
const PARTITION: PartitionId = PartitionId(0);
/// Attempts whose outcome is unknown, each with a look and a new producer, before the job gives up; each waits for the cluster by itself.
const MAX_ATTEMPTS: u32 = 4;

/// The claims on one job.
pub(super) struct Claims {
    log: Arc<KafkaLog>,
    job: JobId,
    topic: String,
    process: u128,
    /// One reader of the topic at a time: a consumer has one place in a partition.
    looking: Mutex<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    generation: Generation,
    process: u128,
}

impl Claims {
    /// Opens the cluster of a job, under the name `client`: its producers are handed out by the job's claims.
    ///
    /// Errors: properties that librdkafka refuses. Nothing is asked of the cluster yet.
    pub(super) fn open(config: KafkaConfig, client: &str, job: JobId, process: u128) -> Result<Arc<Self>> {
        let own: Arc<OnceLock<std::sync::Weak<Self>>> = Arc::default();
        let known = Arc::clone(&own);
        let look = Arc::new(move || {
            let claims = known.get().and_then(std::sync::Weak::upgrade);
            let claims = claims.ok_or_else(|| Error::internal("claims", "nobody runs the job any more"))?;
            Ok(claims.last()?.map(|claim| claim.generation).unwrap_or_default())
        });
        let log = Arc::new(KafkaLog::new(config, client, look)?);
        let claims =
            Arc::new(Self { log, job, topic: format!("generation-{job}"), process, looking: Mutex::default() });
        own.set(Arc::downgrade(&claims)).expect("it was empty");
        Ok(claims)
    }

    /// The cluster.
    pub(super) fn log(&self) -> &Arc<KafkaLog> {
        &self.log
    }

    /// Makes a generation the current one: whoever ran the job before finds out when it next needs a producer.
    ///
    /// Errors: `fenced` where the job was run at this generation or a later one from another folder; those of the cluster.
    pub(super) fn claim(&self, generation: Generation) -> Result<()> {
        self.log.ensure(&TopicSpec { name: self.topic.clone(), partitions: 1, retention: Retention::Keep })?;
        let claim = Claim { generation, process: self.process };
        let mut attempt = 1;
        loop {
            match self.try_claim(claim) {
                Err(error)
                    if error.blame() == Blame::External && error.code() != "fenced" && attempt < MAX_ATTEMPTS =>
                {
                    tracing::warn!("claiming the job: {error}; a new producer looks what is there");
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// The generation of another process that has taken the job over, where one has.
    ///
    /// Errors: those of the cluster.
    pub(super) fn taken_over(&self) -> Result<Option<Generation>> {
        let last = self.last()?;
        Ok(last.filter(|claim| claim.process != self.process).map(|claim| claim.generation))
    }

    fn try_claim(&self, claim: Claim) -> Result<()> {
        let mut journal =
            self.log.journal(&self.topic, PARTITION, &format!("{}-generation", self.job), claim.generation)?;
        match self.last()? {
            Some(last) if last == claim => return Ok(()),
            Some(last) if last.generation >= claim.generation => {
                let text = format!(
                    "generation {} of the job was started with another copy of its data folder, this copy is at {}; run the job \
                     with the copy that ran last, or start this one again if that is gone",
                    last.generation, claim.generation
                );
                return Err(Error::external("fenced", text));
            }
            Some(_) | None => {}
        }
        failpoint::pass("claim-append")?;
        let end = journal.append(vec![NewRecord { value: Some(claim.encode()), ..NewRecord::default() }])?;
        failpoint::pass("claim-durable")?;
        // What is before it has no meaning any more.
        self.log.trim(&self.topic, PARTITION, end.saturating_sub(1))
    }

    /// The claim that counts. The topic is there: nothing is fenced before the first claim.
    fn last(&self) -> Result<Option<Claim>> {
        let _one = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = None;
        read_journal(&*self.log, &self.topic, PARTITION, 0, |record| {
            let value = record.record.value.unwrap_or_default();
            let claim = Claim::decode(&value).ok_or_else(|| {
                let text = format!("{}, offset {}: no claim of this version of the program", self.topic, record.offset);
                Error::external("claim-version", text)
            })?;
            last = Some(claim);
            Ok(())
        })?;
        Ok(last)
    }
}

impl Claim {
    fn encode(self) -> Vec<u8> {
        [&[VERSION][..], &self.generation.0.to_le_bytes(), &self.process.to_le_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (generation, process) = rest.split_first_chunk::<8>()?;
        let claim = Self {
            generation: Generation(u64::from_le_bytes(*generation)),
            process: u128::from_le_bytes(process.try_into().ok()?),
        };
        (*version == VERSION).then_some(claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_read_as_it_was_written_and_nothing_else_is() {
        let claim = Claim { generation: Generation(7), process: 9 << 100 };
        let bytes = claim.encode();
        assert_eq!(bytes.len(), 25);
        assert_eq!(Claim::decode(&bytes), Some(claim));
        assert_eq!(Claim::decode(&bytes[..24]), None);
        assert_eq!(Claim::decode(&[&[2], &bytes[1..]].concat()), None);
    }
}
