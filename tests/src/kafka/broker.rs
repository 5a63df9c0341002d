//! One broker: started, killed, paused, started again.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::installation::Installation;
use super::metadata::live_brokers;
use super::others::Others;
use super::ports::{chance, free_ports};
use super::secrets::Secrets;
use super::settings::{BrokerSettings, Node, render};
use super::tools::Tools;
use crate::{Folder, keeper};

/// The longest that a broker may take to start or to stop before it is taken for stuck.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at a broker.
const LOOK: Duration = Duration::from_millis(20);
/// How often a start is tried where somebody else takes a port.
const TRIES: usize = 4;
/// What is shown of the log of a broker that does not start.
const SHOWN_LINES: usize = 60;

/// A broker in a folder of its own, at ports of its own. It ends when this is dropped, and when the tests end.
pub struct Broker {
    folder: Folder,
    node: Node,
    nodes: Vec<Node>,
    secrets: Option<Secrets>,
    child: Option<Child>,
}

/// Why a broker did not start.
struct Failed {
    port_taken: bool,
    report: String,
}

impl Broker {
    /// Starts one, and waits until it answers.
    ///
    /// Panics with the end of its log where it does not start.
    pub fn start(settings: &BrokerSettings) -> Self {
        Self::start_all(1, settings).pop().expect("one broker")
    }

    /// The broker that all tests of this process share: for tests that neither kill nor pause it nor need settings of their own.
    ///
    /// Topics, groups and transactional ids get names of their own, by [`Broker::unique`].
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<(Broker, Child)> = LazyLock::new(|| {
            let broker = Broker::start(&BrokerSettings::new());
            let cleaner = clean_at_the_end(&broker.folder);
            (broker, cleaner)
        });
        &SHARED.0
    }

    /// Starts brokers that are one cluster; they vote for a controller among them.
    pub(super) fn start_all(count: u32, settings: &BrokerSettings) -> Vec<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::try_start_all(count, settings) {
                Ok(brokers) => return brokers,
                Err(failed) if failed.port_taken && tries < TRIES => {}
                Err(failed) => panic!("{}", failed.report),
            }
        }
    }

    fn try_start_all(count: u32, settings: &BrokerSettings) -> Result<Vec<Self>, Failed> {
        let place = |id| {
            let [clients, controller, secure] = free_ports();
            Node { id, clients, controller, secure }
        };
        let nodes: Vec<Node> = (1..=count).map(place).collect();
        let mut brokers: Vec<Self> = nodes.iter().map(|node| Self::lay_out(*node, &nodes, settings)).collect();
        brokers.iter_mut().for_each(Self::spawn);
        brokers.iter_mut().try_for_each(|broker| broker.wait_until_ready(count))?;
        Ok(brokers)
    }

    /// The folder of a node that has never run.
    fn lay_out(node: Node, nodes: &[Node], settings: &BrokerSettings) -> Self {
        let folder = Folder::with_prefix("thalweg-kafka-");
        let secrets = settings.is_secured().then(|| Secrets::make(folder.path()));
        let log = folder.join("log");
        folder.write("server.properties", render(settings, node, nodes, &log, secrets.as_ref()));
        let formatted = Installation::get().formatted();
        let copy = |name: &str| fs::read(formatted.join(name)).expect("a formatted log folder in the cache");
        folder.write("log/bootstrap.checkpoint", copy("bootstrap.checkpoint"));
        let properties = String::from_utf8(copy("meta.properties")).expect("properties are text");
        folder.write("log/meta.properties", meta_properties(&properties, node.id));
        Self { folder, node, nodes: nodes.to_vec(), secrets, child: None }
    }

    fn spawn(&mut self) {
        assert!(self.child.is_none(), "broker {} runs already", self.node.id);
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a temporary file");
        let mut command = Installation::get().java("kafka.Kafka", "info");
        command.arg(self.folder.join("server.properties")).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let child = keeper::spawn(command);
        self.child = Some(child.unwrap_or_else(|error| panic!("{:?}: {error}; see scripts/setup --tests", "java")));
    }

    fn wait_until_ready(&mut self, brokers: u32) -> Result<(), Failed> {
        let began = Instant::now();
        let what = loop {
            if let Some(status) = self.running().try_wait().expect("a child can be waited for") {
                self.child = None;
                break format!("ended with {status}");
            }
            if live_brokers(self.node.clients).is_ok_and(|alive| alive >= brokers) {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                break format!("does not answer after {} s", LIMIT.as_secs());
            }
            std::thread::sleep(LOOK);
        };
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        Err(Failed {
            port_taken: log.contains("Address already in use"),
            report: format!("broker {} {what}; the end of its log:\n{end}", self.node.id),
        })
    }

    /// Where clients connect: `host:port`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.node.clients)
    }

    /// Where clients connect with TLS and sign on, and with what.
    ///
    /// Panics where the broker was started without [`BrokerSettings::secured`].
    pub fn secured(&self) -> (String, &Secrets) {
        let secrets = self.secrets.as_ref().expect("the broker has a secured listener");
        (format!("127.0.0.1:{}", self.node.secure), secrets)
    }

    /// Its number in the cluster, from 1.
    pub fn id(&self) -> u32 {
        self.node.id
    }

    /// A client that is not the engine's, for this broker.
    pub fn client(&self) -> Client {
        Client::new(&self.bootstrap(), &BTreeMap::new())
    }

    /// The same at its secured listener.
    pub fn secured_client(&self) -> Client {
        let (bootstrap, secrets) = self.secured();
        Client::new(&bootstrap, &secrets.client_properties())
    }

    /// Kafka's own programs, for this broker.
    pub fn tools(&self) -> Tools {
        Tools::new(self.bootstrap())
    }

    /// kcat and Python, for this broker.
    pub fn others(&self) -> Others {
        Others::new(self.bootstrap())
    }

    /// Kafka's own programs at its secured listener.
    pub fn secured_tools(&self) -> Tools {
        let (bootstrap, secrets) = self.secured();
        let properties = secrets.java_properties();
        let text = properties.iter().fold(String::new(), |text, (name, value)| format!("{text}{name}={value}\n"));
        self.folder.write("client.properties", text);
        Tools::with_properties(bootstrap, self.folder.join("client.properties"))
    }

    /// A name that nobody else uses: for topics, groups and transactional ids on a shared broker.
    pub fn unique(prefix: &str) -> String {
        static GIVEN: AtomicU64 = AtomicU64::new(0);
        format!("{prefix}-{}-{}", std::process::id(), GIVEN.fetch_add(1, Ordering::Relaxed))
    }

    /// The folder with the segments of its topics.
    pub fn log_folder(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What it has said, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("broker.log")
    }

    /// Whether it answers a question within two seconds.
    pub fn answers(&self) -> bool {
        live_brokers(self.node.clients).is_ok()
    }

    /// Kills it as a power failure would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a broker that runs");
        let _ = child.kill();
        child.wait().expect("a child can be waited for");
    }

    /// Stops it in order: it hands over what it leads, and writes what it has.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let began = Instant::now();
        while self.running().try_wait().expect("a child can be waited for").is_none() {
            assert!(began.elapsed() < LIMIT, "broker {} does not stop:\n{}", self.node.id, self.log());
            std::thread::sleep(LOOK);
        }
        self.child = None;
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop), in the same folder at the same ports, and waits until it
    /// answers.
    pub fn start_again(&mut self) {
        self.start_without_waiting();
        if let Err(failed) = self.wait_until_ready(1) {
            panic!("{}", failed.report);
        }
    }

    /// Starts it again, and does not wait: for tests of what clients do in between.
    pub fn start_without_waiting(&mut self) {
        self.spawn();
    }

    /// Stops the process where it is, as a machine that hangs: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        // Its threads stop one by one, each when it next looks.
        let began = Instant::now();
        while !self.is_paused() {
            assert!(began.elapsed() < LIMIT, "broker {} does not pause", self.node.id);
            std::thread::sleep(LOOK);
        }
    }

    /// Whether all of its threads are stopped.
    fn is_paused(&self) -> bool {
        let pid = self.child.as_ref().expect("a broker that runs").id();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("a process that was not waited for");
        let mut states = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        // The name in parentheses may hold anything; the state is behind it.
        states.all(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The ports at which the brokers of its cluster listen for clients.
    pub(super) fn peers(&self) -> impl Iterator<Item = u16> {
        self.nodes.iter().map(|node| node.clients)
    }

    fn running(&mut self) -> &mut Child {
        self.child.as_mut().expect("a broker that runs")
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a broker that runs");
        kill_process(Pid::from_child(child), signal).expect("a child that was not waited for takes signals");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            println!("broker {} left its log in {}", self.node.id, self.folder.keep().display());
        }
    }
}

/// The identity of a node in a log folder that was formatted for another.
fn meta_properties(formatted: &str, node: u32) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some(("node.id", _)) => format!("node.id={node}\n"),
        // 128 bits in base 64 without padding; of the last character two bits count.
        Some(("directory.id", _)) => format!("directory.id=thalwegtest{:010}A\n", chance() % 10_000_000_000),
        _ => format!("{line}\n"),
    };
    formatted.lines().map(line).collect()
}

/// Deletes a folder when this process has ended. Nothing is dropped at the end of a process: its last pipe is closed, that is all.
fn clean_at_the_end(folder: &Folder) -> Child {
    // Ctrl-C reaches all processes of the terminal. The second try: the broker may have written while it was killed.
    const CLEAN: &str = "trap '' INT TERM HUP; cat >/dev/null; rm -rf -- \"$1\" || { sleep 1; rm -rf -- \"$1\"; }";
    let mut command = Command::new("sh");
    command.args(["-c", CLEAN, "sh"]).arg(folder.path()).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("a shell can be started")
}
