//! Files as a source: the duties of every source, and what is particular to files.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use thalweg_connectors::conformance::check_source;
use thalweg_connectors::{
    BadRecord, CsvOptions, DecoderOf, Fields, FileSource, Format, FormattedSource, ReadLimit, ReadState, RecordReader,
    RecordSource, TypedJson, TypedValues,
};
use thalweg_core::{Result, Value};

const SEED: u64 = 20_010_131;

fn csv() -> Format {
    Format::Csv(CsvOptions::default())
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content) in files {
        fs::write(folder.path().join(name), content).expect("a file");
    }
    folder
}

fn gzip(members: &[&[u8]]) -> Vec<u8> {
    members
        .iter()
        .flat_map(|member| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(member).expect("compresses");
            encoder.finish().expect("compresses")
        })
        .collect()
}

fn values(folder: &Path, paths: &[&str], format: &Format) -> FormattedSource<Value> {
    FormattedSource::values(
        Box::new(FileSource::new(folder, paths.iter().copied(), format)),
        format.clone(),
        Fields::All,
    )
}

const LIMIT: ReadLimit = ReadLimit { records: 3, bytes: 1 << 20, until: None };

/// Reads until there is nothing more.
fn drain<T>(reader: &mut dyn RecordReader<T>, bad: &mut Vec<BadRecord>) -> Result<(Vec<T>, ReadState)> {
    let mut out = Vec::new();
    loop {
        let state = reader.read(LIMIT, &mut out, bad)?;
        if state != ReadState::More {
            return Ok((out, state));
        }
    }
}

/// All records of all partitions as text; an error shows as its code.
fn show<T: ToString>(source: &dyn RecordSource<T>) -> Vec<String> {
    let read = || -> Result<Vec<String>> {
        let mut shown = Vec::new();
        for partition in source.discover(0)? {
            let mut bad = Vec::new();
            let mut reader = source.open(&partition, partition.start)?;
            let (out, state) = drain(&mut *reader, &mut bad)?;
            assert_eq!(state, ReadState::End);
            assert!(
                partition.end.is_none_or(|end| end == reader.position()),
                "ends at {}: {partition:?}",
                reader.position()
            );
            shown.extend(out.iter().map(ToString::to_string));
            shown.extend(bad.into_iter().map(|bad| bad.why));
        }
        Ok(shown)
    };
    read().unwrap_or_else(|error| vec![format!("{}! {error}", error.code())])
}

#[test]
fn every_kind_of_file_fulfils_the_duties() {
    let lines = "one\n\ntwo words\r\n\u{e9}\nlast without an end";
    let json = "{\"a\":1}\n\n{\"a\":\n[1,2]\n{\"b\":\"x\"}\n";
    let cells = "a,b\n1,x\n2,\"y\ny\"\nwrong\n3,\"\"\"\"\n";
    let long: String = (0..300).map(|index| format!("{index},{}\n", "x".repeat(index % 40))).collect();
    let files: [(&str, &[u8], Format); 10] = [
        ("lines.txt", lines.as_bytes(), Format::Lines),
        ("raw.txt", lines.as_bytes(), Format::Raw),
        ("json.jsonl", json.as_bytes(), Format::Json),
        ("cells.csv", cells.as_bytes(), csv()),
        ("empty.csv", b"", csv()),
        ("header.csv", b"a,b\n", csv()),
        ("long.csv", long.as_bytes(), csv()),
        ("mark.csv", b"\xef\xbb\xbfa,b\n1,2\n", csv()),
        ("mark.jsonl", b"\xef\xbb\xbf{\"a\":1}\n{\"a\":2}\n", Format::Json),
        ("few.txt", b"\xef", Format::Raw),
    ];
    for (name, content, format) in files {
        let (first, second) = content.split_at(content.len() / 3);
        let zipped = zstd::encode_all(content, 1).expect("compresses");
        let forms = [
            (name.to_owned(), content.to_vec()),
            (format!("{name}.gz"), gzip(&[first, b"", second])),
            (format!("{name}.zst"), zipped),
        ];
        for (name, content) in forms {
            let folder = folder(&[(&name, &content)]);
            check_source(|| Box::new(values(folder.path(), &[&name], &format)), SEED);
            check_source(|| Box::new(values(folder.path(), &["*"], &format)), SEED);
        }
    }
}

#[test]
fn what_a_file_holds_is_what_is_read() {
    let check = |name: &str, content: &[u8], format: Format, expected: &[&str]| {
        let folder = folder(&[(name, content)]);
        let shown = show(&values(folder.path(), &[name], &format));
        assert_eq!(shown, expected, "{name}");
    };
    check(
        "crlf",
        b"a\r\nb\r\n\r\nc\r",
        Format::Lines,
        &[r#"{"line":"a"}"#, r#"{"line":"b"}"#, r#"{"line":""}"#, r#"{"line":"c\r"}"#],
    );
    check("mark", b"\xef\xbb\xbfa\n", Format::Lines, &[r#"{"line":"a"}"#]);
    check(
        "some.gz",
        &gzip(&[b"a\nb", b"c\n", b"d"]),
        Format::Lines,
        &[r#"{"line":"a"}"#, r#"{"line":"bc"}"#, r#"{"line":"d"}"#],
    );
    check(
        "typed.csv",
        b"t,d,o\r\n2001-01-01T00:01:00Z,-3,SEA\r\n,1.5,\"7\"\r\nx\r\n",
        csv(),
        &[
            r#"{"t":"2001-01-01T00:01:00Z","d":-3,"o":"SEA"}"#,
            r#"{"t":null,"d":1.5,"o":"7"}"#,
            "typed.csv: record at 46: 1 columns, and the header has 3; a cell with a delimiter in it needs quotes",
        ],
    );
    check(
        "bad.jsonl",
        b"{}\n{\"a\":}\n",
        Format::Json,
        &["{}", "bad.jsonl: record at 3: no valid JSON: expected value at line 1 column 6"],
    );
}

#[test]
fn records_longer_than_what_is_read_at_once_are_whole() {
    let lengths = [0, 1, 65_535, 65_536, 65_537, 200_000, 3, 131_072, 400_000, 0, 7];
    let lines: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
    let text = lines.join("\n");
    let expected: Vec<String> = lines.iter().map(|line| format!(r#"{{"line":"{line}"}}"#)).collect();
    for (name, content) in [("long.txt", text.as_bytes().to_vec()), ("long.txt.gz", gzip(&[text.as_bytes()]))] {
        let folder = folder(&[(name, &content)]);
        assert!(show(&values(folder.path(), &[name], &Format::Lines)) == expected, "{name}");
        check_source(|| Box::new(values(folder.path(), &[name], &Format::Lines)), SEED);
    }
}

#[test]
fn what_is_wrong_has_its_code() {
    let whole = gzip(&[b"a\nb\n", b"c\n"]);
    let long = "x".repeat(200);
    let folder = folder(&[
        ("garbage.gz", &[&whole[..], b"garbage"].concat()),
        ("plain.gz", b"a\n"),
        ("empty.gz", b""),
        ("long.txt", long.as_bytes()),
        ("flights.csv", b"time,delay,origin\n"),
    ]);
    fs::create_dir(folder.path().join("sub")).expect("a folder");
    let check = |path: &str, format: Format, start: &str| {
        let shown = show(&values(folder.path(), &[path], &format));
        assert!(shown[0].starts_with(start), "{path}: {shown:?}");
    };
    check("garbage.gz", Format::Lines, "corrupt-file! garbage.gz: after position 6");
    check("plain.gz", Format::Lines, "corrupt-file! plain.gz: position 0");
    check("empty.gz", Format::Lines, "corrupt-file! empty.gz");
    check("none.txt", Format::Lines, "no-input! path = \"none.txt\"");
    check("*.none", Format::Lines, "no-input! path = \"*.none\"");
    check("sub", Format::Lines, "not-a-file! sub: this is a folder");
    check("[", Format::Lines, "glob! path = \"[\"");
    assert!(show(&values(folder.path(), &[], &Format::Lines))[0].starts_with("no-input! "));
    let short = FileSource::new(folder.path(), ["long.txt"], &Format::Lines).max_record_bytes(100);
    let shown = show(&FormattedSource::values(Box::new(short), Format::Lines, Fields::All));
    assert!(
        shown[0].starts_with(
            "record-too-large! long.txt: the record at position 0 has more than 100B; raise max_record_bytes"
        ),
        "{shown:?}"
    );
    let raw = FileSource::new(folder.path(), ["flights.csv"], &csv());
    let shown = show(&FormattedSource::values(Box::new(raw), csv(), Fields::Only(vec!["delai".into()])));
    assert_eq!(
        shown,
        [
            "missing-column! flights.csv: no column \"delai\"; the columns are time, delay, origin; did you mean \"delay\"?"
        ]
    );
}

/// A compressed file that is cut anywhere is an error: never fewer records.
#[test]
fn a_cut_compressed_file_is_never_taken_for_a_whole_one() {
    let content = "some text\nthat is compressed\n".repeat(20);
    let first = gzip(&[content.as_bytes()]);
    let forms = [
        ("a.gz", gzip(&[content.as_bytes(), b"more\n"]), first.len()),
        ("a.zst", zstd::encode_all(content.as_bytes(), 1).expect("compresses"), 0),
    ];
    for (name, bytes, member) in forms {
        for cut in (0..bytes.len()).filter(|cut| *cut != member || member == 0) {
            let folder = folder(&[(name, &bytes[..cut])]);
            let shown = show(&values(folder.path(), &[name], &Format::Lines));
            assert!(shown[0].starts_with("corrupt-file! "), "{name} cut at {cut}: {shown:?}");
        }
    }
}

#[test]
fn a_bounded_run_is_held_to_what_it_began_with() {
    let check = |name: &str, before: &[u8], change: &dyn Fn(&Path), expected: &[&str]| {
        let folder = folder(&[(name, before)]);
        let source = values(folder.path(), &["*"], &Format::Lines);
        let partition = source.discover(0).expect("discovers").remove(0);
        change(&folder.path().join(name));
        let read = || drain(&mut *source.open(&partition, 0)?, &mut Vec::new());
        let shown = match read() {
            Ok((out, _)) => out.iter().map(ToString::to_string).collect(),
            Err(error) => vec![error.code().to_owned()],
        };
        assert_eq!(shown, expected, "{name}");
    };
    let append = |more: &'static [u8]| {
        move |path: &Path| {
            fs::OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(more)).expect("appends")
        }
    };
    check("grown", b"a\nb", &append(b"c\nd\n"), &[r#"{"line":"a"}"#, r#"{"line":"b"}"#]);
    let more = gzip(&[b"more\n"]);
    let grow = move |path: &Path| append(Vec::leak(more.clone()))(path);
    check("grown.gz", &gzip(&[b"a\nb"]), &grow, &[r#"{"line":"a"}"#, r#"{"line":"b"}"#]);
    check("shrunk", b"a\nb\n", &|path| fs::write(path, b"a\n").expect("writes"), &["file-changed"]);
    check("edited", b"a\nb\n", &|path| fs::write(path, b"a\nc\n").expect("writes"), &["file-changed"]);
    check("gone", b"a\n", &|path| fs::remove_file(path).expect("removes"), &["file-changed"]);
    let replace = |path: &Path| {
        fs::write(path.with_extension("new"), b"a\n").expect("writes");
        fs::rename(path.with_extension("new"), path).expect("renames");
    };
    check("replaced", b"a\n", &replace, &["file-changed"]);
}

#[test]
fn files_come_in_the_order_of_their_paths_and_once() {
    let folder = folder(&[("b.txt", b"b"), ("a.txt", b"a"), ("c.log", b"c")]);
    fs::create_dir(folder.path().join("d.txt")).expect("a folder");
    let names = |paths: &[&str]| -> Vec<String> {
        values(folder.path(), paths, &Format::Lines)
            .discover(0)
            .expect("discovers")
            .into_iter()
            .map(|partition| partition.name)
            .collect()
    };
    assert_eq!(names(&["*.txt"]), ["a.txt", "b.txt"]);
    assert_eq!(names(&["c.log", "*.txt", "a.txt"]), ["a.txt", "b.txt", "c.log"]);
    let absolute = folder.path().join("?.log");
    assert_eq!(names(&[absolute.to_str().expect("text")]), ["c.log"]);
}

#[derive(Debug, Deserialize)]
struct Flight {
    delay: i64,
    origin: String,
}

impl std::fmt::Display for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {}", self.delay, self.origin)
    }
}

#[test]
fn records_become_the_types_of_the_job() {
    let folder = folder(&[
        ("flights.jsonl", b"{\"delay\":3,\"origin\":\"SEA\",\"x\":[]}\n\n{\"delay\":\"late\"}\n"),
        ("flights.csv", b"origin,delay\nSEA,3\nLAX,late\n"),
    ]);
    let check = |name: &str, format: Format, decoders: Arc<dyn DecoderOf<Flight>>, why: &str| {
        let raw = FileSource::new(folder.path(), [name], &format);
        let shown = show(&FormattedSource::new(Box::new(raw), decoders));
        assert_eq!(shown[0], "3 from SEA");
        assert!(shown[1].starts_with(why), "{shown:?}");
        assert_eq!(shown.len(), 2);
    };
    check(
        "flights.jsonl",
        Format::Json,
        Arc::new(TypedJson::new()),
        "flights.jsonl: record at 35: does not fit the record's type: invalid type",
    );
    check(
        "flights.csv",
        csv(),
        Arc::new(TypedValues::new(csv())),
        "flights.csv: record at 19: the record does not fit: invalid type",
    );
}
