//! A child process that goes on until it is no longer needed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;

use crate::child::{Task, command};
use crate::http::{Http, free_addr, until_ready};

/// A running job; dropping it kills it.
pub(crate) struct Running {
    child: Child,
    pub(crate) addr: SocketAddr,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts a task that serves HTTP.
    pub(crate) fn task(task: &Task, data: &Path) -> Result<Self, String> {
        let addr = free_addr();
        Self::start(command(task, data, &addr.to_string()), addr)
    }

    /// Starts a command that serves HTTP at `addr`.
    pub(crate) fn start(mut command: Command, addr: SocketAddr) -> Result<Self, String> {
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Ok(Self { child, addr, lines })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ready(&self) -> Result<Http, String> {
        until_ready(self.addr)
    }

    /// What the child says next.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> Result<T, String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).map_err(|error| error.to_string())?;
        serde_json::from_str(&line).map_err(|error| format!("the process said {line:?}: {error}"))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // Where it has ended already there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
