//! Formats that need schemas, and `[schema_registry]`.

use thalweg_connectors::{Decimals, Framing, SchemaFormat};

use super::{sink, source};
use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::document::ItemKind;
use crate::keys;
use crate::spec::{Property, RecordFormat, SchemaRegistrySpec, SchemaSpec, SinkRecordFormat, SinkSchemaSpec};
use crate::validate::Checker;
use crate::validate::section::{self, Section};

/// A problem was reported.
pub(super) struct Reported;

impl<'d> Checker<'d> {
    /// How the records of a topic are written.
    pub(super) fn record_format(&mut self, what: &str, section: &Section<'d>) -> Option<RecordFormat> {
        let name = section.or_default("format", convert::text)?;
        let Some(schema_format) = SchemaFormat::named(&name) else {
            return source::format(section).map(RecordFormat::Plain);
        };
        let decimals = match section.or_default("decimals", convert::text)?.as_str() {
            "text" => Decimals::Text,
            _ => Decimals::Number,
        };
        if let Some(item) = section.item("decimals").filter(|_| schema_format != SchemaFormat::Avro) {
            let text = format!("{what}: decimals is for Avro; Protobuf has none");
            self.report(Diagnostic::error("schema-decimals", text).at(&item.at, "").help("remove it"));
        }
        let schema = self.record_schema(what, section, "", schema_format);
        Some(RecordFormat::Schema(SchemaSpec { decimals, ..schema }))
    }

    /// The schema by which the keys of a source are read, where that is what `key_format` says.
    pub(super) fn key_schema(&mut self, what: &str, section: &Section<'d>) -> Option<SchemaSpec> {
        let item = section.item("key_format")?;
        let schema_format = SchemaFormat::named(item.text()?)?;
        let key_is_included = section.item("include").is_some_and(|include| match &include.kind {
            ItemKind::Table(table) => table.get("key").is_some(),
            _ => false,
        });
        if !key_is_included {
            let text = format!("{what}: key_format says how a key is read that is not included");
            let problem = Diagnostic::error("key-format", text).at(&item.at, "");
            self.report(problem.help("add include = { key = \"…\" }, or remove key_format"));
        }
        Some(self.record_schema(what, section, "key_", schema_format))
    }

    /// What the keys of a schema say; their names begin with `prefix`.
    fn record_schema(
        &mut self,
        what: &str,
        section: &Section<'d>,
        prefix: &str,
        schema_format: SchemaFormat,
    ) -> SchemaSpec {
        let named = |name: &str| format!("{prefix}{name}");
        let file = section.get(&named("schema_file"), convert::text);
        let file = file.map(|path| self.document.source.base.join(path));
        let framing = match section.get(&named("framing"), convert::text).as_deref() {
            Some("confluent") => Framing::Confluent,
            _ => Framing::None,
        };
        if let (Some(item), None) = (section.item(&named("format")), &file) {
            let name = item.text().unwrap_or_default();
            self.registry_users.push((format!("{what}: {} = {name:?}", named("format")), item.at.clone()));
        }
        let wrong = section.item(&named("framing")).filter(|_| file.is_none() && framing == Framing::None);
        if let Some(item) = wrong {
            let message = format!("{what}: without a schema file the id in front of a record says what its schema is");
            let problem = Diagnostic::error("schema-framing", message).at(&item.at, "");
            self.report(problem.help(format!("remove {}, or add {} = \"…\"", named("framing"), named("schema_file"))));
        }
        let message = self.message(what, section, prefix, schema_format, file.is_some());
        SchemaSpec { format: schema_format, file, message, framing, decimals: Decimals::Number }
    }

    /// How the records of a sink of Kafka are written.
    pub(super) fn sink_record_format(&mut self, what: &str, section: &Section<'d>) -> Option<SinkRecordFormat> {
        match self.sink_schema(what, section, "") {
            Ok(None) => sink::format(section).map(SinkRecordFormat::Plain),
            Ok(Some(schema)) => Some(SinkRecordFormat::Schema(schema)),
            Err(Reported) => None,
        }
    }

    /// The schema by which a sink writes its values, or with the prefix `key_` its keys; nothing where its format needs none.
    pub(super) fn sink_schema(
        &mut self,
        what: &str,
        section: &Section<'d>,
        prefix: &str,
    ) -> Result<Option<SinkSchemaSpec>, Reported> {
        let named = |name: &str| format!("{prefix}{name}");
        let Some(item) = section.item(&named("format")) else { return Ok(None) };
        let Some(format) = item.text().and_then(SchemaFormat::named) else { return Ok(None) };
        self.registers = true;
        let Some(file) = section.get(&named("schema_file"), convert::text) else {
            let message = format!(
                "{what}: {} = {:?} needs the schema by which records are written",
                named("format"),
                item.text().unwrap_or_default()
            );
            let example = if format == SchemaFormat::Avro { "….avsc" } else { "….proto" };
            let problem = Diagnostic::error("schema-missing", message).at(&item.at, "");
            self.report(problem.help(format!("add {} = \"{example}\"", named("schema_file"))));
            return Err(Reported);
        };
        let message = self.message(what, section, prefix, format, true).unwrap_or_default();
        let (file, subject) = (self.document.source.base.join(file), section.get(&named("subject"), convert::text));
        Ok(Some(SinkSchemaSpec { format, file, message, subject }))
    }

    /// A file of Protobuf has several message types; what a registry has is named by each record itself.
    fn message(
        &mut self,
        what: &str,
        section: &Section<'d>,
        prefix: &str,
        format: SchemaFormat,
        file: bool,
    ) -> Option<String> {
        let (name, file_name) = (format!("{prefix}message"), format!("{prefix}schema_file"));
        let message = section.get(&name, convert::text);
        let wanted = file && format == SchemaFormat::Protobuf;
        if let (Some(item), false) = (section.item(&name), wanted) {
            let text = format!(
                "{what}: {name} is for a {file_name} of Protobuf; records of a registry name their types themselves"
            );
            self.report(Diagnostic::error("schema-message", text).at(&item.at, "").help("remove it"));
        }
        if let (Some(item), None, true) = (section.item(&file_name), &message, wanted) {
            let text =
                format!("{what}: {file_name} may have several message types, and nothing says which the records have");
            let problem = Diagnostic::error("schema-message", text).at(&item.at, "");
            self.report(problem.help(format!("add {name} = \"package.Name\"")));
        }
        message
    }

    /// What `[schema_registry]` says, and whether whoever needs it has it.
    pub(super) fn schema_registry(&mut self, root: &Section<'d>) -> Option<SchemaRegistrySpec> {
        let users = std::mem::take(&mut self.registry_users);
        match (root.item("schema_registry"), users.into_iter().next()) {
            (None, Some((what, at))) => {
                let message = format!("{what} needs schemas, and nothing says where they are");
                let help =
                    "add schema_file = \"…\" to the source, or [schema_registry] with url = \"http://host:port\"";
                self.report(Diagnostic::error("schema-missing", message).at(&at, "").help(help));
            }
            (Some(item), None) if !self.registers => {
                let message = "[schema_registry]: no source takes its schemas from it, and no sink registers one";
                let problem = Diagnostic::warning("unused", message).at(&item.at, "");
                self.report(problem.help("remove it, or the schema_file of a source"));
            }
            _ => {}
        }
        let registry = self.inner("[schema_registry]", root, "schema_registry", keys::SCHEMA_REGISTRY)?;
        self.check_url(&registry);
        let password = registry.item("password").map(|item| self.secret(item));
        let user = match (registry.get("user", convert::text), password) {
            (Some(user), password) => Some((user, password.unwrap_or(Property::Plain(String::new())))),
            (None, Some(_)) => {
                if let Some(item) = registry.item("password") {
                    let message = "[schema_registry]: a password, and no user";
                    self.report(
                        Diagnostic::error("schema-registry", message).at(&item.at, "").help("add user = \"…\""),
                    );
                }
                None
            }
            (None, None) => None,
        };
        let wait = section::or_default(Some(&registry), keys::SCHEMA_REGISTRY, "wait", convert::duration);
        let ca = registry.get("ca", convert::text).map(|path| self.document.source.base.join(path));
        Some(SchemaRegistrySpec { url: registry.get("url", convert::text)?, ca, user, wait })
    }

    fn check_url(&mut self, registry: &Section<'d>) {
        let Some((item, url)) = registry.item("url").zip(registry.get("url", convert::text)) else { return };
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let wrong = match rest.map(|rest| rest.split('/').next().unwrap_or_default()) {
            None | Some("") => Some(("url is no address of a server", "write http://host:port or https://host:port")),
            Some(host) if host.contains('@') => {
                Some(("url has a user in it", "write it as user = \"…\" and password = { env = \"NAME\" }"))
            }
            Some(_) if url.contains(['?', '#', ' ']) => {
                Some(("url has more in it than a server and a path", "write http://host:port or https://host:port"))
            }
            Some(_) => None,
        };
        if let Some((why, help)) = wrong {
            let message = format!("[schema_registry]: {why}");
            self.report(Diagnostic::error("schema-registry", message).at(&item.at, "").help(help));
        }
        if let Some(ca) = registry.item("ca").filter(|_| !url.starts_with("https://")) {
            let message = "[schema_registry]: ca says whose certificates are good, and url has none";
            let problem = Diagnostic::error("schema-registry", message).at(&ca.at, "");
            self.report(problem.help("write https:// in url, or remove ca"));
        }
    }
}
