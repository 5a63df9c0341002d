//! Rewrites the rows of stores whose shape has changed, when the folder is opened.
//!
//! Each partition is rewritten in one piece, and its applied row carries the fingerprint of the new shape: a process that
//! dies between two partitions goes on with the next. The meta data follows when all partitions are done.

use rocksdb::ReadOptions;
use thalweg_core::{Error, KeyHash, PartitionId, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::changelog::{Outcome, RowState, RowValue, Slot};
use crate::cursor::Cursor;
use crate::meta::{Migrate, StoreMeta, shape_of};
use crate::sorter::Sorter;
use crate::{Applied, Backend, RestoreMode};

/// Rows of a partition that are sorted in memory; more are sorted on disk.
const MIGRATION_BYTES: usize = 128 << 20;

impl Backend {
    pub(crate) fn migrate(&mut self) -> Result<()> {
        for spec in self.take_specs() {
            let index = self.store_index(&spec.name)?;
            let old = self.meta().stores[index].clone();
            let Some(migrate) = &spec.migrate else { continue };
            if old.key_shape == spec.key_shape && old.value_shape == spec.value_shape {
                continue;
            }
            let shape = shape_of(&spec.key_shape, &spec.value_shape);
            tracing::info!(store = spec.name, "rewriting rows of an older shape");
            for partition in self.partitions().all() {
                match self.applied(&spec.name, partition)? {
                    Some(applied) if applied.shape != shape => {
                        self.migrate_partition(&old, partition, &applied, shape, migrate)?;
                    }
                    _ => {}
                }
            }
            self.set_shapes(index, &spec)?;
        }
        Ok(())
    }

    fn migrate_partition(
        &self,
        old: &StoreMeta,
        partition: PartitionId,
        applied: &Applied,
        shape: u64,
        migrate: &Migrate,
    ) -> Result<()> {
        let store = self.store_index(&old.name)?;
        let mut restore = self.restore(&old.name, partition, RestoreMode::Replace)?;
        // The migration may change the order of keys.
        let mut sorter = Sorter::spilling(self.spill(store, partition, MIGRATION_BYTES));
        let live = RowState::Live(Slot::Zero).to_bits().expect("there is a row");
        let (mut before, mut after) = (0_u64, 0_u64);
        let options = ReadOptions::default();
        let mut cursor = Cursor::open_with_deleted(&old.name, self.db(), self.family(store), partition, options)?;
        while let Some(row) = cursor.row()? {
            let (key, value) = migrate(&old.key_shape, &old.value_shape, row.key, row.value)
                .map_err(|error| error.context(format_args!("migrating store {:?}", old.name)))?;
            if KeyHash(xxh3_64(&key)).partition(self.partitions()) != partition {
                return Err(Error::user(
                    "state-migrate-key",
                    format!("store {:?}: the migration moves a key to another partition, which it cannot", old.name),
                ));
            }
            // Without a changelog every row is in this slot.
            sorter.push(&key, Slot::Zero.index(), (&[live], &value))?;
            before += 1;
            cursor.advance()?;
        }
        drop(cursor);
        sorter.merge(|key, [stored, _]| {
            after += 1;
            restore.push(key, Outcome::Live(Slot::Zero, RowValue::new(stored.expect("nothing else was pushed"))))
        })?;
        if after < before {
            let text = format!(
                "store {:?}, partition {partition}: the migration makes {after} keys of {before}; each must keep one of its own",
                old.name
            );
            return Err(Error::user("state-migrate-key", text));
        }
        restore.install(applied.generation, applied.epoch, applied.recorded, applied.changelog, Some(shape))
    }
}
