//! The bodies of answers about keys. The JSON texts of the reply are spliced in as they are: nothing is parsed again.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use thalweg_core::{Entry, QueryReply};

use super::parameters::encode_cursor;

/// The longest that the fixed parts of an answer get, so that a body is one allocation.
const FRAME_BYTES: usize = 128;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The task that hosts the key.
    Active,
    /// Nobody: the folder of a job that does not run.
    Stopped,
}

/// `{"key":…,"value":…,"epoch":n,"age_ms":n,"role":"active"}`
pub(crate) fn one(key: &str, value: &str, reply: &QueryReply, role: Role) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + value.len() + FRAME_BYTES);
    out.extend_from_slice(b"{\"key\":");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b",\"value\":");
    out.extend_from_slice(value.as_bytes());
    end(&mut out, reply, role);
    out
}

/// `{"entries":[{"key":…,"value":…}…],"cursor":…,"epoch":n,"age_ms":n,"role":"active"}`
pub(crate) fn page(reply: &QueryReply, role: Role) -> Vec<u8> {
    let mut out = entries(reply, |_, _| {});
    out.extend_from_slice(b",\"cursor\":");
    match reply.entries.last().filter(|_| reply.more) {
        None => out.extend_from_slice(b"null"),
        Some(last) => {
            out.push(b'"');
            encode_cursor(&last.encoded, &mut out);
            out.push(b'"');
        }
    }
    end(&mut out, reply, role);
    out
}

/// `{"entries":[{"key":…,"value":…,"found":true}…],"epoch":n,"age_ms":n,"role":"active"}`; an absent key has the value null
/// and `"found":false`, so that it cannot be taken for a null that is stored.
pub(super) fn many(reply: &QueryReply) -> Vec<u8> {
    let mut out = entries(reply, |entry, out| {
        let found: &[u8] = if entry.value.is_some() { b",\"found\":true" } else { b",\"found\":false" };
        out.extend_from_slice(found);
    });
    end(&mut out, reply, Role::Active);
    out
}

fn entries(reply: &QueryReply, extra: impl Fn(&Entry, &mut Vec<u8>)) -> Vec<u8> {
    const PER_ENTRY_BYTES: usize = 40;
    let texts = |entry: &Entry| entry.key.len() + entry.value.as_ref().map_or(4, String::len) + PER_ENTRY_BYTES;
    let mut out = Vec::with_capacity(reply.entries.iter().map(texts).sum::<usize>() + FRAME_BYTES);
    out.extend_from_slice(b"{\"entries\":[");
    for (index, entry) in reply.entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"key\":");
        out.extend_from_slice(entry.key.as_bytes());
        out.extend_from_slice(b",\"value\":");
        out.extend_from_slice(entry.value.as_deref().unwrap_or("null").as_bytes());
        extra(entry, &mut out);
        out.push(b'}');
    }
    out.push(b']');
    out
}

fn end(out: &mut Vec<u8>, reply: &QueryReply, role: Role) {
    let age = age_ms(reply.minted_at);
    let role = match role {
        Role::Active => "active",
        Role::Stopped => "stopped",
    };
    write!(out, ",\"epoch\":{},\"age_ms\":{age},\"role\":\"{role}\"}}", reply.epoch)
        .expect("writing to a Vec cannot fail");
}

/// Milliseconds since an instant in microseconds since 1970; 0 where the clock was set back behind it.
pub(super) fn age_ms(micros: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    now.saturating_sub(u128::try_from(micros).unwrap_or(0)).try_into().map_or(u64::MAX, |age: u64| age / 1000)
}

/// Bytes as text where they are text, and as `{"hex":"…"}` where they are not.
pub(crate) fn text_or_hex(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

/// A moment in microseconds since 1970, for people.
pub(crate) fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |time| time.to_string())
}
