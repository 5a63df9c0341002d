//! Straight into the types of a job author.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use thalweg_core::{Result, Value};

use super::{Decoder, DecoderOf, Fields, Format, OfValues, Untyped, ValueDecoder, is_blank};
use crate::{BadRecord, RawBatch, RawRecord, Waker};

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
        Ok(Box::new(OfValues(Self::new())))
    }
}

impl<T: DeserializeOwned> ValueDecoder<T> for TypedJson<T> {
    fn value(&mut self, bytes: &[u8]) -> Result<Option<T>, String> {
        if is_blank(bytes) {
            return Ok(None);
        }
        let value = serde_json::from_slice(bytes);
        value.map(Some).map_err(|error| format!("does not fit the record's type: {error}"))
    }
}

/// Any format into `T`, by way of an untyped value: for formats without a serde reader of their own.
pub struct TypedValues<T> {
    values: Arc<dyn DecoderOf<Value>>,
    of: PhantomData<fn() -> T>,
}

impl<T> TypedValues<T> {
    /// For any type with serde whose fields have the names of the format's.
    pub fn new(format: Format) -> Self {
        Self::through(Arc::new(Untyped { format, fields: Fields::All }))
    }

    /// By way of what other decoders give, such as those of Avro and Protobuf.
    pub fn through(values: Arc<dyn DecoderOf<Value>>) -> Self {
        Self { values, of: PhantomData }
    }
}

impl<T: DeserializeOwned + 'static> DecoderOf<T> for TypedValues<T> {
    fn decoder(&self, header: Option<&[u8]>) -> Result<Box<dyn Decoder<T>>> {
        Ok(Box::new(ThroughValues { inner: self.values.decoder(header)?, values: Vec::new() }))
    }
}

struct ThroughValues {
    inner: Box<dyn Decoder<Value>>,
    values: Vec<Value>,
}

impl<T: DeserializeOwned> Decoder<T> for ThroughValues {
    fn record(
        &mut self,
        batch: &RawBatch,
        record: &RawRecord,
        out: &mut Vec<T>,
        bad: &mut Vec<BadRecord>,
    ) -> Result<()> {
        self.values.clear();
        self.inner.record(batch, record, &mut self.values, bad)?;
        for value in &self.values {
            match value.to_serde() {
                Ok(value) => out.push(value),
                Err(error) => bad.push(batch.bad(record, error.message().to_owned())),
            }
        }
        Ok(())
    }

    fn prepare(&mut self, batch: &RawBatch, waker: &Waker) -> Result<bool> {
        self.inner.prepare(batch, waker)
    }
}
