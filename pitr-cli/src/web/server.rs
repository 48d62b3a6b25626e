//! The listener and its paths.
//!
//! Owns: how much a client can cost: so many connections at once, each with one request, a time limit for its head and one for
//! everything. A connection that cannot be accepted is waited out.
//! Refuses: every method but GET and HEAD; bodies are never read.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use pitr_archive::{Code, Error, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{board::Board, health, metrics, page, status};

/// Connections at once; more wait at the socket.
const CONNECTIONS: usize = 32;
/// For the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// For a request and its answer.
const ALL: Duration = Duration::from_secs(30);
/// After a connection could not be accepted: most likely there are no descriptors left for it.
const AGAIN: Duration = Duration::from_secs(1);

/// A port that is listened on.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Listens.
    ///
    /// # Errors
    /// `http.listen`.
    pub async fn on(address: SocketAddr) -> Result<Self> {
        let refused = |e| Error::new(Code::HttpListen, "listening for HTTP on").on(address).because(e);
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "whoever reaches this address sees the status of every database: there is no password");
        }
        tracing::info!(address = %format_args!("http://{address}/"), "status page, /status, /metrics, /healthz, /readyz");
        Ok(Self { listener, address })
    }

    /// Answers until the service ends.
    pub async fn serve(self, board: Arc<Board>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut told = false;
        loop {
            // It is never closed.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    told = false;
                    let board = Arc::clone(&board);
                    tokio::spawn(async move {
                        if tokio::time::timeout(ALL, answer(stream, board)).await.is_err() {
                            tracing::debug!("an HTTP client took too long");
                        }
                        drop(permit);
                    });
                }
                Err(e) => {
                    if !told {
                        tracing::warn!(address = %self.address, error = %e, "an HTTP client cannot be answered; archiving goes on");
                        told = true;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

async fn answer(stream: TcpStream, board: Arc<Board>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = respond(&board, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false).max_buf_size(16 * 1024);
    if let Err(e) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error = %e, "an HTTP client went away");
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

const PATHS: &str = "/          the page\n/status    JSON\n/metrics   for Prometheus\n/healthz   the process works\n/readyz    every database is protected\n";

/// One answer. HEAD is answered as GET: the connection leaves out the body.
pub(super) fn respond(board: &Board, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".to_owned());
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let made = |kind, body: Option<String>| match body {
        Some(body) => reply(StatusCode::OK, kind, body),
        None => reply(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the picture could not be put into words\n".to_owned()),
    };
    let verdict = |reasons: &[health::Reason]| {
        let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        reply(code, JSON, status::verdict(reasons).unwrap_or_default())
    };
    match path {
        "/" => made(HTML, page::render(&board.look()).ok()),
        "/metrics" => made(metrics::CONTENT_TYPE, metrics::render(board.look()).ok()),
        "/status" => made(JSON, status::render(&board.look()).ok()),
        "/healthz" => verdict(&health::not_healthy(&board.look())),
        "/readyz" => verdict(&health::not_ready(&board.look())),
        _ => reply(StatusCode::NOT_FOUND, TEXT, PATHS.to_owned()),
    }
}

fn reply(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The page is made of text that others chose (names of tags, words of errors): even if it held a script, none would run.
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}
