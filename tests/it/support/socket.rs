//! A WebSocket by hand: the exact bytes of handshake and frames, which a library would hide.
//!
//! Must not know: what is sent over it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::PATIENCE;

pub const TEXT: u8 = 0x81;
pub const DEFLATED_TEXT: u8 = 0xc1;
pub const CLOSE: u8 = 0x88;

/// A client's frame, masked with zeros.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// A connection.
pub struct Socket {
    stream: TcpStream,
    /// The head of the handshake's response, in lower case.
    pub answer: String,
}

impl Socket {
    /// Requests an upgrade with these headers, and reads the head of the response.
    pub async fn ask(address: SocketAddr, path: &str, lines: &[&str]) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let more: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        Self { stream, answer: String::from_utf8(answer).unwrap().to_lowercase() }
    }

    /// The same; panics if the upgrade is refused.
    pub async fn open(address: SocketAddr, lines: &[&str]) -> Self {
        let socket = Self::ask(address, "/socket/websocket?vsn=2.0.0", lines).await;
        assert!(socket.answer.starts_with("http/1.1 101 "), "{}", socket.answer);
        socket
    }

    /// The value of a header of the response.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body of the response to a refused handshake.
    pub async fn body(mut self) -> String {
        let length = self.header("content-length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a frame with this first byte, masked with zeros.
    pub async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.bytes(&masked(first, payload)).await;
    }

    /// The first byte and the payload of the next frame; `None` once the server has closed the connection.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let first = self.stream.read_u8().await.ok()?;
            let length = match self.stream.read_u8().await.ok()? {
                126 => self.stream.read_u16().await.ok()?.into(),
                127 => usize::try_from(self.stream.read_u64().await.ok()?).unwrap(),
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some((first, payload))
        };
        timeout(PATIENCE, read).await.expect("a frame or an end")
    }

    /// All frames until none arrives for this long.
    pub async fn until_quiet(&mut self, quiet: Duration) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = timeout(quiet, self.next()).await {
            frames.push(frame);
        }
        frames
    }

    /// All frames until the server closes the connection.
    pub async fn rest(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}
