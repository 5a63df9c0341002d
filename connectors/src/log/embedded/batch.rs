//! The batch: the unit of checksum and of reading. The layout is drawn in the module above.

use crate::log::{NewRecord, NewRecordRef};

/// Bytes of a batch's header.
pub(super) const HEADER: usize = 80;
/// A batch is closed when its body reaches this, so that readers need little memory.
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// Largest body: one record at its limit, with its framing.
pub(super) const MAX_BODY: usize = super::MAX_RECORD_BYTES + (1 << 20);
/// The first bytes of a batch.
pub(super) const MAGIC: [u8; 4] = *b"TWLB";
const VERSION: u8 = 1;
const LAST: u8 = 1;

/// What stands in front of a batch's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) body_crc: u32,
    pub(super) length: u32,
    /// The last batch of its transaction.
    pub(super) last: bool,
    pub(super) count: u32,
    pub(super) base: u64,
    pub(super) last_delta: u32,
    pub(super) time: i64,
    pub(super) producer: u64,
    pub(super) generation: u64,
    /// When the tombstones in it may go; 0 where no cleaning has seen it.
    pub(super) delete_at: i64,
    /// Bytes since the transaction's first batch.
    pub(super) back: u64,
}

impl BatchHeader {
    /// Bytes of the whole batch.
    pub(super) fn size(&self) -> u64 {
        HEADER as u64 + u64::from(self.length)
    }

    /// The offset after its last record.
    pub(super) fn end(&self) -> u64 {
        self.base + u64::from(self.last_delta) + 1
    }

    /// Writes it for the place `at` of its file; the place is part of the checksum, so that no copy of a batch inside of a value
    /// or at another place is ever taken for a batch.
    pub(super) fn encode(&self, at: u64, out: &mut [u8]) {
        out[..4].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&self.body_crc.to_le_bytes());
        out[12..16].copy_from_slice(&self.length.to_le_bytes());
        out[16..20].copy_from_slice(&[VERSION, if self.last { LAST } else { 0 }, 0, 0]);
        out[20..24].copy_from_slice(&self.count.to_le_bytes());
        out[24..32].copy_from_slice(&self.base.to_le_bytes());
        out[32..36].copy_from_slice(&self.last_delta.to_le_bytes());
        out[36..40].fill(0);
        out[40..48].copy_from_slice(&self.time.to_le_bytes());
        out[48..56].copy_from_slice(&self.producer.to_le_bytes());
        out[56..64].copy_from_slice(&self.generation.to_le_bytes());
        out[64..72].copy_from_slice(&self.delete_at.to_le_bytes());
        out[72..80].copy_from_slice(&self.back.to_le_bytes());
        let crc = header_crc(at, out);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the one at the place `at` of its file.
    pub(super) fn decode(at: u64, bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() < HEADER {
            return Err("the header of a batch is cut off");
        }
        if bytes[..4] != MAGIC {
            return Err("no batch begins here");
        }
        if u32_at(bytes, 4) != header_crc(at, bytes) {
            return Err("the checksum of a batch's header does not match");
        }
        if bytes[16] != VERSION {
            return Err("a batch of an unknown version");
        }
        let header = Self {
            body_crc: u32_at(bytes, 8),
            length: u32_at(bytes, 12),
            last: bytes[17] & LAST != 0,
            count: u32_at(bytes, 20),
            base: u64_at(bytes, 24),
            last_delta: u32_at(bytes, 32),
            time: u64_at(bytes, 40) as i64,
            producer: u64_at(bytes, 48),
            generation: u64_at(bytes, 56),
            delete_at: u64_at(bytes, 64) as i64,
            back: u64_at(bytes, 72),
        };
        if header.length as usize > MAX_BODY || header.count == 0 || header.back > at {
            return Err("a batch with an impossible header");
        }
        Ok(header)
    }
}

fn header_crc(at: u64, header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&at.to_le_bytes()), &header[8..HEADER])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// A record inside of a batch's body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordRef<'a> {
    pub(crate) offset: u64,
    pub(crate) time: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// Count and headers as they are encoded.
    pub(super) headers: &'a [u8],
}

impl RecordRef<'_> {
    /// Payload bytes, for limits.
    pub(crate) fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + self.headers.len()
    }

    /// An owned copy; fails where a header's name is not UTF-8.
    pub(super) fn to_owned_record(self) -> Result<NewRecord, &'static str> {
        let mut at = 0;
        let count = get_varint(self.headers, &mut at)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = get_bytes(self.headers, &mut at)?;
            let name = std::str::from_utf8(name).map_err(|_| "the name of a header is not UTF-8")?;
            headers.push((name.to_owned(), get_bytes(self.headers, &mut at)?.to_vec()));
        }
        Ok(NewRecord { key: self.key.map(<[u8]>::to_vec), value: self.value.map(<[u8]>::to_vec), headers })
    }
}

/// Reads the record at `at` of a body, and moves `at` behind it.
pub(super) fn get_record<'a>(
    header: &BatchHeader,
    body: &'a [u8],
    at: &mut usize,
) -> Result<RecordRef<'a>, &'static str> {
    let delta = get_varint(body, at)?;
    let zigzag = get_varint(body, at)?;
    let time_delta = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    let key = get_optional(body, at)?;
    let value = get_optional(body, at)?;
    let start = *at;
    let count = get_varint(body, at)?;
    for _ in 0..count {
        get_bytes(body, at)?;
        get_bytes(body, at)?;
    }
    if delta > u64::from(header.last_delta) {
        return Err("a record with an offset outside of its batch");
    }
    let time = header.time.wrapping_add(time_delta);
    Ok(RecordRef { offset: header.base + delta, time, key, value, headers: &body[start..*at] })
}

/// Everything of a record but its headers.
pub(super) fn put_record(out: &mut Vec<u8>, delta: u64, time_delta: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
    put_varint(out, delta);
    put_varint(out, (time_delta << 1 ^ time_delta >> 63) as u64);
    for part in [key, value] {
        put_varint(out, part.map_or(0, |bytes| bytes.len() as u64 + 1));
        out.extend_from_slice(part.unwrap_or_default());
    }
}

fn put_headers(out: &mut Vec<u8>, headers: &[(&str, &[u8])]) {
    put_varint(out, headers.len() as u64);
    for (name, value) in headers {
        put_varint(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

/// LEB128.
pub(in crate::log) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The number at `at`, which moves behind it.
pub(in crate::log) fn get_varint(bytes: &[u8], at: &mut usize) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or("a number is cut off")?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return Err("a number is too large");
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is too long")
}

fn take<'a>(bytes: &'a [u8], at: &mut usize, len: u64) -> Result<&'a [u8], &'static str> {
    let end = usize::try_from(len).ok().and_then(|len| at.checked_add(len)).filter(|end| *end <= bytes.len());
    let end = end.ok_or("a record is cut off")?;
    let part = &bytes[*at..end];
    *at = end;
    Ok(part)
}

fn get_bytes<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a [u8], &'static str> {
    let len = get_varint(bytes, at)?;
    take(bytes, at, len)
}

fn get_optional<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, &'static str> {
    match get_varint(bytes, at)? {
        0 => Ok(None),
        len => take(bytes, at, len - 1).map(Some),
    }
}

/// The records of a transaction for one partition, encoded as they come; offsets and time are filled in at the commit.
#[derive(Default)]
pub(super) struct Staged {
    bytes: Vec<u8>,
    batches: Vec<StagedBatch>,
}

struct StagedBatch {
    start: usize,
    count: u32,
}

impl Staged {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Forgets the records, and keeps no more than `kept` bytes of memory.
    pub(super) fn clear(&mut self, kept: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept);
        self.batches.clear();
    }

    /// Adds a record.
    pub(super) fn add(&mut self, record: NewRecordRef<'_>) {
        let full = self.batches.last().is_none_or(|batch| self.bytes.len() - batch.start >= BATCH_BYTES);
        if full {
            self.batches.push(StagedBatch { start: self.bytes.len(), count: 0 });
            self.bytes.resize(self.bytes.len() + HEADER, 0);
        }
        let batch = self.batches.last_mut().expect("a batch was just opened");
        put_record(&mut self.bytes, u64::from(batch.count), 0, record.key, record.value);
        put_headers(&mut self.bytes, record.headers);
        batch.count += 1;
    }

    /// Fills in the headers for the place `at` of a file; returns the bytes and (offset, place) of every batch, and the next
    /// offset.
    pub(super) fn seal(&mut self, at: u64, stamp: BatchHeader) -> (&[u8], Vec<(u64, u64)>, u64) {
        let mut base = stamp.base;
        let mut places = Vec::with_capacity(self.batches.len());
        for (index, batch) in self.batches.iter().enumerate() {
            let end = self.batches.get(index + 1).map_or(self.bytes.len(), |next| next.start);
            let (head, body) = self.bytes[batch.start..end].split_at_mut(HEADER);
            let header = BatchHeader {
                body_crc: crc32c::crc32c(body),
                length: body.len() as u32,
                last: index + 1 == self.batches.len(),
                count: batch.count,
                base,
                last_delta: batch.count - 1,
                back: batch.start as u64,
                ..stamp
            };
            let place = at + batch.start as u64;
            header.encode(place, head);
            places.push((base, place));
            base = header.end();
        }
        (&self.bytes, places, base)
    }
}
