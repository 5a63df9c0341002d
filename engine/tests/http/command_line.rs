//! The command line, each time in a process of its own: this test binary, called again with the arguments in its environment.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use thalweg::cli::{Exit, Failure, Program, RunArguments, Screen, StoppedStore, main_with_arguments};
use thalweg::http::Limits;
use thalweg_core::Error;
use thalweg_jobs::{Catalogue, JobSpec};

use crate::map_job::MapJob;
use crate::{loopback, start};

const ARGUMENTS: &str = "THALWEG_TEST_ARGUMENTS";
const SEPARATOR: &str = "\u{1f}";
/// Ends what the test harness prints before the command is reached.
const BEGIN: &str = "---- begin ----\n";

/// A program with the built-in operators that runs a job by saying its name.
struct Fake(Catalogue);

impl Program for Fake {
    fn catalogue(&self) -> &Catalogue {
        &self.0
    }

    fn run(&self, job: JobSpec, arguments: &RunArguments, screen: &Screen) -> Result<(), Failure> {
        screen.start_log();
        if let Some(token) = arguments.token()? {
            return screen.result(&format!("token {token}"));
        }
        tracing::info!(target: "thalweg", "begun");
        tracing::debug!(target: "thalweg", "in detail");
        if arguments.serve {
            return Err(Error::external("broker", "no answer").into());
        }
        screen.result(&format!("{} with {:?} workers", job.name, job.workers))
    }

    fn open_stopped(&self, _: &JobSpec, _: &Path, store: &str) -> Result<StoppedStore, Failure> {
        Err(Error::user("no-store", format!("no store {store}")).into())
    }
}

/// The command in the child process; in the parent there is nothing to test.
#[test]
fn child() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    print!("{BEGIN}");
    std::io::stdout().flush().expect("stdout");
    let words = std::iter::once("thalweg").chain(arguments.split(SEPARATOR)).map(Into::into);
    std::process::exit(main_with_arguments(&Fake(Catalogue::built_in()), words).code().into());
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn thalweg(arguments: &[&str], input: &str) -> Ran {
    let this = std::env::current_exe().expect("this test");
    let mut child = Command::new(this)
        .args(["--exact", "command_line::child", "--nocapture", "--test-threads=1"])
        .env(ARGUMENTS, arguments.join(SEPARATOR))
        .env_remove("THALWEG_ADDR")
        .env_remove("THALWEG_LOG")
        .env_remove("THALWEG_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("output");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let out = text(stdout);
    let (_, out) = out.split_once(BEGIN).expect("the command was reached");
    Ran { code: status.code().expect("a code"), out: out.to_owned(), err: text(stderr) }
}

fn check(line: &str, exit: Exit, out: &str, err: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let ran = thalweg(&words, "");
    assert_eq!(ran.code, i32::from(exit.code()), "{line}: {}{}", ran.out, ran.err);
    assert_eq!(ran.out, out, "{line}: {}", ran.err);
    assert!(ran.err.contains(err) && (!err.is_empty() || ran.err.is_empty()), "{line}: {:?}", ran.err);
}

const GOOD: &str = r#"
version = 1
[job]
name = "words"
workers = 1
[sources.numbers]
connector = "generator"
count = 10
[operators.counts]
uses = "count"
inputs = ["numbers"]
key = "key"
[sinks.out]
connector = "blackhole"
inputs = ["counts"]
"#;

#[test]
fn verbs_of_job_files() {
    let dir = std::env::temp_dir().join(format!("thalweg-job-files-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("text").to_owned()
    };
    let good = file("good.toml", GOOD);
    let bad = file("bad.toml", &GOOD.replace("\"numbers\"", "\"number\""));
    let valid = format!("{{\"file\":\"{good}\",\"valid\":true}}\n");
    check(&format!("validate {good}"), Exit::Done, &valid, "");
    check(&format!("validate {good} -o table"), Exit::Done, &format!("{good}: valid\n"), "");
    check(
        &format!("validate {good} {bad} -o table"),
        Exit::Usage,
        &format!("{good}: valid\n{bad}: invalid\n"),
        "bad.toml:11:",
    );
    check(&format!("run {bad}"), Exit::Usage, "", "bad.toml:11:");
    check(
        "validate /none.toml -o table",
        Exit::Usage,
        "/none.toml: invalid\n",
        "error[not-found]: reading the job file /none.toml",
    );
    check(&format!("run {good} -q"), Exit::Done, "words with Some(1) workers\n", "");
    check(&format!("run {good} -q --workers 3"), Exit::Done, "words with Some(3) workers\n", "");
    check(&format!("run {good}"), Exit::Done, "words with Some(1) workers\n", "begun");
    check(&format!("run {good} -v"), Exit::Done, "words with Some(1) workers\n", "in detail");
    check(&format!("run {good} -q --serve"), Exit::Failed, "", "error[broker]: no answer");
    let (token, empty) = (file("token", "secret\n"), file("empty", "\n"));
    check(&format!("run {good} -q --token-file {token}"), Exit::Done, "token secret\n", "");
    check(&format!("run {good} -q --token-file {empty}"), Exit::Usage, "", "error[empty-token]");
    check(&format!("run {good} -q --token-file {empty}.none"), Exit::Usage, "", "error[not-found]");
    let problems = thalweg(&["validate", &bad], "");
    assert!(problems.out.contains("\"line\":11,") && problems.out.ends_with("\"valid\":false}\n"), "{}", problems.out);
    for (arguments, part) in [
        (vec!["graph", &good], "{\"from\":\"numbers\",\"to\":\"counts\"}"),
        (vec!["graph", &good, "-o", "mermaid"], "flowchart LR\n"),
        (vec!["graph", &good, "-o", "dot"], "digraph job {\n"),
        (vec!["explain", &good], "\"job\":\"words\""),
        (vec!["explain", &good, "-o", "table"], "job words\n"),
        (vec!["schema"], "\"title\": \"Thalweg job\""),
    ] {
        let ran = thalweg(&arguments, "");
        assert!(ran.code == 0 && ran.out.contains(part), "{arguments:?}: {}{}", ran.out, ran.err);
    }
    check("nonsense", Exit::Usage, "", "unrecognized subcommand 'nonsense'");
    check("--version", Exit::Done, concat!("thalweg ", env!("CARGO_PKG_VERSION"), "\n"), "");
    std::fs::remove_dir_all(&dir).expect("remove");
}

#[test]
fn query_asks_a_running_job() {
    let server = start(&MapJob::new(), Limits { max_scan_entries: 10_000, ..Limits::default() });
    let addr = server.local_addr();
    let free = TcpListener::bind(loopback()).and_then(|listener| listener.local_addr()).expect("a free port");
    let all = "{\"key\":\"\",\"value\":0,\"epoch\":7}\n{\"key\":\"a\",\"value\":{\"count\":1},\"epoch\":7}\n";
    let table = "KEY       VALUE\na/b c?&+  2\nb         3\n";
    for (line, exit, out, err) in [
        ("query orders totals --limit 2", Exit::Done, all, "there are more than 2 entries"),
        ("query orders totals --limit 2 -q", Exit::Done, all, ""),
        ("query orders totals --from a/ --to c -o table --at committed", Exit::Done, table, ""),
        ("query orders totals none", Exit::Failed, "", "error[key-not-found]"),
        (
            "query orders other a",
            Exit::Failed,
            "",
            "error[store-not-found]: job orders has no store \"other\"; it has: totals",
        ),
        ("query other totals a", Exit::Failed, "", "error[job-not-found]"),
        ("query orders totals \u{1}", Exit::Usage, "", "error[bad-key]"),
        (
            "query orders busy a",
            Exit::Failed,
            "",
            "error[unavailable]: the owner's queue is full\n  help: it may pass; try again",
        ),
    ] {
        check(&format!("{line} --addr {addr}"), exit, out, err);
    }
    let every = thalweg(&["query", "orders", "totals", "--addr", &addr.to_string()], "");
    assert_eq!((every.out.lines().count(), every.err.as_str()), (6, ""), "{}", every.out);
    let ran = thalweg(&["query", "orders", "totals", "a/b c?&+", "--addr", &format!("http://{addr}/")], "");
    assert!(ran.out.starts_with("{\"key\":\"a/b c?&+\",\"value\":2,\"epoch\":7,\"age_ms\":"), "{}{}", ran.out, ran.err);
    check(&format!("query orders totals a --addr {free}"), Exit::Failed, "", "error[unreachable]");
    check("query orders totals a --addr ftp://x", Exit::Usage, "", "error[bad-address]");
}

#[test]
fn log_verbs() {
    let dir = std::env::temp_dir().join(format!("thalweg-command-line-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let log = dir.join("log");
    let place = |topic: &str| log.join(topic).to_str().expect("text").to_owned();
    let (root, lines, other) = (place(""), place("lines"), place("topics/lines"));
    for (arguments, input, exit, out, err) in [
        (vec!["log", "append", &lines, "--partitions", "2"], "one\ntwo", Exit::Done, "\"appended\":2", ""),
        (vec!["log", "append", &root, "--partition", "1"], "three\n", Exit::Done, "\"appended\":1", ""),
        (vec!["log", "append", &lines, "--partition", "2"], "x", Exit::Usage, "", "error[no-such-partition]"),
        (
            vec!["log", "ls", &root, "-o", "table"],
            "",
            Exit::Done,
            "TOPIC  PARTITION  FIRST  END\nlines  0          0      ",
            "",
        ),
        (vec!["log", "ls", &other], "", Exit::Done, "\"partition\":1,\"topic\":\"lines\"}", ""),
        (vec!["log", "read", &lines, "--limit", "1"], "", Exit::Done, "\"value\":\"one\"}\n", ""),
        (vec!["log", "read", &lines, "--from", "1", "-o", "table"], "", Exit::Done, "  -  two\n", ""),
        (vec!["log", "read", &other, "--partition", "1"], "", Exit::Done, "\"value\":\"three\"}\n", ""),
        (vec!["log", "read", &place("none")], "", Exit::Usage, "", "error[no-such-topic]"),
        (vec!["log", "append", "topic"], "x", Exit::Usage, "", "error[not-a-log]"),
        (vec!["log", "append", &format!("{}/x", dir.display())], "x", Exit::Failed, "", "error[not-a-log]"),
        (vec!["log", "read", "/nowhere/at/all"], "", Exit::Usage, "", "error[not-a-log]"),
    ] {
        let ran = thalweg(&arguments, input);
        assert_eq!(ran.code, i32::from(exit.code()), "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains(out) && ran.err.contains(err), "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(!out.ends_with('\n') || ran.out.lines().count() == 1, "{arguments:?}: {}", ran.out);
    }
    std::fs::remove_dir_all(&dir).expect("remove");
}
