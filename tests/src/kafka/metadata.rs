//! The one question that the harness asks a broker itself: which brokers are there?

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(2);
const LARGEST_ANSWER: usize = 1 << 20;

/// A metadata request, version 1, for no topics: <https://kafka.apache.org/protocol#The_Messages_Metadata>.
const REQUEST: [u8; 18] = [
    0, 0, 0, 14, // bytes that follow
    0, 3, // metadata
    0, 1, // version
    0, 0, 0, 7, // correlation
    255, 255, // no name of a client
    0, 0, 0, 0, // no topics
];

/// How many brokers the broker at an address knows to be alive. It answers only when it is one of them itself.
///
/// Errors: it cannot be reached, or does not answer within two seconds.
pub(super) fn live_brokers(port: u16) -> io::Result<u32> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&REQUEST)?;
    let length = read_u32(&mut stream)?;
    let mut answer = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(LARGEST_ANSWER)];
    stream.read_exact(&mut answer)?;
    let mut answer = answer.as_slice();
    let _correlation = read_u32(&mut answer)?;
    read_u32(&mut answer)
}

fn read_u32(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}
