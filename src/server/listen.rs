//! Serves HTTP on every connection that is let in, within its limits, until all have come to an end.
//!
//! Must not know: any route, or what bodies hold.

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
use crate::server::connection::{Asked, Connection, Guest};
use crate::server::gate::{Gate, farewell};
use crate::server::head::{LINE_MAX_BYTES, TooLong};
use crate::server::progress::Overdue;
use crate::server::refusal::Refusal;
use crate::server::watcher::Watcher;
use crate::tasks;

/// The least the HTTP library takes for its buffer, bytes.
const BUFFER_MIN_BYTES: usize = 8192;
/// Header lines the HTTP library takes where nobody says how many; up to here it needs no memory for them.
const LIBRARY_MAX_LINES: usize = 100;

/// Lets in and serves until it is told to stop, then waits for the last connection that speaks HTTP.
pub async fn run(gate: Gate, watch: Arc<Watcher>, router: Router, mut stopped: watch::Receiver<bool>) {
    let sweeping = tasks::spawn("time limits", sweep(Arc::clone(&watch)));
    let (open, mut all_gone) = channel::<Infallible>(1);
    loop {
        let (socket, from, place) = tokio::select! {
            biased;
            // An error means that the server itself is gone, which is a stop as well.
            _ = stopped.wait_for(|stop| *stop) => break,
            accepted = gate.accept() => accepted,
        };
        // Events are small and must not wait for one another in the socket.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!("cannot switch off delays of a connection: {error}");
        }
        let connection = watch.over(place);
        let span = tracing::debug_span!(target: DELIVERY, "connection", client.address = %from);
        let served = serve(socket, from, connection, router.clone(), open.clone()).instrument(span);
        drop(tasks::spawn("connection", served));
    }
    drop(gate);
    watch.end();
    drop(open);
    // Nothing is ever sent; this is the end of the last sender.
    let _ = all_gone.recv().await;
    sweeping.abort();
}

async fn sweep(watch: Arc<Watcher>) {
    let mut every = interval(watch.sweep_every());
    loop {
        every.tick().await;
        watch.sweep();
    }
}

/// How HTTP on a connection came to its end.
enum End {
    /// By itself.
    Done,
    /// A limit of time was broken.
    Over(Overdue),
    /// Others needed its place.
    Left,
}

async fn serve(
    socket: TcpStream,
    from: SocketAddr,
    connection: Arc<Connection>,
    router: Router,
    open: Sender<Infallible>,
) {
    let config = connection.watch().config();
    let shared = Arc::clone(&connection);
    let service = service_fn(move |request| answer(Arc::clone(&shared), router.clone(), from, request));
    let io = TokioIo::new(Guest::new(socket, Arc::clone(&connection)));
    let buffer = LINE_MAX_BYTES.saturating_add(config.headers_max_bytes).saturating_add(1);
    let mut builder = Builder::new();
    builder.max_buf_size(buffer.max(BUFFER_MIN_BYTES));
    if config.headers_max_lines > LIBRARY_MAX_LINES {
        builder.max_headers(config.headers_max_lines);
    }
    let mut http = builder.serve_connection(io, service).with_upgrades();
    let end = poll_fn(|context| turn(&connection, &mut http, context)).await;
    // One that was upgraded is in other hands.
    let guest = http.into_parts().map(|parts| parts.io.into_inner());
    if let Some((socket, text)) = guest.and_then(|guest| last_words(&connection, guest, end)) {
        Box::pin(farewell(socket, &text, Duration::from_millis(config.refused_ms))).await;
    }
    drop(open);
}

/// Who is still to be told something, or is still sending.
fn last_words(connection: &Connection, guest: Guest, end: End) -> Option<(TcpStream, String)> {
    let watch = connection.watch();
    let (socket, mut refusal) = guest.into_parts();
    if let End::Over(overdue) = end {
        watch.connections().count_timeout(overdue == Overdue::Write);
        match overdue {
            Overdue::Head => refusal = Some(Refusal::Slow),
            Overdue::Write => reset(&socket),
            Overdue::Silent | Overdue::Idle => {}
        }
    }
    let sending = matches!(end, End::Done) && connection.is_unread();
    (sending || refusal.is_some())
        .then(|| (socket, refusal.map(|refusal| refusal.text(watch.config())).unwrap_or_default()))
}

/// What waits to be sent is thrown away with the connection.
fn reset(socket: &TcpStream) {
    if let Err(error) = socket.set_zero_linger() {
        tracing::debug!("a connection cannot be reset: {error}");
    }
}

fn turn<S, B>(
    connection: &Connection,
    http: &mut UpgradeableConnection<TokioIo<Guest>, S>,
    context: &mut Context<'_>,
) -> Poll<End>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: HttpBody<Data = Bytes, Error = Error> + 'static,
{
    match connection.asked(context) {
        Some(Asked::Leave) => return Poll::Ready(End::Left),
        Some(Asked::Over(overdue)) => return Poll::Ready(End::Over(overdue)),
        Some(Asked::End) => Pin::new(&mut *http).graceful_shutdown(),
        None => {}
    }
    if let Err(error) = ready!(Pin::new(http).poll(context)) {
        tracing::trace!("a connection ends: {error}");
    }
    Poll::Ready(End::Done)
}

/// Answers one request; the connection knows when it begins and when it is over.
async fn answer(
    connection: Arc<Connection>,
    router: Router,
    from: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let watch = connection.watch();
    connection.begin();
    let refusal = refused(&connection, &request);
    let mut request = request.map(|body| Body::new(Asking { body, connection: Arc::clone(&connection) }));
    request.extensions_mut().insert(ConnectInfo(from));
    let response = match refusal {
        Some(refusal) => refusal,
        None => router.oneshot(request).await?,
    };
    connection.release_head();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        connection.progress.upgraded(watch.now());
    } else if response.extensions().get::<ClientPaced>().is_some() {
        connection.progress.stream(watch.now());
    }
    Ok(response.map(|body| Answer { body, connection }))
}

/// Why a request is refused whatever it asks for. Heads are counted as they come, but for one that came
/// together with the request before.
fn refused(connection: &Connection, request: &Request<Incoming>) -> Option<Response<Body>> {
    let config = connection.watch().config();
    let hosts = request.headers().get_all(HOST).iter().count();
    let refusal = if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        Refusal::Host
    } else {
        // A name, a colon, a blank and a line break.
        let bytes: usize =
            request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let lines = (request.headers().len() > config.headers_max_lines).then_some(TooLong::Lines);
        Refusal::TooLong((bytes > config.headers_max_bytes).then_some(TooLong::Headers).or(lines)?)
    };
    Some(refusal.response(config))
}

/// The body of a request; who lets go of it before its end leaves a client that still sends.
struct Asking {
    body: Incoming,
    connection: Arc<Connection>,
}

impl HttpBody for Asking {
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

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            self.connection.leave_unread();
        }
    }
}

/// The body of an answer; when it is let go of, the next request may come.
struct Answer {
    body: Body,
    connection: Arc<Connection>,
}

impl HttpBody for Answer {
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

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.progress.answered(self.connection.watch().now());
    }
}
