//! Comma-separated values (RFC 4180) with names from the header and typed cells.
//!
//! A quote opens a quoted cell only as the first byte of the cell; inside, two quotes are one; after the closing quote, what
//! stands before the next delimiter is appended as it is. The framing of files follows the same rule.

use std::sync::Arc;

use thalweg_core::{Error, Result, Row, Shape, Value};

use super::{CsvOptions, Fields, ValueDecoder, cell, is_blank, text::not_text};

/// Decodes the wanted columns of each record.
pub(super) struct CsvDecoder {
    delimiter: u8,
    quote: u8,
    names: Vec<String>,
    /// For each column the place of its value in the row.
    slots: Vec<Option<usize>>,
    shape: Arc<Shape>,
    /// Unescaped text of one quoted cell.
    scratch: Vec<u8>,
}

impl CsvDecoder {
    pub(super) fn new(options: &CsvOptions, header: Option<&[u8]>, fields: &Fields) -> Result<Self> {
        let names = match &options.names {
            Some(names) => names.clone(),
            None => header_names(options, header)?,
        };
        let wanted = match fields {
            Fields::All => names.clone(),
            Fields::Only(wanted) => wanted.clone(),
        };
        let mut slots = vec![None; names.len()];
        for (slot, field) in wanted.iter().enumerate() {
            let column = names.iter().position(|name| name == field).ok_or_else(|| missing_column(field, &names))?;
            if names.iter().filter(|name| *name == field).count() > 1 {
                return Err(Error::user(
                    "duplicate-column",
                    format!("the header has the column \"{field}\" more than once; rename one of them"),
                ));
            }
            slots[column] = Some(slot);
        }
        let shape = Shape::new(wanted.iter().map(String::as_str));
        Ok(Self { delimiter: options.delimiter, quote: options.quote, names, slots, shape, scratch: Vec::new() })
    }

    #[inline]
    fn row(&mut self, record: &[u8]) -> Result<Value, String> {
        let mut values = vec![Value::Null; self.shape.names().len()];
        let columns = if memchr::memchr(self.quote, record).is_none() {
            self.plain(record, &mut values)?
        } else {
            self.quoted(record, &mut values)?
        };
        if columns != self.slots.len() {
            return Err(format!(
                "{columns} columns, and the header has {}; a cell with a delimiter in it needs quotes",
                self.slots.len()
            ));
        }
        Ok(Value::Row(Row::new(self.shape.clone(), values)))
    }

    /// A record without quotes; returns the number of columns.
    #[inline]
    fn plain(&self, record: &[u8], values: &mut [Value]) -> Result<usize, String> {
        let (mut column, mut start) = (0, 0);
        loop {
            let length = record[start..].iter().position(|byte| *byte == self.delimiter);
            let end = length.map_or(record.len(), |length| start + length);
            if let Some(Some(slot)) = self.slots.get(column) {
                values[*slot] =
                    cell::typed(&record[start..end]).map_err(|error| self.in_column(column, &not_text(error)))?;
            }
            column += 1;
            if length.is_none() {
                return Ok(column);
            }
            start = end + 1;
        }
    }

    /// A record with quotes; returns the number of columns.
    fn quoted(&mut self, record: &[u8], values: &mut [Value]) -> Result<usize, String> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let (mut column, mut next) = (0, Some(0));
        while let Some(at) = next {
            let found = next_cell(record, at, self.delimiter, self.quote, &mut scratch);
            let (cell, quoted, after) = found.ok_or_else(|| self.in_column(column, "its quote is never closed"))?;
            if let Some(Some(slot)) = self.slots.get(column) {
                let value = if quoted { cell::text(cell) } else { cell::typed(cell) };
                values[*slot] = value.map_err(|error| self.in_column(column, &not_text(error)))?;
            }
            (column, next) = (column + 1, after);
        }
        self.scratch = scratch;
        Ok(column)
    }

    #[cold]
    fn in_column(&self, column: usize, why: &str) -> String {
        match self.names.get(column) {
            Some(name) => format!("column \"{name}\": {why}"),
            None => format!("column {}: {why}", column + 1),
        }
    }
}

impl ValueDecoder<Value> for CsvDecoder {
    fn value(&mut self, bytes: &[u8]) -> Result<Option<Value>, String> {
        if bytes.is_empty() { Ok(None) } else { self.row(bytes).map(Some) }
    }
}

/// The cell that begins at `at`: its bytes, whether it was quoted, and where the next one begins, if there is one. Nothing where
/// a quote is not closed.
fn next_cell<'a>(
    record: &'a [u8],
    at: usize,
    delimiter: u8,
    quote: u8,
    scratch: &'a mut Vec<u8>,
) -> Option<(&'a [u8], bool, Option<usize>)> {
    let end_of = |from: usize| memchr::memchr(delimiter, &record[from..]).map(|length| from + length);
    if record.get(at) != Some(&quote) {
        let end = end_of(at);
        return Some((&record[at..end.unwrap_or(record.len())], false, end.map(|end| end + 1)));
    }
    scratch.clear();
    let mut from = at + 1;
    loop {
        let close = from + memchr::memchr(quote, &record[from..])?;
        scratch.extend_from_slice(&record[from..close]);
        if record.get(close + 1) == Some(&quote) {
            scratch.push(quote);
            from = close + 2;
            continue;
        }
        let end = end_of(close + 1);
        scratch.extend_from_slice(&record[close + 1..end.unwrap_or(record.len())]);
        return Some((scratch, true, end.map(|end| end + 1)));
    }
}

fn header_names(options: &CsvOptions, header: Option<&[u8]>) -> Result<Vec<String>> {
    let wrong = |why: &str| {
        Err(Error::user(
            "csv-header",
            format!("format \"csv\": {why}; give the names of the columns, or a file whose first line has them"),
        ))
    };
    let Some(header) = header.filter(|header| !is_blank(header)) else {
        return wrong("there is no header");
    };
    let (mut names, mut at, mut scratch) = (Vec::new(), 0, Vec::new());
    loop {
        let Some((cell, _, next)) = next_cell(header, at, options.delimiter, options.quote, &mut scratch) else {
            return wrong("a quote in the header is never closed");
        };
        match std::str::from_utf8(cell) {
            Ok(name) => names.push(name.to_owned()),
            Err(error) => return wrong(&format!("the header is {}", not_text(error))),
        }
        match next {
            Some(next) => at = next,
            None => return Ok(names),
        }
    }
}

/// Names no further than this from a wrong one are worth proposing.
const CLOSE_NAME_DISTANCE: usize = 3;

fn missing_column(field: &str, names: &[String]) -> Error {
    let close = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name, field), name))
        .filter(|(distance, name)| *distance <= CLOSE_NAME_DISTANCE.min(name.len() / 2))
        .min();
    let hint = close.map_or_else(String::new, |(_, name)| format!("; did you mean \"{name}\"?"));
    Error::user("missing-column", format!("no column \"{field}\"; the columns are {}{hint}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::super::{CsvOptions, Format};
    use super::next_cell;
    use crate::random::Random;

    fn check(header: &str, fields: &[&str], cases: &[(&str, &str)]) {
        for (record, shown) in cases {
            let found =
                decode(&Format::Csv(CsvOptions::default()), Some(header), fields, &[record.as_bytes()]).join(" ");
            let fits =
                if shown.ends_with("...") { found.starts_with(shown.trim_end_matches('.')) } else { found == *shown };
            assert!(fits, "{record:?} as {fields:?}: {found}, not {shown}");
        }
    }

    #[test]
    fn rows_have_the_names_of_the_header() {
        check(
            "a,\"b \"\"x\"\"\",c",
            &["*"],
            &[
                ("1,x,2.5", r#"{"a":1,"b \"x\"":"x","c":2.5}"#),
                (",,", r#"{"a":null,"b \"x\"":null,"c":null}"#),
                (r#""1","","true""#, r#"{"a":"1","b \"x\"":"","c":"true"}"#),
                ("\"a,\"\"b\"\"\n\",x,\"y\"z", r#"{"a":"a,\"b\"\n","b \"x\"":"x","c":"yz"}"#),
                (r#"x"y,"",3"#, r#"{"a":"x\"y","b \"x\"":"","c":3}"#),
                ("1,2", "bad: 2 columns, and the header has 3..."),
                ("1,2,3,4", "bad: 4 columns, and the header has 3..."),
                (r#"1,"2,3"#, r#"bad: column "b "x"": its quote is never closed"#),
                ("", ""),
                ("  ", "bad: 1 columns..."),
            ],
        );
        check("a", &["*"], &[("", ""), (" ", r#"{"a":" "}"#), ("\"\"", r#"{"a":""}"#)]);
    }

    #[test]
    fn projected_columns_come_in_the_order_asked_for() {
        check("time,delay,origin", &["origin", "delay"], &[("x,-3,SEA", r#"{"origin":"SEA","delay":-3}"#)]);
        check("time,delay,origin", &[], &[("x,-3,SEA", "{}"), ("x", "bad: 1 columns...")]);
        check(
            "time,delay,origin",
            &["orign"],
            &[(
                "",
                "missing-column: no column \"orign\"; the columns are time, delay, origin; did you mean \"origin\"?",
            )],
        );
        check("a,a,b", &["a"], &[("", "duplicate-column...")]);
        check("a,a,b", &["b"], &[("1,2,3", r#"{"b":3}"#)]);
        check(" ", &["*"], &[("", "csv-header...")]);
    }

    #[test]
    fn names_may_be_given_instead_of_a_header() {
        let options =
            CsvOptions { names: Some(vec!["x".into(), "y".into()]), delimiter: b';', ..CsvOptions::default() };
        assert_eq!(decode(&Format::Csv(options), None, &["y"], &[b"1;a,b"]), [r#"{"y":"a,b"}"#]);
    }

    /// Cells are those of csv-core, which gives them without their types.
    #[test]
    fn cells_are_those_of_csv_core() {
        let seed = Random::seed_for_tests();
        let mut random = Random::new(seed);
        let mut compared = 0;
        for round in 0..20_000 {
            let length = 1 + random.below(14) as usize;
            let record: Vec<u8> = (0..length).map(|_| b"ab,,\"\"\n"[random.below(7) as usize]).collect();
            let (mut found, mut next, mut scratch) = (Vec::new(), Some(0), Vec::new());
            while let Some(at) = next {
                let Some((cell, _, after)) = next_cell(&record, at, b',', b'"', &mut scratch) else { break };
                found.push(cell.to_vec());
                next = after;
            }
            // Only what is one record to both: csv-core passes line ends in front, ends at others, and closes what is not closed.
            let (mut output, mut ends) = ([0; 64], [0; 64]);
            let mut reader = csv_core::Reader::new();
            let (result, used, written, count) = reader.read_record(&record, &mut output, &mut ends);
            let whole =
                matches!(result, csv_core::ReadRecordResult::InputEmpty) && used == record.len() && next.is_none();
            let (result, _, more, last) = reader.read_record(&[], &mut output[written..], &mut ends[count..]);
            if !whole || record[0] == b'\n' || result != csv_core::ReadRecordResult::Record {
                continue;
            }
            let mut start = 0;
            let cells: Vec<Vec<u8>> = ends[..count + last]
                .iter()
                .map(|end| output[std::mem::replace(&mut start, *end)..*end].to_vec())
                .collect();
            assert_eq!(more, 0);
            assert_eq!(found, cells, "seed {seed}, round {round}: {:?}", String::from_utf8_lossy(&record));
            compared += 1;
        }
        assert!(compared > 2000, "{compared} records were compared");
    }
}
