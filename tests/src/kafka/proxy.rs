//! A network in front of a broker that breaks where transactions end.
//!
//! ```text
//! client ──▶ Proxy ──▶ broker        requests are framed: length i32, api key i16, …
//!        ◀──       ◀──               EndTxn (26) is counted, and meets with what [`Proxy::script`] says
//! ```

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The request that commits or aborts a transaction: <https://kafka.apache.org/protocol#The_Messages_EndTxn>.
const END_TXN: i16 = 26;

/// What the network does to the end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// The connection is lost before the broker hears of it.
    Before,
    /// The broker hears of it, and the connection is lost before its answer.
    After,
    /// The connection is lost at once, and the broker hears of it so much later.
    Late(Duration),
    /// It is on its way for so long, and nothing is lost.
    Slow(Duration),
}

/// How the n-th end of a transaction, counted from 1, is broken.
pub type Script = Arc<dyn Fn(u64) -> Option<Break> + Send + Sync>;

/// Listens for the clients of one broker, which has to advertise [`Proxy::address`]. Ends with the process.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    broker: Mutex<Option<String>>,
    script: Mutex<Option<Script>>,
    ends: AtomicU64,
    broken: AtomicU64,
}

impl Proxy {
    /// Listens at a free port; nobody is answered before [`Proxy::forward_to`].
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            broker: Mutex::default(),
            script: Mutex::default(),
            ends: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().filter_map(Result::ok) {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.serve(client));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The broker behind it: `host:port`.
    pub fn forward_to(&self, broker: String) {
        *self.shared.broker.lock().expect("nobody panics while it is locked") = Some(broker);
    }

    /// From now on the ends of transactions are broken like this.
    pub fn script(&self, script: impl Fn(u64) -> Option<Break> + Send + Sync + 'static) {
        *self.shared.script.lock().expect("nobody panics while it is locked") = Some(Arc::new(script));
    }

    /// How many ends of transactions were broken.
    pub fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) {
        let broker = self.broker.lock().expect("nobody panics while it is locked").clone();
        // Either end may be gone at any moment: then the other is told so, and that is all.
        let Some(Ok(upstream)) = broker.map(TcpStream::connect) else { return };
        let _ = client.set_nodelay(true).and_then(|()| upstream.set_nodelay(true));
        let (Ok(mut from), Ok(mut to)) = (upstream.try_clone(), client.try_clone()) else { return };
        let answers = std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
        let _ = self.requests(&client, &upstream);
        let _ = client.shutdown(Shutdown::Both);
        // What was sent is still read by the broker.
        let _ = upstream.shutdown(Shutdown::Write);
        let _ = answers.join();
    }

    /// Passes requests on until one of the ends, or a break, ends it.
    fn requests(&self, mut client: &TcpStream, mut upstream: &TcpStream) -> io::Result<()> {
        loop {
            let mut length = [0; 4];
            client.read_exact(&mut length)?;
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            client.read_exact(&mut frame)?;
            let mut forward = || upstream.write_all(&[&length[..], &frame].concat());
            match self.break_of(&frame) {
                None => forward()?,
                Some(Break::Slow(time)) => {
                    std::thread::sleep(time);
                    forward()?;
                }
                Some(Break::Before) => return Ok(()),
                Some(Break::After) => {
                    client.shutdown(Shutdown::Both)?;
                    return forward();
                }
                Some(Break::Late(time)) => {
                    client.shutdown(Shutdown::Both)?;
                    std::thread::sleep(time);
                    return forward();
                }
            }
        }
    }

    fn break_of(&self, frame: &[u8]) -> Option<Break> {
        let key = frame.first_chunk::<2>().map(|key| i16::from_be_bytes(*key));
        if key != Some(END_TXN) {
            return None;
        }
        let count = self.ends.fetch_add(1, Ordering::Relaxed) + 1;
        let script = self.script.lock().expect("nobody panics while it is locked").clone();
        let found = script.and_then(|script| script(count));
        self.broken.fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
        found
    }
}
