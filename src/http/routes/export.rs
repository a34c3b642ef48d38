//! Everything kept, one killmail to a line, oldest first.
//!
//! Must not know: how killmails are kept.

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
use crate::http::answer::lazy_body::{LazyBody, Next};
use crate::http::answer::success::json_of;
use crate::http::request::auth::Admin;
use crate::http::request::connections::OwnPace;
use crate::http::state::HttpState;
use crate::http::stream::sse::Out;
use crate::store::query::Order;

/// Killmails read from disk at once.
const PAGE: usize = 256;

/// `GET /api/v1/export`. What comes while it runs is not in it.
pub async fn export(_: Admin, State(door): State<Arc<HttpState>>) -> Response {
    let feed = Arc::clone(&door.feed);
    let way = Way { head: feed.head(), feed, subscription: Arc::default(), after: None, done: false };
    let body = Body::from_stream(LazyBody::new(Out::default(), way, Way::step));
    (Extension(OwnPace), [(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

struct Way {
    feed: Arc<Feed>,
    subscription: Arc<Subscription>,
    head: Seq,
    after: Option<u32>,
    done: bool,
}

impl Way {
    async fn step(mut self) -> Next<Self> {
        if self.done {
            return Ok(None);
        }
        let subscription = Arc::clone(&self.subscription);
        let lookup =
            Lookup { subscription, order: Order::Oldest, after: self.after, head: self.head, limit: PAGE };
        let found = self.feed.lookup(lookup).await.map_err(cut_off)?;
        let kept = self.feed.load(found.chosen).await.map_err(cut_off)?;
        let mut out = Out::default();
        for kept in &kept {
            out.piece(json_of(kept));
            out.piece(Bytes::from_static(b"\n"));
        }
        self.done = found.next.is_none();
        self.after = found.next;
        Ok(Some((self, out)))
    }
}

fn cut_off(error: feed::error::FeedError) -> io::Error {
    tracing::error!(%error, "an export ends early: {error}");
    io::Error::other(error)
}
