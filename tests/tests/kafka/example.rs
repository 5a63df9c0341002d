//! The example with Kafka: one command starts a broker, fills a topic, runs the job, and asks it.

use std::path::Path;
use std::process::{Command, Stdio};

use thalweg_tests::Binary;

#[test]
fn the_example_runs_by_its_one_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above");
    let done = Command::new("scripts/kafka-demo")
        .arg("--once")
        .current_dir(root)
        .env("THALWEG_BINARY", Binary::thalweg().path())
        .stdin(Stdio::null())
        .output()
        .expect("the script starts");
    let (shown, said) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{shown}\n{said}");
    // Of the 508,239 flights so many left from Chicago O'Hare.
    let answer = shown.lines().find(|line| line.contains("\"key\":\"ORD\""));
    assert!(answer.is_some_and(|line| line.contains("\"flights\":27692")), "{shown}\n{said}");
    assert!(shown.lines().any(|line| line.contains("\"origin\":") && line.contains("\"flights\":")), "{shown}");
    let group: Vec<_> = shown.lines().filter(|line| line.starts_with("thalweg-delays")).collect();
    assert_eq!(group.len(), 4, "the job's positions are in its consumer group: {shown}\n{said}");
}
