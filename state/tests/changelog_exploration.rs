//! Every run of the two-slot changelog in a small scope, with the real rules: [`decide_write`], the record codec, [`Fold`].
//!
//! The scope: one partition, one to two keys, a log of a few records. The number of checkpoints and of generations is not
//! bounded: a reader asks of a record only "is it in the committed lineage?" and "which is later?", so the state keeps those
//! answers, and real numbers are given out when the fold is asked.
//!
//! The steps: a checkpoint writes (any change of every key), its transaction is lost or lands, the outcome is committed,
//! abandoned or never known; a crash at any time, the next generation restores from the log or from a copy; the cleaner
//! works on any prefix of the log at any time; time passes the delete retention; a copy (local rows of an older checkpoint,
//! or a scan from the start) reads on record by record while all that happens.
//!
//! The check, in every state: every permitted way to restore gives the committed values. Then each rule is left out in turn,
//! and the exploration must find the loss. `THALWEG_EXPLORE=large cargo test --release` takes longer logs.

use stateright::{Checker, HasDiscoveries, Model, Property};
use thalweg_core::{Digest, Epoch, Generation, Lineage};
use thalweg_state::changelog::{
    Change, ChangelogKey, ChangelogValue, EndRecord, Fold, Outcome, RecordBody, RowState, Slot, WritePlan, decide_write,
};

/// 0 is absent; 1 and 2 are two values, which are interchangeable.
type Value = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    Committed,
    Undecided,
    /// Of the checkpoint after the undecided one; only a mutant writes it.
    TooEarly,
    /// Abandoned and not remembered as such; only a mutant has it.
    Forgotten,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Age {
    Fresh,
    /// A cleaning has seen it: its retention runs.
    Seen,
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Body {
    Version(Status, Value),
    Tombstone(Age),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rec {
    key: usize,
    slot: Slot,
    body: Body,
}

/// A checkpoint from its write until the writer has learnt its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Open {
    lost: bool,
    values: Vec<Value>,
    plans: Vec<WritePlan>,
    aged: bool,
    committed: bool,
}

/// Local rows of a past checkpoint, or nothing (a scan), and what was read of the log since.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Copy {
    next: usize,
    rows: Vec<(RowState, Value)>,
    /// The last record of each slot, in the order of reading: all that a fold holds.
    read: Vec<Rec>,
    aged: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    log: Vec<Rec>,
    /// The offset after the last record of C.
    end_of_c: usize,
    c_aged: bool,
    committed: Vec<Value>,
    /// What was written last, committed or not; only a mutant looks at it.
    written: Vec<Value>,
    rows: Vec<RowState>,
    open: Option<Open>,
    copy: Option<Copy>,
    /// A tombstone that a re-insertion should have cancelled; only a mutant has it.
    leftover: Option<Slot>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Write { values: Vec<Value>, lost: bool },
    WriteLeftover,
    WriteTooEarly(Value),
    Commit,
    Abandon,
    Learn { keep_copy: bool },
    Crash { from_copy: bool, keep_copy: bool },
    Clean(usize),
    RetentionPasses,
    BeginScan,
    CopyReadsOn,
}

/// The rules that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    ReadsToTheOffsetOfC,
    SkipsWhatIsNotCommitted,
    IgnoresTombstones,
    RetentionFromAppend,
    NoRetention,
    OverwritesTheCommittedSlot,
    ForgetsTheSlotAtDeletion,
    BuriesTheDeletedSlotFirst,
    BuriesBothWithDeleted,
    BuriesTheOlderWithDeleted,
    ForgetsAbandonedNumbers,
    ComparesWithWhatWasWritten,
    CopyOutlivesRetention,
    ReinsertionKeepsTheTombstone,
    WritesBeforeTheDecision,
    RecordsProgressAtTheWrite,
}

/// What a key of the scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Row,
    /// The end record: written by every checkpoint, never absent.
    End,
}

#[derive(Clone, Debug)]
struct Scope {
    keys: Vec<Kind>,
    records: usize,
    mutant: Option<Mutant>,
}

impl Scope {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    fn new_tombstone(&self) -> Age {
        match self.mutant {
            Some(Mutant::RetentionFromAppend) => Age::Seen,
            Some(Mutant::NoRetention) => Age::Expired,
            _ => Age::Fresh,
        }
    }

    /// Every combination of values that a checkpoint may find.
    fn values(&self, committed: &[Value]) -> Vec<Vec<Value>> {
        let mut all = vec![Vec::new()];
        for (kind, committed) in self.keys.iter().zip(committed) {
            let choices: &[Value] = match (kind, committed) {
                (Kind::Row, _) => &[0, 1, 2],
                (Kind::End, 1) => &[2],
                (Kind::End, _) => &[1],
            };
            all = all
                .into_iter()
                .flat_map(|head: Vec<Value>| choices.iter().map(move |value| [&head[..], &[*value]].concat()))
                .collect();
        }
        all
    }

    fn plan(&self, row: RowState, base: Value, value: Value) -> WritePlan {
        let change = match (base, value) {
            (base, value) if base == value => Change::Untouched,
            (_, 0) => Change::Delete,
            _ => Change::Put,
        };
        let plan = decide_write(row, change);
        match plan {
            WritePlan::Version(slot) if self.is(Mutant::OverwritesTheCommittedSlot) && row != RowState::None => {
                WritePlan::Version(slot.other())
            }
            plan => plan,
        }
    }

    /// The records of one key, in the order of the transaction.
    fn records(&self, key: usize, plan: WritePlan, value: Value, out: &mut Vec<Rec>) {
        let version = Body::Version(Status::Undecided, value);
        let tombstone = Body::Tombstone(self.new_tombstone());
        let mut push = |slot, body| out.push(Rec { key, slot, body });
        match plan {
            WritePlan::Nothing(_) => {}
            WritePlan::Version(slot) => push(slot, version),
            WritePlan::Deleted(slot) => {
                push(slot, version);
                match self.mutant {
                    Some(Mutant::BuriesBothWithDeleted) => {
                        push(slot.other(), tombstone);
                        push(slot, tombstone);
                    }
                    Some(Mutant::BuriesTheOlderWithDeleted) => push(slot.other(), tombstone),
                    _ => {}
                }
            }
            WritePlan::Tombstones { older, deleted } => {
                if !self.is(Mutant::BuriesTheDeletedSlotFirst) {
                    push(older, tombstone);
                }
                push(deleted, tombstone);
            }
        }
    }

    fn committed_row(&self, plan: WritePlan) -> RowState {
        match plan.committed() {
            RowState::Deleted(_) if self.is(Mutant::ForgetsTheSlotAtDeletion) => RowState::None,
            row => row,
        }
    }

    /// Restores with the real fold: the rows and values after `records`, on top of local ones.
    fn restore<'a>(
        &self,
        local: &[(RowState, Value)],
        records: impl Iterator<Item = &'a Rec>,
    ) -> Vec<(RowState, Value)> {
        let mut fold = Fold::default();
        let mut lineage = Lineage::default();
        let generation = Generation(1);
        for (index, record) in records.enumerate() {
            let undecided = matches!(record.body, Body::Version(Status::Undecided | Status::TooEarly, _));
            let checkpoint = Epoch(index as u64 + if undecided { 1000 } else { 1 });
            if !self.reads(record) {
                continue;
            }
            let (key, value) = encode(self.keys[record.key], record, generation, checkpoint);
            fold.push(&key, value.as_deref()).expect("a record that was just encoded");
            match record.body {
                Body::Version(Status::Committed, _) => lineage.commit(generation, checkpoint),
                Body::Version(Status::Dead, _) => lineage.abandon(generation, checkpoint),
                Body::Version(Status::Undecided | Status::TooEarly | Status::Forgotten, _) | Body::Tombstone(_) => {}
            }
        }
        let end = self.keys.iter().position(|kind| *kind == Kind::End);
        let local_end = end.map_or(RowState::None, |end| local[end].0);
        let restored = fold.end(&lineage, local_end);
        let mut all = local.to_vec();
        let take = |key: &[u8], outcome: Outcome<'_>| {
            let entry = &mut all[usize::from(key[0])];
            match outcome {
                Outcome::Keep => {}
                Outcome::Live(slot, value) => *entry = (RowState::Live(slot), value[0]),
                Outcome::Deleted(slot) => *entry = (RowState::Deleted(slot), 0),
                Outcome::Gone => *entry = (RowState::None, 0),
            }
            Ok(())
        };
        fold.finish(&lineage, |key| Ok(local[usize::from(key[0])].0), take).expect("nothing fails in memory");
        if let Some(end) = end {
            match restored.record {
                Some((_, _, record)) => all[end] = (restored.row, record.entries as Value),
                None if restored.row == RowState::None => all[end] = (RowState::None, 0),
                None => assert_eq!(restored.row, local_end),
            }
        }
        all
    }

    fn reads(&self, record: &Rec) -> bool {
        match record.body {
            Body::Tombstone(_) => !self.is(Mutant::IgnoresTombstones),
            Body::Version(status, _) => status == Status::Committed || !self.is(Mutant::SkipsWhatIsNotCommitted),
        }
    }

    fn readable<'a>(&self, state: &'a State, from: usize) -> &'a [Rec] {
        let end = if self.is(Mutant::ReadsToTheOffsetOfC) { state.end_of_c.max(from) } else { state.log.len() };
        &state.log[from..end]
    }

    fn nothing(&self) -> Vec<(RowState, Value)> {
        vec![(RowState::None, 0); self.keys.len()]
    }

    fn restore_log(&self, state: &State) -> Vec<(RowState, Value)> {
        self.restore(&self.nothing(), self.readable(state, 0).iter())
    }

    fn restore_copy(&self, state: &State, copy: &Copy) -> Vec<(RowState, Value)> {
        self.restore(&copy.rows, copy.read.iter().chain(self.readable(state, copy.next)))
    }

    fn is_exact(&self, state: &State) -> bool {
        let agrees = |rows: Vec<(RowState, Value)>| rows.iter().map(|row| row.1).eq(state.committed.iter().copied());
        agrees(self.restore_log(state)) && state.copy.as_ref().is_none_or(|copy| agrees(self.restore_copy(state, copy)))
    }

    fn local_copy(&self, state: &State) -> Option<Copy> {
        let allowed = !state.c_aged || self.is(Mutant::CopyOutlivesRetention);
        allowed.then(|| Copy {
            next: state.end_of_c,
            rows: state.rows.iter().copied().zip(state.committed.iter().copied()).collect(),
            read: Vec::new(),
            aged: state.c_aged,
        })
    }
}

fn encode(kind: Kind, record: &Rec, generation: Generation, checkpoint: Epoch) -> (Vec<u8>, Option<Vec<u8>>) {
    let (mut key, name) = (Vec::new(), [record.key as u8]);
    match kind {
        Kind::Row => ChangelogKey::Row { key: &name, slot: record.slot }.encode(&mut key),
        Kind::End => ChangelogKey::End { slot: record.slot }.encode(&mut key),
    }
    let Body::Version(_, value) = record.body else { return (key, None) };
    let content = [value];
    let body = match (kind, value) {
        (Kind::End, value) => RecordBody::End(EndRecord { entries: value.into(), digest: Digest::default() }),
        (Kind::Row, 0) => RecordBody::Deleted,
        (Kind::Row, _) => RecordBody::Version(&content),
    };
    let mut bytes = Vec::new();
    ChangelogValue { generation, checkpoint, body }.encode(&key, &mut bytes);
    (key, Some(bytes))
}

impl State {
    fn restatus(&mut self, to: impl Fn(Status) -> Status) {
        let read = self.copy.iter_mut().flat_map(|copy| copy.read.iter_mut());
        for record in self.log.iter_mut().chain(read) {
            if let Body::Version(status, _) = &mut record.body {
                *status = to(*status);
            }
        }
    }

    /// Cleans the first `count` records: the last of each slot stays, an expired tombstone goes.
    fn clean(&mut self, count: usize) {
        let mut kept = Vec::with_capacity(self.log.len());
        let (mut end_of_c, mut next) = (0, 0);
        let copy_next = self.copy.as_ref().map_or(0, |copy| copy.next);
        for (index, record) in self.log.iter().enumerate() {
            let mut record = *record;
            if index < count {
                let newer = |later: &Rec| later.key == record.key && later.slot == record.slot;
                if self.log[index + 1..count].iter().any(newer) || record.body == Body::Tombstone(Age::Expired) {
                    continue;
                }
                if record.body == Body::Tombstone(Age::Fresh) {
                    record.body = Body::Tombstone(Age::Seen);
                }
            }
            kept.push(record);
            end_of_c += usize::from(index < self.end_of_c);
            next += usize::from(index < copy_next);
        }
        self.log = kept;
        self.end_of_c = end_of_c;
        if let Some(copy) = &mut self.copy {
            copy.next = next;
        }
    }

    /// Of states that no reader can tell apart one is explored: what a dead version says does not matter, and what was read
    /// before a dead version or a tombstone of its slot is as if it had never been; the values 1 and 2 of a key are
    /// interchangeable.
    fn canonical(mut self) -> Self {
        for record in &mut self.log {
            if let Body::Version(Status::Dead, value) = &mut record.body {
                *value = 1;
            }
        }
        if let Some(copy) = &mut self.copy {
            let Copy { rows, read, .. } = copy;
            read.retain(|record| {
                let row = &mut rows[record.key];
                if row.0.slot() == Some(record.slot) {
                    *row = (RowState::None, 0);
                }
                !matches!(record.body, Body::Version(Status::Dead, _) | Body::Tombstone(_))
            });
            // Stable: the order within a key is the order of the checkpoints.
            read.sort_by_key(|record| record.key);
        }
        for key in 0..self.committed.len() {
            let of_key = |record: &&Rec| record.key == key;
            let value_of = |record: &Rec| match record.body {
                Body::Version(Status::Dead, _) | Body::Tombstone(_) => 0,
                Body::Version(_, value) => value,
            };
            let open = self.open.iter().map(|open| open.values[key]);
            let copy = self.copy.iter().flat_map(|copy| {
                copy.read.iter().filter(of_key).map(value_of).chain(std::iter::once(copy.rows[key].1))
            });
            let first = std::iter::once(self.committed[key])
                .chain(open)
                .chain(self.log.iter().filter(of_key).map(value_of))
                .chain(copy)
                .chain(std::iter::once(self.written[key]))
                .find(|value| *value != 0);
            if first == Some(2) {
                self.swap_values(key);
            }
        }
        self
    }

    fn swap_values(&mut self, key: usize) {
        let swap = |value: &mut Value| *value = [0, 2, 1][usize::from(*value)];
        swap(&mut self.committed[key]);
        swap(&mut self.written[key]);
        if let Some(open) = &mut self.open {
            swap(&mut open.values[key]);
        }
        if let Some(copy) = &mut self.copy {
            swap(&mut copy.rows[key].1);
        }
        let read = self.copy.iter_mut().flat_map(|copy| copy.read.iter_mut());
        for record in self.log.iter_mut().chain(read).filter(|record| record.key == key) {
            match &mut record.body {
                Body::Version(Status::Dead, _) | Body::Tombstone(_) => {}
                Body::Version(_, value) => swap(value),
            }
        }
    }
}

impl Scope {
    fn write(&self, state: &mut State, values: Vec<Value>, lost: bool) {
        let base = if self.is(Mutant::ComparesWithWhatWasWritten) { &state.written } else { &state.committed };
        let plans: Vec<_> = (0..values.len()).map(|key| self.plan(state.rows[key], base[key], values[key])).collect();
        let mut records = Vec::new();
        for (key, plan) in plans.iter().enumerate() {
            self.records(key, *plan, values[key], &mut records);
        }
        if self.is(Mutant::ComparesWithWhatWasWritten) {
            state.written.clone_from(&values);
        }
        if let (RowState::Deleted(slot), WritePlan::Version(_)) = (state.rows[0], plans[0])
            && self.is(Mutant::ReinsertionKeepsTheTombstone)
        {
            state.leftover = Some(slot);
        }
        if matches!(plans[0], WritePlan::Tombstones { .. }) && self.is(Mutant::RecordsProgressAtTheWrite) {
            state.rows[0] = RowState::None;
        }
        state.open = Some(if lost {
            // It can only be abandoned: what it held does not matter any more.
            let plans = state.rows.iter().map(|row| WritePlan::Nothing(*row)).collect();
            Open { lost, values: state.committed.clone(), plans, aged: false, committed: false }
        } else {
            state.log.extend(records);
            Open { lost, values, plans, aged: false, committed: false }
        });
    }

    fn commit(&self, state: &mut State) {
        state.restatus(|status| match status {
            Status::Undecided | Status::Forgotten => Status::Committed,
            Status::TooEarly => Status::Undecided,
            Status::Committed | Status::Dead => status,
        });
        let open = state.open.as_mut().expect("only an open checkpoint is committed");
        open.committed = true;
        state.committed.clone_from(&open.values);
        state.c_aged = open.aged;
        let early =
            state.log.iter().filter(|record| matches!(record.body, Body::Version(Status::Undecided, _))).count();
        state.end_of_c = state.log.len() - early;
    }

    fn crash(&self, state: &mut State, from_copy: bool, keep_copy: bool) {
        state.restatus(|status| if status == Status::Committed { status } else { Status::Dead });
        let restored = match &state.copy {
            Some(copy) if from_copy => self.restore_copy(state, copy),
            Some(_) | None => self.restore_log(state),
        };
        state.rows = restored.iter().map(|row| row.0).collect();
        state.written.clone_from(&state.committed);
        state.open = None;
        state.leftover = None;
        if keep_copy {
            state.copy = self.local_copy(state);
        }
    }

    fn copy_reads_on(&self, state: &mut State) {
        let State { log, copy: Some(copy), .. } = state else { return };
        let record = log[copy.next];
        copy.next += 1;
        if self.reads(&record) {
            copy.read.retain(|seen| (seen.key, seen.slot) != (record.key, record.slot));
            copy.read.push(record);
        }
    }

    fn retention_passes(&self, state: &mut State) {
        for record in &mut state.log {
            if record.body == Body::Tombstone(Age::Seen) {
                record.body = Body::Tombstone(Age::Expired);
            }
        }
        if let Some(open) = &mut state.open {
            open.aged |= !open.lost;
        }
        state.c_aged = true;
        if self.is(Mutant::CopyOutlivesRetention) {
            if let Some(copy) = &mut state.copy {
                copy.aged = true;
            }
        } else {
            state.copy = None;
        }
    }

    fn writer_actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Some(open) = &state.open else {
            for values in self.values(&state.committed) {
                actions.push(Action::Write { values: values.clone(), lost: false });
                actions.push(Action::Write { values, lost: true });
            }
            if state.leftover.is_some() {
                actions.push(Action::WriteLeftover);
            }
            return;
        };
        if open.committed {
            actions.extend([Action::Learn { keep_copy: false }, Action::Learn { keep_copy: true }]);
            return;
        }
        actions.push(Action::Abandon);
        if !open.lost {
            actions.push(Action::Commit);
            if self.is(Mutant::WritesBeforeTheDecision) && matches!(open.plans[0], WritePlan::Version(_)) {
                actions.extend((0..3).map(Action::WriteTooEarly));
            }
        }
    }
}

impl Model for Scope {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let none = vec![0; self.keys.len()];
        vec![State {
            log: Vec::new(),
            end_of_c: 0,
            c_aged: false,
            committed: none.clone(),
            written: none,
            rows: vec![RowState::None; self.keys.len()],
            open: None,
            copy: None,
            leftover: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.writer_actions(state, actions);
        for keep_copy in [false, true] {
            actions.push(Action::Crash { from_copy: false, keep_copy });
            if state.copy.is_some() {
                actions.push(Action::Crash { from_copy: true, keep_copy });
            }
        }
        actions.extend((1..=state.log.len()).map(Action::Clean));
        actions.extend([Action::RetentionPasses, Action::BeginScan]);
        let skips = self.is(Mutant::ReadsToTheOffsetOfC) || self.is(Mutant::SkipsWhatIsNotCommitted);
        let end = if skips { state.end_of_c } else { state.log.len() };
        if state.copy.as_ref().is_some_and(|copy| copy.next < end) {
            actions.push(Action::CopyReadsOn);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Write { values, lost } => self.write(&mut state, values, lost),
            Action::WriteLeftover => {
                let slot = state.leftover.take()?;
                state.log.push(Rec { key: 0, slot, body: Body::Tombstone(self.new_tombstone()) });
            }
            Action::WriteTooEarly(value) => {
                let slot = state.open.as_ref()?.plans[0].committed().slot()?;
                state.log.push(Rec { key: 0, slot, body: Body::Version(Status::TooEarly, value) });
            }
            Action::Commit => self.commit(&mut state),
            Action::Abandon => {
                let forgets = self.is(Mutant::ForgetsAbandonedNumbers);
                state.restatus(|status| match status {
                    Status::Undecided if forgets => Status::Forgotten,
                    Status::Undecided | Status::TooEarly => Status::Dead,
                    Status::Committed | Status::Forgotten | Status::Dead => status,
                });
                state.open = None;
            }
            Action::Learn { keep_copy } => {
                let open = state.open.take()?;
                state.rows = open.plans.iter().map(|plan| self.committed_row(*plan)).collect();
                if keep_copy {
                    state.copy = self.local_copy(&state);
                }
            }
            Action::Crash { from_copy, keep_copy } => self.crash(&mut state, from_copy, keep_copy),
            Action::Clean(count) => state.clean(count),
            Action::RetentionPasses => self.retention_passes(&mut state),
            Action::BeginScan => {
                state.copy = Some(Copy { next: 0, rows: self.nothing(), read: Vec::new(), aged: false });
            }
            Action::CopyReadsOn => self.copy_reads_on(&mut state),
        }
        Some(state.canonical())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(EXACT, |scope: &Self, state: &State| scope.is_exact(state)),
            Property::sometimes(REINSERTED, |_, state: &State| {
                let version =
                    |status| move |record: &Rec| matches!(record.body, Body::Version(s, 1 | 2) if s == status);
                let tombstone = |record: &Rec| matches!(record.body, Body::Tombstone(_));
                state.log.iter().any(version(Status::Committed)) && state.log.iter().any(tombstone)
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.log.len() <= self.records
    }
}

const EXACT: &str = "every permitted way to restore gives what is committed";
const REINSERTED: &str = "a committed value and a tombstone are in one log";

fn check(keys: &[Kind], records: usize, mutant: Option<Mutant>) {
    let scope = Scope { keys: keys.to_vec(), records, mutant };
    #[allow(clippy::disallowed_methods, reason = "says how long it took; decides nothing")]
    let started = std::time::Instant::now();
    let checker = scope.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    eprintln!("{keys:?}, {records} records, {mutant:?}: {states} states in {:.1?}", started.elapsed());
    match (mutant, checker.discovery(EXACT)) {
        // Two keys need longer logs for that.
        (None, None) => assert!(
            keys.len() > 1 || checker.discovery(REINSERTED).is_some(),
            "the scope is too small to mean anything"
        ),
        (None, Some(path)) => {
            panic!("a rule does not hold: {:#?}\n{:#?}", path.clone().into_actions(), path.last_state())
        }
        (Some(_), Some(path)) => eprintln!("  found: {:?}", path.into_actions()),
        (Some(mutant), None) => panic!("{mutant:?} was not found in {states} states"),
    }
}

fn larger(records: usize) -> usize {
    records + usize::from(std::env::var_os("THALWEG_EXPLORE").is_some_and(|scope| scope == "large"))
}

#[test]
fn one_key() {
    check(&[Kind::Row], larger(4), None);
}

#[test]
fn two_keys() {
    check(&[Kind::Row, Kind::Row], larger(3), None);
}

#[test]
fn one_key_and_the_end_records() {
    check(&[Kind::Row, Kind::End], larger(4), None);
}

#[test]
fn every_rule_is_needed() {
    use Mutant::*;
    for mutant in [
        ReadsToTheOffsetOfC,
        SkipsWhatIsNotCommitted,
        IgnoresTombstones,
        RetentionFromAppend,
        NoRetention,
        OverwritesTheCommittedSlot,
        ForgetsTheSlotAtDeletion,
        BuriesTheDeletedSlotFirst,
        BuriesBothWithDeleted,
        BuriesTheOlderWithDeleted,
        ForgetsAbandonedNumbers,
        ComparesWithWhatWasWritten,
        CopyOutlivesRetention,
        ReinsertionKeepsTheTombstone,
        WritesBeforeTheDecision,
        RecordsProgressAtTheWrite,
    ] {
        check(&[Kind::Row], 6, Some(mutant));
    }
}
