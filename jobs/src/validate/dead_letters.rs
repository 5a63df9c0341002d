//! `[dead_letters]`.

use crate::convert;
use crate::diagnostic::Diagnostic;
use crate::document::At;
use crate::keys;
use crate::spec::{DeadLettersPlace, DeadLettersSpec, JobSpec};
use crate::validate::Checker;
use crate::validate::section::Section;

impl<'d> Checker<'d> {
    pub(super) fn dead_letters(&mut self, root: &Section<'d>) -> DeadLettersSpec {
        let Some(section) = self.inner("[dead_letters]", root, "dead_letters", keys::DEAD_LETTERS) else {
            return DeadLettersSpec::default();
        };
        let path = section.get("path", convert::text).map(|path| self.document.source.base.join(path));
        let connector = section.item("connector").filter(|item| item.text() == Some("kafka"));
        let place = match (connector, path) {
            (Some(item), path) => {
                self.uses_kafka("[dead_letters]", &item.at);
                if let Some(item) = section.item("path").filter(|_| path.is_some()) {
                    let message = "[dead_letters]: path is the folder of an embedded log, and connector is \"kafka\"";
                    self.report(Diagnostic::error("dead-letters", message).at(&item.at, "").help("remove one of them"));
                }
                DeadLettersPlace::Kafka
            }
            (None, Some(path)) => DeadLettersPlace::Folder(path),
            (None, None) => DeadLettersPlace::Own,
        };
        DeadLettersSpec { place, topic: section.get("topic", convert::text) }
    }

    /// What can be said only when the whole job is known.
    pub(super) fn check_dead_letters(&mut self, root: &Section<'d>, job: &JobSpec) {
        let from = job.setting_aside();
        match root.item("dead_letters") {
            Some(item) if from.is_empty() => {
                let problem = Diagnostic::warning("unused", "[dead_letters]: nothing is set aside").at(&item.at, "");
                self.report(problem.help("set on_error = \"dead-letter\" for the job or an operator, or remove it"));
            }
            _ => {}
        }
        let reserved = thalweg_connectors::dead_letter::SINK;
        let ids = job.sources.iter().map(|source| &source.id);
        let mut ids =
            ids.chain(job.operators.iter().map(|operator| &operator.id)).chain(job.sinks.iter().map(|sink| &sink.id));
        if !from.is_empty() && ids.any(|id| id == reserved) {
            let message = format!("{reserved:?} is the id of the sink that dead letters go to");
            self.report(Diagnostic::error("duplicate-id", message).at(&At::File(0..0), "").help("rename yours"));
        }
    }
}
