//! The composition root: opens the house, listens, follows the source, and stops all of it in order.

pub mod app;
pub mod connection;
pub mod files;
pub mod gate;
pub mod head;
pub mod listen;
pub mod memory;
pub mod progress;
pub mod refusal;
pub mod token;
pub mod watcher;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::feed::{Feed, scrub, silence, space};
use crate::http::request::connections::Connections;
use crate::ingest::bodies::fetcher::{self, BodyRequests, FetchRetries};
use crate::ingest::supervise::run::{self, RunContext};
use crate::ingest::supervise::{fallback, open};
use crate::plugins;
use crate::server::app::App;
use crate::server::gate::Gate;
use crate::server::watcher::Watcher;
use crate::{ingest, plugin, store, tasks};

/// Connections the system holds until they are accepted.
const BACKLOG: u32 = 1024;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::error::StoreError),
    /// The plugin engine cannot run here.
    #[error("cannot start the plugin engine: {0}")]
    Engine(#[from] plugin::error::Error),
    /// What is kept of the plugins cannot be read.
    #[error(transparent)]
    Plugins(#[from] plugins::Error),
    /// The token file cannot be read or written.
    #[error("cannot read or make the token in {data_dir}: {source}")]
    Token {
        /// The data folder.
        data_dir: String,
        /// Why not.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {}", why_not(why))]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        why: io::Error,
    },
    /// A thread or a signal handler was refused by the system.
    #[error("the system refuses a thread or a signal: {0}")]
    System(#[from] io::Error),
    /// Work was lost.
    #[error(transparent)]
    Lost(#[from] tasks::Lost),
}

/// A server that runs.
pub struct Running {
    addr: SocketAddr,
    token: String,
    grace: Duration,
    app: App,
    doors: Stoppable,
    /// What brings killmails, in the order in which it is stopped.
    ingest: Vec<Stoppable>,
}

#[derive(Debug)]
struct Stoppable {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Opens the store and listens. Returns when requests are answered.
///
/// # Errors
/// The store is damaged or in use, the address is taken, the system refuses.
pub async fn start(config: Config) -> Result<Running, Error> {
    let addr = config.listen_addr();
    let grace = Duration::from_millis(config.server.grace_ms);
    let ingest = config.ingest.clone();
    let limits = config.http.health.limits();
    let (scrub_per_sec, scrub_pause) =
        (config.store.scrub_per_sec, Duration::from_secs(config.store.scrub_pause_secs));
    let connections = Arc::new(Connections::new(room(config.server.reserved_files)));
    let times = config.connections;
    let cannot = |why| Error::Listen { addr, why };
    // A taken port is told before anything is made; nobody gets in before everything is.
    let socket = bound(addr).map_err(cannot)?;
    let app = App::open(config, Arc::clone(&connections)).await?;
    let listener: TcpListener = socket.listen(BACKLOG).map_err(cannot)?;
    let addr = listener.local_addr()?;
    let watch = Arc::new(Watcher::new(times, connections, Arc::clone(app.in_flight())));
    let gate = Gate::new(listener, Arc::clone(&watch));
    let router = app.router();
    let doors = stoppable("doors", |stop| listen::run(gate, watch, router, stop));
    let ingest = bring(&ingest, app.feed()).await;
    tasks::spawn("silence", silence::watch(Arc::clone(app.feed()), limits));
    tasks::spawn("space", space::watch(Arc::clone(app.feed())));
    tasks::spawn("memory", memory::give_back());
    tasks::spawn("scrub", scrub::run(Arc::clone(app.feed()), scrub_per_sec, scrub_pause));
    Ok(Running { addr, token: app.token().to_owned(), grace, app, doors, ingest })
}

/// Takes the address; connections are refused until it listens.
fn bound(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What is left of a former server's connections does not hold the port.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

fn why_not(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another port (--listen, PORT)".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; 0.0.0.0 is every address it has (--listen, BIND_IP)".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports under 1024 are for the system; choose another port (--listen, PORT)".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Starts what brings killmails: the first source, the others, and what fetches bodies.
async fn bring(config: &ingest::config::Config, feed: &Arc<Feed>) -> Vec<Stoppable> {
    let source = app::source(config, feed).await;
    let esi = open::esi(config).map(Arc::new);
    let wanted_max = if esi.is_ok() { config.esi_wanted_max } else { 0 };
    let desk = Arc::new(BodyRequests::new(Arc::clone(feed), wanted_max));
    let source_status = Arc::clone(feed.source_status());
    let runs = RunContext {
        feed: Arc::clone(feed),
        status: source_status,
        desk: Arc::clone(&desk),
        place: None,
        space_check_ms: config.space_check_ms,
    };
    let mut all = vec![stoppable("source", |stop| run::run(source, runs, stop))];
    all.push(stoppable("other sources", |stop| {
        fallback::run(config.clone(), Arc::clone(feed), Arc::clone(&desk), stop)
    }));
    let tries =
        FetchRetries { max: config.esi_tries_max, unmatched_ms: config.esi_unmatched_retry_ms.clone() };
    match esi {
        Ok(esi) => all.push(stoppable("fetcher", |stop| fetcher::run(desk, esi, tries, stop))),
        Err(why) if !config.sources.is_empty() => {
            tracing::warn!("bodies that sources do not bring are not fetched: {why}")
        }
        Err(_) => {}
    }
    all
}

fn stoppable<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    work: impl FnOnce(watch::Receiver<bool>) -> F,
) -> Stoppable {
    let (stop, stopped) = watch::channel(false);
    Stoppable { stop, task: tasks::spawn(name, work(stopped)) }
}

/// How many connections may be open, having raised the limit of open files.
fn room(reserved: u64) -> usize {
    match files::raise() {
        Ok(files::Limit { before, now }) => {
            let room = files::room(now, reserved);
            tracing::info!(
                "{now} files may be open (at first {before}); connections beyond {room} are refused"
            );
            room
        }
        Err(error) => {
            tracing::warn!(
                "the system does not tell how many files may be open, so no connection is refused: {error}"
            );
            usize::MAX
        }
    }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The token of those who may write.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The log in motion.
    #[must_use]
    pub const fn feed(&self) -> &Arc<Feed> {
        self.app.feed()
    }

    /// Stops in order: no new connections, the source after its killmail, readers hear it, connections end,
    /// all is released. Returns when the data folder is free, or after the grace period.
    pub async fn stop(self) {
        let Self { grace, app, doors, ingest, .. } = self;
        doors.stop.send_replace(true);
        for part in &ingest {
            part.stop.send_replace(true);
        }
        for part in ingest {
            within(grace, "the source", part.task).await;
        }
        app.feed().close();
        within(grace, "a connection", doors.task).await;
        if tokio::time::timeout(grace, app.channels().empty()).await.is_err() {
            tracing::warn!(
                "{} channel connections did not end within {} ms",
                app.channels().open(),
                grace.as_millis()
            );
        }
        app.release(grace).await;
    }

    /// The house behind the doors.
    #[must_use]
    pub const fn app(&self) -> &App {
        &self.app
    }

    /// Runs until the process is told to stop, calls `first`, then stops in order. Told a second time, it
    /// lets go at once; says whether all was stopped in order.
    pub async fn until(self, mut signals: Signals, first: impl FnOnce()) -> bool {
        signals.one().await;
        tracing::info!("stopping; a second signal ends at once");
        first();
        tokio::select! {
            () = self.stop() => true,
            () = signals.one() => false,
        }
    }
}

/// The signals that tell the process to stop. From here on they no longer end it by themselves.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one.
    pub async fn one(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a task, but not longer than the grace period.
async fn within(grace: Duration, what: &str, mut task: JoinHandle<()>) {
    if tokio::time::timeout(grace, &mut task).await.is_err() {
        tracing::warn!("{what} did not end within {} ms and is cut off", grace.as_millis());
        task.abort();
    }
}
