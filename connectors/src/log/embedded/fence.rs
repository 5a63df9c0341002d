//! Who may write: per producer id the highest generation ever seen, durable, and the one object that is alive.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use thalweg_core::{Error, Generation, Result};

use super::batch::u64_at;
use super::durable::{corrupt, load, make_dir, replace};

const MAGIC: [u8; 4] = *b"TWLF";
/// Longest id of a producer.
const MAX_ID_BYTES: usize = 1024;

/// The fences of a log.
pub(super) struct Fences {
    dir: PathBuf,
    known: Mutex<HashMap<String, Arc<Fence>>>,
}

/// The fence of one id.
#[derive(Default)]
pub(super) struct Fence {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    generation: Option<Generation>,
    /// Counts producers; the last one lives.
    living: u64,
}

/// What a producer holds of its fence.
pub(super) struct Pass {
    id: String,
    fence: Arc<Fence>,
    number: u64,
    /// The generation it was made for.
    pub(super) generation: Generation,
}

/// Keeps newer producers of the id waiting while a commit is under way.
pub(super) struct Entered<'a> {
    _state: MutexGuard<'a, State>,
}

impl Fences {
    /// The fences kept in a folder.
    pub(super) fn open(dir: PathBuf) -> Result<Self> {
        make_dir(&dir)?;
        Ok(Self { dir, known: Mutex::default() })
    }

    /// Makes the caller the only living producer of `id`; refuses a lower generation than was ever seen.
    pub(super) fn enter(&self, id: &str, generation: Generation) -> Result<Pass> {
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(Error::user("producer-id", format!("producer id {id:?}: use 1 to {MAX_ID_BYTES} bytes")));
        }
        let fence = self.known.lock().entry(id.to_owned()).or_default().clone();
        let mut state = fence.state.lock();
        let path = self.dir.join(format!("{:032x}", xxhash_rust::xxh3::xxh3_128(id.as_bytes())));
        if state.generation.is_none() {
            state.generation = load_generation(&path, id)?;
        }
        match state.generation {
            Some(seen) if seen > generation => {
                return Err(fenced(id, generation, &format!("generation {seen} has fenced it")));
            }
            Some(seen) if seen == generation => {}
            _ => {
                let mut payload = generation.0.to_le_bytes().to_vec();
                payload.extend_from_slice(id.as_bytes());
                replace(&path, MAGIC, &payload)?;
                state.generation = Some(generation);
            }
        }
        state.living += 1;
        let number = state.living;
        drop(state);
        Ok(Pass { id: id.to_owned(), fence, number, generation })
    }
}

fn load_generation(path: &Path, id: &str) -> Result<Option<Generation>> {
    let Some(payload) = load(path, MAGIC)? else { return Ok(None) };
    if payload.len() < 8 || payload[8..] != *id.as_bytes() {
        return Err(corrupt(path, 0, format!("this is not the fence of {id:?}")));
    }
    Ok(Some(Generation(u64_at(&payload, 0))))
}

fn fenced(id: &str, generation: Generation, why: &str) -> Error {
    Error::external("fenced", format!("producer {id:?} of generation {generation}: {why}; this producer is over"))
}

impl Pass {
    /// Checks that this producer is alive, and keeps it so while the result is held.
    pub(super) fn check(&self) -> Result<Entered<'_>> {
        let state = self.fence.state.lock();
        if state.living == self.number {
            return Ok(Entered { _state: state });
        }
        Err(fenced(&self.id, self.generation, "a newer producer has its id"))
    }

    /// The id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}
