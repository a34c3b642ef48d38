//! The composition root: opens the app, listens, starts the sources, and shuts everything down in order.

pub(crate) mod acceptor;
pub(crate) mod app;
pub(crate) mod connection;
pub(crate) mod connection_error;
pub mod files;
pub(crate) mod listen;
pub(crate) mod memory_trim;
pub(crate) mod progress;
pub(crate) mod request_head;
pub(crate) mod scrub;
pub(crate) mod space;
pub(crate) mod token;
pub(crate) mod watcher;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::feed::Feed;
use crate::http::request::connections::Connections;
use crate::ingest::bodies::esi::Esi;
use crate::ingest::bodies::fetcher::{FetchRetries, Fetcher};
use crate::ingest::supervise::fallback::Supervisor;
use crate::ingest::supervise::open;
use crate::ingest::supervise::run::{self, RunContext};
use crate::plugins::error::PluginsError;
use crate::server::acceptor::Acceptor;
use crate::server::app::App;
use crate::server::watcher::Watcher;
use crate::telemetry::silence;
use crate::{ingest, plugin, store, tasks, webhook};

/// Connections the system queues until they are accepted.
const BACKLOG: u32 = 1024;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::error::StoreError),
    /// The plugin engine cannot run on this system.
    #[error("cannot start the plugin engine: {0}")]
    Engine(#[from] plugin::error::EngineError),
    /// The stored plugins cannot be read.
    #[error(transparent)]
    Plugins(#[from] PluginsError),
    /// Webhooks cannot be used.
    #[error(transparent)]
    Webhooks(#[from] webhook::webhooks::OpenError),
    /// The token file cannot be read or written.
    #[error("cannot read or create the token in {data_dir}: {source}")]
    Token {
        /// The data folder.
        data_dir: String,
        /// The cause.
        source: io::Error,
    },
    /// The server cannot listen on its address.
    #[error("cannot listen on {addr}: {}", describe_listen_error(why))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        why: io::Error,
    },
    /// The system cannot start a thread or a signal handler.
    #[error("cannot start a thread or a signal handler: {0}")]
    System(#[from] io::Error),
    /// A task panicked while the server was starting.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
}

/// A running server.
pub struct Running {
    addr: SocketAddr,
    token: String,
    grace: Duration,
    app: App,
    http: StoppableTask,
    /// The tasks that bring killmails, in the order in which they are stopped.
    ingest: Vec<StoppableTask>,
}

#[derive(Debug)]
struct StoppableTask {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Opens the store and listens. Returns when requests are being answered.
///
/// # Errors
/// The store is damaged or in use, the address is taken, or the system refuses a resource.
pub async fn start(config: Config) -> Result<Running, Error> {
    let addr = config.listen_addr();
    let grace = Duration::from_millis(config.server.grace_ms);
    let ingest = config.ingest.clone();
    let limits = config.http.health.limits();
    let (scrub_per_sec, scrub_pause) =
        (config.store.scrub_per_sec, Duration::from_secs(config.store.scrub_pause_secs));
    let connections = Arc::new(Connections::new(connections_max(config.server.reserved_files)));
    let limits_of_each = config.connections;
    let cannot_listen = |why| Error::Listen { addr, why };
    // Binding first reports a taken port before anything is created; listening last lets no client in too early.
    let socket = bind(addr).map_err(cannot_listen)?;
    let esi = open::open_esi(&ingest).map(Arc::new);
    let bodies_max = if esi.is_ok() { ingest.esi_wanted_max } else { 0 };
    let app = App::open(config, Arc::clone(&connections), bodies_max).await?;
    app.webhooks().start();
    let listener: TcpListener = socket.listen(BACKLOG).map_err(cannot_listen)?;
    let addr = listener.local_addr()?;
    let watcher = Arc::new(Watcher::new(limits_of_each, connections, Arc::clone(app.in_flight())));
    let acceptor = Acceptor::new(listener, Arc::clone(&watcher));
    let router = app.router();
    let http = stoppable("http", |stop| listen::run(acceptor, watcher, router, stop));
    let ingest = start_ingest(&ingest, &app, esi).await;
    let (source_status, closing) = (Arc::clone(&app.telemetry().source_status), app.feed().closing());
    tasks::spawn("silence", silence::watch(source_status, limits, closing.clone()));
    tasks::spawn("space", space::watch(Arc::clone(app.store()), closing.clone()));
    tasks::spawn("memory", memory_trim::trim_periodically());
    tasks::spawn("scrub", scrub::run(Arc::clone(app.store()), scrub_per_sec, scrub_pause, closing));
    Ok(Running { addr, token: app.token().to_owned(), grace, app, http, ingest })
}

/// Binds the address without listening: connections are refused until then.
fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a previous server in TIME_WAIT must not keep the port taken.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

fn describe_listen_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another port (--listen, PORT)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; use 0.0.0.0 for all addresses (--listen, BIND_IP)"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are privileged; choose another port (--listen, PORT)".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Starts the first source, the other sources, and the fetcher of bodies that sources only refer to.
async fn start_ingest(
    config: &ingest::config::Config,
    app: &App,
    esi: Result<Arc<Esi>, String>,
) -> Vec<StoppableTask> {
    let (feed, store, telemetry, body_requests) =
        (app.feed(), app.store(), app.telemetry(), app.body_requests());
    let source = app::open_source(config, store, &telemetry.source_status).await;
    let context = RunContext {
        feed: Arc::clone(feed),
        store: Arc::clone(store),
        telemetry: telemetry.clone(),
        status: Arc::clone(&telemetry.source_status),
        body_requests: Arc::clone(body_requests),
        checkpoint_name: None,
        space_check_ms: config.space_check_ms,
    };
    let fallbacks = Supervisor::new(config.clone(), context.clone());
    let mut all = vec![
        stoppable("source", |stop| run::run(source, context, stop)),
        stoppable("fallback sources", |stop| fallbacks.run(stop)),
    ];
    let tries =
        FetchRetries { max: config.esi_tries_max, unmatched_ms: config.esi_unmatched_retry_ms.clone() };
    match esi {
        Ok(esi) => {
            let (feed, store, requests) = (Arc::clone(feed), Arc::clone(store), Arc::clone(body_requests));
            let fetcher =
                Fetcher::new(feed, store, requests, esi, tries, Arc::clone(&telemetry.fallback_status));
            all.push(stoppable("fetcher", |stop| fetcher.run(stop)));
        }
        Err(why) if !config.sources.is_empty() => {
            tracing::warn!("bodies of killmails that sources only refer to are not fetched from ESI: {why}")
        }
        Err(_) => {}
    }
    all
}

fn stoppable<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    work: impl FnOnce(watch::Receiver<bool>) -> F,
) -> StoppableTask {
    let (stop, stopped) = watch::channel(false);
    StoppableTask { stop, task: tasks::spawn(name, work(stopped)) }
}

/// Raises the limit of open files and returns how many connections may be open.
fn connections_max(reserved: u64) -> usize {
    match files::raise_limit() {
        Ok(files::Limit { before, now }) => {
            let max = files::connections_max(now, reserved);
            tracing::info!("limit of open files: {now} (was {before}); at most {max} connections");
            max
        }
        Err(error) => {
            tracing::warn!(
                "cannot read the limit of open files, so the number of connections is not limited: {error}"
            );
            usize::MAX
        }
    }
}

impl Running {
    /// The address it listens on.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The admin token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The feed.
    #[must_use]
    pub const fn feed(&self) -> &Arc<Feed> {
        self.app.feed()
    }

    /// Shuts down in order: no new connections, sources stop after their current killmail, readers end,
    /// connections close, the store is released. Returns when the data folder is free; each step is cut off
    /// after the grace period.
    pub async fn stop(self) {
        let Self { grace, app, http, ingest, .. } = self;
        http.stop.send_replace(true);
        for task in &ingest {
            task.stop.send_replace(true);
        }
        for task in ingest {
            wait_or_abort(grace, "a source", task.task).await;
        }
        app.feed().close();
        wait_or_abort(grace, "a connection", http.task).await;
        if tokio::time::timeout(grace, app.channels().closed()).await.is_err() {
            tracing::warn!(
                "{} channel connections did not close within {} ms",
                app.channels().open(),
                grace.as_millis()
            );
        }
        app.release(grace).await;
    }

    /// The app behind the listener.
    #[must_use]
    pub const fn app(&self) -> &App {
        &self.app
    }

    /// Runs until a signal, calls `on_signal`, then shuts down in order. A second signal returns at once. Returns
    /// whether the shutdown was completed.
    pub async fn run_until_signal(self, mut signals: Signals, on_signal: impl FnOnce()) -> bool {
        signals.recv().await;
        tracing::info!("shutting down; a second signal stops at once");
        on_signal();
        tokio::select! {
            () = self.stop() => true,
            () = signals.recv() => false,
        }
    }
}

/// SIGTERM and SIGINT. Once listened for, they no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for a signal.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a task to end; aborts it after the grace period.
async fn wait_or_abort(grace: Duration, what: &str, mut task: JoinHandle<()>) {
    if tokio::time::timeout(grace, &mut task).await.is_err() {
        tracing::warn!("{what} did not stop within {} ms and was aborted", grace.as_millis());
        task.abort();
    }
}
