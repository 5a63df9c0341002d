//! From text to CEL's tree, and its errors as ranges of the text.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use cel::common::ast::SourceInfo;
use cel::{Env, IdedExpr, ParseError};

use super::{Expression, ExpressionError};

/// The language: CEL's standard functions and macros, and its libraries for texts, numbers and lists.
pub(super) static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for library in [cel::extensions::strings, cel::extensions::math, cel::extensions::lists] {
        env.add_extension(library).expect("the libraries of the crate fit its standard functions");
    }
    Arc::new(env)
});

/// A parsed text.
pub(super) struct Parsed {
    pub(super) root: IdedExpr,
    source: Source,
    info: SourceInfo,
}

/// The text as the parser sees it, `has(field)` written as `has(row.field)`: CEL's own `has` takes a selection only.
struct Source {
    text: String,
    /// Where in `text` the insertions begin.
    inserted: Vec<usize>,
    original: usize,
}

const ROW: &str = "row.";

impl Parsed {
    pub(super) fn new(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > Expression::MAX_BYTES {
            let message =
                format!("an expression of {} bytes; at most {} are allowed", text.len(), Expression::MAX_BYTES);
            return Err(ExpressionError::new(message, 0..text.len()));
        }
        if text.trim().is_empty() {
            return Err(ExpressionError::new("the expression is empty", 0..text.len()));
        }
        let source = Source::new(text);
        match LANGUAGE.parser().parse_with_source_info(&source.text) {
            Ok((root, info)) => Ok(Self { root, source, info }),
            Err(errors) => Err(errors
                .errors
                .first()
                .map_or_else(|| ExpressionError::new("not an expression", 0..text.len()), |error| source.error(error))),
        }
    }

    /// The part of the text that a node was read from; for an operator, the operator.
    pub(super) fn range(&self, node: u64) -> Range<usize> {
        match self.info.offset_for(node) {
            Some((start, last)) => {
                let start = self.source.byte(start as usize);
                let end = self.source.byte(last as usize + 1).max(start);
                self.source.original(start)..self.source.original(end)
            }
            None => 0..self.source.original,
        }
    }
}

impl Source {
    fn new(text: &str) -> Self {
        let mut rewritten = String::with_capacity(text.len() + ROW.len());
        let mut inserted = Vec::new();
        let mut copied = 0;
        for (start, token) in tokens(text) {
            if token != "has" {
                continue;
            }
            let rest = &text[start + token.len()..];
            let open = rest.trim_start();
            let Some(inner) = open.strip_prefix('(') else { continue };
            let argument = inner.trim_start();
            let length = argument.find(|c: char| !is_word(c)).unwrap_or(argument.len());
            if length > 0
                && !argument.starts_with(|c: char| c.is_ascii_digit())
                && argument[length..].trim_start().starts_with(')')
            {
                let at = text.len() - argument.len();
                rewritten.push_str(&text[copied..at]);
                inserted.push(rewritten.len());
                rewritten.push_str(ROW);
                copied = at;
            }
        }
        rewritten.push_str(&text[copied..]);
        Self { text: rewritten, inserted, original: text.len() }
    }

    /// The parser counts characters.
    fn byte(&self, characters: usize) -> usize {
        self.text.char_indices().nth(characters).map_or(self.text.len(), |(byte, _)| byte)
    }

    /// Where a byte of the rewritten text is in the original.
    fn original(&self, byte: usize) -> usize {
        let inserted: usize = self.inserted.iter().map(|start| byte.saturating_sub(*start).min(ROW.len())).sum();
        (byte - inserted).min(self.original)
    }

    fn error(&self, error: &ParseError) -> ExpressionError {
        let (line, column) = (error.pos.0.max(1) as usize, error.pos.1.max(1) as usize);
        let before: usize = self.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let rest = &self.text[before..];
        let start = before + rest.char_indices().nth(column - 1).map_or(rest.len(), |(byte, _)| byte);
        let here = &self.text[start..];
        let token = match here.chars().next() {
            Some(first) if is_word(first) => here.find(|c: char| !is_word(c)).unwrap_or(here.len()),
            Some(first) => first.len_utf8(),
            None => 0,
        };
        let message =
            if token == 0 { "the expression ends too early".to_owned() } else { plain(&error.msg, &here[..token]) };
        ExpressionError::new(message, self.original(start)..self.original(start + token))
    }
}

/// What the parser says, without the list of all that could have been.
fn plain(message: &str, found: &str) -> String {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let syntax =
        ["mismatched input", "extraneous input", "no viable alternative", "token recognition error", "missing"];
    match message {
        _ if message.starts_with("mismatched input '='") || found == "=" => {
            "`=` is no operator; equality is `==`".to_owned()
        }
        _ if syntax.iter().any(|start| message.starts_with(start)) => format!("`{found}` does not fit here"),
        _ if message.contains("invalid argument to has()") => {
            "has() takes a field, as in has(delay) or has(customer.name)".to_owned()
        }
        other => other.to_owned(),
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The words of the text that are outside of text literals and not behind a `.`, with where they begin.
fn tokens(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    let mut after_dot = false;
    std::iter::from_fn(move || {
        while let Some(first) = text[at..].chars().next() {
            let start = at;
            if is_word(first) {
                at += text[at..].find(|c: char| !is_word(c)).unwrap_or(text.len() - at);
                let raw = matches!(&text[start..at], "r" | "R" | "br" | "bR" | "Br" | "BR");
                if raw && text[at..].starts_with(['"', '\'']) {
                    at += literal(&text[at..], true);
                }
                if !std::mem::take(&mut after_dot) {
                    return Some((start, &text[start..at]));
                }
            } else if matches!(first, '"' | '\'') {
                at += literal(&text[at..], false);
            } else {
                at += first.len_utf8();
                after_dot = if first.is_whitespace() { after_dot } else { first == '.' };
            }
        }
        None
    })
}

/// The length of a text literal, from its first quote to its last (or to the end, where it is not closed).
fn literal(text: &str, raw: bool) -> usize {
    let quote = if text.starts_with("\"\"\"") || text.starts_with("'''") { &text[..3] } else { &text[..1] };
    let mut at = quote.len();
    while at < text.len() {
        if text[at..].starts_with(quote) {
            return at + quote.len();
        }
        let mut rest = text[at..].chars();
        let first = rest.next().map_or(1, char::len_utf8);
        let escaped = if !raw && text[at..].starts_with('\\') { rest.next().map_or(0, char::len_utf8) } else { 0 };
        at += first + escaped;
    }
    text.len()
}
