//! The position of a record in a sink: the header by which a restart finds out what is there already.

use thalweg_core::{Epoch, JobId, PartitionId};

use super::embedded::{get_varint, put_varint};

/// The name of the header.
pub const POSITION_HEADER: &str = "thalweg-position";

const VERSION: u8 = 1;

/// Where a record stands in the output of a job.
///
/// As bytes: version u8 = 1, job id u128 little endian, then as LEB128 varints sink, partition, epoch, sequence.
///
/// ```
/// use thalweg_connectors::log::Position;
/// use thalweg_core::{Epoch, JobId, PartitionId};
///
/// let position = Position { job: JobId(7), sink: 0, partition: PartitionId(3), epoch: Epoch(200), sequence: 1 };
/// assert_eq!(position.encode().len(), 22);
/// assert_eq!(Position::decode(&position.encode()), Some(position));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The job.
    pub job: JobId,
    /// The index of the sink in the plan.
    pub sink: u16,
    /// The partition of the job.
    pub partition: PartitionId,
    /// The epoch.
    pub epoch: Epoch,
    /// From 0 within (sink, partition, epoch, partition of the topic).
    pub sequence: u64,
}

impl Position {
    /// That of a record with these headers: the last one counts. Records that another job has written and that are passed on with
    /// their headers have that job's, too.
    pub fn of(headers: &[(String, Vec<u8>)]) -> Option<Self> {
        let (_, bytes) = headers.iter().rfind(|(name, _)| name == POSITION_HEADER)?;
        Self::decode(bytes)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        self.encode_into(&mut out);
        out
    }

    /// Puts its bytes in place of what `out` holds.
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(VERSION);
        out.extend_from_slice(&self.job.0.to_le_bytes());
        put_varint(out, u64::from(self.sink));
        put_varint(out, u64::from(self.partition.0));
        put_varint(out, self.epoch.0);
        put_varint(out, self.sequence);
    }

    /// Reads what [`Position::encode`] wrote; nothing where the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let job = rest.first_chunk::<16>().filter(|_| *version == VERSION)?;
        let mut at = 17;
        let mut next = || get_varint(bytes, &mut at).ok();
        let position = Self {
            job: JobId(u128::from_le_bytes(*job)),
            sink: u16::try_from(next()?).ok()?,
            partition: PartitionId(u16::try_from(next()?).ok()?),
            epoch: Epoch(next()?),
            sequence: next()?,
        };
        (at == bytes.len()).then_some(position)
    }
}
