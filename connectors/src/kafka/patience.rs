//! Waiting for a broker that is away: with a word to the user, and an end.

use std::time::{Duration, Instant};

use thalweg_core::{Error, Result};

use super::KafkaConfig;
use super::client::Client;

/// Longest time of one attempt, so that a stop is heard.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Between two attempts of which the first came back at once.
const PAUSE: Duration = Duration::from_millis(100);
/// What is left of the patience when the process is told to stop.
pub(super) const STOPPING: Duration = Duration::from_secs(10);
/// When the user is told for the first time, and how often from then on.
const WORD: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// Tries until it succeeds, fails for good, or the patience of the configuration is over.
///
/// `attempt` is given how many milliseconds it may take. An error that no retry can help ends it at once; so does an error of the
/// connection that only the user can mend (a wrong password), and the process being told to stop.
pub(super) fn patiently<T>(
    config: &KafkaConfig,
    client: &Client,
    doing: &str,
    mut attempt: impl FnMut(i32) -> Result<T>,
) -> Result<T> {
    let (began, mut next_word, mut reason) = (Instant::now(), WORD.0, String::new());
    loop {
        let tried = Instant::now();
        let error = match attempt(ATTEMPT.as_millis() as i32) {
            Ok(value) => return Ok(value),
            Err(error) if !error.is_retryable() => return Err(error),
            Err(error) => error,
        };
        client.poll(0);
        let heard = client.heard().last.lock().take();
        match heard {
            Some(denied) if denied.blame() == thalweg_core::Blame::User => return Err(denied.context(doing)),
            // What a call says is that there is no connection; why there is none is heard beside it.
            Some(heard) => reason = format!("; {}", heard.message()),
            None => {}
        }
        let waited = began.elapsed();
        if waited >= config.patience || config.stopping() && waited >= STOPPING {
            let text = format!(
                "Kafka at {} has not answered for {} s (last: {}{reason}); check that it runs, bootstrap_servers, and for TLS and \
                 SASL [kafka.properties]; nothing is lost, start the job again then",
                config.bootstrap_servers(),
                waited.as_secs(),
                error.message()
            );
            return Err(Error::external("kafka-away", text));
        }
        if waited >= next_word {
            next_word = waited + WORD.1;
            tracing::warn!("waiting for Kafka at {}: {}{reason}", config.bootstrap_servers(), error.message());
        }
        std::thread::sleep(PAUSE.saturating_sub(tried.elapsed()));
    }
}
