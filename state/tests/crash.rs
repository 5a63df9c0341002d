//! Deaths of the process while a checkpoint is on its way into RocksDB. In a process of its own: failpoints are global.

mod harness;

use std::fs;

use harness::{GENERATION, filled, put, read_applied, rows_of, store, write};
use thalweg_core::{Epoch, Lineage, Result, failpoint};

#[test]
fn a_written_checkpoint_is_applied_after_a_crash_if_it_was_committed() -> Result<()> {
    // `error@1` stands for the death of the process at that point.
    for (point, committed) in
        [("", true), ("", false), ("state-ingest=error@1", true), ("state-ingested=error@1", true)]
    {
        let folder = filled()?;
        let mut lineage = Lineage::default();
        lineage.commit(GENERATION, Epoch(1));
        let backend = folder.reopen(&lineage)?;
        let mut store = store(backend.clone(), 1 << 20, false);
        put(&mut store, 0..10, "new", Epoch(2))?;
        let files = write(&backend, &mut store, Epoch(2))?;
        if committed {
            lineage.commit(GENERATION, Epoch(2));
        }
        if !point.is_empty() {
            failpoint::arm(point)?;
            backend.apply(files.clone()).expect_err("the point is armed");
            failpoint::arm("")?;
        }
        drop((store, backend));
        // Some of the leftovers of a crash.
        fs::write(folder.path().join("pending/e1.sst.tmp"), b"half").expect("writes");
        fs::write(folder.path().join("pending/restore-s0-p0-0.sst"), b"half").expect("writes");
        for _ in 0..2 {
            let backend = folder.reopen(&lineage)?;
            let rows = rows_of::<u64, String>(&backend.view(), folder.partitions)?;
            assert_eq!(rows.len(), 5000);
            assert_eq!(rows[&3] == "new", committed, "{point}");
            read_applied(&backend, if committed { Epoch(2) } else { Epoch(1) })?;
            assert_eq!(fs::read_dir(folder.path().join("pending")).expect("there").count(), 0, "{point}");
        }
    }
    Ok(())
}
