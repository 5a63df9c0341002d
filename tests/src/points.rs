//! The failpoints and known bugs that the sources name: a new one cannot be forgotten by the tests.

use std::collections::BTreeSet;
use std::path::Path;

use crate::binary::{SOURCES, workspace};

/// What the sources name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// `failpoint::pass("…")`.
    pub points: BTreeSet<String>,
    /// `failpoint::bug("…")`.
    pub bugs: BTreeSet<String>,
}

/// Reads the names from the sources of the workspace.
pub fn points() -> Points {
    let mut found = Points::default();
    SOURCES.iter().for_each(|folder| read(&workspace().join(folder), &mut found));
    found
}

fn read(folder: &Path, found: &mut Points) {
    let Ok(entries) = folder.read_dir() else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !["tests", "examples", "target", "benches"].contains(&name) {
            read(&path, found);
        } else if name.ends_with(".rs") && name != "failpoint.rs" {
            let text = std::fs::read_to_string(&path).expect("sources are text");
            found.points.extend(names(&text, "failpoint::pass(\""));
            found.bugs.extend(names(&text, "failpoint::bug(\""));
        }
    }
}

fn names(text: &str, call: &str) -> Vec<String> {
    text.split(call).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}
