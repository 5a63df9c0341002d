//! Named points of the protocol at which the test harness kills the process, fails an operation, or puts a known bug back.
//!
//! Always compiled, never on a per-record path; one relaxed load where nothing is armed. Only the harness arms them, by the
//! environment variable `THALWEG_FAILPOINTS` of the process that it starts: `name=kill@3` (third time the point is reached),
//! `name=error@1` (the first time, and not after that), `name=bug`, several joined by `;`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::{Error, Result};

/// The variable that [`arm_from_env`] reads.
pub const VARIABLE: &str = "THALWEG_FAILPOINTS";

static ARMED: AtomicBool = AtomicBool::new(false);
static POINTS: Mutex<Option<HashMap<String, Armed>>> = Mutex::new(None);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Kill,
    Error,
    Bug,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    action: Action,
    hits_left: u64,
}

/// Arms what [`VARIABLE`] names; called once by `main`.
///
/// Errors: a specification that cannot be read.
pub fn arm_from_env() -> Result<()> {
    match std::env::var(VARIABLE) {
        Ok(spec) => arm(&spec),
        Err(_) => Ok(()),
    }
}

/// Arms the points of a specification in this process.
pub fn arm(spec: &str) -> Result<()> {
    let mut points = HashMap::new();
    for part in spec.split(';').filter(|part| !part.is_empty()) {
        let wrong =
            || Error::user("failpoint", format!("{VARIABLE}: {part:?} is not name=kill@N, name=error@N or name=bug"));
        let (name, rest) = part.split_once('=').ok_or_else(wrong)?;
        let (action, hits) = rest.split_once('@').unwrap_or((rest, "1"));
        let action = match action {
            "kill" => Action::Kill,
            "error" => Action::Error,
            "bug" => Action::Bug,
            _ => return Err(wrong()),
        };
        let hits_left = hits.parse().map_err(|_| wrong())?;
        points.insert(name.to_owned(), Armed { action, hits_left });
    }
    ARMED.store(!points.is_empty(), Ordering::Relaxed);
    *POINTS.lock() = Some(points);
    Ok(())
}

/// Passes the point `name`: returns at once unless the harness armed it.
///
/// Errors: the injected one. Does not return where the point is armed to kill.
#[inline]
pub fn pass(name: &str) -> Result<()> {
    if ARMED.load(Ordering::Relaxed) { reached(name) } else { Ok(()) }
}

#[cold]
fn reached(name: &str) -> Result<()> {
    let mut points = POINTS.lock();
    let Some(armed) = points.as_mut().and_then(|points| points.get_mut(name)) else { return Ok(()) };
    let hit = armed.hits_left == 1;
    armed.hits_left = armed.hits_left.saturating_sub(1);
    match armed.action {
        Action::Kill if hit => {
            eprintln!("failpoint {name}: killed");
            std::process::abort()
        }
        Action::Error if hit => {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            Err(Error::io(format!("failpoint {name}"), full))
        }
        Action::Kill | Action::Error | Action::Bug => Ok(()),
    }
}

/// Whether the harness has put the known bug `name` back.
#[inline]
pub fn bug(name: &str) -> bool {
    ARMED.load(Ordering::Relaxed) && is_bug(name)
}

#[cold]
fn is_bug(name: &str) -> bool {
    let points = POINTS.lock();
    points.as_ref().and_then(|points| points.get(name)).is_some_and(|armed| armed.action == Action::Bug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_fails_on_the_hit_that_was_asked_for() {
        arm("core-test=error@2;core-bug=bug").expect("armed");
        assert!(pass("core-test").is_ok());
        assert_eq!(pass("core-test").expect_err("second hit").code(), "disk-full");
        assert!(pass("core-test").is_ok(), "once only");
        assert!(pass("core-other").is_ok());
        assert!(bug("core-bug") && !bug("core-test"));
        assert!(arm("nonsense").is_err());
    }
}
