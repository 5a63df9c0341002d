//! The command line: the same verbs in `thalweg` and in every job binary.
//!
//! Results go to standard output, everything else to standard error. The verbs that need the operators of a job crate are
//! done by a [`Program`]; the others ask a running job over HTTP or read files.

mod arguments;
mod client;
mod dlq;
mod exit;
mod job_file;
mod json_text;
mod log;
mod program;
mod query;
mod screen;
mod table;

use std::ffi::OsString;

use clap::Parser;

pub use arguments::{HttpAddress, RunArguments};
pub use exit::{Exit, Failure};
pub(crate) use job_file::keep_copy;
pub use program::{Program, StoppedStore};
pub use screen::Screen;

use arguments::{Cli, Verb};

/// Does what the arguments of this process say.
pub fn main_with(program: &dyn Program) -> Exit {
    main_with_arguments(program, std::env::args_os())
}

/// Does what these arguments say; the first one is the name of the binary.
pub fn main_with_arguments(program: &dyn Program, arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come as errors too, and belong on standard output. Where that is closed nobody wants them.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let screen = Screen::new(cli.no_color, cli.quiet, cli.verbose);
    let done = match &cli.verb {
        Verb::Run(arguments) => job_file::run(program, arguments, &screen),
        Verb::Validate(arguments) => job_file::validate(program, arguments, &screen),
        Verb::Graph(arguments) => job_file::graph(program, arguments, &screen),
        Verb::Explain(arguments) => job_file::explain(program, arguments, &screen),
        Verb::Schema => job_file::schema(program, &screen),
        Verb::Query(arguments) => query::query(program, arguments, &screen),
        Verb::Log(arguments) => log::log(arguments, &screen),
        Verb::Dlq(arguments) => dlq::dlq(program, arguments, &screen),
    };
    finish(done, &screen)
}

/// Does what the flags of `run` say with a job that needs no job file; the first argument is the name of the binary.
pub(crate) fn run_built(
    arguments: impl IntoIterator<Item = OsString>,
    run: impl FnOnce(&RunArguments, &Screen) -> Result<(), Failure>,
) -> Exit {
    // The grammar is that of `run` behind the name of the binary, with the binary itself in place of the job file.
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_else(|| OsString::from("job"));
    let line = [name.clone(), OsString::from("run"), name].into_iter().chain(arguments);
    let cli = match Cli::try_parse_from(line) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let screen = Screen::new(cli.no_color, cli.quiet, cli.verbose);
    let Verb::Run(arguments) = &cli.verb else { unreachable!("the verb was given above") };
    finish(run(arguments, &screen), &screen)
}

fn finish(done: Result<(), Failure>, screen: &Screen) -> Exit {
    match done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            screen.report(&failure);
            failure.exit()
        }
    }
}
