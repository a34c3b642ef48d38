//! Serves HTTP on every accepted connection within its limits, until shutdown.
//!
//! Must not know: any route, or what bodies contain.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::HOST;
use axum::http::{Request, Response, StatusCode, Version};
use axum::{Error, Router};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1::{Builder, UpgradeableConnection};
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::watch;
use tokio::time::interval;
use tower::ServiceExt;
use tracing::Instrument;

use crate::domain::skip::DELIVERY;
use crate::http::request::connections::ClientPaced;
use crate::server::acceptor::{Acceptor, send_and_close};
use crate::server::connection::{Connection, Signal, Socket};
use crate::server::connection_error::ConnectionError;
use crate::server::progress::Timeout;
use crate::server::request_head::{LINE_MAX_BYTES, TooLong};
use crate::server::watcher::Watcher;
use crate::tasks;

/// The smallest buffer size hyper accepts, bytes.
const BUFFER_MIN_BYTES: usize = 8192;
/// The number of headers hyper accepts by default; up to there it allocates nothing for them.
const DEFAULT_HEADERS_MAX: usize = 100;

/// Accepts and serves connections until `stopped`, then waits for the last HTTP connection to close.
pub async fn run(
    acceptor: Acceptor,
    watcher: Arc<Watcher>,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let checking = tasks::spawn("time limits", check_timeouts(Arc::clone(&watcher)));
    let (open, mut all_gone) = channel::<Infallible>(1);
    loop {
        let (socket, from, place) = tokio::select! {
            biased;
            // An error means that the server has been dropped, which stops it as well.
            _ = stopped.wait_for(|stop| *stop) => break,
            accepted = acceptor.accept() => accepted,
        };
        // Events are small; Nagle's algorithm would delay them.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!("cannot set TCP_NODELAY: {error}");
        }
        let connection = watcher.register(place);
        let span = tracing::debug_span!(target: DELIVERY, "connection", client.address = %from);
        let served = serve(socket, from, connection, router.clone(), open.clone()).instrument(span);
        drop(tasks::spawn("connection", served));
    }
    drop(acceptor);
    watcher.shut_down();
    drop(open);
    // Nothing is ever sent: this returns when the last connection drops its sender.
    let _ = all_gone.recv().await;
    checking.abort();
}

async fn check_timeouts(watcher: Arc<Watcher>) {
    let mut every = interval(watcher.check_interval());
    loop {
        every.tick().await;
        watcher.check_timeouts();
    }
}

/// Why HTTP on a connection ended.
enum End {
    /// The client or the protocol ended it.
    Done,
    /// A time limit was exceeded.
    TimedOut(Timeout),
    /// A new connection needed its place.
    Evicted,
}

async fn serve(
    socket: TcpStream,
    from: SocketAddr,
    connection: Arc<Connection>,
    router: Router,
    open: Sender<Infallible>,
) {
    let config = connection.watcher().config();
    let shared = Arc::clone(&connection);
    let service = service_fn(move |request| respond(Arc::clone(&shared), router.clone(), from, request));
    let io = TokioIo::new(Socket::new(socket, Arc::clone(&connection)));
    let buffer = LINE_MAX_BYTES.saturating_add(config.headers_max_bytes).saturating_add(1);
    let mut builder = Builder::new();
    builder.max_buf_size(buffer.max(BUFFER_MIN_BYTES));
    if config.headers_max_lines > DEFAULT_HEADERS_MAX {
        builder.max_headers(config.headers_max_lines);
    }
    let mut http = builder.serve_connection(io, service).with_upgrades();
    let end = poll_fn(|context| poll_http(&connection, &mut http, context)).await;
    // An upgraded connection has been handed over, and has no parts.
    let socket = http.into_parts().map(|parts| parts.io.into_inner());
    if let Some((stream, response)) = socket.and_then(|socket| final_response(&connection, socket, end)) {
        Box::pin(send_and_close(stream, &response, Duration::from_millis(config.refused_ms))).await;
    }
    drop(open);
}

/// The error response still to be sent, empty if the client only has to finish sending; `None` if the connection
/// can be closed at once.
fn final_response(connection: &Connection, socket: Socket, end: End) -> Option<(TcpStream, String)> {
    let watcher = connection.watcher();
    let (stream, mut error) = socket.into_parts();
    if let End::TimedOut(timeout) = end {
        watcher.connections().count_timeout(timeout == Timeout::Write);
        match timeout {
            Timeout::Head => error = Some(ConnectionError::HeadTimeout),
            Timeout::Write => reset(&stream),
            Timeout::Silent | Timeout::Idle => {}
        }
    }
    let is_sending = matches!(end, End::Done) && connection.has_unread_body();
    (is_sending || error.is_some())
        .then(|| (stream, error.map(|error| error.to_http(watcher.config())).unwrap_or_default()))
}

/// Makes closing the stream discard what is waiting to be sent.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!("cannot reset a connection: {error}");
    }
}

fn poll_http<S, B>(
    connection: &Connection,
    http: &mut UpgradeableConnection<TokioIo<Socket>, S>,
    context: &mut Context<'_>,
) -> Poll<End>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: HttpBody<Data = Bytes, Error = Error> + 'static,
{
    match connection.take_signal(context) {
        Some(Signal::Evict) => return Poll::Ready(End::Evicted),
        Some(Signal::TimedOut(timeout)) => return Poll::Ready(End::TimedOut(timeout)),
        Some(Signal::ShutDown) => Pin::new(&mut *http).graceful_shutdown(),
        None => {}
    }
    if let Err(error) = ready!(Pin::new(http).poll(context)) {
        tracing::trace!("a connection ended: {error}");
    }
    Poll::Ready(End::Done)
}

/// Answers one request and records its progress on the connection.
async fn respond(
    connection: Arc<Connection>,
    router: Router,
    from: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let watcher = connection.watcher();
    connection.start_request();
    let error = check_headers(&connection, &request);
    let mut request =
        request.map(|body| Body::new(RequestBody { body, connection: Arc::clone(&connection) }));
    request.extensions_mut().insert(ConnectInfo(from));
    let response = match error {
        Some(response) => response,
        None => router.oneshot(request).await?,
    };
    connection.release_head();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        connection.progress.upgraded(watcher.now());
    } else if response.extensions().get::<ClientPaced>().is_some() {
        connection.progress.stream_started(watcher.now());
    }
    Ok(response.map(|body| ResponseBody { body, connection }))
}

/// The error response to a request whose headers exceed a limit. Most heads are counted as they arrive; this
/// catches one that arrived together with the previous request.
fn check_headers(connection: &Connection, request: &Request<Incoming>) -> Option<Response<Body>> {
    let config = connection.watcher().config();
    let hosts = request.headers().get_all(HOST).iter().count();
    let error = if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        ConnectionError::HostHeader
    } else {
        // Each is a name, a colon, a space, a value and a line break.
        let bytes: usize =
            request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let lines = (request.headers().len() > config.headers_max_lines).then_some(TooLong::HeaderCount);
        ConnectionError::TooLong((bytes > config.headers_max_bytes).then_some(TooLong::Headers).or(lines)?)
    };
    Some(error.response(config))
}

/// The body of a request. Dropping it before its end means that the client may still be sending.
struct RequestBody {
    body: Incoming,
    connection: Arc<Connection>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            self.connection.set_unread_body();
        }
    }
}

/// The body of a response. Once it is dropped, the connection is ready for the next request.
struct ResponseBody {
    body: Body,
    connection: Arc<Connection>,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.connection.progress.response_finished(self.connection.watcher().now());
    }
}
