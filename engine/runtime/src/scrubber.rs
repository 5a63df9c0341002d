//! Reads all state again, slowly, and compares it with its digests: damage is found before it is needed.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use thalweg_core::{Error, Result};
use thalweg_operators::Failure;
use thalweg_state::Backend;

use crate::thread::spawn;

/// Bytes that are read in a second: a small part of any disk, and a gigabyte in about two minutes.
const BYTES_PER_SECOND: u64 = 8 << 20;
/// From the end of one pass to the next.
const PAUSE: Duration = Duration::from_secs(60 * 60);

/// A thread that scrubs until it is dropped.
pub(crate) struct Scrubber {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    /// Begins the first pass after the first pause: a start has enough to do. Damage fails the task.
    pub(crate) fn start(backend: Arc<Backend>, stores: Vec<String>, failure: Arc<Failure>) -> Result<Self> {
        let (stop, stopped) = channel::<()>();
        let over = || Error::internal("scrub-over", "the task is over");
        let pause = move |pause: Duration| match stopped.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(over()),
        };
        let thread = spawn("scrubber".to_owned(), move || {
            while pause(PAUSE).is_ok() {
                for (store, partition) in
                    stores.iter().flat_map(|store| backend.partitions().all().map(move |p| (store, p)))
                {
                    let pace = |bytes: u64| pause(Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64));
                    match backend.scrub(store, partition, pace) {
                        Ok(_) => {}
                        Err(error) if error.code() == "scrub-over" => return,
                        Err(error) => return failure.fail(error.context("scrubbing the state")),
                    }
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has aborted the process.
            let _ = thread.join();
        }
    }
}
