//! Files as a source, as they are when the job is created; `follow` has those that grow.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thalweg_core::{Error, PartitionId, PartitionSpec, Result, SourceKey};

use super::framing::Framing;
use super::identity::Identity;
use super::paths::{Paths, open_file};
use super::reader::{FileReader, Lead, Window};
use super::stream::{Compression, Stream, changed};
use crate::{Format, RawReader, RawSource};

/// A plain file larger than this is read in ranges: large enough that a range is worth a partition, small enough that a file of
/// a gigabyte feeds all workers of a machine. It does not depend on the number of workers, so neither do the partitions.
const SPLIT_BYTES: u64 = 64 << 20;

/// Most ranges of one file: every binding names every partition, so there should not be thousands.
const MAX_RANGES: u64 = 64;

/// Longest record unless the job says otherwise: more than that is most often a wrong format.
const MAX_RECORD_BYTES: usize = 16 << 20;

/// Most partitions of a source: their ids have 16 bits.
const MAX_PARTITIONS: usize = 1 << 16;

/// Reads files: each is a partition, large plain ones are several.
///
/// The list of files and their lengths are fixed when the job is created: a file that grows later is read
/// up to that length, one that shrinks or is replaced is the error `file-changed`. Files compressed with gzip or zstd are
/// recognised by their first bytes; their positions count decompressed bytes, their partition's `end` is not known in advance
/// and the reader's `End` tells it.
///
/// ```no_run
/// use thalweg_connectors::{FileSource, Format, RawSource};
///
/// let source = FileSource::new("data", ["flights-*.csv.gz"], &Format::Csv(Default::default()));
/// let partitions = source.discover(0)?;
/// # Ok::<(), thalweg_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileSource {
    paths: Paths,
    framing: Framing,
    max_record_bytes: usize,
    split_bytes: u64,
}

impl FileSource {
    /// Reads `paths`, each a path or a glob pattern, relative to `base`.
    pub fn new<P: Into<String>>(base: impl Into<PathBuf>, paths: impl IntoIterator<Item = P>, format: &Format) -> Self {
        Self {
            paths: Paths::new(base.into(), paths.into_iter().map(Into::into).collect()),
            framing: Framing::of(format),
            max_record_bytes: MAX_RECORD_BYTES,
            split_bytes: SPLIT_BYTES,
        }
    }

    /// The longest record, in bytes; a longer one is the error `record-too-large`.
    #[must_use]
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    #[cfg(test)]
    pub(super) fn split_bytes(mut self, bytes: u64) -> Self {
        self.split_bytes = bytes;
        self
    }

    /// The start and the end of each partition of a file.
    fn ranges(
        &self,
        name: &str,
        file: &File,
        compression: Compression,
        identity: &Identity,
    ) -> Result<Vec<(u64, Option<u64>)>> {
        if compression != Compression::None {
            return Ok(vec![(0, None)]);
        }
        let length = identity.length;
        if !self.framing.is_lines() || length <= self.split_bytes {
            return Ok(vec![(0, Some(length))]);
        }
        let step = self.split_bytes.max(length.div_ceil(MAX_RANGES));
        let (mut ranges, mut start) = (Vec::new(), 0);
        while length - start > step {
            let Some(end) = line_end_after(name, file, start + step, length)? else { break };
            ranges.push((start, Some(end)));
            start = end;
        }
        if start < length {
            ranges.push((start, Some(length)));
        }
        Ok(ranges)
    }

    fn partitions(&self, path: &Path) -> Result<Vec<PartitionSpec>> {
        let name = self.paths.name(path)?;
        let file = open_file(&name, path)?;
        let compression = Compression::of(&name, &file)?;
        let identity = Identity::of(&name, &file)?;
        let ranges = self.ranges(&name, &file, compression, &identity)?;
        let of = SourceKey { source: 0, partition: PartitionId(0) };
        let spec = |(start, end)| PartitionSpec { of, name: name.clone(), identity: identity.to_string(), start, end };
        Ok(ranges.into_iter().map(spec).collect())
    }
}

impl RawSource for FileSource {
    fn discover(&self, source: u16) -> Result<Vec<PartitionSpec>> {
        if self.paths.patterns().is_empty() {
            return Err(Error::user("no-input", "a source of files needs at least one path"));
        }
        let mut files = BTreeSet::new();
        for pattern in self.paths.patterns() {
            let found = self.paths.matches(pattern)?;
            if found.is_empty() {
                return Err(self.paths.no_input(pattern));
            }
            files.extend(found);
        }
        let mut partitions = Vec::new();
        for file in &files {
            partitions.extend(self.partitions(file)?);
        }
        if partitions.len() > MAX_PARTITIONS {
            return Err(Error::user(
                "too-many-files",
                format!(
                    "{} partitions in {} files: a source has at most {MAX_PARTITIONS}; join some files",
                    partitions.len(),
                    files.len()
                ),
            ));
        }
        for (index, partition) in partitions.iter_mut().enumerate() {
            partition.of = SourceKey { source, partition: PartitionId(index as u16) };
        }
        Ok(partitions)
    }

    fn open(&self, partition: &PartitionSpec, from: u64) -> Result<Box<dyn RawReader>> {
        let name = &partition.name;
        let identity = Identity::parse(name, &partition.identity)?;
        let path = self.paths.path(name);
        let file = match open_file(name, &path) {
            Err(error) if error.code() == "not-found" => return Err(changed(name, "it is gone")),
            file => file?,
        };
        if let Some(how) = identity.differs(name, &file)? {
            return Err(changed(name, &how));
        }
        let compression = Compression::of(name, &file)?;
        let mut reader = FileReader {
            name: name.clone(),
            stream: Stream::open(name, file, compression, identity.length, partition.end)?,
            unchecked: Some(path),
            splitter: self.framing.splitter(),
            end: partition.end,
            max_record_bytes: self.max_record_bytes,
            lead: Lead::Mark { header: self.framing.header },
            header: None,
            window: Window::default(),
            position: 0,
        };
        reader.start(from)?;
        Ok(Box::new(reader))
    }
}

/// The position after the first line end at or after `from - 1`; nothing where the rest of the file has none.
fn line_end_after(name: &str, file: &File, from: u64, length: u64) -> Result<Option<u64>> {
    let mut chunk = vec![0; 64 << 10];
    let mut at = from - 1;
    while at < length {
        let wanted = (chunk.len() as u64).min(length - at) as usize;
        match file.read_at(&mut chunk[..wanted], at) {
            Ok(0) => return Err(changed(name, "it became shorter while it was looked at")),
            Ok(read) => match memchr::memchr(b'\n', &chunk[..read]) {
                Some(index) => return Ok(Some(at + index as u64 + 1)),
                None => at += read as u64,
            },
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(format!("{name}: looking for line ends"), error)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::check_source;
    use crate::random::Random;
    use crate::{CsvOptions, Fields, FormattedSource, RecordSource};
    use thalweg_core::Value;

    fn read(source: &dyn RecordSource<Value>) -> (usize, Vec<String>) {
        let partitions = source.discover(0).expect("discovers");
        let limit = crate::ReadLimit { records: usize::MAX, bytes: usize::MAX, until: None };
        let mut out = Vec::new();
        for partition in &partitions {
            source
                .open(partition, partition.start)
                .and_then(|mut reader| reader.read(limit, &mut out, &mut Vec::new()))
                .expect("reads");
        }
        (partitions.len(), out.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_large_file_gives_the_same_in_ranges() {
        let seed = Random::seed_for_tests();
        let mut random = Random::new(seed);
        let csv = Format::Csv(CsvOptions { multiline: false, ..CsvOptions::default() });
        let mut split_files = 0;
        for round in 0..60 {
            let lines = 1 + random.below(60);
            let mut text = "name,number\n".to_owned();
            for line in 0..lines {
                let end = ["\n", "\r\n"][random.below(2) as usize];
                text += &format!("{},{line}{end}", "x".repeat(random.below(30) as usize));
            }
            text.truncate(text.len() - random.below(2) as usize * 2);
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("large"), &text).expect("a file");
            let split = 1 + random.below(200);
            for format in [Format::Lines, csv.clone(), Format::Csv(CsvOptions::default())] {
                let make = |bytes| {
                    let raw = FileSource::new(folder.path(), ["large"], &format).split_bytes(bytes);
                    FormattedSource::values(Box::new(raw), format.clone(), Fields::All)
                };
                let ((parts, ranges), (_, whole)) = (read(&make(split)), read(&make(u64::MAX)));
                assert_eq!(ranges, whole, "seed {seed}, round {round}, split {split}: {text:?}");
                assert!(parts as u64 <= MAX_RANGES, "{parts} ranges");
                split_files += usize::from(parts > 1);
                assert!(parts == 1 || Framing::of(&format).is_lines(), "line ends may be quoted");
                check_source(|| Box::new(make(split)), seed);
            }
        }
        assert!(split_files > 20, "{split_files} files were split");
    }
}
