//! Topics, records and transactions through librdkafka: in milliseconds, where [`Tools`](super::Tools) take a second.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Isolation;
use crate::until;

/// No call may take longer: a client without a broker tries for ever.
const LIMIT: Duration = Duration::from_secs(60);
/// One look for a record; the limit is for all of them.
const POLL: Duration = Duration::from_millis(100);

/// A record, as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Its partition; where nothing is written, librdkafka chooses.
    pub partition: Option<i32>,
    /// Its offset; nothing before it is written.
    pub offset: Option<i64>,
    /// Milliseconds since 1970; now, where nothing is written.
    pub timestamp: Option<i64>,
    /// Nothing for a record without one.
    pub key: Option<Vec<u8>>,
    /// Nothing for a tombstone.
    pub value: Option<Vec<u8>>,
    /// In order; a header may have no value.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// With a key, for a partition.
    pub fn new(partition: i32, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let [key, value] = [key.as_ref(), value.as_ref()].map(|bytes| Some(bytes.to_vec()));
        Self { partition: Some(partition), key, value, ..Self::default() }
    }

    /// Written at a time, in milliseconds since 1970.
    #[must_use]
    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    fn read(message: &BorrowedMessage<'_>) -> Self {
        let header = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
        Self {
            partition: Some(message.partition()),
            offset: Some(message.offset()),
            timestamp: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: message.headers().iter().flat_map(|headers| headers.iter().map(header)).collect(),
        }
    }
}

/// A client of a cluster that is not the engine's: none of the engine's code is in it.
#[derive(Clone, Debug)]
pub struct Client {
    config: ClientConfig,
}

impl Client {
    /// For a cluster; `properties` are librdkafka's, for one that asks for a password.
    pub fn new(bootstrap: &str, properties: &BTreeMap<String, String>) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        config.extend(properties.clone());
        Self { config }
    }

    /// Makes a topic with as many replicas as the broker's default says.
    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let new =
            settings.iter().fold(NewTopic::new(topic, partitions, TopicReplication::Fixed(-1)), |new, setting| {
                new.set(setting.0, setting.1)
            });
        check_topics(block_on(self.admin().create_topics([&new], &admin_options())));
    }

    /// Gives a topic more partitions: so many in all.
    pub fn add_partitions(&self, topic: &str, partitions: usize) {
        let new = NewPartitions::new(topic, partitions);
        check_topics(block_on(self.admin().create_partitions([&new], &admin_options())));
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, topic: &str) {
        check_topics(block_on(self.admin().delete_topics(&[topic], &admin_options())));
    }

    /// Deletes the records of a partition below an offset, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, below: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(below)).expect("an offset");
        let deleted = block_on(self.admin().delete_records(&offsets, &admin_options())).expect("records of a topic");
        deleted.elements().iter().for_each(|element| element.error().expect("a partition of a topic"));
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config.create().expect("settings of a client")
    }

    /// Gives a topic these settings, and the defaults for all others.
    pub fn set_topic(&self, topic: &str, settings: &[(&str, &str)]) {
        let resource = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let wanted = settings.iter().fold(resource, |wanted, (name, value)| wanted.set(name, value));
        let results =
            block_on(self.admin().alter_configs([&wanted], &admin_options())).expect("an answer of the broker");
        results.into_iter().for_each(|result| drop(result.expect("settings that the broker knows")));
    }

    /// The names of all topics.
    pub fn topics(&self) -> Vec<String> {
        let consumer = self.consumer(Isolation::ReadUncommitted);
        let metadata = consumer.fetch_metadata(None, LIMIT).expect("an answer of the broker");
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    }

    /// Whether there is such a topic.
    pub fn has_topic(&self, topic: &str) -> bool {
        let consumer = self.consumer(Isolation::ReadUncommitted);
        let metadata = consumer.fetch_metadata(Some(topic), LIMIT).expect("an answer of the broker");
        metadata.topics().iter().any(|topic| !topic.partitions().is_empty())
    }

    /// The partitions of a topic, with the offset of the first record and the one behind the last.
    pub fn offsets(&self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        let consumer = self.consumer(Isolation::ReadUncommitted);
        let watermarks =
            |partition| consumer.fetch_watermarks(topic, partition, LIMIT).expect("offsets of a partition");
        self.partitions(&consumer, topic).into_iter().map(|partition| (partition, watermarks(partition))).collect()
    }

    /// The committed positions of a consumer group in a topic.
    pub fn group_positions(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        let consumer: BaseConsumer = self.config.clone().set("group.id", group).create().expect("settings of a client");
        let mut wanted = TopicPartitionList::new();
        self.partitions(&consumer, topic).into_iter().for_each(|partition| {
            wanted.add_partition(topic, partition);
        });
        let mut committed = TopicPartitionList::new();
        // At first the cluster has to find out who keeps them.
        until("positions of a group", || match consumer.committed_offsets(wanted.clone(), LIMIT) {
            Ok(positions) => {
                committed = positions;
                true
            }
            Err(error) => {
                assert!(may_pass(&error), "{group}: {error}");
                false
            }
        });
        let position = |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        };
        committed.elements().into_iter().filter_map(position).collect()
    }

    /// All records of a topic, by partition and offset: from the beginning to what is the end at a moment during the call, for a
    /// committed reader the first offset of an open transaction.
    pub fn read_all(&self, topic: &str, isolation: Isolation) -> Vec<Record> {
        let consumer = self.consumer(isolation);
        let mut open = self.partitions(&consumer, topic);
        let mut assignment = TopicPartitionList::new();
        for partition in &open {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&assignment).expect("partitions of a topic");
        let began = Instant::now();
        let mut records = Vec::new();
        while !open.is_empty() {
            match consumer.poll(POLL) {
                Some(Ok(message)) => records.push(Record::read(&message)),
                Some(Err(KafkaError::PartitionEOF(ended))) => open.retain(|partition| *partition != ended),
                Some(Err(error)) if !may_pass(&error) => panic!("{topic}: {error}"),
                Some(Err(_)) | None => {}
            }
            assert!(began.elapsed() < LIMIT, "{topic}: the end of the partitions {open:?} is not reached");
        }
        records.sort();
        records
    }

    fn partitions(&self, consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
        let metadata = consumer.fetch_metadata(Some(topic), LIMIT).expect("an answer of the broker");
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let partitions: Vec<i32> = partitions.map(|partition| partition.id()).collect();
        assert!(!partitions.is_empty(), "there is no topic {topic}");
        partitions
    }

    fn consumer(&self, isolation: Isolation) -> BaseConsumer {
        let mut config = self.config.clone();
        config.set("enable.partition.eof", "true").set("isolation.level", isolation.as_str());
        // It never joins the group; librdkafka asks for a name all the same.
        config.set("group.id", "thalweg-tests").set("enable.auto.commit", "false").set("check.crcs", "true");
        config.create().expect("settings of a client")
    }

    /// Writes records in their order, and waits until the broker has them.
    pub fn write(&self, topic: &str, records: &[Record]) {
        self.producer(None, &[]).write(topic, records);
    }

    /// A producer; with a transactional id it fences the others of that id, and writes only in transactions.
    pub fn producer(&self, transactional_id: Option<&str>, settings: &[(&str, &str)]) -> Writer {
        let mut config = self.config.clone();
        config.set("enable.idempotence", "true").set("linger.ms", "1");
        if let Some(id) = transactional_id {
            config.set("transactional.id", id);
        }
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let producer: BaseProducer<Refused> =
            config.create_with_context(Refused::default()).expect("settings of a client");
        if transactional_id.is_some() {
            producer.init_transactions(LIMIT).expect("a transactional id");
        }
        Writer { producer }
    }
}

/// Why a record was not taken, of the first that was not.
#[derive(Default)]
struct Refused(Mutex<Option<KafkaError>>);

impl ClientContext for Refused {}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("nobody panics while it is locked").get_or_insert_with(|| error.clone());
        }
    }
}

/// A producer that is not the engine's.
pub struct Writer {
    producer: BaseProducer<Refused>,
}

impl Writer {
    /// Writes records in their order, and waits until the broker has them.
    ///
    /// Panics where it does not take one.
    pub fn write(&self, topic: &str, records: &[Record]) {
        let refused = self.try_write(topic, records).err();
        assert!(refused.is_none(), "{topic}: {refused:?}");
    }

    /// Writes records in their order, and waits until the broker has taken or refused each.
    ///
    /// Errors: why it has refused the first that it refused.
    pub fn try_write(&self, topic: &str, records: &[Record]) -> KafkaResult<()> {
        let began = Instant::now();
        for record in records {
            while !self.enqueued(topic, record) {
                // The queue is full: make room.
                self.producer.poll(POLL);
                assert!(began.elapsed() < LIMIT, "{topic}: the broker does not take records");
            }
        }
        self.producer.flush(LIMIT)?;
        self.producer.context().0.lock().expect("nobody panics while it is locked").take().map_or(Ok(()), Err)
    }

    fn enqueued(&self, topic: &str, record: &Record) -> bool {
        let mut message = BaseRecord::<[u8], [u8]>::to(topic);
        message.partition = record.partition;
        message.timestamp = record.timestamp;
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        let with = |headers: OwnedHeaders, header: &(String, Option<Vec<u8>>)| {
            headers.insert(Header { key: &header.0, value: header.1.as_ref() })
        };
        message.headers = Some(record.headers.iter().fold(OwnedHeaders::new(), with));
        match self.producer.send(message) {
            Ok(()) => true,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => false,
            Err((error, _)) => panic!("{topic}: {error}"),
        }
    }

    /// Begins a transaction.
    pub fn begin(&self) {
        self.producer.begin_transaction().expect("no transaction is open");
    }

    /// Commits the transaction.
    ///
    /// Errors: another producer has taken the transactional id, or the transaction has timed out.
    pub fn commit(&self) -> KafkaResult<()> {
        self.producer.commit_transaction(LIMIT)
    }

    /// Aborts the transaction.
    pub fn abort(&self) {
        self.producer.abort_transaction(LIMIT).expect("an open transaction");
    }
}

/// Whether an error of a client may go by itself: a broker that is starting, or was killed.
fn may_pass(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT))
}

fn check_topics(results: KafkaResult<Vec<TopicResult>>) {
    for result in results.expect("an answer of the broker") {
        result.unwrap_or_else(|(topic, error)| panic!("{topic}: {error}"));
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O").block_on(future)
}
