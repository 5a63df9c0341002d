//! A binary with operators of its own: one line makes the whole command line.

use std::ffi::OsString;
use std::path::Path;

use thalweg_core::failpoint;
use thalweg_jobs::{Catalogue, JobSpec};
use thalweg_operators::{Plan, Registry};

use crate::cli::{Exit, Failure, Program, RunArguments, Screen, StoppedStore};

struct Binary {
    registry: Registry,
}

impl Program for Binary {
    fn catalogue(&self) -> &Catalogue {
        self.registry.catalogue()
    }

    fn run(&self, job: JobSpec, arguments: &RunArguments, screen: &Screen) -> Result<(), Failure> {
        failpoint::arm_from_env()?;
        crate::run::run(&job, &self.registry, arguments, screen)
    }

    fn open_stopped(&self, job: &JobSpec, data: &Path, store: &str) -> Result<StoppedStore, Failure> {
        Ok(crate::run::open_stopped(job, &self.registry, data, store)?)
    }
}

/// The command line of a binary with these operators; `thalweg::job!` calls it.
pub fn main_with(registry: Registry) -> Exit {
    crate::cli::main_with(&Binary { registry })
}

/// Runs a job that was written in Rust, with the flags of `run` (without a job file): `--data`, `--http`, `--serve`, and so on.
///
/// ```no_run
/// use thalweg::prelude::*;
///
/// fn main() -> thalweg::Exit {
///     thalweg::run_job(|| {
///         let job = JobBuilder::new("hello")?;
///         let numbers = job.source("numbers", GeneratorSource { count: Some(1000), keys: 10, skew: 0.0, seed: 1, partitions: 1 });
///         numbers.key_by(|row: Value| (row.get("key").cloned().unwrap_or_default(), ())).count("counts");
///         job.build()
///     })
/// }
/// ```
pub fn run_job(build: impl FnOnce() -> thalweg_core::Result<Plan>) -> Exit {
    run_job_with(build, std::env::args_os())
}

fn run_job_with(
    build: impl FnOnce() -> thalweg_core::Result<Plan>,
    arguments: impl IntoIterator<Item = OsString>,
) -> Exit {
    crate::cli::run_built(arguments, |arguments, screen| {
        failpoint::arm_from_env()?;
        crate::run::run_built(build()?, arguments, screen)
    })
}

/// The `main` of a job binary: the operators of the crate by the names that job files use.
///
/// ```no_run
/// # use thalweg::prelude::*;
/// # #[derive(serde::Deserialize)]
/// # struct Totals;
/// # impl KeyedProcess for Totals {
/// #     type Key = String;
/// #     type In = Value;
/// #     type State = u64;
/// #     type Out = u64;
/// #     fn process(
/// #         &self,
/// #         _: &String,
/// #         records: &mut Records<Self>,
/// #         total: &mut Option<u64>,
/// #         out: &mut Output<u64>,
/// #         _: &EpochCtx,
/// #     ) -> Result<()> {
/// #         let sum = total.get_or_insert(0);
/// #         *sum += records.len() as u64;
/// #         out.emit(*sum);
/// #         Ok(())
/// #     }
/// # }
/// fn main() -> thalweg::Exit {
///     thalweg::job! { "orders::Totals" => Totals }
/// }
/// ```
#[macro_export]
macro_rules! job {
    ($($name:literal => $operator:ty),* $(,)?) => {
        $crate::main_with(
            $crate::macros::Registry::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
                $(.keyed::<$operator>($name))*
        )
    };
}
