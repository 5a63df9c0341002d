//! A small HTTP client over one kept connection, so that what asks costs little beside what answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an answer, or a process that is to be ready, is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A connection to a job.
pub(crate) struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    pub(crate) fn connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub(crate) fn send(&mut self, path: &str) -> std::io::Result<()> {
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
    }

    /// Reads one answer: its status, and its body.
    pub(crate) fn receive(&mut self) -> std::io::Result<(u16, &[u8])> {
        self.buffer.clear();
        let (head, length) = loop {
            self.more()?;
            if let Some(at) = self.buffer.windows(HEAD_END.len()).position(|window| window == HEAD_END) {
                break (at + HEAD_END.len(), content_length(&self.buffer[..at]));
            }
        };
        while self.buffer.len() < head + length {
            self.more()?;
        }
        let status = std::str::from_utf8(&self.buffer[9..12]).ok().and_then(|text| text.parse().ok());
        Ok((status.unwrap_or(0), &self.buffer[head..head + length]))
    }

    fn more(&mut self) -> std::io::Result<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }

    pub(crate) fn get(&mut self, path: &str) -> std::io::Result<(u16, &[u8])> {
        self.send(path)?;
        self.receive()
    }

    /// An answer that is JSON.
    pub(crate) fn json(&mut self, path: &str) -> Result<Value, String> {
        let (status, body) = self.get(path).map_err(|error| format!("{path}: {error}"))?;
        if status != 200 {
            return Err(format!("{path}: {status}: {}", String::from_utf8_lossy(body)));
        }
        serde_json::from_slice(body).map_err(|error| format!("{path}: {error}"))
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let line = head.lines().find_map(|line| line.strip_prefix("content-length:").map(str::trim).map(str::to_owned));
    line.and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// A port that nobody listens on.
pub(crate) fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
    listener.local_addr().expect("it is bound")
}

/// Waits until the job at `addr` says that it is ready.
pub(crate) fn until_ready(addr: SocketAddr) -> Result<Http, String> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Ok(mut http) = Http::connect(addr)
            && http.get("/readyz").is_ok_and(|(status, _)| status == 200)
        {
            return Ok(http);
        }
        // Asked more often, the answers would be a part of what the start takes.
        std::thread::sleep((began.elapsed() / 50).clamp(Duration::from_millis(2), Duration::from_millis(20)));
    }
    Err(format!("nothing at {addr} is ready within {PATIENCE:?}"))
}

/// Waits until what the job says of itself fits.
pub(crate) fn until(
    http: &mut Http,
    job: &str,
    limit: Duration,
    mut fits: impl FnMut(&Value) -> bool,
) -> Result<Value, String> {
    let began = Instant::now();
    let path = format!("/v1/jobs/{job}");
    loop {
        let status = http.json(&path)?;
        if fits(&status) {
            return Ok(status);
        }
        if began.elapsed() > limit {
            return Err(format!("job {job} has not got so far within {limit:?}: {status}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
