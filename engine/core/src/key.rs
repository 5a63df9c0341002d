//! Keys: one order-preserving encoding, one stable hash.

use std::cell::Cell;
use std::ops::Bound;

use bytes::Buf;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, PartitionCount, PartitionId, Result};

/// What may be a key: ordered by its encoding, compared by `Eq`.
///
/// The encoding is memcomparable (the byte order of encoded keys is the order of the keys, field by field), so floats and
/// strings, tuples and structs all work as keys and as ranges.
pub trait Key: Clone + Eq + Send + Serialize + DeserializeOwned + 'static {}
impl<T: Clone + Eq + Send + Serialize + DeserializeOwned + 'static> Key for T {}

/// xxh3-64 (seed 0) of the encoded key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// The partition of the key: `hash mod P`.
    #[inline]
    pub fn partition(self, count: PartitionCount) -> PartitionId {
        PartitionId((self.0 % u64::from(count.get())) as u16)
    }
}

/// Appends the encoding of `key` to `out`.
///
/// Errors: a key type that memcomparable cannot order (maps) is the user's fault.
#[inline]
pub fn encode_key<K: Serialize + ?Sized>(key: &K, out: &mut Vec<u8>) -> Result<()> {
    let mut serializer = memcomparable::Serializer::new(out);
    key.serialize(&mut serializer)
        .map_err(|error| Error::user("key-type", format!("this type cannot be a key: {error}")))
}

thread_local! {
    static DECODING_KEY: Cell<bool> = const { Cell::new(false) };
}

/// Whether an encoded key is being read on this thread. memcomparable 0.2 writes as a binary format but does not say so when
/// it reads (`is_human_readable` is left at serde's default), and types like `Value` have another form in text.
pub(crate) fn is_decoding_key() -> bool {
    DECODING_KEY.get()
}

/// The inverse of [`encode_key`]. Any bytes are a key or the error `key-decode`.
pub fn decode_key<K: DeserializeOwned>(bytes: &[u8]) -> Result<K> {
    let outer = DECODING_KEY.replace(true);
    let short = Cell::new(false);
    let mut deserializer = memcomparable::Deserializer::new(KeyBytes { rest: bytes, short: &short });
    let decoded = K::deserialize(&mut deserializer);
    DECODING_KEY.set(outer);
    let wrong = |why: String| Error::external("key-decode", format!("a stored key is not of the expected type: {why}"));
    match decoded {
        _ if short.get() => Err(wrong("it ends too early".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
        Ok(_) if deserializer.position() < bytes.len() => Err(wrong("more follows behind it".to_owned())),
        Ok(key) => Ok(key),
    }
}

/// The bytes of a key. Where they are at their end it gives zeros and says so: memcomparable reads without looking how much is
/// there, and a slice would panic.
struct KeyBytes<'a> {
    rest: &'a [u8],
    short: &'a Cell<bool>,
}

impl KeyBytes<'_> {
    #[inline]
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        self.copy_to_slice(&mut taken);
        taken
    }
}

impl Buf for KeyBytes<'_> {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn chunk(&self) -> &[u8] {
        self.rest
    }

    fn advance(&mut self, count: usize) {
        match self.rest.get(count..) {
            Some(rest) => self.rest = rest,
            None => self.short.set(true),
        }
    }

    #[inline]
    fn copy_to_slice(&mut self, into: &mut [u8]) {
        match self.rest.split_at_checked(into.len()) {
            Some((taken, rest)) => {
                into.copy_from_slice(taken);
                self.rest = rest;
            }
            None => {
                into.fill(0);
                self.short.set(true);
            }
        }
    }

    #[inline]
    fn get_u8(&mut self) -> u8 {
        let [byte] = self.take();
        byte
    }

    #[inline]
    fn get_u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    #[inline]
    fn get_u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    #[inline]
    fn get_u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    #[inline]
    fn get_u128(&mut self) -> u128 {
        u128::from_be_bytes(self.take())
    }
}

/// Encodes into `scratch` (cleared first) and hashes.
#[inline]
pub fn hash_key<K: Serialize + ?Sized>(key: &K, scratch: &mut Vec<u8>) -> Result<KeyHash> {
    scratch.clear();
    encode_key(key, scratch)?;
    Ok(KeyHash(xxh3_64(scratch)))
}

/// The keys that a text in a URL or on a command line may mean, most likely first: text as it is, numbers in decimal,
/// composite keys as a JSON array.
///
/// ```
/// use thalweg_core::parse_key;
/// assert_eq!(parse_key::<u64>("42"), vec![42]);
/// assert_eq!(parse_key::<String>("42"), vec!["42".to_string()]);
/// assert_eq!(parse_key::<(String, u32)>("[\"a\",1]"), vec![("a".to_string(), 1)]);
/// assert!(parse_key::<u64>("x").is_empty());
/// ```
pub fn parse_key<K: DeserializeOwned>(text: &str) -> Vec<K> {
    let as_text = K::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text)).ok();
    let as_json = serde_json::from_str(text).ok();
    as_text.into_iter().chain(as_json).collect()
}

/// The range of encoded text keys that begin with `prefix`.
pub fn prefix_range(prefix: &str) -> Result<(Bound<Vec<u8>>, Bound<Vec<u8>>)> {
    let mut low = Vec::new();
    encode_key(prefix, &mut low)?;
    let mut last: Vec<char> = prefix.chars().collect();
    while let Some(char) = last.pop() {
        let next = (char as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
        if let Some(next) = next {
            last.push(next);
            let mut high = Vec::new();
            encode_key(&last.iter().collect::<String>(), &mut high)?;
            return Ok((Bound::Included(low), Bound::Excluded(high)));
        }
    }
    Ok((Bound::Included(low), Bound::Unbounded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_end_too_early_or_go_on_are_no_key() {
        let key = ("a text".to_owned(), 7u64, vec![Some(true), None]);
        let mut bytes = encoded(&key);
        assert_eq!(decode_key::<(String, u64, Vec<Option<bool>>)>(&bytes).expect("decodes"), key);
        for length in 0..bytes.len() {
            let error = decode_key::<(String, u64, Vec<Option<bool>>)>(&bytes[..length]).expect_err("is cut");
            assert_eq!(error.code(), "key-decode", "{length} bytes");
        }
        bytes.push(0);
        let error = decode_key::<(String, u64, Vec<Option<bool>>)>(&bytes).expect_err("goes on");
        assert!(error.message().ends_with("more follows behind it"), "{error}");
    }

    fn encoded<K: Serialize>(key: &K) -> Vec<u8> {
        let mut out = Vec::new();
        encode_key(key, &mut out).expect("encodes");
        out
    }

    #[test]
    fn the_order_of_bytes_is_the_order_of_keys() {
        let texts = ["", "a", "a\0", "ab", "abcdefgh", "abcdefghi", "b", "ä", "\u{10ffff}"];
        assert!(texts.windows(2).all(|pair| encoded(&pair[0]) < encoded(&pair[1])));
        let numbers = [i64::MIN, -1, 0, 1, 255, 256, i64::MAX];
        assert!(numbers.windows(2).all(|pair| encoded(&pair[0]) < encoded(&pair[1])));
        assert!(encoded(&("a", 2)) < encoded(&("b", 1)));
    }

    #[test]
    fn the_hash_is_the_documented_one() {
        // Frozen: a change would move every key of every job to another partition.
        let mut scratch = Vec::new();
        assert_eq!(hash_key("thalweg", &mut scratch).expect("text").0, xxh3_64(&encoded(&"thalweg")));
        assert_eq!(encoded(&"ab"), [1, b'a', b'b', 0, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn a_prefix_is_a_range() {
        let (Bound::Included(low), Bound::Excluded(high)) = prefix_range("ab").expect("range") else {
            panic!("bounded")
        };
        for (text, inside) in [("aa", false), ("ab", true), ("abzzzzzzzzzzzz", true), ("ac", false)] {
            let key = encoded(&text);
            assert_eq!(low <= key && key < high, inside, "{text}");
        }
    }
}
