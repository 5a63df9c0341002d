//! What is fuzzed: the decoders of everything that comes from a disk, a user or the outside, each as a function of any bytes.
//!
//! A target must not panic, must end, and holds what it decoded against itself. `scripts/fuzz NAME` runs one with coverage; the
//! tests run all of them over their examples with random changes.

mod changelog;
mod formats;
mod job;
mod log_folder;
mod records;

/// A decoder.
pub struct Target {
    /// As in `scripts/fuzz NAME`.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Good bytes to begin with.
    pub examples: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 13] = [
    Target { name: "log_segment", run: log_folder::segment, examples: log_folder::segments },
    Target { name: "log_position", run: records::position, examples: records::positions },
    Target {
        name: "state_folder",
        run: thalweg_state::decoders::decode_any,
        examples: thalweg_state::decoders::examples,
    },
    Target { name: "changelog_record", run: changelog::record, examples: changelog::records },
    Target { name: "binding", run: records::binding, examples: records::bindings },
    Target { name: "history_entry", run: records::history_entry, examples: records::history_entries },
    Target { name: "key", run: records::key, examples: records::keys },
    Target { name: "job_toml", run: job::toml, examples: job::tomls },
    Target { name: "json", run: formats::json, examples: formats::jsons },
    Target { name: "csv", run: formats::csv, examples: formats::csvs },
    Target { name: "avro", run: formats::avro, examples: formats::avros },
    Target { name: "protobuf", run: formats::protobuf, examples: formats::protobufs },
    Target { name: "expression", run: job::expression, examples: job::expressions },
];

/// The variable with the folder that a fuzzer begins with.
pub const EXAMPLES: &str = "THALWEG_FUZZ_EXAMPLES";

/// Runs the target of a name.
pub fn run(name: &str, bytes: &[u8]) {
    (target(name).run)(bytes);
}

/// Writes the examples of a target into the folder that the variable names, if it does.
pub fn write_examples(name: &str) {
    let Some(folder) = std::env::var_os(EXAMPLES) else { return };
    for (index, bytes) in (target(name).examples)().into_iter().enumerate() {
        let path = std::path::Path::new(&folder).join(format!("example-{index}"));
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("there is no target {name:?}"))
}
