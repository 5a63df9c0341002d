//! Every file of `tests/invalid` with what is said about it; `BLESS=1` writes down what is said now.

use std::fs;
use std::path::Path;

use thalweg_jobs::{Catalogue, parse, validate};
use thalweg_operators::{ConfigKey, ConfigKind, OperatorInfo};

fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::built_in();
    let totals = OperatorInfo::keyed("shop::Totals", "Totals", "totals").with(ConfigKey::required(
        "limit",
        ConfigKind::Int,
        "Most",
    ));
    catalogue.add(totals).expect("the name is free");
    catalogue
}

/// What is said about a file, for people and for scripts.
fn said(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("the file is there");
    let name = path.file_name().expect("a file has a name");
    let problems = match parse(&text, name) {
        Err(problems) => problems,
        Ok(document) => validate(&document, &catalogue()).map(|_| ()).expect_err("the file is invalid"),
    };
    assert!(problems.render(true).contains('\u{1b}'), "colors");
    format!("{problems}\n{}", problems.to_json_lines())
}

#[test]
fn invalid_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid");
    let mut files: Vec<_> =
        fs::read_dir(&folder).expect("the folder is there").map(|entry| entry.expect("is read").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= 8);
    for path in files {
        let expected = path.with_extension("txt");
        let found = said(&path);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, found).expect("is written");
        } else {
            let expected = fs::read_to_string(&expected).unwrap_or_default();
            assert_eq!(found, expected, "{}: run again with BLESS=1 where the new text is right", path.display());
        }
    }
}
