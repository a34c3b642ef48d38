//! A fake R2Z2 on localhost: numbered files, served once they are published.
//!
//! Must not know: who reads it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use killstream::domain::killmail::Killmail;
use killstream::sample::document;
use killstream::tasks;
use parking_lot::Mutex;
use tokio::net::TcpListener;

/// The first number.
pub const FIRST: u64 = 96_000_000;

#[derive(Debug, Default)]
struct Files {
    documents: BTreeMap<u64, String>,
    /// The killmail of each number.
    killmails: BTreeMap<u64, u32>,
    /// When each killmail was first served.
    served: HashMap<u32, Instant>,
}

/// The fake feed.
#[derive(Debug, Clone, Default)]
pub struct FakeFeed {
    files: Arc<Mutex<Files>>,
}

impl FakeFeed {
    /// Starts to serve. Returns the address.
    pub async fn start(&self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/ephemeral/sequence.json", get(|| async { format!("{{\"sequence\":{FIRST}}}") }))
            .route("/ephemeral/{file}", get(file))
            .with_state(self.clone());
        drop(tasks::spawn("fake-feed", async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the fake feed ended: {error}");
            }
        }));
        Ok(address)
    }

    /// Publishes a killmail under the next number, uploaded at its own time.
    pub fn publish(&self, killmail: &Killmail) {
        let mut files = self.files.lock();
        let number = FIRST + files.documents.len() as u64;
        files.documents.insert(number, document::r2z2(killmail, killmail.time, number));
        files.killmails.insert(number, killmail.killmail_id);
    }

    /// When a killmail was first served.
    pub fn served(&self, killmail_id: u32) -> Option<Instant> {
        self.files.lock().served.get(&killmail_id).copied()
    }
}

async fn file(State(feed): State<FakeFeed>, Path(file): Path<String>) -> Result<String, StatusCode> {
    let number = file.strip_suffix(".json").and_then(|number| number.parse::<u64>().ok());
    let mut files = feed.files.lock();
    if let Some(killmail_id) = number.and_then(|number| files.killmails.get(&number)).copied() {
        files.served.entry(killmail_id).or_insert_with(Instant::now);
    }
    number.and_then(|number| files.documents.get(&number)).cloned().ok_or(StatusCode::NOT_FOUND)
}
