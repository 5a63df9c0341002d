//! The texts of a URL: segments of the path and parameters of the query.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use thalweg_core::{At, Epoch, ReadOptions, ScanRange, parse_duration};

use super::limits::Limits;
use super::problem::Problem;

const READ_OPTIONS: [&str; 3] = ["at", "min_epoch", "max_staleness"];
const DEAD_LETTERS: [&str; 3] = ["limit", "cursor", "node"];
const SCAN: [&str; 5] = ["from", "to", "prefix", "limit", "cursor"];

/// The segment of a path at `index`, from 0, decoded.
pub(super) fn segment<'a>(path: &'a str, index: usize, what: &str) -> Result<Cow<'a, str>, Problem> {
    let raw = path.split('/').nth(index + 1).unwrap_or_default();
    percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| Problem::bad_key(format!("the {what} {raw:?} in the path is not percent-encoded UTF-8")))
}

/// The read options of a request that has no other parameters.
pub(super) fn read_options(query: Option<&str>) -> Result<ReadOptions, Problem> {
    match query {
        None => Ok(ReadOptions::default()),
        Some(query) => Parameters::parse(query, &[&READ_OPTIONS])?.read_options(),
    }
}

/// The range and the read options of a scan.
pub(super) fn scan(query: Option<&str>, limits: &Limits) -> Result<(ScanRange, ReadOptions), Problem> {
    let mut parameters = Parameters::parse(query.unwrap_or_default(), &[&SCAN, &READ_OPTIONS])?;
    let limit = parameters.limit(limits)?;
    let after = match parameters.take("cursor") {
        None => None,
        Some(text) => Some(decode_cursor(&text).ok_or_else(|| {
            Problem::bad_parameter(format!("cursor={text}: not a cursor that an earlier answer gave"))
        })?),
    };
    let owned = |text: Cow<'_, str>| text.into_owned();
    let range = ScanRange {
        from: parameters.take("from").map(owned),
        to: parameters.take("to").map(owned),
        prefix: parameters.take("prefix").map(owned),
        after,
        limit,
    };
    Ok((range, parameters.read_options()?))
}

/// Which dead letters are asked for.
pub(super) struct WantedLetters {
    pub(super) from: u64,
    pub(super) limit: usize,
    pub(super) node: Option<String>,
}

/// The parameters of a list of dead letters.
pub(super) fn dead_letters(query: Option<&str>, limits: &Limits) -> Result<WantedLetters, Problem> {
    let mut parameters = Parameters::parse(query.unwrap_or_default(), &[&DEAD_LETTERS])?;
    let limit = parameters.limit(limits)?;
    let from = parameters.take("cursor").map_or(Ok(0), |text| {
        text.parse()
            .map_err(|_| Problem::bad_parameter(format!("cursor={text}: not a cursor that an earlier answer gave")))
    })?;
    Ok(WantedLetters { from, limit, node: parameters.take("node").map(Cow::into_owned) })
}

/// The cursor after an encoded key: opaque to clients, hexadecimal.
pub(super) fn encode_cursor(encoded: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in encoded {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn decode_cursor(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// The parameters of a query string, each known and at most once.
struct Parameters<'a> {
    pairs: Vec<(&'static str, Cow<'a, str>)>,
}

impl<'a> Parameters<'a> {
    fn parse(query: &'a str, known: &[&[&'static str]]) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(raw_name)?;
            let Some(name) = known.iter().copied().flatten().find(|known| **known == name) else {
                let known = known.concat().join(", ");
                return Err(Problem::bad_parameter(format!("unknown parameter {name:?}; there are {known}")));
            };
            if pairs.iter().any(|(own, _)| own == name) {
                return Err(Problem::bad_parameter(format!("{name} is given twice; give it once")));
            }
            pairs.push((*name, decode(raw_value)?));
        }
        Ok(Self { pairs })
    }

    fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let index = self.pairs.iter().position(|(own, _)| *own == name)?;
        Some(self.pairs.swap_remove(index).1)
    }

    /// How many entries a page may have.
    fn limit(&mut self, limits: &Limits) -> Result<usize, Problem> {
        let Some(text) = self.take("limit") else { return Ok(limits.default_scan_entries) };
        text.parse().ok().filter(|limit| (1..=limits.max_scan_entries).contains(limit)).ok_or_else(|| {
            Problem::bad_parameter(format!(
                "limit={text}: a whole number from 1 to {}; go on from there with the cursor",
                limits.max_scan_entries
            ))
        })
    }

    fn read_options(mut self) -> Result<ReadOptions, Problem> {
        let at = match self.take("at").as_deref() {
            None | Some("latest") => At::Latest,
            Some("committed") => At::Committed,
            Some(text) => return Err(Problem::bad_parameter(format!("at={text}: latest or committed"))),
        };
        let min_epoch = match self.take("min_epoch") {
            None => None,
            Some(text) => Some(Epoch(text.parse().map_err(|_| {
                Problem::bad_parameter(format!("min_epoch={text}: the number of an epoch, for example min_epoch=42"))
            })?)),
        };
        let max_staleness = self.take("max_staleness").map(|text| staleness(&text)).transpose()?;
        Ok(ReadOptions { at, min_epoch, max_staleness })
    }
}

fn staleness(text: &str) -> Result<Duration, Problem> {
    parse_duration(text).map_err(|error| Problem::bad_parameter(format!("max_staleness={text}: {error}")))
}

fn decode(raw: &str) -> Result<Cow<'_, str>, Problem> {
    // In a query string, unlike in a path, a plus is a blank: that is how forms and client libraries write it.
    let bad = |_| Problem::bad_parameter(format!("{raw:?} in the query is not percent-encoded UTF-8"));
    if raw.contains('+') {
        let text = raw.replace('+', " ");
        let decoded = percent_decode_str(&text).decode_utf8().map_err(bad)?;
        return Ok(Cow::Owned(decoded.into_owned()));
    }
    percent_decode_str(raw).decode_utf8().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str) -> String {
        match scan(Some(query), &Limits::default()) {
            Ok((range, options)) => format!("{range:?} {options:?}"),
            Err(problem) => format!("{problem:?}"),
        }
    }

    #[test]
    fn parameters_are_checked() {
        for (query, part) in [
            ("", "limit: 100 }"),
            ("limit=7&prefix=a%2Fb+c", "prefix: Some(\"a/b c\")"),
            ("limit=0", "1 to 10000"),
            ("limit=10001", "1 to 10000"),
            ("limit=x", "limit=x"),
            ("limit=1&limit=1", "given twice"),
            ("lmit=1", "unknown parameter \\\"lmit\\\""),
            ("cursor=0aff", "after: Some([10, 255])"),
            ("cursor=0af", "not a cursor"),
            ("cursor=zz", "not a cursor"),
            ("at=committed", "at: Committed"),
            ("at=old", "latest or committed"),
            ("min_epoch=12", "Epoch(12)"),
            ("min_epoch=-1", "min_epoch=-1"),
            ("max_staleness=500ms", "500ms"),
            ("max_staleness=soon", "max_staleness=soon"),
            ("from=%ff", "not percent-encoded UTF-8"),
        ] {
            let got = check(query);
            assert!(got.contains(part), "{query}: {got} does not contain {part}");
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = Vec::new();
        encode_cursor(&all, &mut text);
        assert_eq!(decode_cursor(std::str::from_utf8(&text).expect("digits")), Some(all));
    }
}
