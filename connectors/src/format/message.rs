//! A record with all that stands beside its value, for operators of a job crate.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thalweg_core::Result;

use super::{Decoder, DecoderOf};
use crate::{BadRecord, RawBatch, RawRecord, Waker};

/// A record of a topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message<T> {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; nothing is a tombstone, which says that the key is gone.
    pub value: Option<T>,
    /// Its headers, in order; a name may come twice.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When it was made or appended, as the topic has it, microseconds since 1970.
    pub timestamp: Option<i64>,
    /// The topic.
    pub topic: String,
    /// The partition of the topic.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

/// Makes a [`Message`] of what other decoders give.
///
/// ```
/// use std::sync::Arc;
/// use thalweg_connectors::{DecoderOf, Message, Messages, RawBatch, RawRecord, TypedJson};
///
/// let mut batch = RawBatch::default();
/// batch.data.extend_from_slice(b"[1,2]k");
/// batch.records.push(RawRecord { value: 0..5, key: Some(5..6), next: 8, ..RawRecord::default() });
/// let (mut out, mut bad) = (Vec::<Message<(u8, u8)>>::new(), Vec::new());
/// Messages::new(Arc::new(TypedJson::new())).decoder(None)?.decode(&batch, &mut out, &mut bad)?;
/// assert_eq!((out[0].key.as_deref(), out[0].value, out[0].offset), (Some(&b"k"[..]), Some((1, 2)), 7));
/// # Ok::<(), thalweg_core::Error>(())
/// ```
pub struct Messages<T> {
    inner: Arc<dyn DecoderOf<T>>,
}

impl<T> Messages<T> {
    /// With the values that `inner` decodes.
    pub fn new(inner: Arc<dyn DecoderOf<T>>) -> Self {
        Self { inner }
    }
}

impl<T: Send + 'static> DecoderOf<Message<T>> for Messages<T> {
    fn decoder(&self, header: Option<&[u8]>) -> Result<Box<dyn Decoder<Message<T>>>> {
        Ok(Box::new(ToMessages { inner: self.inner.decoder(header)?, values: Vec::new() }))
    }

    fn takes_tombstones(&self) -> bool {
        true
    }
}

struct ToMessages<T> {
    inner: Box<dyn Decoder<T>>,
    values: Vec<T>,
}

impl<T: Send> Decoder<Message<T>> for ToMessages<T> {
    fn record(
        &mut self,
        batch: &RawBatch,
        record: &RawRecord,
        out: &mut Vec<Message<T>>,
        bad: &mut Vec<BadRecord>,
    ) -> Result<()> {
        if record.tombstone {
            out.push(message(batch, record, None));
            return Ok(());
        }
        self.inner.record(batch, record, &mut self.values, bad)?;
        out.extend(self.values.drain(..).map(|value| message(batch, record, Some(value))));
        Ok(())
    }

    fn prepare(&mut self, batch: &RawBatch, waker: &Waker) -> Result<bool> {
        self.inner.prepare(batch, waker)
    }
}

fn message<T>(batch: &RawBatch, record: &RawRecord, value: Option<T>) -> Message<T> {
    let place = batch.place.as_deref();
    Message {
        key: batch.key(record).map(<[u8]>::to_vec),
        value,
        headers: batch.headers(record).map(|(name, value)| (name.to_owned(), value.to_vec())).collect(),
        timestamp: record.time,
        topic: place.map_or_else(String::new, |place| place.topic.clone()),
        partition: place.map_or(0, |place| place.partition),
        offset: record.next.saturating_sub(1),
    }
}
