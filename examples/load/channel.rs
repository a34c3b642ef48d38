//! A Phoenix channel over a plain socket: a client of a few hundred bytes while it is idle.
//!
//! Must not know: what is measured.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::stream::find;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Loopback addresses that clients connect from, so that ports do not run out.
const ADDRESSES: usize = 16;
/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// Connects from one of several loopback addresses.
pub async fn connect(server: SocketAddr, n: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let last = u8::try_from(1 + n % ADDRESSES).unwrap_or(1);
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)))?;
    socket.connect(server).await
}

/// A joined channel.
#[derive(Debug)]
pub struct Channel {
    socket: TcpStream,
    bytes: Vec<u8>,
}

impl Channel {
    /// Connects and joins the lobby. Returns the join reply too.
    pub async fn join(server: SocketAddr, n: usize, payload: &Value) -> io::Result<(Self, Value)> {
        let mut socket = connect(server, n).await?;
        let request = format!(
            "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nhost: {server}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut channel = Self { socket, bytes: Vec::new() };
        let head = loop {
            if let Some(end) = find(&channel.bytes, b"\r\n\r\n") {
                break channel.bytes.drain(..end + 4).collect::<Vec<_>>();
            }
            channel.receive().await?;
        };
        if !head.starts_with(b"HTTP/1.1 101") {
            return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
        }
        channel
            .send(TEXT, json!(["1", "1", "killmails:lobby", "phx_join", payload]).to_string().as_bytes())
            .await?;
        let answer: Value = serde_json::from_slice(&channel.next().await?)?;
        if answer[3] == "phx_reply" && answer[4]["status"] == "ok" {
            Ok((channel, answer[4]["response"].clone()))
        } else {
            Err(io::Error::other(format!("the join was answered with {answer}")))
        }
    }

    /// The next message; answers pings.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let (code, payload) = self.frame().await?;
            match code {
                TEXT => return Ok(payload),
                PING => self.send(PONG, &payload).await?,
                CLOSE => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => {}
            }
        }
    }

    async fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some((start, length)) = payload_bounds(&self.bytes)
                && self.bytes.len() >= start + length
            {
                let code = self.bytes[0] & 0x0f;
                let payload = self.bytes[start..start + length].to_vec();
                self.bytes.drain(..start + length);
                if self.bytes.is_empty() {
                    // Thousands of clients are open, so an empty buffer is freed.
                    self.bytes = Vec::new();
                }
                return Ok((code, payload));
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.socket.readable().await?;
        self.bytes.reserve(READ_BYTES);
        if self.socket.read_buf(&mut self.bytes).await? == 0 {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(())
        }
    }

    /// Sends a frame with a mask of zeros, which leaves the payload unchanged.
    async fn send(&mut self, code: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x80 | code];
        match payload.len() {
            short @ ..=125 => frame.push(0x80 | short as u8),
            medium @ ..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((medium as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.socket.write_all(&frame).await
    }
}

/// Where the payload of the first frame begins and how long it is, once its header has been received.
fn payload_bounds(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => Some((4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)))),
        127 => Some((10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?)),
        short => Some((2, usize::from(short))),
    }
}

/// The value of `"event_id":"..."` in a message.
pub fn event_id(message: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\"event_id\":\"";
    let from = find(message, KEY)? + KEY.len();
    let length = message[from..].iter().position(|byte| *byte == b'"')?;
    Some(String::from_utf8_lossy(&message[from..from + length]).into_owned())
}
