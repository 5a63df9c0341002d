//! The graph of a job, to look at: for a terminal, for Mermaid, for Graphviz, for scripts.

use std::fmt::Write;

use serde::Serialize;
use thalweg_connectors::dead_letter;

use crate::spec::JobSpec;

/// What a node of the graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// It reads.
    Source,
    /// It computes.
    Operator,
    /// It writes.
    Sink,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GraphNode {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// Connector or operator.
    pub uses: String,
}

/// An edge, along which records go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GraphEdge {
    /// The id of the node that gives.
    pub from: String,
    /// The id of the node that reads.
    pub to: String,
}

/// The graph of a job: sources, operators, each behind those that it reads, sinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// The nodes.
    pub nodes: Vec<GraphNode>,
    /// The edges, by the node that reads.
    pub edges: Vec<GraphEdge>,
}

/// The graph of a job.
pub fn graph(job: &JobSpec) -> Graph {
    let node = |id: &str, kind, uses: &str| GraphNode { id: id.to_owned(), kind, uses: uses.to_owned() };
    let sources = job.sources.iter().map(|source| node(&source.id, NodeKind::Source, source.uses()));
    let operators = job.operators.iter().map(|operator| node(&operator.id, NodeKind::Operator, &operator.uses));
    let sinks = job.sinks.iter().map(|sink| node(&sink.id, NodeKind::Sink, sink.uses()));
    let readers = job.operators.iter().map(|operator| (&operator.id, &operator.inputs));
    let readers = readers.chain(job.sinks.iter().map(|sink| (&sink.id, &sink.inputs)));
    let edges =
        readers.flat_map(|(id, inputs)| inputs.iter().map(|input| GraphEdge { from: input.clone(), to: id.clone() }));
    // What sets records aside is joined to the sink that the job has for them.
    let aside = job.setting_aside();
    let dead_letters =
        (!aside.is_empty()).then(|| node(dead_letter::SINK, NodeKind::Sink, job.dead_letters.place.uses()));
    let set_aside = aside.into_iter().map(|from| GraphEdge { from: from.to_owned(), to: dead_letter::SINK.to_owned() });
    Graph {
        nodes: sources.chain(operators).chain(sinks).chain(dead_letters).collect(),
        edges: edges.chain(set_aside).collect(),
    }
}

impl Graph {
    /// A tree for a terminal, from the sources; a node that is read by several stands below each, its own readers once.
    ///
    /// ```text
    /// flights (file)
    /// └─ by_origin (aggregate)
    ///    └─ out (file)
    /// ```
    pub fn to_tree(&self) -> String {
        let mut text = String::new();
        let mut shown = Vec::new();
        for node in self.nodes.iter().filter(|node| node.kind == NodeKind::Source) {
            self.branch(node, "", "", &mut shown, &mut text);
        }
        text
    }

    fn branch<'g>(&'g self, node: &'g GraphNode, first: &str, rest: &str, shown: &mut Vec<&'g str>, text: &mut String) {
        let readers: Vec<_> = self.readers(&node.id).collect();
        let again = shown.contains(&node.id.as_str()) && !readers.is_empty();
        text.push_str(first);
        text.push_str(&label(node));
        text.push_str(if again { " …\n" } else { "\n" });
        if again {
            return;
        }
        shown.push(&node.id);
        for (index, reader) in readers.iter().enumerate() {
            let (own, below) = if index + 1 == readers.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.branch(reader, &format!("{rest}{own}"), &format!("{rest}{below}"), shown, text);
        }
    }

    fn readers(&self, id: &str) -> impl Iterator<Item = &GraphNode> {
        self.edges
            .iter()
            .filter(move |edge| edge.from == id)
            .filter_map(|edge| self.nodes.iter().find(|node| node.id == edge.to))
    }

    fn index(&self, id: &str) -> usize {
        self.nodes.iter().position(|node| node.id == id).unwrap_or(self.nodes.len())
    }

    /// A Mermaid flow chart.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for (index, node) in self.nodes.iter().enumerate() {
            let (open, close) = match node.kind {
                NodeKind::Source => ("([", "])"),
                NodeKind::Operator => ("[", "]"),
                NodeKind::Sink => ("[/", "/]"),
            };
            let _ = writeln!(text, "    n{index}{open}\"{}<br/>{}\"{close}", node.id, node.uses);
        }
        for edge in &self.edges {
            let _ = writeln!(text, "    n{} --> n{}", self.index(&edge.from), self.index(&edge.to));
        }
        text
    }

    /// A Graphviz digraph.
    pub fn to_dot(&self) -> String {
        let mut text = String::from("digraph job {\n    rankdir=LR;\n");
        for node in &self.nodes {
            let shape = match node.kind {
                NodeKind::Source => "ellipse",
                NodeKind::Operator => "box",
                NodeKind::Sink => "parallelogram",
            };
            let _ =
                writeln!(text, "    {:?} [shape={shape}, label={:?}];", node.id, format!("{}\n{}", node.id, node.uses));
        }
        for edge in &self.edges {
            let _ = writeln!(text, "    {:?} -> {:?};", edge.from, edge.to);
        }
        text.push_str("}\n");
        text
    }

    /// `{"nodes":[{"id","kind","uses"}],"edges":[{"from","to"}]}`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("names are JSON")
    }
}

fn label(node: &GraphNode) -> String {
    format!("{} ({})", node.id, node.uses)
}
