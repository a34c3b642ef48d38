//! A websocket that sends killmails as they come, as EVE-KILL's do: topics out,
//! `{"type":"killmail","data":{..}}` in.
//!
//! EVE-KILL's own form of a killmail is no ESI body (other names, values and items); such a message names a
//! killmail with its hash, and the body is fetched. Bodies in ESI's form are taken as they are.
//!
//! Must not know: who keeps the killmails; who fetches bodies.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use reqwest::header::{RETRY_AFTER, USER_AGENT};
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
use crate::ingest::source_link::SourceLink;
use crate::wire::read::json::{self, without_bom};
use crate::wire::read::package::to_valid_json;

/// What the listener is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `ws://` or `wss://`.
    pub url: String,
    /// What `User-Agent` says.
    pub user_agent: String,
    /// What is subscribed to.
    pub topics: Vec<String>,
    /// A connection is made within this, or not.
    pub timeout: Duration,
    /// The other side is asked for a sign of life this often; without any for three times as long the
    /// connection counts as dead.
    pub ping: Duration,
    /// A longer message is a failure, bytes.
    pub document_max_bytes: usize,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A listener.
#[derive(Debug)]
pub struct Websocket {
    config: Config,
    link: SourceLink,
    socket: Option<Socket>,
    next_at: Instant,
    ping_at: Instant,
    heard_at: Instant,
    /// Whether the topics were sent as JSON, too: older servers take plain text only, others may take JSON
    /// only.
    subscribed_again: bool,
}

/// A connection that came to nothing.
struct Failed(Trouble, String);

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "any_text")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "any_text")]
    message: Option<Cow<'a, str>>,
    #[serde(default)]
    killmail_id: Option<IgnoredAny>,
}

/// A text; none where it is anything else, which must not cost what stands beside it.
fn any_text<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    <&RawValue>::deserialize(reader).map(json::text)
}

/// As much of a killmail as tells in whose form it is.
#[derive(Deserialize)]
struct Form<'a> {
    #[serde(borrow, default)]
    killmail_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "any_text")]
    killmail_hash: Option<Cow<'a, str>>,
    #[serde(default)]
    items: Option<IgnoredAny>,
    #[serde(default)]
    victim: Option<VictimForm>,
}

#[derive(Deserialize)]
struct VictimForm {
    #[serde(default)]
    ship_id: Option<IgnoredAny>,
}

impl Websocket {
    /// Connects to nobody yet.
    #[must_use]
    pub fn new(config: Config, link: SourceLink) -> Self {
        // Refused only when another one is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let now = Instant::now();
        Self {
            config,
            link,
            socket: None,
            next_at: now,
            ping_at: now,
            heard_at: now,
            subscribed_again: false,
        }
    }

    /// Listens until there is a killmail, or the name of one.
    pub async fn next(&mut self) -> Arrival {
        loop {
            let answer = match self.socket.take() {
                None => {
                    tokio::time::sleep_until(self.next_at).await;
                    self.link.asks();
                    self.connect().await.map(|socket| (socket, None))
                }
                Some(socket) => self.listen(socket).await,
            };
            match answer {
                Ok((socket, document)) => {
                    self.socket = Some(socket);
                    if let Some(document) = document {
                        return self.link.takes(document);
                    }
                }
                Err(Failed(trouble, why)) => {
                    self.next_at = Instant::now() + self.link.troubles(trouble, &why)
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
            .map_err(|_| failed("the user agent is no header value".to_owned()))?;
        request.headers_mut().insert(USER_AGENT, agent);
        let most = Some(self.config.document_max_bytes);
        let limits = WebSocketConfig::default().max_message_size(most).max_frame_size(most);
        let connected =
            timeout(self.config.timeout, connect_async_with_config(request, Some(limits), true)).await;
        let (mut socket, _) =
            connected.map_err(|_| failed("no answer in time".to_owned()))?.map_err(refused)?;
        tracing::info!("listening to {}", self.config.url);
        let topics = Message::text(self.config.topics.join(","));
        socket.send(topics).await.map_err(|error| failed(error.to_string()))?;
        self.subscribed_again = false;
        self.heard_at = Instant::now();
        self.ping_at = self.heard_at + self.config.ping;
        Ok(socket)
    }

    /// The next message; the socket comes back with it.
    async fn listen(&mut self, mut socket: Socket) -> Result<(Socket, Option<Bytes>), Failed> {
        let failed = |why: String| Failed(Trouble::Failed, format!("the connection ended: {why}"));
        let message = tokio::select! {
            message = socket.next() => message,
            () = tokio::time::sleep_until(self.ping_at) => {
                if self.heard_at.elapsed() > self.config.ping * 3 {
                    return Err(failed("no sign of life".to_owned()));
                }
                self.ping_at = Instant::now() + self.config.ping;
                socket.send(Message::Ping(Bytes::new())).await.map_err(|error| failed(error.to_string()))?;
                return Ok((socket, None));
            }
        };
        self.heard_at = Instant::now();
        match message {
            Some(Ok(Message::Text(text))) => {
                let document = self.told(&mut socket, text.as_str()).await?;
                Ok((socket, document))
            }
            Some(Ok(Message::Close(_))) | None => Err(failed("closed by the other side".to_owned())),
            Some(Ok(_)) => Ok((socket, None)),
            Some(Err(error)) => Err(failed(error.to_string())),
        }
    }

    /// What a text means: a document, or nothing to keep.
    async fn told(&mut self, socket: &mut Socket, text: &str) -> Result<Option<Bytes>, Failed> {
        let text = to_valid_json(without_bom(text.as_bytes())).unwrap_or_default();
        let Ok(said) = serde_json::from_slice::<Said<'_>>(&text) else {
            tracing::debug!("{} says what is no JSON", self.config.url);
            return Ok(None);
        };
        let answer = match said.kind.as_deref() {
            Some("error") if self.subscribed_again => {
                let why = said.message.unwrap_or_default();
                return Err(Failed(Trouble::Forbidden, format!("the subscription is refused: {why}")));
            }
            Some("error") => {
                self.subscribed_again = true;
                Some(json!({ "type": "subscribe", "topics": self.config.topics }))
            }
            Some("ping") => Some(json!({ "type": "pong" })),
            _ => None,
        };
        if let Some(answer) = answer {
            let sent = socket.send(Message::text(answer.to_string())).await;
            sent.map_err(|error| Failed(Trouble::Failed, format!("the connection ended: {error}")))?;
        }
        if said.kind.as_deref() != Some("error") {
            self.link.is_well();
        }
        Ok(match said.kind.as_deref() {
            Some("killmail") => said.data.map(|data| document(data.get().as_bytes())),
            None if said.killmail_id.is_some() => Some(document(&text)),
            _ => None,
        })
    }
}

/// The killmail as it came, or what names it where it came in EVE-KILL's own form.
fn document(text: &[u8]) -> Bytes {
    let foreign = serde_json::from_slice::<Form<'_>>(text).ok().filter(|form| {
        // ESI's items are the victim's, and its ships are types.
        form.items.is_some() || form.victim.as_ref().is_some_and(|victim| victim.ship_id.is_some())
    });
    match foreign {
        Some(form) => {
            let name = json!({ "killmail_id": form.killmail_id, "zkb": { "hash": form.killmail_hash } });
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
        429 => {
            let secs = response
                .headers()
                .get(RETRY_AFTER.as_str())
                .and_then(|secs| secs.to_str().ok()?.trim().parse().ok());
            Trouble::Limited(secs.map(Duration::from_secs))
        }
        401 | 403 => Trouble::Forbidden,
        _ => Trouble::Failed,
    };
    Failed(trouble, format!("the connection is refused ({status})"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::ingest::backoff::Waits;
    use crate::telemetry::source_status::SourceStatus;
    use crate::wire::read::package;

    #[test]
    fn a_body_in_the_form_of_esi_is_taken_as_it_is() {
        let body = r#"{"killmail_id":1,"victim":{"ship_type_id":587,"items":[]},"attackers":[]}"#;
        assert_eq!(document(body.as_bytes()), body);
        assert_eq!(document(b"[1]"), "[1]", "left to the parser, which refuses it");
    }

    #[test]
    fn what_stands_beside_a_killmail_may_be_of_any_type() {
        let said: Said<'_> =
            serde_json::from_str(r#"{"killmail_id":"5","type":7,"message":{"text":[]},"data":1}"#).unwrap();
        assert!(said.killmail_id.is_some() && said.kind.is_none() && said.message.is_none());
    }

    #[tokio::test]
    async fn an_address_that_speaks_no_tls_is_an_error_and_no_crash() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("wss://{}/", listener.local_addr().unwrap());
        let waits = Waits { limited: Duration::ZERO, forbidden: Duration::ZERO, failed: Duration::ZERO };
        let link = SourceLink::new("test".to_owned(), "websocket", waits, Arc::new(SourceStatus::default()));
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
        let (answer, _) = tokio::join!(websocket.connect(), async { drop(listener.accept().await) });
        assert!(answer.is_err());
    }

    #[test]
    fn another_form_is_taken_as_a_name_only() {
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
