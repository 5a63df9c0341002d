//! What a binary is made of.

use std::path::Path;

use thalweg_core::{Query, QueryResult};
use thalweg_jobs::{Catalogue, JobSpec};

use super::arguments::RunArguments;
use super::exit::Failure;
use super::screen::Screen;

/// The operators of a binary, those of the engine and of a job crate where it is one, and how it runs a job.
pub trait Program {
    /// Every operator that a job file may use.
    fn catalogue(&self) -> &Catalogue;

    /// Runs a whole job in this process, until its input ends or it is told to stop. The job is valid, and the flags have
    /// been put over it already; warnings have been shown.
    fn run(&self, job: JobSpec, arguments: &RunArguments, screen: &Screen) -> Result<(), Failure>;

    /// Opens one store of a job that does not run, at its last checkpoint; `data` is the folder that the job ran with.
    fn open_stopped(&self, job: &JobSpec, data: &Path, store: &str) -> Result<StoppedStore, Failure>;
}

/// Answers questions about a store of a job that does not run.
pub type StoppedStore = Box<dyn Fn(&Query) -> QueryResult>;
