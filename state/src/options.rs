//! How RocksDB is set up, and why.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompactionStyle, DBCompressionType, IngestExternalFileOptions,
    LogLevel, Options, UniversalCompactOptions,
};

/// Limits of one [`crate::Backend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendOptions {
    /// Blocks kept in memory, over all stores. Default 64 MiB.
    pub cache_bytes: usize,
    /// Files kept open, over all stores; each costs its index and filter in memory. Default 512.
    pub open_files: u32,
    /// Threads that compact. Default 2.
    pub background_jobs: u32,
    /// What compaction may write in a second, so that it leaves disk and cores to the job. Default 128 MiB.
    pub compaction_bytes_per_second: u64,
    /// Rows of a partition in one file of a restore. Default 64 MiB.
    pub restore_file_bytes: usize,
}

impl Default for BackendOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            open_files: 512,
            background_jobs: 2,
            compaction_bytes_per_second: 128 << 20,
            restore_file_bytes: 64 << 20,
        }
    }
}

/// Sorted runs of a store before universal compaction merges some: a run costs a look into its filter at every read that
/// misses the overlay, a merge costs writing.
const RUNS: i32 = 6;

impl BackendOptions {
    pub(crate) fn database(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_paranoid_checks(true);
        options.set_max_open_files(i32::try_from(self.open_files.max(16)).unwrap_or(i32::MAX));
        options.set_max_file_opening_threads(2);
        options.set_max_background_jobs(i32::try_from(self.background_jobs.max(1)).unwrap_or(i32::MAX));
        let rate = i64::try_from(self.compaction_bytes_per_second.max(1 << 20)).unwrap_or(i64::MAX);
        options.set_ratelimiter(rate, 100_000, 10);
        // Opening must be quick: no walk through the statistics of every file.
        options.set_skip_stats_update_on_db_open(true);
        options.set_stats_persist_period_sec(0);
        options.set_stats_dump_period_sec(0);
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options
    }

    pub(crate) fn cache(&self) -> Cache {
        Cache::new_lru_cache(self.cache_bytes)
    }

    /// Of every column family, and of the files that are made for it.
    pub(crate) fn column_family(cache: &Cache) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        // Misses are single rows: a block is read and decompressed for each.
        table.set_block_size(4 << 10);
        // Absent keys are the common miss: every new key asks once.
        table.set_bloom_filter(10.0, false);
        table.set_whole_key_filtering(true);
        // Index and filters count against the cache, in pieces: one filter of a large file would be larger than a shard of
        // the cache, and be read from disk at every look.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(16 << 10);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_top_level_index_and_filter(true);
        table.set_format_version(5);

        let mut universal = UniversalCompactOptions::default();
        universal.set_size_ratio(20);
        universal.set_min_merge_width(2);
        universal.set_max_size_amplification_percent(100);

        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_universal_compaction_options(&universal);
        options.set_level_zero_file_num_compaction_trigger(RUNS);
        // Files are ingested: memtables stay empty, so they are small, and nothing ever waits for them.
        options.set_write_buffer_size(1 << 20);
        options.set_level_zero_slowdown_writes_trigger(1 << 20);
        options.set_level_zero_stop_writes_trigger(1 << 20);
        options
    }

    /// Files are moved in, seen by no snapshot that was taken before.
    pub(crate) fn ingest() -> IngestExternalFileOptions {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        options.set_snapshot_consistency(true);
        options.set_allow_global_seqno(true);
        options
    }
}
