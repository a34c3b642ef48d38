//! The listening socket with a limit: when it is full, the longest idle connection makes room; where all have
//! something to do, who comes hears 503 and is let go, so that the process never runs out of files.
//!
//! Must not know: what is served.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::http::request::connections::ConnectionLease;
use crate::server::refusal::Refusal;
use crate::server::watcher::Watcher;
use crate::tasks;

/// Refusals on their way at a time; whoever comes on top of them is cut off without a word.
const REFUSALS_MAX: usize = 16;
/// Accepting again after the system refused: something has to be closed first.
const PAUSE: Duration = Duration::from_millis(200);
/// So many are asked to leave for one who comes: one that got something to do in the same moment stays.
const LEAVING_MAX: usize = 3;
/// Who is asked to leave is gone at once, unless the machine is very busy.
const LEAVING: Duration = Duration::from_millis(100);

/// A listener that counts.
#[derive(Debug)]
pub struct Gate {
    listener: TcpListener,
    watch: Arc<Watcher>,
    refusals: Arc<Semaphore>,
}

impl Gate {
    /// Lets in as many as there is room for.
    #[must_use]
    pub fn new(listener: TcpListener, watch: Arc<Watcher>) -> Self {
        Self { listener, watch, refusals: Arc::new(Semaphore::new(REFUSALS_MAX)) }
    }

    /// Waits for the next to let in.
    pub async fn accept(&self) -> (TcpStream, SocketAddr, ConnectionLease) {
        loop {
            match self.listener.accept().await {
                Ok((socket, from)) => match self.place().await {
                    Some(place) => return (socket, from, place),
                    None => self.refuse(socket),
                },
                Err(error) if is_theirs(&error) => {}
                Err(error) => {
                    tracing::error!("cannot accept a connection: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn place(&self) -> Option<ConnectionLease> {
        let connections = self.watch.connections();
        if let Some(place) = connections.acquire() {
            return Some(place);
        }
        for _ in 0..LEAVING_MAX {
            if !self.watch.make_room() {
                break;
            }
            if let Ok(place) = timeout(LEAVING, connections.acquire_when_free()).await {
                connections.evicted.fetch_add(1, Ordering::Relaxed);
                return Some(place);
            }
        }
        connections.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn refuse(&self, socket: TcpStream) {
        let Ok(turn) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let watch = Arc::clone(&self.watch);
        drop(tasks::spawn("refusal", async move {
            let text = Refusal::Full { max: watch.connections().max() }.text(watch.config());
            farewell(socket, &text, Duration::from_millis(watch.config().refused_ms)).await;
            drop(turn);
        }));
    }
}

/// The connection was broken before it was accepted; the next one may be whole.
fn is_theirs(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// Says the last words and waits until the other side has closed, but not longer than this: closing over
/// unread bytes would take the words back.
pub async fn farewell(socket: TcpStream, text: &str, within: Duration) {
    // It is let go either way.
    let _ = timeout(within, last_words(socket, text)).await;
}

async fn last_words(mut socket: TcpStream, text: &str) -> io::Result<()> {
    socket.write_all(text.as_bytes()).await?;
    socket.shutdown().await?;
    let mut unread = [0; 1024];
    while socket.read(&mut unread).await? > 0 {}
    Ok(())
}
