//! Recomputes digests, at a pace.

use rocksdb::ReadOptions;
use thalweg_core::{Digest, Error, PartitionId, Result};

use crate::Backend;
use crate::cursor::Cursor;
use crate::layout::{ADVICE, digest_into};

/// Rows between two calls of the pace.
const ROWS_PER_STEP: u64 = 4096;

impl Backend {
    /// Reads all rows of a partition and compares their digest and number with the applied row; reading also checks the
    /// checksum of every block. Returns the digest; nothing where the partition never held anything.
    ///
    /// `pace` is called with the bytes read since its last call, about every 4,096 rows: it may wait, and its error ends the
    /// scrub.
    ///
    /// Errors: `state-corrupt`; whatever `pace` returns.
    pub fn scrub(
        &self,
        store: &str,
        partition: PartitionId,
        mut pace: impl FnMut(u64) -> Result<()>,
    ) -> Result<Option<Digest>> {
        let index = self.store_index(store)?;
        let snapshot = self.db().snapshot();
        let options = || {
            let mut options = ReadOptions::default();
            options.set_snapshot(&snapshot);
            options.fill_cache(false);
            options
        };
        let applied = self.applied_at(index, partition, &options())?;
        let mut cursor = Cursor::open_with_deleted(store, self.db(), self.family(index), partition, options())?;
        let (mut digest, mut entries, mut scratch) = (Digest::default(), 0u64, Vec::new());
        let (mut rows, mut bytes) = (0u64, 0u64);
        while let Some(row) = cursor.row()? {
            if !row.state.is_deleted() {
                digest += digest_into(&mut scratch, row.key, row.value);
                entries += 1;
            }
            rows += 1;
            bytes += (row.key.len() + row.value.len()) as u64;
            if rows.is_multiple_of(ROWS_PER_STEP) {
                pace(std::mem::take(&mut bytes))?;
            }
            cursor.advance()?;
        }
        let (expected, expected_entries) =
            applied.map_or((Digest::default(), 0), |applied| (applied.digest, applied.entries));
        if digest != expected || entries != expected_entries {
            return Err(Error::external(
                "state-corrupt",
                format!(
                    "store {store:?}, partition {partition}: {entries} entries with digest {:032x}, the applied row says \
                     {expected_entries} with {:032x}; {ADVICE}",
                    digest.0, expected.0
                ),
            ));
        }
        Ok(applied.map(|_| digest))
    }
}
