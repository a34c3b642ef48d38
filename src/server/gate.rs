//! The listening socket with a limit: who comes when it is full hears 503 and is let go, so that the process never runs out of files.
//!
//! Must not know: what is served.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::http::connections::{Connections, Place};
use crate::tasks;

/// Refusals on their way at a time; whoever comes on top of them is cut off without a word.
const REFUSALS_MAX: usize = 16;
/// Someone refused has so long to read that it is.
const FAREWELL: Duration = Duration::from_secs(1);
/// Accepting again after the system refused: something has to be closed first.
const PAUSE: Duration = Duration::from_millis(200);

/// A listener that counts.
#[derive(Debug)]
pub struct Gate {
    listener: TcpListener,
    connections: Arc<Connections>,
    refusals: Arc<Semaphore>,
}

impl Gate {
    /// Lets in as many as there is room for.
    #[must_use]
    pub fn new(listener: TcpListener, connections: Arc<Connections>) -> Self {
        Self { listener, connections, refusals: Arc::new(Semaphore::new(REFUSALS_MAX)) }
    }

    fn refuse(&self, socket: TcpStream) {
        let Ok(turn) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let text = refusal(self.connections.max());
        drop(tasks::spawn("refusal", async move {
            // It is let go either way.
            let _ = tokio::time::timeout(FAREWELL, farewell(socket, &text)).await;
            drop(turn);
        }));
    }
}

impl Listener for Gate {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((socket, from)) => match self.connections.enter() {
                    Some(place) => return (Guest { socket, _place: place }, from),
                    None => self.refuse(socket),
                },
                Err(error) if is_theirs(&error) => {}
                Err(error) => {
                    tracing::error!("cannot accept a connection: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The connection was broken before it was accepted; the next one may be whole.
fn is_theirs(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

fn refusal(max: usize) -> String {
    let body = format!(r#"{{"error":{{"type":"connection_limit_reached","message":"Too many open connections (max {max})"}}}}"#);
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json; charset=utf-8\r\nretry-after: 5\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Answers and waits until the other side has closed: closing over unread bytes would take the answer back.
async fn farewell(mut socket: TcpStream, text: &str) -> io::Result<()> {
    socket.write_all(text.as_bytes()).await?;
    socket.shutdown().await?;
    let mut unread = [0; 1024];
    while socket.read(&mut unread).await? > 0 {}
    Ok(())
}

/// A connection that was let in.
#[derive(Debug)]
pub struct Guest {
    socket: TcpStream,
    _place: Place,
}

impl Guest {
    /// The socket itself.
    #[must_use]
    pub const fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl AsyncRead for Guest {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, into)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
