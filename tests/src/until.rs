//! Waiting for a condition, with a limit.

use std::time::{Duration, Instant};

/// Far longer than anything takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns when the condition holds; panics when it does not within a minute, and says `what` was waited for.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}: not within {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(1));
    }
}
