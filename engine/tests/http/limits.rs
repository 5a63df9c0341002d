//! What the server refuses, and what it bears.

use std::io::{BufRead, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use thalweg::http::{Limits, Server, ServerOptions};
use thalweg_core::Metrics;

use crate::client::Client;
use crate::map_job::{MapJob, reply};
use crate::{KEYS, LIMIT, loopback, served, start};

#[test]
fn addresses_that_are_refused() {
    let start = |addr: SocketAddr, token: Option<&str>| {
        let options = ServerOptions { token: token.map(str::to_owned), ..ServerOptions::default() };
        Server::start(addr, options, Vec::new(), Metrics::default())
    };
    let error = start(([0, 0, 0, 0], 0).into(), None).err().expect("needs a token");
    assert_eq!(error.code(), "token-required");
    assert!(start(([0, 0, 0, 0], 0).into(), Some("secret")).is_ok());
    let taken = TcpListener::bind(loopback()).expect("bind");
    let addr = taken.local_addr().expect("addr");
    let error = start(addr, None).err().expect("the port is taken");
    assert_eq!(error.code(), "port-in-use");
    assert!(error.message().contains(&addr.to_string()) && error.message().contains("--http"), "{error}");
}

#[test]
fn a_wrong_token_is_refused() {
    let options = ServerOptions { token: Some("secret".to_owned()), ..ServerOptions::default() };
    let server = Server::start(loopback(), options, vec![served(&MapJob::new())], Metrics::default()).expect("start");
    let mut client = Client::to(server.local_addr());
    for (header, status) in [
        ("", 200),
        ("authorization: Bearer secret\r\n", 200),
        ("authorization: Bearer secreT\r\n", 401),
        ("authorization: Bearer \r\n", 401),
    ] {
        client.send(&format!("GET /v1/jobs HTTP/1.1\r\nhost: x\r\n{header}\r\n"));
        assert_eq!(client.answer().status, status, "{header}");
    }
    // What changes something needs the token.
    for (header, status) in [("", 401), ("authorization: Bearer secret\r\n", 404)] {
        client.send(&format!(
            "POST /v1/jobs/orders/dead-letters/drop HTTP/1.1\r\nhost: x\r\ncontent-length: 12\r\n{header}\r\n{{\"all\":true}}"
        ));
        assert_eq!(client.answer().status, status, "{header}");
    }
}

#[test]
fn slow_clients_are_cut_off() {
    let soon = Duration::from_millis(50);
    let limits = Limits { head_timeout: soon, body_timeout: soon, ..Limits::default() };
    let server = start(&MapJob::new(), limits);
    let begun = Instant::now();
    let mut heads = Client::to(server.local_addr());
    heads.send("GET /livez HTTP/1.1\r\nx: ");
    let idle = Client::to(server.local_addr());
    let mut bodies = Client::to(server.local_addr());
    bodies.send("POST /v1/jobs/orders/stores/totals/get HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(bodies.answer().code(), "body-timeout");
    heads.rest();
    assert_eq!(idle.rest(), "");
    assert!(begun.elapsed() < LIMIT);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let limits = Limits { write_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = start(&MapJob::new(), limits);
    let mut deaf = TcpStream::connect(server.local_addr()).expect("connect");
    deaf.set_write_timeout(Some(LIMIT)).expect("timeout");
    let request = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    // The server stops reading while its answers are not taken, so sending can only end by the connection being closed.
    let error = (0..10_000).find_map(|_| deaf.write_all(request.as_bytes()).err()).expect("closed at last");
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    assert!([BrokenPipe, ConnectionAborted, ConnectionReset].contains(&error.kind()), "{error}");
}

#[test]
fn limits_hold() {
    let limits = Limits {
        max_connections: 2,
        max_point_reads: 1,
        max_body_bytes: 10,
        answer_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let job = MapJob::new();
    let server = start(&job, limits);
    let mut first = Client::to(server.local_addr());
    let mut second = Client::to(server.local_addr());
    assert_eq!(first.call("POST", "/v1/jobs/orders/stores/totals/get", "{\"keys\":[\"a\"]}").code(), "body-too-large");
    // The body was not read to its end, so that connection is over; its place is free again once it is closed.
    drop(first);
    let late = second.call("GET", "/v1/jobs/orders/stores/stuck/keys/a", "");
    assert!(late.code() == "unavailable" && late.body.contains("no answer within"), "{}", late.body);
    let refused = second.call("GET", &format!("{KEYS}/a"), "");
    assert!(refused.code() == "unavailable" && refused.body.contains("too many"), "{}", refused.body);
    job.stuck.lock().expect("lock").clear();
    assert_eq!(second.call("GET", &format!("{KEYS}/a"), "").status, 200);
    let mut others: Vec<Client> = Vec::new();
    let begun = Instant::now();
    let full = loop {
        assert!(begun.elapsed() < LIMIT, "connections are not limited");
        let mut other = Client::to(server.local_addr());
        let bytes = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
        let _ = other.0.get_mut().write_all(bytes.as_bytes());
        let mut line = String::new();
        if other.0.read_line(&mut line).is_err() || line.contains("503") {
            break line;
        }
        others.push(other);
    };
    assert!(others.len() <= 1, "{}", others.len());
    assert!(full.is_empty() || full.contains("503 Service Unavailable"), "{full}");
}

#[test]
fn stop_lets_requests_finish() {
    let job = MapJob::new();
    let server = start(&job, Limits::default());
    let addr = server.local_addr();
    let mut waiting = Client::to(addr);
    waiting.send("GET /v1/jobs/orders/stores/stuck/keys/a HTTP/1.1\r\nhost: x\r\n\r\n");
    let begun = Instant::now();
    let reply_to = loop {
        assert!(begun.elapsed() < LIMIT, "the question does not arrive");
        match job.stuck.lock().expect("lock").pop() {
            Some(reply_to) => break reply_to,
            None => std::thread::yield_now(),
        }
    };
    let stopping = std::thread::spawn(move || server.stop());
    while TcpStream::connect(addr).is_ok() {
        assert!(begun.elapsed() < LIMIT, "still accepting");
        std::thread::yield_now();
    }
    reply_to(Ok(reply(vec![MapJob::entry("a", Some(&"1".to_owned()))], false)));
    assert_eq!(waiting.answer().status, 200);
    stopping.join().expect("stopped");
}
