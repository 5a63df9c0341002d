//! Message types of `.proto` texts.

use std::path::{Component, Path};

use protobuf::descriptor::FileDescriptorProto;
use protobuf_parse::Parser;

use super::descriptor::MessageTypes;

/// What the main text is called, for it has no name of its own in a registry.
const MAIN: &str = "the-schema.proto";

/// A `.proto` file with those that it imports, as a schema registry takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProtoTexts {
    /// The file itself.
    pub(crate) main: String,
    /// What it imports itself, by name.
    pub(crate) imports: Vec<String>,
    /// Every file that it needs, each behind those that it imports itself.
    pub(crate) files: Vec<ProtoFile>,
}

/// A file that another one imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProtoFile {
    /// As it is imported.
    pub(crate) name: String,
    /// What is in it.
    pub(crate) text: String,
    /// What it imports itself, by name.
    pub(crate) imports: Vec<String>,
}

impl ProtoTexts {
    /// Of a file; what it imports is beside it, but for what is built into every registry.
    pub(super) fn of_file(path: &Path) -> Result<Self, String> {
        let (folder, name) = place(path)?;
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|error| format!("{name}: {error}"));
        let imports = |file: &FileDescriptorProto| -> Vec<String> {
            file.dependency.iter().filter(|name| !is_built_in(name)).cloned().collect()
        };
        let mut texts = Self { main: read(name)?, imports: Vec::new(), files: Vec::new() };
        for file in parsed(folder, name)? {
            if file.name() == name {
                texts.imports = imports(&file);
            } else if !is_built_in(file.name()) {
                let (text, imports) = (read(file.name())?, imports(&file));
                texts.files.push(ProtoFile { name: file.name().to_owned(), text, imports });
            }
        }
        Ok(texts)
    }
}

fn is_built_in(name: &str) -> bool {
    name.starts_with("google/protobuf/")
}

/// The folder and the name of a file.
fn place(path: &Path) -> Result<(&Path, &str), String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("its name is no text")?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    Ok((folder, name))
}

/// A file behind all that it imports.
fn parsed(folder: &Path, name: &str) -> Result<Vec<FileDescriptorProto>, String> {
    let parsed = Parser::new().pure().include(folder).input(folder.join(name)).parse_and_typecheck();
    let parsed = parsed.map_err(|error| {
        let mut causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        causes.dedup();
        causes.join(": ")
    })?;
    Ok(parsed.file_descriptors)
}

impl MessageTypes {
    /// Of a text and those that it imports, by their names.
    ///
    /// Errors: what is wrong with it.
    pub(crate) fn of_texts(main: &str, imports: &[(String, String)]) -> Result<Self, String> {
        // The parser reads files only.
        let folder = tempfile::tempdir().map_err(|error| format!("making a folder for it: {error}"))?;
        for (name, text) in imports.iter().map(|(name, text)| (name.as_str(), text.as_str())).chain([(MAIN, main)]) {
            if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(format!("it imports {name:?}, which is no path within a folder"));
            }
            let path = folder.path().join(name);
            let written = std::fs::create_dir_all(path.parent().unwrap_or(folder.path()));
            let written = written.and_then(|()| std::fs::write(&path, text));
            written.map_err(|error| format!("writing {name:?} for the parser: {error}"))?;
        }
        Self::of_file(&folder.path().join(MAIN))
            .map_err(|why| why.replace(&format!("{}/", folder.path().display()), ""))
    }

    /// Of a file; what it imports is looked for beside it.
    ///
    /// Errors: what is wrong with it.
    pub(crate) fn of_file(path: &Path) -> Result<Self, String> {
        let (folder, name) = place(path)?;
        Self::new(&parsed(folder, name)?, name)
    }
}
