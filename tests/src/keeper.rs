//! Processes that end with the tests, however the tests end.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

struct Request {
    command: Command,
    reply: SyncSender<io::Result<Child>>,
}

/// The thread that starts them. The kernel ties a child to the thread that started it, and the thread of a test ends with the
/// test; this one ends with the process.
static KEEPER: LazyLock<Sender<Request>> = LazyLock::new(|| {
    let (requests, incoming) = channel::<Request>();
    let serve = move || {
        for Request { mut command, reply } in incoming {
            // Nobody waits for an answer any more only where a test panicked in between: then nothing is left to do.
            let _ = reply.send(command.spawn());
        }
    };
    std::thread::Builder::new().name("keeper".to_owned()).spawn(serve).expect("a thread can be started");
    requests
});

/// Starts a process that is killed when this one ends, also when this one is killed.
///
/// For servers, which would otherwise run on for ever after a test that was killed.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    let parent = getpid();
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(move || end_with(parent)) };
    let (reply, answer) = sync_channel(1);
    KEEPER.send(Request { command, reply }).expect("the keeper lives as long as the process");
    answer.recv().expect("the keeper answers each request")
}

fn end_with(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the request reached the kernel.
    if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}
