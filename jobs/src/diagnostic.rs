//! What is wrong with a job file, shown as rustc shows it, or as JSON lines.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;
use thalweg_core::Error;

use crate::document::At;

/// The file that diagnostics point into.
#[derive(Debug)]
pub(crate) struct SourceText {
    pub(crate) file: String,
    pub(crate) base: PathBuf,
    pub(crate) text: String,
}

/// Whether the job can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can; most likely it is not what was meant.
    Warning,
}

/// One thing that is wrong: where, which rule, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the job can run.
    pub severity: Severity,
    /// A stable name of the rule, in kebab case.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// The bytes of the file; nothing where it is about all of it, or about a variable of the environment.
    pub range: Option<Range<usize>>,
    /// Said at that place.
    pub label: String,
    /// Another place that belongs to it, and what is there.
    pub related: Option<(Range<usize>, String)>,
    /// What to do.
    pub help: Option<String>,
}

/// Everything that is wrong with one file, in the order of the file.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    source: Arc<SourceText>,
    list: Vec<Diagnostic>,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    severity: Severity,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

impl Diagnostic {
    pub(crate) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            range: None,
            label: String::new(),
            related: None,
            help: None,
        }
    }

    pub(crate) fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Where it is, and what is said there.
    #[must_use]
    pub(crate) fn at(mut self, at: &At, label: impl Into<String>) -> Self {
        match at {
            At::File(range) => {
                self.range = Some(range.clone());
                self.label = label.into();
            }
            At::Outside(origin) => self.message = format!("{} (from {origin})", self.message),
        }
        self
    }

    #[must_use]
    pub(crate) fn related(mut self, at: &At, label: impl Into<String>) -> Self {
        if let At::File(range) = at {
            self.related = Some((range.clone(), label.into()));
        }
        self
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into()).filter(|help| !help.is_empty());
        self
    }
}

impl Diagnostics {
    pub(crate) fn new(source: Arc<SourceText>, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|one| one.range.as_ref().map_or(0, |range| range.start));
        Self { source, list }
    }

    /// One by one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether any of them keeps the job from running.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|one| one.severity == Severity::Error)
    }

    /// For people: the line, the place, the rule, what to do; with colors for a terminal.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let blocks: Vec<_> = self.list.iter().map(|one| renderer.render(&[self.group(one)])).collect();
        let mut text = blocks.join("\n\n");
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }

    fn group<'a>(&'a self, one: &'a Diagnostic) -> Group<'a> {
        let level = match one.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(one.message.as_str()).id(one.code);
        let mut group = match &one.range {
            Some(range) => {
                let label = Some(one.label.as_str()).filter(|label| !label.is_empty());
                let mut snippet = Snippet::source(self.source.text.as_str())
                    .path(self.source.file.as_str())
                    .annotation(AnnotationKind::Primary.span(self.visible(range)).label(label));
                if let Some((range, label)) = &one.related {
                    snippet =
                        snippet.annotation(AnnotationKind::Context.span(self.visible(range)).label(label.as_str()));
                }
                title.element(snippet)
            }
            None => title.element(Origin::path(self.source.file.as_str())),
        };
        if let Some(help) = &one.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }

    /// Within the text, and on one line: a table that spans many is shown by its first.
    fn visible(&self, range: &Range<usize>) -> Range<usize> {
        let text = &self.source.text;
        let start = range.start.min(text.len());
        let end = range.end.clamp(start, text.len());
        let line = text[start..end].find('\n').map_or(end, |at| start + at);
        start..line
    }

    /// Line and column of a byte, from 1, the column in characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        let before = &self.source.text[..byte.min(self.source.text.len())];
        let line = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
    }

    /// For scripts: one JSON object per line, `{"file","line","column","severity","code","message","help"}`.
    pub fn to_json_lines(&self) -> String {
        let line = |one: &Diagnostic| {
            let position = one.range.as_ref().map(|range| self.position(range.start));
            let line = JsonLine {
                file: &self.source.file,
                line: position.map(|(line, _)| line),
                column: position.map(|(_, column)| column),
                severity: one.severity,
                code: one.code,
                message: &one.message,
                help: one.help.as_deref(),
            };
            serde_json::to_string(&line).expect("numbers and texts are JSON") + "\n"
        };
        self.list.iter().map(line).collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostics> for Error {
    /// Of kind user, code `invalid-job`.
    fn from(diagnostics: Diagnostics) -> Self {
        Error::user("invalid-job", diagnostics.render(false))
    }
}
