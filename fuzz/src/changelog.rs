//! Records of a changelog.

use thalweg_core::{Digest, Epoch, Generation};
use thalweg_state::changelog::{ChangelogKey, ChangelogValue, EndRecord, RecordBody, Slot};
use xxhash_rust::xxh3::Xxh3;

/// The first byte is the length of the key, then key and value; the value is given its checksum.
pub(crate) fn record(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (key, content) = rest.split_at(usize::from(*length).min(rest.len()));
    if let Ok(decoded) = ChangelogKey::decode(key) {
        let mut again = Vec::new();
        decoded.encode(&mut again);
        assert_eq!(again, key);
    }
    let mut hasher = Xxh3::new();
    hasher.update(key);
    hasher.update(content);
    let value = [content, &(hasher.digest() as u32).to_le_bytes()].concat();
    if let Ok(decoded) = ChangelogValue::decode(key, &value) {
        let mut again = Vec::new();
        decoded.encode(key, &mut again);
        assert_eq!(ChangelogValue::decode(key, &again).expect("what was encoded"), decoded);
    }
}

pub(crate) fn records() -> Vec<Vec<u8>> {
    let end = EndRecord { entries: 7, digest: Digest(9) };
    let rows = [
        (ChangelogKey::Row { key: b"paris", slot: Slot::One }, RecordBody::Version(b"\x07")),
        (ChangelogKey::Row { key: b"", slot: Slot::Zero }, RecordBody::Deleted),
        (ChangelogKey::End { slot: Slot::One }, RecordBody::End(end)),
    ];
    let encode = |(key, body): (ChangelogKey<'_>, RecordBody<'_>)| {
        let (mut bytes, mut value) = (Vec::new(), Vec::new());
        key.encode(&mut bytes);
        ChangelogValue { generation: Generation(300), checkpoint: Epoch(70_000), body }.encode(&bytes, &mut value);
        [&[bytes.len() as u8], &bytes[..], &value[..value.len() - 4]].concat()
    };
    rows.into_iter().map(encode).collect()
}
