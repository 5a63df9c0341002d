//! Small files that are replaced as a whole: the format of the folder, the meta of a topic, a fence.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use thalweg_core::{Error, Result};

/// The version of every small file's frame.
const VERSION: u32 = 1;
const FRAME: usize = 16;

/// Damaged bytes: which file, where, and what is wrong with them.
pub(super) fn corrupt(path: &Path, at: u64, why: impl std::fmt::Display) -> Error {
    Error::external(
        "log-corrupt",
        format!(
            "{}: byte {at}: {why}; the file was changed or the disk lost data: restore it from a copy, nothing was skipped",
            path.display()
        ),
    )
}

/// Replaces `path` by a framed payload: complete and durable, or untouched.
pub(super) fn replace(path: &Path, magic: [u8; 4], payload: &[u8]) -> Result<()> {
    let mut bytes = Vec::with_capacity(FRAME + payload.len());
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    let draft = path.with_extension("new");
    let doing = || format!("write {}", draft.display());
    let mut file = File::create(&draft).map_err(|e| Error::io(doing(), e))?;
    file.write_all(&bytes).map_err(|e| Error::io(doing(), e))?;
    file.sync_all().map_err(|e| Error::io(doing(), e))?;
    fs::rename(&draft, path).map_err(|e| Error::io(format!("rename to {}", path.display()), e))?;
    sync_parent(path)
}

/// The payload of a framed file; nothing where the file does not exist.
pub(super) fn load(path: &Path, magic: [u8; 4]) -> Result<Option<Vec<u8>>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format!("read {}", path.display()), error)),
    };
    if bytes.len() < FRAME || bytes[..4] != magic {
        return Err(corrupt(path, 0, "not the file that belongs here"));
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if word(4) != VERSION {
        return Err(Error::user(
            "log-version",
            format!(
                "{}: version {}, this program reads {VERSION}; use the program that wrote it",
                path.display(),
                word(4)
            ),
        ));
    }
    let payload = &bytes[FRAME..];
    if word(12) as usize != payload.len() || word(8) != crc32c::crc32c(payload) {
        return Err(corrupt(path, FRAME as u64, "the checksum does not match"));
    }
    Ok(Some(payload.to_vec()))
}

/// Makes names in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|e| Error::io(format!("sync {}", dir.display()), e))
}

fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes a folder with its parents.
pub(super) fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| Error::io(format!("make the folder {}", dir.display()), e))
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
