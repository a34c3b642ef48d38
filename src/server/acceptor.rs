//! The listening socket with a connection limit, so that the process never runs out of file descriptors. At the
//! limit, a new connection evicts the one that has been idle longest; if all are busy, it gets a 503 and is
//! closed.
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
use crate::server::connection_error::ConnectionError;
use crate::server::watcher::Watcher;
use crate::tasks;

/// How many 503 responses may be in flight; connections beyond that are closed without a response.
const RESPONSES_MAX: usize = 16;
/// The pause after `accept` failed for lack of resources: something has to be closed first.
const PAUSE: Duration = Duration::from_millis(200);
/// How many idle connections may be evicted for a new one: an eviction is void if a request arrives first.
const EVICTIONS_MAX: usize = 3;
/// How long to wait for an evicted connection to close. It takes longer only on a very busy machine.
const EVICTION: Duration = Duration::from_millis(100);

/// A listener with a connection limit.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    watcher: Arc<Watcher>,
    /// Permits for 503 responses.
    responses: Arc<Semaphore>,
}

impl Acceptor {
    /// Accepts as many connections as the watcher's limit allows.
    #[must_use]
    pub fn new(listener: TcpListener, watcher: Arc<Watcher>) -> Self {
        Self { listener, watcher, responses: Arc::new(Semaphore::new(RESPONSES_MAX)) }
    }

    /// Waits for the next connection within the limit.
    pub async fn accept(&self) -> (TcpStream, SocketAddr, ConnectionLease) {
        loop {
            match self.listener.accept().await {
                Ok((socket, from)) => match self.acquire().await {
                    Some(lease) => return (socket, from, lease),
                    None => self.refuse(socket),
                },
                Err(error) if is_aborted(&error) => {}
                Err(error) => {
                    tracing::error!("cannot accept a connection: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn acquire(&self) -> Option<ConnectionLease> {
        let connections = self.watcher.connections();
        if let Some(lease) = connections.acquire() {
            return Some(lease);
        }
        for _ in 0..EVICTIONS_MAX {
            if !self.watcher.evict_idle() {
                break;
            }
            if let Ok(lease) = timeout(EVICTION, connections.acquire_when_free()).await {
                connections.evicted.fetch_add(1, Ordering::Relaxed);
                return Some(lease);
            }
        }
        connections.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn refuse(&self, socket: TcpStream) {
        let Ok(permit) = Arc::clone(&self.responses).try_acquire_owned() else { return };
        let watcher = Arc::clone(&self.watcher);
        drop(tasks::spawn("connection limit", async move {
            let text = ConnectionError::Full { max: watcher.connections().max() }.to_http(watcher.config());
            send_and_close(socket, &text, Duration::from_millis(watcher.config().refused_ms)).await;
            drop(permit);
        }));
    }
}

/// Whether only this connection failed, before it was accepted.
fn is_aborted(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// Sends a final response and waits until the client has closed the connection, but no longer than `within`.
/// Closing with unread bytes would reset the connection, and the client might never see the response.
pub async fn send_and_close(socket: TcpStream, response: &str, within: Duration) {
    // Whether it succeeds or not, the connection is closed.
    let _ = timeout(within, send_and_drain(socket, response)).await;
}

async fn send_and_drain(mut socket: TcpStream, response: &str) -> io::Result<()> {
    socket.write_all(response.as_bytes()).await?;
    socket.shutdown().await?;
    let mut unread = [0; 1024];
    while socket.read(&mut unread).await? > 0 {}
    Ok(())
}
