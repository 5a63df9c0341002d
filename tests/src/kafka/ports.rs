//! Ports for brokers.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

/// Below the ports that Linux gives to outgoing connections: a client that asks a dead broker again and again would at last be
/// given the broker's own port and be connected with itself.
const FIRST: u16 = 12_000;
const LAST: u16 = 31_999;
const TRIES: usize = 1_000;

/// So many ports that nobody listens on. Somebody may take one before the broker does: who starts one tries again with others.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let mut held: Vec<TcpListener> = Vec::new();
    let candidates = (0..TRIES).map(|_| FIRST + u16::try_from(chance() % u64::from(LAST - FIRST)).expect("below u16"));
    held.extend(candidates.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(N));
    assert_eq!(held.len(), N, "no free ports between {FIRST} and {LAST}");
    let ports: Vec<u16> = held.iter().map(|held| held.local_addr().expect("a bound socket").port()).collect();
    ports.try_into().expect("as many as were asked for")
}

/// Another number in every process: tests of several processes look for ports at once. No result depends on it.
pub(super) fn chance() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
