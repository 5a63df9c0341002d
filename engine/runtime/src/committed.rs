//! Answers out of committed state: in a running task, and in the folder of a job that does not run.

use thalweg_core::{Entry, Error, PartitionCount, Query, QueryError};
use thalweg_operators::{StoreReader, scan_bounds, tag_range};
use thalweg_state::{CommittedView, KeyRange};

/// The entries that answer a question about one store, and whether a scan stopped at its limit. For one key or several there is
/// an entry for each that was asked for.
pub fn read_view(
    view: &CommittedView,
    partitions: PartitionCount,
    store: &str,
    reader: &dyn StoreReader,
    query: &Query,
) -> Result<(Vec<Entry>, bool), QueryError> {
    let get = |key: &String| read_key(view, partitions, store, reader, key);
    let range = match query {
        Query::Get { key } => return Ok((vec![get(key)?], false)),
        Query::GetMany { keys } => return Ok((keys.iter().map(get).collect::<Result<_, _>>()?, false)),
        Query::Scan(range) => range,
    };
    let partitions: Vec<_> = partitions.all().collect();
    let has = |tag| {
        let mut found = false;
        let visit = |_: &[u8], _: &[u8]| {
            found = true;
            Ok(())
        };
        view.scan(store, &partitions, &tag_range(tag), 1, visit).is_ok() && found
    };
    let (from, to) = scan_bounds(reader, range, has)?;
    let mut entries = Vec::new();
    let visit = |key: &[u8], value: &[u8]| {
        let (shown, value) = (reader.show_key(key)?, reader.show_value(value)?);
        entries.push(Entry { encoded: key.to_vec(), key: shown, value: Some(value) });
        Ok(())
    };
    let more = view.scan(store, &partitions, &KeyRange { from, to }, range.limit, visit).map_err(failed)?;
    Ok((entries, more))
}

/// The first of the keys that the text may mean that is there, else the first of them.
fn read_key(
    view: &CommittedView,
    partitions: PartitionCount,
    store: &str,
    reader: &dyn StoreReader,
    text: &str,
) -> Result<Entry, QueryError> {
    let mut absent = None;
    for (hash, encoded) in reader.keys(text) {
        let key = reader.show_key(&encoded).map_err(failed)?;
        let value = view.get(store, hash.partition(partitions), &encoded).map_err(failed)?;
        let value = value.map(|value| reader.show_value(&value)).transpose().map_err(failed)?;
        let found = value.is_some();
        let entry = Entry { encoded, key, value };
        if found {
            return Ok(entry);
        }
        absent = absent.or(Some(entry));
    }
    absent.ok_or_else(|| QueryError::BadKey(format!("{text:?} is no key of store {store:?}")))
}

fn failed(error: Error) -> QueryError {
    QueryError::Failed(error.to_string())
}
