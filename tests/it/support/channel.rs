//! A client of Phoenix channels, protocol versions 1 and 2, on another WebSocket library than the server's.
//!
//! Must not know: which events the server sends.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::support::PATIENCE;

/// The topic of every older client.
pub const LOBBY: &str = "killmails:lobby";

/// A connection.
#[derive(Debug)]
pub struct Channel {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_ref: u64,
    /// The close code, once the server has closed the connection; 1005 if it sent none, 1006 without a close frame.
    pub closed: Option<u16>,
}

impl Channel {
    /// Connects. If the server refuses, returns the status.
    pub async fn try_open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            let name: reqwest::header::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        match connect_async_with_config(request, Some(config), true).await {
            Ok((socket, _)) => Ok(Self { socket, next_ref: 100, closed: None }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    pub async fn open(address: SocketAddr, path: &str) -> Self {
        Self::try_open(address, path, &[]).await.unwrap_or_else(|status| panic!("{path}: {status}"))
    }

    pub async fn v2(address: SocketAddr) -> Self {
        Self::open(address, "/socket/websocket?vsn=2.0.0").await
    }

    pub async fn v1(address: SocketAddr) -> Self {
        Self::open(address, "/socket/websocket?vsn=1.0.0").await
    }

    pub async fn message(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Sends a frame as it is.
    pub async fn send(&mut self, frame: Value) {
        self.message(Message::text(frame.to_string())).await;
    }

    /// The next WebSocket message, including control frames; `None` if there is none in time, or at the end.
    pub async fn message_within(&mut self, time: Duration) -> Option<Message> {
        match timeout(time, self.socket.next()).await.ok()? {
            Some(Ok(Message::Close(frame))) => {
                self.closed = Some(frame.map_or(1005, |frame| frame.code.into()));
                None
            }
            Some(Ok(message)) => Some(message),
            Some(Err(_)) | None => {
                self.closed.get_or_insert(1006);
                None
            }
        }
    }

    /// The next frame within the time.
    pub async fn frame_within(&mut self, time: Duration) -> Option<Value> {
        let end = tokio::time::Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if let Message::Text(text) = self.message_within(left).await? {
                return Some(
                    serde_json::from_str(&text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}")),
                );
            }
        }
    }

    /// The next frame; panics if there is none in time.
    pub async fn frame(&mut self) -> Value {
        let frame = self.frame_within(PATIENCE).await;
        frame.unwrap_or_else(|| panic!("no frame received; closed: {:?}", self.closed))
    }

    /// The next frame that is not a killmail, a count or the end of a preload; those arrive at any time after a join.
    pub async fn answer(&mut self) -> Value {
        loop {
            let frame = self.frame().await;
            if !matches!(parts(&frame).0, "killmail_update" | "kill_count_update" | "preload_complete") {
                return frame;
            }
        }
    }

    /// Sends a frame and returns the reply.
    pub async fn ask(&mut self, frame: Value) -> Value {
        self.send(frame).await;
        self.answer().await
    }

    /// Reads until the server closes the connection. Returns the close code.
    pub async fn goodbye(&mut self) -> u16 {
        while self.closed.is_none() {
            let end = self.message_within(PATIENCE).await;
            assert!(end.is_some() || self.closed.is_some(), "the server does not close the connection");
        }
        self.closed.unwrap()
    }

    /// Joins the lobby in version 2, with the refs of the case texts. Returns the reply's response.
    pub async fn join(&mut self, payload: Value) -> Value {
        let reply = self.ask(json!(["1", "1", LOBBY, "phx_join", payload])).await;
        assert_eq!(
            (&reply[1], &reply[3], &reply[4]["status"]),
            (&json!("1"), &json!("phx_reply"), &json!("ok")),
            "{reply}"
        );
        reply[4]["response"].clone()
    }

    /// Sends an event to the lobby, joined with ref "1". Returns status and response of the reply; skips pushes before
    /// it.
    pub async fn say(&mut self, event: &str, payload: Value) -> (String, Value) {
        let reference = self.next_ref.to_string();
        self.next_ref += 1;
        self.send(json!(["1", reference, LOBBY, event, payload])).await;
        loop {
            let frame = self.frame().await;
            if frame[1] == json!(reference) {
                assert_eq!((&frame[0], &frame[3]), (&json!("1"), &json!("phx_reply")), "{frame}");
                return (frame[4]["status"].as_str().unwrap().to_owned(), frame[4]["response"].clone());
            }
        }
    }

    /// The payload of the next push of this event, in either version; skips other frames.
    pub async fn event(&mut self, name: &str) -> Value {
        loop {
            let frame = self.frame().await;
            let (event, payload) = parts(&frame);
            if event == name {
                return payload.clone();
            }
        }
    }

    /// The payload of the next push of this event within the time.
    pub async fn event_within(&mut self, name: &str, time: Duration) -> Option<Value> {
        let end = tokio::time::Instant::now() + time;
        loop {
            let frame = self.frame_within(end.saturating_duration_since(tokio::time::Instant::now())).await?;
            let (event, payload) = parts(&frame);
            if event == name {
                return Some(payload.clone());
            }
        }
    }

    /// The ids of the next `count` live killmails; skips other frames.
    pub async fn live(&mut self, count: usize) -> Vec<u64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let update = self.event("killmail_update").await;
            if update["preload"] == false {
                ids.extend(killmail_ids(&update));
            }
        }
        ids
    }

    /// The ids of all killmails pushed until none arrives for this long.
    pub async fn killmails_until_quiet(&mut self, quiet: Duration) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some(update) = self.event_within("killmail_update", quiet).await {
            ids.extend(killmail_ids(&update));
        }
        ids
    }
}

/// The event and payload of a frame, in either version.
pub fn parts(frame: &Value) -> (&str, &Value) {
    if frame.is_array() {
        (frame[3].as_str().unwrap(), &frame[4])
    } else {
        (frame["event"].as_str().unwrap(), &frame["payload"])
    }
}

/// The ids of the killmails of a `killmail_update`.
pub fn killmail_ids(update: &Value) -> Vec<u64> {
    update["killmails"]
        .as_array()
        .unwrap()
        .iter()
        .map(|killmail| killmail["killmail_id"].as_u64().unwrap())
        .collect()
}
