//! A whole job in Rust, without a job file: how often each word stands in a text.
//!
//! ```console
//! $ cd examples/wordcount && cargo run --release
//! ```

use thalweg::prelude::*;

/// A line of the text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(crate = "thalweg::serde")]
struct Line {
    line: String,
}

fn words(line: Line, out: &mut Vec<String>) -> Result<()> {
    out.extend(line.line.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_lowercase));
    Ok(())
}

fn main() -> thalweg::Exit {
    thalweg::run_job(|| {
        let job = JobBuilder::new("wordcount")?;
        job.source("text", files(["text.txt"], Format::Lines))
            .flat_map("words", words)
            .key_by(|word| (word, ()))
            .count("count")
            .sink("out", FileSink::folder("wordcount-out", OutFormat::Json));
        job.build()
    })
}
