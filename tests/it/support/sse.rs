//! A client of server-sent events over a plain socket: gives exact bytes and parsed blocks, and can stop reading.
//!
//! Must not know: which events the server sends.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::PATIENCE;

/// One block of the stream, up to its blank line.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Block {
    pub event: Option<String>,
    pub data: Option<String>,
    pub id: Option<String>,
    pub retry: Option<String>,
    pub comments: Vec<String>,
    /// The exact text, including the blank line.
    pub raw: String,
}

impl Block {
    fn parse(raw: &str) -> Self {
        let mut block = Self { raw: raw.to_owned(), ..Self::default() };
        for line in raw.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" if !line.is_empty() => block.comments.push(value),
                "event" => block.event = Some(value),
                "id" => block.id = Some(value),
                "retry" => block.retry = Some(value),
                "data" => match &mut block.data {
                    Some(data) => *data = format!("{data}\n{value}"),
                    none => *none = Some(value),
                },
                _ => {}
            }
        }
        block
    }

    /// The event's name, as a browser would dispatch it.
    pub fn name(&self) -> &str {
        self.event.as_deref().unwrap_or("message")
    }

    /// The data as JSON.
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("a block without data: {:?}", self.raw));
        serde_json::from_str(data).unwrap_or_else(|e| panic!("not JSON ({e}): {data}"))
    }

    /// The killmail's id, if the block is a killmail.
    pub fn killmail_id(&self) -> Option<u64> {
        (matches!(self.name(), "message" | "killmail") && self.data.is_some())
            .then(|| self.json()["killmail_id"].as_u64())?
    }
}

/// The request, kept to send it again.
#[derive(Debug, Clone)]
struct StreamRequest {
    address: SocketAddr,
    head: String,
    body: String,
    receive_bytes: Option<u32>,
}

/// An open stream.
#[derive(Debug)]
pub struct Sse {
    request: StreamRequest,
    socket: TcpStream,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Received bytes, still in HTTP chunks.
    wire: Vec<u8>,
    /// Sizes of the chunks received.
    pub chunks: Vec<usize>,
    /// The body so far; everything before `taken` was returned as blocks.
    body: Vec<u8>,
    taken: usize,
    /// There is no blank line before this position.
    searched: usize,
    ended: bool,
    /// The id a browser would send when it reconnects.
    pub last_id: Option<String>,
}

impl Sse {
    pub async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        Self::open(StreamRequest { address, head, body: String::new(), receive_bytes: None }).await
    }

    pub async fn post(address: SocketAddr, path: &str, body: &Value) -> Self {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        Self::open(StreamRequest { address, head, body, receive_bytes: None }).await
    }

    /// A client with a small receive buffer, so that what it does not read stays with the server.
    pub async fn narrow(address: SocketAddr, path: &str, receive_bytes: u32) -> Self {
        let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n");
        Self::open(StreamRequest { address, head, body: String::new(), receive_bytes: Some(receive_bytes) })
            .await
    }

    async fn open(request: StreamRequest) -> Self {
        Self::open_after(request, None).await
    }

    async fn open_after(request: StreamRequest, last_id: Option<String>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = request.receive_bytes {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let socket = socket.connect(request.address).await.unwrap();
        let (headers, body) = (Vec::new(), Vec::new());
        let (wire, chunks) = (Vec::new(), Vec::new());
        let mut sse = Self {
            request,
            socket,
            status: 0,
            headers,
            wire,
            chunks,
            body,
            taken: 0,
            searched: 0,
            ended: false,
            last_id,
        };
        let resume = sse.last_id.as_ref().map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let text = format!("{}{resume}\r\n{}", sse.request.head, sse.request.body);
        sse.socket.write_all(text.as_bytes()).await.unwrap();
        sse.read_head().await;
        sse
    }

    /// Reconnects as a browser does: to the same URL, with the last id if there was one.
    pub async fn reconnect(self) -> Self {
        let Self { request, last_id, socket, .. } = self;
        drop(socket);
        Self::open_after(request, last_id).await
    }

    async fn read_head(&mut self) {
        let end = loop {
            if let Some(at) = find(&self.wire, b"\r\n\r\n") {
                break at;
            }
            assert!(
                timeout(PATIENCE, self.fill()).await.expect("no response"),
                "closed before a response: {:?}",
                self.wire
            );
        };
        let head = String::from_utf8(self.wire[..end].to_vec()).unwrap();
        self.wire.drain(..end + 4);
        let mut lines = head.lines();
        self.status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        self.headers = lines
            .map(|l| l.split_once(": ").unwrap())
            .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
            .collect();
        // The first blocks may have arrived with the head.
        self.unchunk();
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body received so far.
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Reads what is available into `wire`. Returns `false` at the end.
    async fn fill(&mut self) -> bool {
        match self.socket.read_buf(&mut self.wire).await {
            Ok(read) => read > 0,
            Err(_) => false,
        }
    }

    /// Moves complete chunks from `wire` to the body.
    fn unchunk(&mut self) {
        if self.header("transfer-encoding") != Some("chunked") {
            self.body.append(&mut self.wire);
            return;
        }
        while let Some(line) = find(&self.wire, b"\r\n") {
            let size = String::from_utf8_lossy(&self.wire[..line]).into_owned();
            let size =
                usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("a chunk of size {size:?}"));
            if self.wire.len() < line + 2 + size + 2 {
                return;
            }
            self.chunks.push(size);
            self.body.extend_from_slice(&self.wire[line + 2..line + 2 + size]);
            self.wire.drain(..line + 2 + size + 2);
            self.ended |= size == 0;
        }
    }

    /// The next block, which may be a comment; `None` at the end of the stream. Panics if there is none in time.
    pub async fn next_block(&mut self) -> Option<Block> {
        timeout(PATIENCE, self.block()).await.expect("nothing received")
    }

    async fn block(&mut self) -> Option<Block> {
        loop {
            let from = self.taken.max(self.searched.saturating_sub(1));
            if let Some(at) = find(&self.body[from..], b"\n\n") {
                let end = from + at + 2;
                let raw = String::from_utf8(self.body[self.taken..end].to_vec()).unwrap();
                self.taken = end;
                let block = Block::parse(&raw);
                if block.id.is_some() {
                    self.last_id.clone_from(&block.id);
                }
                return Some(block);
            }
            self.searched = self.body.len();
            if self.ended {
                return None;
            }
            self.ended |= !self.fill().await;
            self.unchunk();
        }
    }

    /// The next block within the time; `None` if there is none, or at the end.
    pub async fn block_within(&mut self, time: Duration) -> Option<Block> {
        timeout(time, self.block()).await.ok().flatten()
    }

    /// The next block with data. Panics at the end of the stream, or if there is none in time.
    pub async fn event(&mut self) -> Block {
        let waiting = async {
            loop {
                let block = self.next_block().await.expect("the stream ended");
                if block.data.is_some() {
                    return block;
                }
            }
        };
        timeout(PATIENCE, waiting).await.expect("no event received")
    }

    /// The next event that is not a heartbeat; how many of those are sent in between depends on timing.
    pub async fn event_but_heartbeat(&mut self) -> Block {
        loop {
            let block = self.event().await;
            if block.name() != "heartbeat" {
                return block;
            }
        }
    }

    /// The next event of this name; skips others.
    pub async fn event_named(&mut self, name: &str) -> Block {
        loop {
            let block = self.event().await;
            if block.name() == name {
                return block;
            }
        }
    }

    /// The ids of the next `count` killmails; skips other events.
    pub async fn killmails(&mut self, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            ids.extend(self.event().await.killmail_id());
        }
        ids
    }

    /// The ids of all killmails until none arrives for this long, or until the end.
    pub async fn killmails_until_quiet(&mut self, quiet: Duration) -> Vec<u64> {
        let mut ids = Vec::new();
        let mut since = tokio::time::Instant::now();
        while let Ok(Some(block)) = tokio::time::timeout_at(since + quiet, self.block()).await {
            if let Some(id) = block.killmail_id() {
                ids.push(id);
                since = tokio::time::Instant::now();
            }
        }
        ids
    }

    /// Reads to the end of the response: an error, or a stream that closes.
    pub async fn rest(mut self) -> String {
        let length = self.header("content-length").and_then(|l| l.parse::<usize>().ok());
        self.unchunk();
        while !self.ended && length.is_none_or(|l| self.body.len() < l) {
            self.ended |= !timeout(PATIENCE, self.fill()).await.expect("the response does not end");
            self.unchunk();
        }
        String::from_utf8(self.body.split_off(self.taken)).unwrap()
    }
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|w| w == what)
}
