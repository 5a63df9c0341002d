//! Errors of RocksDB as ours.

use std::fmt::Display;
use std::io;

use rocksdb::ErrorKind;
use thalweg_core::{Error, Result};

use crate::layout::ADVICE;

/// Says what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl Display) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, rocksdb::Error> {
    fn doing(self, what: impl Display) -> Result<T> {
        self.map_err(|error| translate(what, error))
    }
}

fn translate(doing: impl Display, error: rocksdb::Error) -> Error {
    let text = error.to_string();
    let missing = text.contains("No such file");
    match error.kind() {
        ErrorKind::IOError if text.contains("No space left") => {
            Error::io(doing, io::Error::new(io::ErrorKind::StorageFull, text))
        }
        ErrorKind::IOError if text.contains("Permission denied") => {
            Error::io(doing, io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
        ErrorKind::IOError if text.contains("lock") && !missing => {
            Error::external("state-locked", format!("{doing}: {text}; another process uses this folder, only one may"))
        }
        ErrorKind::Corruption => Error::external("state-corrupt", format!("{doing}: {text}; {ADVICE}")),
        ErrorKind::IOError if missing => Error::external("state-corrupt", format!("{doing}: {text}; {ADVICE}")),
        ErrorKind::IOError => Error::external("state-io", format!("{doing}: {text}")),
        _ => Error::internal("state-rocksdb", format!("{doing}: {text}")),
    }
}
