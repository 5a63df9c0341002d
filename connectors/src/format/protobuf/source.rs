//! Message types of `.proto` texts.

use std::path::{Component, Path};

use protobuf_parse::Parser;

use super::descriptor::MessageTypes;

/// What the main text is called, for it has no name of its own in a registry.
const MAIN: &str = "the-schema.proto";

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
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("its name is no text")?;
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let parsed = Parser::new().pure().include(folder).input(folder.join(name)).parse_and_typecheck();
        let parsed = parsed.map_err(|error| {
            let mut causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
            causes.dedup();
            causes.join(": ")
        })?;
        Self::new(&parsed.file_descriptors, name)
    }
}
