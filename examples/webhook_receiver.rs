//! Receives webhooks: verifies their signatures, remembers their ids, prints their killmails.
//!
//!     WEBHOOK_SECRET=whsec_... cargo run --release --example webhook_receiver -- --listen 127.0.0.1:8088
//!
//! It answers 401 to what is not signed with the secret within the last five minutes, and 204 to everything else. A
//! delivery can arrive more than once, always with the same `webhook-id`: it is printed the first time only. A receiver
//! that keeps killmails stores the id together with them, and answers when both are stored.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use clap::Parser;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

/// A message holds up to 50 killmails, and the largest known one takes 700 KB.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Deliveries that are repeated after days are still recognised.
const REMEMBERED_IDS_MAX: usize = 100_000;

/// Receives killstream's webhooks, verifies them and prints their killmails.
#[derive(Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    /// The secret that creating the subscription returned; several while it is being replaced.
    #[arg(
        long = "secret",
        env = "WEBHOOK_SECRET",
        hide_env_values = true,
        required = true,
        value_delimiter = ','
    )]
    secrets: Vec<String>,
}

/// What requests share.
struct Receiver {
    verifiers: Vec<Webhook>,
    seen: Mutex<SeenIds>,
}

/// The newest ids, the oldest first.
#[derive(Default)]
struct SeenIds {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl SeenIds {
    /// Remembers an id; false if it was known.
    fn insert(&mut self, id: &str) -> bool {
        if !self.known.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > REMEMBERED_IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, secrets } = Arguments::parse();
    let verifiers = secrets.iter().map(|secret| Webhook::new(secret)).collect::<Result<_, _>>();
    let verifiers = verifiers.context("a secret is `whsec_` and base64")?;
    let receiver = Arc::new(Receiver { verifiers, seen: Mutex::default() });
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    let routes = Router::new().route("/", post(receive)).fallback(post(receive)).with_state(receiver);
    axum::serve(listener, routes).await?;
    Ok(())
}

async fn receive(State(receiver): State<Arc<Receiver>>, request: Request) -> StatusCode {
    let (head, body) = request.into_parts();
    receiver.answer(&head.headers, body).await
}

impl Receiver {
    async fn answer(&self, headers: &HeaderMap, body: Body) -> StatusCode {
        let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else { return StatusCode::PAYLOAD_TOO_LARGE };
        // The bytes as they arrived are signed, not what parsing them gives.
        if !self.verifiers.iter().any(|verifier| verifier.verify(&body, headers).is_ok()) {
            eprintln!("refused: the signature is missing, wrong or too old");
            return StatusCode::UNAUTHORIZED;
        }
        let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let is_new = self.seen.lock().is_ok_and(|mut seen| seen.insert(id));
        match serde_json::from_slice(&body) {
            Ok(message) if is_new => print(id, &message),
            Ok(_) => println!("{id}: again"),
            Err(error) => println!("{id}: not JSON: {error}"),
        }
        StatusCode::NO_CONTENT
    }
}

fn print(id: &str, message: &Value) {
    let flag = |name: &str| if message[name] == true { format!(" ({name})") } else { String::new() };
    let system = &message["system_id"];
    match message["type"].as_str() {
        Some("killmail_update") => {
            for killmail in message["kills"].as_array().into_iter().flatten() {
                println!(
                    "{id}: killmail {} at {} in {}: {}, {} ISK{}{}",
                    killmail["killmail_id"],
                    killmail["kill_time"].as_str().unwrap_or("an unknown time"),
                    killmail["solar_system_name"].as_str().map_or_else(|| system.to_string(), str::to_owned),
                    killmail["victim"]["ship_name"].as_str().unwrap_or("unknown ship"),
                    killmail["total_value"],
                    flag("preload"),
                    flag("test"),
                );
            }
        }
        Some("killmail_count_update") => {
            println!("{id}: system {system} had {} killmails in 24 hours", message["count"]);
        }
        // Kinds that are added later must not make a receiver fail.
        _ => println!("{id}: a message of another kind"),
    }
}
