//! A server that gives one answer to everything, with nothing between hyper and the socket: what an answer over HTTP costs at least.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The thread that serves.
pub(crate) const THREAD: &str = "plain-http";
/// As long as what a job answers.
const ANSWER: &[u8] = br#"{"key":"w000012","value":"123456","epoch":1234,"age_ms":12,"role":"active"}"#;

/// Serves from a thread of its own, as long as the process runs.
pub(crate) fn start() -> std::io::Result<SocketAddr> {
    let listener = StdListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || runtime.block_on(serve(listener));
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(serve)?;
    Ok(addr)
}

async fn serve(listener: StdListener) {
    let listener = TcpListener::from_std(listener).expect("the runtime takes a listener");
    loop {
        let (stream, _) = listener.accept().await.expect("a client of this process");
        stream.set_nodelay(true).expect("a socket");
        tokio::spawn(async move {
            // It ends when the client hangs up.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
    }
}

async fn answer(_: Request<hyper::body::Incoming>) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Body::new(Bytes::from_static(ANSWER)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

type Body = http_body_util::Full<Bytes>;
