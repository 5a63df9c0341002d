//! `lines` and `raw`: the record is text, under one name.

use std::sync::Arc;

use thalweg_core::{Row, Shape, Value};

use super::{Decoder, OfValues, ValueDecoder};

/// Gives each record's text under one name, or rows without fields where not even that is asked for.
struct TextDecoder {
    shape: Arc<Shape>,
}

pub(super) fn decoder(name: Option<&str>) -> Box<dyn Decoder<Value>> {
    Box::new(OfValues(TextDecoder { shape: Shape::new(name) }))
}

impl ValueDecoder<Value> for TextDecoder {
    fn value(&mut self, bytes: &[u8]) -> Result<Option<Value>, String> {
        let text = std::str::from_utf8(bytes).map_err(not_text)?;
        let values = if self.shape.names().is_empty() { Vec::new() } else { vec![Value::from(text)] };
        Ok(Some(Value::Row(Row::new(self.shape.clone(), values))))
    }
}

/// Why bytes are no text.
pub(super) fn not_text(error: std::str::Utf8Error) -> String {
    format!("not UTF-8 at byte {}; convert the input, for example with iconv", error.valid_up_to())
}
