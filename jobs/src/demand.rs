//! Which fields of a source a job looks at, so that a format decodes no others.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{ConfigValue, JobSpec, OperatorSpec};

/// The fields of a record that somebody reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Any may be read.
    All,
    /// Only these.
    Fields(BTreeSet<String>),
}

impl Demand {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Demand::Fields(mut fields), Demand::Fields(more)) => {
                fields.extend(more);
                Demand::Fields(fields)
            }
            _ => Demand::All,
        }
    }

    fn none() -> Self {
        Demand::Fields(BTreeSet::new())
    }
}

impl JobSpec {
    /// The fields that are read of the records of a source or operator, directly or behind operators that pass records on.
    ///
    /// A sink reads all of a record, and so does every operator of a job crate.
    pub fn demand(&self, id: &str) -> Demand {
        let mut of = BTreeMap::new();
        // Each operator stands behind those that it reads, so backwards its readers come before it.
        for operator in self.operators.iter().rev() {
            let demand = self.demand_by_readers(&operator.id, &of);
            of.insert(operator.id.as_str(), demand);
        }
        of.remove(id).unwrap_or_else(|| self.demand_by_readers(id, &of))
    }

    fn demand_by_readers(&self, id: &str, of: &BTreeMap<&str, Demand>) -> Demand {
        if self.sinks.iter().any(|sink| sink.inputs.iter().any(|input| input == id)) {
            return Demand::All;
        }
        let readers = self.operators.iter().filter(|operator| operator.inputs.iter().any(|input| input == id));
        readers.map(|reader| demand_of(reader, of)).fold(Demand::none(), Demand::and)
    }
}

/// What an operator reads of its inputs; where it passes records on, with what is read of its output.
fn demand_of(operator: &OperatorSpec, of: &BTreeMap<&str, Demand>) -> Demand {
    match operator.uses.as_str() {
        "words" => {
            let field = operator.config.get("field").and_then(ConfigValue::as_text).unwrap_or("line");
            Demand::Fields(BTreeSet::from([field.to_owned()]))
        }
        "filter" | "key_by" => own_demand(operator).and(of.get(operator.id.as_str()).cloned().unwrap_or(Demand::All)),
        "map" | "count" | "sum" | "min" | "max" | "mean" | "aggregate" => own_demand(operator),
        // The expression `with` is over `acc` and `value`, not over the record.
        "reduce" => operator.config.get("of").map_or(Demand::All, read_by).and(key_demand(operator)),
        _ => Demand::All,
    }
}

impl ConfigValue {
    /// Text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            ConfigValue::Text(text) => Some(text),
            _ => None,
        }
    }
}

fn key_demand(operator: &OperatorSpec) -> Demand {
    Demand::Fields(operator.key.iter().flatten().cloned().collect())
}

fn own_demand(operator: &OperatorSpec) -> Demand {
    operator.config.values().map(read_by).fold(key_demand(operator), Demand::and)
}

fn read_by(value: &ConfigValue) -> Demand {
    let of = |fields: Option<BTreeSet<String>>| fields.map_or(Demand::All, Demand::Fields);
    match value {
        ConfigValue::Expression(expression) => of(expression.fields()),
        ConfigValue::Expressions(named) => {
            named.iter().map(|(_, expression)| of(expression.fields())).fold(Demand::none(), Demand::and)
        }
        ConfigValue::Aggregations(named) => {
            let expressions = named.iter().flat_map(|(_, fold)| fold.argument.iter().chain(&fold.filter));
            expressions.map(|expression| of(expression.fields())).fold(Demand::none(), Demand::and)
        }
        ConfigValue::Duration(_)
        | ConfigValue::Bytes(_)
        | ConfigValue::Int(_)
        | ConfigValue::Float(_)
        | ConfigValue::Bool(_)
        | ConfigValue::Text(_)
        | ConfigValue::Texts(_)
        | ConfigValue::Any(_) => Demand::none(),
    }
}
