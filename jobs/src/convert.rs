//! From items of the file to values; what does not fit is told as "takes …".

use std::time::Duration;

use jiff::Timestamp;
use thalweg_connectors::log::Start;
use thalweg_core::{JobName, PartitionId, parse_bytes, parse_duration};
use thalweg_operators::ConfigKind;

use crate::document::{Entry, Item, ItemKind};
use crate::keys::{Choice, Kind};
use crate::spec::BiasLevel;

/// Why a value does not fit.
pub(crate) struct Mismatch {
    /// Fits behind the name of the key: `takes a duration such as "20ms"`.
    pub(crate) takes: String,
}

type Fit<T> = Result<T, Mismatch>;

fn takes<T>(what: impl Into<String>) -> Fit<T> {
    Err(Mismatch { takes: format!("takes {}", what.into()) })
}

pub(crate) fn text(item: &Item) -> Fit<String> {
    match item.text() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => takes("a text"),
    }
}

pub(crate) fn int(item: &Item, least: u64, most: u64) -> Fit<u64> {
    let range = || match most {
        most if most >= 1 << 40 => format!("a whole number of at least {least}"),
        most if least == most => format!("the number {least}"),
        most => format!("a whole number from {least} to {most}"),
    };
    match &*item.read() {
        ItemKind::Int(int) => match u64::try_from(*int) {
            Ok(value) if (least..=most).contains(&value) => Ok(value),
            _ => takes(range()),
        },
        _ => takes(range()),
    }
}

pub(crate) fn float(item: &Item) -> Fit<f64> {
    match &*item.read() {
        ItemKind::Int(int) => Ok(*int as f64),
        ItemKind::Float(float) if float.is_finite() => Ok(*float),
        _ => takes("a number"),
    }
}

pub(crate) fn bool(item: &Item) -> Fit<bool> {
    match &*item.read() {
        ItemKind::Bool(bool) => Ok(*bool),
        _ => takes("true or false"),
    }
}

pub(crate) fn duration(item: &Item) -> Fit<Duration> {
    match item.text().map(parse_duration) {
        Some(Ok(duration)) if !duration.is_zero() => Ok(duration),
        Some(Ok(_)) => takes("a duration above 0"),
        _ => takes("a duration such as \"20ms\", \"5s\" or \"7d\""),
    }
}

pub(crate) fn duration_or_none(item: &Item) -> Fit<Option<Duration>> {
    if item.text() == Some("none") {
        return Ok(None);
    }
    match duration(item) {
        Ok(duration) => Ok(Some(duration)),
        Err(_) => takes("a duration such as \"20ms\", or \"none\""),
    }
}

pub(crate) fn bytes(item: &Item) -> Fit<u64> {
    match item.text().map(parse_bytes) {
        Some(Ok(bytes)) if bytes > 0 => Ok(bytes),
        Some(Ok(_)) => takes("a size above 0"),
        _ => takes("a size such as \"64KiB\" or \"1GiB\""),
    }
}

/// A text, or a list of texts; at least one, none of them empty.
pub(crate) fn texts(item: &Item) -> Fit<Vec<String>> {
    let list = match &*item.read() {
        ItemKind::List(list) => list.iter().map(text).collect::<Fit<Vec<_>>>(),
        _ => text(item).map(|text| vec![text]),
    };
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => takes("a text or a list of texts, at least one"),
    }
}

pub(crate) fn character(item: &Item) -> Fit<u8> {
    match item.text().map(str::as_bytes) {
        Some([byte]) if byte.is_ascii() => Ok(*byte),
        _ => takes("one ASCII character"),
    }
}

pub(crate) fn start(item: &Item) -> Fit<Start> {
    let read = item.read();
    let text = match &*read {
        ItemKind::Time(time) => Some(time.as_str()),
        _ => item.text(),
    };
    let time = |text: &str| text.parse().ok().map(|time: Timestamp| Start::Time(time.as_microsecond()));
    match text {
        Some("earliest") => Ok(Start::Earliest),
        Some("latest") => Ok(Start::Latest),
        text => text
            .and_then(time)
            .map_or_else(|| takes("\"earliest\", \"latest\" or a time such as \"2026-01-31T00:00:00Z\""), Ok),
    }
}

/// Partitions with offsets: each by its number, or as `topic/number`.
pub(crate) fn offsets(item: &Item) -> Fit<Vec<(Option<String>, PartitionId, u64)>> {
    let wrong = || takes("partitions with offsets, such as { 0 = 120, 1 = 95 } or { \"orders/0\" = 120 }");
    let ItemKind::Table(table) = &item.kind else { return wrong() };
    let entry = |entry: &Entry| {
        let (topic, number) = match entry.name.rsplit_once('/') {
            Some((topic, number)) => (Some(topic.to_owned()), number),
            None => (None, &*entry.name),
        };
        Some((topic, PartitionId(number.parse().ok()?), int(&entry.item, 0, i64::MAX as u64).ok()?))
    };
    let mut offsets = Vec::new();
    for one in &table.entries {
        match entry(one) {
            Some(offset) => offsets.push(offset),
            None => {
                return takes(format!(
                    "partitions with offsets, such as {{ 0 = 120, 1 = 95 }} or {{ \"orders/0\" = 120 }}; {:?} with {} is none",
                    &*one.name,
                    one.item.describe()
                ));
            }
        }
    }
    if offsets.is_empty() { wrong() } else { Ok(offsets) }
}

pub(crate) fn choice(item: &Item, choices: &[Choice]) -> Fit<&'static str> {
    let found = item.text().and_then(|text| choices.iter().find(|choice| choice.value == text));
    match found {
        Some(choice) => Ok(choice.value),
        None => {
            let values: Vec<_> = choices.iter().map(|choice| format!("{:?}", choice.value)).collect();
            takes(format!("one of {}", values.join(", ")))
        }
    }
}

pub(crate) fn biases(item: &Item) -> Fit<Vec<(String, BiasLevel)>> {
    let wrong = || {
        takes(
            "a list of pairs such as [[\"heavy-disk\", \"never\"]], of a tag and always, prefer, neutral, avoid or never",
        )
    };
    let ItemKind::List(list) = &*item.read() else { return wrong() };
    let pair = |item: &Item| match &item.kind {
        ItemKind::List(pair) => match &**pair {
            [tag, level] => tag.text().map(str::to_owned).zip(level.text().and_then(BiasLevel::named)),
            _ => None,
        },
        _ => None,
    };
    match list.iter().map(pair).collect::<Option<Vec<_>>>() {
        Some(pairs) => Ok(pairs),
        None => wrong(),
    }
}

/// Whether the value is of that kind. Tables are looked into by whoever reads them.
pub(crate) fn check(kind: Kind, item: &Item) -> Fit<()> {
    match kind {
        Kind::Text => text(item).map(drop),
        Kind::JobName => match text(item).map(JobName::new) {
            Ok(Ok(_)) => Ok(()),
            _ => takes("a-z, 0-9 and -, at most 63 characters, no - in front"),
        },
        Kind::Choice(choices) => choice(item, choices).map(drop),
        Kind::Int(least, most) => int(item, least, most).map(drop),
        Kind::Float(least, most) => match float(item) {
            Ok(float) if (least..=most).contains(&float) => Ok(()),
            _ => takes(format!("a number from {least} to {most}")),
        },
        Kind::Bool => bool(item).map(drop),
        Kind::Duration => duration(item).map(drop),
        Kind::DurationOrNone => duration_or_none(item).map(drop),
        Kind::Bytes => bytes(item).map(drop),
        Kind::Texts => texts(item).map(drop),
        Kind::Biases => biases(item).map(drop),
        Kind::Start => start(item).map(drop),
        // What is in the table is looked at with the topics.
        Kind::Bound if matches!(item.kind, ItemKind::Table(_)) => Ok(()),
        Kind::Bound => match start(item) {
            Ok(_) => Ok(()),
            Err(_) => takes(
                "\"earliest\", \"latest\", a time such as \"2026-01-31T00:00:00Z\", or offsets of Kafka: { offsets = { 0 = 120 } }",
            ),
        },
        Kind::Offsets => offsets(item).map(drop),
        Kind::Character => character(item).map(drop),
        Kind::Table(_) | Kind::Backfill | Kind::Ids(_) => match item.kind {
            ItemKind::Table(_) => Ok(()),
            _ => takes("a table"),
        },
        Kind::Secret => match is_property(item) {
            true => Ok(()),
            false => takes("a text, { env = \"NAME\" } or { file = \"path\" }"),
        },
        Kind::Properties => match &item.kind {
            ItemKind::Table(table) => match table.entries.iter().find(|entry| !is_property(&entry.item)) {
                None => Ok(()),
                Some(entry) => takes(format!(
                    "names with texts, {{ env = \"NAME\" }} or {{ file = \"path\" }}, and {:?} is none of them; a name with dots stands in quotes, as \"security.protocol\"",
                    &*entry.name
                )),
            },
            _ => takes("names with texts, { env = \"NAME\" } or { file = \"path\" }"),
        },
    }
}

/// A value that stands for a text, as it is written.
pub(crate) fn plain(item: &Item) -> String {
    match &item.kind {
        ItemKind::Text(text) | ItemKind::Loose(text) | ItemKind::Time(text) => text.clone(),
        ItemKind::Int(int) => int.to_string(),
        ItemKind::Float(float) => float.to_string(),
        ItemKind::Bool(bool) => bool.to_string(),
        ItemKind::List(_) | ItemKind::Table(_) => String::new(),
    }
}

fn is_property(item: &Item) -> bool {
    match &item.kind {
        ItemKind::Table(table) => {
            matches!(&*table.entries, [entry] if matches!(&*entry.name, "env" | "file") && entry.item.text().is_some())
        }
        ItemKind::List(_) => false,
        ItemKind::Text(_)
        | ItemKind::Loose(_)
        | ItemKind::Int(_)
        | ItemKind::Float(_)
        | ItemKind::Bool(_)
        | ItemKind::Time(_) => true,
    }
}

/// Why a value is not what an operator's key takes.
pub(crate) fn operator_takes(kind: ConfigKind) -> Mismatch {
    Mismatch { takes: format!("takes {}", kind.describe()) }
}
