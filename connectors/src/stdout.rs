//! Standard output as a sink.

use std::io::{ErrorKind, Write};

use thalweg_core::{Epoch, Error, PartitionId, Result};

use crate::{EncodedBatch, Sink, SinkContext, SinkWriter};

/// Writes the records to standard output, each followed by a line end, one epoch at a time.
///
/// What was printed cannot be looked at again: after a crash the epochs since the last checkpoint are printed once more. So this
/// sink is at-least-once whatever the job says. A closed pipe is the error `stdout-closed`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdoutSink;

impl Sink for StdoutSink {
    fn ends(&self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(Vec::new())
    }

    fn single(&self) -> bool {
        true
    }

    fn open(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Lines::new(std::io::stdout(), context)))
    }
}

/// Positions count the bytes that were given since the job began, so they are the same in every run.
struct Lines<W> {
    output: W,
    partitions: Vec<PartitionId>,
    position: u64,
    pending: Vec<u8>,
}

impl<W: Write> Lines<W> {
    fn new(output: W, context: &SinkContext) -> Self {
        Self {
            output,
            partitions: context.partitions.iter().map(|(partition, _)| *partition).collect(),
            position: context.partitions.iter().map(|(_, position)| *position).max().unwrap_or(0),
            pending: Vec::new(),
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    if error.kind() == ErrorKind::BrokenPipe {
        let message = "standard output: the program that reads it has ended; the job stops, and goes on from its last checkpoint when started again";
        return Error::external("stdout-closed", message).with_source(error);
    }
    Error::io("writing to standard output", error)
}

impl<W: Write + Send> SinkWriter for Lines<W> {
    fn write(&mut self, _epoch: Epoch, _partition: PartitionId, batch: EncodedBatch) -> Result<()> {
        for record in &batch.records {
            let Some(value) = &record.value else {
                let message =
                    "standard output cannot show the deletion of a key; use emit = \"changes\", or a sink with keys";
                return Err(Error::user("sink-deletion", message));
            };
            self.pending.extend_from_slice(&batch.data[value.clone()]);
            self.pending.push(b'\n');
        }
        Ok(())
    }

    fn end_epoch(&mut self, _epoch: Epoch) -> Result<()> {
        // One call, so that the lines of an epoch stay together: standard output is locked while it lasts.
        self.output.write_all(&self.pending).and_then(|()| self.output.flush()).map_err(failed)?;
        self.position += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<Vec<(PartitionId, u64)>> {
        Ok(self.partitions.iter().map(|partition| (*partition, self.position)).collect())
    }

    fn replayed(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EncodedRecord;
    use thalweg_core::{Generation, JobId};

    struct Closed(ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn context(position: u64) -> SinkContext {
        SinkContext {
            job_id: JobId(1),
            generation: Generation(1),
            checkpoint: Epoch(0),
            partitions: vec![(PartitionId(0), position), (PartitionId(1), 0)],
        }
    }

    fn batch(text: &str) -> EncodedBatch {
        EncodedBatch {
            data: text.into(),
            records: vec![EncodedRecord { value: Some(0..text.len()), ..EncodedRecord::default() }],
        }
    }

    #[test]
    fn an_epoch_is_printed_when_it_ends() {
        let mut lines = Lines::new(Vec::new(), &context(100));
        lines.write(Epoch(1), PartitionId(0), batch("a")).expect("takes");
        lines.write(Epoch(1), PartitionId(1), batch("bc")).expect("takes");
        assert!(lines.output.is_empty());
        lines.end_epoch(Epoch(1)).expect("prints");
        assert_eq!(lines.output, b"a\nbc\n");
        assert_eq!(lines.sync().expect("syncs"), [(PartitionId(0), 105), (PartitionId(1), 105)]);
    }

    #[test]
    fn a_closed_pipe_has_its_own_code() {
        for (kind, code) in [(ErrorKind::BrokenPipe, "stdout-closed"), (ErrorKind::StorageFull, "disk-full")] {
            let mut lines = Lines::new(Closed(kind), &context(0));
            lines.write(Epoch(1), PartitionId(0), batch("a")).expect("takes");
            assert_eq!(lines.end_epoch(Epoch(1)).expect_err("fails").code(), code);
        }
    }
}
