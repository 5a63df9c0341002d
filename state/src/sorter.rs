//! Sorts what may be larger than memory: in memory up to a limit, in sorted files beyond it.
//!
//! An external merge sort (Knuth, The Art of Computer Programming, volume 3, 5.4). A file of a run is a row of groups, one for each key:
//!
//! ```text
//! key length  u32     little endian, as all lengths
//! lengths     u32 x2  of the two payloads, and one more; 0: there is none
//! key, payloads
//! ```

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, Write};
use std::path::PathBuf;

use thalweg_core::{Error, Result};

use crate::rows::head;

/// Pieces of memory, which never grow: the first is small, for small sorts, the others are of this size.
const CHUNK: usize = 1 << 20;
const FIRST_CHUNK: usize = 1 << 10;
const BUFFER: usize = 256 << 10;
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

struct Entry<'a> {
    key: &'a [u8],
    tag: usize,
    payload: &'a [u8],
}

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
    pub(crate) fn merge(mut self, take: impl FnMut(&[u8], Payloads<'_>) -> Result<()>) -> Result<()> {
        let files = std::mem::take(&mut self.runs);
        self.sort();
        let mut runs = files.into_iter().map(|(_, file)| Run::file(file)).collect::<Result<Vec<_>>>()?;
        runs.push(Run::Memory(InMemory::new(&self)));
        merge(runs, take)
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
        let bytes = &self.chunks[place.chunk as usize][place.at as usize..];
        let (key, payload) = (number(bytes, 0), number(bytes, 4));
        let (head, rest) = bytes.split_at(HEAD);
        Entry { key: &rest[..key], tag: usize::from(head[HEAD - 1]), payload: &rest[key..key + payload] }
    }

    /// By key, and for one key in the order of the pushes.
    fn sort(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by(|left, right| {
            let keys = || self.entry(*left).key.cmp(self.entry(*right).key);
            left.head.cmp(&right.head).then_with(keys).then((left.chunk, left.at).cmp(&(right.chunk, right.at)))
        });
        self.places = places;
    }

    /// Everything in memory becomes a file; as many files as are merged at once become one.
    fn write_run(&mut self) -> Result<()> {
        self.sort();
        let file = self.write_file(vec![Run::Memory(InMemory::new(self))])?;
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
            let file = self.write_file(merged.collect::<Result<_>>()?)?;
            self.push_run(level + 1, file);
        }
        Ok(())
    }

    fn push_run(&mut self, level: u32, file: File) {
        self.runs.push((level, file));
        self.files += 1;
    }

    /// Writes runs as one into a file without a name: nobody else can open it, and it is gone with its handle.
    fn write_file(&self, runs: Vec<Run<'_>>) -> Result<File> {
        let spill = self.spill.as_ref().expect("without a folder nothing is written");
        let path = spill.dir.join(format!("{}-{:06}.tmp", spill.name, self.files));
        let doing = |error| Error::io(format!("writing {}", path.display()), error);
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(doing)?;
        fs::remove_file(&path).map_err(doing)?;
        let mut out = BufWriter::with_capacity(BUFFER, file);
        merge(runs, |key, payloads| write_group(&mut out, key, payloads).map_err(doing))?;
        let mut file = out.into_inner().map_err(|error| doing(error.into_error()))?;
        file.rewind().map_err(doing)?;
        Ok(file)
    }
}

/// Gives every key of these runs in order; of two payloads the one of the later run counts.
fn merge(mut runs: Vec<Run<'_>>, mut take: impl FnMut(&[u8], Payloads<'_>) -> Result<()>) -> Result<()> {
    let mut least: Vec<usize> = Vec::with_capacity(runs.len());
    loop {
        // There are some tens of runs at most; each is looked at.
        least.clear();
        for (index, run) in runs.iter().enumerate() {
            let Some(key) = run.key() else { continue };
            match least.first().map(|first| key.cmp(runs[*first].key().expect("it had one"))) {
                Some(Ordering::Greater) => {}
                Some(Ordering::Equal) => least.push(index),
                Some(Ordering::Less) | None => {
                    least.clear();
                    least.push(index);
                }
            }
        }
        let Some(first) = least.first() else { return Ok(()) };
        let payload = |tag| least.iter().rev().find_map(|index| runs[*index].payload(tag));
        take(runs[*first].key().expect("it is the least"), [payload(0), payload(1)])?;
        least.iter().try_for_each(|index| runs[*index].advance())?;
    }
}

fn write_group(out: &mut impl Write, key: &[u8], payloads: Payloads<'_>) -> io::Result<()> {
    out.write_all(&(key.len() as u32).to_le_bytes())?;
    for payload in payloads {
        out.write_all(&payload.map_or(0, |payload| payload.len() as u32 + 1).to_le_bytes())?;
    }
    out.write_all(key)?;
    payloads.into_iter().flatten().try_for_each(|payload| out.write_all(payload))
}

/// One more than it can be said.
fn length(bytes: usize) -> Result<u32> {
    let text = || Error::internal("state-sort", format!("an entry of {bytes} bytes is too large to be sorted"));
    u32::try_from(bytes).ok().filter(|length| *length < u32::MAX).ok_or_else(text)
}

fn number(bytes: &[u8], at: usize) -> usize {
    let number: [u8; 4] = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(number) as usize
}

/// Groups in the order of their keys.
enum Run<'a> {
    Memory(InMemory<'a>),
    File(InFile),
}

impl Run<'_> {
    fn file(file: File) -> Result<Self> {
        let mut run =
            InFile { input: BufReader::with_capacity(BUFFER, file), bytes: Vec::new(), key: None, payloads: [None; 2] };
        run.advance()?;
        Ok(Self::File(run))
    }

    /// Of the group that is next, if there is one.
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Memory(run) => run.key,
            Self::File(run) => Some(&run.bytes[..run.key?]),
        }
    }

    fn payload(&self, tag: usize) -> Option<&[u8]> {
        match self {
            Self::Memory(run) => run.payloads[tag],
            Self::File(run) => run.payloads[tag].map(|(from, to)| &run.bytes[from..to]),
        }
    }

    fn advance(&mut self) -> Result<()> {
        match self {
            Self::Memory(run) => run.advance(),
            Self::File(run) => run.advance()?,
        }
        Ok(())
    }
}

struct InMemory<'a> {
    sorter: &'a Sorter,
    /// Those behind the group.
    rest: &'a [Place],
    key: Option<&'a [u8]>,
    payloads: Payloads<'a>,
}

impl<'a> InMemory<'a> {
    /// Of a sorter that is sorted.
    fn new(sorter: &'a Sorter) -> Self {
        let mut run = Self { sorter, rest: &sorter.places, key: None, payloads: [None; 2] };
        run.advance();
        run
    }

    fn advance(&mut self) {
        (self.key, self.payloads) = (None, [None; 2]);
        while let Some((place, rest)) = self.rest.split_first() {
            let entry = self.sorter.entry(*place);
            if **self.key.get_or_insert(entry.key) != *entry.key {
                return;
            }
            self.payloads[entry.tag] = Some(entry.payload);
            self.rest = rest;
        }
    }
}

struct InFile {
    input: BufReader<File>,
    /// Key and payloads of the group.
    bytes: Vec<u8>,
    /// How long the key is.
    key: Option<usize>,
    /// Where the payloads are.
    payloads: [Option<(usize, usize)>; 2],
}

impl InFile {
    fn advance(&mut self) -> Result<()> {
        self.read_group().map_err(|error| Error::io("reading a sorted file", error))
    }

    fn read_group(&mut self) -> io::Result<()> {
        (self.key, self.payloads) = (None, [None; 2]);
        let mut head = [0; 12];
        match self.input.read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            outcome => outcome?,
        }
        let key = number(&head, 0);
        let mut end = key;
        for (payload, length) in self.payloads.iter_mut().zip([number(&head, 4), number(&head, 8)]) {
            if let Some(length) = length.checked_sub(1) {
                *payload = Some((end, end + length));
                end += length;
            }
        }
        self.bytes.resize(end, 0);
        self.input.read_exact(&mut self.bytes)?;
        self.key = Some(key);
        Ok(())
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
