//! The input files of a job.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::sketch::{JobSketch, SourceFormat};
use crate::{Folder, Random};

const WORDS: [&str; 24] = [
    "river",
    "delta",
    "thalweg",
    "stream",
    "bed",
    "ice",
    "fjord",
    "ötztal",
    "weir",
    "lock",
    "spring",
    "mouth",
    "bank",
    "ford",
    "rapid",
    "pool",
    "meander",
    "silt",
    "flood",
    "ebb",
    "源流",
    "a",
    "tributary-of-a-tributary",
    "x\"y",
];

/// Writes the files of every source of a job.
pub(crate) fn write(job: &JobSketch, folder: &Folder) {
    for (index, source) in job.sources.iter().enumerate().filter(|(_, source)| !source.topic) {
        let mut random = Random::new(job.seed ^ (index as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
        let extension = match source.format {
            SourceFormat::Json => "jsonl",
            SourceFormat::Csv => "csv",
            SourceFormat::Lines => "txt",
            SourceFormat::Generator => continue,
        };
        for part in 0..source.parts {
            let records = source.records / source.parts + u64::from(part < source.records % source.parts);
            let text = file(source.format, records, job.aside, &mut random);
            if source.gz && part % 2 == 0 {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(text.as_bytes()).expect("memory takes everything");
                folder.write(&format!("in/s{index}-{part}.{extension}.gz"), encoder.finish().expect("memory"));
            } else {
                folder.write(&format!("in/s{index}-{part}.{extension}"), text);
            }
        }
    }
}

/// The values of the records of every source that reads a topic, by its index.
pub(crate) fn of_topics(job: &JobSketch) -> Vec<(usize, Vec<String>)> {
    let sources = job.sources.iter().enumerate().filter(|(_, source)| source.topic);
    let values = sources.map(|(index, source)| {
        let mut random = Random::new(job.seed ^ (index as u64 + 1).wrapping_mul(0x5851_f42d_4c95_7f2d));
        let text = file(source.format, source.records, false, &mut random);
        // What is a blank line of a file is no record of a topic, and the columns are in the job file.
        let lines = text.lines().skip(usize::from(source.format == SourceFormat::Csv));
        let lines = lines.filter(|line| source.format == SourceFormat::Lines || !line.is_empty());
        (index, lines.map(str::to_owned).collect())
    });
    values.collect()
}

fn file(format: SourceFormat, records: u64, bad: bool, random: &mut Random) -> String {
    let mut text = String::new();
    if format == SourceFormat::Csv {
        text += "k,w,v,f\n";
    }
    let keys = random.between(2, 60);
    for _ in 0..records {
        if format == SourceFormat::Json && random.once_in(10) {
            // No record, but a part of some share.
            text.push('\n');
        }
        if bad && random.once_in(12) {
            text += match format {
                SourceFormat::Json => "{\"k\": 1, \"w\":\n",
                SourceFormat::Csv => "1,\"one, two\",3,4,5\n",
                SourceFormat::Lines | SourceFormat::Generator => "",
            };
        }
        if format == SourceFormat::Lines {
            let words: Vec<_> = (0..random.below(6)).map(|_| *random.pick(&WORDS)).collect();
            text += &words.join(if random.once_in(3) { "  " } else { " " });
        } else {
            let (k, w, v) = (random.below(keys), *random.pick(&WORDS), random.below(1000));
            let f = serde_json::to_string(&(random.below(10_000) as f64 / 7.0)).expect("a number");
            text += &match format {
                SourceFormat::Csv => format!("{k},\"{}\",{v},{f}", w.replace('"', "\"\"")),
                _ => {
                    serde_json::json!({ "k": k, "w": w, "v": v, "f": f.parse::<f64>().expect("a number") }).to_string()
                }
            };
        }
        text.push('\n');
    }
    // The last line end may be missing.
    if random.once_in(3) {
        text.pop();
    }
    text
}
