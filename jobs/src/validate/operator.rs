//! `[operators.ID]` and `[stores.ID]`.

use std::collections::BTreeMap;
use std::ops::Range;

use thalweg_operators::{
    Aggregation, ChangelogKind, ConfigKey, ConfigKind, Expression, ExpressionError, KeyRule, OperatorInfo,
};

use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::document::{At, Entry, Item, ItemKind, Table};
use crate::keys::{self, Member};
use crate::spec::{ConfigValue, OperatorSpec, StoreSpec};
use crate::suggest::did_you_mean_or_all;
use crate::validate::section::Section;
use crate::validate::{Checker, on_error};

/// What the file says about stores, by operator id.
pub(super) type Stores = BTreeMap<String, StoreSpec>;

const PLAIN_STORE: StoreSpec = StoreSpec { changelog: ChangelogKind::None, query: true };

impl<'d> Checker<'d> {
    pub(super) fn stores(&mut self, root: &Section<'d>) -> Stores {
        let operators: Vec<&'d Entry> = self.members(root, Member::Operator).collect();
        let mut stores = Stores::new();
        for entry in self.members(root, Member::Store) {
            let what = format!("store {:?}", entry.name);
            let Some(table) = self.member(&what, entry) else { continue };
            let section = self.section(&what, &entry.name_at, table, &[keys::STORE]);
            let spec = StoreSpec {
                changelog: match section.or_default("changelog", convert::text).as_deref() {
                    Some("log") => ChangelogKind::Log,
                    Some("kafka") => {
                        self.uses_kafka(&what, &entry.name_at);
                        ChangelogKind::Kafka
                    }
                    _ => ChangelogKind::None,
                },
                query: section.or_default("query", convert::bool).unwrap_or(true),
            };
            match operators.iter().find(|operator| operator.name == entry.name) {
                Some(operator) => self.check_store_of(&what, entry, operator),
                None => {
                    let message = format!("{what}: there is no operator of that name");
                    let help = did_you_mean_or_all(
                        &entry.name,
                        operators.iter().map(|entry| entry.name.as_str()),
                        "the operators are",
                    );
                    self.report(Diagnostic::error("unknown-operator", message).at(&entry.name_at, "").help(help));
                }
            }
            stores.insert(entry.name.clone(), spec);
        }
        stores
    }

    fn check_store_of(&mut self, what: &str, entry: &Entry, operator: &Entry) {
        let ItemKind::Table(table) = &operator.item.kind else { return };
        let info = table.get("uses").and_then(|uses| uses.item.text()).and_then(|uses| self.catalogue.operator(uses));
        if let Some(info) = info.filter(|info| !info.stateful) {
            let message = format!("{what}: operator {:?} uses {:?}, which keeps no state", operator.name, info.name);
            self.report(Diagnostic::error("no-state", message).at(&entry.name_at, "").help("remove this table"));
        }
    }

    pub(super) fn operator(
        &mut self,
        entry: &'d Entry,
        stores: &Stores,
        crate_name: Option<&str>,
    ) -> Option<OperatorSpec> {
        let what = format!("operator {:?}", entry.name);
        let table = self.member(&what, entry)?;
        let mut own = Vec::new();
        let section = self.section_with(&what, &entry.name_at, table, &[keys::OPERATOR], |_, entry, _| own.push(entry));
        let uses = section.item("uses")?;
        let info = self.operator_info(&what, uses, crate_name)?;
        let config = self.config(&what, &entry.name_at, info, &own);
        let key = self.key(&what, &entry.name_at, info, table, &section);
        self.check_input_count(&what, info, &section);
        if let Some(key) = &key {
            self.check_results(&what, entry, key, &config, info);
        }
        Some(OperatorSpec {
            id: entry.name.clone(),
            uses: info.name.clone(),
            inputs: section.get("inputs", convert::texts)?,
            key,
            config,
            raw_config: own.iter().map(|entry| (entry.name.clone(), entry.item.to_json())).collect(),
            on_error: section.get("on_error", convert::text).map_or(self.on_error, |value| on_error(&value)),
            store: info.stateful.then(|| stores.get(&entry.name).copied().unwrap_or(PLAIN_STORE)),
        })
    }

    fn operator_info(&mut self, what: &str, uses: &'d Item, crate_name: Option<&str>) -> Option<&'d OperatorInfo> {
        let name = uses.text()?;
        let info = self.catalogue.operator(name);
        let problem = match (info, name.split_once("::"), crate_name) {
            (Some(_), Some((prefix, _)), None) => {
                let problem =
                    Diagnostic::error("no-crate", format!("{what}: {name:?} is of a job crate, and [job] names none"));
                problem.help(format!("add `crate = {:?}` to [job]", prefix.replace('_', "-")))
            }
            (Some(info), _, _) => return Some(info),
            (None, path, _) => {
                let names: Vec<_> = self.catalogue.operators().map(|info| info.name.as_str()).collect();
                let here =
                    path.is_some_and(|(prefix, _)| names.iter().any(|name| name.starts_with(&format!("{prefix}::"))));
                let help = match path {
                    Some((prefix, _)) if !here => {
                        format!("this binary has no operators of {prefix:?}; use the one of that job crate")
                    }
                    _ => did_you_mean_or_all(name, names, "this binary has"),
                };
                Diagnostic::error("unknown-operator", format!("{what}: unknown operator {name:?}")).help(help)
            }
        };
        self.report(problem.at(&uses.at, ""));
        None
    }

    fn key(
        &mut self,
        what: &str,
        at: &At,
        info: &OperatorInfo,
        table: &Table,
        section: &Section<'d>,
    ) -> Option<Vec<String>> {
        let fields = section.get("key", convert::texts);
        match (info.keyed, table.get("key")) {
            (KeyRule::Required, None) => {
                let message = format!("{what}: {:?} groups by a key, and \"key\" is missing", info.name);
                let help = "add `key = \"field\"` or `key = [\"field\", \"another\"]`";
                self.report(Diagnostic::error("missing-key", message).at(at, "").help(help));
            }
            (KeyRule::Forbidden, Some(entry)) => {
                let message = format!("{what}: {:?} has no key", info.name);
                self.report(Diagnostic::error("no-key", message).at(&entry.name_at, "").help("remove it"));
            }
            (KeyRule::Required | KeyRule::Optional | KeyRule::Forbidden, _) => {}
        }
        let fields = fields?;
        if let Some((double, item)) =
            fields.iter().enumerate().find(|(at, field)| fields[..*at].contains(field)).zip(section.item("key"))
        {
            let message = format!("{what}: the field {:?} is in the key twice", double.1);
            self.report(Diagnostic::error("double-field", message).at(&item.at, "").help("name it once"));
        }
        Some(fields)
    }

    fn check_input_count(&mut self, what: &str, info: &OperatorInfo, section: &Section<'d>) {
        let Some((inputs, item)) = section.get("inputs", convert::texts).zip(section.item("inputs")) else { return };
        if inputs.len() > info.max_inputs {
            let message =
                format!("{what}: {:?} takes at most {} inputs, found {}", info.name, info.max_inputs, inputs.len());
            self.report(
                Diagnostic::error("inputs", message).at(&item.at, "").help("join them with another operator before"),
            );
        }
    }

    /// Results stand beside the key's fields, so they cannot have their names.
    fn check_results(
        &mut self,
        what: &str,
        entry: &'d Entry,
        key: &[String],
        config: &BTreeMap<String, ConfigValue>,
        info: &OperatorInfo,
    ) {
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in config {
            match value {
                ConfigValue::Aggregations(folds) => names.extend(folds.iter().map(|(name, _)| name.as_str())),
                ConfigValue::Text(text) if name == "as" => names.push(text),
                _ => {}
            }
        }
        let named_after_id = info.config.iter().any(|key| key.name == "as") && !config.contains_key("as");
        if named_after_id {
            names.push(&entry.name);
        }
        for name in names.into_iter().filter(|name| key.iter().any(|field| field == name)) {
            let message = format!("{what}: the result {name:?} has the name of a field of the key");
            let help = if named_after_id { "name it with `as = \"…\"`" } else { "give it another name" };
            self.report(Diagnostic::error("result-name", message).at(&entry.name_at, "").help(help));
        }
    }

    fn config(&mut self, what: &str, at: &At, info: &OperatorInfo, own: &[&'d Entry]) -> BTreeMap<String, ConfigValue> {
        let mut config = BTreeMap::new();
        for entry in own {
            match info.config.iter().find(|key| key.name == entry.name) {
                Some(key) => {
                    if let Some(value) = self.config_value(what, key, &entry.item) {
                        config.insert(key.name.clone(), value);
                    }
                }
                None if info.open => {}
                None => {
                    let names = info
                        .config
                        .iter()
                        .map(|key| key.name.as_str())
                        .chain(keys::OPERATOR.iter().map(|key| key.name));
                    let help = did_you_mean_or_all(&entry.name, names, "its keys are");
                    let message = format!("{what}: {:?} has no key {:?}", info.name, entry.name);
                    self.report(Diagnostic::error("unknown-key", message).at(&entry.name_at, "").help(help));
                }
            }
        }
        for key in info.config.iter().filter(|key| key.required && !own.iter().any(|entry| entry.name == key.name)) {
            let message = format!("{what}: {:?} needs {:?}", info.name, key.name);
            let help = format!("add `{}`, {}: {}", key.name, key.kind.describe(), key.doc);
            self.report(Diagnostic::error("missing-key", message).at(at, "").help(help));
        }
        config
    }

    fn config_value(&mut self, what: &str, key: &ConfigKey, item: &'d Item) -> Option<ConfigValue> {
        let fit = match key.kind {
            ConfigKind::Duration => convert::duration(item).map(ConfigValue::Duration),
            ConfigKind::Bytes => convert::bytes(item).map(ConfigValue::Bytes),
            ConfigKind::Float => convert::float(item).map(ConfigValue::Float),
            ConfigKind::Bool => convert::bool(item).map(ConfigValue::Bool),
            ConfigKind::Text => convert::text(item).map(ConfigValue::Text),
            ConfigKind::TextList => convert::texts(item).map(ConfigValue::Texts),
            ConfigKind::Any => Ok(ConfigValue::Any(item.to_json())),
            ConfigKind::Int => match &*item.read() {
                ItemKind::Int(int) => Ok(ConfigValue::Int(*int)),
                _ => Err(convert::operator_takes(key.kind)),
            },
            ConfigKind::Expression => match item.text() {
                Some(_) => {
                    return self.compiled(what, &key.name, item, Expression::compile).map(ConfigValue::Expression);
                }
                None => Err(convert::operator_takes(key.kind)),
            },
            ConfigKind::ExpressionMap => match &item.kind {
                ItemKind::Table(table) if !table.entries.is_empty() => {
                    return self
                        .compiled_all(what, &key.name, table, Expression::compile)
                        .map(ConfigValue::Expressions);
                }
                _ => Err(convert::operator_takes(key.kind)),
            },
            ConfigKind::AggregateMap => match &item.kind {
                ItemKind::Table(table) if !table.entries.is_empty() => {
                    return self
                        .compiled_all(what, &key.name, table, Aggregation::parse)
                        .map(ConfigValue::Aggregations);
                }
                _ => Err(convert::operator_takes(key.kind)),
            },
        };
        fit.map_err(|mismatch| self.mismatch(what, &key.name, item, &mismatch)).ok()
    }

    fn compiled_all<T>(
        &mut self,
        what: &str,
        name: &str,
        table: &'d Table,
        compile: impl Fn(&str) -> Result<T, ExpressionError>,
    ) -> Option<Vec<(String, T)>> {
        let compiled: Vec<_> = table
            .entries
            .iter()
            .map(|entry| {
                Some((
                    entry.name.clone(),
                    self.compiled(what, &format!("{name}.{}", entry.name), &entry.item, &compile)?,
                ))
            })
            .collect();
        compiled.into_iter().collect()
    }

    fn compiled<T>(
        &mut self,
        what: &str,
        name: &str,
        item: &'d Item,
        compile: impl Fn(&str) -> Result<T, ExpressionError>,
    ) -> Option<T> {
        let Some(text) = item.text() else {
            self.mismatch(what, name, item, &convert::operator_takes(ConfigKind::Expression));
            return None;
        };
        match compile(text) {
            Ok(compiled) => Some(compiled),
            Err(error) => {
                let at = self.within(item, text, error.range);
                self.report(Diagnostic::error("expression", format!("{what}: {name}: {}", error.message)).at(&at, ""));
                None
            }
        }
    }

    /// A part of a text, as a place in the file: where the text stands there as it is, without escapes, that part; else all of it.
    fn within(&self, item: &Item, text: &str, part: Range<usize>) -> At {
        let At::File(range) = &item.at else { return item.at.clone() };
        let literal = self.document.source.text.get(range.clone()).unwrap_or_default();
        let quotes = literal.len() - literal.trim_start_matches(['"', '\'', '\r', '\n']).len();
        match literal[quotes.min(literal.len())..].find(text).filter(|_| !text.is_empty()) {
            Some(offset) => {
                let start = range.start + quotes + offset;
                At::File(start + part.start..start + part.end)
            }
            None => item.at.clone(),
        }
    }
}
