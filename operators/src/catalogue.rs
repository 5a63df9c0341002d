//! What a job may use: the operators by name, with the keys of their configuration.
//!
//! The same table checks a job, completes it in an editor (the JSON Schema) and explains it. The operators of a job crate are
//! added to the built-in ones, each under `crate::Name`.

use std::collections::BTreeMap;
use std::fmt;

use thalweg_core::{Error, Result};

/// Whether an operator has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// It groups by one, and the job names it.
    Required,
    /// The job may name one.
    Optional,
    /// It has none, or knows its own.
    Forbidden,
}

/// What a configuration value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// `"20ms"`.
    Duration,
    /// `"64KiB"`.
    Bytes,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// True or false.
    Bool,
    /// Text.
    Text,
    /// An expression over the record.
    Expression,
    /// Names with an expression each.
    ExpressionMap,
    /// Names with a fold each, as in `late = "count(delay > 15)"`.
    AggregateMap,
    /// A text, or a list of texts.
    TextList,
    /// Whatever the operator reads from it.
    Any,
}

impl ConfigKind {
    /// How to write one, for messages: fits behind "takes".
    pub fn describe(self) -> &'static str {
        match self {
            Self::Duration => "a duration such as \"20ms\"",
            Self::Bytes => "a size such as \"64KiB\"",
            Self::Int => "a whole number",
            Self::Float => "a number",
            Self::Bool => "true or false",
            Self::Text => "a text",
            Self::Expression => "an expression such as \"amount > 10\"",
            Self::ExpressionMap => "names with expressions such as { cents = \"amount * 100\" }",
            Self::AggregateMap => "names with folds such as { n = \"count()\", worst = \"max(delay)\" }",
            Self::TextList => "a text or a list of texts",
            Self::Any => "any value",
        }
    }
}

/// One key of an operator's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigKey {
    /// As it stands in the job.
    pub name: String,
    /// What its value is.
    pub kind: ConfigKind,
    /// Whether it has to be there.
    pub required: bool,
    /// What it does, one line.
    pub doc: String,
}

impl ConfigKey {
    /// A key that may be left out.
    pub fn optional(name: impl Into<String>, kind: ConfigKind, doc: impl Into<String>) -> Self {
        Self { name: name.into(), kind, required: false, doc: doc.into() }
    }

    /// A key that has to be there.
    pub fn required(name: impl Into<String>, kind: ConfigKind, doc: impl Into<String>) -> Self {
        Self { required: true, ..Self::optional(name, kind, doc) }
    }
}

/// What is known of an operator before it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorInfo {
    /// What stands behind `uses`: `count`, or `orders::Totals`.
    pub name: String,
    /// What it does, one line.
    pub doc: String,
    /// Whether it has a key.
    pub keyed: KeyRule,
    /// Most inputs; at least one is needed.
    pub max_inputs: usize,
    /// Its own keys. With none declared and [`OperatorInfo::open`], any are passed on.
    pub config: Vec<ConfigKey>,
    /// Whether keys that are not declared are passed on to the operator, which checks them itself.
    pub open: bool,
    /// Whether it keeps state, and so has a store.
    pub stateful: bool,
    /// Whether it sets timers, and so has a second store.
    pub timers: bool,
    /// What it emits, one line.
    pub output: String,
}

/// Most inputs of an operator: a limit against slips, not of the engine.
const MAX_INPUTS: usize = 64;

impl OperatorInfo {
    /// An operator without a key and without state, that takes any number of inputs and no configuration.
    pub fn stateless(name: impl Into<String>, doc: impl Into<String>, output: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            doc: doc.into(),
            keyed: KeyRule::Forbidden,
            max_inputs: MAX_INPUTS,
            config: Vec::new(),
            open: false,
            stateful: false,
            timers: false,
            output: output.into(),
        }
    }

    /// An operator with a key and a store.
    pub fn keyed(name: impl Into<String>, doc: impl Into<String>, output: impl Into<String>) -> Self {
        Self { keyed: KeyRule::Required, stateful: true, ..Self::stateless(name, doc, output) }
    }

    /// Adds a configuration key.
    #[must_use]
    pub fn with(mut self, key: ConfigKey) -> Self {
        self.config.push(key);
        self
    }

    /// Says that keys which are not declared are the operator's own business.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Says whether it sets timers.
    #[must_use]
    pub fn with_timers(mut self, timers: bool) -> Self {
        self.timers = timers;
        self
    }

    /// Says whether it has a key.
    #[must_use]
    pub fn keyed_by(mut self, rule: KeyRule) -> Self {
        self.keyed = rule;
        self
    }
}

/// Every operator that a job may use.
///
/// ```
/// use thalweg_operators::{Catalogue, OperatorInfo};
/// let mut catalogue = Catalogue::built_in();
/// catalogue.add(OperatorInfo::keyed("orders::Totals", "Running total per customer", "(customer, cents)")).unwrap();
/// assert!(catalogue.operator("count").is_some() && catalogue.operator("orders::Totals").is_some());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    operators: BTreeMap<String, OperatorInfo>,
}

impl Catalogue {
    /// The built-in operators.
    pub fn built_in() -> Self {
        Self { operators: built_in().into_iter().map(|info| (info.name.clone(), info)).collect() }
    }

    /// Adds an operator of a job crate.
    ///
    /// # Errors
    /// Of kind user, code `operator-name`: the name is taken.
    pub fn add(&mut self, info: OperatorInfo) -> Result<()> {
        if self.operators.contains_key(&info.name) {
            return Err(Error::user(
                "operator-name",
                format!("operator {:?} is registered twice; give one of the two another name", info.name),
            ));
        }
        self.operators.insert(info.name.clone(), info);
        Ok(())
    }

    /// The operator of that name.
    pub fn operator(&self, name: &str) -> Option<&OperatorInfo> {
        self.operators.get(name)
    }

    /// All of them, by name.
    pub fn operators(&self) -> impl Iterator<Item = &OperatorInfo> {
        self.operators.values()
    }
}

impl fmt::Display for Catalogue {
    /// One line for each operator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operators.values().try_for_each(|info| writeln!(f, "{}: {}", info.name, info.doc))
    }
}

fn built_in() -> Vec<OperatorInfo> {
    use ConfigKind::{AggregateMap, Expression, ExpressionMap, Text};
    let fold = |name: &str, doc: &str, output: &str| {
        OperatorInfo::keyed(name, doc, output)
            .with(ConfigKey::required(
                "of",
                Expression,
                "What is folded: a field or an expression; records where it is null do not count",
            ))
            .with(result_name())
    };
    vec![
        OperatorInfo::stateless("words", "Splits a text into its words", "{\"word\": …}, one for each word")
            .with(ConfigKey::optional("field", Text, "The field with the text; \"line\" where it is absent")),
        OperatorInfo::stateless("map", "Makes new records of expressions", "the named fields, and nothing else").with(
            ConfigKey::required("fields", ExpressionMap, "The fields of the new record, each with its expression"),
        ),
        OperatorInfo::stateless("filter", "Keeps the records for which a condition holds", "the record as it was")
            .with(ConfigKey::required("where", Expression, "The condition")),
        OperatorInfo::stateless("key_by", "Routes each record to the partition of its key", "the record as it was")
            .keyed_by(KeyRule::Required),
        OperatorInfo::keyed("count", "Counts records per key", "the key's fields and the count")
            .with(ConfigKey::optional("where", Expression, "Which records count; all where it is absent"))
            .with(result_name()),
        fold("sum", "Sums per key", "the key's fields and the sum"),
        fold("min", "The least per key", "the key's fields and the least"),
        fold("max", "The greatest per key", "the key's fields and the greatest"),
        fold("mean", "The mean per key", "the key's fields and the mean, a fraction"),
        OperatorInfo::keyed("aggregate", "Several folds per key", "the key's fields and the named results").with(
            ConfigKey::required(
                "aggregates",
                AggregateMap,
                "The results, each with its fold: count(), count(x > 1), sum(x), min(x), max(x), mean(x)",
            ),
        ),
        OperatorInfo::keyed(
            "reduce",
            "Folds the records of a key with an expression",
            "the key's fields and the result",
        )
        .with(ConfigKey::required("of", Expression, "What is folded: a field or an expression"))
        .with(ConfigKey::required(
            "with",
            Expression,
            "The next result, of `acc`, the last one, and `value`; the first value is the first result",
        ))
        .with(result_name()),
    ]
}

fn result_name() -> ConfigKey {
    ConfigKey::optional("as", ConfigKind::Text, "The name of the result; the operator's id where it is absent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_once() {
        let mut catalogue = Catalogue::built_in();
        assert_eq!(catalogue.operators().count(), 11);
        let error = catalogue.add(OperatorInfo::stateless("count", "", "")).expect_err("it is built in");
        assert_eq!(error.code(), "operator-name");
        for info in catalogue.operators() {
            let mut names: Vec<_> = info.config.iter().map(|key| &key.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), info.config.len(), "{}", info.name);
        }
    }
}
