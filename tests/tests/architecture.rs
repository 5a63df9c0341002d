//! Holds the house rules against the sources: which crate may depend on which, where each heavy dependency lives, and what no file
//! may contain. ARCHITECTURE.md shows the same tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate with its folder and the crates of ours that it may depend on.
const CRATES: [(&str, &str, &[&str]); 8] = [
    ("thalweg-core", "engine/core", &[]),
    ("thalweg-state", "state", &["thalweg-core"]),
    ("thalweg-connectors", "connectors", &["thalweg-core"]),
    ("thalweg-operators", "operators", &["thalweg-core", "thalweg-state", "thalweg-connectors"]),
    ("thalweg-jobs", "jobs", &["thalweg-core", "thalweg-state", "thalweg-connectors", "thalweg-operators"]),
    (
        "thalweg-runtime",
        "engine/runtime",
        &["thalweg-core", "thalweg-state", "thalweg-connectors", "thalweg-operators"],
    ),
    ("thalweg-coordinator", "engine/coordinator", &["thalweg-core"]),
    (
        "thalweg",
        "engine",
        &[
            "thalweg-core",
            "thalweg-state",
            "thalweg-connectors",
            "thalweg-operators",
            "thalweg-jobs",
            "thalweg-runtime",
            "thalweg-coordinator",
        ],
    ),
];

/// Each heavy dependency with the folders of the crates that may name it. The hand-written baselines of `benches`, and what `tests`
/// does to recount results without the engine's code, are no part of the engine.
const HOMES: [(&str, &[&str]); 11] = [
    ("rocksdb", &["state", "benches"]),
    ("timely", &["operators", "engine/runtime", "benches"]),
    ("differential-dataflow", &["operators", "engine/runtime"]),
    ("protobuf", &["connectors"]),
    ("protobuf-parse", &["connectors"]),
    ("rdkafka", &["connectors", "tests", "benches"]),
    ("openraft", &["engine/coordinator"]),
    ("axum", &["engine"]),
    ("hyper", &["engine", "benches"]),
    ("hyper-util", &["engine", "benches"]),
    ("clap", &["engine", "benches"]),
];

/// Most lines of a source file, and of a function in it; tests may be longer. Most are far below: 400 and 70.
const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 90;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The manifest of each member of the workspace, by folder.
fn manifests() -> BTreeMap<String, toml::Table> {
    let workspace: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    let members = workspace["workspace"]["members"].as_array().expect("members is a list");
    let folders = members.iter().map(|member| member.as_str().expect("a member is a folder").to_owned());
    let manifest = |folder: String| {
        let table = read(Path::new(&folder).join("Cargo.toml")).parse().expect("a manifest is TOML");
        (folder, table)
    };
    folders.map(manifest).collect()
}

/// The names in the given sections of a manifest.
fn dependencies(manifest: &toml::Table, sections: &[&str]) -> BTreeSet<String> {
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

const ALL: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Every file of the repository with one of these endings, relative to its root.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    fn walk(dir: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("a folder that can be listed").path();
            let name = path.file_name().expect("an entry has a name").to_string_lossy();
            if path.is_dir() {
                let built = [".git", "target", ".thalweg"].contains(&&*name) || name.ends_with("-out");
                if !built {
                    walk(&path, endings, found);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), endings, &mut found);
    found.sort();
    found.iter().map(|path| path.strip_prefix(root()).expect("it is below").to_owned()).collect()
}

/// Whether a file holds tests, examples or measurements: no part of a library.
fn is_test(path: &Path) -> bool {
    let folder = |name: &str| path.components().any(|part| part.as_os_str() == name);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    folder("tests") || folder("benches") || folder("examples") || stem == "tests" || stem.ends_with("_tests")
}

/// The lines of a library file that are neither comments nor in its test module, with their numbers.
fn library_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let library = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = library.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Fails with all problems at once.
fn check(rule: &str, problems: Vec<String>) {
    assert!(problems.is_empty(), "{rule}:\n{}", problems.join("\n"));
}

#[test]
fn crates_depend_only_on_what_the_table_allows() {
    let manifests = manifests();
    let mut problems = Vec::new();
    for (name, folder, allowed) in CRATES {
        let manifest = &manifests[folder];
        if manifest["package"]["name"].as_str() != Some(name) {
            problems.push(format!("{folder} is not the package {name}"));
        }
        // A test may use what its crate may use: the table has no second column for it.
        for dependency in dependencies(manifest, &ALL).iter().filter(|dependency| dependency.starts_with("thalweg")) {
            if !allowed.contains(&dependency.as_str()) {
                problems.push(format!("{folder}/Cargo.toml: {name} may not depend on {dependency}"));
            }
        }
    }
    let known: BTreeSet<&str> = CRATES.iter().map(|(_, folder, _)| *folder).collect();
    for folder in manifests.keys().filter(|folder| !known.contains(folder.as_str())) {
        if folder != "tests" && folder != "benches" && !folder.starts_with("examples/") {
            problems.push(format!("{folder} is a member of the workspace and not in the table"));
        }
    }
    check("the table of crates", problems);
}

#[test]
fn a_job_crate_depends_on_thalweg_alone() {
    let mut problems = Vec::new();
    for (folder, manifest) in manifests().iter().filter(|(folder, _)| folder.starts_with("examples/")) {
        for dependency in dependencies(manifest, &["dependencies"]) {
            if dependency != "thalweg" {
                problems.push(format!("{folder}: a job crate depends on thalweg alone, not on {dependency}"));
            }
        }
    }
    check("job crates", problems);
}

#[test]
fn each_heavy_dependency_has_its_home() {
    let mut problems = Vec::new();
    for (folder, manifest) in manifests() {
        for dependency in dependencies(&manifest, &ALL) {
            let home = HOMES.iter().find(|(name, _)| *name == dependency);
            if let Some((name, homes)) = home.filter(|(_, homes)| !homes.contains(&folder.as_str())) {
                problems.push(format!("{folder}/Cargo.toml: {name} lives in {}", homes.join(", ")));
            }
        }
    }
    check("homes of heavy dependencies", problems);
}

#[test]
fn every_dependency_is_used_and_has_its_version_in_one_place() {
    let mut problems = Vec::new();
    // The longest folder that a file is below is the package that it belongs to.
    let members: Vec<String> = manifests().into_keys().collect();
    for (folder, manifest) in manifests() {
        let own = |path: &PathBuf| {
            // The fuzz targets are a workspace of their own; the tests run them as well.
            let fuzzed = folder == "tests" && path.starts_with("fuzz");
            fuzzed || members.iter().filter(|member| path.starts_with(member)).max() == Some(&folder)
        };
        let sources = files(&[".rs"]).into_iter().filter(own);
        let text: String = sources.map(read).collect();
        for section in ALL {
            let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for (name, value) in table {
                let path = name.replace('-', "_");
                let used = [format!("{path}::"), format!("use {path};"), format!("use {path} as")];
                if !used.iter().any(|used| text.contains(used.as_str())) {
                    problems.push(format!("{folder}/Cargo.toml: {name} is not used"));
                }
                if value.get("version").is_some() || value.is_str() {
                    problems.push(format!("{folder}/Cargo.toml: the version of {name} belongs into the workspace's"));
                }
            }
        }
    }
    let workspace: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml is TOML");
    for (name, value) in workspace["workspace"]["dependencies"].as_table().expect("dependencies is a table") {
        let version = value.as_str().or_else(|| value.get("version")?.as_str());
        if version == Some("*") {
            problems.push(format!("Cargo.toml: {name} takes any version; name the one that works"));
        }
    }
    check("dependencies", problems);
}

#[test]
fn the_architecture_page_shows_the_same_tables() {
    let page = read("ARCHITECTURE.md");
    let short = |names: &[&str]| match names {
        [] => "nothing".to_owned(),
        names => {
            names.iter().map(|name| format!("`{}`", name.trim_start_matches("thalweg-"))).collect::<Vec<_>>().join(", ")
        }
    };
    let crates =
        CRATES.iter().map(|(name, folder, allowed)| format!("| `{name}` | `{folder}/` | {} |", short(allowed)));
    let homes = HOMES.iter().map(|(name, homes)| {
        let homes: Vec<_> = homes.iter().copied().filter(|home| !["benches", "tests"].contains(home)).collect();
        format!("| `{name}` | {} |", homes.iter().map(|home| format!("`{home}/`")).collect::<Vec<_>>().join(", "))
    });
    let missing = crates.chain(homes).filter(|line| !page.contains(line.as_str()));
    check("ARCHITECTURE.md lacks these lines", missing.collect());
}

#[test]
fn nothing_is_left_undone() {
    // Put together here, so that this file does not find itself.
    let everywhere =
        [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!("), concat!("#[", "ignore")];
    let in_libraries = [concat!(".unwrap", "()"), concat!(".unwrap_err", "()")];
    let mut problems = Vec::new();
    for path in files(&[".rs"]) {
        let text = read(&path);
        let mut forbid = |lines: &mut dyn Iterator<Item = (usize, &str)>, words: &[&str]| {
            for (number, line) in lines {
                if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                    problems.push(format!("{}:{number}: {word}", path.display()));
                }
            }
        };
        forbid(&mut text.lines().enumerate().map(|(index, line)| (index + 1, line)), &everywhere);
        if !is_test(&path) {
            forbid(&mut library_lines(&text), &in_libraries);
        }
    }
    check("undone, or a panic without a reason (say it with `expect`)", problems);
}

#[test]
fn files_and_functions_have_a_size_that_one_can_read() {
    let mut problems = Vec::new();
    for path in files(&[".rs"]).into_iter().filter(|path| !is_test(path)) {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > MAX_FILE_LINES {
            problems.push(format!("{}: {} lines; {MAX_FILE_LINES} at most", path.display(), lines.len()));
        }
        for (index, line) in lines.iter().enumerate() {
            let body = line.trim_start();
            let indent = line.len() - body.len();
            let is_function = body.starts_with("fn ") || (body.starts_with("pub") && body.contains(" fn "));
            // Code is formatted: a function ends with the first brace in the column where it began.
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[index..].iter().position(|line| *line == end).map_or(0, |length| length + 1);
            if is_function && !body.ends_with(';') && length > MAX_FUNCTION_LINES {
                problems.push(format!(
                    "{}:{}: {length} lines; {MAX_FUNCTION_LINES} at most",
                    path.display(),
                    index + 1
                ));
            }
        }
    }
    check("sizes", problems);
}

#[test]
fn no_file_names_a_machine_or_a_placeholder_for_a_name() {
    // Put together here, so that this file does not find itself.
    let words = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/home", "/"),
        concat!("index.crates", ".io"),
        concat!("FIX", "ME"),
    ];
    let endings = [".rs", ".toml", ".md", ".sh", ".txt", ".json"];
    let mut problems = Vec::new();
    for path in files(&endings) {
        for (index, line) in read(&path).lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                problems.push(format!("{}:{}: {word}", path.display(), index + 1));
            }
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "rs")
            && ["util", "utils", "common", "helper", "helpers", "misc", "types"].contains(&stem.as_str())
        {
            problems.push(format!("{}: name the file after what is in it", path.display()));
        }
    }
    check("names", problems);
}

#[test]
fn every_crate_says_what_it_is_and_exports_one_list() {
    let mut problems = Vec::new();
    for folder in manifests().keys() {
        let (library, program) = (format!("{folder}/src/lib.rs"), format!("{folder}/src/main.rs"));
        let start = if root().join(&library).exists() { library } else { program };
        if !read(&start).starts_with("//! ") {
            problems.push(format!("{start}: begin with `//!` and one sentence that says what the crate is"));
        }
    }
    check("crates", problems);
}

#[test]
fn a_job_author_meets_no_type_of_the_engine_room() {
    let heavy: Vec<String> = HOMES.iter().map(|(name, _)| format!("{}::", name.replace('-', "_"))).collect();
    let mut problems = Vec::new();
    for path in ["engine/src/prelude.rs", "engine/src/lib.rs", "engine/src/job.rs"] {
        for (number, line) in library_lines(&read(path)) {
            if let Some(word) = heavy.iter().find(|word| line.contains(word.as_str())) {
                problems.push(format!("{path}:{number}: {word}"));
            }
        }
    }
    check("types of heavy dependencies in what a job author sees", problems);
}
