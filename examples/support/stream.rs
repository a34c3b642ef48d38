//! An event stream over a plain socket, which copies and parses as little as possible.
//!
//! Must not know: what the server sends.

use std::io;
use std::net::SocketAddr;

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    /// Received bytes not processed yet, with their HTTP chunk headers.
    wire: Vec<u8>,
    /// The body of the incomplete block.
    block: Vec<u8>,
    /// Bytes left in the current chunk.
    chunk: usize,
    at: usize,
    /// All bytes received so far.
    pub received: u64,
}

impl Stream {
    /// Opens a stream; `buffer` is the size of the socket's receive buffer, bytes.
    pub async fn open(
        address: SocketAddr,
        path: &str,
        body: Option<&str>,
        buffer: Option<u32>,
    ) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let mut socket = socket.connect(address).await?;
        let head = format!("{path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n");
        let request = match body {
            Some(body) => format!(
                "POST {head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
            None => format!("GET {head}\r\n"),
        };
        socket.write_all(request.as_bytes()).await?;
        let mut stream = Self { socket, wire: Vec::new(), block: Vec::new(), chunk: 0, at: 0, received: 0 };
        stream.read_head().await?;
        Ok(stream)
    }

    async fn read_head(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = find(&self.wire, b"\r\n\r\n") {
                if !self.wire.starts_with(b"HTTP/1.1 200") {
                    return Err(io::Error::other(String::from_utf8_lossy(&self.wire).into_owned()));
                }
                self.at = end + 4;
                return Ok(());
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        if self.at > 0 {
            self.wire.drain(..self.at);
            self.at = 0;
        }
        self.wire.reserve(64 * 1024);
        let read = self.socket.read_buf(&mut self.wire).await?;
        self.received += read as u64;
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// The next block, without its blank line.
    pub async fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(end) = find(&self.block[searched..], b"\n\n") {
                let rest = self.block.split_off(searched + end + 2);
                let mut block = std::mem::replace(&mut self.block, rest);
                block.truncate(searched + end);
                return Ok(block);
            }
            searched = self.block.len().saturating_sub(1);
            while !self.unchunk()? {
                self.receive().await?;
            }
        }
    }

    /// Moves the received part of a chunk into the block. Returns `false` if there was none.
    fn unchunk(&mut self) -> io::Result<bool> {
        if self.chunk == 0 {
            let Some(line) = find(&self.wire[self.at..], b"\r\n") else { return Ok(false) };
            let digits =
                std::str::from_utf8(&self.wire[self.at..self.at + line]).map_err(io::Error::other)?;
            self.chunk = usize::from_str_radix(digits.trim(), 16).map_err(io::Error::other)?;
            if self.chunk == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.at += line + 2;
            // The line break after the data is part of the chunk.
            self.chunk += 2;
        }
        let at_hand = (self.wire.len() - self.at).min(self.chunk);
        let data = at_hand.min(self.chunk.saturating_sub(2));
        self.block.extend_from_slice(&self.wire[self.at..self.at + data]);
        (self.at, self.chunk) = (self.at + at_hand, self.chunk - at_hand);
        Ok(at_hand > 0)
    }
}

/// The position of a text.
pub fn find(within: &[u8], text: &[u8]) -> Option<usize> {
    memmem::find(within, text)
}

/// The name of the event; empty for comments and unnamed events.
pub fn name(block: &[u8]) -> &str {
    let line = block.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"event: "));
    line.and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
}

/// The ids of the killmails in a block. Killmails that a batch has under two names are returned once.
pub fn killmail_ids(block: &[u8]) -> Vec<u32> {
    const KEY: &[u8] = b"\"killmail_id\":";
    let end = find(block, b"],\"killmails\":[").unwrap_or(block.len());
    let number = |at: usize| {
        let digits = block[at + KEY.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |id, digit| id * 10 + u32::from(digit - b'0'))
    };
    memmem::find_iter(&block[..end], KEY).map(number).collect()
}
