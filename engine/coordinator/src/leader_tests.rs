use super::*;
use thalweg_core::{
    CheckpointZero, Digest, JobId, JobName, PartitionCount, PartitionId, PartitionSpec, SinkKey, SourceKey,
    SourceState, StoreState,
};

const FINGERPRINT: u64 = 0xfeed;
const SINK: SinkKey = SinkKey { sink: 0, partition: PartitionId(0) };

/// A leader with its history; what it proposes is applied at once.
struct Run {
    history: JobHistory,
    leader: Leader,
    now: Now,
    outputs: Vec<Output>,
}

impl Run {
    fn new(tasks: u32) -> Self {
        let mut history = JobHistory::default();
        let zero = CheckpointZero {
            job_id: JobId(7),
            job: JobName::new("orders").unwrap(),
            partitions: PartitionCount::new(4).unwrap(),
            hash: "test".into(),
            sources: vec![],
            sinks: vec![(SINK, 100)],
            created_at: 0,
        };
        history.apply(Entry::Created(zero)).unwrap();
        let (leader, _) = Leader::start(&history, Now(0), tasks, FINGERPRINT, Limits::default());
        let mut run = Self { history, leader, now: Now(0), outputs: Vec::new() };
        run.next_generation(tasks, FINGERPRINT);
        run
    }

    fn next_generation(&mut self, tasks: u32, fingerprint: u64) {
        let (leader, outputs) = Leader::start(&self.history, self.now, tasks, fingerprint, Limits::default());
        self.leader = leader;
        self.perform(outputs);
    }

    fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let Output::Propose(entry) = output else {
                self.outputs.push(output);
                continue;
            };
            let outcome = self.history.apply(entry.clone());
            let next = self.leader.handle(&self.history, self.now, Event::Decided(entry, outcome));
            self.perform(next);
        }
    }

    fn event(&mut self, event: Event) -> Vec<Output> {
        let outputs = self.leader.handle(&self.history, self.now, event);
        self.perform(outputs);
        std::mem::take(&mut self.outputs)
    }

    fn after(&mut self, duration: Duration) -> Vec<Output> {
        self.now.0 += duration.as_micros() as u64;
        self.event(Event::Tick)
    }

    fn fenced(&mut self, generation: u64, task: u32) -> Vec<Output> {
        self.event(Event::Report(Report::Fenced(Fenced { generation: Generation(generation), task: TaskIndex(task) })))
    }

    fn scanned(&mut self, generation: u64, task: u32, bindings: &[(u64, u64)], sinks: &[SinkTail]) -> Vec<Output> {
        self.event(Event::Report(Report::Scanned(ScanReport {
            generation: Generation(generation),
            task: TaskIndex(task),
            bindings: bindings.iter().map(|(g, e)| (Generation(*g), Epoch(*e))).collect(),
            sinks: sinks.to_vec(),
        })))
    }

    fn acknowledged(&mut self, ack: CheckpointAck) -> Vec<Output> {
        self.event(Event::Report(Report::Acknowledged(Box::new(ack))))
    }

    /// A generation of one task that found these bindings.
    fn recovered(&mut self, bindings: &[(u64, u64)]) {
        let generation = self.leader.generation().0;
        self.fenced(generation, 0);
        self.scanned(generation, 0, bindings, &[]);
        assert_eq!(self.leader.stage(), Stage::Running);
    }

    fn second(&mut self) -> Vec<Output> {
        self.after(Duration::from_secs(1))
    }
}

fn ack(generation: u64, task: u32, epoch: u64) -> CheckpointAck {
    let partition = PartitionId(task as u16);
    CheckpointAck {
        generation: Generation(generation),
        task: TaskIndex(task),
        epoch: Epoch(epoch),
        fingerprint: FINGERPRINT,
        minted_at: epoch as i64,
        sources: vec![SourceState { of: SourceKey { source: 0, partition }, next: epoch }],
        stores: vec![StoreState { store: "totals".into(), partition, digest: Digest(1), entries: 1, changelog: 0 }],
        sinks: vec![(SinkKey { sink: 0, partition }, 100 + epoch)],
        sinks_at: Epoch(epoch),
    }
}

fn to(tasks: u32, command: &Command) -> Vec<Output> {
    (0..tasks).map(|task| Output::Send(TaskIndex(task), command.clone())).collect()
}

fn stops_with(tasks: u32, last: Output) -> Vec<Output> {
    let mut outputs = to(tasks, &Command::Stop);
    outputs.push(last);
    outputs
}

#[test]
fn both_barriers_stand_before_the_plan() {
    let mut run = Run::new(2);
    let generation = Generation(1);
    assert_eq!(std::mem::take(&mut run.outputs), to(2, &Command::Fence { generation }));
    assert_eq!(run.fenced(1, 1), []);
    assert_eq!(run.fenced(1, 1), [], "the same task again");
    assert_eq!(run.scanned(1, 0, &[], &[]), [], "nobody was asked to scan");
    assert_eq!(run.fenced(1, 0), to(2, &Command::Scan { generation, after: Epoch(0), caps: vec![] }));
    assert_eq!(run.scanned(1, 0, &[(1, 1)], &[]), []);
    let outputs = run.scanned(1, 1, &[], &[]);
    let plan = run.history.recovery_plan().unwrap();
    assert_eq!(plan.last_binding, Epoch(1));
    assert_eq!(outputs, to(2, &Command::Run(Box::new(plan))));
}

#[test]
fn reports_of_other_generations_count_for_nothing() {
    let mut run = Run::new(1);
    run.next_generation(2, FINGERPRINT);
    run.outputs.clear();
    for report in [1, 3] {
        assert_eq!(run.fenced(report, 0), []);
        assert_eq!(run.fenced(report, 1), []);
    }
    run.fenced(2, 0);
    run.fenced(2, 1);
    assert_eq!(run.scanned(1, 0, &[(1, 9)], &[]), []);
    run.scanned(2, 0, &[], &[]);
    run.scanned(2, 1, &[], &[]);
    assert_eq!(run.history.last_plan().unwrap().last_binding, Epoch(0));
    run.second();
    assert_eq!(run.acknowledged(ack(1, 0, 5)), []);
    assert_eq!(run.acknowledged(ack(2, 1, 5)), []);
    assert_eq!(run.history.checkpoint_epoch(), Epoch(0));
}

#[test]
fn a_checkpoint_commits_once_with_all_acknowledgements() {
    let mut run = Run::new(2);
    let generation = Generation(1);
    run.fenced(1, 0);
    run.fenced(1, 1);
    run.scanned(1, 0, &[], &[]);
    run.scanned(1, 1, &[], &[]);
    run.outputs.clear();
    assert_eq!(run.after(Duration::from_millis(999)), []);
    assert_eq!(run.after(Duration::from_millis(1)), to(2, &Command::Checkpoint { generation }));
    assert_eq!(run.second(), [], "one is open");
    assert_eq!(run.acknowledged(ack(1, 1, 5)), []);
    assert_eq!(run.acknowledged(ack(1, 0, 5)), to(2, &Command::Committed { generation, epoch: Epoch(5) }));
    let record = run.history.checkpoint().unwrap();
    assert_eq!(record.sources.iter().map(|source| source.of.partition.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!((record.stores.len(), record.sinks.len()), (2, 2));
    assert_eq!(run.acknowledged(ack(1, 0, 5)), [], "too late");
    assert_eq!(run.event(Event::CheckpointWanted), to(2, &Command::Checkpoint { generation }));
}

#[test]
fn the_next_checkpoint_waits_for_the_decision() {
    let mut run = Run::new(1);
    run.recovered(&[]);
    run.second();
    // The proposal is on its way, its outcome unknown.
    let outputs = run.leader.handle(&run.history, run.now, Event::Report(Report::Acknowledged(Box::new(ack(1, 0, 5)))));
    let [Output::Propose(entry)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(run.event(Event::CheckpointWanted), []);
    assert_eq!(run.after(Duration::from_secs(1000)), [], "only the history decides now");
    run.history.apply(entry.clone()).unwrap();
    let decided = run.event(Event::Decided(entry.clone(), Ok(())));
    assert_eq!(decided, to(1, &Command::Committed { generation: Generation(1), epoch: Epoch(5) }));
    assert_eq!(run.event(Event::Tick), to(1, &Command::Checkpoint { generation: Generation(1) }), "it was wanted");
}

#[test]
fn a_checkpoint_that_stalls_is_abandoned_for_good() {
    let mut run = Run::new(2);
    let (generation, epoch) = (Generation(1), Epoch(5));
    run.fenced(1, 0);
    run.fenced(1, 1);
    run.scanned(1, 0, &[], &[]);
    run.scanned(1, 1, &[], &[]);
    run.second();
    run.acknowledged(ack(1, 0, 5));
    assert_eq!(run.after(Duration::from_secs(60)), to(2, &Command::Abandoned { generation, epoch }));
    run.second();
    assert_eq!(run.acknowledged(ack(1, 1, 5)), [], "late, for the one that was given up");
    run.acknowledged(ack(1, 1, 8));
    assert_eq!(run.acknowledged(ack(1, 0, 8)), to(2, &Command::Committed { generation, epoch: Epoch(8) }));
    run.second();
    let failed = |epoch| Event::CheckpointFailed { generation, epoch: Epoch(epoch) };
    assert_eq!(run.event(failed(8)), [], "that one is committed");
    assert_eq!(run.event(failed(9)), to(2, &Command::Abandoned { generation, epoch: Epoch(9) }));
    run.second();
    assert_eq!(run.after(Duration::from_secs(3600)), [], "no task has an epoch to take: the job is idle");
    run.acknowledged(ack(1, 0, 12));
    assert_eq!(run.after(Duration::from_secs(59)), []);
    assert_eq!(run.after(Duration::from_secs(1)), to(2, &Command::Abandoned { generation, epoch: Epoch(12) }));
}

#[test]
fn what_breaks_the_rules_of_an_acknowledgement_stops_the_job() {
    let change = |change: fn(&mut CheckpointAck)| {
        let mut ack = ack(1, 1, 5);
        change(&mut ack);
        ack
    };
    for (what, second) in [
        ("sinks behind", change(|ack| ack.sinks_at = Epoch(4))),
        ("another epoch", change(|ack| ack.epoch = Epoch(4))),
        ("another plan", change(|ack| ack.fingerprint = 1)),
        ("another clock", change(|ack| ack.minted_at = 1)),
        ("no such task", change(|ack| ack.task = TaskIndex(2))),
        ("a partition of the other task", change(|ack| ack.sinks[0].0.partition = PartitionId(0))),
    ] {
        let mut run = Run::new(2);
        run.fenced(1, 0);
        run.fenced(1, 1);
        run.scanned(1, 0, &[], &[]);
        run.scanned(1, 1, &[], &[]);
        run.second();
        run.acknowledged(ack(1, 0, 5));
        let outputs = run.acknowledged(second);
        let Some(Output::Refuse(refusal)) = outputs.last() else { panic!("{what}: {outputs:?}") };
        assert_eq!(refusal.code(), "broken-acknowledgement", "{what}");
        assert_eq!(run.history.checkpoint(), None, "{what}");
    }
}

fn check_plan(
    what: &str,
    fingerprint: u64,
    bindings: &[(u64, u64)],
    tail: Option<(u64, u64)>,
    expected: Result<u64, &str>,
) {
    // Generation 1 commits checkpoint 5; generation 2 plans with B = 7 and dies.
    let mut run = Run::new(1);
    run.recovered(&[]);
    run.second();
    run.acknowledged(ack(1, 0, 5));
    run.next_generation(1, FINGERPRINT);
    run.recovered(&[(1, 6), (1, 7), (1, 9)]);
    run.next_generation(1, fingerprint);
    run.fenced(3, 0);
    let sinks: Vec<_> =
        tail.iter().map(|(epoch, end)| SinkTail { of: SINK, epoch: Some(Epoch(*epoch)), end: *end }).collect();
    let outputs = run.scanned(3, 0, bindings, &sinks);
    match (expected, outputs.last()) {
        (Ok(last), Some(Output::Send(_, Command::Run(plan)))) => {
            assert_eq!((plan.checkpoint_epoch(), plan.last_binding), (Epoch(5), Epoch(last)), "{what}");
        }
        (Err(code), Some(Output::Refuse(refusal))) => {
            assert_eq!(refusal.code(), code, "{what}: {refusal}");
            assert_eq!(run.leader.stage(), Stage::Over);
        }
        (expected, last) => panic!("{what}: expected {expected:?}, got {last:?}"),
    }
}

#[test]
fn the_plan_or_why_there_is_none() {
    let kept = [(1, 6), (1, 7), (1, 9)];
    let more = [&kept[..], &[(2, 8), (2, 9)]].concat();
    check_plan("what was kept; 9 of generation 1 is void", FINGERPRINT, &kept, None, Ok(7));
    check_plan("and what came after", FINGERPRINT, &more, None, Ok(9));
    check_plan("a sink at B", FINGERPRINT, &more, Some((9, 500)), Ok(9));
    check_plan("a sink beyond B", FINGERPRINT, &kept, Some((8, 500)), Err("sink-beyond-binding"));
    check_plan("a sink at its end in C", FINGERPRINT, &kept, Some((5, 105)), Ok(7));
    check_plan("a sink that lost its end", FINGERPRINT, &kept, Some((5, 104)), Err("sink-behind-checkpoint"));
    check_plan("bindings lost", FINGERPRINT, &[(1, 6)], None, Err("bindings-lost"));
    check_plan("bound by two", FINGERPRINT, &[&kept[..], &[(2, 7)]].concat(), None, Err("bound-twice"));
    check_plan("another plan, epochs not in C", 1, &kept, None, Err("fingerprint-changed"));
}

#[test]
fn the_plan_may_change_where_nothing_is_to_be_replayed() {
    let mut run = Run::new(1);
    run.recovered(&[]);
    run.second();
    run.acknowledged(ack(1, 0, 5));
    run.next_generation(1, 1);
    run.recovered(&[(1, 5)]);
    assert_eq!(run.history.last_plan().unwrap().fingerprint, 1);
}

#[test]
fn a_generation_ends() {
    let mut run = Run::new(1);
    let last = run.after(Duration::from_secs(60));
    assert_eq!(last[1..], stops_with(1, Output::Recover(RecoverReason::NoProgress(Stage::Fencing))));
    assert_eq!(run.fenced(1, 0), [], "it is over");

    run.next_generation(1, FINGERPRINT);
    run.recovered(&[]);
    run.outputs.clear();
    let task = TaskIndex(0);
    assert_eq!(run.event(Event::TaskDied(task)), stops_with(1, Output::Recover(RecoverReason::TaskDied(task))));

    run.next_generation(1, FINGERPRINT);
    run.outputs.clear();
    run.history.apply(Entry::GenerationStarted { generation: Generation(4), tasks: 1 }).unwrap();
    assert_eq!(run.event(Event::Tick), stops_with(1, Output::Superseded));

    let mut run = Run::new(1);
    let (leader, _) = Leader::start(&run.history, run.now, 1, FINGERPRINT, Limits::default());
    run.leader = leader;
    run.outputs.clear();
    let entry = Entry::GenerationStarted { generation: Generation(2), tasks: 1 };
    let refused = Refused::Stale { generation: Generation(2), current: Generation(2) };
    assert_eq!(run.event(Event::Decided(entry, Err(refused))), stops_with(1, Output::Superseded));
}

#[test]
fn source_partitions_that_have_come_are_made_part_of_the_job_once() {
    let mut run = Run::new(1);
    run.recovered(&[]);
    run.outputs.clear();
    let spec = |partition: u16, identity: &str| PartitionSpec {
        of: SourceKey { source: 0, partition: PartitionId(partition) },
        name: identity.to_owned(),
        identity: identity.to_owned(),
        start: 3,
        end: None,
    };
    let generation = Generation(1);
    let found = |generation, sources: &[PartitionSpec]| {
        Event::Report(Report::Found(SourcesFound { generation, sources: sources.to_vec() }))
    };
    let add = |sources: &[PartitionSpec]| to(1, &Command::AddSources { generation, sources: sources.to_vec() });
    let both = [spec(0, "a"), spec(0, "b")];
    assert_eq!(run.event(found(Generation(0), &both)), [], "of a past generation");
    assert_eq!(run.event(found(generation, &both)), add(&[spec(0, "a"), spec(1, "b")]));
    assert_eq!(run.event(found(generation, &both)), [], "they are known");
    assert_eq!(run.event(found(generation, &[spec(0, "b"), spec(0, "c")])), add(&[spec(2, "c")]));
    // While a proposal is not decided, nothing else is proposed.
    let (outputs, again) = (
        run.leader.handle(&run.history, run.now, found(generation, &[spec(0, "d")])),
        run.leader.handle(&run.history, run.now, found(generation, &[spec(0, "e")])),
    );
    assert!(matches!(&outputs[..], [Output::Propose(Entry::SourcesAdded { .. })]) && again.is_empty(), "{again:?}");
    run.perform(outputs);
    assert_eq!(std::mem::take(&mut run.outputs), add(&[spec(3, "d")]));
    run.next_generation(1, FINGERPRINT);
    assert_eq!(run.event(found(Generation(2), &[spec(0, "f")])), to(1, &Command::Fence { generation: Generation(2) }));
    run.recovered(&[]);
    assert_eq!(run.history.recovery_plan().unwrap().sources.len(), 4);
}
