//! Runs the job as a user would.

use std::path::Path;
use std::process::Command;

fn run(job: &Path, data: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_orders"))
        .arg("run")
        .arg(job)
        .args(["--http", "none", "--data"])
        .arg(data)
        .output()
        .expect("the job's binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Asks the state that the job has left behind.
fn query(key: &str, data: &Path) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_orders"))
        .args(["query", "orders", "totals", key, "-o", "json", "--data"])
        .arg(data)
        .output()
        .expect("the job's binary starts");
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

fn copy(into: &Path) {
    for file in ["orders.toml", "orders.csv"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        std::fs::copy(&from, into.join(file)).expect("the example's files are there");
    }
}

#[test]
fn totals_are_written_once_whatever_is_started_again() {
    let dir = tempfile::tempdir().expect("a folder");
    copy(dir.path());
    for _ in 0..2 {
        let (code, log) = run(&dir.path().join("orders.toml"), &dir.path().join("data"));
        assert_eq!(code, Some(0), "{log}");
        let output = std::fs::read_to_string(dir.path().join("orders-out.jsonl")).expect("the sink's file");
        let mut lines: Vec<&str> = output.lines().collect();
        lines.sort_unstable();
        // All orders are in one epoch, so each customer is reported once.
        let expected = [
            r#"{"customer":"alice","orders":3,"cents":12401,"over":true}"#,
            r#"{"customer":"bob","orders":2,"cents":750,"over":false}"#,
            r#"{"customer":"carol","orders":1,"cents":120,"over":false}"#,
        ];
        assert_eq!(lines, expected, "{log}");

        let (code, answer) = query("alice", &dir.path().join("data"));
        assert_eq!(code, Some(0), "{answer}");
        assert!(answer.starts_with(r#"{"key":"alice","value":{"orders":3,"cents":12401},"epoch":1,"#), "{answer}");
        assert!(answer.trim_end().ends_with(r#""role":"stopped"}"#), "{answer}");
        let (code, answer) = query("dave", &dir.path().join("data"));
        assert!(code == Some(1) && answer.contains("holds no key"), "{answer}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_its_name() {
    let dir = tempfile::tempdir().expect("a folder");
    copy(dir.path());
    let job = dir.path().join("orders.toml");
    let text = std::fs::read_to_string(&job).expect("the job file");
    std::fs::write(&job, text.replace("limit = 10_000", "limt = 10_000")).expect("written");
    let (code, log) = run(&job, &dir.path().join("data"));
    assert_ne!(code, Some(0));
    assert!(log.contains("totals") && log.contains("limt"), "{log}");
}
