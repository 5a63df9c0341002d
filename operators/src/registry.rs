//! The operators of a job crate, by the names that a job file uses.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use thalweg_core::{Data, Error, Result};

use crate::builtin::key::KeyFields;
use crate::catalogue::{Catalogue, OperatorInfo};
use crate::node::{FlatMapOf, KeyedOf};
use crate::plan::{OnError, OperatorNode};
use crate::process::{KeyedProcess, ProcessError};

/// What a job file says of one operator of a job crate.
#[derive(Clone, Debug)]
pub struct OperatorRequest {
    /// Its id.
    pub id: String,
    /// The fields that it groups by, where it is keyed.
    pub key: Option<KeyFields>,
    /// The keys that are the operator's own.
    pub config: Map<String, Json>,
    /// What is done with records that it fails on.
    pub on_error: OnError,
}

type Factory = Box<dyn Fn(&OperatorRequest) -> Result<Box<dyn OperatorNode>> + Send + Sync>;

/// The operators that a binary brings besides the built-in ones. [`Registry::default`] has none.
pub struct Registry {
    crate_name: String,
    crate_version: String,
    catalogue: Catalogue,
    factories: BTreeMap<String, Factory>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl Registry {
    /// The operators of a crate; `thalweg::job!` fills in name and version.
    pub fn new(crate_name: &str, crate_version: &str) -> Self {
        Self {
            crate_name: crate_name.to_owned(),
            crate_version: crate_version.to_owned(),
            catalogue: Catalogue::built_in(),
            factories: BTreeMap::new(),
        }
    }

    /// The crate, or nothing where there is none.
    pub fn crate_name(&self) -> &str {
        &self.crate_name
    }

    /// Its version.
    pub fn crate_version(&self) -> &str {
        &self.crate_version
    }

    /// Everything that a job file may use.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Adds a keyed process. Its fields are the operator's configuration: the keys of its table that are not reserved.
    ///
    /// Panics where the name is taken: that is a mistake in the program, not in a job.
    #[must_use]
    pub fn keyed<P: KeyedProcess + DeserializeOwned>(mut self, name: &str) -> Self {
        let info = OperatorInfo::keyed(name, "an operator of the job crate", std::any::type_name::<P::Out>());
        let info = info.open().with_timers(P::TIMERS);
        let factory = |request: &OperatorRequest| -> Result<Box<dyn OperatorNode>> {
            let process: P = configure(request)?;
            let key = request.key.clone().ok_or_else(|| {
                Error::user("operator-key", format!("operator {:?} groups by a key; add key = \"…\"", request.id))
            })?;
            let take = move |row: thalweg_core::Value| -> Result<(P::Key, P::In), ProcessError> {
                Ok((key.key_of(&row)?.to_serde()?, row.to_serde()?))
            };
            Ok(Box::new(KeyedOf::new(process, take, request.on_error)))
        };
        self.add(info, Box::new(factory));
        self
    }

    /// Adds a stateless operator: one record in, any number out.
    ///
    /// Panics where the name is taken.
    #[must_use]
    pub fn flat_map<A: Data, B: Data>(
        mut self,
        name: &str,
        logic: impl Fn(A, &mut Vec<B>) -> Result<(), ProcessError> + Clone + Send + Sync + 'static,
    ) -> Self {
        let info = OperatorInfo::stateless(name, "an operator of the job crate", std::any::type_name::<B>());
        let factory = move |request: &OperatorRequest| -> Result<Box<dyn OperatorNode>> {
            Ok(Box::new(FlatMapOf::new(logic.clone(), request.on_error)))
        };
        self.add(info, Box::new(factory));
        self
    }

    fn add(&mut self, info: OperatorInfo, factory: Factory) {
        let name = info.name.clone();
        self.catalogue.add(info).expect("each operator of a binary has a name of its own");
        self.factories.insert(name, factory);
    }

    /// Makes an operator.
    ///
    /// Errors: no operator of that name; a configuration that does not fit.
    pub fn create(&self, name: &str, request: &OperatorRequest) -> Result<Box<dyn OperatorNode>> {
        let factory = self.factories.get(name).ok_or_else(|| {
            Error::user("unknown-operator", format!("operator {:?}: this binary has no {name:?}", request.id))
        })?;
        factory(request)
    }
}

/// The process with its configuration; a unit struct takes none.
fn configure<P: DeserializeOwned>(request: &OperatorRequest) -> Result<P> {
    let wrong = |error: serde_json::Error| {
        Error::user("operator-config", format!("operator {:?}: {error}; correct the keys of its table", request.id))
    };
    let from_map = serde_json::from_value(Json::Object(request.config.clone()));
    match from_map {
        Err(_) if request.config.is_empty() => serde_json::from_value(Json::Null).map_err(wrong),
        outcome => outcome.map_err(wrong),
    }
}
