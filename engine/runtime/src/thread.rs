//! Threads of the engine.

use std::thread::{self, JoinHandle};

use thalweg_core::{Error, Result};

/// A panic of the engine itself ends the process: it is the fault domain.
pub(crate) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "a thread of the engine has panicked: the process stops; started again, the job goes on where it was"
            );
            std::process::abort();
        }
    }
}

/// Starts a thread of the engine; a panic in it ends the process.
pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let guarded = move || {
        let _guard = AbortOnPanic;
        body();
    };
    thread::Builder::new().name(name).spawn(guarded).map_err(|error| Error::io("starting a thread", error))
}
