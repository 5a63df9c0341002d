//! One error for the whole engine's boundary: what happened, whose fault it is, whether a retry can help.

use std::fmt;

/// Whose fault an [`Error`] is; decides the exit code and what the user is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The job, its TOML, its input or its code: the user can mend it.
    User,
    /// Disk, network, broker, operating system: outside of the job and of the engine.
    External,
    /// A broken invariant of the engine itself: please report it.
    Internal,
}

/// An error with a stable `code`, a message for people, and the chain of causes.
///
/// The message names the thing, the value, the rule, and what to do.
///
/// ```
/// use thalweg_core::{Blame, Error};
/// let error = Error::user("store-shape", "store \"totals\" holds u64, the operator wants String");
/// assert_eq!(error.blame(), Blame::User);
/// assert_eq!(error.code(), "store-shape");
/// ```
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    blame: Blame,
    code: &'static str,
    message: String,
    retry: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that can fail in the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(blame: Blame, code: &'static str, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { blame, code, message: message.into(), retry: false, source: None }) }
    }

    /// The user's job, input or configuration is at fault.
    pub fn user(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::User, code, message)
    }

    /// The world around is at fault: disk, network, operating system.
    pub fn external(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::External, code, message)
    }

    /// The engine is at fault: an invariant does not hold.
    pub fn internal(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Blame::Internal, code, message)
    }

    /// An I/O error on a named thing; a full disk and a missing permission get their own code and advice.
    pub fn io(doing: impl fmt::Display, error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let (code, advice) = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                ("disk-full", "; free some space and start again, nothing acknowledged is lost")
            }
            ErrorKind::PermissionDenied => ("permission-denied", "; check the owner and the mode of the path"),
            ErrorKind::NotFound => ("not-found", "; check the path"),
            ErrorKind::NotADirectory => (
                "not-a-folder",
                "; a part of the path is a file where a folder should be: move it away, or choose another path",
            ),
            _ => ("io", ""),
        };
        Self::external(code, format!("{doing}: {error}{advice}")).with_source(error)
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Says that the same call may succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.inner.retry = true;
        self
    }

    /// Puts the name of the thing that was being done in front of the message.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.inner.message = format!("{doing}: {}", self.inner.message);
        self
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        self.inner.blame
    }

    /// A stable name of the kind of error, in kebab case.
    pub fn code(&self) -> &'static str {
        self.inner.code
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// Whether trying again can help.
    pub fn is_retryable(&self) -> bool {
        self.inner.retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} [{}]: {}", self.inner.blame, self.inner.code, self.inner.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}
