//! The loop of one worker thread: timely's steps, and between them seals, slices of encoding, and answers.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use thalweg_core::{Epoch, Query, QueryReply, QueryResult, Result};
use thalweg_operators::{EpochGate, OperatorStore, Plan, PointQuestions, WorkerContext};
use timely::dataflow::operators::probe::Handle;
use timely::worker::Worker;

use crate::event::{CheckpointMessage, DriverEvent, Question, WorkerMessage, unavailable};

/// Rows that are encoded between two steps: about a millisecond.
const SLICE_ROWS: usize = 4096;
/// Longest sleep; whatever needs the worker wakes it.
const PARK: Duration = Duration::from_millis(200);
/// How long a question for an epoch that is not there yet is kept.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that wait for an epoch, at most.
const WAITING: usize = 1024;

/// What other threads tell a worker, in order; operators take questions about single keys out of it while they are at work.
pub(crate) struct Inbox {
    messages: Receiver<WorkerMessage>,
    /// Taken out by an operator, and nothing for it.
    held: RefCell<VecDeque<WorkerMessage>>,
}

impl Inbox {
    pub(crate) fn new(messages: Receiver<WorkerMessage>) -> Self {
        Self { messages, held: RefCell::default() }
    }

    fn next(&self) -> Result<WorkerMessage, TryRecvError> {
        self.held.borrow_mut().pop_front().map_or_else(|| self.messages.try_recv(), Ok)
    }
}

impl PointQuestions for Inbox {
    fn answer(&self, id: &str, answer: &mut dyn FnMut(&str) -> Option<QueryResult>) {
        while let Ok(message) = self.messages.try_recv() {
            let held = match message {
                WorkerMessage::Ask(question) if question.store == id => match point_answer(&question, answer) {
                    Some(result) => {
                        (question.reply)(result);
                        continue;
                    }
                    None => WorkerMessage::Ask(question),
                },
                message => message,
            };
            self.held.borrow_mut().push_back(held);
        }
    }
}

/// The answer to a question about one key, where there is one of the epoch that is asked for.
fn point_answer(question: &Question, answer: &mut dyn FnMut(&str) -> Option<QueryResult>) -> Option<QueryResult> {
    let Query::Get { key } = &question.query else { return None };
    let result = answer(key)?;
    let is_too_early = |reply: &QueryReply| question.options.min_epoch.is_some_and(|wanted| reply.epoch < wanted);
    (!result.as_ref().is_ok_and(is_too_early)).then_some(result)
}

/// A worker at work.
pub(crate) struct WorkerLoop {
    pub(crate) index: usize,
    pub(crate) context: Rc<WorkerContext>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) inbox: Rc<Inbox>,
    pub(crate) events: Sender<DriverEvent>,
    pub(crate) checkpoints: Sender<CheckpointMessage>,
}

impl WorkerLoop {
    /// Builds the dataflow and runs it until it is stopped or the task fails.
    pub(crate) fn run(self, worker: &mut Worker) {
        if let Err(error) = self.work(worker) {
            self.context.failure.fail(error);
        }
    }

    fn work(&self, worker: &mut Worker) -> Result<()> {
        let probe = Handle::new();
        let dataflow = worker.next_dataflow_index();
        let built = worker.dataflow(|scope| self.plan.lower(scope, &self.context, &probe));
        let outcome = built.and_then(|()| self.turns(worker, &probe));
        // Without a further step: an operator that sees its input end must not take that for the end of an epoch.
        worker.drop_dataflow(dataflow);
        outcome
    }

    fn turns(&self, worker: &mut Worker, probe: &Handle<u64>) -> Result<()> {
        let stores: Vec<_> = self.context.stores.borrow().clone();
        let gate = &self.context.gate;
        let mut processed = gate.processed();
        let mut waiting: Vec<(Instant, Box<Question>)> = Vec::new();
        loop {
            let encoding = stores.iter().any(|store| store.borrow().is_sealed());
            worker.step_or_park(Some(if encoding { Duration::ZERO } else { PARK }));
            if self.context.failure.failed() {
                return Ok(());
            }
            let now =
                probe.with_frontier(|frontier| frontier.first().map_or(processed.0, |first| first.saturating_sub(1)));
            if now > processed.0 {
                processed = Epoch(now);
                gate.set_processed(self.index, processed);
                let _ = self.events.send(DriverEvent::Progress);
            }
            self.seal(&stores, gate)?;
            self.tell_dirty(&stores);
            self.answer_boundaries(&stores);
            let due: Vec<_> = waiting
                .extract_if(.., |(since, question)| ready(question, &stores) || since.elapsed() > PATIENCE)
                .collect();
            due.into_iter().for_each(|(_, question)| answer(*question, &stores));
            loop {
                match self.inbox.next() {
                    Ok(WorkerMessage::Look) => {}
                    Ok(WorkerMessage::Ask(question)) if ready(&question, &stores) || waiting.len() >= WAITING => {
                        answer(*question, &stores);
                    }
                    Ok(WorkerMessage::Ask(question)) => waiting.push((Instant::now(), question)),
                    Ok(WorkerMessage::Applied(epoch)) => {
                        stores.iter().try_for_each(|store| store.borrow_mut().committed(epoch))?;
                        self.settled(&stores, epoch);
                    }
                    Ok(WorkerMessage::Abandoned(epoch)) => {
                        stores.iter().for_each(|store| store.borrow_mut().abandoned(epoch));
                        self.settled(&stores, epoch);
                    }
                    Ok(WorkerMessage::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
                    Err(TryRecvError::Empty) => break,
                }
            }
        }
    }

    /// Says how much no checkpoint holds.
    fn tell_dirty(&self, stores: &[Rc<RefCell<dyn OperatorStore>>]) {
        self.context.gate.set_dirty(self.index, stores.iter().map(|store| store.borrow().dirty_bytes()).sum());
    }

    /// All stores have let go of a decided checkpoint. The driver may be waiting for the room that this has made.
    fn settled(&self, stores: &[Rc<RefCell<dyn OperatorStore>>], epoch: Epoch) {
        self.tell_dirty(stores);
        let _ = self.events.send(DriverEvent::Settled(epoch));
    }

    /// Seals what is due, and encodes one slice of what is sealed.
    fn seal(&self, stores: &[Rc<RefCell<dyn OperatorStore>>], gate: &EpochGate) -> Result<()> {
        let mut rows = SLICE_ROWS;
        for store in stores {
            let mut store = store.borrow_mut();
            store.seal_if_due(gate.checkpoint());
            if rows == 0 || !store.is_sealed() {
                continue;
            }
            match store.encode(rows)? {
                Some(sealed) => {
                    let _ = self.checkpoints.send(CheckpointMessage::Sealed(Box::new(sealed)));
                    rows /= 2;
                }
                None => rows = 0,
            }
        }
        Ok(())
    }

    /// Answers the questions for the boundary at which this worker stands.
    fn answer_boundaries(&self, stores: &[Rc<RefCell<dyn OperatorStore>>]) {
        for store in stores {
            let mut store = store.borrow_mut();
            let after = store.epoch().next();
            for barrier in self.context.barriers.take_due(store.id(), after) {
                (barrier.reply)(store.query(&barrier.query));
            }
        }
    }
}

fn store_of<'a>(
    question: &Question,
    stores: &'a [Rc<RefCell<dyn OperatorStore>>],
) -> Option<&'a Rc<RefCell<dyn OperatorStore>>> {
    stores.iter().find(|store| store.borrow().id() == question.store)
}

/// Whether the answer would be of the epoch that is asked for, or later.
fn ready(question: &Question, stores: &[Rc<RefCell<dyn OperatorStore>>]) -> bool {
    let epoch = store_of(question, stores).map(|store| store.borrow().epoch());
    question.options.min_epoch.is_none_or(|wanted| epoch.is_none_or(|epoch| epoch >= wanted))
}

fn answer(question: Question, stores: &[Rc<RefCell<dyn OperatorStore>>]) {
    let result = match store_of(&question, stores) {
        None => unavailable("this worker does not keep the store"),
        Some(_) if !ready(&question, stores) => unavailable("the epoch that was asked for is not processed yet"),
        Some(store) => store.borrow_mut().query(&question.query),
    };
    (question.reply)(result);
}
