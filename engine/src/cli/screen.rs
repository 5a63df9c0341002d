//! The terminal: results on standard output; errors, log and progress on standard error without tearing each other.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use thalweg_core::{Blame, Error};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::exit::{Exit, Failure};

/// The environment variable that says what is logged, in the syntax of `tracing`'s filters, before `-q` and `-v`.
const LOG_FILTER: &str = "THALWEG_LOG";

/// Where a command writes to. Cloning shares it.
#[derive(Clone)]
pub struct Screen {
    bars: MultiProgress,
    color: bool,
    quiet: bool,
    verbose: u8,
}

impl Screen {
    pub(super) fn new(no_color: bool, quiet: bool, verbose: u8) -> Self {
        let wanted = !no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { bars: MultiProgress::new(), color: wanted && io::stderr().is_terminal(), quiet, verbose }
    }

    /// Whether `-q` was given: no progress.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether standard error is a terminal that shows colours.
    pub fn has_color(&self) -> bool {
        self.color
    }

    /// The place of progress bars: what else is written here goes above them.
    pub(crate) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Sends the log of the process here, with the detail that `-q` and `-v` ask for. Only the first call has an effect.
    pub fn start_log(&self) {
        let default = match (self.quiet, self.verbose) {
            (true, _) => "error",
            (false, 0) => "warn,thalweg=info",
            (false, 1) => "info,thalweg=debug",
            (false, _) => "debug,thalweg=trace",
        };
        let filter = match std::env::var(LOG_FILTER).ok().filter(|text| !text.is_empty()) {
            None => EnvFilter::new(default),
            Some(text) => EnvFilter::try_new(&text).unwrap_or_else(|error| {
                self.note(&format!("{LOG_FILTER}={text} is no filter ({error}); the log is as without it"));
                EnvFilter::new(default)
            }),
        };
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(self.color).with_writer(self.clone());
        // A second one in a process, as in tests, is refused; the first one is as good.
        let _ = log.try_init();
    }

    /// Writes a line of results. A reader that has gone (`| head`) ends the command without complaint.
    pub fn result(&self, line: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).map_err(output_failure)
    }

    /// Writes a note for people, not with `-q`.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            self.error_line(line);
        }
    }

    /// Prints why a command was not done, all errors in one style.
    pub fn report(&self, failure: &Failure) {
        match failure {
            Failure::Failed(error) | Failure::Usage(error) => self.error_line(&describe(error, self.color)),
            Failure::InvalidJob(problems) => self.error_line(problems.render(self.color).trim_end()),
            Failure::Reported(_) => {}
        }
    }

    fn error_line(&self, line: &str) {
        // Where standard error is closed there is nobody left to tell.
        let _ = self.bars.suspend(|| writeln!(io::stderr().lock(), "{line}"));
    }
}

/// The outcome of a write to standard output that failed.
pub(super) fn output_failure(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::Reported(Exit::Done);
    }
    Failure::Failed(Error::io("writing to standard output", error))
}

/// `error[code]: message`, the causes, and what to do where the message cannot say it.
fn describe(error: &Error, color: bool) -> String {
    let (on, off) = if color { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
    let mut text = format!("{on}error[{}]{off}: {}", error.code(), error.message());
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        let line = source.to_string();
        // Many messages quote their cause already.
        if !text.contains(&line) {
            text.push_str("\n  cause: ");
            text.push_str(&line);
        }
        cause = source.source();
    }
    match error.blame() {
        Blame::Internal => {
            text.push_str("\n  help: this is a bug of the engine; please report it with this message and the log")
        }
        Blame::External if error.is_retryable() => text.push_str("\n  help: it may pass; try again"),
        Blame::External | Blame::User => {}
    }
    text
}

/// A writer of log lines.
pub struct LogLine<'a>(&'a Screen);

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.bars.suspend(|| io::stderr().lock().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_one_style() {
        let io_error = || io::Error::other("the cable is out");
        for (error, expected) in [
            (Error::user("job-name", "job name \"X\": use a-z"), "error[job-name]: job name \"X\": use a-z"),
            (
                Error::external("broker", "no answer").with_source(io_error()).retryable(),
                "error[broker]: no answer\n  cause: the cable is out\n  help: it may pass; try again",
            ),
            (Error::io("read x", io_error()), "error[io]: read x: the cable is out"),
            (
                Error::internal("digest", "differs"),
                "error[digest]: differs\n  help: this is a bug of the engine; please report it with this message and the log",
            ),
        ] {
            assert_eq!(describe(&error, false), expected);
        }
        assert!(describe(&Error::user("a", "b"), true).starts_with("\u{1b}[1;31merror[a]\u{1b}[0m: b"));
    }
}
