//! Formats: how the bytes of a record become a value, and how a value becomes bytes.
//!
//! A [`Format`] makes one [`Decoder`] per partition; a decoder takes a whole [`RawBatch`] at a time. What it cannot decode goes
//! to `bad` with a reason; the other records of the batch are not touched by it. Blank lines of `json` and empty
//! lines of `csv` are no records.

mod avro;
mod cell;
mod csv;
mod include;
mod json;
mod message;
mod out;
mod protobuf;
mod schema_writer;
mod schemas;
mod text;
mod typed;

use thalweg_core::{Error, Result, Value};

pub use avro::{AvroWriter, Decimals};
pub use include::{Include, Included, KeyFormat, Part};
pub use message::{Message, Messages};
pub use out::OutFormat;
pub use protobuf::ProtobufWriter;
pub(crate) use protobuf::{ProtoFile, ProtoTexts};
pub use schema_writer::SchemaWriter;
pub(crate) use schemas::ParsedSchema;
pub use schemas::{Framing, GivenSchema, SchemaFormat, SchemaRecords, Schemas};
pub use typed::{TypedJson, TypedValues};

use crate::{BadRecord, RawBatch, RawRecord, Waker};

/// How the bytes of a source's records are to be read.
///
/// ```
/// use thalweg_connectors::{Fields, Format, RawBatch, RawRecord};
///
/// let mut batch = RawBatch::default();
/// batch.data.extend_from_slice(b"15,SEA");
/// batch.records.push(RawRecord { value: 0..6, next: 6, ..RawRecord::default() });
/// let mut decoder = Format::Csv(Default::default()).decoder(Some(b"delay,origin"), &Fields::All)?;
/// let (mut out, mut bad) = (Vec::new(), Vec::new());
/// decoder.decode(&batch, &mut out, &mut bad)?;
/// assert_eq!(out[0].to_string(), r#"{"delay":15,"origin":"SEA"}"#);
/// # Ok::<(), thalweg_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per record.
    Json,
    /// Text: `{"line": ...}`.
    Lines,
    /// Comma-separated values with typed cells.
    Csv(CsvOptions),
    /// The text of the whole record: `{"value": ...}`.
    Raw,
}

/// How a CSV file is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// Between two cells; a comma.
    pub delimiter: u8,
    /// Around a cell that holds delimiters, quotes or line ends; doubled inside; `"`.
    pub quote: u8,
    /// The names of the columns where there is no header; without them the first record is the header.
    pub names: Option<Vec<String>>,
    /// Whether a quoted cell may hold line ends. Where it never does, `false` lets a large file be split between workers.
    pub multiline: bool,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { delimiter: b',', quote: b'"', names: None, multiline: true }
    }
}

/// The top-level fields that are to be decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fields {
    /// Everything.
    #[default]
    All,
    /// Only these; a row has them in this order.
    Only(Vec<String>),
}

impl Fields {
    /// For formats with the single field `name`: whether it is asked for. Errors where another one is.
    fn single(&self, format: &str, name: &str) -> Result<bool> {
        let Fields::Only(wanted) = self else { return Ok(true) };
        match wanted.iter().find(|wanted| *wanted != name) {
            Some(other) => Err(Error::user(
                "missing-column",
                format!(
                    "format \"{format}\" gives the field \"{name}\" only, and \"{other}\" is used; use \"{name}\", or another format"
                ),
            )),
            None => Ok(!wanted.is_empty()),
        }
    }
}

/// Decodes the records of one partition.
pub trait Decoder<T>: Send {
    /// Appends one record of a batch to `out`, unless it is blank; what cannot be decoded goes to `bad`, with the reason alone as
    /// `why`.
    ///
    /// Errors: what makes the whole partition unreadable.
    fn record(
        &mut self,
        batch: &RawBatch,
        record: &RawRecord,
        out: &mut Vec<T>,
        bad: &mut Vec<BadRecord>,
    ) -> Result<()>;

    /// All records of a batch, in order.
    fn decode(&mut self, batch: &RawBatch, out: &mut Vec<T>, bad: &mut Vec<BadRecord>) -> Result<()> {
        batch.records.iter().try_for_each(|record| self.record(batch, record, out, bad))
    }

    /// Whether all that the records of a batch need is there. What is not (a schema) is got by somebody else, who calls `waker`
    /// then, from any thread; until this is true no record of the batch may be decoded.
    ///
    /// Errors: what is needed cannot be got.
    fn prepare(&mut self, _batch: &RawBatch, _waker: &Waker) -> Result<bool> {
        Ok(true)
    }
}

/// Decodes a record by the bytes of its value alone.
trait ValueDecoder<T>: Send {
    /// What the bytes say; nothing where they are blank.
    ///
    /// Errors: why they cannot be decoded.
    fn value(&mut self, bytes: &[u8]) -> Result<Option<T>, String>;
}

/// Each value by itself.
struct OfValues<D>(D);

impl<T, D: ValueDecoder<T>> Decoder<T> for OfValues<D> {
    #[inline]
    fn record(
        &mut self,
        batch: &RawBatch,
        record: &RawRecord,
        out: &mut Vec<T>,
        bad: &mut Vec<BadRecord>,
    ) -> Result<()> {
        match self.0.value(batch.value(record)) {
            Ok(value) => out.extend(value),
            Err(why) => bad.push(batch.bad(record, why)),
        }
        Ok(())
    }
}

/// Makes the decoder of each partition of a source of `T`.
pub trait DecoderOf<T>: Send + Sync {
    /// A decoder for a partition with this header.
    fn decoder(&self, header: Option<&[u8]>) -> Result<Box<dyn Decoder<T>>>;

    /// Whether its decoders are given tombstones; else these are no records.
    fn takes_tombstones(&self) -> bool {
        false
    }
}

impl Format {
    /// A decoder into untyped values for a partition with this header, which only `csv` looks at.
    ///
    /// Errors: `missing-column` where a field is asked for that the header lacks, `csv-header` where there is no usable header.
    pub fn decoder(&self, header: Option<&[u8]>, fields: &Fields) -> Result<Box<dyn Decoder<Value>>> {
        Ok(match self {
            Format::Json => json::decoder(fields),
            Format::Lines => text::decoder(fields.single("lines", "line")?.then_some("line")),
            Format::Raw => text::decoder(fields.single("raw", "value")?.then_some("value")),
            Format::Csv(options) => Box::new(OfValues(csv::CsvDecoder::new(options, header, fields)?)),
        })
    }
}

/// Decodes into untyped values.
#[derive(Clone, Debug)]
pub struct Untyped {
    /// The format.
    pub format: Format,
    /// The fields to decode.
    pub fields: Fields,
}

impl DecoderOf<Value> for Untyped {
    fn decoder(&self, header: Option<&[u8]>) -> Result<Box<dyn Decoder<Value>>> {
        self.format.decoder(header, &self.fields)
    }
}

/// The next bytes of a record; `at` moves behind them.
fn take<'a>(bytes: &'a [u8], at: &mut usize, count: usize) -> Result<&'a [u8], String> {
    let rest = &bytes[*at..];
    let Some(taken) = rest.get(..count) else {
        return Err(format!("{count} bytes are to be read at byte {at}, and {} are there", rest.len()));
    };
    *at += count;
    Ok(taken)
}

/// Whether a record is nothing but white space.
fn is_blank(value: &[u8]) -> bool {
    value.first().is_none_or(u8::is_ascii_whitespace) && value.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes records; what is bad shows as `bad: reason`.
    pub(super) fn decode(format: &Format, header: Option<&str>, fields: &[&str], records: &[&[u8]]) -> Vec<String> {
        let fields = match fields {
            ["*"] => Fields::All,
            names => Fields::Only(names.iter().map(|name| (*name).to_owned()).collect()),
        };
        let mut decoder = match format.decoder(header.map(str::as_bytes), &fields) {
            Ok(decoder) => decoder,
            Err(error) => return vec![format!("{}: {}", error.code(), error.message())],
        };
        let mut shown = Vec::new();
        for record in records {
            let one = RawRecord { value: 0..record.len(), next: record.len() as u64, ..RawRecord::default() };
            let batch = RawBatch { data: record.to_vec(), records: vec![one], ..RawBatch::default() };
            let (mut out, mut bad) = (Vec::new(), Vec::new());
            decoder.decode(&batch, &mut out, &mut bad).expect("decodes");
            shown.extend(out.iter().map(ToString::to_string));
            shown.extend(bad.iter().map(|bad| format!("bad: {}", bad.why)));
        }
        shown
    }

    #[test]
    fn lines_and_raw_are_text() {
        assert_eq!(
            decode(&Format::Lines, None, &["*"], &[b"a \"b\"", b""]),
            [r#"{"line":"a \"b\""}"#, r#"{"line":""}"#]
        );
        assert_eq!(decode(&Format::Raw, None, &["value"], &["é".as_bytes()]), [r#"{"value":"é"}"#]);
        assert_eq!(decode(&Format::Raw, None, &[], &[b"x"]), ["{}"]);
        assert!(decode(&Format::Raw, None, &["*"], &[b"a\xff"])[0].starts_with("bad: not UTF-8 at byte 1"));
        assert!(decode(&Format::Lines, None, &["word"], &[])[0].starts_with("missing-column: "));
    }
}
