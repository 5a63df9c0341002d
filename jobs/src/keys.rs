//! Every key of the file, once: validation, the JSON Schema and what is proposed for a slip all read these tables.

/// A key of a table of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// As it would stand in the file.
    pub(crate) default: Option<&'static str>,
    pub(crate) doc: &'static str,
    pub(crate) later: Later,
}

/// Whether this version of the engine does what the key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Later {
    /// It does.
    Never,
    /// It knows the key, and does not do it yet.
    Always,
    /// Another value than this is for a cluster only.
    Cluster(&'static str),
}

/// One of the values of a [`Kind::Choice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) value: &'static str,
    /// Whether this version of the engine does it.
    pub(crate) ready: bool,
}

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    /// `[a-z0-9][a-z0-9-]{0,62}`.
    JobName,
    Choice(&'static [Choice]),
    /// Between two bounds, both included.
    Int(u64, u64),
    /// Between two bounds, both included.
    Float(f64, f64),
    Bool,
    Duration,
    /// A duration, or `"none"`.
    DurationOrNone,
    Bytes,
    /// A text or a list of texts, at least one.
    Texts,
    /// A list of `["tag", "level"]`.
    Biases,
    /// `"earliest"`, `"latest"` or an RFC 3339 time.
    Start,
    /// The same, or a table [`BOUND`].
    Bound,
    /// Partitions of Kafka with offsets.
    Offsets,
    /// One ASCII character.
    Character,
    Table(&'static [Key]),
    /// What a source of Kafka reads first.
    Backfill,
    /// Names with texts or secrets.
    Properties,
    /// A text or a secret.
    Secret,
    /// Tables by id: sources, operators, stores, sinks. Their keys depend on what they use.
    Ids(Member),
}

/// What an id of a section stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    Source,
    Operator,
    Store,
    Sink,
    Stage,
}

/// A connector, with its keys as a source or as a sink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connector {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) ready: bool,
    pub(crate) keys: &'static [Key],
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: false, default: None, doc, later: Later::Never }
}

impl Key {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    const fn later(mut self) -> Self {
        self.later = Later::Always;
        self
    }

    const fn in_cluster(mut self, value: &'static str) -> Self {
        self.later = Later::Cluster(value);
        self
    }
}

const fn ready(value: &'static str) -> Choice {
    Choice { value, ready: true }
}

const fn later(value: &'static str) -> Choice {
    Choice { value, ready: false }
}

/// Most records, threads and the like: a limit against slips.
const MANY: u64 = 1 << 40;

/// Most worker threads of a task.
const MAX_WORKERS: u64 = 256;

pub(crate) const ROOT: &[Key] = &[
    key("version", Kind::Int(1, 1), "Version of this format").required().default("1"),
    key("job", Kind::Table(JOB), "The job as a whole").required(),
    key("kafka", Kind::Table(KAFKA), "How Kafka is reached; only where a kafka connector or changelog is used"),
    key("schema_registry", Kind::Table(SCHEMA_REGISTRY), "Where the schemas of records are that name them by ids"),
    key("sources", Kind::Ids(Member::Source), "Where records come from, by id").required(),
    key("operators", Kind::Ids(Member::Operator), "What is done with them, by id; state belongs to the id"),
    key("stores", Kind::Ids(Member::Store), "The state of the operator of the same id"),
    key("sinks", Kind::Ids(Member::Sink), "Where results go, by id"),
    key("dead_letters", Kind::Table(DEAD_LETTERS), "Where records go that are set aside"),
    key("stages", Kind::Ids(Member::Stage), "Parts of the job with tasks of their own").later(),
];

const ON_ERROR: &[Choice] = &[ready("fail"), ready("drop"), ready("dead-letter")];

pub(crate) const JOB: &[Key] = &[
    key("name", Kind::JobName, "Name of the job: a-z, 0-9 and -, at most 63 characters").required(),
    key("crate", Kind::Text, "The job crate whose operators it uses; absent: built-in operators only"),
    key("crate_version", Kind::Text, "Refused where the binary is of another version of the crate"),
    key("partitions", Kind::Int(1, 65_536), "Key ranges of the job, fixed for the life of its state").default("16"),
    key("workers", Kind::Int(1, MAX_WORKERS), "Worker threads of a task; absent: one for each core"),
    key("tasks", Kind::Int(1, 4096), "Worker processes in a cluster").default("1").in_cluster("1"),
    key("tags", Kind::Texts, "What the tasks of this job are, for placement"),
    key(
        "biases",
        Kind::Biases,
        "Which tags of nodes and tasks to be near or far of, as in [[\"heavy-disk\", \"never\"]]",
    ),
    key("standbys", Kind::Int(0, 16), "Extra copies of the state on other nodes").default("0").in_cluster("0"),
    key("delivery", Kind::Choice(&[ready("exactly-once"), ready("at-least-once")]), "What sinks promise")
        .default("\"exactly-once\""),
    key("on_error", Kind::Choice(ON_ERROR), "What is done with a record that fails").default("\"fail\""),
    key("epoch", Kind::Table(EPOCH), "How input is cut into epochs"),
    key("checkpoint", Kind::Table(CHECKPOINT), "When state is made durable"),
    key("state", Kind::Table(STATE), "How state is kept"),
];

pub(crate) const EPOCH: &[Key] = &[
    key(
        "interval",
        Kind::DurationOrNone,
        "How long an epoch is open; \"none\": cut by records and bytes alone, bounded sources only",
    )
    .default("\"20ms\""),
    key("max_records", Kind::Int(1, MANY), "Most records of one source partition in an epoch").default("100_000"),
    key("max_bytes", Kind::Bytes, "Most bytes of one source partition in an epoch").default("\"64MiB\""),
];

pub(crate) const CHECKPOINT: &[Key] =
    &[key("interval", Kind::Duration, "From the start of one checkpoint to the start of the next").default("\"1s\"")];

pub(crate) const STATE: &[Key] =
    &[key("memory", Kind::Bytes, "Memory for the values of all stores of a task; what is beyond is on disk")
        .default("\"256MiB\"")];

pub(crate) const KAFKA: &[Key] = &[
    key("bootstrap_servers", Kind::Text, "Where the brokers are: \"host:port\", several with commas between")
        .required(),
    key("properties", Kind::Properties, "Passed to librdkafka as they are; secrets by { env = … } or { file = … }"),
    key("replication", Kind::Int(1, 1000), "Copies of each topic that the job makes; absent: the broker's default"),
    key("wait", Kind::Duration, "How long a broker that is away is waited for before the job fails").default("\"60s\""),
    key(
        "transaction_timeout",
        Kind::Duration,
        "After which the broker aborts a transaction that nobody ends; until then it holds back its readers",
    )
    .default("\"10s\""),
];

pub(crate) const SCHEMA_REGISTRY: &[Key] = &[
    key("url", Kind::Text, "Where it is, such as \"http://localhost:8081\" or \"https://registry:8081\"").required(),
    key(
        "ca",
        Kind::Text,
        "With https: a file (PEM) with the certificates of who may have signed its own; absent: whom the system trusts",
    ),
    key("user", Kind::Text, "The user, where it asks for one"),
    key("password", Kind::Secret, "The user's password; as a secret by { env = … } or { file = … }"),
    key("wait", Kind::Duration, "How long a registry that is away is waited for before the job fails")
        .default("\"60s\""),
];

pub(crate) const DEAD_LETTERS: &[Key] = &[
    key("connector", Kind::Choice(&[ready("log"), ready("kafka")]), "What they are written to").default("\"log\""),
    key("topic", Kind::Text, "The topic; absent: dead-letters-ID, with the id of the job"),
    LOG_PATH,
];

const FORMATS: &[Choice] = &[ready("json"), ready("lines"), ready("csv"), ready("raw")];

const RECORD_FORMATS: &[Choice] =
    &[ready("json"), ready("lines"), ready("csv"), ready("raw"), ready("avro"), ready("protobuf")];

pub(crate) const SOURCE: &[Key] = &[
    key("connector", Kind::Text, "What it reads from").required(),
    key("rate", Kind::Int(1, MANY), "Most records per second"),
    key("start", Kind::Bound, "Where it begins when there is no checkpoint yet").default("\"earliest\""),
    key("time", Kind::Table(TIME), "When the event of a record was; absent: when the record came in").later(),
];

/// Of sources and sinks whose records are bytes.
pub(crate) const FORMAT: &[Key] =
    &[key("format", Kind::Choice(FORMATS), "How a record is written").default("\"json\"")];

/// Of a sink of Kafka.
pub(crate) const SINK_RECORD_FORMAT: &[Key] =
    &[key("format", Kind::Choice(RECORD_FORMATS), "How a record is written").default("\"json\"")];

/// Of a sink with `format = "avro"` or `"protobuf"`.
pub(crate) const SINK_SCHEMA: &[Key] = &[
    key("schema_file", Kind::Text, "The schema of all its records, a file .avsc or .proto"),
    key("message", Kind::Text, "With Protobuf: the full name of the type of all its records"),
    key("subject", Kind::Text, "What the schema registry has the schema under; absent: the topic and -value"),
];

/// Of a sink of Kafka with `key_format = "avro"` or `"protobuf"`.
pub(crate) const SINK_KEY_SCHEMA: &[Key] = &[
    key("key_schema_file", Kind::Text, "The schema of all keys, a file .avsc or .proto"),
    key("key_message", Kind::Text, "With keys in Protobuf: the full name of their type"),
    key("key_subject", Kind::Text, "What the schema registry has the schema of keys under; absent: the topic and -key"),
];

/// Of a source of Kafka with `key_format = "avro"` or `"protobuf"`.
pub(crate) const KEY_SCHEMA: &[Key] = &[
    key("key_schema_file", Kind::Text, "The schema of all keys; absent: the schema registry has them, by their ids"),
    key("key_message", Kind::Text, "With a schema file of Protobuf: the full name of the type of all keys"),
    key(
        "key_framing",
        Kind::Choice(&[ready("none"), ready("confluent")]),
        "What stands in front of a key, as framing says it of a record",
    ),
];

/// Of a source whose records are bytes of their own, and no parts of a text.
pub(crate) const RECORD_FORMAT: &[Key] =
    &[key("format", Kind::Choice(RECORD_FORMATS), "How a record is written").default("\"json\"")];

/// Of a source with a format that needs schemas.
pub(crate) const SCHEMA: &[Key] = &[
    key("schema_file", Kind::Text, "The schema of all its records; absent: the schema registry has them, by their ids"),
    key("message", Kind::Text, "With a schema file of Protobuf: the full name of the type of all its records"),
    key(
        "framing",
        Kind::Choice(&[ready("none"), ready("confluent")]),
        "What stands in front of a record; with a schema file \"none\" unless it says \"confluent\": a zero byte and the id of the schema",
    ),
    key(
        "decimals",
        Kind::Choice(&[ready("number"), ready("text")]),
        "Decimals of Avro as the nearest number, or as text with all digits",
    )
    .default("\"number\""),
];

/// Of a source with `format = "csv"`.
pub(crate) const CSV: &[Key] = &[
    key("delimiter", Kind::Character, "Between two cells").default("\",\""),
    key("quote", Kind::Character, "Around cells with delimiters in them").default("\"\\\"\""),
    key("columns", Kind::Texts, "Names of the columns where there is no header"),
    key("multiline", Kind::Bool, "Whether a quoted cell may hold line ends; false lets workers share a large file")
        .default("true"),
];

const TIME: &[Key] = &[
    key("field", Kind::Text, "The field with the time").required(),
    key("max_out_of_orderness", Kind::Duration, "How late a record may be").default("\"0s\""),
    key("idle_timeout", Kind::Duration, "After which a silent partition is not waited for"),
];

const LONGEST: Key = key("max_record_bytes", Kind::Bytes, "Longest record").default("\"16MiB\"");
const TOPIC: Key = key("topic", Kind::Text, "The topic").required();
const LOG_PATH: Key = key("path", Kind::Text, "The folder of the log; absent: the job's own, in its data");

const ONE_TOPIC: Key = key("topic", Kind::Text, "The topic; or `topics` or `topic_pattern`");
const TOPICS: Key = key("topics", Kind::Texts, "Several topics");
const TOPIC_PATTERN: Key =
    key("topic_pattern", Kind::Text, "All topics whose name this regular expression finds, such as \"^orders-\"");

const KAFKA_SOURCE: &[Key] = &[
    ONE_TOPIC,
    TOPICS,
    TOPIC_PATTERN,
    key("group", Kind::Text, "The consumer group that shows positions and lag; absent: thalweg- and the job's name"),
    key(
        "on_data_loss",
        Kind::Choice(&[ready("fail"), ready("skip")]),
        "Where records were dropped before they were read",
    )
    .default("\"fail\""),
    key("backfill", Kind::Backfill, "What is read before the topics, to its end"),
    key(
        "discover_interval",
        Kind::DurationOrNone,
        "How often to look for partitions and topics that have come; \"none\": never",
    )
    .default("\"30s\""),
    key("include", Kind::Table(INCLUDE), "Names of fields for what stands beside the value of a record"),
    key(
        "key_format",
        Kind::Choice(&[ready("text"), ready("json"), ready("raw"), ready("avro"), ready("protobuf")]),
        "How a key that is included is written",
    )
    .default("\"text\""),
];

pub(crate) const BOUND: &[Key] = &[
    key("offsets", Kind::Offsets, "Offsets by partition, as in { 0 = 120, 1 = 95 } or { \"orders/0\" = 120 }")
        .required(),
    key("other", Kind::Start, "For partitions without an offset; absent: each has to have one"),
];

pub(crate) const INCLUDE: &[Key] = &[
    key("key", Kind::Text, "Field for the key"),
    key("timestamp", Kind::Text, "Field for the time of the record"),
    key("headers", Kind::Text, "Field for the headers, a map of texts"),
    key("topic", Kind::Text, "Field for the topic"),
    key("partition", Kind::Text, "Field for the partition of the topic"),
    key("offset", Kind::Text, "Field for the offset"),
    key("tombstone", Kind::Text, "Field that says whether the value is missing; without it such records are left out"),
];

const PATHS: Key =
    key("path", Kind::Texts, "Files or patterns such as \"in/*.csv.gz\", relative to this file").required();

/// Of what a source of Kafka reads first.
pub(crate) const BACKFILL: &[Key] = &[key("connector", Kind::Text, "What it reads from").required()];

pub(crate) const BACKFILL_CONNECTORS: &[Connector] = &[
    Connector { name: "file", doc: "Files", ready: true, keys: &[PATHS, LONGEST] },
    Connector {
        name: "kafka",
        doc: "Topics of Kafka",
        ready: true,
        keys: &[
            ONE_TOPIC,
            TOPICS,
            TOPIC_PATTERN,
            key("start", Kind::Bound, "Where it begins").default("\"earliest\""),
            key("end", Kind::Bound, "Where it ends, when the job is created").default("\"latest\""),
        ],
    },
];

pub(crate) const SOURCE_CONNECTORS: &[Connector] = &[
    Connector {
        name: "file",
        doc: "Files",
        ready: true,
        keys: &[
            PATHS,
            key("follow", Kind::Bool, "Whether to go on reading what is appended, through rotations").default("false"),
            LONGEST,
        ],
    },
    Connector {
        name: "generator",
        doc: "Made-up records {\"n\", \"key\", \"value\"}",
        ready: true,
        keys: &[
            key("count", Kind::Int(1, MANY), "How many records; absent: without end"),
            key("keys", Kind::Int(1, MANY), "How many different keys").default("1000"),
            key("skew", Kind::Float(0.0, 10.0), "Exponent of the Zipf distribution of keys; 0: all alike")
                .default("0.0"),
            key("seed", Kind::Int(0, i64::MAX as u64), "Another seed, other records").default("0"),
            key("partitions", Kind::Int(1, 1024), "Source partitions").default("1"),
        ],
    },
    Connector { name: "log", doc: "A topic of the embedded log", ready: true, keys: &[LOG_PATH, TOPIC] },
    Connector { name: "kafka", doc: "Topics of Kafka", ready: true, keys: KAFKA_SOURCE },
    Connector { name: "http", doc: "Records posted to the job", ready: false, keys: &[] },
    Connector {
        name: "stdin",
        doc: "Standard input; its lines are kept in the job's log first",
        ready: true,
        keys: &[LONGEST],
    },
];

pub(crate) const SINK: &[Key] = &[
    key("connector", Kind::Text, "What it writes to").required(),
    key("inputs", Kind::Texts, "Sources or operators that it reads").required(),
    key(
        "emit",
        Kind::Choice(&[ready("updates"), later("final"), later("changes")]),
        "\"updates\" each epoch, \"final\" when a window closes, \"changes\" with +1 and -1",
    )
    .default("\"updates\""),
];

pub(crate) const SINK_CONNECTORS: &[Connector] = &[
    Connector {
        name: "file",
        doc: "A folder with one file per partition, or one file",
        ready: true,
        keys: &[
            key("path", Kind::Text, "The folder, or with `single` the file; relative to this file").required(),
            key("single", Kind::Bool, "One file in (epoch, partition, sequence) order").default("false"),
        ],
    },
    Connector { name: "stdout", doc: "Standard output", ready: true, keys: &[] },
    Connector { name: "blackhole", doc: "Nothing, for measurements", ready: true, keys: &[] },
    Connector {
        name: "log",
        doc: "A topic of the embedded log",
        ready: true,
        keys: &[
            LOG_PATH,
            TOPIC,
            key("partitions", Kind::Int(1, 65_536), "Partitions of the topic; absent: as many as it has, or as the job has where it is made"),
        ],
    },
    Connector {
        name: "kafka",
        doc: "A topic of Kafka",
        ready: true,
        keys: &[
            TOPIC,
            key("partitions", Kind::Int(1, 65_536), "Partitions of the topic; absent: as many as it has, or as the job has where it is made"),
            key("key", Kind::Texts, "The field or fields that become the record's key; absent: the key of the operator that it reads"),
            key("keyed", Kind::Bool, "Whether records have a key").default("true"),
            key(
                "key_format",
                Kind::Choice(&[ready("text"), ready("avro"), ready("protobuf")]),
                "How the key is written; \"text\": one field as its text, several as a list in JSON",
            )
            .default("\"text\""),
            key(
                "partitioner",
                Kind::Choice(&[ready("key"), ready("job-partition")]),
                "\"key\": as other clients do, murmur2 of the key; \"job-partition\": partition p of the job to p modulo their number",
            )
            .default("\"key\""),
            key("partition", Kind::Text, "A field with the partition of the topic, instead"),
            key("headers", Kind::Texts, "Fields that become headers of the same names"),
            key("tombstone", Kind::Text, "A field that says, where it is true, that the record deletes its key"),
        ],
    },
    Connector { name: "http", doc: "Requests to a service", ready: false, keys: &[] },
];

/// The key `format` of a source.
pub(crate) fn source_format(connector: &str) -> &'static [Key] {
    match connector {
        "kafka" | "log" => RECORD_FORMAT,
        "generator" => &[],
        _ => FORMAT,
    }
}

/// The keys of a source with a format that needs schemas, where its records may have one.
pub(crate) fn source_schema(connector: &str) -> &'static [Key] {
    match connector {
        "kafka" | "log" => SCHEMA,
        _ => &[],
    }
}

/// The keys of a sink with a format that needs a schema, where its records may have one.
pub(crate) fn sink_schema(connector: &str) -> &'static [Key] {
    match connector {
        "kafka" => SINK_SCHEMA,
        _ => &[],
    }
}

/// The keys of a source whose keys have a schema, where they may.
pub(crate) fn source_key_schema(connector: &str) -> &'static [Key] {
    if connector == "kafka" { KEY_SCHEMA } else { &[] }
}

/// The keys of a sink whose keys have a schema, where they may.
pub(crate) fn sink_key_schema(connector: &str) -> &'static [Key] {
    if connector == "kafka" { SINK_KEY_SCHEMA } else { &[] }
}

/// The key `format` of a sink.
pub(crate) fn sink_format(connector: &str) -> &'static [Key] {
    match connector {
        "kafka" => SINK_RECORD_FORMAT,
        "blackhole" => &[],
        _ => FORMAT,
    }
}

pub(crate) const OPERATOR: &[Key] = &[
    key("uses", Kind::Text, "A built-in operator, or one of the job crate such as \"orders::Totals\"").required(),
    key("inputs", Kind::Texts, "Sources or operators that it reads").required(),
    key("key", Kind::Texts, "The field or fields that it groups by"),
    key("on_error", Kind::Choice(ON_ERROR), "As the job's, for this operator"),
];

pub(crate) const STORE: &[Key] = &[
    key("ttl", Kind::Duration, "After which an untouched key goes").later(),
    key(
        "changelog",
        Kind::Choice(&[ready("none"), ready("log"), ready("kafka")]),
        "Where changes are kept beyond the local disk",
    )
    .default("\"none\""),
    key("query", Kind::Bool, "Whether it may be read from outside").default("true"),
];
