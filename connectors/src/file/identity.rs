//! What makes a file the same one after a restart.
//!
//! In a partition's spec it is the text `device:inode:hash:hashed:length`: numbers in decimal, but the hash, xxh3-64 of the first
//! `hashed` bytes (at most 4,096) of the file as it is on disk, in 16 hexadecimal digits; `length` is how many bytes on disk
//! belong to the run.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use thalweg_core::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

/// As many bytes as tell two files apart that begin in the same way; one block of most disks.
const HASHED_BYTES: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    hash: u64,
    hashed: u64,
    /// The length on disk that the run reads.
    pub(super) length: u64,
}

impl Identity {
    /// Of an open file.
    pub(super) fn of(name: &str, file: &File) -> Result<Self> {
        let meta = file.metadata().map_err(|error| Error::io(format!("{name}: looking at the file"), error))?;
        let start = start_of(name, file, meta.len().min(HASHED_BYTES))?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            hash: xxh3_64(&start),
            hashed: start.len() as u64,
            length: meta.len(),
        })
    }

    pub(super) fn parse(name: &str, text: &str) -> Result<Self> {
        let wrong = || Error::internal("file-identity", format!("{name}: {text:?} is no identity of a file"));
        let parts: Vec<&str> = text.split(':').collect();
        let [device, inode, hash, hashed, length] = parts[..] else { return Err(wrong()) };
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let hash = u64::from_str_radix(hash, 16).map_err(|_| wrong())?;
        Ok(Self {
            device: number(device)?,
            inode: number(inode)?,
            hash,
            hashed: number(hashed)?,
            length: number(length)?,
        })
    }

    /// Why the open file is not this one any more, or has lost bytes; nothing where all is well.
    pub(super) fn differs(&self, name: &str, file: &File) -> Result<Option<String>> {
        let meta = file.metadata().map_err(|error| Error::io(format!("{name}: looking at the file"), error))?;
        if (meta.dev(), meta.ino()) != (self.device, self.inode) {
            return Ok(Some("another file has taken its place".to_owned()));
        }
        if meta.len() < self.length {
            return Ok(Some(format!("it had {} bytes, and has {}", self.length, meta.len())));
        }
        let start = start_of(name, file, self.hashed)?;
        Ok((start.len() as u64 != self.hashed || xxh3_64(&start) != self.hash)
            .then(|| "its first bytes were changed".to_owned()))
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{:016x}:{}:{}", self.device, self.inode, self.hash, self.hashed, self.length)
    }
}

/// The first `length` bytes, or fewer where the file is shorter.
pub(super) fn start_of(name: &str, file: &File, length: u64) -> Result<Vec<u8>> {
    let mut start = vec![0; length as usize];
    let mut filled = 0;
    while filled < start.len() {
        match file.read_at(&mut start[filled..], filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(format!("{name}: reading its start"), error)),
        }
    }
    start.truncate(filled);
    Ok(start)
}
