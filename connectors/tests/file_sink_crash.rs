//! A file sink whose process dies at any of its failpoints; alone in its process, since failpoints are global.

use std::fs;

use thalweg_connectors::{EncodedBatch, EncodedRecord, FileSink, OutFormat, Sink, SinkContext};
use thalweg_core::{Epoch, Generation, JobId, PartitionId, Result, failpoint};

const PARTITIONS: [PartitionId; 2] = [PartitionId(0), PartitionId(1)];

fn run(sink: &FileSink, generation: u64, epochs: std::ops::RangeInclusive<u64>) -> Result<()> {
    let partitions = PARTITIONS.map(|partition| (partition, 0)).to_vec();
    let mut writer = sink.open(&SinkContext {
        job_id: JobId(1),
        generation: Generation(generation),
        checkpoint: Epoch(0),
        partitions,
    })?;
    for epoch in epochs {
        for partition in PARTITIONS {
            let data = format!("epoch {epoch} of partition {partition}").into_bytes();
            let records = vec![EncodedRecord { value: Some(0..data.len()), ..EncodedRecord::default() }];
            writer.write(Epoch(epoch), partition, EncodedBatch { data, records })?;
        }
        writer.end_epoch(Epoch(epoch))?;
    }
    writer.replayed()?;
    writer.sync().map(drop)
}

fn content(folder: &tempfile::TempDir) -> Vec<String> {
    let file = |partition: PartitionId| fs::read_to_string(folder.path().join(format!("part-{:05}.txt", partition.0)));
    PARTITIONS.map(|partition| file(partition).unwrap_or_default()).to_vec()
}

#[test]
fn a_replay_completes_what_a_crash_tore() {
    let reference = tempfile::tempdir().expect("a folder");
    run(&FileSink::folder(reference.path(), OutFormat::Lines), 1, 1..=4).expect("runs");
    let (mut torn, mut failed) = (0, 0);
    for point in ["file-sink-write", "file-sink-torn", "file-sink-sync"] {
        for hit in 1..=9 {
            let folder = tempfile::tempdir().expect("a folder");
            let sink = FileSink::folder(folder.path(), OutFormat::Lines);
            failpoint::arm(&format!("{point}=error@{hit}")).expect("armed");
            let outcome = run(&sink, 1, 1..=4);
            failpoint::arm("").expect("disarmed");
            failed += usize::from(outcome.is_err());
            torn += usize::from(content(&folder).iter().any(|text| !text.is_empty() && !text.ends_with('\n')));
            run(&sink, 2, 1..=4).expect("replays");
            assert_eq!(content(&folder), content(&reference), "{point}@{hit}");
        }
    }
    // Four epochs, two writes in each, one sync.
    assert_eq!((failed, torn), (4 + 8 + 1, 8));
}
