//! Finds the programs under test, and refuses one that is older than its sources.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Names a `thalweg` to test instead of the one beside the tests; its age is not looked at.
const VARIABLE: &str = "THALWEG_BINARY";

/// The folders of the workspace that the binaries are built from.
pub(crate) const SOURCES: [&str; 5] = ["engine", "operators", "state", "connectors", "jobs"];

/// A program under test.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
}

impl Binary {
    /// The workspace's `thalweg`.
    ///
    /// Panics where it is missing or older than the sources: then the tests would test something else.
    pub fn thalweg() -> Self {
        match std::env::var_os(VARIABLE) {
            Some(path) => Self { path: path.into() },
            None => Self::beside_the_tests("thalweg", "cargo build --release -p thalweg"),
        }
    }

    /// The job binary of this crate, with operators of its own.
    pub fn exact_job() -> Self {
        // Cargo builds it with the tests, so that it cannot be old.
        Self { path: target_folder().join("exact_job") }
    }

    /// Another binary of this crate.
    pub fn beside_exact_job(name: &str) -> Self {
        Self { path: target_folder().join(name) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn beside_the_tests(name: &str, build: &str) -> Self {
        let path = target_folder().join(name);
        let built = path.metadata().and_then(|meta| meta.modified());
        let Ok(built) = built else { panic!("{} is missing; build it first: {build}", path.display()) };
        let newest = SOURCES.iter().filter_map(|folder| newest_source(&workspace().join(folder))).max();
        if let Some((changed, source)) = newest.filter(|(changed, _)| *changed > built) {
            let behind = changed.duration_since(built).unwrap_or_default();
            panic!("{} is {behind:?} older than {}; build it first: {build}", path.display(), source.display());
        }
        Self { path }
    }
}

/// The root of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above")
}

/// The folder of the profile: test programs are in `deps` below it.
fn target_folder() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let folder = own.parent().and_then(|deps| if deps.ends_with("deps") { deps.parent() } else { Some(deps) });
    folder.expect("a program is in a folder").to_owned()
}

fn newest_source(folder: &Path) -> Option<(SystemTime, PathBuf)> {
    let entries = folder.read_dir().ok()?;
    let newest = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        match path.file_name()?.to_str()? {
            // No part of the programs.
            "tests" | "examples" | "target" | "benches" => None,
            _ if path.is_dir() => newest_source(&path),
            name if name.ends_with(".rs") || name == "Cargo.toml" => {
                Some((path.metadata().and_then(|meta| meta.modified()).ok()?, path))
            }
            _ => None,
        }
    });
    newest.max()
}
