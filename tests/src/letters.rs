//! Dead letters, to be compared: with what the interpreter says, and between runs.

use thalweg_connectors::dead_letter::{DeadLetter, StoredLetter};
use thalweg_core::Epoch;

/// A dead letter with its epoch. What a failure says is the engine's own: the interpreter leaves it open, two runs agree on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The epoch.
    pub epoch: Epoch,
    /// The rest; an empty message is left open.
    pub letter: DeadLetter,
}

impl From<StoredLetter> for Letter {
    fn from(stored: StoredLetter) -> Self {
        Self { epoch: stored.epoch, letter: stored.letter }
    }
}

impl Letter {
    fn is_like(&self, expected: &Self) -> bool {
        let message = match expected.letter.message.is_empty() {
            true => String::new(),
            false => self.letter.message.clone(),
        };
        self.epoch == expected.epoch && DeadLetter { message, ..self.letter.clone() } == expected.letter
    }

    fn show(&self) -> String {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let Self { epoch, letter } = self;
        let (key, value) = (text(&letter.key), text(&letter.value));
        format!("epoch {epoch}, {:?}, {key:?}: {value:?} in {letter:?}", letter.node)
    }
}

/// Compares all of them, in order.
pub(crate) fn check_letters(found: &[Letter], expected: &[Letter]) -> Result<(), String> {
    let differs = found.iter().zip(expected).position(|(a, b)| !a.is_like(b));
    let at = match differs {
        None if found.len() == expected.len() => return Ok(()),
        None => found.len().min(expected.len()),
        Some(at) => at,
    };
    let show = |letters: &[Letter]| letters.get(at).map_or("nothing".to_owned(), Letter::show);
    Err(format!(
        "dead letter {} of {} is\n    {}\n  but it should be, of {},\n    {}",
        at + 1,
        found.len(),
        show(found),
        expected.len(),
        show(expected)
    ))
}
