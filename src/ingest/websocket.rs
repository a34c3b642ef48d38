//! A websocket that sends killmails as they arrive, like EVE-KILL's: we send topics and receive
//! `{"type":"killmail","data":{..}}`.
//!
//! EVE-KILL's own format is not ESI's (other names, values and items; `docs/sources.md`). Of such a message
//! only id and hash are used, and the body is fetched. Bodies in ESI's format are taken as they are.
//!
//! Must not know: who stores the killmails; who fetches bodies.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use reqwest::header::USER_AGENT;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::ingest::arrival::Arrival;
use crate::ingest::backoff::Trouble;
use crate::ingest::client;
use crate::ingest::source_link::SourceLink;
use crate::tls;
use crate::wire::read::json::{self, without_bom};
use crate::wire::read::package::to_valid_json;

#[derive(Debug, Clone)]
pub struct Config {
    /// `ws://..` or `wss://..`.
    pub url: String,
    pub user_agent: String,
    pub topics: Vec<String>,
    /// How long connecting may take.
    pub timeout: Duration,
    /// A ping is sent this often; after three times as long without any message the connection is closed.
    pub ping: Duration,
    /// A longer message counts as a failure, bytes.
    pub document_max_bytes: usize,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Listens to a websocket and reconnects.
#[derive(Debug)]
pub struct Websocket {
    config: Config,
    link: SourceLink,
    socket: Option<Socket>,
    next_at: Instant,
    ping_at: Instant,
    last_message_at: Instant,
    /// Whether the topics were also sent as JSON: older servers accept plain text only, others may accept
    /// JSON only.
    subscribed_again: bool,
}

/// A failed connection.
struct Failed(Trouble, String);

#[derive(Deserialize)]
struct ServerMessage<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "string_or_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "string_or_none")]
    message: Option<Cow<'a, str>>,
    #[serde(default)]
    killmail_id: Option<IgnoredAny>,
}

/// A string; `None` for any other value, so that one odd member does not spoil the others.
fn string_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(json::text)
}

/// The members that show in whose format a killmail is.
#[derive(Deserialize)]
struct FormatMembers<'a> {
    #[serde(borrow, default)]
    killmail_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "string_or_none")]
    killmail_hash: Option<Cow<'a, str>>,
    #[serde(default)]
    items: Option<IgnoredAny>,
    #[serde(default)]
    victim: Option<VictimFormat>,
}

#[derive(Deserialize)]
struct VictimFormat {
    #[serde(default)]
    ship_id: Option<IgnoredAny>,
}

impl Websocket {
    /// Does not connect yet.
    #[must_use]
    pub fn new(config: Config, link: SourceLink) -> Self {
        tls::install_provider();
        let now = Instant::now();
        Self {
            config,
            link,
            socket: None,
            next_at: now,
            ping_at: now,
            last_message_at: now,
            subscribed_again: false,
        }
    }

    /// Listens until a message carries or names a killmail.
    pub async fn next(&mut self) -> Arrival {
        loop {
            let received = match self.socket.take() {
                None => {
                    tokio::time::sleep_until(self.next_at).await;
                    self.link.count_request();
                    self.connect().await.map(|socket| (socket, None))
                }
                Some(socket) => self.listen(socket).await,
            };
            match received {
                Ok((socket, document)) => {
                    self.socket = Some(socket);
                    if let Some(document) = document {
                        return self.link.parse(document);
                    }
                }
                Err(Failed(trouble, why)) => {
                    self.next_at = Instant::now() + self.link.note_failure(trouble, &why)
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Socket, Failed> {
        let failed = |why: String| Failed(Trouble::Failed, format!("no connection: {why}"));
        let mut request =
            self.config.url.as_str().into_client_request().map_err(|error| failed(error.to_string()))?;
        let agent = self
            .config
            .user_agent
            .parse()
            .map_err(|_| failed("the user agent is not a valid header value".to_owned()))?;
        request.headers_mut().insert(USER_AGENT, agent);
        let max = Some(self.config.document_max_bytes);
        let limits = WebSocketConfig::default().max_message_size(max).max_frame_size(max);
        let connected =
            timeout(self.config.timeout, connect_async_with_config(request, Some(limits), true)).await;
        let (mut socket, _) =
            connected.map_err(|_| failed("no response in time".to_owned()))?.map_err(refused)?;
        tracing::info!("listening to {}", self.config.url);
        let topics = Message::text(self.config.topics.join(","));
        socket.send(topics).await.map_err(|error| failed(error.to_string()))?;
        self.subscribed_again = false;
        self.last_message_at = Instant::now();
        self.ping_at = self.last_message_at + self.config.ping;
        Ok(socket)
    }

    /// Waits for a message or the time of the next ping; returns the socket, unless the connection ended.
    async fn listen(&mut self, mut socket: Socket) -> Result<(Socket, Option<Bytes>), Failed> {
        let failed = |why: String| Failed(Trouble::Failed, format!("the connection ended: {why}"));
        let message = tokio::select! {
            message = socket.next() => message,
            () = tokio::time::sleep_until(self.ping_at) => {
                if self.last_message_at.elapsed() > self.config.ping * 3 {
                    return Err(failed("no response".to_owned()));
                }
                self.ping_at = Instant::now() + self.config.ping;
                socket.send(Message::Ping(Bytes::new())).await.map_err(|error| failed(error.to_string()))?;
                return Ok((socket, None));
            }
        };
        self.last_message_at = Instant::now();
        match message {
            Some(Ok(Message::Text(text))) => {
                let document = self.handle_text(&mut socket, text.as_str()).await?;
                Ok((socket, document))
            }
            Some(Ok(Message::Close(_))) | None => Err(failed("closed by the other side".to_owned())),
            Some(Ok(_)) => Ok((socket, None)),
            Some(Err(error)) => Err(failed(error.to_string())),
        }
    }

    /// Handles a text message; returns the document it carries, if any.
    async fn handle_text(&mut self, socket: &mut Socket, text: &str) -> Result<Option<Bytes>, Failed> {
        let text = to_valid_json(without_bom(text.as_bytes())).unwrap_or_default();
        let Ok(message) = serde_json::from_slice::<ServerMessage<'_>>(&text) else {
            tracing::debug!("{} sent a message that is not JSON", self.config.url);
            return Ok(None);
        };
        let reply = match message.kind.as_deref() {
            Some("error") if self.subscribed_again => {
                let why = message.message.unwrap_or_default();
                return Err(Failed(Trouble::Forbidden, format!("the subscription is refused: {why}")));
            }
            Some("error") => {
                self.subscribed_again = true;
                Some(json!({ "type": "subscribe", "topics": self.config.topics }))
            }
            Some("ping") => Some(json!({ "type": "pong" })),
            _ => None,
        };
        if let Some(reply) = reply {
            let sent = socket.send(Message::text(reply.to_string())).await;
            sent.map_err(|error| Failed(Trouble::Failed, format!("the connection ended: {error}")))?;
        }
        if message.kind.as_deref() != Some("error") {
            self.link.note_success();
        }
        Ok(match message.kind.as_deref() {
            Some("killmail") => message.data.map(|data| document(data.get().as_bytes())),
            None if message.killmail_id.is_some() => Some(document(&text)),
            _ => None,
        })
    }
}

/// The killmail as received, or only its id and hash if it is in EVE-KILL's format.
fn document(text: &[u8]) -> Bytes {
    let foreign = serde_json::from_slice::<FormatMembers<'_>>(text).ok().filter(|members| {
        // In ESI's format items belong to the victim, and ships are `ship_type_id`.
        members.items.is_some() || members.victim.as_ref().is_some_and(|victim| victim.ship_id.is_some())
    });
    match foreign {
        Some(members) => {
            let name =
                json!({ "killmail_id": members.killmail_id, "zkb": { "hash": members.killmail_hash } });
            Bytes::from(name.to_string())
        }
        None => Bytes::copy_from_slice(text),
    }
}

fn refused(error: tungstenite::Error) -> Failed {
    let tungstenite::Error::Http(response) = &error else {
        return Failed(Trouble::Failed, format!("no connection: {error}"));
    };
    let status = response.status().as_u16();
    let trouble = match status {
        429 => Trouble::Limited(client::retry_after(response.headers())),
        401 | 403 => Trouble::Forbidden,
        _ => Trouble::Failed,
    };
    Failed(trouble, format!("the connection was refused ({status})"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::ingest::backoff::Waits;
    use crate::telemetry::source_kind::SourceKind;
    use crate::telemetry::source_status::SourceStatus;
    use crate::wire::read::package;

    #[test]
    fn a_body_in_the_format_of_esi_is_taken_as_it_is() {
        let body = r#"{"killmail_id":1,"victim":{"ship_type_id":587,"items":[]},"attackers":[]}"#;
        assert_eq!(document(body.as_bytes()), body);
        assert_eq!(document(b"[1]"), "[1]", "left to the parser, which refuses it");
    }

    #[test]
    fn other_members_of_a_message_may_have_any_type() {
        let message: ServerMessage<'_> =
            serde_json::from_str(r#"{"killmail_id":"5","type":7,"message":{"text":[]},"data":1}"#).unwrap();
        assert!(message.killmail_id.is_some() && message.kind.is_none() && message.message.is_none());
    }

    #[tokio::test]
    async fn a_server_without_tls_causes_an_error_and_not_a_panic() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("wss://{}/", listener.local_addr().unwrap());
        let waits = Waits { limited_ms: 0, forbidden_ms: 0, failed_ms: 0 };
        let link = SourceLink::new(
            "test".to_owned(),
            SourceKind::Websocket,
            waits,
            Arc::new(SourceStatus::default()),
        );
        let second = Duration::from_secs(10);
        let config = Config {
            url,
            user_agent: "tests".to_owned(),
            topics: vec![],
            timeout: second,
            ping: second,
            document_max_bytes: 1_000,
        };
        let mut websocket = Websocket::new(config, link);
        let (connected, _) = tokio::join!(websocket.connect(), async { drop(listener.accept().await) });
        assert!(connected.is_err());
    }

    #[test]
    fn of_another_format_only_id_and_hash_are_used() {
        let hash = "ab".repeat(20);
        let foreign = json!({
            "killmail_id": "7", "killmail_hash": hash, "kill_time": "2024-08-03T12:00:00.000Z", "system_id": 30_000_142,
            "victim": { "ship_id": 670 }, "attackers": [{ "ship_id": 17_812 }], "items": [],
        });
        let named = package::parse(&document(foreign.to_string().as_bytes())).unwrap();
        let reference = named.reference.unwrap();
        assert_eq!((reference.killmail_id, reference.hash), (7, hash));
        assert!(named.killmail.is_none());
        let nameless: Value = json!({ "killmail_id": 7, "victim": { "ship_id": 670 } });
        assert!(package::parse(&document(nameless.to_string().as_bytes())).is_err());
    }
}
