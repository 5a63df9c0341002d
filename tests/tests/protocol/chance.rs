//! Who chooses: a seed, or a script of departures from the run in which nothing fails.

use std::sync::Mutex;

use thalweg_connectors::log::simulated::{Fate, Fates, SimulatedCluster, Step};
use thalweg_core::PartitionId;
use thalweg_tests::Random;

use crate::world::{PARTITIONS, STRANGER, changelog};

/// What is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Action,
    Fate,
    Arrival,
    Marker,
    Cleaning,
}

enum Way {
    Seeded {
        random: Random,
        faults: u32,
    },
    /// At these questions another answer than the first.
    Scripted(Vec<(usize, usize)>),
    Calm,
}

struct State {
    way: Way,
    /// How many answers each question had.
    answers: Vec<usize>,
}

/// See the module's description.
pub(crate) struct Chance {
    state: Mutex<State>,
    odds: Odds,
}

/// What may happen besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Odds {
    /// The changelog is cleaned while it is read, record by record.
    pub(crate) cleans: bool,
    /// A broker that dies loses the marker of a transaction in a partition. Only the id that has left it open can end it then, which
    /// is for a task whose partitions are its own for ever: where they change places, nobody knows whose it is.
    pub(crate) loses_markers: bool,
}

/// A prefix of a partition is cleaned up to so many thirds of it.
pub(crate) const THIRDS: u64 = 3;

impl Chance {
    pub(crate) fn seeded(seed: u64, faults: u32, odds: Odds) -> Self {
        Self::new(Way::Seeded { random: Random::new(seed), faults }, odds)
    }

    pub(crate) fn scripted(departures: &[(usize, usize)], odds: Odds) -> Self {
        Self::new(Way::Scripted(departures.to_vec()), odds)
    }

    fn new(way: Way, odds: Odds) -> Self {
        Self { state: Mutex::new(State { way, answers: Vec::new() }), odds }
    }

    /// One of `count` answers; 0 is what happens where nothing fails.
    pub(crate) fn choose(&self, question: Question, count: usize) -> usize {
        let state = &mut *self.state.lock().expect("nobody panics with it");
        if !matches!(state.way, Way::Calm) {
            state.answers.push(count);
        }
        match &mut state.way {
            Way::Calm => 0,
            Way::Scripted(departures) => {
                let here = state.answers.len() - 1;
                departures.iter().find(|(at, _)| *at == here).map_or(0, |(_, answer)| *answer)
            }
            Way::Seeded { random, faults } => {
                let often = match question {
                    Question::Action => 3,
                    Question::Fate | Question::Arrival => 4,
                    Question::Marker => 6,
                    Question::Cleaning => 3,
                };
                let is_fault = matches!(question, Question::Fate | Question::Marker);
                if count < 2 || !random.once_in(often) || (is_fault && *faults == 0) {
                    return 0;
                }
                let answer = random.below(count as u64) as usize;
                if is_fault && answer > 0 {
                    *faults -= 1;
                }
                answer
            }
        }
    }

    /// From now on nothing fails.
    pub(crate) fn calm(&self) {
        self.state.lock().expect("nobody panics with it").way = Way::Calm;
    }

    /// How many answers each question had, before it became calm.
    pub(crate) fn answers(&self) -> Vec<usize> {
        self.state.lock().expect("nobody panics with it").answers.clone()
    }
}

/// Cleans a prefix of a partition of the changelog.
pub(crate) fn clean(cluster: &SimulatedCluster, partition: u16, thirds: u64) {
    let (topic, partition) = (changelog(), PartitionId(partition));
    // Before the first start there is none.
    if let Ok(end) = cluster.stable_end(&topic, partition) {
        let cleaned = cluster.clean(&topic, partition, end * thirds / THIRDS);
        cleaned.expect("the topic is there");
    }
}

impl Fates for Chance {
    fn before(&self, cluster: &SimulatedCluster, step: Step) {
        let under_way = cluster.under_way();
        if under_way > 0 {
            match self.choose(Question::Arrival, under_way + 1) {
                0 => {}
                index => cluster.deliver(index - 1),
            }
        }
        if self.odds.cleans && step == Step::Read {
            let answer = self.choose(Question::Cleaning, 1 + usize::from(PARTITIONS) * THIRDS as usize) as u64;
            if let Some(answer) = answer.checked_sub(1) {
                clean(cluster, (answer / THIRDS) as u16, answer % THIRDS + 1);
            }
        }
    }

    fn of_end(&self, _: &str) -> Fate {
        Fate::ALL[self.choose(Question::Fate, Fate::ALL.len())]
    }

    fn of_append(&self, _: &str) -> Fate {
        Fate::OF_APPENDS[self.choose(Question::Fate, Fate::OF_APPENDS.len())]
    }

    fn lost_marker(&self, id: &str, partitions: usize) -> Option<usize> {
        // Whoever else writes has to look after its own.
        let may_lose = self.odds.loses_markers && id != STRANGER;
        if may_lose { self.choose(Question::Marker, 1 + partitions).checked_sub(1) } else { None }
    }

    fn read_bytes(&self) -> usize {
        if self.odds.cleans { 1 } else { usize::MAX }
    }
}
