//! Random operations against a plain list of records.

use super::random::Random;
use super::*;

/// What the log must show.
#[derive(Default)]
struct Model {
    records: Vec<(u64, NewRecord)>,
}

fn random_record(random: &mut Random) -> NewRecord {
    let size = [0, 3, 50, 700][random.below(4) as usize];
    let value = (random.below(5) > 0).then(|| (0..size).map(|_| random.next() as u8).collect());
    let header = |n| (format!("h{n}"), vec![n as u8; n as usize]);
    NewRecord { key: Some(vec![random.below(20) as u8]), value, headers: (0..random.below(3)).map(header).collect() }
}

fn run(seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let dir = folder();
    let time = Time::default();
    let segment_bytes = [1, 500, 5_000, 1 << 20][random.below(4) as usize];
    let mut log = open(dir.path(), &time, segment_bytes)?;
    log.ensure(&spec("t", 3, Retention::Keep))?;
    let mut producer = fenced(&log);
    let mut models: [Model; 3] = Default::default();
    let mut staged: Option<Vec<(usize, NewRecord)>> = None;
    let mut readers: Vec<_> = (0..3u16).map(|p| log.reader("t", PartitionId(p), 0)).collect::<Result<_>>()?;
    let mut read: [Vec<LogRecord>; 3] = Default::default();
    for _ in 0..400 {
        time.set(time.get() + random.below(1000) as i64);
        let partition = random.below(3) as usize;
        match (random.below(20), &mut staged) {
            (0..3, None) => {
                producer.begin()?;
                staged = Some(Vec::new());
            }
            (0..13, Some(records)) => {
                let record = random_record(&mut random);
                producer.append("t", PartitionId(partition as u16), record.clone())?;
                records.push((partition, record));
            }
            (13..15, Some(_)) => {
                for (partition, record) in staged.take().into_iter().flatten() {
                    let offset = models[partition].records.len() as u64;
                    models[partition].records.push((offset, record));
                }
                producer.commit()?;
            }
            (15, Some(_)) => {
                producer.abort()?;
                staged = None;
            }
            (16, _) => {
                staged = None;
                drop((producer, readers, log));
                log = open(dir.path(), &time, segment_bytes)?;
                producer = fenced(&log);
                readers = (0..3)
                    .map(|p| log.reader("t", PartitionId(p as u16), read[p].len() as u64))
                    .collect::<Result<_>>()?;
            }
            (17, _) => {
                producer = fenced(&log);
                staged = None;
            }
            (18, _) => {
                readers[partition].read(random.below(2000) as usize, &mut read[partition])?;
            }
            _ => {
                let from = random.below(models[partition].records.len() as u64 + 3);
                let got = all(&log, "t", PartitionId(partition as u16), from)?;
                let expected = models[partition].records.iter().skip(from as usize);
                assert!(
                    got.iter().map(|r| (r.offset, &r.record)).eq(expected.map(|(o, r)| (*o, r))),
                    "read from {from}"
                );
            }
        }
    }
    for (partition, model) in models.iter().enumerate() {
        while readers[partition].read(1 << 20, &mut read[partition])? {}
        assert!(read[partition].iter().map(|r| (r.offset, &r.record)).eq(model.records.iter().map(|(o, r)| (*o, r))));
    }
    Ok(())
}

#[test]
fn random_operations_agree_with_a_list() {
    for seed in 0..60 {
        println!("seed {seed}");
        run(seed).expect("no error");
    }
}
