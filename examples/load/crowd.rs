//! The clients: each connects, gets what is its own, comes back to its place when the connection ends.
//!
//! Must not know: what should have come.

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

/// Connections opened at the same time at first; whoever comes back asks nobody.
const OPENING: usize = 64;
/// Pause before a client tries again, as clients have them.
const AGAIN: Duration = Duration::from_millis(500);

/// All clients.
#[derive(Debug)]
pub struct Crowd {
    connections: usize,
    state: Arc<State>,
}

/// What they share.
#[derive(Debug)]
struct State {
    server: SocketAddr,
    inside: AtomicUsize,
    changed: Notify,
    gate: Semaphore,
}

impl Crowd {
    /// Begins to open all of them.
    pub fn open(server: SocketAddr, plan: &Arc<Plan>, board: &Arc<Board>) -> Self {
        let connections = plan.connections();
        let (inside, changed, gate) = (AtomicUsize::new(0), Notify::new(), Semaphore::new(OPENING));
        let state = Arc::new(State { server, inside, changed, gate });
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

    /// Waits until every client is in.
    pub async fn all_in(&self, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        loop {
            let changed = self.state.changed.notified();
            let inside = self.state.inside.load(Ordering::SeqCst);
            if inside == self.connections {
                return Ok(());
            }
            ensure!(Instant::now() < end, "only {inside} of {} are in after {patience:?}", self.connections);
            // Whatever happens, look again after a while.
            let _ = tokio::time::timeout(Duration::from_millis(100), changed).await;
        }
    }
}

/// A connection through one of the doors.
enum Line {
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
            let turn = if first { state.gate.acquire().await.ok() } else { None };
            let opened = self.open().await;
            drop(turn);
            match opened {
                Ok(line) => {
                    first = false;
                    self.state.inside.fetch_add(1, Ordering::SeqCst);
                    self.state.changed.notify_waiters();
                    // A connection ends when the server goes.
                    let _ = self.listen(line).await;
                    self.state.inside.fetch_sub(1, Ordering::SeqCst);
                }
                Err(error) if first => self.board.refused(&error),
                Err(_) => {}
            }
            // Not all at the same moment.
            sleep(AGAIN + Duration::from_millis(self.n as u64 % 500)).await;
        }
    }

    async fn open(&mut self) -> io::Result<Line> {
        let plan = Arc::clone(&self.plan);
        let wish = plan.wish(self.n);
        match self.plan.transport {
            Transport::Channels => {
                let ids = json!({ "systems": wish.systems, "character_ids": wish.characters, "preload": false, "resume_from": self.place });
                let (channel, answer) = Channel::join(self.state.server, self.n, &ids).await?;
                if let Some(gap) = answer.get("gap") {
                    return Err(io::Error::other(format!("a gap: {gap}")));
                }
                if self.place.is_none() {
                    self.place = answer["event_id"].as_str().map(str::to_owned);
                }
                Ok(Line::Channel(channel))
            }
            Transport::Sse => {
                let body = json!({ "system_ids": wish.systems, "character_ids": wish.characters, "last_event_id": self.place });
                Stream::open(self.state.server, "/api/v1/kills/stream", Some(&body.to_string()), None)
                    .await
                    .map(Line::Stream)
            }
        }
    }

    async fn listen(&mut self, line: Line) -> io::Result<()> {
        match line {
            Line::Channel(mut channel) => loop {
                let message = channel.next().await?;
                self.take(&message, channel::event_id(&message));
            },
            Line::Stream(mut stream) => loop {
                let block = stream.next().await?;
                let place = stream::find(&block, b"id: ").map(|at| &block[at + 4..]);
                let place = place.and_then(|rest| rest.split(|byte| *byte == b'\n').next());
                self.take(&block, place.map(|place| String::from_utf8_lossy(place).into_owned()));
            },
        }
    }

    fn take(&mut self, message: &[u8], place: Option<String>) {
        let at = Instant::now();
        for killmail_id in stream::killmail_ids(message) {
            self.board.arrive(self.n as u32, killmail_id, at);
        }
        if place.is_some() {
            self.place = place;
        }
    }
}
