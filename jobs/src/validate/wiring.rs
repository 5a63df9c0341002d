//! How sources, operators and sinks are joined: ids, inputs, cycles, and what nobody reads.

use std::collections::BTreeSet;

use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::document::{At, Entry, Item, ItemKind};
use crate::keys::Member;
use crate::spec::OperatorSpec;
use crate::suggest::did_you_mean_or_all;
use crate::validate::Checker;
use crate::validate::section::Section;

/// A source, operator or sink as it is written.
struct Node<'d> {
    id: &'d str,
    at: &'d At,
    member: Member,
    inputs: Vec<(String, &'d At)>,
    stateful: bool,
}

impl<'d> Checker<'d> {
    /// Checks how everything is joined; the ids of the operators, each behind those that it reads.
    pub(super) fn wiring(&mut self, root: &Section<'d>) -> Option<Vec<String>> {
        let mut nodes = Vec::new();
        for member in [Member::Source, Member::Operator, Member::Sink] {
            for entry in self.members(root, member) {
                nodes.push(self.node(entry, member));
            }
        }
        if !nodes.iter().any(|node| node.member == Member::Source) && root.item("sources").is_some() {
            self.report(Diagnostic::error("no-source", "the job reads nothing").help("add a table [sources.NAME]"));
        }
        self.check_ids(&nodes);
        self.check_inputs(&nodes);
        let order = self.order(&nodes);
        self.check_readers(&nodes);
        order
    }

    fn node(&self, entry: &'d Entry, member: Member) -> Node<'d> {
        let table = match &entry.item.kind {
            ItemKind::Table(table) => Some(table),
            _ => None,
        };
        let inputs = table
            .filter(|_| member != Member::Source)
            .and_then(|table| table.get("inputs"))
            .map(|entry| texts(&entry.item));
        let uses = table.and_then(|table| table.get("uses")).and_then(|entry| entry.item.text());
        // An operator that is not known may well keep state.
        let stateful = uses.and_then(|uses| self.catalogue.operator(uses)).is_none_or(|info| info.stateful);
        Node { id: &entry.name, at: &entry.name_at, member, inputs: inputs.unwrap_or_default(), stateful }
    }

    fn check_ids(&mut self, nodes: &[Node<'d>]) {
        for (index, node) in nodes.iter().enumerate() {
            if let Some(first) = nodes[..index].iter().find(|first| first.id == node.id) {
                let message = format!("{} {:?}: a {} has the same id", name(node.member), node.id, name(first.member));
                let problem = Diagnostic::error("duplicate-id", message)
                    .at(node.at, "again here")
                    .related(first.at, "first here");
                self.report(problem.help("ids are unique over sources, operators and sinks; rename one of the two"));
            }
        }
    }

    fn check_inputs(&mut self, nodes: &[Node<'d>]) {
        for node in nodes {
            let what = format!("{} {:?}", name(node.member), node.id);
            for (index, (input, at)) in node.inputs.iter().enumerate() {
                let problem = match nodes.iter().find(|other| other.id == *input) {
                    None => {
                        let known = nodes
                            .iter()
                            .filter(|other| other.member != Member::Sink && other.id != node.id)
                            .map(|other| other.id);
                        let help = did_you_mean_or_all(input, known, "there are");
                        Diagnostic::error("unknown-input", format!("{what}: unknown input {input:?}")).help(help)
                    }
                    Some(other) if other.member == Member::Sink => {
                        let problem = Diagnostic::error(
                            "sink-as-input",
                            format!("{what}: {input:?} is a sink, and gives nothing"),
                        );
                        problem.help("read what the sink reads")
                    }
                    Some(_) if node.inputs[..index].iter().any(|(before, _)| before == input) => {
                        Diagnostic::error("double-input", format!("{what}: the input {input:?} is there twice"))
                            .help("name it once")
                    }
                    Some(_) => continue,
                };
                self.report(problem.at(at, ""));
            }
        }
    }

    /// Operators, each behind those that it reads, else in the order of the file; nothing where some go round in a circle.
    fn order(&mut self, nodes: &[Node<'d>]) -> Option<Vec<String>> {
        // An id that a source has too is told about already, and means the source here.
        let is_source = |id: &str| nodes.iter().any(|node| node.member == Member::Source && node.id == id);
        let mut left: Vec<_> =
            nodes.iter().filter(|node| node.member == Member::Operator && !is_source(node.id)).collect();
        let mut placed = Vec::new();
        let mut circles = 0;
        while !left.is_empty() {
            let waits =
                |node: &Node<'_>| left.iter().any(|other| node.inputs.iter().any(|(input, _)| input == other.id));
            let next = left.iter().position(|node| !waits(node)).unwrap_or_else(|| {
                circles += 1;
                // Taken out, so that other circles are found as well.
                self.circle(&left)
            });
            placed.push(left.remove(next).id.to_owned());
        }
        (circles == 0).then_some(placed)
    }

    /// Reports one circle; each of the nodes reads one of them. Returns the place of one that is in it.
    fn circle(&mut self, left: &[&Node<'d>]) -> usize {
        let reads =
            |node: usize| left.iter().position(|other| left[node].inputs.iter().any(|(input, _)| input == other.id));
        let mut path = vec![0];
        // Back over inputs, until a node is met again.
        let start = loop {
            let before = path.last().and_then(|last| reads(*last)).expect("each of the nodes reads one of them");
            match path.iter().position(|node| *node == before) {
                Some(start) => break start,
                None => path.push(before),
            }
        };
        let mut circle: Vec<usize> = path[start..].iter().rev().copied().collect();
        let first = circle.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(at, _)| at);
        circle.rotate_left(first);
        let node = left[circle[0]];
        let ids: Vec<_> = circle.iter().chain([&circle[0]]).map(|at| left[*at].id).collect();
        let message = format!("operator {:?} reads its own output: {}", node.id, ids.join(" -> "));
        self.report(
            Diagnostic::error("cycle", message)
                .at(node.at, "")
                .help("a job has no circles; take one of these inputs out"),
        );
        circle[0]
    }

    fn check_readers(&mut self, nodes: &[Node<'d>]) {
        // A slip in a name makes two problems of one.
        if self.found.iter().any(|problem| problem.code == "unknown-input") {
            return;
        }
        let read: BTreeSet<&str> =
            nodes.iter().flat_map(|node| &node.inputs).map(|(input, _)| input.as_str()).collect();
        for node in nodes.iter().filter(|node| !read.contains(node.id)) {
            let useless = match node.member {
                Member::Source => true,
                // State is there to be queried.
                Member::Operator => !node.stateful,
                Member::Sink | Member::Store | Member::Stage => false,
            };
            if useless {
                let message = format!("{} {:?}: nobody reads it", name(node.member), node.id);
                self.report(
                    Diagnostic::warning("unread", message)
                        .at(node.at, "")
                        .help("name it among the inputs of an operator or a sink, or remove it"),
                );
            }
        }
    }
}

fn name(member: Member) -> &'static str {
    match member {
        Member::Source => "source",
        Member::Operator => "operator",
        Member::Store => "store",
        Member::Sink => "sink",
        Member::Stage => "stage",
    }
}

fn texts(item: &Item) -> Vec<(String, &At)> {
    match &item.kind {
        ItemKind::List(list) => {
            list.iter().filter_map(|item| item.text().map(|text| (text.to_owned(), &item.at))).collect()
        }
        _ => convert::texts(item).unwrap_or_default().into_iter().map(|text| (text, &item.at)).collect(),
    }
}

/// The operators in that order.
pub(super) fn arrange(operators: Vec<OperatorSpec>, order: &[String]) -> Vec<OperatorSpec> {
    let mut operators = operators;
    operators.sort_by_key(|operator| order.iter().position(|id| *id == operator.id));
    operators
}
