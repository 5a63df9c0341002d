//! SIGINT and SIGTERM: the first one asks for a last checkpoint, the second one stops at once.

use std::thread;

use thalweg_core::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request to stop that came from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// Ctrl-C.
    Interrupt,
    /// A supervisor.
    Terminate,
}

impl StopSignal {
    /// The code of a process that such a signal ended, as shells count: 128 and the signal's number.
    pub fn exit_code(self) -> i32 {
        match self {
            StopSignal::Interrupt => 130,
            StopSignal::Terminate => 143,
        }
    }
}

/// Calls `stop` once, from a thread of its own, at the first SIGINT or SIGTERM. A second signal ends the process at once with
/// [`StopSignal::exit_code`], whatever `stop` is doing: what is committed is safe by then, and nothing else has to be.
///
/// Call it once in a process, before the work begins. Errors: `signals` where the operating system refuses.
pub fn on_stop(stop: impl FnOnce(StopSignal) + Send + 'static) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::external("signals", format!("watching for signals: {error}")).with_source(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    let watch = move || {
        let Some(first) = runtime.block_on(next(&mut interrupt, &mut terminate)) else { return };
        // The callback has a thread of its own, so that one that hangs does not keep the second signal from being heard.
        let caller = thread::Builder::new().name("stop".to_owned()).spawn(move || stop(first));
        if let Some(second) = runtime.block_on(next(&mut interrupt, &mut terminate)) {
            std::process::exit(second.exit_code());
        }
        drop(caller);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(failed)?;
    Ok(())
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> Option<StopSignal> {
    tokio::select! {
        got = interrupt.recv() => got.map(|()| StopSignal::Interrupt),
        got = terminate.recv() => got.map(|()| StopSignal::Terminate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::sync::mpsc;

    const CHILD: &str = "THALWEG_TEST_SIGNALS_CHILD";

    /// In the child process this is a program that never stops by itself.
    fn be_the_child() {
        let (send, receive) = mpsc::channel();
        on_stop(move |signal| send.send(signal).expect("the receiver waits")).expect("signals");
        println!("ready");
        println!("asked by {:?}", receive.recv().expect("a signal"));
        loop {
            std::thread::park();
        }
    }

    fn check(signals: [&str; 2], asked: &str, code: i32) {
        let this = std::env::current_exe().expect("this test");
        let name = "signals::tests::the_first_signal_asks_and_the_second_one_ends";
        let mut child = Command::new(this)
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut wait_for = |part: &str| {
            assert!(lines.any(|line| line.expect("text").contains(part)), "the child ended before {part:?}");
        };
        let pid = child.id().to_string();
        let kill = |signal: &str| {
            assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
        };
        wait_for("ready");
        kill(signals[0]);
        wait_for(asked);
        kill(signals[1]);
        assert_eq!(child.wait().expect("wait").code(), Some(code));
    }

    #[test]
    fn the_first_signal_asks_and_the_second_one_ends() {
        if std::env::var_os(CHILD).is_some() {
            return be_the_child();
        }
        check(["-INT", "-INT"], "asked by Interrupt", 130);
        check(["-TERM", "-TERM"], "asked by Terminate", 143);
        check(["-INT", "-TERM"], "asked by Interrupt", 143);
    }
}
