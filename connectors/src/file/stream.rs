//! The bytes of a file, decompressed.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thalweg_core::{Error, Result};

use super::identity::start_of;

/// Compressed bytes that are read at once.
const INPUT_BYTES: usize = 128 << 10;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes; a name that promises a compression that is not there is an error.
    pub(super) fn of(name: &str, file: &File) -> Result<Self> {
        let found = Self::of_start(&start_of(name, file, 4)?);
        if Self::is_promised(name) && found == Self::None {
            return Err(Error::external(
                "corrupt-file",
                format!(
                    "{name}: position 0: its name says that it is compressed, its first bytes say that it is not; replace it, or rename it"
                ),
            ));
        }
        Ok(found)
    }

    /// By the first bytes alone.
    pub(super) fn of_start(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// Whether the name says that the file is compressed.
    pub(super) fn is_promised(name: &str) -> bool {
        name.ends_with(".gz") || name.ends_with(".zst")
    }
}

/// Counts what is taken from the file, for progress.
struct Counted<R> {
    file: R,
    consumed: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(into)?;
        self.consumed.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Bytes from some position on.
pub(super) enum Stream {
    /// At an offset, up to a fixed end.
    Plain { file: File, offset: u64, end: u64 },
    /// From the start; members and frames that follow each other are one stream.
    Compressed { inner: Box<dyn Read + Send>, offset: u64, consumed: Arc<AtomicU64>, length: u64 },
}

impl Stream {
    /// Opens at position 0; `length` bounds the bytes on disk, `end` the position.
    pub(super) fn open(
        name: &str,
        mut file: File,
        compression: Compression,
        length: u64,
        end: Option<u64>,
    ) -> Result<Self> {
        if compression == Compression::None {
            return Ok(Stream::Plain { file, offset: 0, end: end.unwrap_or(length) });
        }
        file.seek(SeekFrom::Start(0)).map_err(|error| Error::io(format!("{name}: going to its start"), error))?;
        let consumed = Arc::new(AtomicU64::new(0));
        let counted = Counted { file: file.take(length), consumed: consumed.clone() };
        let input = BufReader::with_capacity(INPUT_BYTES, counted);
        let inner: Box<dyn Read + Send> = if compression == Compression::Gzip {
            Box::new(flate2::bufread::MultiGzDecoder::new(input))
        } else {
            Box::new(zstd::stream::read::Decoder::with_buffer(input).map_err(|error| corrupt(name, 0, error))?)
        };
        Ok(Stream::Compressed { inner, offset: 0, consumed, length })
    }

    /// Goes to a position, where that costs nothing.
    pub(super) fn seek(&mut self, position: u64) -> bool {
        match self {
            Stream::Plain { offset, .. } => {
                *offset = position;
                true
            }
            Stream::Compressed { .. } => false,
        }
    }

    /// How much of a bounded file is read, 0 to 1; of a compressed one by its compressed bytes.
    pub(super) fn fraction(&self) -> Option<f64> {
        match self {
            Stream::Plain { offset, end, .. } => Some(*offset as f64 / (*end).max(1) as f64),
            Stream::Compressed { consumed, length, .. } => {
                Some(consumed.load(Ordering::Relaxed) as f64 / (*length).max(1) as f64)
            }
        }
    }

    /// Reads some bytes; 0 at the end.
    ///
    /// Errors: `corrupt-file`, `file-changed` where a bounded file has become shorter, and those of the disk.
    pub(super) fn read(&mut self, name: &str, into: &mut [u8]) -> Result<usize> {
        loop {
            let (result, at) = match self {
                Stream::Plain { file, offset, end } => {
                    let left = end.saturating_sub(*offset);
                    let wanted = usize::try_from(left).map_or(into.len(), |left| left.min(into.len()));
                    let result = file.read_at(&mut into[..wanted], *offset);
                    if matches!(result, Ok(0)) && wanted > 0 {
                        return Err(changed(
                            name,
                            &format!("it ends at position {offset} and was longer when the run began"),
                        ));
                    }
                    (result, offset)
                }
                Stream::Compressed { inner, offset, .. } => (inner.read(into), offset),
            };
            match result {
                Ok(read) => {
                    *at += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(corrupt(name, *at, error)),
            }
        }
    }
}

/// An error of the operating system is one of the disk, any other is the decompressor's.
fn corrupt(name: &str, position: u64, error: std::io::Error) -> Error {
    if error.raw_os_error().is_some() {
        return Error::io(format!("{name}: reading at position {position}"), error);
    }
    let what = if error.kind() == ErrorKind::UnexpectedEof { "it is cut short".to_owned() } else { error.to_string() };
    Error::external(
        "corrupt-file",
        format!("{name}: after position {position} of its content it cannot be decompressed: {what}; replace it by a whole copy"),
    )
    .with_source(error)
}

/// A file of a bounded run is not what it was when the run began.
pub(super) fn changed(name: &str, how: &str) -> Error {
    Error::external(
        "file-changed",
        format!(
            "{name}: the file has changed since the run began: {how}; put the original back, or begin a new run on a new --data folder"
        ),
    )
}
