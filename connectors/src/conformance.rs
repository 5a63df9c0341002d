//! What every source and every sink must do, as checks that run against any implementation.
//!
//! For tests: the checks panic with the number of the clause of `source` or `sink` that does not hold. A home of the log, a
//! connector of a job author, all are held to the same clauses.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use thalweg_core::{ContentHash, Epoch, Generation, JobId, PartitionId, PartitionSpec};

use crate::random::Random;
use crate::{
    BadRecord, EncodedBatch, EncodedRecord, ReadLimit, ReadState, RecordReader, RecordSource, Sink, SinkContext,
    SinkWriter,
};

/// Calls of `read` after which a source that gives nothing more is taken to hang.
const MAX_CALLS: usize = 1_000_000;

/// How long a source may say that nothing has arrived yet, and how soon it is asked again.
const ARRIVAL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(1));

const WIDE: ReadLimit = ReadLimit { records: 1000, bytes: 1 << 20, until: None };

/// One read of a partition, record by record.
struct Reading<T> {
    /// Each record, or why it is bad, with the position after it.
    records: Vec<(u64, Result<T, String>)>,
    hash: ContentHash,
    state: ReadState,
}

/// Reads again as long as nothing has arrived and it is not known whether there is more.
fn read_arrived<T>(
    reader: &mut dyn RecordReader<T>,
    limit: ReadLimit,
    out: &mut Vec<T>,
    bad: &mut Vec<BadRecord>,
) -> ReadState {
    let (began, before) = (Instant::now(), out.len() + bad.len());
    loop {
        let state = reader.read(limit, out, bad).expect("clause 2: reads");
        if state != ReadState::Pending {
            return state;
        }
        if out.len() + bad.len() > before {
            return ReadState::More;
        }
        assert!(began.elapsed() < ARRIVAL.0, "clause 3: nothing has arrived for {} s", ARRIVAL.0.as_secs());
        std::thread::sleep(ARRIVAL.1);
    }
}

/// Reads one record at a time, so that the position after each is known. A blank record gives a position and no record.
fn read_singly<T>(reader: &mut dyn RecordReader<T>, until: Option<u64>) -> Reading<T> {
    let mut reading = Reading { records: Vec::new(), hash: ContentHash::default(), state: ReadState::More };
    let (mut out, mut bad) = (Vec::new(), Vec::new());
    for _ in 0..MAX_CALLS {
        reading.state = read_arrived(reader, ReadLimit { records: 1, until, ..WIDE }, &mut out, &mut bad);
        assert!(
            out.len() + bad.len() <= 1,
            "clause 4: {} records, and at most one was asked for",
            out.len() + bad.len()
        );
        reading.records.extend(out.drain(..).map(|record| (reader.position(), Ok(record))));
        reading.records.extend(bad.drain(..).map(|bad| (bad.next, Err(bad.why))));
        if reading.state != ReadState::More {
            reading.hash = reader.take_hash();
            return reading;
        }
    }
    panic!("clause 3: no end after {MAX_CALLS} calls");
}

/// Reads with a limit until the end or `until`.
fn read_limited<T>(
    reader: &mut dyn RecordReader<T>,
    mut limit: impl FnMut() -> ReadLimit,
) -> (Vec<T>, usize, ContentHash) {
    let (mut out, mut bad) = (Vec::new(), Vec::new());
    for _ in 0..MAX_CALLS {
        let limit = limit();
        let before = out.len() + bad.len();
        let state = read_arrived(reader, limit, &mut out, &mut bad);
        let given = out.len() + bad.len() - before;
        assert!(given <= limit.records, "clause 4: {given} records, and at most {} were asked for", limit.records);
        assert!(limit.until.is_none_or(|until| reader.position() <= until), "clause 4: read past {:?}", limit.until);
        if state != ReadState::More {
            return (out, bad.len(), reader.take_hash());
        }
    }
    panic!("clause 3: no end after {MAX_CALLS} calls");
}

/// Checks every clause of the duties of a source on what it holds at the moment, which should be a few hundred records at most,
/// in partitions that end or are idle. `make` makes the source anew, as another process would.
///
/// Panics where a clause does not hold.
pub fn check_source<T: Debug + PartialEq>(make: impl Fn() -> Box<dyn RecordSource<T>>, seed: u64) {
    let partitions = make().discover(3).expect("clause 1: discovers");
    let mut ids: Vec<_> = partitions.iter().map(|partition| partition.of).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), partitions.len(), "clause 1: two partitions have the same id");
    assert!(ids.iter().all(|id| id.source == 3), "clause 1: a partition has not the index of its source");
    assert_eq!(
        make().discover(3).expect("clause 1: discovers"),
        partitions,
        "clause 1: another answer the second time"
    );
    for partition in &partitions {
        check_partition(&make, partition, seed);
    }
}

fn check_partition<T: Debug + PartialEq>(
    make: &impl Fn() -> Box<dyn RecordSource<T>>,
    partition: &PartitionSpec,
    seed: u64,
) {
    let open = |from| make().open(partition, from).unwrap_or_else(|error| panic!("clause 2: opens at {from}: {error}"));
    let whole = read_singly(&mut *open(partition.start), None);
    let positions: Vec<u64> = whole.records.iter().map(|(next, _)| *next).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "clause 2: positions do not grow: {positions:?}");
    if let Some(end) = partition.end {
        assert_eq!(whole.state, ReadState::End, "clause 1: a bounded partition that does not end");
        assert!(positions.last().is_none_or(|last| *last <= end), "clause 1: read past the end {end}");
    }
    let mut random = Random::new(seed);
    for (index, from) in std::iter::once(partition.start).chain(positions.iter().copied()).enumerate() {
        // Reopened anywhere, the rest is the same.
        let rest = read_singly(&mut *open(from), None);
        assert_eq!(rest.records, whole.records[index..], "clause 2: opened at {from}");
        // A recorded share gives the same records and the same hash, however it is read.
        let until = positions.get(index + random.below(8) as usize).copied().filter(|until| *until > from);
        let Some(until) = until else { continue };
        let share = read_singly(&mut *open(from), Some(until));
        let expected: Vec<_> = whole.records[index..].iter().take_while(|(next, _)| *next <= until).collect();
        assert!(share.records.iter().eq(expected.iter().copied()), "clause 4: from {from} until {until}");
        assert_eq!(share.state, ReadState::End, "clause 4: `until` is reached and not said");
        let limits = |random: &mut Random| ReadLimit {
            records: 1 + random.below(5) as usize,
            bytes: random.below(100) as usize,
            until: Some(until),
        };
        let (good, bad, hash) = read_limited(&mut *open(from), || limits(&mut random));
        let shared: Vec<&T> = expected.iter().filter_map(|(_, record)| record.as_ref().ok()).collect();
        assert!(good.iter().eq(shared.iter().copied()), "clause 2: read in other pieces from {from} until {until}");
        assert_eq!(bad, expected.len() - shared.len(), "clause 2: other bad records from {from} until {until}");
        assert_eq!(hash, share.hash, "clause 2: another hash from {from} until {until}");
    }
    let mut reader = open(partition.start);
    let (mut out, mut bad) = (Vec::new(), Vec::new());
    reader.read(ReadLimit { records: 0, ..WIDE }, &mut out, &mut bad).expect("clause 4: reads nothing");
    assert!(out.is_empty() && bad.is_empty(), "clause 4: records where none were asked for");
    assert_eq!(reader.take_hash(), ContentHash::default(), "clause 2: a hash of nothing");
}

/// A sink under test, together with a look at what it shows.
pub trait SinkBench {
    /// The sink, as a new process would make it.
    fn sink(&self) -> Box<dyn Sink>;

    /// All that the sink shows of a partition; of a single one all that it shows at all.
    fn shown(&self, partition: PartitionId) -> Vec<u8>;

    /// Leaves what a crash can leave: of what the sink shows of a partition the first `length` bytes, where it can be torn there.
    fn tear(&self, partition: PartitionId, length: u64) -> bool;

    /// Adds something that no binding accounts for.
    fn add_foreign(&self, partition: PartitionId);

    /// A fresh sink, with nothing in it.
    fn fresh() -> Self
    where
        Self: Sized;
}

const PARTITIONS: [PartitionId; 2] = [PartitionId(1), PartitionId(3)];
const EPOCHS: u64 = 5;
const CHECKPOINT: u64 = 2;

/// The records of an epoch and a partition: none, one or several, of different lengths; a function of the numbers alone.
fn batch_of(epoch: u64, partition: PartitionId, variant: u64) -> EncodedBatch {
    let mut random = Random::at(epoch, u64::from(partition.0));
    let mut batch = EncodedBatch::default();
    for record in 0..random.below(4) {
        let start = batch.data.len();
        let text = format!("{epoch}p{partition}r{record}v{variant}");
        batch.data.extend_from_slice(text.as_bytes());
        batch.records.push(EncodedRecord { value: Some(start..batch.data.len()), ..EncodedRecord::default() });
    }
    batch
}

fn open(
    sink: &dyn Sink,
    generation: u64,
    checkpoint: u64,
    partitions: &[(PartitionId, u64)],
) -> thalweg_core::Result<Box<dyn SinkWriter>> {
    let (generation, checkpoint) = (Generation(generation), Epoch(checkpoint));
    sink.open(&SinkContext { job_id: JobId(7), generation, checkpoint, partitions: partitions.to_vec() })
}

fn write(writer: &mut dyn SinkWriter, epochs: std::ops::RangeInclusive<u64>, variant: u64) -> thalweg_core::Result<()> {
    for epoch in epochs {
        for partition in PARTITIONS {
            let batch = batch_of(epoch, partition, variant);
            if !batch.records.is_empty() {
                writer.write(Epoch(epoch), partition, batch)?;
            }
        }
        writer.end_epoch(Epoch(epoch))?;
        writer.flush()?;
    }
    Ok(())
}

fn at_zero() -> Vec<(PartitionId, u64)> {
    PARTITIONS.map(|partition| (partition, 0)).to_vec()
}

/// Writes all epochs, with a checkpoint; gives the positions at it.
fn first_run(bench: &impl SinkBench) -> Vec<(PartitionId, u64)> {
    let mut writer = open(&*bench.sink(), 1, 0, &at_zero()).expect("opens");
    writer.replayed().expect("clause 4: nothing to replay, nothing left");
    write(&mut *writer, 1..=CHECKPOINT, 0).expect("clause 1: writes");
    let checkpoint = writer.sync().expect("clause 3: syncs");
    write(&mut *writer, CHECKPOINT + 1..=EPOCHS, 0).expect("clause 1: writes");
    writer.sync().expect("clause 3: syncs");
    checkpoint
}

/// Checks every clause of the duties of a sink.
///
/// Panics where a clause does not hold.
pub fn check_sink<B: SinkBench>() {
    visible_in_order::<B>();
    crash_anywhere::<B>();
    another_output_is_found::<B>();
    foreign_records_are_found::<B>();
    older_generations_are_kept_out::<B>();
}

/// The files or topics that the sink has: one where it is single.
fn places(bench: &impl SinkBench) -> Vec<PartitionId> {
    if bench.sink().single() { PARTITIONS[..1].to_vec() } else { PARTITIONS.to_vec() }
}

fn shown(bench: &impl SinkBench) -> Vec<Vec<u8>> {
    places(bench).into_iter().map(|place| bench.shown(place)).collect()
}

fn visible_in_order<B: SinkBench>() {
    let bench = B::fresh();
    let mut writer = open(&*bench.sink(), 1, 0, &at_zero()).expect("opens");
    let batch = batch_of(3, PARTITIONS[0], 0);
    writer.write(Epoch(1), PARTITIONS[0], batch).expect("clause 1: takes");
    writer.end_epoch(Epoch(1)).expect("clause 1: ends");
    writer.flush().expect("clause 1: shows");
    let one = shown(&bench);
    write(&mut *writer, 2..=EPOCHS, 0).expect("clause 1: writes");
    let all = shown(&bench);
    assert!(all.iter().zip(&one).all(|(all, one)| all.starts_with(one)), "clause 1: what was visible has changed");
    let ends = writer.sync().expect("clause 3: syncs");
    let named = |partition: &PartitionId| ends.iter().any(|(named, _)| named == partition);
    assert!(PARTITIONS.iter().all(named), "clause 3: the end of a partition is missing");
    drop(writer);
    // A job that begins after this one begins at the ends.
    let before = shown(&bench);
    let ends = bench.sink().ends().expect("has ends");
    let starts: Vec<_> = PARTITIONS
        .iter()
        .map(|partition| {
            let end = ends.iter().find(|(ended, _)| ended == partition || bench.sink().single());
            (*partition, end.map_or(0, |(_, end)| *end))
        })
        .collect();
    let mut writer = open(&*bench.sink(), 2, 0, &starts).expect("opens");
    writer.replayed().expect("clause 4: what is before the job is not its own");
    write(&mut *writer, 1..=EPOCHS, 5).expect("clause 1: writes");
    assert!(
        shown(&bench).iter().zip(&before).all(|(all, before)| all.starts_with(before)),
        "clause 2: what was there is gone"
    );
}

/// A crash leaves any part of what was written since the checkpoint; the replay gives the same bytes.
fn crash_anywhere<B: SinkBench>() {
    let reference = B::fresh();
    let checkpoint = first_run(&reference);
    let expected = shown(&reference);
    let mut torn = 0;
    for (index, place) in places(&reference).into_iter().enumerate() {
        for length in 0..=expected[index].len() as u64 {
            let bench = B::fresh();
            first_run(&bench);
            if !bench.tear(place, length) {
                continue;
            }
            let at = checkpoint.iter().find(|(partition, _)| *partition == place).map_or(0, |(_, position)| *position);
            let opened = open(&*bench.sink(), 2, CHECKPOINT, &checkpoint);
            if length < at {
                let error = opened.err().unwrap_or_else(|| panic!("clause 2: {length} of {at} bytes, and it opens"));
                assert_eq!(
                    error.blame(),
                    thalweg_core::Blame::External,
                    "clause 2: the loss is nobody else's: {error}"
                );
                continue;
            }
            let mut writer = opened.expect("clause 2: opens at the checkpoint");
            let doing = format!("clause 2: torn at {length} of {}", expected[index].len());
            write(&mut *writer, CHECKPOINT + 1..=EPOCHS, 0).unwrap_or_else(|error| panic!("{doing}: {error}"));
            writer.replayed().unwrap_or_else(|error| panic!("{doing}: {error}"));
            assert_eq!(shown(&bench), expected, "{doing}");
            torn += 1;
        }
    }
    assert!(torn > 0, "the bench tears nothing");
}

fn another_output_is_found<B: SinkBench>() {
    let bench = B::fresh();
    let checkpoint = first_run(&bench);
    let before = shown(&bench);
    let mut writer = open(&*bench.sink(), 2, CHECKPOINT, &checkpoint).expect("opens");
    let error = write(&mut *writer, CHECKPOINT + 1..=EPOCHS, 1).expect_err("clause 2: other output passes");
    assert_eq!(error.blame(), thalweg_core::Blame::Internal, "clause 2: {error}");
    assert_eq!(shown(&bench), before, "clause 2: other output is shown");
}

fn foreign_records_are_found<B: SinkBench>() {
    let bench = B::fresh();
    let checkpoint = first_run(&bench);
    for place in places(&bench) {
        bench.add_foreign(place);
    }
    let mut writer = open(&*bench.sink(), 2, CHECKPOINT, &checkpoint).expect("opens");
    write(&mut *writer, CHECKPOINT + 1..=EPOCHS, 0).expect("clause 4: replays");
    writer.replayed().expect_err("clause 4: records beyond the last binding pass");
}

fn older_generations_are_kept_out<B: SinkBench>() {
    let bench = B::fresh();
    let mut old = open(&*bench.sink(), 1, 0, &at_zero()).expect("opens");
    write(&mut *old, 1..=CHECKPOINT, 0).expect("writes");
    let checkpoint = old.sync().expect("syncs");
    let mut new = open(&*bench.sink(), 2, CHECKPOINT, &checkpoint).expect("opens");
    write(&mut *old, CHECKPOINT + 1..=EPOCHS, 1).expect_err("clause 5: an older writer writes");
    open(&*bench.sink(), 1, CHECKPOINT, &checkpoint).err().expect("clause 5: an older generation opens");
    write(&mut *new, CHECKPOINT + 1..=EPOCHS, 0).expect("clause 5: the new writer writes");
    let reference = B::fresh();
    first_run(&reference);
    assert_eq!(shown(&bench), shown(&reference), "clause 5: the older writer shows");
}
