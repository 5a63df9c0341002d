//! Records as Kafka's own programs print and read them: text.

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// What was committed, up to the first transaction that is open.
    ReadCommitted,
    /// Everything, also what was aborted.
    ReadUncommitted,
}

impl Isolation {
    /// As the setting `isolation.level` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// A record for Kafka's own producer. Key, value and headers are text without tab, line feed, comma or colon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenRecord {
    /// Nothing for a record without one.
    pub key: Option<String>,
    /// Nothing for a tombstone.
    pub value: Option<String>,
    /// In order.
    pub headers: Vec<(String, String)>,
}

impl WrittenRecord {
    /// Without headers.
    pub fn new(key: &str, value: &str) -> Self {
        Self { key: Some(key.to_owned()), value: Some(value.to_owned()), headers: Vec::new() }
    }

    /// A tombstone.
    pub fn tombstone(key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..Self::default() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn line(&self) -> String {
        let text = |part: &Option<String>| part.clone().unwrap_or_else(|| NULL.to_owned());
        let headers: Vec<String> = self.headers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        let headers = if headers.is_empty() { NULL.to_owned() } else { headers.join(",") };
        format!("{headers}\t{}\t{}\n", text(&self.key), text(&self.value))
    }
}

/// A record that Kafka's own consumer read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970: of its creation, or where the topic says so of its append.
    pub timestamp: i64,
    /// Nothing for a record without one.
    pub key: Option<String>,
    /// Nothing for a tombstone.
    pub value: Option<String>,
    /// In order.
    pub headers: Vec<(String, String)>,
}

/// How nothing is written and printed.
pub(super) const NULL: &str = "<null>";

impl ReadRecord {
    /// From a line `CreateTime:…⇥Partition:…⇥Offset:…⇥headers⇥key⇥value`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(6, '\t');
        let mut next = || parts.next();
        let timestamp = next()?.split_once(':')?.1.parse().ok()?;
        let partition = next()?.strip_prefix("Partition:")?.parse().ok()?;
        let offset = next()?.strip_prefix("Offset:")?.parse().ok()?;
        let headers = match next()? {
            "NO_HEADERS" => Vec::new(),
            headers => headers.split(',').map(header).collect::<Option<_>>()?,
        };
        let text = |part: &str| (part != NULL).then(|| part.to_owned());
        Some(Self { partition, offset, timestamp, headers, key: text(next()?), value: text(next()?) })
    }
}

fn header(text: &str) -> Option<(String, String)> {
    text.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()))
}
