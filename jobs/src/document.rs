//! The parsed file: TOML with the place of everything in it, and what the environment and the flags put over it.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Diagnostics, SourceText};

/// A job file that is TOML. What it says is not checked yet.
#[derive(Clone, Debug)]
pub struct Document {
    pub(crate) source: Arc<SourceText>,
    pub(crate) root: Table,
    /// Mistakes in what was put over it.
    pub(crate) problems: Vec<Diagnostic>,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// In the file.
    File(Range<usize>),
    /// In a variable of the environment or a flag, by its name.
    Outside(Arc<str>),
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) kind: ItemKind,
    pub(crate) at: At,
}

/// A value.
#[derive(Clone, Debug)]
pub(crate) enum ItemKind {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Time(String),
    List(Vec<Item>),
    Table(Table),
    /// Text from outside of the file: what it means depends on the key that it is for.
    Loose(String),
}

/// Named values, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) name_at: At,
    pub(crate) item: Item,
}

/// Largest job file, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Prefix of the variables that stand over the file.
const PREFIX: &str = "THALWEG__";

/// Reads a job file.
///
/// `file` names it in messages, and its folder is what paths in the file are relative to.
///
/// # Errors
/// Everything that is no TOML.
///
/// ```
/// use thalweg_jobs::{Catalogue, parse, validate};
/// let document = parse("version = 1\n[job]\nname = \"Orders\"\n", "orders.toml").unwrap();
/// let problems = validate(&document, &Catalogue::built_in()).unwrap_err();
/// assert!(problems.render(false).contains("orders.toml:3:8"));
/// ```
pub fn parse(text: &str, file: impl AsRef<Path>) -> Result<Document, Diagnostics> {
    let file = file.as_ref();
    let base =
        file.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or_else(PathBuf::new, Path::to_path_buf);
    let source = Arc::new(SourceText { file: file.display().to_string(), base, text: text.to_owned() });
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes; a job file has at most {MAX_BYTES}", text.len());
        return Err(Diagnostics::new(source, vec![Diagnostic::error("file-size", message)]));
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Document { root: table(root.get_ref()), source, problems: Vec::new() });
    }
    let problem = |error: &toml::de::Error| {
        let problem = Diagnostic::error("toml", error.message().to_owned());
        match error.span() {
            Some(span) => problem.at(&At::File(span), ""),
            None => problem,
        }
    };
    Err(Diagnostics::new(source, errors.iter().map(problem).collect()))
}

/// Puts the variables `THALWEG__SECTION__KEY` over the file: `THALWEG__JOB__PARTITIONS=4`,
/// `THALWEG__SOURCES__ORDERS__PATH=orders.csv`. Names are found whatever their case, and with `_` for `-`. Other variables are left alone.
pub fn apply_environment(document: &mut Document, variables: impl IntoIterator<Item = (String, String)>) {
    let mut variables: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (name, value) in variables {
        let path: Vec<_> = name[PREFIX.len()..].split("__").map(str::to_owned).collect();
        document.set(&name, &path.iter().map(String::as_str).collect::<Vec<_>>(), &value);
    }
}

impl Document {
    /// Puts a value over the one at `path`, as in `["job", "workers"]`; `origin` names the flag or variable in messages.
    pub fn set(&mut self, origin: &str, path: &[&str], value: &str) {
        let at = At::Outside(origin.into());
        let Some((last, sections)) = path.split_last().filter(|(last, _)| !last.is_empty()) else {
            let problem = Diagnostic::error("environment", format!("{origin} names no key"));
            self.problems.push(problem.help("write it as THALWEG__JOB__PARTITIONS"));
            return;
        };
        let mut table = &mut self.root;
        for section in sections {
            let entry = table.entry(section, &at);
            match &mut entry.item.kind {
                ItemKind::Table(inner) => table = inner,
                _ => {
                    let message = format!("{origin}: {:?} is a value, and has no keys", entry.name);
                    self.problems.push(Diagnostic::error("environment", message));
                    return;
                }
            }
        }
        table.entry(last, &at).item = Item { kind: ItemKind::Loose(value.to_owned()), at: at.clone() };
    }

    /// The name of the file.
    pub fn file(&self) -> &str {
        &self.source.file
    }
}

impl Table {
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The entry of that name, made as an empty table where it is missing.
    fn entry(&mut self, name: &str, at: &At) -> &mut Entry {
        let plain = |name: &str| name.to_lowercase().replace('-', "_");
        let wanted = plain(name);
        let index = self.entries.iter().position(|entry| plain(&entry.name) == wanted).unwrap_or_else(|| {
            let item = Item { kind: ItemKind::Table(Table::default()), at: at.clone() };
            self.entries.push(Entry { name: name.to_lowercase(), name_at: at.clone(), item });
            self.entries.len() - 1
        });
        &mut self.entries[index]
    }
}

impl Item {
    /// What it is, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            ItemKind::Text(text) | ItemKind::Loose(text) => format!("the text {text:?}"),
            ItemKind::Int(int) => format!("the number {int}"),
            ItemKind::Float(float) => format!("the number {float:?}"),
            ItemKind::Bool(bool) => format!("{bool}"),
            ItemKind::Time(time) => format!("the time {time}"),
            ItemKind::List(_) => "a list".to_owned(),
            ItemKind::Table(_) => "a table".to_owned(),
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            ItemKind::Text(text) | ItemKind::Loose(text) => Some(text),
            ItemKind::Int(_)
            | ItemKind::Float(_)
            | ItemKind::Bool(_)
            | ItemKind::Time(_)
            | ItemKind::List(_)
            | ItemKind::Table(_) => None,
        }
    }

    /// A number, true or false or a list that was given as text from outside.
    pub(crate) fn read(&self) -> Cow<'_, ItemKind> {
        match &self.kind {
            ItemKind::Loose(text) => match DeValue::parse(text) {
                Ok(value) => Cow::Owned(item(&value).outside(&self.at).kind),
                Err(_) => Cow::Owned(ItemKind::Text(text.clone())),
            },
            kind => Cow::Borrowed(kind),
        }
    }

    /// The same, all of it from outside.
    fn outside(mut self, at: &At) -> Self {
        self.at = at.clone();
        self.kind = match self.kind {
            ItemKind::List(list) => ItemKind::List(list.into_iter().map(|item| item.outside(at)).collect()),
            ItemKind::Table(table) => ItemKind::Table(Table {
                entries: table
                    .entries
                    .into_iter()
                    .map(|entry| Entry { name: entry.name, name_at: at.clone(), item: entry.item.outside(at) })
                    .collect(),
            }),
            other => other,
        };
        self
    }

    /// As JSON, for operators that read their configuration themselves.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &*self.read() {
            ItemKind::Text(text) | ItemKind::Loose(text) | ItemKind::Time(text) => text.as_str().into(),
            ItemKind::Int(int) => (*int).into(),
            ItemKind::Float(float) => (*float).into(),
            ItemKind::Bool(bool) => (*bool).into(),
            ItemKind::List(list) => list.iter().map(Item::to_json).collect(),
            ItemKind::Table(table) => table
                .entries
                .iter()
                .map(|entry| (entry.name.clone(), entry.item.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

fn table(from: &DeTable<'_>) -> Table {
    let mut entries: Vec<_> = from
        .iter()
        .map(|(name, value)| Entry {
            name: name.get_ref().to_string(),
            name_at: At::File(name.span()),
            item: item(value),
        })
        .collect();
    entries.sort_by_key(|entry| match &entry.name_at {
        At::File(range) => range.start,
        At::Outside(_) => usize::MAX,
    });
    Table { entries }
}

fn item(from: &Spanned<DeValue<'_>>) -> Item {
    let kind = match from.get_ref() {
        DeValue::String(text) => ItemKind::Text(text.to_string()),
        DeValue::Integer(int) => match i64::from_str_radix(int.as_str(), int.radix()) {
            Ok(value) => ItemKind::Int(value),
            // Beyond 64 bits: a number all the same, and out of range for every key.
            Err(_) => ItemKind::Float(int.as_str().parse().unwrap_or(f64::INFINITY)),
        },
        DeValue::Float(float) => ItemKind::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(bool) => ItemKind::Bool(*bool),
        DeValue::Datetime(time) => ItemKind::Time(time.to_string()),
        DeValue::Array(list) => ItemKind::List(list.iter().map(item).collect()),
        DeValue::Table(inner) => ItemKind::Table(table(inner)),
    };
    Item { kind, at: At::File(from.span()) }
}

/// The default of a key, as it stands in the table of keys.
pub(crate) fn default_item(text: &str) -> Item {
    item(&DeValue::parse(text).expect("the defaults in the table of keys are TOML"))
}
