//! One run of the real binary: started, watched, killed.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Binary;

/// The longest that a run of a trial may take before it is taken for stuck.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(1);

/// What `run` is told besides the job file.
#[derive(Clone, Debug)]
pub struct RunFlags {
    /// The data folder.
    pub data: PathBuf,
    /// Worker threads.
    pub workers: u32,
    /// Whether to serve HTTP on a free port.
    pub http: bool,
    /// Whether to go on serving after the end of the input.
    pub serve: bool,
    /// The run to repeat.
    pub bindings: Option<PathBuf>,
    /// What `THALWEG_FAILPOINTS` says.
    pub failpoints: String,
}

impl RunFlags {
    /// One worker, no HTTP; bindings are kept where none are repeated.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), workers: 1, http: false, serve: false, bindings: None, failpoints: String::new() }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By a signal: the harness or a failpoint.
    Killed,
    /// Not by itself: it was stuck.
    Stuck,
}

/// A running binary.
pub struct Process {
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Process {
    /// Starts `run job` with its standard error in the file `log`.
    pub fn start(binary: &Binary, job: &Path, flags: &RunFlags, log: &Path) -> Self {
        let mut command = Command::new(binary.path());
        command.arg("run").arg(job).arg("--data").arg(&flags.data).args(["--workers", &flags.workers.to_string()]);
        command.args(["--http", if flags.http { "127.0.0.1:0" } else { "none" }]);
        match &flags.bindings {
            Some(bindings) => command.arg("--bindings").arg(bindings),
            None => command.arg("--keep-bindings"),
        };
        if flags.serve {
            command.arg("--serve");
        }
        if !flags.failpoints.is_empty() {
            command.env("THALWEG_FAILPOINTS", &flags.failpoints);
        }
        Self::spawn(command, log)
    }

    /// Starts any command line of the binary.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let stderr = File::create(log).expect("a file for the log of a run");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        Self { child, log: log.to_owned(), started: Instant::now() }
    }

    /// The file with its log.
    pub fn log_path(&self) -> PathBuf {
        self.log.clone()
    }

    /// What it has written to standard error.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How long ago it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<Ended> {
        self.child.try_wait().expect("a child can be waited for").map(outcome)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Ended {
        self.wait_until(|_| false).expect("nothing else ends the wait")
    }

    /// Waits for its end, at most until this long after its start; nothing where it still runs then.
    pub fn wait_for(&mut self, since_start: Duration) -> Option<Ended> {
        let until = self.started + since_start;
        self.wait_until(|_| Instant::now() >= until)
    }

    /// Waits until its log holds a text; the end of the process before that is returned as an error.
    pub fn wait_for_log(&mut self, text: &str) -> Result<(), String> {
        match self.wait_until(|process| process.log().contains(text)) {
            None => Ok(()),
            Some(ended) => Err(format!("it ended ({ended:?}) before it said {text:?}:\n{}", self.log())),
        }
    }

    /// Where it serves HTTP.
    pub fn address(&mut self) -> Result<SocketAddr, String> {
        self.wait_until(|process| address_in(&process.log).is_some());
        address_in(&self.log).ok_or_else(|| format!("it does not serve HTTP:\n{}", self.log()))
    }

    /// Kills it as a power failure would: no handler, no destructor.
    pub fn kill(&mut self) -> Ended {
        let _ = self.child.kill();
        outcome(self.child.wait().expect("a child can be waited for"))
    }

    /// Asks it to stop, as Ctrl-C does.
    pub fn interrupt(&mut self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "a running child takes signals");
    }

    fn wait_until(&mut self, condition: impl Fn(&Self) -> bool) -> Option<Ended> {
        loop {
            if let Some(ended) = self.ended() {
                return Some(ended);
            }
            if condition(self) {
                return None;
            }
            if self.started.elapsed() > LIMIT {
                self.kill();
                return Some(Ended::Stuck);
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn outcome(status: ExitStatus) -> Ended {
    status.code().map_or(Ended::Killed, Ended::Code)
}

/// The address that a run says in its log that it serves.
pub(crate) fn address_in(log: &Path) -> Option<SocketAddr> {
    const SAYS: &str = "serving http://";
    let log = std::fs::read_to_string(log).ok()?;
    let rest = &log[log.find(SAYS)? + SAYS.len()..];
    rest.split_once('\n')?.0.trim().parse().ok()
}
