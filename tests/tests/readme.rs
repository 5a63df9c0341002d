//! Runs what the README and the pages in docs/ say, in a copy of the folders that they name.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The address that the README shows.
const SHOWN: &str = "127.0.0.1:7171";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The `thalweg` that was built beside this test.
fn thalweg() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let path = own.ancestors().nth(2).expect("tests are two folders below the profile's").join("thalweg");
    assert!(path.exists(), "{} is missing; build it first: cargo build --release -p thalweg", path.display());
    path
}

/// A copy of what the README's commands touch.
fn checkout() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
            let entry = entry.expect("an entry");
            let target = to.join(entry.file_name());
            match entry.file_type().expect("a type").is_dir() {
                true if entry.file_name().to_string_lossy().ends_with("-out") => {}
                true => copy(&entry.path(), &target),
                false => drop(fs::copy(entry.path(), target).expect("a copy")),
            }
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    for folder in ["jobs", "examples", "scripts"] {
        copy(&root().join(folder), &dir.path().join(folder));
    }
    dir
}

/// The commands of the README's console blocks, each with the lines that it shows.
fn commands(page: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    let blocks = page.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap_or_default());
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
            (None, Some((_, shown))) => shown.push(line.to_owned()),
            (None, None) => panic!("a console block begins with a command: {line}"),
        }
    }
    commands
}

/// The answer without what differs from run to run.
fn settled(answer: &str) -> String {
    let mut text = answer.trim().to_owned();
    for field in ["\"epoch\":", "\"age_ms\":"] {
        if let Some(at) = text.find(field) {
            let number = at + field.len();
            let end = text[number..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |length| number + length);
            text.replace_range(number..end, "N");
        }
    }
    text
}

/// A process that is stopped when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(command: &str, dir: &Path) -> (bool, String) {
    let output = Command::new("sh").args(["-c", command]).current_dir(dir).stdin(Stdio::null()).output().expect("sh");
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_commands_of_the_readme_give_what_it_shows() {
    let dir = checkout();
    let commands = commands(&read("README.md"));
    let names: Vec<&str> = commands.iter().map(|(command, _)| command.as_str()).collect();
    assert_eq!((names[0], *names.last().expect("commands")), ("scripts/demo", "scripts/test"), "the two commands");

    // A free port, for others may use the usual one. Whoever takes it in between makes the test fail loudly.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let address = format!("127.0.0.1:{port}");
    let mut demo = Command::new("scripts/demo")
        .args(["--http", &address])
        .env("THALWEG_BINARY", thalweg())
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map(Running)
        .expect("scripts/demo starts");
    let mut log = demo.0.stderr.take().expect("its log");
    // The hint of what to do next ends the wait: it comes when the job has read everything.
    let mut told = Vec::new();
    let mut byte = [0];
    while !told.ends_with(b"Ctrl-C stops the job.") {
        let count = log.read(&mut byte).expect("its log");
        assert!(count > 0, "the demo ended: {}", String::from_utf8_lossy(&told));
        told.push(byte[0]);
    }

    for (command, shown) in &commands[1..commands.len() - 1] {
        let (ok, answer) = shell(&command.replace(SHOWN, &address), dir.path());
        assert!(ok, "{command}: {answer}");
        let answer: Vec<String> = answer.lines().map(settled).collect();
        let shown: Vec<String> = shown.iter().map(|line| settled(line)).collect();
        assert_eq!(answer, shown, "{command}");
    }
    let lines: usize = fs::read_dir(dir.path().join("jobs/flights-out"))
        .expect("the sink's folder")
        .map(|file| fs::read_to_string(file.expect("a file").path()).unwrap_or_default().lines().count())
        .sum();
    assert!(lines >= 200, "{lines} results: there are more airports");
}

#[test]
fn the_state_of_a_stopped_job_is_read_from_its_folder() {
    let dir = checkout();
    let thalweg = thalweg();
    let run = |line: &str| shell(&format!("{} {line}", thalweg.display()), dir.path());
    let (ok, log) = run("run jobs/flights.toml --http none");
    assert!(ok, "{log}");
    let one = run("query flights by_origin ORD --data .thalweg -o json");
    let expected = r#"{"key":"ORD","value":{"flights":27692,"mean_delay":4.956738408204536,"late":6073,"worst":617},"epoch":N,"age_ms":N,"role":"stopped"}"#;
    assert_eq!((one.0, settled(&one.1)), (true, expected.to_owned()));
    let (ok, page) = run("query flights by_origin --from S --limit 2 --data .thalweg -o json");
    let keys: Vec<&str> = page.lines().filter_map(|line| line.split('"').nth(3)).collect();
    assert_eq!((ok, keys), (true, vec!["SAN", "SAT"]), "{page}");
    for (line, part) in [
        ("query flights by_origin XXX --data .thalweg", "holds no key"),
        ("query flights nothing --data .thalweg", "it has by_origin"),
        ("query nothing by_origin --data .thalweg", "job.toml is missing"),
    ] {
        let (ok, message) = run(line);
        assert!(!ok && message.contains(part), "{line}: {message}");
    }
}

#[test]
fn every_job_file_in_the_repository_is_valid() {
    let mut files = Vec::new();
    for folder in ["jobs".to_owned(), "examples/orders".to_owned()] {
        let entries = fs::read_dir(root().join(&folder)).expect("the folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml")));
    }
    for file in files.iter().filter(|file| !file.ends_with("Cargo.toml")) {
        let text = fs::read_to_string(file).expect("a text");
        if text.contains("crate = ") {
            // Its own binary knows the operators; the example's test runs it.
            continue;
        }
        let output = Command::new(thalweg()).arg("validate").arg(file).output().expect("thalweg starts");
        assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_example_has_a_test_of_its_own() {
    for entry in fs::read_dir(root().join("examples")).expect("examples") {
        let path = entry.expect("an entry").path();
        if path.join("Cargo.toml").exists() {
            let folder = format!("examples/{}", path.file_name().expect("a name").to_string_lossy());
            assert!(read("Cargo.toml").contains(&format!("\"{folder}\"")), "{folder} is no member of the workspace");
            assert!(path.join("tests").is_dir(), "{folder} has no tests");
        }
    }
}

/// Every key that the schema knows, under whatever table.
fn keys_of(schema: &serde_json::Value, found: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(members) => {
            for (name, member) in members {
                // Below `properties` stand names, and below each its schema; a key may itself be called `properties`.
                match member.as_object().filter(|_| name == "properties") {
                    Some(properties) => {
                        found.extend(properties.keys().cloned());
                        properties.values().for_each(|property| keys_of(property, found));
                    }
                    None => keys_of(member, found),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys_of(item, found)),
        _ => {}
    }
}

#[test]
fn the_page_about_job_files_has_every_key() {
    let output = Command::new(thalweg()).arg("schema").output().expect("thalweg starts");
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the schema is JSON");
    let mut keys = Vec::new();
    keys_of(&schema, &mut keys);
    keys.sort();
    keys.dedup();
    assert!(keys.len() > 40, "{keys:?}");
    let page = read("docs/job-toml.md");
    let missing: Vec<_> = keys.iter().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/job-toml.md says nothing of {missing:?}");
    let operators = schema["properties"]["operators"]["additionalProperties"]["oneOf"].as_array().expect("operators");
    let names = operators.iter().filter_map(|variant| variant["properties"]["uses"]["const"].as_str());
    let missing: Vec<_> = names.filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/job-toml.md says nothing of the operators {missing:?}");
}

#[test]
fn the_page_about_http_has_every_route() {
    let openapi: serde_json::Value =
        serde_json::from_str(&read("engine/src/http/openapi.json")).expect("openapi.json is JSON");
    let page = read("docs/http.md");
    let paths = openapi["paths"].as_object().expect("paths");
    let missing: Vec<_> = paths.keys().filter(|path| !page.contains(&format!("{path}`"))).collect();
    assert!(missing.is_empty(), "docs/http.md says nothing of {missing:?}");
}

#[test]
fn links_in_the_pages_lead_somewhere() {
    let mut pages = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).expect("docs") {
        pages.push(format!("docs/{}", entry.expect("an entry").file_name().to_string_lossy()));
    }
    for page in pages.iter().filter(|page| page.ends_with(".md")) {
        let text = read(page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !link.starts_with("http") && !file.is_empty() {
                let target = root().join(page).parent().expect("a folder").join(file);
                assert!(target.exists(), "{page}: {link} leads nowhere");
            }
        }
    }
}
