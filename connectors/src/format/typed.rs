//! Straight into the types of a job author.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use thalweg_core::{Result, Value};

use super::{Decoder, DecoderOf, Fields, Format, is_blank};
use crate::{BadRecord, RawBatch};

/// JSON straight into `T`: no untyped value is made on the way.
pub struct TypedJson<T> {
    of: PhantomData<fn() -> T>,
}

impl<T> TypedJson<T> {
    /// For any type with serde.
    pub fn new() -> Self {
        Self { of: PhantomData }
    }
}

impl<T> Default for TypedJson<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: DeserializeOwned + 'static> DecoderOf<T> for TypedJson<T> {
    fn decoder(&self, _header: Option<&[u8]>) -> Result<Box<dyn Decoder<T>>> {
        Ok(Box::new(Self::new()))
    }
}

impl<T: DeserializeOwned> Decoder<T> for TypedJson<T> {
    fn decode(&mut self, batch: &RawBatch, out: &mut Vec<T>, bad: &mut Vec<BadRecord>) -> Result<()> {
        for record in &batch.records {
            let value = batch.value(record);
            if is_blank(value) {
                continue;
            }
            match serde_json::from_slice(value) {
                Ok(value) => out.push(value),
                Err(error) => bad.push(batch.bad(record, format!("does not fit the record's type: {error}"))),
            }
        }
        Ok(())
    }
}

/// Any format into `T`, by way of an untyped value: for formats without a serde reader of their own.
pub struct TypedValues<T> {
    format: Format,
    of: PhantomData<fn() -> T>,
}

impl<T> TypedValues<T> {
    /// For any type with serde whose fields have the names of the format's.
    pub fn new(format: Format) -> Self {
        Self { format, of: PhantomData }
    }
}

impl<T: DeserializeOwned + 'static> DecoderOf<T> for TypedValues<T> {
    fn decoder(&self, header: Option<&[u8]>) -> Result<Box<dyn Decoder<T>>> {
        Ok(Box::new(ThroughValues {
            inner: self.format.decoder(header, &Fields::All)?,
            values: Vec::new(),
            one: RawBatch::default(),
        }))
    }
}

struct ThroughValues {
    inner: Box<dyn Decoder<Value>>,
    values: Vec<Value>,
    one: RawBatch,
}

impl<T: DeserializeOwned> Decoder<T> for ThroughValues {
    fn decode(&mut self, batch: &RawBatch, out: &mut Vec<T>, bad: &mut Vec<BadRecord>) -> Result<()> {
        // One record at a time: a value that does not fit must be reported with the bytes that it came from.
        for record in &batch.records {
            self.one.clear();
            self.one.data.extend_from_slice(batch.value(record));
            self.one.records.push(crate::RawRecord { value: 0..self.one.data.len(), key: None, ..record.clone() });
            self.values.clear();
            let known_bad = bad.len();
            self.inner.decode(&self.one, &mut self.values, bad)?;
            bad[known_bad..].iter_mut().for_each(|bad| bad.key = batch.key(record).map(<[u8]>::to_vec));
            for value in &self.values {
                match value.to_serde() {
                    Ok(value) => out.push(value),
                    Err(error) => bad.push(batch.bad(record, error.message().to_owned())),
                }
            }
        }
        Ok(())
    }
}
