//! A client of the event streams that loses nothing: it remembers the last event id and goes on there after
//! any break.
//!
//!     cargo run --release --example sse_client --
//!     'http://localhost:4004/api/v1/kills/stream/enhanced?system_ids=30000142'
//!
//! After a break it waits as long as the server asks (`Retry-After`), else 500 ms, 1 s, 2 s and so on up to
//! 30 s; once events come again it begins anew. A refusal that waiting cannot mend (a 4xx other than 429)
//! ends it.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Response, StatusCode, header};
use serde_json::Value;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// One event, put together line by line.
#[derive(Default)]
struct Event {
    name: String,
    data: String,
}

/// What outlives a connection.
struct Follower {
    client: Client,
    url: String,
    last_event_id: String,
    wait: Duration,
    events: u64,
    /// Ends after so many events, where asked to.
    enough: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "http://localhost:4004/api/v1/kills/stream".to_owned());
    let enough = arguments
        .next()
        .map_or(Ok(u64::MAX), |count| count.parse())
        .context("the second argument is a number of events")?;
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(90))
        .build()?;
    Follower { client, url, last_event_id: String::new(), wait: FIRST_WAIT, events: 0, enough }.follow().await
}

impl Follower {
    async fn follow(&mut self) -> anyhow::Result<()> {
        while self.events < self.enough {
            let asked_to_wait = match self.connect().await {
                Ok(response) if response.status().is_success() => {
                    self.read(response).await;
                    None
                }
                Ok(response) => refused(response).await?,
                Err(error) => {
                    eprintln!("no connection: {error}");
                    None
                }
            };
            if self.events < self.enough {
                self.pause(asked_to_wait).await;
            }
        }
        Ok(())
    }

    async fn connect(&self) -> reqwest::Result<Response> {
        let mut request = self.client.get(&self.url).header(header::ACCEPT, "text/event-stream");
        if !self.last_event_id.is_empty() {
            request = request.header("Last-Event-ID", &self.last_event_id);
        }
        request.send().await
    }

    async fn pause(&mut self, asked: Option<Duration>) {
        let wait = asked.unwrap_or(self.wait);
        eprintln!("again in {wait:?}, after {:?}", self.last_event_id);
        tokio::time::sleep(wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// Reads until the stream breaks.
    async fn read(&mut self, mut response: Response) {
        let (mut buffer, mut event) = (Vec::new(), Event::default());
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => buffer.extend_from_slice(&bytes),
                Ok(None) => return eprintln!("the stream ended"),
                Err(error) => return eprintln!("the stream broke: {error}"),
            }
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&buffer[..end]).trim_end_matches('\r').to_owned();
                buffer.drain(..=end);
                self.line(&line, &mut event);
                if self.events >= self.enough {
                    return;
                }
            }
        }
    }

    fn line(&mut self, line: &str, event: &mut Event) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => self.dispatch(std::mem::take(event)),
            "event" => value.clone_into(&mut event.name),
            "id" => value.clone_into(&mut self.last_event_id),
            "data" => event.data.push_str(value),
            // Comments keep the connection alive; `retry` is for browsers.
            _ => {}
        }
    }

    fn dispatch(&mut self, event: Event) {
        if event.data.is_empty() {
            return;
        }
        (self.wait, self.events) = (FIRST_WAIT, self.events + 1);
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        match event.name.as_str() {
            "" | "killmail" => println!("{}", told(&data)),
            "batch" => data["kills"]
                .as_array()
                .into_iter()
                .flatten()
                .for_each(|killmail| println!("past {}", told(killmail))),
            name => println!("{name}: {}", event.data),
        }
    }
}

/// How long a refusing server wants us to wait, if it says so; an error where waiting does not help.
async fn refused(response: Response) -> anyhow::Result<Option<Duration>> {
    let status = response.status();
    let wait = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let text = response.text().await.unwrap_or_default();
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        bail!("{status}: {text}");
    }
    eprintln!("{status}: {text}");
    Ok(wait)
}

fn told(killmail: &Value) -> String {
    let isk = killmail["zkb"]["totalValue"].as_f64().unwrap_or_default();
    format!(
        "{} {} in {}: {isk:.0} ISK, {} attackers",
        killmail["killmail_id"],
        killmail["kill_time"],
        killmail["solar_system_id"],
        killmail["attacker_count"]
    )
}
