//! A job as the harness knows it: small enough to be interpreted naively, rich enough to hit every path of the engine.

use crate::{Home, Random};

/// What a source reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceFormat {
    /// Rows as JSON lines.
    Json,
    /// Rows as CSV.
    Csv,
    /// Text.
    Lines,
    /// The engine's own generator.
    Generator,
}

/// A source.
#[derive(Clone, Debug)]
pub struct SourceSketch {
    /// What it reads.
    pub format: SourceFormat,
    /// Whether it reads a topic of Kafka, to which the same is written while the job runs.
    pub topic: bool,
    /// Files, or partitions of the generator, or those that the topic has at first.
    pub parts: u64,
    /// Whether some of the files are compressed.
    pub gz: bool,
    /// Records of all parts.
    pub records: u64,
    /// Records per second; bounds from below how long the job lives.
    pub rate: Option<u64>,
}

impl SourceSketch {
    /// Whether its records are bytes that a format reads, and may fail to read.
    pub fn has_format(&self) -> bool {
        self.format != SourceFormat::Generator
    }
}

/// What keyed operators group by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// `k`.
    Number,
    /// `w`.
    Word,
    /// `[k, w]`.
    Both,
}

impl KeyOf {
    /// The fields.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            KeyOf::Number => &["k"],
            KeyOf::Word => &["w"],
            KeyOf::Both => &["k", "w"],
        }
    }
}

/// What is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// `count`.
    Count,
    /// `count` where `v > 500`.
    CountLarge,
    /// `sum` of `v`.
    Sum,
    /// `sum` of `f`: the order of additions shows.
    SumFloat,
    /// `min` of `v`.
    Min,
    /// `max` of `v`.
    Max,
    /// `mean` of `f`.
    Mean,
    /// `aggregate` of five folds.
    Aggregate,
    /// `reduce` with an expression in which the order shows.
    Reduce,
}

const FOLDS: [Fold; 9] = [
    Fold::Count,
    Fold::CountLarge,
    Fold::Sum,
    Fold::SumFloat,
    Fold::Min,
    Fold::Max,
    Fold::Mean,
    Fold::Aggregate,
    Fold::Reduce,
];

/// What an operator does. A row is `{k, w, v, f}`: two whole numbers, a text and a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Lines to words.
    Words,
    /// What a source or `Words` gives to rows.
    Rows(SourceFormat),
    /// Rows where `v % divisor != rest`.
    Filter(u64, u64),
    /// Rows with other values under the same key.
    Shift,
    /// Rows under another key.
    Regroup,
    /// Rows with `v / (v % divisor)`: fails on some.
    Divide(u64),
    /// Rows by key.
    KeyBy(KeyOf),
    /// A fold of rows.
    Fold(KeyOf, Fold),
    /// The results of a fold to rows.
    FromFold(KeyOf, Fold),
    /// The keyed process of the harness's own job binary: deletions, timers, chance, errors and panics. Rows to rows.
    Visits,
}

/// An operator; inputs are indices of sources, then operators.
#[derive(Clone, Debug)]
pub struct OperatorSketch {
    /// What it does.
    pub step: Step,
    /// What it reads.
    pub inputs: Vec<usize>,
}

/// Where results go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// A file for each partition.
    Folder,
    /// One file.
    Single,
    /// A topic of the job's own log with so many partitions.
    Log(u64),
    /// A topic of Kafka with so many partitions; by the key of its records, or without keys by job partition.
    Kafka(u64, Option<KeyOf>),
}

/// A sink.
#[derive(Clone, Debug)]
pub struct SinkSketch {
    /// Where.
    pub kind: SinkKind,
    /// What it reads.
    pub inputs: Vec<usize>,
}

/// A job.
#[derive(Clone, Debug)]
pub struct JobSketch {
    /// What it was made of.
    pub seed: u64,
    /// P.
    pub partitions: u32,
    /// Milliseconds; nothing means `"none"`.
    pub interval: Option<u64>,
    /// Of an epoch.
    pub max_records: u64,
    /// Milliseconds.
    pub checkpoint: u64,
    /// Whether stores have a changelog.
    pub changelog: bool,
    /// Where its topics are, where it lives in Kafka: sinks, bindings and changelogs.
    pub kafka: Option<Home>,
    /// Bytes of memory for values: little, so that the disk is read.
    pub memory: Option<u64>,
    /// Whether records that fail are set aside, and there are such records.
    pub aside: bool,
    /// The sources.
    pub sources: Vec<SourceSketch>,
    /// The operators, inputs first.
    pub operators: Vec<OperatorSketch>,
    /// The sinks.
    pub sinks: Vec<SinkSketch>,
}

/// The name of every job of the harness.
pub(crate) const JOB: &str = "exact";

impl JobSketch {
    /// The job of a seed; `custom` says whether it may use the operators of the harness's own job binary.
    pub fn generate(seed: u64, custom: bool) -> Self {
        Self::generate_with(seed, custom, Random::new(seed ^ 0x6173_6964).once_in(2))
    }

    /// The same, where nothing is set aside: dead letters are in the job's own log.
    pub fn generate_for_kafka(seed: u64, custom: bool) -> Self {
        Self::generate_with(seed, custom, false)
    }

    fn generate_with(seed: u64, custom: bool, aside: bool) -> Self {
        let mut random = Random::new(seed);
        let random = &mut random;
        let sources: Vec<SourceSketch> = (0..random.between(1, 3)).map(|_| source(random)).collect();
        let mut job = Self {
            seed,
            partitions: *random.pick(&[1, 3, 16]),
            interval: if random.once_in(4) { None } else { Some(*random.pick(&[2, 5, 10, 20])) },
            max_records: random.between(20, 400),
            checkpoint: random.between(20, 200),
            changelog: random.once_in(2),
            kafka: None,
            memory: random.once_in(3).then_some(64 << 10),
            aside,
            sources,
            operators: Vec::new(),
            sinks: Vec::new(),
        };
        let mut rows: Vec<usize> = Vec::new();
        for index in 0..job.sources.len() {
            let format = job.sources[index].format;
            let input = if format == SourceFormat::Lines { job.add(Step::Words, vec![index]) } else { index };
            rows.push(job.add(Step::Rows(format), vec![input]));
        }
        let mut folded = Vec::new();
        if job.aside {
            let divided = some_of(random, &rows, 2);
            rows.push(job.add(Step::Divide(random.between(3, 40)), divided));
        }
        if custom {
            rows.push(job.add(Step::Visits, vec![rows[0]]));
        }
        for _ in 0..random.between(2, 6) {
            let inputs = some_of(random, &rows, 3);
            let key = *random.pick(&[KeyOf::Number, KeyOf::Word, KeyOf::Both]);
            match random.below(if custom { 11 } else { 10 }) {
                0 => rows.push(job.add(Step::Filter(random.between(2, 9), random.below(2)), inputs)),
                1 => rows.push(job.add(Step::Shift, inputs)),
                2 => rows.push(job.add(Step::Regroup, inputs)),
                3 => rows.push(job.add(Step::KeyBy(key), inputs)),
                10 => rows.push(job.add(Step::Visits, inputs)),
                _ => {
                    let fold = *random.pick(&FOLDS);
                    let node = job.add(Step::Fold(key, fold), inputs);
                    folded.push(node);
                    if random.once_in(2) {
                        rows.push(job.add(Step::FromFold(key, fold), vec![node]));
                    }
                }
            }
        }
        if folded.is_empty() {
            folded.push(job.add(Step::Fold(KeyOf::Word, Fold::Aggregate), some_of(random, &rows, 2)));
        }
        let all: Vec<usize> = rows.iter().chain(&folded).copied().collect();
        let folded_only = some_of(random, &folded, 2);
        job.sinks.push(SinkSketch { kind: SinkKind::Folder, inputs: folded_only });
        for _ in 0..random.between(1, 3) {
            let topic_partitions = *random.pick(&[1, 2, u64::from(job.partitions)]);
            let kind = *random.pick(&[SinkKind::Folder, SinkKind::Single, SinkKind::Log(topic_partitions)]);
            // A log sink's positions are of job partitions; what is not keyed may have others.
            let from = if matches!(kind, SinkKind::Log(_)) { &folded } else { &all };
            job.sinks.push(SinkSketch { kind, inputs: some_of(random, from, 3) });
        }
        job
    }

    /// Adds a sink of every kind.
    pub fn add_every_sink(&mut self) {
        let folds = |(index, operator): (usize, &OperatorSketch)| match operator.step {
            Step::Fold(..) => Some(self.sources.len() + index),
            _ => None,
        };
        let inputs: Vec<usize> = self.operators.iter().enumerate().filter_map(folds).collect();
        for kind in [SinkKind::Folder, SinkKind::Single, SinkKind::Log(2)] {
            self.sinks.push(SinkSketch { kind, inputs: inputs.clone() });
        }
    }

    /// Moves it to Kafka: two sinks there, by key and by job partition, over one and three partitions as the seed says.
    #[must_use]
    pub fn moved_to(mut self, home: Home) -> Self {
        let folds = self.operators.iter().enumerate().filter_map(|(index, operator)| match operator.step {
            Step::Fold(key, _) => Some((self.sources.len() + index, key)),
            _ => None,
        });
        let folds: Vec<(usize, KeyOf)> = folds.collect();
        let key = folds[0].1;
        let keyed = folds.iter().filter(|(_, of)| *of == key).map(|(index, _)| *index).collect();
        let all = folds.iter().map(|(index, _)| *index).collect();
        let (few, many) = if self.seed.is_multiple_of(2) { (1, 3) } else { (3, 1) };
        self.sinks.retain(|sink| sink.kind == SinkKind::Folder);
        self.sinks.push(SinkSketch { kind: SinkKind::Kafka(few, Some(key)), inputs: keyed });
        self.sinks.push(SinkSketch { kind: SinkKind::Kafka(many, None), inputs: all });
        self.kafka = Some(home);
        self
    }

    /// Has all but generators read topics of Kafka, where it lives. Then it never ends, and its epochs need a time.
    #[must_use]
    pub fn reading_topics(mut self) -> Self {
        self.sources.iter_mut().for_each(|source| source.topic = source.has_format());
        if self.sources.iter().all(|source| !source.topic) {
            let first = &mut self.sources[0];
            (first.format, first.topic) = (SourceFormat::Json, true);
            let rows = self.operators.iter_mut().find(|operator| operator.inputs == [0]);
            rows.expect("every source is made rows of").step = Step::Rows(SourceFormat::Json);
        }
        self.interval.get_or_insert(10);
        self
    }

    /// Whether a source reads a topic: then it never ends by itself.
    pub fn reads_topics(&self) -> bool {
        self.sources.iter().any(|source| source.topic)
    }

    /// Its sinks in Kafka, with their partitions.
    pub(crate) fn kafka_sinks(&self) -> impl Iterator<Item = (usize, u64)> {
        self.sinks.iter().enumerate().filter_map(|(index, sink)| match sink.kind {
            SinkKind::Kafka(partitions, _) => Some((index, partitions)),
            _ => None,
        })
    }

    fn add(&mut self, step: Step, inputs: Vec<usize>) -> usize {
        self.operators.push(OperatorSketch { step, inputs });
        self.sources.len() + self.operators.len() - 1
    }

    /// The id of a source or operator.
    pub fn id(&self, node: usize) -> String {
        match node.checked_sub(self.sources.len()) {
            None => format!("s{node}"),
            Some(operator) => format!("op{operator}"),
        }
    }

    /// Whether it uses the operators of the harness's own job binary.
    pub fn is_custom(&self) -> bool {
        self.operators.iter().any(|operator| operator.step == Step::Visits)
    }

    /// The ids of the operators that keep state to be read from outside.
    pub fn stores(&self) -> Vec<String> {
        let keeps = |step: Step| matches!(step, Step::Fold(..) | Step::Visits);
        let operators = self.operators.iter().enumerate();
        operators.filter(|(_, operator)| keeps(operator.step)).map(|(index, _)| format!("op{index}")).collect()
    }

    /// The job file. Files are in `in/`, outputs in `out/` beside it.
    pub fn to_toml(&self) -> String {
        let mut text = format!("version = 1\n[job]\nname = \"{JOB}\"\npartitions = {}\n", self.partitions);
        if self.aside {
            text += "on_error = \"dead-letter\"\n";
        }
        if self.is_custom() {
            text += "crate = \"thalweg-tests\"\n";
        }
        let interval = self.interval.map_or("none".to_owned(), |ms| format!("{ms}ms"));
        text += &format!("[job.epoch]\ninterval = \"{interval}\"\nmax_records = {}\n", self.max_records);
        text += &format!("[job.checkpoint]\ninterval = \"{}ms\"\n", self.checkpoint);
        if let Some(memory) = self.memory {
            text += &format!("[job.state]\nmemory = \"{memory}B\"\n");
        }
        text += &self.kafka.as_ref().map(Home::to_toml).unwrap_or_default();
        for (index, source) in self.sources.iter().enumerate() {
            text += &source_toml(index, source, self.seed, self.kafka.as_ref());
        }
        for (index, operator) in self.operators.iter().enumerate() {
            let inputs = self.names(&operator.inputs);
            text += &format!("\n[operators.op{index}]\ninputs = {inputs:?}\n{}\n", self.step_toml(operator));
        }
        for store in self.stores().iter().filter(|_| self.changelog) {
            let home = if self.kafka.is_some() { "kafka" } else { "log" };
            text += &format!("\n[stores.{store}]\nchangelog = \"{home}\"\n");
        }
        for (index, sink) in self.sinks.iter().enumerate() {
            let inputs = self.names(&sink.inputs);
            let body = match sink.kind {
                SinkKind::Folder => format!("connector = \"file\"\npath = \"out/sink{index}\""),
                SinkKind::Single => format!("connector = \"file\"\npath = \"out/sink{index}.jsonl\"\nsingle = true"),
                SinkKind::Log(partitions) => {
                    format!("connector = \"log\"\ntopic = \"sink{index}\"\npartitions = {partitions}")
                }
                SinkKind::Kafka(partitions, key) => {
                    let home = self.kafka.as_ref().expect("a sink in Kafka has a home");
                    home.sink_toml(index, partitions, key)
                }
            };
            text += &format!("\n[sinks.sink{index}]\ninputs = {inputs:?}\n{body}\n");
        }
        text
    }

    fn names(&self, nodes: &[usize]) -> Vec<String> {
        nodes.iter().map(|node| self.id(*node)).collect()
    }

    fn step_toml(&self, operator: &OperatorSketch) -> String {
        let map = |fields: &str| format!("uses = \"map\"\nfields = {{ {fields} }}");
        match operator.step {
            Step::Words => "uses = \"words\"".to_owned(),
            Step::Rows(SourceFormat::Lines) => map(r#"k = "size(word)", w = "word", v = "size(word) * 3", f = "0.5""#),
            Step::Rows(SourceFormat::Generator) => {
                map(r#"k = "key", w = "string(key)", v = "value", f = "double(value) / 7.0""#)
            }
            Step::Rows(SourceFormat::Json | SourceFormat::Csv) => map(r#"k = "k", w = "w", v = "v", f = "f""#),
            Step::Filter(divisor, rest) => format!("uses = \"filter\"\nwhere = \"v % {divisor} != {rest}\""),
            Step::Shift => map(r#"k = "k", w = "w", v = "v + 1", f = "f * 1.5""#),
            Step::Regroup => map(r#"k = "(k * 7 + 3) % 11", w = "w", v = "v", f = "f""#),
            Step::Divide(divisor) => map(&format!("k = \"k\", w = \"w\", v = \"v / (v % {divisor})\", f = \"f\"")),
            Step::KeyBy(key) => format!("uses = \"key_by\"\nkey = {:?}", key.fields()),
            Step::Fold(key, fold) => format!("key = {:?}\n{}", key.fields(), fold_toml(fold)),
            Step::FromFold(key, fold) => {
                let (k, w) = match key {
                    KeyOf::Number => ("k", "'x'"),
                    KeyOf::Word => ("1", "w"),
                    KeyOf::Both => ("k", "w"),
                };
                let result = self.id(operator.inputs[0]);
                let (v, f) = match fold {
                    Fold::SumFloat | Fold::Mean => ("1", result.as_str()),
                    Fold::Aggregate => ("n", "t"),
                    _ => (result.as_str(), "0.25"),
                };
                map(&format!("k = \"{k}\", w = \"{w}\", v = \"{v}\", f = \"{f}\""))
            }
            Step::Visits => {
                let on_error = if self.aside { "dead-letter" } else { "drop" };
                format!("uses = \"exact::Visits\"\nkey = \"w\"\non_error = \"{on_error}\"")
            }
        }
    }
}

fn fold_toml(fold: Fold) -> &'static str {
    match fold {
        Fold::Count => "uses = \"count\"",
        Fold::CountLarge => "uses = \"count\"\nwhere = \"v > 500\"",
        Fold::Sum => "uses = \"sum\"\nof = \"v\"",
        Fold::SumFloat => "uses = \"sum\"\nof = \"f\"",
        Fold::Min => "uses = \"min\"\nof = \"v\"",
        Fold::Max => "uses = \"max\"\nof = \"v\"",
        Fold::Mean => "uses = \"mean\"\nof = \"f\"",
        Fold::Aggregate => {
            "uses = \"aggregate\"\naggregates = { n = \"count()\", t = \"sum(f)\", late = \"count(v > 500)\", \
             worst = \"max(v)\", m = \"mean(f)\" }"
        }
        Fold::Reduce => "uses = \"reduce\"\nof = \"v\"\nwith = \"(acc * 31 + value) % 1000003\"",
    }
}

fn source(random: &mut Random) -> SourceSketch {
    let format = *random.pick(&[SourceFormat::Json, SourceFormat::Csv, SourceFormat::Lines, SourceFormat::Generator]);
    let records = random.between(400, 4000);
    SourceSketch { format, topic: false, parts: random.between(1, 5), gz: random.once_in(3), records, rate: None }
}

fn source_toml(index: usize, source: &SourceSketch, seed: u64, home: Option<&Home>) -> String {
    if let Some(home) = home.filter(|_| source.topic) {
        let format = match source.format {
            SourceFormat::Csv => "csv\"\ncolumns = [\"k\", \"w\", \"v\", \"f\"]",
            SourceFormat::Lines => "lines\"",
            SourceFormat::Json | SourceFormat::Generator => "json\"",
        };
        let topic = home.input(index);
        return format!(
            "\n[sources.s{index}]\nconnector = \"kafka\"\ntopic = \"{topic}\"\ndiscover_interval = \"50ms\"\nformat = \"{format}\n"
        );
    }
    let rate = source.rate.map_or(String::new(), |rate| format!("rate = {rate}\n"));
    let SourceSketch { parts, records, .. } = source;
    let file = |format: &str| format!("connector = \"file\"\npath = \"in/s{index}-*\"\nformat = \"{format}\"\n");
    let body = match source.format {
        SourceFormat::Json => file("json"),
        SourceFormat::Csv => file("csv"),
        SourceFormat::Lines => file("lines"),
        SourceFormat::Generator => {
            let seed = seed % 1_000_003;
            format!(
                "connector = \"generator\"\ncount = {records}\nkeys = 40\nskew = 0.8\nseed = {seed}\npartitions = {parts}\n"
            )
        }
    };
    format!("\n[sources.s{index}]\n{body}{rate}")
}

/// One to `most` different ones, in their order.
fn some_of(random: &mut Random, from: &[usize], most: u64) -> Vec<usize> {
    let count = random.between(1, most.min(from.len() as u64));
    let mut chosen: Vec<usize> = Vec::new();
    while (chosen.len() as u64) < count {
        let one = *random.pick(from);
        if !chosen.contains(&one) {
            chosen.push(one);
        }
    }
    chosen
}
