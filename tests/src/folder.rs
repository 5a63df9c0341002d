//! The folder of one trial: job file, inputs, data, outputs.

use std::path::{Path, PathBuf};

/// A folder that goes when it is dropped, unless `THALWEG_KEEP` is set or the trial failed.
#[derive(Debug)]
pub struct Folder {
    dir: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Folder {
    /// A new, empty one.
    pub fn new() -> Self {
        Self::with_prefix("thalweg-exact-")
    }

    /// A new, empty one whose name begins so.
    pub fn with_prefix(prefix: &str) -> Self {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir().expect("a temporary folder");
        let path = dir.path().to_owned();
        Self { dir: Some(dir), path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path.join(name);
        let parent = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&path, bytes)).expect("a temporary file");
    }

    /// Leaves it there, to be looked at.
    pub fn keep(&mut self) -> &Path {
        if let Some(dir) = self.dir.take() {
            self.path = dir.keep();
        }
        &self.path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("THALWEG_KEEP").is_some() {
            println!("kept {}", self.keep().display());
        }
    }
}
