//! Many sockets at once, and what became of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// A socket that cannot write for this long is given up.
const WRITING: Duration = Duration::from_secs(10);

/// One socket of the crowd.
struct Member {
    socket: TcpStream,
    /// The status of the response.
    status: Option<String>,
    gone: bool,
}

/// Sockets that were opened together.
#[derive(Default)]
pub struct Crowd {
    members: Vec<Member>,
    refused: usize,
}

impl Crowd {
    /// Opens `members` sockets, and sends the same bytes on each as far as the server accepts them.
    pub async fn open(address: SocketAddr, members: usize, sent: &[u8]) -> Self {
        let mut crowd = Self::default();
        // Only some at a time, because the backlog of the listening socket is short.
        let opening = futures_util::stream::iter((0..members).map(|_| member(address, sent)));
        let mut opened = std::pin::pin!(futures_util::StreamExt::buffer_unordered(opening, 64));
        while let Some(member) = futures_util::StreamExt::next(&mut opened).await {
            match member {
                Some(member) => crowd.members.push(member),
                None => crowd.refused += 1,
            }
        }
        crowd
    }

    /// The number of sockets, including those that were refused.
    pub fn size(&self) -> usize {
        self.members.len() + self.refused
    }

    /// Reads up to `most` bytes from each socket, and notes which are closed.
    fn poll(&mut self, most: usize) {
        let mut bytes = vec![0; 4096];
        for member in self.members.iter_mut().filter(|member| !member.gone) {
            let mut read = 0;
            while read < most {
                let room = bytes.len().min(most - read);
                match member.socket.try_read(&mut bytes[..room]) {
                    Ok(0) => member.gone = true,
                    Ok(n) => {
                        if member.status.is_none() {
                            member.status = bytes[..n]
                                .get(9..12)
                                .map(|status| String::from_utf8_lossy(status).into_owned());
                        }
                        read += n;
                        continue;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => member.gone = true,
                }
                break;
            }
        }
    }

    fn open_count(&self) -> usize {
        self.members.iter().filter(|member| !member.gone).count()
    }

    fn statuses_text(&self) -> String {
        let mut statuses = BTreeMap::new();
        for status in self.members.iter().filter_map(|member| member.status.as_deref()) {
            *statuses.entry(status).or_insert(0_usize) += 1;
        }
        if self.refused > 0 {
            statuses.insert("cut off", self.refused);
        }
        let counts: Vec<String> = statuses.iter().map(|(status, n)| format!("{n} x {status}")).collect();
        if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) }
    }

    /// Waits until all are closed, at most `within`.
    pub async fn wait_closed(mut self, within: Duration) -> String {
        let began = Instant::now();
        loop {
            self.poll(1 << 20);
            let (open, seconds) = (self.open_count(), began.elapsed().as_secs());
            if open == 0 || began.elapsed() > within {
                return format!("{open} of {} open after {seconds} s{}", self.size(), self.statuses_text());
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Reads nothing for `time`, then counts the open sockets.
    pub async fn read_nothing(mut self, time: Duration) -> String {
        sleep(time).await;
        self.poll(usize::MAX);
        format!(
            "{} of {} open after {} s{}",
            self.open_count(),
            self.size(),
            time.as_secs(),
            self.statuses_text()
        )
    }

    /// Reads up to `bytes` from each socket, again and again, for `time`.
    pub async fn read_slowly(mut self, bytes: usize, every: Duration, time: Duration) -> String {
        let began = Instant::now();
        while began.elapsed() < time {
            self.poll(bytes);
            sleep(every).await;
        }
        format!(
            "{} of {} open after {} s{}",
            self.open_count(),
            self.size(),
            time.as_secs(),
            self.statuses_text()
        )
    }

    /// Waits for a response on each socket.
    pub async fn wait_responses(mut self, within: Duration) -> String {
        let began = Instant::now();
        loop {
            self.poll(1 << 20);
            let waiting =
                self.members.iter().filter(|member| !member.gone && member.status.is_none()).count();
            if waiting == 0 || began.elapsed() > within {
                let ms = began.elapsed().as_millis();
                let answered = self.members.iter().filter(|member| member.status.is_some()).count();
                return format!(
                    "{answered} of {} answered within {ms} ms{}",
                    self.size(),
                    self.statuses_text()
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// `None` if the server does not accept the connection, or closes it.
async fn member(address: SocketAddr, sent: &[u8]) -> Option<Member> {
    let socket = TcpSocket::new_v4().ok()?;
    // As small as the system allows, so that responses queue up in the server.
    socket.set_recv_buffer_size(4096).ok()?;
    let mut socket = timeout(WRITING, socket.connect(address)).await.ok()?.ok()?;
    let mut status = None;
    // A server that has already responded may not read any more.
    if !matches!(timeout(WRITING, socket.write_all(sent)).await, Ok(Ok(()))) {
        let mut answer = [0; 64];
        let read = timeout(Duration::from_millis(100), socket.read(&mut answer)).await.ok()?.ok()?;
        status = answer[..read].get(9..12).map(|status| String::from_utf8_lossy(status).into_owned());
    }
    Some(Member { socket, status, gone: false })
}
