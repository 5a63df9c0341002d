//! The Apache Kafka in the user's cache, and the JVM that runs it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::binary::workspace;

/// The one description of what is installed; `scripts/kafka-jars` leaves a copy beside what it brought.
const POM: &str = include_str!("../../kafka/pom.xml");

/// Jars, formatted log folder, archive of classes.
#[derive(Debug)]
pub(crate) struct Installation {
    folder: PathBuf,
    classpath: String,
}

impl Installation {
    /// The one of this user.
    ///
    /// Panics where it is missing or was made from another `pom.xml`, and says how to get it: no test goes without it in silence.
    pub(crate) fn get() -> &'static Self {
        static FOUND: LazyLock<Installation> = LazyLock::new(Installation::find);
        &FOUND
    }

    fn find() -> Self {
        let folder = cache().join("thalweg").join(format!("kafka-{}", version()));
        let pom = std::fs::read_to_string(folder.join("pom.xml")).unwrap_or_default();
        let complete = folder.join("archived-with").exists();
        assert!(
            pom == POM && complete,
            "{} does not hold the Apache Kafka {} of tests/kafka/pom.xml; run scripts/kafka-jars first",
            folder.display(),
            version()
        );
        let entries = folder.join("jars").read_dir().expect("a folder of jars");
        let jars = entries.map(|entry| entry.expect("a folder can be listed").path().display().to_string());
        let mut jars: Vec<String> = jars.filter(|path| path.ends_with(".jar")).collect();
        // In the order of the shell that made the archive: another class path cannot use it.
        jars.sort();
        Self { classpath: jars.join(":"), folder }
    }

    /// The two files that a formatted log folder begins with.
    pub(crate) fn formatted(&self) -> PathBuf {
        self.folder.join("formatted")
    }

    /// A JVM that runs a class of the jars.
    pub(crate) fn java(&self, class: &str, log_level: &str) -> Command {
        let mut command = Command::new(java("java"));
        command.arg(format!("@{}", workspace().join("tests/kafka/jvm.options").display()));
        command.arg(format!("-XX:SharedArchiveFile={}", self.folder.join("classes.jsa").display()));
        command.arg(format!("-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}"));
        command.args(["-Dorg.slf4j.simpleLogger.showDateTime=true", "-cp", &self.classpath, class]);
        command
    }
}

/// A program of the Java that is used, as `scripts/kafka-jars` finds it.
pub(crate) fn java(program: &str) -> PathBuf {
    match std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => Path::new(&home).join("bin").join(program),
        None => program.into(),
    }
}

fn version() -> &'static str {
    let (_, rest) = POM.split_once("<kafka.version>").expect("pom.xml names a version");
    rest.split_once('<').expect("an element ends").0
}

/// `${XDG_CACHE_HOME:-~/.cache}`.
fn cache() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || named("HOME").expect("HOME is set").join(".cache");
    named("XDG_CACHE_HOME").unwrap_or_else(home)
}
