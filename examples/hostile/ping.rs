//! A well-behaved client that requests `/ping` again and again during an attack.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use killstream::tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Pause between a response and the next request.
const PAUSE: Duration = Duration::from_millis(10);
/// A request without a response for this long has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A running client; see [`PingTimes`] for what it measures.
pub struct Pings {
    stop: oneshot::Sender<()>,
    result: oneshot::Receiver<PingTimes>,
}

/// How long the responses took.
#[derive(Debug, Default)]
pub struct PingTimes {
    times: Vec<Duration>,
    failed: usize,
}

impl Pings {
    /// Starts to send requests.
    pub fn start(address: SocketAddr) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let (done, result) = oneshot::channel();
        drop(tasks::spawn("ping", async move {
            let mut measured = PingTimes::default();
            let mut socket = None;
            while matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                let began = Instant::now();
                match timeout(TIMEOUT, ping(address, &mut socket)).await {
                    Ok(Ok(())) => measured.times.push(began.elapsed()),
                    _ => {
                        measured.failed += 1;
                        socket = None;
                    }
                }
                sleep(PAUSE).await;
            }
            // There is no receiver if the run was given up.
            let _ = done.send(measured);
        }));
        Self { stop, result }
    }

    /// Stops and returns what was measured.
    pub async fn stop(self) -> PingTimes {
        // Fails if the client has stopped already.
        let _ = self.stop.send(());
        self.result.await.unwrap_or_default()
    }
}

async fn ping(address: SocketAddr, reused: &mut Option<TcpStream>) -> io::Result<()> {
    let mut socket = match reused.take() {
        Some(socket) => socket,
        None => TcpStream::connect(address).await?,
    };
    socket.write_all(b"GET /ping HTTP/1.1\r\nhost: here\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"pong") {
        if socket.read_buf(&mut answer).await? == 0 || answer.starts_with(b"HTTP/1.1 5") {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
    *reused = Some(socket);
    Ok(())
}

impl fmt::Display for PingTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |share: f64| {
            times
                .get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)))
                .copied()
                .unwrap_or_default()
        };
        let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        write!(f, "{} | {} | {}", ms(at(0.5)), ms(at(0.99)), ms(at(1.0)))?;
        if self.failed > 0 { write!(f, ", {} without a response", self.failed) } else { Ok(()) }
    }
}
