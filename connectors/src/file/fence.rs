//! Keeps writers of older generations, and of other jobs, out of a file sink.
//!
//! The fence is a hidden file: `.fence` in the folder of a sink, `.NAME.fence` beside a single file. A writer is opened under an
//! exclusive lock on it, which records whose the sink is from then on; it writes under a shared lock, after a look that the
//! record is still its own. So a writer of an older generation that is still alive finishes the write that it is in, and makes
//! no other. Locks are those of the operating system, and go with the process.
//!
//! ```text
//! 0   8  magic "THWFENCE"
//! 8   4  version, 1, little endian
//! 12 16  job id, little endian
//! 28  8  generation, little endian
//! 36  4  CRC-32C of bytes 0 to 35, little endian
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thalweg_core::{Error, Generation, JobId, Result, format_duration};

const MAGIC: &[u8; 8] = b"THWFENCE";
const VERSION: u32 = 1;
const BYTES: usize = 40;

/// How long a new writer waits for an older one to finish the write that it is in.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// The right to write to a sink's files, as long as nobody newer has come.
pub(super) struct Fence {
    file: File,
    path: PathBuf,
    owner: Owner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    job: JobId,
    generation: Generation,
}

impl Fence {
    /// Takes the sink over for a generation of a job.
    ///
    /// Errors: `fenced` where a newer generation of this job has been here.
    pub(super) fn raise(path: PathBuf, job: JobId, generation: Generation) -> Result<Self> {
        let doing = |what: &str| format!("{}: {what}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::io(doing("opening the sink's fence"), error))?;
        lock(&path, || file.try_lock())?;
        let owner = Owner { job, generation };
        let before = read(&path, &file)?;
        if let Some(before) = before.filter(|before| before.job == job && before.generation > generation) {
            return Err(fenced(&path, owner, before));
        }
        if before != Some(owner) {
            file.write_all_at(&owner.encode(), 0)
                .and_then(|()| file.sync_data())
                .map_err(|error| Error::io(doing("writing the sink's fence"), error))?;
        }
        file.unlock().map_err(|error| Error::io(doing("unlocking the sink's fence"), error))?;
        Ok(Self { file, path, owner })
    }

    /// Writes something, unless a newer writer has come.
    pub(super) fn guarded<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        lock(&self.path, || self.file.try_lock_shared())?;
        let result = match read(&self.path, &self.file)? {
            Some(now) if now == self.owner => write(),
            Some(now) => Err(fenced(&self.path, self.owner, now)),
            None => Err(damaged(&self.path)),
        };
        self.file
            .unlock()
            .map_err(|error| Error::io(format!("{}: unlocking the sink's fence", self.path.display()), error))?;
        result
    }
}

impl Owner {
    fn encode(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.job.0.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.generation.0.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let whole = bytes.starts_with(MAGIC)
            && bytes[8..12] == VERSION.to_le_bytes()
            && bytes[36..] == crc32c::crc32c(&bytes[..36]).to_le_bytes();
        let job = u128::from_le_bytes(bytes[12..28].try_into().ok()?);
        let generation = u64::from_le_bytes(bytes[28..36].try_into().ok()?);
        whole.then_some(Self { job: JobId(job), generation: Generation(generation) })
    }
}

/// The owner; nothing where the fence was just made.
fn read(path: &Path, file: &File) -> Result<Option<Owner>> {
    let doing = || format!("{}: reading the sink's fence", path.display());
    let mut bytes = [0; BYTES];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Owner::decode(&bytes).map(Some).ok_or_else(|| damaged(path)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            let length = file.metadata().map_err(|error| Error::io(doing(), error))?.len();
            if length == 0 { Ok(None) } else { Err(damaged(path)) }
        }
        Err(error) => Err(Error::io(doing(), error)),
    }
}

fn lock(path: &Path, mut attempt: impl FnMut() -> Result<(), TryLockError>) -> Result<()> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => {
                return Err(Error::io(format!("{}: locking the sink", path.display()), error));
            }
            Err(TryLockError::WouldBlock) if begun.elapsed() > LOCK_WAIT => {
                let waited = format_duration(LOCK_WAIT);
                let message =
                    format!("{}: another process has been writing to this sink for {waited}; stop it", path.display());
                return Err(Error::external("sink-busy", message).retryable());
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
        }
    }
}

fn fenced(path: &Path, own: Owner, other: Owner) -> Error {
    let who = if own.job == other.job {
        format!("generation {} of the job has taken it over", other.generation)
    } else {
        format!("the job with the id {} has taken it over", other.job)
    };
    Error::external(
        "fenced",
        format!("{}: this writer of generation {} may not write to the sink: {who}", path.display(), own.generation),
    )
}

fn damaged(path: &Path) -> Error {
    Error::external(
        "corrupt-file",
        format!(
            "{}: the sink's fence is damaged; stop all jobs that write here, remove it, start again",
            path.display()
        ),
    )
}
