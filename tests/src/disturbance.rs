//! What is done to a job and around it while it runs.

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::kafka::Broker;

/// Done in a thread of its own, which is given the job's process id.
#[derive(Clone)]
pub struct Disturbance {
    name: &'static str,
    act: Arc<dyn Fn(u32) + Send + Sync>,
}

impl Disturbance {
    /// With a name for reports.
    pub fn new(name: &'static str, act: impl Fn(u32) + Send + Sync + 'static) -> Self {
        Self { name, act: Arc::new(act) }
    }

    /// Nothing but what goes on anyhow.
    pub fn none() -> Self {
        Self::new("none", |_| {})
    }

    /// After some time the process is stopped where it is, for some time.
    pub fn standstill(after: Duration, time: Duration) -> Self {
        Self::new("standstill", move |process| {
            std::thread::sleep(after);
            signal(process, Signal::STOP);
            std::thread::sleep(time);
            signal(process, Signal::CONT);
        })
    }

    /// Does something while a process stands still.
    pub fn frozen(process: u32, act: impl FnOnce()) {
        signal(process, Signal::STOP);
        act();
        signal(process, Signal::CONT);
    }

    /// After some time the broker is killed; it is started again some time later.
    pub fn broker_killed(broker: &Arc<Mutex<Broker>>, after: Duration, away: Duration) -> Self {
        let broker = Arc::clone(broker);
        Self::new("broker killed", move |_| {
            std::thread::sleep(after);
            let mut broker = broker.lock().expect("nobody panics while it is locked");
            broker.kill();
            std::thread::sleep(away);
            broker.start_again();
        })
    }

    /// After some time the broker is stopped where it is, for some time.
    pub fn broker_paused(broker: &Arc<Mutex<Broker>>, after: Duration, time: Duration) -> Self {
        let broker = Arc::clone(broker);
        Self::new("broker paused", move |_| {
            std::thread::sleep(after);
            let broker = broker.lock().expect("nobody panics while it is locked");
            broker.pause();
            std::thread::sleep(time);
            broker.resume();
        })
    }

    /// Does it to a process.
    pub(crate) fn act(&self, process: u32) {
        (self.act)(process);
    }
}

impl Debug for Disturbance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The process may have come to its end already: it is not waited for before the disturbance is over.
fn signal(process: u32, signal: Signal) {
    let id = Pid::from_raw(process.cast_signed()).expect("a process has a number");
    let _ = kill_process(id, signal);
}
