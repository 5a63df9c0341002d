//! `lines` and `raw`: the record is text, under one name.

use std::sync::Arc;

use thalweg_core::{Result, Row, Shape, Value};

use super::Decoder;
use crate::{BadRecord, RawBatch, RawRecord};

/// Gives each record's text under one name, or rows without fields where not even that is asked for.
pub(super) struct TextDecoder {
    shape: Arc<Shape>,
}

impl TextDecoder {
    pub(super) fn new(name: Option<&str>) -> Self {
        Self { shape: Shape::new(name) }
    }
}

impl Decoder<Value> for TextDecoder {
    fn record(
        &mut self,
        batch: &RawBatch,
        record: &RawRecord,
        out: &mut Vec<Value>,
        bad: &mut Vec<BadRecord>,
    ) -> Result<()> {
        match std::str::from_utf8(batch.value(record)) {
            Ok(text) => {
                let values = if self.shape.names().is_empty() { Vec::new() } else { vec![Value::from(text)] };
                out.push(Value::Row(Row::new(self.shape.clone(), values)));
            }
            Err(error) => bad.push(batch.bad(record, not_text(error))),
        }
        Ok(())
    }
}

/// Why bytes are no text.
pub(super) fn not_text(error: std::str::Utf8Error) -> String {
    format!("not UTF-8 at byte {}; convert the input, for example with iconv", error.valid_up_to())
}
