//! The files that paths and patterns mean.

use std::fs::File;
use std::path::{Path, PathBuf};

use thalweg_core::{Error, Result};

/// Paths and glob patterns, relative to a folder.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    base: PathBuf,
    patterns: Vec<String>,
}

impl Paths {
    pub(super) fn new(base: PathBuf, patterns: Vec<String>) -> Self {
        Self { base: if base.as_os_str().is_empty() { ".".into() } else { base }, patterns }
    }

    /// As they were written.
    pub(super) fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// The files that one of them means now; none where there is no such file.
    pub(super) fn matches(&self, pattern: &str) -> Result<Vec<PathBuf>> {
        let literal = self.base.join(pattern);
        if literal.exists() {
            return Ok(vec![literal]);
        }
        if !is_pattern(pattern) {
            return Ok(Vec::new());
        }
        // An absolute pattern stands for itself, and so does what joining makes of it.
        let base = if Path::new(pattern).is_absolute() { String::new() } else { format!("{}/", self.base.display()) };
        let whole = format!("{}{pattern}", glob::Pattern::escape(&base));
        let wrong = |error: glob::PatternError| Error::user("glob", format!("path = {pattern:?}: {error}"));
        let mut files = Vec::new();
        for path in glob::glob(&whole).map_err(wrong)? {
            let path = path.map_err(|error| {
                let doing = format!("{}: looking for {pattern:?}", error.path().display());
                Error::io(doing, error.into())
            })?;
            if !path.is_dir() {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Nothing is found where something has to be.
    pub(super) fn no_input(&self, pattern: &str) -> Error {
        let why = if is_pattern(pattern) { "no file matches it" } else { "there is no such file" };
        Error::user(
            "no-input",
            format!("path = {pattern:?}: {why} in {}; paths are relative to the job's file", self.base.display()),
        )
    }

    /// How a file is called in specs and messages: relative to the base where it is below it.
    pub(super) fn name(&self, path: &Path) -> Result<String> {
        let short = path.strip_prefix(&self.base).unwrap_or(path);
        short.to_str().map(str::to_owned).ok_or_else(|| {
            Error::user("file-name", format!("{}: the name is not UTF-8; rename the file", path.display()))
        })
    }

    /// Where the file of that name is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }
}

fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

pub(super) fn open_file(name: &str, path: &Path) -> Result<File> {
    // Opening a pipe would wait for its writer.
    let meta = path.metadata().map_err(|error| Error::io(format!("{name}: looking at the file"), error))?;
    if !meta.is_file() {
        let what =
            if meta.is_dir() { "a folder; write folder/*.jsonl to read the files in it" } else { "no plain file" };
        return Err(Error::user("not-a-file", format!("{name}: this is {what}")));
    }
    File::open(path).map_err(|error| Error::io(format!("{name}: opening the file"), error))
}
