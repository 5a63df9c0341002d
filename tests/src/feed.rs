//! Topics that the sources of a job read: written while it runs, in transactions of which some are aborted, and given more
//! partitions meanwhile.

use std::time::Duration;

use crate::kafka::{Client, Record, Writer};
use crate::sketch::JobSketch;
use crate::{Home, Random, input, until};

/// How many times something is written to each topic.
const STEPS: u64 = 12;
/// When a topic gets one more partition.
const GROWS_AT: [u64; 2] = [3, 7];

/// What is written to the topics of a job.
pub(crate) struct Feed {
    client: Client,
    topics: Vec<Topic>,
    random: Random,
}

struct Topic {
    name: String,
    source: usize,
    partitions: u64,
    values: Vec<String>,
    writer: Writer,
}

impl Feed {
    /// Makes the topics, which are empty.
    pub(crate) fn new(job: &JobSketch, home: &Home) -> Self {
        let client = home.client().clone();
        let topic = |(source, values): (usize, Vec<String>)| {
            let (name, partitions) = (home.input(source), job.sources[source].parts);
            client.create_topic(&name, i32::try_from(partitions).expect("few partitions"), &[]);
            let writer = client.producer(Some(&name), &[]);
            Topic { name, source, partitions, values, writer }
        };
        let topics = input::of_topics(job).into_iter().map(topic).collect();
        Self { topics, random: Random::new(job.seed ^ 0x6665_6564), client }
    }

    /// How many records the topics of each source have in the end.
    pub(crate) fn records(&self) -> Vec<(usize, u64)> {
        self.topics.iter().map(|topic| (topic.source, topic.values.len() as u64)).collect()
    }

    /// Writes everything, over about so long.
    pub(crate) fn run(mut self, life: Duration) {
        for step in 0..STEPS {
            for topic in &mut self.topics {
                if GROWS_AT.contains(&step) {
                    topic.grow(&self.client);
                }
                topic.write(step, &mut self.random);
            }
            std::thread::sleep(life / STEPS as u32);
        }
    }
}

impl Topic {
    fn grow(&mut self, client: &Client) {
        self.partitions += 1;
        let partitions = usize::try_from(self.partitions).expect("few partitions");
        client.add_partitions(&self.name, partitions);
        until("a partition more", || client.offsets(&self.name).len() == partitions);
        // One that has not heard of it would refuse to write there.
        self.writer = client.producer(Some(&self.name), &[]);
    }

    fn write(&self, step: u64, random: &mut Random) {
        let all = self.values.len() as u64;
        let part = (all * step / STEPS) as usize..(all * (step + 1) / STEPS) as usize;
        let record = |value: &String| {
            let partition = i32::try_from(random.below(self.partitions)).expect("few partitions");
            Record { key: None, ..Record::new(partition, "", value) }
        };
        let records: Vec<Record> = self.values[part].iter().map(record).collect();
        if random.once_in(3) {
            self.writer.begin();
            self.writer.write(&self.name, &records);
            self.writer.abort();
        }
        self.writer.begin();
        self.writer.write(&self.name, &records);
        self.writer.commit().expect("nobody else has this id");
    }
}
