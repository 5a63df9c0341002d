//! Formats that need schemas, and `[schema_registry]`.

use thalweg_connectors::{Decimals, Framing, SchemaFormat};

use super::{sink, source};
use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::keys;
use crate::spec::{Property, RecordFormat, SchemaRegistrySpec, SchemaSpec, SinkRecordFormat, SinkSchemaSpec};
use crate::validate::Checker;
use crate::validate::section::{self, Section};

impl<'d> Checker<'d> {
    /// How the records of a topic are written.
    pub(super) fn record_format(&mut self, what: &str, section: &Section<'d>) -> Option<RecordFormat> {
        let name = section.or_default("format", convert::text)?;
        let Some(schema_format) = SchemaFormat::named(&name) else {
            return source::format(section).map(RecordFormat::Plain);
        };
        let file = section.get("schema_file", convert::text).map(|path| self.document.source.base.join(path));
        let framing = match section.get("framing", convert::text).as_deref() {
            Some("confluent") => Framing::Confluent,
            _ => Framing::None,
        };
        if let (Some(item), None) = (section.item("format"), &file) {
            self.registry_users.push((format!("{what}: format = {name:?}"), item.at.clone()));
        }
        if let Some(item) = section.item("framing").filter(|_| file.is_none() && framing == Framing::None) {
            let message = format!("{what}: without a schema file the id in front of a record says what its schema is");
            let problem = Diagnostic::error("schema-framing", message).at(&item.at, "");
            self.report(problem.help("remove framing, or add schema_file = \"…\""));
        }
        let message = self.message(what, section, schema_format, file.is_some());
        if let Some(item) = section.item("decimals").filter(|_| schema_format != SchemaFormat::Avro) {
            let text = format!("{what}: decimals is for Avro; Protobuf has none");
            self.report(Diagnostic::error("schema-decimals", text).at(&item.at, "").help("remove it"));
        }
        let decimals = match section.or_default("decimals", convert::text)?.as_str() {
            "text" => Decimals::Text,
            _ => Decimals::Number,
        };
        Some(RecordFormat::Schema(SchemaSpec { format: schema_format, file, message, framing, decimals }))
    }

    /// How the records of a sink of Kafka are written.
    pub(super) fn sink_record_format(&mut self, what: &str, section: &Section<'d>) -> Option<SinkRecordFormat> {
        let Some(item) = section.item("format").filter(|item| item.text() == Some("avro")) else {
            return sink::format(section).map(SinkRecordFormat::Plain);
        };
        self.registers = true;
        let Some(file) = section.get("schema_file", convert::text) else {
            let message = format!("{what}: format = \"avro\" needs the schema by which records are written");
            self.report(
                Diagnostic::error("schema-missing", message).at(&item.at, "").help("add schema_file = \"….avsc\""),
            );
            return None;
        };
        let (file, subject) = (self.document.source.base.join(file), section.get("subject", convert::text));
        Some(SinkRecordFormat::Avro(SinkSchemaSpec { file, subject }))
    }

    /// A file of Protobuf has several message types; what a registry has is named by each record itself.
    fn message(&mut self, what: &str, section: &Section<'d>, format: SchemaFormat, file: bool) -> Option<String> {
        let message = section.get("message", convert::text);
        let wanted = file && format == SchemaFormat::Protobuf;
        if let (Some(item), false) = (section.item("message"), wanted) {
            let text = format!(
                "{what}: message is for a schema_file of Protobuf; records of a registry name their types themselves"
            );
            self.report(Diagnostic::error("schema-message", text).at(&item.at, "").help("remove it"));
        }
        if let (Some(item), None, true) = (section.item("schema_file"), &message, wanted) {
            let text =
                format!("{what}: schema_file may have several message types, and nothing says which the records have");
            let problem = Diagnostic::error("schema-message", text).at(&item.at, "");
            self.report(problem.help("add message = \"package.Name\""));
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
        Some(SchemaRegistrySpec { url: registry.get("url", convert::text)?, user, wait })
    }

    fn check_url(&mut self, registry: &Section<'d>) {
        let Some((item, url)) = registry.item("url").zip(registry.get("url", convert::text)) else { return };
        let wrong = if url.starts_with("https://") {
            Some((
                "https is not available yet in this version",
                "reach it over http, or over a proxy that speaks TLS to it",
            ))
        } else {
            match url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default()) {
                None | Some("") => Some(("url is no address of a server", "write http://host:port")),
                Some(host) if host.contains('@') => {
                    Some(("url has a user in it", "write it as user = \"…\" and password = { env = \"NAME\" }"))
                }
                Some(_) if url.contains(['?', '#', ' ']) => {
                    Some(("url has more in it than a server and a path", "write http://host:port"))
                }
                Some(_) => None,
            }
        };
        if let Some((why, help)) = wrong {
            let message = format!("[schema_registry]: {why}");
            self.report(Diagnostic::error("schema-registry", message).at(&item.at, "").help(help));
        }
    }
}
