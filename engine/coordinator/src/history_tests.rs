use super::*;
use thalweg_core::{JobId, JobName, PartitionCount};

fn zero() -> CheckpointZero {
    CheckpointZero {
        job_id: JobId(7),
        job: JobName::new("orders").unwrap(),
        partitions: PartitionCount::new(4).unwrap(),
        hash: "test".into(),
        sources: vec![spec(0, 0, "a"), spec(0, 1, "b")],
        sinks: vec![],
        created_at: 0,
    }
}

fn spec(source: u16, partition: u16, identity: &str) -> PartitionSpec {
    let of = SourceKey { source, partition: PartitionId(partition) };
    PartitionSpec { of, name: identity.to_owned(), identity: identity.to_owned(), start: 7, end: None }
}

fn added(generation: u64, sources: &[(u16, u16, &str)]) -> Entry {
    let sources = sources.iter().map(|(source, partition, identity)| spec(*source, *partition, identity)).collect();
    Entry::SourcesAdded { generation: Generation(generation), sources }
}

fn started(generation: u64, tasks: u32) -> Entry {
    Entry::GenerationStarted { generation: Generation(generation), tasks }
}

fn plan(generation: u64, last_binding: u64) -> Entry {
    Entry::PlanCommitted { generation: Generation(generation), last_binding: Epoch(last_binding), fingerprint: 1 }
}

fn abandoned(generation: u64, epoch: u64) -> Entry {
    Entry::CheckpointAbandoned { generation: Generation(generation), epoch: Epoch(epoch) }
}

fn committed(generation: u64, epoch: u64) -> Entry {
    Entry::CheckpointCommitted(CheckpointRecord {
        epoch: Epoch(epoch),
        generation: Generation(generation),
        fingerprint: 1,
        minted_at: epoch as i64,
        sources: vec![],
        stores: vec![],
        sinks: vec![],
    })
}

fn history(entries: &[Entry]) -> JobHistory {
    let mut history = JobHistory::default();
    for entry in entries {
        // Through the bytes, as after a restart.
        let entry = Entry::decode(&entry.encode()).unwrap();
        history.apply(entry.clone()).unwrap_or_else(|refused| panic!("{entry:?}: {refused}"));
    }
    history
}

fn check(what: &str, before: &[Entry], entry: Entry, expected: Result<(), Refused>) {
    let mut all = vec![Entry::Created(zero())];
    all.extend_from_slice(before);
    let mut history = history(&all);
    let unchanged = history.clone();
    assert_eq!(history.apply(entry), expected, "{what}");
    assert_eq!(history == unchanged, expected.is_err(), "{what}: only what is applied changes the history");
}

#[test]
fn every_entry_is_a_compare_and_set() {
    let stale =
        |generation, current| Err(Refused::Stale { generation: Generation(generation), current: Generation(current) });
    let late = |epoch, decided| Err(Refused::Decided { epoch: Epoch(epoch), decided: Epoch(decided) });
    let running = [started(1, 1), plan(1, 0)];
    let after = |more: &[Entry]| [&running[..], more].concat();
    check("created twice", &[], Entry::Created(zero()), Err(Refused::Exists));
    check("the first generation", &[], started(1, 1), Ok(()));
    check("a generation left out", &[], started(2, 1), stale(2, 0));
    check("the same generation again", &running, started(1, 1), stale(1, 1));
    check("no task", &[], started(1, 0), Err(Refused::NoTasks));
    check("a plan", &[started(1, 1)], plan(1, 0), Ok(()));
    check("a second plan", &running, plan(1, 0), Err(Refused::Planned));
    check("a plan of a past generation", &[started(1, 1), started(2, 1)], plan(1, 0), stale(1, 2));
    check("a plan below C", &after(&[committed(1, 5), started(2, 1)]), plan(2, 4), late(4, 5));
    check("a plan below an older plan", &[started(1, 1), plan(1, 3), started(2, 1)], plan(2, 2), late(2, 3));
    check("a checkpoint", &running, committed(1, 5), Ok(()));
    check("a checkpoint without a plan", &[started(1, 1)], committed(1, 5), Err(Refused::NotPlanned));
    check("a checkpoint of a past generation", &after(&[started(2, 1)]), committed(1, 5), stale(1, 2));
    check("a checkpoint of a generation to come", &running, committed(2, 5), stale(2, 1));
    check("a checkpoint twice", &after(&[committed(1, 5)]), committed(1, 5), late(5, 5));
    check("an older checkpoint", &after(&[committed(1, 5)]), committed(1, 4), late(4, 5));
    check("an abandoned checkpoint", &running, abandoned(1, 5), Ok(()));
    check("committed after it was abandoned", &after(&[abandoned(1, 5)]), committed(1, 5), late(5, 5));
    check("abandoned after it was committed", &after(&[committed(1, 5)]), abandoned(1, 5), late(5, 5));
    check("the next one", &after(&[abandoned(1, 5)]), committed(1, 6), Ok(()));
    check(
        "its number in the next generation",
        &after(&[abandoned(1, 5), started(2, 1), plan(2, 6)]),
        committed(2, 5),
        Ok(()),
    );
    check("partitions that have come", &running, added(1, &[(0, 2, "c"), (0, 3, "d")]), Ok(()));
    let again = |of| Err(Refused::SourceKnown { of });
    let of = |partition| SourceKey { source: 0, partition: PartitionId(partition) };
    let grown = after(&[added(1, &[(0, 2, "c")])]);
    check("one that is known", &running, added(1, &[(0, 2, "b")]), again(of(2)));
    check("one that is known since", &grown, added(1, &[(0, 3, "c")]), again(of(3)));
    check("one of another source", &grown, added(1, &[(1, 0, "c")]), Ok(()));
    check("a number that is taken", &grown, added(1, &[(0, 2, "d")]), again(of(2)));
    check("the same one twice", &running, added(1, &[(0, 2, "c"), (0, 3, "c")]), again(of(3)));
    check("partitions without a plan", &[started(1, 1)], added(1, &[(0, 2, "c")]), Err(Refused::NotPlanned));
    check("partitions of a past generation", &after(&[started(2, 1)]), added(1, &[(0, 2, "c")]), stale(1, 2));
    assert_eq!(JobHistory::default().apply(started(1, 1)), Err(Refused::Missing));
    assert!(JobHistory::default().apply(plan(0, 0)).is_err());
}

#[test]
fn the_lineage_holds_what_was_committed() {
    let history = history(&[
        Entry::Created(zero()),
        started(1, 1),
        plan(1, 0),
        committed(1, 5),
        abandoned(1, 7),
        committed(1, 9),
        started(2, 1),
        plan(2, 9),
        abandoned(2, 10),
    ]);
    let holds = |generation, epoch| history.lineage().contains(Generation(generation), Epoch(epoch));
    assert!(holds(1, 5) && holds(1, 9));
    assert!(!holds(1, 7) && !holds(2, 10) && !holds(2, 9) && !holds(1, 10));
    assert_eq!(history.past_checkpoints().map(|past| past.epoch.0).collect::<Vec<_>>(), [9, 5]);
    let recovery = history.recovery_plan().unwrap();
    assert_eq!((recovery.checkpoint_epoch(), recovery.last_binding), (Epoch(9), Epoch(9)));
    assert_eq!(recovery.caps.last(), Some(&(Generation(2), Epoch(9))));
}

#[test]
fn plans_are_forgotten_only_where_later_ones_void_as_much() {
    let caps = |entries: &[Entry]| {
        let mut all = vec![Entry::Created(zero())];
        all.extend_from_slice(entries);
        history(&all).caps().iter().map(|(generation, epoch)| (generation.0, epoch.0)).collect::<Vec<_>>()
    };
    let two = [started(1, 1), plan(1, 2), started(2, 1), plan(2, 4)];
    assert_eq!(caps(&two), [(1, 2), (2, 4)]);
    assert_eq!(caps(&[&two[..], &[started(3, 1), plan(3, 4)]].concat()), [(1, 2), (3, 4)]);
    assert_eq!(caps(&[&two[..], &[committed(2, 3)]].concat()), [(1, 2), (2, 4)]);
    assert_eq!(caps(&[&two[..], &[committed(2, 4)]].concat()), [(2, 4)]);
    assert_eq!(caps(&[&two[..], &[committed(2, 9)]].concat()), [(2, 4)]);
}

#[test]
fn only_the_last_checkpoints_are_remembered() {
    let mut entries = vec![Entry::Created(zero()), started(1, 1), plan(1, 0)];
    entries.extend((1..=100).map(|epoch| committed(1, epoch)));
    let history = history(&entries);
    assert_eq!(history.past_checkpoints().count(), PAST_CHECKPOINTS);
    assert_eq!(history.past_checkpoints().next().map(|past| past.epoch), Some(Epoch(100)));
    assert_eq!(history.checkpoint_epoch(), Epoch(100));
}

#[test]
fn every_id_of_the_past_is_fenced_by_one_task() {
    let history = history(&[Entry::Created(zero()), started(1, 5), started(2, 2)]);
    let mut fenced: Vec<_> = (0..2).flat_map(|task| history.fences_of(TaskIndex(task))).collect();
    fenced.sort_unstable();
    let mut all: Vec<_> = history.producers().collect();
    all.sort_unstable();
    assert_eq!(fenced, all);
    assert_eq!(all.len(), 1 + 2 * 5);
}

#[test]
fn what_has_come_is_numbered_behind_what_was_there_and_kept() {
    let history = history(&[
        Entry::Created(zero()),
        started(1, 1),
        plan(1, 0),
        added(1, &[(0, 5, "f")]),
        started(2, 1),
        plan(2, 0),
    ]);
    let check = |found: &[(u16, u16, &str)], expected: &[(u16, u16, &str)]| {
        let specs = |all: &[(u16, u16, &str)]| all.iter().map(|one| spec(one.0, one.1, one.2)).collect::<Vec<_>>();
        assert_eq!(history.unknown(specs(found)).unwrap(), specs(expected), "{found:?}");
    };
    check(&[(0, 0, "a"), (0, 0, "f")], &[]);
    check(&[(0, 0, "g"), (0, 0, "b"), (0, 0, "h"), (0, 0, "g")], &[(0, 6, "g"), (0, 7, "h")]);
    check(&[(1, 9, "a"), (1, 9, "b")], &[(1, 0, "a"), (1, 1, "b")]);
    let recovery = history.recovery_plan().unwrap();
    assert_eq!(recovery.sources, [spec(0, 0, "a"), spec(0, 1, "b"), spec(0, 5, "f")]);
    assert_eq!(recovery.zero.sources.len(), 2, "checkpoint 0 stays as it is");
    let mut full = history.clone();
    full.apply(added(2, &[(0, u16::MAX, "z")])).unwrap();
    assert_eq!(full.unknown(vec![spec(0, 0, "y")]).unwrap_err().code(), "too-many-partitions");
}
