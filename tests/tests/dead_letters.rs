//! `dlq` before the real binary: what is set aside is listed, dropped, and read once more exactly once.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value as Json, json};
use thalweg_tests::{Binary, Client, Ended, Folder, Process, RunFlags, until};

/// Bad lines of the input.
const BAD: u64 = 40;

/// A job that counts lines, all of them bad for its format but one.
struct Counting {
    folder: Folder,
    runs: u32,
}

/// How a command ended, and its results.
struct Said {
    code: Option<i32>,
    lines: Vec<Json>,
    err: String,
}

impl Counting {
    fn new() -> Self {
        let counting = Self { folder: Folder::new(), runs: 0 };
        let bad = (0..BAD).map(|line| format!("bad {line}\n")).collect::<String>();
        counting.folder.write("in.txt", format!("{{\"line\":\"good\"}}\n{bad}"));
        counting.write("json", "");
        counting
    }

    fn write(&self, format: &str, follow: &str) {
        let toml = format!(
            r#"version = 1
[job]
name = "counting"
partitions = 3
on_error = "dead-letter"
[job.epoch]
interval = "5ms"
[sources.in]
connector = "file"
path = "in.txt"
format = "{format}"
{follow}
[operators.lines]
uses = "count"
inputs = ["in"]
key = "line"
as = "n"
[sinks.out]
connector = "file"
path = "out.jsonl"
single = true
inputs = ["lines"]
"#
        );
        self.folder.write("job.toml", toml);
    }

    fn start(&mut self, http: bool) -> Process {
        self.runs += 1;
        let flags = RunFlags { http, ..RunFlags::new(self.folder.join("data")) };
        let log = self.folder.join(&format!("run-{}.log", self.runs));
        Process::start(&Binary::thalweg(), &self.folder.join("job.toml"), &flags, &log)
    }

    /// A run to the end of the input.
    fn run(&mut self) {
        let mut process = self.start(false);
        assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
    }

    /// `dlq`, with the job's folder where no address is given.
    fn dlq(&self, words: &[&str], at: Option<&str>, failpoints: &str) -> Said {
        let mut command = Command::new(Binary::thalweg().path());
        command.arg("dlq").args(words).args(["-o", "json"]).env_remove("THALWEG_TOKEN");
        match at {
            Some(addr) => command.args(["--addr", addr]),
            None => command.arg("--data").arg(self.folder.join("data")),
        };
        let output = command.env("THALWEG_FAILPOINTS", failpoints).output().expect("the binary starts");
        let lines = String::from_utf8(output.stdout).expect("text");
        Said {
            code: output.status.code(),
            lines: lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The offsets on which nothing is decided.
    fn listed(&self, at: Option<&str>) -> Vec<u64> {
        let said = self.dlq(&["ls", "counting", "--limit", "1000"], at, "");
        assert_eq!(said.code, Some(0), "{}", said.err);
        said.lines.iter().map(|letter| letter["offset"].as_u64().expect("an offset")).collect()
    }

    /// The last count of each line.
    fn counts(&self) -> BTreeMap<String, u64> {
        let text = std::fs::read_to_string(self.folder.join("out.jsonl")).unwrap_or_default();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        rows.filter_map(|row| Some((row["line"].as_str()?.to_owned(), row["n"].as_u64()?))).collect()
    }
}

#[test]
fn a_job_may_set_nothing_aside_for_a_while() {
    let mut counting = Counting::new();
    counting.run();
    counting.folder.write("job.toml", {
        let toml = std::fs::read_to_string(counting.folder.join("job.toml")).expect("the job file");
        toml.replace("dead-letter", "drop")
    });
    counting.run();
    counting.write("json", "");
    check(&counting, &["retry", "counting", "0"], 0, r#""retried":1"#);
    counting.run();
    assert_eq!(counting.listed(None), (1..=BAD).collect::<Vec<_>>());
}

fn check(counting: &Counting, words: &[&str], code: i32, part: &str) {
    let said = counting.dlq(words, None, "");
    let all = format!("{}{}", said.lines.iter().map(Json::to_string).collect::<String>(), said.err);
    assert_eq!(said.code, Some(code), "{words:?}: {all}");
    assert!(all.contains(part), "{words:?}: {all} does not contain {part}");
}

#[test]
fn what_is_set_aside_is_listed_shown_dropped_and_retried() {
    let mut counting = Counting::new();
    counting.run();
    assert_eq!(counting.listed(None), (0..BAD).collect::<Vec<_>>());
    for (words, code, part) in [
        (&["ls", "counting", "--limit", "1"][..], 0, r#""start":"bad 0""#),
        (&["ls", "counting", "--node", "lines"], 0, ""),
        (&["show", "counting", "3"], 0, r#""value":"bad 3""#),
        (&["show", "counting", "3"], 0, r#""read_at":{"offset":34,"partition":"in.txt","topic":"in"}"#),
        (&["show", "counting", "99"], 1, "there is no dead letter 99"),
        (&["drop", "counting", "0", "2"], 0, r#"{"dropped":2,"left":0}"#),
        (&["drop", "counting", "1", "2"], 1, "dead letter 2 is dropped already"),
        (&["show", "counting", "2"], 0, r#""decision":"dropped""#),
        (&["retry", "counting", "1"], 0, r#"{"left":0,"retried":1}"#),
        (&["retry", "counting", "1"], 1, "dead letter 1 is retried already"),
        (&["ls", "other"], 1, "holds no job other"),
        (&["retry", "counting"], 2, "required"),
    ] {
        check(&counting, words, code, part);
    }
    assert_eq!(counting.listed(None), (3..BAD).collect::<Vec<_>>());
    // The format is what it was: the record fails again, and is a new dead letter that names the old one.
    counting.run();
    check(&counting, &["show", "counting", &BAD.to_string()], 0, r#""retry_of":1"#);
    check(
        &counting,
        &["show", "counting", &BAD.to_string()],
        0,
        r#""read_at":{"offset":22,"partition":"in.txt","topic":"in"}"#,
    );
    assert_eq!(counting.counts(), BTreeMap::from([("good".to_owned(), 1)]));
    // Once the job is mended, it is read.
    counting.write("lines", "");
    check(&counting, &["retry", "counting", "--all"], 0, &format!(r#""retried":{}"#, BAD - 2));
    counting.run();
    let read = (1..BAD).filter(|line| *line != 2).map(|line| (format!("bad {line}"), 1));
    assert_eq!(counting.counts(), read.chain([("good".to_owned(), 1)]).collect());
    assert_eq!(counting.listed(None), Vec::<u64>::new());
}

#[test]
fn a_crash_of_a_retry_doubles_and_loses_nothing() {
    for point in ["log-append", "log-sync", "log-commit"] {
        for action in ["kill", "error"] {
            let mut counting = Counting::new();
            counting.run();
            let failed = counting.dlq(&["retry", "counting", "--all"], None, &format!("{point}={action}@1"));
            assert_ne!(failed.code, Some(0), "{point}={action}");
            let again = counting.dlq(&["retry", "counting", "--all"], None, "");
            assert_eq!(again.code, Some(0), "{point}={action}: {}", again.err);
            assert_eq!(counting.listed(None), Vec::<u64>::new(), "{point}={action}");
            counting.write("lines", "");
            counting.run();
            let expected = (0..BAD).map(|line| (format!("bad {line}"), 1)).chain([("good".to_owned(), 1)]).collect();
            assert_eq!(counting.counts(), expected, "{point}={action}");
        }
    }
}

#[test]
fn a_running_job_answers_and_reads_what_is_retried() {
    let mut counting = Counting::new();
    counting.write("json", "follow = true");
    let mut process = counting.start(true);
    let address = process.address().expect("it serves");
    let (client, at) = (Client::new(address), address.to_string());
    let at = Some(at.as_str());
    until("every bad line is set aside", || counting.listed(at).len() as u64 == BAD);
    let status = client.get("/v1/jobs/counting").expect("an answer");
    assert_eq!(status.json["dead_letters"], json!(BAD));
    let metrics = client.get("/metrics").expect("an answer").text;
    let counter = format!(r#"reason="dead-letter"}} {BAD}"#);
    assert!(metrics.contains(&counter), "{metrics}");
    assert_eq!(counting.dlq(&["retry", "counting", "5"], at, "").lines, [json!({ "retried": 1, "left": 0 })]);
    assert_eq!(counting.dlq(&["drop", "counting", "6"], at, "").lines, [json!({ "dropped": 1, "left": 0 })]);
    until("it has failed again", || counting.listed(at).last() == Some(&BAD));
    let shown = counting.dlq(&["show", "counting", &BAD.to_string()], at, "").lines.remove(0);
    assert_eq!((&shown["retry_of"], &shown["value"]), (&json!(5), &json!("bad 5")));
    let route = "/v1/jobs/counting/dead-letters";
    for (path, body, status, code) in [
        ("/retry", json!({ "offsets": [5] }), 409, "decided"),
        ("/drop", json!({ "offsets": [999] }), 404, "no-dead-letter"),
        ("/drop", json!({ "offsets": [] }), 400, "bad-body"),
        ("/drop", json!({ "all": true, "offsets": [1] }), 400, "bad-body"),
    ] {
        let answer = client.post(&format!("{route}{path}"), &body).expect("an answer");
        assert_eq!((answer.status, &answer.json["code"]), (status, &json!(code)), "{path} {body}: {}", answer.text);
    }
    for (target, status, part) in [
        ("?limit=2", 200, r#""cursor":"2""#),
        ("?limit=2&cursor=4", 200, r#""offset":7"#),
        ("?node=lines", 200, r#"{"cursor":null,"dead_letters":[]}"#),
        ("?limit=0", 400, "bad-parameter"),
        ("/5", 200, r#""decision":"retried""#),
        ("/x", 400, "bad-parameter"),
        ("/999", 404, "no-dead-letter"),
    ] {
        let answer = client.get(&format!("{route}{target}")).expect("an answer");
        assert_eq!(answer.status, status, "{target}: {}", answer.text);
        assert!(answer.text.contains(part), "{target}: {}", answer.text);
    }
    let running = counting.dlq(&["drop", "counting", "--all"], None, "");
    assert!(running.code == Some(1) && running.err.contains("runs"), "{}", running.err);
    process.interrupt();
    assert_eq!(process.wait(), Ended::Code(0), "{}", process.log());
}
