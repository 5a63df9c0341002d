//! The thread that follows files: looks for them, reads what is new, keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg_core::{Error, Result};

use super::file::Followed;
use super::mark::{FileId, Mark, Table, tables_of};
use crate::file::framing::Framing;
use crate::file::paths::{Paths, open_file};
use crate::file::stream::Compression;
use crate::ingest::{Appender, Flow, IngestState};
use crate::log::{Log, NewRecord};

/// How soon files are looked at again that had nothing new; doubles from the first to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(16));
/// How often new files are looked for, at most; and at least so many times as long as a look takes.
const SCAN: Duration = Duration::from_millis(200);
const SCAN_FACTOR: u32 = 50;
/// Bytes that are made durable together, about.
const GROUP_BYTES: u64 = 1 << 20;
/// Bytes of records after which the table of files is written again: a restart looks through no more.
const TABLE_BYTES: u64 = 16 << 20;

pub(super) struct Follower {
    paths: Paths,
    framing: Framing,
    max_record_bytes: usize,
    log: Arc<dyn Log>,
    topic: String,
    appender: Appender,
    state: Arc<IngestState>,
    files: BTreeMap<FileId, Followed>,
    /// Those that were moved away first, then by name.
    order: Vec<(bool, String, FileId)>,
    /// Compressed files that were met and are not read.
    passed_over: BTreeSet<FileId>,
    next_scan: Instant,
    /// Bytes since the table was written.
    since_table: u64,
}

/// What a round over all files came to.
struct Round {
    bytes: u64,
    flow: Flow,
}

impl Follower {
    pub(super) fn new(
        paths: Paths,
        framing: Framing,
        max_record_bytes: usize,
        log: Arc<dyn Log>,
        topic: String,
        appender: Appender,
        state: Arc<IngestState>,
    ) -> Self {
        Self {
            paths,
            framing,
            max_record_bytes,
            log,
            topic,
            appender,
            state,
            files: BTreeMap::new(),
            order: Vec::new(),
            passed_over: BTreeSet::new(),
            next_scan: Instant::now(),
            since_table: 0,
        }
    }

    /// Follows until it is told to stop.
    pub(super) fn run(&mut self, table: Table) -> Result<()> {
        self.resume(table)?;
        let mut poll = POLL.0;
        loop {
            if Instant::now() >= self.next_scan {
                let began = Instant::now();
                self.scan()?;
                self.next_scan = Instant::now() + SCAN.max(began.elapsed() * SCAN_FACTOR);
            }
            let round = self.round()?;
            if round.flow == Flow::Stop {
                return Ok(());
            }
            if self.since_table >= TABLE_BYTES {
                self.save_table()?;
            }
            poll = if round.bytes > 0 { POLL.0 } else { (poll * 2).min(POLL.1) };
            if self.state.pause(if round.bytes > 0 { Duration::ZERO } else { poll }) {
                return Ok(());
            }
        }
    }

    /// Finds the files again that were read before, also under other names, and goes on with them.
    fn resume(&mut self, mut table: Table) -> Result<()> {
        self.state.set_trimmable(table.offset);
        table.catch_up(&*self.log, &self.topic)?;
        let mut folders: BTreeMap<PathBuf, BTreeMap<FileId, PathBuf>> = BTreeMap::new();
        for mark in table.marks.values() {
            let path = self.paths.path(&mark.name);
            let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
            let found = match folders.get(&folder) {
                Some(found) => found,
                None => folders.entry(folder.clone()).or_insert(files_in(&folder)?),
            };
            match found.get(&mark.id) {
                Some(path) if self.resume_file(mark, path)? => {}
                _ => {
                    self.state.lost();
                    tracing::warn!(
                        "{}: the file was removed, replaced or cut while the job did not run; {} bytes of it are kept, and what it had \
                         beyond them is lost",
                        mark.name,
                        mark.position
                    );
                }
            }
        }
        Ok(())
    }

    fn resume_file(&mut self, mark: &Mark, path: &Path) -> Result<bool> {
        let Some((id, file)) = open_same(&mark.name, path)?.filter(|(id, _)| *id == mark.id) else { return Ok(false) };
        // By its old name until the paths mean it under another: the new file of that name comes after it.
        let mut file = Followed::new(id, mark.name.clone(), file, self.framing, self.max_record_bytes);
        let fits = file.resume(mark)?;
        if fits {
            self.files.insert(id, file);
        }
        Ok(fits)
    }

    /// Looks which files the paths mean now.
    fn scan(&mut self) -> Result<()> {
        let mut found: BTreeMap<FileId, PathBuf> = BTreeMap::new();
        for pattern in self.paths.patterns() {
            for path in self.paths.matches(pattern)? {
                if let Some(id) = id_of(&path)? {
                    found.entry(id).or_insert(path);
                }
            }
        }
        for (id, file) in &mut self.files {
            let name = found.get(id).map(|path| self.paths.name(path)).transpose()?;
            file.set_place(name);
        }
        self.passed_over.retain(|id| found.contains_key(id));
        for (id, path) in found {
            if !self.files.contains_key(&id) && !self.passed_over.contains(&id) {
                self.begin(id, &path)?;
            }
        }
        let over: Vec<FileId> = self.files.values().filter(|file| file.is_over()).map(|file| file.id).collect();
        over.into_iter().try_for_each(|id| self.end(id))?;
        self.order = self.files.values().map(|file| (!file.is_moved(), file.name.clone(), file.id)).collect();
        self.order.sort_unstable();
        Ok(())
    }

    /// A file that was not there before.
    fn begin(&mut self, id: FileId, path: &Path) -> Result<()> {
        let name = self.paths.name(path)?;
        // Gone again, or another one: the next look tells.
        let Some((_, file)) = open_same(&name, path)?.filter(|(same, _)| *same == id) else { return Ok(()) };
        if Compression::is_promised(&name) {
            self.pass_over(id, &name);
            return Ok(());
        }
        self.files.insert(id, Followed::new(id, name, file, self.framing, self.max_record_bytes));
        Ok(())
    }

    /// What rotation makes of old files.
    fn pass_over(&mut self, id: FileId, name: &str) {
        tracing::warn!("{name}: this file is compressed and is not followed: rotation makes such files of old ones");
        self.files.remove(&id);
        self.passed_over.insert(id);
    }

    /// A file that was moved away, or removed, and is not written to any more.
    fn end(&mut self, id: FileId) -> Result<()> {
        let Some(mut file) = self.files.remove(&id) else { return Ok(()) };
        let mut records = Vec::new();
        let header = file.finish(&mut records)?;
        self.columns(&file.name, header)?;
        // Its mark is in the log with its last records, and goes with the next table; where that is not written, it is said to be
        // removed at the next start.
        match self.appender.append(&mut records)? {
            Flow::Continue => self.save_table(),
            Flow::Stop => Ok(()),
        }
    }

    /// Reads every file once, those that were moved away first.
    fn round(&mut self) -> Result<Round> {
        let order = std::mem::take(&mut self.order);
        let round = self.round_over(&order);
        self.order = order;
        round
    }

    fn round_over(&mut self, order: &[(bool, String, FileId)]) -> Result<Round> {
        let mut round = Round { bytes: 0, flow: Flow::Continue };
        // Names of files that were moved away and have more: the new file of that name comes after them.
        let mut unfinished = BTreeSet::new();
        let mut records = Vec::new();
        let mut group = 0;
        for (watched, name, id) in order {
            let Some(file) = self.files.get_mut(id).filter(|_| !watched || !unfinished.contains(name)) else {
                continue;
            };
            let found = file.read(&mut records)?;
            if found.bytes > 0 && !watched {
                unfinished.insert(name);
            }
            if found.compressed {
                self.pass_over(*id, name);
            }
            if let Some(cut_at) = found.cut_at {
                self.state.lost();
                tracing::warn!(
                    "{name}: the file was cut, or written anew in place, after {cut_at} bytes of it were kept; it is read from its start, \
                     and what was written between the last look and the cut is lost: rotate by renaming to lose nothing"
                );
            }
            self.columns(name, found.header)?;
            group += found.bytes;
            round.bytes += found.bytes + u64::from(found.cut_at.is_some());
            if group >= GROUP_BYTES && self.keep(&mut records, &mut group)? == Flow::Stop {
                return Ok(Round { flow: Flow::Stop, ..round });
            }
        }
        round.flow = self.keep(&mut records, &mut group)?;
        Ok(round)
    }

    fn keep(&mut self, records: &mut Vec<NewRecord>, group: &mut u64) -> Result<Flow> {
        self.since_table += std::mem::take(group);
        self.appender.append(records)
    }

    /// The line that names the columns is the same in all files, and durable before a record.
    fn columns(&mut self, name: &str, header: Option<Vec<u8>>) -> Result<()> {
        let Some(header) = header else { return Ok(()) };
        match self.state.header() {
            Some(known) if known == header => Ok(()),
            Some(known) => {
                let (known, header) = (String::from_utf8_lossy(known), String::from_utf8_lossy(&header));
                let text = format!(
                    "{name}: the columns are {header:?}, and those of the files before are {known:?}; followed files must all have the \
                     same: follow the others as a source of their own"
                );
                Err(Error::user("columns-changed", text))
            }
            None => {
                let tables = tables_of(&self.topic);
                let mut table = Table::load(&*self.log, &tables.name)?;
                table.columns = Some(header.clone());
                table.save(&*self.log, &tables.name)?;
                self.state.set_header(header);
                Ok(())
            }
        }
    }

    /// Makes durable how far all files are kept; nothing may be read and not kept.
    fn save_table(&mut self) -> Result<()> {
        let marks = self.files.values().filter_map(Followed::mark).map(|mark| (mark.id, mark)).collect();
        let columns = self.state.header().map(<[u8]>::to_vec);
        let table = Table { offset: self.appender.end(), columns, marks };
        table.save(&*self.log, &tables_of(&self.topic).name)?;
        self.state.set_trimmable(table.offset);
        self.since_table = 0;
        Ok(())
    }
}

/// The regular file at a path; nothing where it is gone, or no file.
fn id_of(path: &Path) -> Result<Option<FileId>> {
    match path.metadata() {
        Ok(meta) if meta.is_file() => Ok(Some(FileId::of(&meta))),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("{}: looking at the file", path.display()), error)),
    }
}

/// Opens a file, and says which it is; nothing where it is gone meanwhile.
fn open_same(name: &str, path: &Path) -> Result<Option<(FileId, std::fs::File)>> {
    match open_file(name, path) {
        Ok(file) => {
            let meta = file.metadata().map_err(|error| Error::io(format!("{name}: looking at the file"), error))?;
            Ok(Some((FileId::of(&meta), file)))
        }
        Err(error) if error.code() == "not-found" => Ok(None),
        Err(error) => Err(error),
    }
}

/// The files of a folder, none where it is gone.
fn files_in(folder: &Path) -> Result<BTreeMap<FileId, PathBuf>> {
    let failed = |error| Error::io(format!("listing {}", folder.display()), error);
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if let Some(id) = id_of(&path)? {
            found.insert(id, path);
        }
    }
    Ok(found)
}
