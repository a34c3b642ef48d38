//! The clients: each connects, receives killmails, and resumes when its connection ends.
//!
//! Must not know: which killmails should arrive.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use killstream::tasks;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;

use crate::Transport;
use crate::board::Board;
use crate::channel::{self, Channel};
use crate::plan::Plan;
use crate::support::stream::{self, Stream};

/// Connections opened at a time at first; clients that reconnect are not limited.
const OPENING: usize = 64;
/// How long a client waits before it reconnects, as real clients do.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// All clients.
#[derive(Debug)]
pub struct Crowd {
    connections: usize,
    state: Arc<State>,
}

/// What all clients share.
#[derive(Debug)]
struct State {
    server: SocketAddr,
    connected: AtomicUsize,
    changed: Notify,
    gate: Semaphore,
}

impl Crowd {
    /// Starts to connect all clients.
    pub fn open(server: SocketAddr, plan: &Arc<Plan>, board: &Arc<Board>) -> Self {
        let connections = plan.connections();
        let (connected, changed, gate) = (AtomicUsize::new(0), Notify::new(), Semaphore::new(OPENING));
        let state = Arc::new(State { server, connected, changed, gate });
        for n in 0..connections {
            let client = Client {
                n,
                place: None,
                plan: Arc::clone(plan),
                board: Arc::clone(board),
                state: Arc::clone(&state),
            };
            drop(tasks::spawn("client", client.live()));
        }
        Self { connections, state }
    }

    /// Waits until every client is connected.
    pub async fn wait_connected(&self, limit: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + limit;
        loop {
            let changed = self.state.changed.notified();
            let connected = self.state.connected.load(Ordering::SeqCst);
            if connected == self.connections {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "only {connected} of {} are connected after {limit:?}",
                self.connections
            );
            // Check again after a while in any case.
            let _ = tokio::time::timeout(Duration::from_millis(100), changed).await;
        }
    }
}

/// An open connection.
enum Connection {
    Channel(Channel),
    Stream(Stream),
}

/// One client.
struct Client {
    n: usize,
    place: Option<String>,
    plan: Arc<Plan>,
    board: Arc<Board>,
    state: Arc<State>,
}

impl Client {
    async fn live(mut self) {
        let mut first = true;
        loop {
            let state = Arc::clone(&self.state);
            let permit = if first { state.gate.acquire().await.ok() } else { None };
            let opened = self.open().await;
            drop(permit);
            match opened {
                Ok(connection) => {
                    first = false;
                    self.state.connected.fetch_add(1, Ordering::SeqCst);
                    self.state.changed.notify_waiters();
                    // Ends when the server shuts down.
                    let _ = self.listen(connection).await;
                    self.state.connected.fetch_sub(1, Ordering::SeqCst);
                }
                Err(error) if first => self.board.refused(&error),
                Err(_) => {}
            }
            // Spread out, so that not all reconnect at the same moment.
            sleep(RECONNECT_AFTER + Duration::from_millis(self.n as u64 % 500)).await;
        }
    }

    async fn open(&mut self) -> io::Result<Connection> {
        let plan = Arc::clone(&self.plan);
        let wanted = plan.subscription(self.n);
        match self.plan.transport {
            Transport::Channels => {
                let ids = json!({ "systems": wanted.systems, "character_ids": wanted.characters, "preload": false, "resume_from": self.place });
                let (channel, answer) = Channel::join(self.state.server, self.n, &ids).await?;
                if let Some(gap) = answer.get("gap") {
                    return Err(io::Error::other(format!("a gap: {gap}")));
                }
                if self.place.is_none() {
                    self.place = answer["event_id"].as_str().map(str::to_owned);
                }
                Ok(Connection::Channel(channel))
            }
            Transport::Sse => {
                let body = json!({ "system_ids": wanted.systems, "character_ids": wanted.characters, "last_event_id": self.place });
                Stream::open(self.state.server, "/api/v1/kills/stream", Some(&body.to_string()), None)
                    .await
                    .map(Connection::Stream)
            }
        }
    }

    async fn listen(&mut self, connection: Connection) -> io::Result<()> {
        match connection {
            Connection::Channel(mut channel) => loop {
                let message = channel.next().await?;
                self.record(&message, channel::event_id(&message));
            },
            Connection::Stream(mut stream) => loop {
                let block = stream.next().await?;
                let place = stream::find(&block, b"id: ").map(|at| &block[at + 4..]);
                let place = place.and_then(|rest| rest.split(|byte| *byte == b'\n').next());
                self.record(&block, place.map(|place| String::from_utf8_lossy(place).into_owned()));
            },
        }
    }

    fn record(&mut self, message: &[u8], place: Option<String>) {
        let at = Instant::now();
        for killmail_id in stream::killmail_ids(message) {
            self.board.arrive(self.n as u32, killmail_id, at);
        }
        if place.is_some() {
            self.place = place;
        }
    }
}
