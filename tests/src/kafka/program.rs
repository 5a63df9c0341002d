//! Runs a program to its end.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::keeper;

/// No program may take longer: a Kafka client without a broker tries for ever.
pub(super) const LIMIT: Duration = Duration::from_secs(90);
/// Between two looks at a program.
const LOOK: Duration = Duration::from_millis(5);

/// What a program said.
pub(super) struct Said {
    pub(super) out: Vec<u8>,
    pub(super) err: String,
    pub(super) succeeded: bool,
}

/// Runs a program with this input; `advice` is for who does not have it.
pub(super) fn run(mut command: Command, input: &[u8], advice: &str) -> Said {
    // Files, not pipes: nobody has to read while it runs.
    let [mut stdin, mut out, mut err] = std::array::from_fn(|_| tempfile::tempfile().expect("a temporary file"));
    stdin.write_all(input).and_then(|()| stdin.rewind()).expect("a temporary file");
    let shared = |file: &File| Stdio::from(file.try_clone().expect("a file can be shared"));
    command.stdin(stdin).stdout(shared(&out)).stderr(shared(&err));
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = keeper::spawn(command).unwrap_or_else(|error| panic!("{name}: {error}; {advice}"));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if began.elapsed() > LIMIT {
            // Its end is reported as a failure, with what it said.
            child.kill().expect("a child that runs can be killed");
        }
        std::thread::sleep(LOOK);
    };
    let err = String::from_utf8_lossy(&bytes(&mut err)).into_owned();
    Said { out: bytes(&mut out), err, succeeded: status.success() }
}

fn bytes(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a temporary file");
    bytes
}
