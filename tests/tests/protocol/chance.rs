//! Who chooses: a seed, or a script of departures from the run in which nothing fails.

use std::sync::Mutex;

use thalweg_connectors::log::simulated::{Fate, Fates, SimulatedCluster, Step};
use thalweg_tests::Random;

/// What is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Action,
    Fate,
    Arrival,
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
pub(crate) struct Chance(Mutex<State>);

impl Chance {
    pub(crate) fn seeded(seed: u64, faults: u32) -> Self {
        Self::new(Way::Seeded { random: Random::new(seed), faults })
    }

    pub(crate) fn scripted(departures: &[(usize, usize)]) -> Self {
        Self::new(Way::Scripted(departures.to_vec()))
    }

    fn new(way: Way) -> Self {
        Self(Mutex::new(State { way, answers: Vec::new() }))
    }

    /// One of `count` answers; 0 is what happens where nothing fails.
    pub(crate) fn choose(&self, question: Question, count: usize) -> usize {
        let state = &mut *self.0.lock().expect("nobody panics with it");
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
                };
                if count < 2 || !random.once_in(often) || (question == Question::Fate && *faults == 0) {
                    return 0;
                }
                let answer = random.below(count as u64) as usize;
                if question == Question::Fate && answer > 0 {
                    *faults -= 1;
                }
                answer
            }
        }
    }

    /// From now on nothing fails.
    pub(crate) fn calm(&self) {
        self.0.lock().expect("nobody panics with it").way = Way::Calm;
    }

    /// How many answers each question had, before it became calm.
    pub(crate) fn answers(&self) -> Vec<usize> {
        self.0.lock().expect("nobody panics with it").answers.clone()
    }
}

impl Fates for Chance {
    fn before(&self, cluster: &SimulatedCluster, _: Step) {
        let under_way = cluster.under_way();
        if under_way > 0 {
            match self.choose(Question::Arrival, under_way + 1) {
                0 => {}
                index => cluster.deliver(index - 1),
            }
        }
    }

    fn of_end(&self, _: &str) -> Fate {
        Fate::ALL[self.choose(Question::Fate, Fate::ALL.len())]
    }
}
