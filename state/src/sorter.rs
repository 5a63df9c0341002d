//! Sorts what may be larger than memory: in memory up to a limit, in sorted files beyond it.
//!
//! An external merge sort (Knuth, The Art of Computer Programming, volume 3, 5.4). In memory and in files stands the same, one entry
//! behind the other:
//!
//! ```text
//! key length      u32     little endian, as all lengths
//! payload length  u32
//! tag             u8
//! key, payload
//! ```
//!
//! So what is sorted goes into a file from where it is, and is taken from the buffer that a file was read into: nothing is copied in
//! between.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, IoSlice, Read, Seek, Write};
use std::ops::Range;
use std::path::PathBuf;

use thalweg_core::{Error, Result};

use crate::rows::head;

/// Pieces of memory, which never grow: the first is small, for small sorts, the others are of this size.
const CHUNK: usize = 1 << 20;
const FIRST_CHUNK: usize = 1 << 10;
const BUFFER: usize = 256 << 10;
/// Entries that are written at once: what Linux takes in one call.
const GATHERED: usize = 1024;
/// Files that are merged at once: so many of one level become one of the next.
const FAN_IN: usize = 32;
/// Key length, payload length, tag.
const HEAD: usize = 9;

/// Where runs go that do not stay in memory.
#[derive(Clone, Debug)]
pub(crate) struct Spill {
    /// The folder, where files live that a later start removes.
    pub(crate) dir: PathBuf,
    /// How the files begin; no other sorter of the folder may use the name.
    pub(crate) name: String,
    /// How many bytes stay in memory.
    pub(crate) limit: usize,
}

/// The two payloads of a key, by tag.
pub(crate) type Payloads<'a> = [Option<&'a [u8]>; 2];

/// Keys with a payload for each of two tags, of which the last that was pushed counts.
#[derive(Default)]
pub(crate) struct Sorter {
    chunks: Vec<Vec<u8>>,
    /// The chunk that entries go to; those behind it are empty.
    filling: usize,
    places: Vec<Place>,
    bytes: usize,
    spill: Option<Spill>,
    /// With their levels, which do not grow.
    runs: Vec<(u32, File)>,
    files: usize,
}

/// Where an entry is.
#[derive(Clone, Copy)]
struct Place {
    /// The beginning of its key, which decides nearly always, without a look at the entry.
    head: u128,
    chunk: u32,
    at: u32,
}

/// An entry, all of it.
#[derive(Clone, Copy)]
struct Entry<'a> {
    bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry at the beginning of `bytes`.
    fn first(bytes: &'a [u8]) -> Self {
        Self { bytes: &bytes[..HEAD + number(bytes, 0) + number(bytes, 4)] }
    }

    fn tag(self) -> usize {
        usize::from(self.bytes[HEAD - 1])
    }

    fn key(self) -> &'a [u8] {
        &self.bytes[HEAD..HEAD + number(self.bytes, 0)]
    }

    fn payload(self) -> &'a [u8] {
        &self.bytes[HEAD + number(self.bytes, 0)..]
    }
}

/// What a key has: an entry by tag.
type Group<'a> = [Option<Entry<'a>>; 2];

impl Sorter {
    /// A sorter that writes runs beyond a limit; [`Sorter::default`] has none.
    pub(crate) fn spilling(spill: Spill) -> Self {
        Self { spill: Some(spill), ..Self::default() }
    }

    /// Takes a payload, in two pieces, for a tag (0 or 1) of a key.
    ///
    /// Errors: disk, where a run is written.
    pub(crate) fn push(&mut self, key: &[u8], tag: usize, (first, rest): (&[u8], &[u8])) -> Result<()> {
        let (key_length, length) = (length(key.len())?, length(first.len() + rest.len())?);
        let bytes = HEAD + key.len() + first.len() + rest.len();
        let chunk = self.room(bytes);
        let at = self.chunks[chunk].len();
        let out = &mut self.chunks[chunk];
        out.extend_from_slice(&key_length.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.push(tag as u8);
        out.extend_from_slice(key);
        out.extend_from_slice(first);
        out.extend_from_slice(rest);
        let place = |place: usize| u32::try_from(place).expect("a chunk has at most one entry beyond its size");
        self.places.push(Place { head: head(key), chunk: place(chunk), at: place(at) });
        self.bytes += bytes + size_of::<Place>();
        if self.spill.as_ref().is_some_and(|spill| self.bytes >= spill.limit) {
            self.write_run()?;
        }
        Ok(())
    }

    /// Gives every key in order, with the last payload of each tag.
    ///
    /// Errors: disk; those of `take`.
    pub(crate) fn merge(mut self, mut take: impl FnMut(&[u8], Payloads<'_>) -> Result<()>) -> Result<()> {
        let files = std::mem::take(&mut self.runs);
        self.sort();
        let mut runs = files.into_iter().map(|(_, file)| Run::file(file)).collect::<Result<Vec<_>>>()?;
        runs.push(Run::memory(&self));
        merge(runs, |key, group| take(key, group.map(|entry| entry.map(Entry::payload))))
    }

    /// A chunk with so much room behind its entries.
    fn room(&mut self, bytes: usize) -> usize {
        let has_room = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= bytes;
        if !self.chunks.get(self.filling).is_some_and(has_room) {
            self.filling = (self.filling + 1).min(self.chunks.len());
            if !self.chunks.get(self.filling).is_some_and(has_room) {
                // Those behind are empty, and have no entry yet: they may move.
                let before = self.filling.checked_sub(1).map(|before| self.chunks[before].capacity());
                let size = before.map_or(FIRST_CHUNK, |capacity| (capacity * 2).min(CHUNK));
                self.chunks.insert(self.filling, Vec::with_capacity(size.max(bytes)));
            }
        }
        self.filling
    }

    fn entry(&self, place: Place) -> Entry<'_> {
        Entry::first(&self.chunks[place.chunk as usize][place.at as usize..])
    }

    /// By key, and for one key in the order of the pushes.
    fn sort(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by(|left, right| {
            let keys = || self.entry(*left).key().cmp(self.entry(*right).key());
            left.head.cmp(&right.head).then_with(keys).then((left.chunk, left.at).cmp(&(right.chunk, right.at)))
        });
        self.places = places;
    }

    /// Everything in memory becomes a file; as many files as are merged at once become one.
    fn write_run(&mut self) -> Result<()> {
        self.sort();
        let file = self.write_file(|file| write_gathered(file, self))?;
        self.push_run(0, file);
        self.places.clear();
        // Single entries had the larger ones.
        self.chunks.retain(|chunk| chunk.capacity() <= CHUNK);
        self.chunks.iter_mut().for_each(Vec::clear);
        (self.filling, self.bytes) = (0, 0);
        while let Some(first) = self.runs.len().checked_sub(FAN_IN) {
            let (level, _) = self.runs[first];
            if self.runs.last().is_none_or(|(last, _)| *last != level) {
                break;
            }
            let merged = self.runs.split_off(first).into_iter().map(|(_, file)| Run::file(file));
            let merged = merged.collect::<Result<_>>()?;
            let file = self.write_file(|file| write_merged(file, merged))?;
            self.push_run(level + 1, file);
        }
        Ok(())
    }

    fn push_run(&mut self, level: u32, file: File) {
        self.runs.push((level, file));
        self.files += 1;
    }

    /// Writes a run into a file without a name: nobody else can open it, and it is gone with its handle.
    fn write_file(&self, write: impl FnOnce(&mut File) -> Result<()>) -> Result<File> {
        let spill = self.spill.as_ref().expect("without a folder nothing is written");
        let path = spill.dir.join(format!("{}-{:06}.tmp", spill.name, self.files));
        let doing = |error| Error::io(format!("writing {}", path.display()), error);
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(doing)?;
        fs::remove_file(&path).map_err(doing)?;
        write(&mut file).map_err(|error| error.context(format!("writing {}", path.display())))?;
        file.rewind().map_err(doing)?;
        Ok(file)
    }
}

/// Gives every key of these runs in order; of two entries the one of the later run counts.
fn merge(mut runs: Vec<Run<'_>>, mut take: impl FnMut(&[u8], Group<'_>) -> Result<()>) -> Result<()> {
    let mut least: Vec<usize> = Vec::with_capacity(runs.len());
    loop {
        // There are some tens of runs at most; each is looked at.
        least.clear();
        for (index, run) in runs.iter().enumerate() {
            if run.head.is_none() {
                continue;
            }
            let first = least.first().map(|first| &runs[*first]);
            match first.map(|first| run.head.cmp(&first.head).then_with(|| run.key().cmp(&first.key()))) {
                Some(Ordering::Greater) => {}
                Some(Ordering::Equal) => least.push(index),
                Some(Ordering::Less) | None => {
                    least.clear();
                    least.push(index);
                }
            }
        }
        let Some(key) = least.first().and_then(|first| runs[*first].key()) else { return Ok(()) };
        let last = |tag: usize| least.iter().rev().find_map(|index| runs[*index].group()[tag]);
        take(key, [last(0), last(1)])?;
        least.iter().try_for_each(|index| runs[*index].advance())?;
    }
}

/// Writes what is in memory and sorted.
fn write_gathered(file: &mut File, sorter: &Sorter) -> Result<()> {
    let mut run = InMemory::new(sorter);
    let mut gathered = Vec::with_capacity(GATHERED);
    while !run.is_over() {
        gathered.extend(run.group.into_iter().flatten().map(|entry| IoSlice::new(entry.bytes)));
        run.advance();
        if gathered.len() + 2 > GATHERED || run.is_over() {
            write_all(file, &mut gathered).map_err(spilling)?;
            gathered.clear();
        }
    }
    Ok(())
}

/// Writes several runs as one.
fn write_merged(file: &mut File, runs: Vec<Run<'_>>) -> Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    merge(runs, |_, group| {
        group.into_iter().flatten().try_for_each(|entry| out.write_all(entry.bytes)).map_err(spilling)
    })?;
    out.flush().map_err(spilling)
}

/// Until the standard library's own is stable (rust-lang/rust#70436).
fn write_all(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn spilling(error: io::Error) -> Error {
    Error::io("a sorted file", error)
}

fn length(bytes: usize) -> Result<u32> {
    let text = || Error::internal("state-sort", format!("an entry of {bytes} bytes is too large to be sorted"));
    u32::try_from(bytes).map_err(|_| text())
}

fn number(bytes: &[u8], at: usize) -> usize {
    let number: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(number) as usize
}

/// Groups in the order of their keys.
struct Run<'a> {
    /// The beginning of the key that is next, if there is one: it decides nearly always.
    head: Option<u128>,
    source: Source<'a>,
}

enum Source<'a> {
    Memory(InMemory<'a>),
    File(InFile),
}

impl<'a> Run<'a> {
    /// Of a sorter that is sorted.
    fn memory(sorter: &'a Sorter) -> Self {
        Self::new(Source::Memory(InMemory::new(sorter)))
    }

    fn file(file: File) -> Result<Self> {
        let mut source =
            InFile { input: file, buffer: vec![0; BUFFER], filled: 0, start: 0, group: [None, None], next: 0 };
        source.advance()?;
        Ok(Self::new(Source::File(source)))
    }

    fn new(source: Source<'a>) -> Self {
        let mut run = Self { head: None, source };
        run.head = run.key().map(head);
        run
    }

    /// Of the key that is next.
    fn group(&self) -> Group<'_> {
        match &self.source {
            Source::Memory(run) => run.group,
            Source::File(run) => run.group(),
        }
    }

    fn key(&self) -> Option<&[u8]> {
        self.group().into_iter().flatten().next().map(Entry::key)
    }

    fn advance(&mut self) -> Result<()> {
        match &mut self.source {
            Source::Memory(run) => run.advance(),
            Source::File(run) => run.advance()?,
        }
        self.head = self.key().map(head);
        Ok(())
    }
}

struct InMemory<'a> {
    sorter: &'a Sorter,
    /// Those behind the group.
    rest: &'a [Place],
    group: Group<'a>,
}

impl<'a> InMemory<'a> {
    /// Of a sorter that is sorted.
    fn new(sorter: &'a Sorter) -> Self {
        let mut run = Self { sorter, rest: &sorter.places, group: [None; 2] };
        run.advance();
        run
    }

    fn is_over(&self) -> bool {
        self.group.iter().all(Option::is_none)
    }

    fn advance(&mut self) {
        self.group = [None; 2];
        let mut first = None;
        while let Some((place, rest)) = self.rest.split_first() {
            let entry = self.sorter.entry(*place);
            if *first.get_or_insert(entry.key()) != entry.key() {
                return;
            }
            self.group[entry.tag()] = Some(entry);
            self.rest = rest;
        }
    }
}

struct InFile {
    input: File,
    buffer: Vec<u8>,
    /// How much of the buffer was read.
    filled: usize,
    /// Where the group begins in it; what is before that may go.
    start: usize,
    /// Where the entries of the group are, from there.
    group: [Option<Range<usize>>; 2],
    /// Where the entry behind the group is, from there.
    next: usize,
}

impl InFile {
    fn group(&self) -> Group<'_> {
        self.group.each_ref().map(|entry| Some(Entry { bytes: &self.buffer[self.start..][entry.clone()?] }))
    }

    fn advance(&mut self) -> Result<()> {
        self.read_group().map_err(|error| Error::io("reading a sorted file", error))
    }

    fn read_group(&mut self) -> io::Result<()> {
        self.start += self.next;
        (self.group, self.next) = ([None, None], 0);
        let mut key = 0..0;
        while self.has(HEAD)? {
            let bytes = &self.buffer[self.start + self.next..];
            let (own, payload) = (number(bytes, 0), number(bytes, 4));
            let entry = self.next..self.next + HEAD + own + payload;
            self.need(HEAD + own)?;
            let group = &self.buffer[self.start..];
            let own = self.next + HEAD..self.next + HEAD + own;
            if self.next == 0 {
                key = own;
            } else if group[key.clone()] != group[own] {
                break;
            }
            self.need(entry.len())?;
            let tag = Entry { bytes: &self.buffer[self.start..][entry.clone()] }.tag();
            self.next = entry.end;
            self.group[tag] = Some(entry);
        }
        Ok(())
    }

    fn need(&mut self, bytes: usize) -> io::Result<()> {
        if self.has(bytes)? { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// Sees to so many bytes behind the group; says whether there are any.
    fn has(&mut self, bytes: usize) -> io::Result<bool> {
        let end = |this: &Self| this.start + this.next + bytes;
        if end(self) > self.buffer.len() {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            self.start = 0;
            if end(self) > self.buffer.len() {
                self.buffer.resize(end(self), 0);
            }
        }
        while self.filled < end(self) {
            match self.input.read(&mut self.buffer[self.filled..]) {
                Ok(0) if self.filled == self.start + self.next => return Ok(false),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Model = BTreeMap<Vec<u8>, [Option<Vec<u8>>; 2]>;

    fn check(seed: u64, pushes: u64, keys: u64, limit: Option<usize>) -> usize {
        let dir = tempfile::tempdir().unwrap();
        let spill = limit.map(|limit| Spill { dir: dir.path().to_owned(), name: "sort".to_owned(), limit });
        let mut sorter = spill.map_or_else(Sorter::default, Sorter::spilling);
        let (mut model, mut state) = (Model::new(), seed);
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for _ in 0..pushes {
            // Keys that are beginnings of each other, that differ behind their sixteenth byte, and an empty one.
            let number = below(keys);
            let mut key = vec![b'a'; (number % 23) as usize];
            key.extend(number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0));
            let tag = below(2) as usize;
            let payload = vec![below(256) as u8; below(40) as usize];
            let (first, rest) = payload.split_at(payload.len() / 3);
            sorter.push(&key, tag, (first, rest)).unwrap();
            model.entry(key).or_default()[tag] = Some(payload);
        }
        let written = sorter.files;
        assert!(sorter.runs.len() < FAN_IN * 3, "there are {} files", sorter.runs.len());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a run has no name");
        let mut all = Vec::new();
        sorter
            .merge(|key, payloads| {
                all.push((key.to_vec(), payloads.map(|payload| payload.map(<[u8]>::to_vec))));
                Ok(())
            })
            .unwrap();
        assert_eq!(all, model.into_iter().collect::<Vec<_>>(), "seed {seed}");
        written
    }

    #[test]
    fn what_was_pushed_last_comes_in_order_with_and_without_files() {
        for seed in 1..30 {
            assert_eq!(check(seed, seed * 40, 200, None), 0);
            assert!(check(seed, seed * 40, 200, Some(1500)) >= 1);
            // A file for each, of three levels.
            let pushes = if seed == 1 { 2500 } else { 60 };
            assert_eq!(check(seed, pushes, 100, Some(1)) as u64, pushes + pushes / 32 + pushes / 1024);
        }
        assert_eq!(check(1, 0, 1, None), 0);
        let nowhere = Spill { dir: "/nowhere".into(), name: "sort".to_owned(), limit: 1 };
        assert!(Sorter::spilling(nowhere).push(b"key", 0, (b"", b"value")).is_err());
        // Each larger than the one before, and than a chunk: what they had is given back.
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill { dir: dir.path().to_owned(), name: "sort".to_owned(), limit: 4 * CHUNK };
        let mut sorter = Sorter::spilling(spill);
        for number in 0..30_u8 {
            let large = vec![number; CHUNK + 1000 * usize::from(number)];
            sorter.push(&[number], 0, (&[], if number % 3 == 0 { b"small" } else { &large })).unwrap();
            let held: usize = sorter.chunks.iter().map(Vec::capacity).sum();
            assert!(held < 8 * CHUNK, "{held} bytes after {number}");
        }
        // Over several chunks.
        assert!(check(7, 60_000, 20_000, Some(2 << 20)) >= 2);
    }
}
