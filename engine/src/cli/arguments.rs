//! The grammar of the command line.

use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use thalweg_core::{At, Error};

use super::exit::Failure;

/// Where HTTP is served and asked where nothing else is said.
const DEFAULT_ADDR: &str = "127.0.0.1:7171";
/// The environment variable with the bearer token.
const TOKEN: &str = "THALWEG_TOKEN";

/// Stream processing with exact results.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,

    /// No colours, as with NO_COLOR
    #[arg(long, global = true)]
    pub(super) no_color: bool,

    /// No progress, no log but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,

    /// More log; twice for all of it
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a whole job in this process
    Run(RunArguments),
    /// Check job files offline
    Validate(ValidateArguments),
    /// Print the graph of a job
    Graph(GraphArguments),
    /// Say what each operator keeps, how it is partitioned and what it costs
    Explain(ExplainArguments),
    /// Print the JSON Schema of job files
    Schema,
    /// Read the state of a job
    Query(QueryArguments),
    /// List, read and append to an embedded log
    Log(LogArguments),
    /// Look at the dead letters of a job, and decide on them
    Dlq(DlqArguments),
}

/// What `run` is told.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// The job file
    #[arg(value_name = "JOB.toml")]
    pub job: PathBuf,

    /// Where the job keeps its state; started again on the same folder it goes on where it was
    #[arg(long, value_name = "DIR", default_value = ".thalweg")]
    pub data: PathBuf,

    /// Where to serve HTTP, or none
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_ADDR)]
    pub http: HttpAddress,

    /// Worker threads; before what the job file says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,

    /// Keep answering queries after bounded input has ended
    #[arg(long)]
    pub serve: bool,

    /// Repeat a run byte for byte: the data folder of a run with --keep-bindings
    #[arg(long, value_name = "DIR")]
    pub bindings: Option<PathBuf>,

    /// Keep the bindings of all epochs, so that --bindings can repeat this run
    #[arg(long)]
    pub keep_bindings: bool,

    /// A file with the bearer token of the HTTP server; THALWEG_TOKEN holds the token itself
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

impl RunArguments {
    /// The bearer token of the HTTP server: the file's, else that of the environment, else none.
    ///
    /// Errors: a file that cannot be read; `empty-token`, for an empty one would let everybody in.
    pub fn token(&self) -> Result<Option<String>, Failure> {
        token(self.token_file.as_deref())
    }
}

/// The bearer token in a file, else that of the environment, else none.
pub(super) fn token(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let (from, token) = match file {
        Some(file) => {
            let reading =
                |error| Failure::Usage(Error::io(format!("reading the token file {}", file.display()), error));
            (file.display().to_string(), std::fs::read_to_string(file).map_err(reading)?)
        }
        None => match std::env::var(TOKEN) {
            Ok(token) => (TOKEN.to_owned(), token),
            Err(_) => return Ok(None),
        },
    };
    match token.trim() {
        "" => Err(Failure::Usage(Error::user(
            "empty-token",
            format!("{from} holds no token; write one, or leave it out"),
        ))),
        token => Ok(Some(token.to_owned())),
    }
}

#[derive(Debug, Args)]
pub(super) struct ValidateArguments {
    /// The job files
    #[arg(value_name = "JOB.toml", required = true)]
    pub(super) jobs: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct GraphArguments {
    /// The job file
    #[arg(value_name = "JOB.toml")]
    pub(super) job: PathBuf,

    /// The form of the graph; a table by default on a terminal, else JSON
    #[arg(short, long, value_enum)]
    output: Option<GraphFormat>,
}

impl GraphArguments {
    /// What was asked for, or what suits.
    pub(super) fn format(&self) -> GraphFormat {
        self.output.unwrap_or_else(|| if on_terminal() { GraphFormat::Table } else { GraphFormat::Json })
    }
}

#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The job file
    #[arg(value_name = "JOB.toml")]
    pub(super) job: PathBuf,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct QueryArguments {
    /// The name of the job
    pub(super) job: String,

    /// The store: the id of the operator whose state it is
    pub(super) store: String,

    /// One key: text as it is, numbers in decimal, composite keys as a JSON array
    #[arg(allow_hyphen_values = true, conflicts_with_all = ["from", "to", "prefix", "limit"])]
    pub(super) key: Option<String>,

    /// The first key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(super) from: Option<String>,

    /// The key before which to stop
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub(super) to: Option<String>,

    /// Only keys that begin with this text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) prefix: Option<String>,

    /// Entries at most
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: u64,

    /// The newest processed epoch, or the last committed checkpoint
    #[arg(long, value_name = "WHICH", default_value = "latest", value_parser = parse_at)]
    pub(super) at: At,

    /// Where the job serves HTTP
    #[arg(long, env = "THALWEG_ADDR", default_value = DEFAULT_ADDR)]
    pub(super) addr: String,

    /// Read the last checkpoint of a job that does not run, from the data folder that it ran with
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,

    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct LogArguments {
    #[command(subcommand)]
    pub(super) verb: LogVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum LogVerb {
    /// List the topics of a log and their offsets
    Ls {
        /// The folder of a log, or of one topic in it
        #[arg(value_name = "DIR-or-TOPIC")]
        place: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Read a topic
    Read {
        /// A topic as DIR/TOPIC, or the folder of a log that has only one
        #[arg(value_name = "DIR-or-TOPIC")]
        place: PathBuf,
        /// Only this partition
        #[arg(long, value_name = "N")]
        partition: Option<u16>,
        /// The first offset, of each partition
        #[arg(long, value_name = "OFFSET", default_value = "0")]
        from: u64,
        /// Records at most
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        #[command(flatten)]
        output: Output,
    },
    /// Append the lines of standard input to a topic; log and topic are made where they are missing
    Append {
        /// A topic as DIR/TOPIC, or the folder of a log that has only one
        #[arg(value_name = "DIR-or-TOPIC")]
        place: PathBuf,
        /// To which partition
        #[arg(long, value_name = "N", default_value = "0")]
        partition: u16,
        /// Partitions of the topic where it is made
        #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=65536))]
        partitions: u32,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(super) struct DlqArguments {
    #[command(subcommand)]
    pub(super) verb: DlqVerb,
}

#[derive(Debug, Subcommand)]
pub(super) enum DlqVerb {
    /// List the dead letters on which nothing is decided
    Ls {
        #[command(flatten)]
        job: JobAddress,
        /// Only those of this source or operator
        #[arg(long, value_name = "ID")]
        node: Option<String>,
        /// Dead letters at most
        #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Print everything about one dead letter
    Show {
        #[command(flatten)]
        job: JobAddress,
        /// Its offset
        offset: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Let their sources read records once more; what fails again is a new dead letter
    Retry {
        #[command(flatten)]
        job: JobAddress,
        #[command(flatten)]
        which: WhichLetters,
        #[command(flatten)]
        output: Output,
    },
    /// Decide that nothing is done with them: they are not listed any more
    Drop {
        #[command(flatten)]
        job: JobAddress,
        #[command(flatten)]
        which: WhichLetters,
        #[command(flatten)]
        output: Output,
    },
}

/// A job, and where it is.
#[derive(Debug, Args)]
pub(super) struct JobAddress {
    /// The name of the job
    pub(super) job: String,

    /// Where the job serves HTTP
    #[arg(long, env = "THALWEG_ADDR", default_value = DEFAULT_ADDR)]
    pub(super) addr: String,

    /// Use the data folder of a job that does not run
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
}

/// Which dead letters are decided on.
#[derive(Debug, Args)]
pub(super) struct WhichLetters {
    /// Their offsets
    #[arg(value_name = "OFFSET", required_unless_present = "all", conflicts_with = "all")]
    pub(super) offsets: Vec<u64>,

    /// All on which nothing is decided
    #[arg(long)]
    pub(super) all: bool,

    /// Only those of this source or operator
    #[arg(long, value_name = "ID", requires = "all")]
    pub(super) node: Option<String>,

    /// A file with the bearer token of the server; THALWEG_TOKEN holds the token itself
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// The flag of every verb that reads.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Output {
    /// A table for people, or stable JSON lines; a table by default on a terminal only
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

impl Output {
    /// What was asked for, or what suits.
    pub(super) fn format(self) -> Format {
        self.output.unwrap_or_else(|| if on_terminal() { Format::Table } else { Format::Json })
    }
}

fn on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// JSON, one value for each line, stable over versions.
    Json,
}

/// The form of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum GraphFormat {
    /// A tree for people.
    Table,
    /// A Mermaid flowchart.
    Mermaid,
    /// Graphviz.
    Dot,
    /// `{"nodes":[…],"edges":[…]}`.
    Json,
}

/// The value of `--http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// No HTTP at all.
    None,
    /// Here.
    At(SocketAddr),
}

impl FromStr for HttpAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(HttpAddress::None);
        }
        let mut found = text
            .to_socket_addrs()
            .map_err(|error| format!("{error}; write host:port such as {DEFAULT_ADDR}, or none"))?;
        found.next().map(HttpAddress::At).ok_or_else(|| "this host has no address".to_owned())
    }
}

fn parse_at(text: &str) -> Result<At, String> {
    match text {
        "latest" => Ok(At::Latest),
        "committed" => Ok(At::Committed),
        _ => Err("write latest or committed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lines_are_understood_or_refused() {
        for (line, part) in [
            ("run job.toml", "data: \".thalweg\", http: At(127.0.0.1:7171), workers: None, serve: false"),
            ("run job.toml --http none --workers 2 --serve", "http: None, workers: Some(2), serve: true"),
            ("run job.toml --workers 0", "invalid value '0'"),
            ("run job.toml --http 7171", "write host:port such as 127.0.0.1:7171, or none"),
            ("run", "required arguments were not provided"),
            ("query orders totals -5", "key: Some(\"-5\")"),
            ("query orders totals a --limit 5", "cannot be used with"),
            ("query orders totals --at committed -o json", "at: Committed"),
            ("query orders totals --at never", "write latest or committed"),
            ("graph job.toml -o dot", "output: Some(Dot)"),
            ("validate", "required arguments were not provided"),
            ("run job.toml -q -v", "cannot be used with"),
            ("log append log/in --partition 1", "partition: 1, partitions: 1"),
            ("dlq ls orders --node in --limit 5", "limit: 5"),
            ("dlq show orders 7", "offset: 7"),
            ("dlq retry orders 7 8", "offsets: [7, 8], all: false"),
            ("dlq drop orders --all --node in", "all: true, node: Some(\"in\")"),
            ("dlq drop orders", "required arguments were not provided"),
            ("dlq drop orders 1 --all", "cannot be used with"),
            ("nonsense", "unrecognized subcommand"),
        ] {
            let words = std::iter::once("thalweg").chain(line.split(' '));
            let got = match Cli::try_parse_from(words) {
                Ok(cli) => format!("{cli:?}"),
                Err(error) => error.to_string(),
            };
            assert!(got.contains(part), "{line}: {got}");
        }
    }
}
