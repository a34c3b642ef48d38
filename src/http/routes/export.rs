//! Export of all killmails, one per line, oldest first.
//!
//! Must not know: how killmails are stored.

use std::io;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::domain::id::Seq;
use crate::domain::subscription::Subscription;
use crate::feed::history::Lookup;
use crate::feed::{self, Feed};
use crate::http::answer::lazy_body::{LazyBody, StepResult};
use crate::http::request::auth::Admin;
use crate::http::request::connections::ClientPaced;
use crate::http::state::HttpState;
use crate::http::stream::sse::Chunks;
use crate::store::query::Order;
use crate::wire::killmail::delivered_json;

/// Killmails read from disk at once.
const PAGE: usize = 256;

/// `GET /api/v1/export`. Killmails added while it runs are not part of it.
pub async fn export(_: Admin, State(state): State<Arc<HttpState>>) -> Response {
    let feed = Arc::clone(&state.feed);
    let export =
        ExportBody { head: feed.head(), feed, subscription: Arc::default(), after: None, done: false };
    let body = Body::from_stream(LazyBody::new(Chunks::default(), export, ExportBody::step));
    (Extension(ClientPaced), [(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// The rest of an export.
struct ExportBody {
    feed: Arc<Feed>,
    subscription: Arc<Subscription>,
    head: Seq,
    after: Option<u32>,
    done: bool,
}

impl ExportBody {
    async fn step(mut self) -> StepResult<Self> {
        if self.done {
            return Ok(None);
        }
        let subscription = Arc::clone(&self.subscription);
        let lookup =
            Lookup { subscription, order: Order::Oldest, after: self.after, head: self.head, limit: PAGE };
        let found = self.feed.lookup(lookup).await.map_err(cut_off)?;
        let kept = self.feed.load(found.chosen).await.map_err(cut_off)?;
        let mut chunks = Chunks::default();
        for kept in &kept {
            chunks.push(delivered_json(kept));
            chunks.push(Bytes::from_static(b"\n"));
        }
        self.done = found.next.is_none();
        self.after = found.next;
        Ok(Some((self, chunks)))
    }
}

fn cut_off(error: feed::error::FeedError) -> io::Error {
    tracing::error!(%error, "an export ends early: {error}");
    io::Error::other(error)
}
