//! A server on loopback that nobody may reach: it counts connections, and answers so that a mistake is seen.
//!
//! Must not know: who should not reach it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const TRIES: usize = 100;

/// The listeners: one on 127.0.0.1, and one on ::1 with the same port if the system has IPv6.
pub struct Canary {
    pub port: u16,
    pub has_v6: bool,
    connections: Arc<AtomicUsize>,
}

impl Canary {
    pub fn start() -> Self {
        let has_v6 = TcpListener::bind((V6, 0)).is_ok();
        let connections = Arc::new(AtomicUsize::new(0));
        let reply = answer_with(200, "");
        for _ in 0..TRIES {
            let v4 = TcpListener::bind((V4, 0)).unwrap();
            let port = v4.local_addr().unwrap().port();
            let Ok(v6) = has_v6.then(|| TcpListener::bind((V6, port))).transpose() else { continue };
            for listener in [Some(v4), v6].into_iter().flatten() {
                listen(listener, Arc::clone(&connections), reply.clone());
            }
            return Self { port, has_v6, connections };
        }
        panic!("no port is free on both loopback addresses");
    }

    /// How often it was reached. Connects once more itself, so that everything before has been counted.
    pub fn count(&self) -> usize {
        let addresses = if self.has_v6 { vec![V4, V6] } else { vec![V4] };
        let before_own = |own: usize| self.connections.load(Ordering::SeqCst) - own;
        for (own, address) in addresses.iter().enumerate() {
            let mut stream = TcpStream::connect((*address, self.port)).unwrap();
            // The listener counts a connection before it answers the next one.
            stream.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
            assert!(before_own(own) > 0, "the canary does not count");
        }
        self.connections.fetch_sub(addresses.len(), Ordering::SeqCst) - addresses.len()
    }
}

/// A server at another loopback address, for targets that are allowed; `None` where only 127.0.0.1 exists.
pub fn server(address: &str, reply: String) -> Option<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind((address.parse::<IpAddr>().unwrap(), 0)).ok()?;
    let at = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    listen(listener, Arc::clone(&connections), reply);
    Some((at, connections))
}

/// An answer without a body. The next request makes a connection of its own.
pub fn answer_with(status: u16, headers: &str) -> String {
    format!("HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: 0\r\n\r\n")
}

/// Answers one request on each connection. The thread ends with the process.
fn listen(listener: TcpListener, connections: Arc<AtomicUsize>, reply: String) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            connections.fetch_add(1, Ordering::SeqCst);
            let reply = reply.clone();
            std::thread::spawn(move || answer(stream, &reply));
        }
    });
}

fn answer(mut stream: TcpStream, reply: &str) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let end = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while Instant::now() < end && !is_whole(&request) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
    let _ = stream.write_all(reply.as_bytes());
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0)
}
