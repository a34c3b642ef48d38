//! A client of the event streams that misses nothing: it remembers the last event id and resumes from there after a
//! break.
//!
//!     cargo run --release --example sse_client --
//!     'http://localhost:4004/api/v1/kills/stream/enhanced?system_ids=30000142'
//!
//! After a break it waits as long as the server asks (`Retry-After`), otherwise 500 ms, 1 s, 2 s and so on up to
//! 30 s, and 500 ms again once events arrive. An error that a retry cannot fix (a 4xx other than 429) ends it.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Response, StatusCode, header};
use serde_json::Value;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// One event, assembled line by line.
#[derive(Default)]
struct Event {
    name: String,
    data: String,
}

/// What is kept across connections.
struct Follower {
    client: Client,
    url: String,
    last_event_id: String,
    wait: Duration,
    events: u64,
    /// Ends after this many events.
    events_max: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "http://localhost:4004/api/v1/kills/stream".to_owned());
    let events_max = arguments
        .next()
        .map_or(Ok(u64::MAX), |count| count.parse())
        .context("the second argument is a number of events")?;
    // Fails if a provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(90))
        .build()?;
    Follower { client, url, last_event_id: String::new(), wait: FIRST_WAIT, events: 0, events_max }
        .follow()
        .await
}

impl Follower {
    async fn follow(&mut self) -> anyhow::Result<()> {
        while self.events < self.events_max {
            let requested_wait = match self.connect().await {
                Ok(response) if response.status().is_success() => {
                    self.read(response).await;
                    None
                }
                Ok(response) => retry_after(response).await?,
                Err(error) => {
                    eprintln!("cannot connect: {error}");
                    None
                }
            };
            if self.events < self.events_max {
                self.pause(requested_wait).await;
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

    async fn pause(&mut self, requested: Option<Duration>) {
        let wait = requested.unwrap_or(self.wait);
        eprintln!("reconnecting in {wait:?} from {:?}", self.last_event_id);
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
                if self.events >= self.events_max {
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
            // Comments only keep the connection alive; `retry` is for browsers.
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
            "" | "killmail" => println!("{}", describe(&data)),
            "batch" => data["kills"]
                .as_array()
                .into_iter()
                .flatten()
                .for_each(|killmail| println!("preload {}", describe(killmail))),
            name => println!("{name}: {}", event.data),
        }
    }
}

/// How long the server asks to wait, if it does; an error if a retry cannot help.
async fn retry_after(response: Response) -> anyhow::Result<Option<Duration>> {
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

fn describe(killmail: &Value) -> String {
    let isk = killmail["zkb"]["totalValue"].as_f64().unwrap_or_default();
    format!(
        "{} {} in {}: {isk:.0} ISK, {} attackers",
        killmail["killmail_id"],
        killmail["kill_time"],
        killmail["solar_system_id"],
        killmail["attacker_count"]
    )
}
