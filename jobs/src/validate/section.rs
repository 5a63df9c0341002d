//! Reading one table against its keys.

use crate::convert::{self, Mismatch};
use crate::diagnostic::Diagnostic;
use crate::document::{At, Entry, Item, ItemKind, Table, default_item};
use crate::keys::{Choice, Key, Kind, Later};
use crate::suggest::did_you_mean_or_all;
use crate::validate::Checker;

/// A table whose keys are checked; only values that fit are seen through it.
pub(super) struct Section<'d> {
    fits: Vec<(&'static str, &'d Item)>,
    keys: Vec<&'static [Key]>,
}

impl<'d> Section<'d> {
    /// The item, where the key is there and its value fits.
    pub(super) fn item(&self, name: &str) -> Option<&'d Item> {
        self.fits.iter().find(|(own, _)| *own == name).map(|(_, item)| *item)
    }

    /// The value, where the key is there and its value fits.
    pub(super) fn get<T>(&self, name: &str, convert: impl Fn(&Item) -> Result<T, Mismatch>) -> Option<T> {
        self.item(name).and_then(|item| convert(item).ok())
    }

    /// The value, or the default of the key where it is not there; nothing only for keys without a default.
    pub(super) fn or_default<T>(&self, name: &str, convert: impl Fn(&Item) -> Result<T, Mismatch>) -> Option<T> {
        self.get(name, &convert).or_else(|| default(self.keys.iter().copied().flatten(), name, convert))
    }
}

fn default<'k, T>(
    keys: impl IntoIterator<Item = &'k Key>,
    name: &str,
    convert: impl Fn(&Item) -> Result<T, Mismatch>,
) -> Option<T> {
    let key = keys.into_iter().find(|key| key.name == name)?;
    key.default.and_then(|text| convert(&default_item(text)).ok())
}

/// The value of a key that has a default, also where its table is not there.
pub(super) fn or_default<T>(
    section: Option<&Section<'_>>,
    keys: &[Key],
    name: &str,
    convert: impl Fn(&Item) -> Result<T, Mismatch>,
) -> T {
    section
        .and_then(|section| section.get(name, &convert))
        .or_else(|| default(keys, name, convert))
        .expect("the table of keys has a default that fits")
}

impl<'d> Checker<'d> {
    /// Checks a table against its keys: unknown ones, missing ones, values that do not fit, and what this version does not do.
    /// `what` names the table in messages.
    pub(super) fn section(&mut self, what: &str, at: &At, table: &'d Table, keys: &[&'static [Key]]) -> Section<'d> {
        self.section_with(what, at, table, keys, |checker, entry, names| {
            let message = format!("{what}: unknown key {:?}", entry.name);
            let help = did_you_mean_or_all(&entry.name, names.iter().copied(), "the keys are");
            checker.report(Diagnostic::error("unknown-key", message).at(&entry.name_at, "").help(help));
        })
    }

    /// As [`Checker::section`]; what happens with other keys is the caller's.
    pub(super) fn section_with(
        &mut self,
        what: &str,
        at: &At,
        table: &'d Table,
        keys: &[&'static [Key]],
        mut other: impl FnMut(&mut Self, &'d Entry, &[&'static str]),
    ) -> Section<'d> {
        let known: Vec<&'static Key> = keys.iter().copied().flatten().collect();
        let names: Vec<_> = known.iter().map(|key| key.name).collect();
        let mut fits = Vec::new();
        for entry in &table.entries {
            match known.iter().find(|key| key.name == entry.name) {
                Some(key) if self.value(what, key, entry) => fits.push((key.name, &entry.item)),
                Some(_) => {}
                None => other(self, entry, &names),
            }
        }
        for key in known.iter().filter(|key| key.required && table.get(key.name).is_none()) {
            let message = format!("{what}: {:?} is missing", key.name);
            self.report(Diagnostic::error("missing-key", message).at(at, "").help(format!(
                "add {}: {}",
                example(key),
                key.doc
            )));
        }
        Section { fits, keys: keys.to_vec() }
    }

    /// A table inside of a section.
    pub(super) fn inner(
        &mut self,
        what: &str,
        of: &Section<'d>,
        name: &str,
        keys: &'static [Key],
    ) -> Option<Section<'d>> {
        let item = of.item(name)?;
        let ItemKind::Table(table) = &item.kind else { return None };
        Some(self.section(what, &item.at, table, &[keys]))
    }

    /// Whether the value of a known key fits and is available.
    fn value(&mut self, what: &str, key: &'static Key, entry: &'d Entry) -> bool {
        let item = &entry.item;
        if let Err(mismatch) = convert::check(key.kind, item) {
            self.mismatch(what, key.name, item, &mismatch);
            return false;
        }
        match key.later {
            Later::Always => {
                self.not_available(&format!("{what}: {:?}", key.name), &entry.name_at, "remove it");
                // What is in it is checked all the same, to say everything at once.
                if let (Kind::Table(keys), ItemKind::Table(table)) = (key.kind, &item.kind) {
                    self.section(&format!("{what}, {:?}", key.name), &entry.name_at, table, &[keys]);
                }
                return false;
            }
            Later::Cluster(value) if literal(item) != value => {
                let message = format!("{what}: {} = {} is for a cluster", key.name, literal(item));
                let problem = Diagnostic::warning("cluster-only", message).at(&item.at, "");
                self.report(problem.help(format!("`run` always has {value}")));
            }
            Later::Cluster(_) | Later::Never => {}
        }
        match key.kind {
            Kind::Choice(choices) => self.choice(what, key.name, item, choices),
            _ => true,
        }
    }

    fn choice(&mut self, what: &str, name: &str, item: &Item, choices: &[Choice]) -> bool {
        let chosen = item.text().and_then(|text| choices.iter().find(|choice| choice.value == text));
        match chosen {
            Some(choice) if !choice.ready => {
                let ready: Vec<_> =
                    choices.iter().filter(|choice| choice.ready).map(|choice| format!("{:?}", choice.value)).collect();
                self.not_available(
                    &format!("{what}: {name} = {:?}", choice.value),
                    &item.at,
                    &format!("use {}", ready.join(" or ")),
                );
                false
            }
            _ => true,
        }
    }

    pub(super) fn not_available(&mut self, what: &str, at: &At, help: &str) {
        let message = format!("{what} is not available yet in this version");
        self.report(Diagnostic::error("not-available", message).at(at, "").help(help));
    }

    pub(super) fn mismatch(&mut self, what: &str, name: &str, item: &Item, mismatch: &Mismatch) {
        let message = format!("{what}: {name} {}", mismatch.takes);
        let label = format!("found {}", item.describe());
        let mut problem = Diagnostic::error("wrong-value", message);
        if matches!(item.at, At::Outside(_)) {
            problem.message = format!("{}, {label}", problem.message);
        }
        self.report(problem.at(&item.at, label));
    }
}

/// As it would stand in the file.
fn literal(item: &Item) -> String {
    match &*item.read() {
        ItemKind::Text(text) | ItemKind::Loose(text) => format!("{text:?}"),
        ItemKind::Int(int) => int.to_string(),
        ItemKind::Float(float) => format!("{float:?}"),
        ItemKind::Bool(bool) => bool.to_string(),
        ItemKind::Time(time) => time.clone(),
        ItemKind::List(_) => "[…]".to_owned(),
        ItemKind::Table(_) => "{…}".to_owned(),
    }
}

/// How the key might be written.
fn example(key: &Key) -> String {
    match (key.default, key.kind) {
        (Some(default), _) => format!("`{} = {default}`", key.name),
        (None, Kind::Table(_) | Kind::Backfill | Kind::Ids(_)) => format!("a table [{}]", key.name),
        (None, Kind::Offsets) => format!("`{} = {{ 0 = 120 }}`", key.name),
        (None, Kind::Texts) => format!("`{} = [\"…\"]`", key.name),
        (None, _) => format!("`{} = \"…\"`", key.name),
    }
}
