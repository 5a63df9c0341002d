//! Runs the job as a user would.

use std::path::Path;
use std::process::Command;

#[test]
fn words_are_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("text.txt");
    std::fs::copy(text, dir.path().join("text.txt")).expect("the example's text is there");
    let output = Command::new(env!("CARGO_BIN_EXE_wordcount"))
        .args(["--http", "none", "--data", "data"])
        .current_dir(dir.path())
        .output()
        .expect("the job's binary starts");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let files = std::fs::read_dir(dir.path().join("wordcount-out")).expect("the sink's folder");
    let mut lines = Vec::new();
    let files = files.map(|file| file.expect("a file").path());
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "jsonl")) {
        let text = std::fs::read_to_string(file).expect("a text");
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort();
    // The text is one epoch, so each word is written once.
    let expected = [
        r#"["a",2]"#,
        r#"["deepest",2]"#,
        r#"["fastest",1]"#,
        r#"["in",1]"#,
        r#"["is",2]"#,
        r#"["line",1]"#,
        r#"["of",1]"#,
        r#"["river",1]"#,
        r#"["thalweg",1]"#,
        r#"["the",4]"#,
        r#"["water",3]"#,
    ];
    assert_eq!(lines, expected, "{log}");
}
