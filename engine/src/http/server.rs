//! The server: one thread, bounded connections, a graceful stop.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Response;
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use thalweg_connectors::dead_letter::Desk;
use thalweg_core::{Error, JobService, Metrics, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tower_service::Service;

use super::gate::Gate;
use super::handlers::App;
use super::keys::get_one;
use super::limits::Limits;
use super::problem::Problem;
use super::routes::{is_key_path, router};
use super::stall::StallGuard;

/// How long to wait after a failed accept: that is mostly a lack of descriptors, which comes back at once if asked at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a [`Server`] behaves.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The bearer token that requests which change something must carry. Needed to listen on an address that is not
    /// loopback.
    pub token: Option<String>,
    /// What clients may hold at most.
    pub limits: Limits,
}

/// A job that is served.
#[derive(Clone)]
pub struct Served {
    /// The job.
    pub job: Arc<dyn JobService>,
    /// Its dead letters, where it sets records aside.
    pub dead_letters: Option<Arc<Desk>>,
}

/// A running HTTP server. Dropping it stops it.
///
/// ```
/// use thalweg::http::{Server, ServerOptions};
/// use thalweg_core::Metrics;
///
/// # fn main() -> thalweg_core::Result<()> {
/// let server = Server::start(([127, 0, 0, 1], 0).into(), ServerOptions::default(), Vec::new(), Metrics::default())?;
/// assert_ne!(server.local_addr().port(), 0);
/// server.stop();
/// # Ok(())
/// # }
/// ```
pub struct Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `addr` (port 0: any free one) and serves these jobs from a thread of its own until it is stopped.
    ///
    /// The jobs may still be restoring: `/readyz` says so, and their stores answer 503 meanwhile.
    ///
    /// Errors: `token-required` where `addr` is not loopback and no token is configured; `port-in-use`; `http-listen` for
    /// every other refusal of the operating system.
    pub fn start(addr: SocketAddr, options: ServerOptions, jobs: Vec<Served>, metrics: Metrics) -> Result<Self> {
        if !addr.ip().is_loopback() && options.token.is_none() {
            let message = format!(
                "--http {addr}: other machines could reach this address, so it needs a token; set THALWEG_TOKEN or \
                 --token-file, or use a loopback address such as 127.0.0.1:{}",
                addr.port()
            );
            return Err(Error::user("token-required", message));
        }
        let listener = listen(addr)?;
        let local = listener.local_addr().map_err(|error| listen_error(addr, error))?;
        let app = Arc::new(App {
            jobs: jobs.into_iter().map(|served| (served.job.status().job.into(), served)).collect(),
            metrics,
            point_reads: Gate::new(options.limits.max_point_reads),
            wide_reads: Gate::new(options.limits.max_wide_reads),
            token: options.token,
            limits: options.limits,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| listen_error(addr, error))?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || runtime.block_on(serve(listener, app, stopped)))
            .map_err(|error| listen_error(addr, error))?;
        Ok(Self { addr: local, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens; with the real port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Accepts no more, lets requests in progress finish within [`Limits::stop_timeout`], and ends the thread.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the HTTP thread panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn listen(addr: SocketAddr) -> Result<StdListener> {
    let listener = StdListener::bind(addr).map_err(|error| listen_error(addr, error))?;
    listener.set_nonblocking(true).map_err(|error| listen_error(addr, error))?;
    Ok(listener)
}

fn listen_error(addr: SocketAddr, error: std::io::Error) -> Error {
    if error.kind() == ErrorKind::AddrInUse {
        let message = format!(
            "{addr} is in use by another process; stop that one, or choose another address with --http ADDR (--http none \
             for no HTTP at all)"
        );
        return Error::external("port-in-use", message).with_source(error);
    }
    Error::external("http-listen", format!("listening on {addr}: {error}; choose another address with --http ADDR"))
        .with_source(error)
}

async fn serve(listener: StdListener, app: Arc<App>, mut stopped: oneshot::Receiver<()>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the HTTP listener cannot be used: {error}"),
    };
    let connections = Gate::new(app.limits.max_connections);
    let router = router(Arc::clone(&app));
    let graceful = GracefulShutdown::new();
    let full = turned_away();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(pass) = connections.enter() else {
            // Whatever the socket does not take at once is lost: nobody waits for a client that is turned away.
            let _ = stream.try_write(full.as_bytes());
            continue;
        };
        let connection = graceful.watch(connection(stream, &app, router.clone()));
        tokio::spawn(async move {
            // Errors here are the client's: it hung up, was too slow, or did not speak HTTP. It has been told what it can be.
            let _ = connection.await;
            drop(pass);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(app.limits.stop_timeout, graceful.shutdown()).await;
}

/// What a connection is told that is one too many; it is sent before any request is read.
fn turned_away() -> String {
    let body = Problem::unavailable("too many connections are open already; try again").to_json();
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn connection(
    stream: TcpStream,
    app: &Arc<App>,
    router: Router,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<> {
    // Without it an answer may wait 40 ms for the client's acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(StallGuard::new(stream, app.limits.write_timeout));
    let shared = Arc::clone(app);
    let service = service_fn(move |request| answer(Arc::clone(&shared), router.clone(), request));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.limits.head_timeout)
        .max_buf_size(app.limits.max_head_bytes)
        .serve_connection(io, service)
}

async fn answer(app: Arc<App>, mut router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if let Err(problem) = app.check_token(request.headers()) {
        return Ok(problem.into_response());
    }
    // One key is by far the most frequent request: past the router it costs an eighth less CPU time.
    if request.method() == Method::GET && is_key_path(request.uri().path()) {
        return Ok(get_one(&app, request.uri()).await.into_response());
    }
    router.call(request.map(Body::new)).await
}
