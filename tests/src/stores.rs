//! Reading stores of a running job over HTTP.

use serde_json::Value as Json;

use crate::Client;
use crate::reference::{Reference, Store};
use crate::sketch::JOB;

/// What a reader saw of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Which store.
    pub store: String,
    /// `latest` or `committed`.
    pub at: &'static str,
    /// The epoch that the server said it is of.
    pub epoch: u64,
    /// The entries in the order in which they came.
    pub entries: Vec<(Json, Json)>,
}

/// Reads a whole store, page by page, the pages at one epoch; nothing where the job moved on between two pages or cannot tell.
///
/// Errors: no server there.
pub fn scan_store(client: &Client, store: &str, at: &'static str, page: usize) -> Result<Option<Observation>, String> {
    let mut seen = Observation { store: store.to_owned(), at, epoch: 0, entries: Vec::new() };
    let mut cursor = String::new();
    loop {
        let answer = client.get(&format!("/v1/jobs/{JOB}/stores/{store}/keys?at={at}&limit={page}{cursor}"))?;
        if answer.status != 200 {
            return Ok(None);
        }
        let epoch = answer.json["epoch"].as_u64().ok_or("an answer without an epoch")?;
        if !cursor.is_empty() && epoch != seen.epoch {
            return Ok(None);
        }
        seen.epoch = epoch;
        let entries = answer.json["entries"].as_array().ok_or("an answer without entries")?;
        seen.entries.extend(entries.iter().map(|entry| (entry["key"].clone(), entry["value"].clone())));
        match answer.json["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(Some(seen)),
        }
    }
}

impl Observation {
    /// Compares with the store that the interpreter has at the same epoch.
    pub fn check(&self, reference: &Reference) -> Result<(), String> {
        let stores = reference.snapshots.get(&self.epoch);
        let stores = stores.ok_or_else(|| {
            format!(
                "store {} was seen at epoch {}, which no binding names: it was observable before it was bound",
                self.store, self.epoch
            )
        })?;
        self.compare(&stores[&self.store])
    }

    /// Compares with a store, in key order.
    fn compare(&self, store: &Store) -> Result<(), String> {
        let expected: Vec<&(Json, Json)> = store.values().collect();
        let differs = self.entries.iter().zip(&expected).position(|(a, b)| a != *b);
        let at = match differs {
            None if self.entries.len() == expected.len() => return Ok(()),
            None => self.entries.len().min(expected.len()),
            Some(at) => at,
        };
        Err(format!(
            "store {} at {} of epoch {}: entry {at} of {} is {:?}, but it should be {:?} of {}",
            self.store,
            self.at,
            self.epoch,
            self.entries.len(),
            self.entries.get(at),
            expected.get(at),
            expected.len()
        ))
    }
}
