//! How a command ends.

use std::process::{ExitCode, Termination};

use thalweg_core::Error;
use thalweg_jobs::Diagnostics;

/// How a command ended; what `main` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// Everything was done: 0.
    Done,
    /// It failed: 1.
    Failed,
    /// Wrong usage or an invalid job, nothing was done: 2.
    Usage,
}

impl Exit {
    /// The code that the operating system sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// Why a command was not done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// It was begun and failed.
    Failed(Error),
    /// It cannot be done as it was asked for.
    Usage(Error),
    /// A job file has problems; these are all of them.
    InvalidJob(Diagnostics),
    /// It has been reported already, or the reader of the results has gone; only the exit code is left.
    Reported(Exit),
}

impl Failure {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Failed(_) => Exit::Failed,
            Failure::Usage(_) | Failure::InvalidJob(_) => Exit::Usage,
            Failure::Reported(exit) => *exit,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(error)
    }
}
