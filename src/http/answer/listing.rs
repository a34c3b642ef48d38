//! JSON responses with killmails or long lists in them, written while the client reads. For a client that
//! does not read, the server holds a list of numbers and one portion of text, not the whole response. A short
//! response is written at once and has a `Content-Length`.
//!
//! Must not know: what was asked for, or how killmails are found.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use bytes::{Bytes, BytesMut};

use crate::domain::filter::IdSet;
use crate::feed::filters::FilterLease;
use crate::feed::history::{Chosen, Latest};
use crate::feed::{self, Feed};
use crate::http::answer::error::Error;
use crate::http::answer::lazy_body::{LazyBody, StepResult};
use crate::http::stream::sse::Chunks;
use crate::store::Store;
use crate::wire::killmail::delivered_json;

/// The largest response that is sent whole, approximately.
const WHOLE_BYTES: usize = 256 << 10;
/// The size of a portion of a longer response, approximately.
const PORTION_BYTES: usize = 256 << 10;
/// Bytes the HTTP library gets before it has to ask for more.
const UNSENT_BYTES: usize = 256 << 10;
/// Bytes of a chunk; the HTTP library holds up to 16 chunks for a client that does not read.
const CHUNK_BYTES: usize = 32 << 10;

/// The most bytes an id in a list takes, with its comma.
const ID_BYTES: usize = 11;

/// A response to be written.
pub struct Listing {
    feed: Arc<Feed>,
    store: Arc<Store>,
    parts: VecDeque<Part>,
    /// Released when everything is written.
    filter: Option<FilterLease>,
}

/// A part of a response.
pub enum Part {
    /// JSON as it is.
    Text(Bytes),
    /// An array of killmails.
    Killmails {
        /// Those still to be written.
        chosen: VecDeque<Chosen>,
        /// Whether the opening bracket is written.
        is_open: bool,
    },
    /// Ids, separated by commas.
    Ids {
        /// All of them.
        ids: IdSet,
        /// The index of the next one to be written.
        next: usize,
    },
    /// An array of killmails that are searched for when their turn comes; empty if the search fails.
    Latest(Latest),
    /// Parts that are made when their turn comes.
    Lazy(Box<dyn Iterator<Item = Self> + Send>),
}

impl Listing {
    /// An empty response.
    #[must_use]
    pub fn new(feed: &Arc<Feed>, store: &Arc<Store>) -> Self {
        Self { feed: Arc::clone(feed), store: Arc::clone(store), parts: VecDeque::new(), filter: None }
    }

    /// Keeps a filter counted as in use until everything is written.
    #[must_use]
    pub fn with_filter(self, filter: Option<FilterLease>) -> Self {
        Self { filter, ..self }
    }

    /// Appends JSON text.
    pub fn text(&mut self, text: impl Into<Bytes>) -> &mut Self {
        self.parts.push_back(Part::Text(text.into()));
        self
    }

    /// Appends ids, separated by commas.
    pub fn ids(&mut self, ids: &IdSet) -> &mut Self {
        self.parts.push_back(Part::Ids { ids: ids.clone(), next: 0 });
        self
    }

    /// Appends parts that are made when everything before them is written.
    pub fn lazy(&mut self, parts: impl Iterator<Item = Part> + Send + 'static) -> &mut Self {
        self.parts.push_back(Part::Lazy(Box::new(parts)));
        self
    }

    /// Appends an array of killmails.
    pub fn killmails(&mut self, chosen: Vec<Chosen>) -> &mut Self {
        self.parts.push_back(Part::Killmails { chosen: chosen.into(), is_open: false });
        self
    }

    /// Appends an array of killmails that are searched for when everything before it is written.
    pub fn latest(&mut self, latest: Latest) -> &mut Self {
        self.parts.push_back(Part::Latest(latest));
        self
    }

    /// Turns it into a response. The first portion is written here, so that a failing disk is an error and
    /// not a response cut off.
    ///
    /// # Errors
    /// The store failed.
    pub async fn respond(&mut self) -> Result<Response, Error> {
        let mut this = Self {
            feed: Arc::clone(&self.feed),
            store: Arc::clone(&self.store),
            parts: std::mem::take(&mut self.parts),
            filter: self.filter.take(),
        };
        let first = this.portion(WHOLE_BYTES).await.map_err(Error::history)?;
        let body = if this.parts.is_empty() {
            Body::from(first)
        } else {
            Body::from_stream(
                LazyBody::new(split_into_chunks(&first), this, Self::step).with_unsent(UNSENT_BYTES),
            )
        };
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        Ok(response)
    }

    async fn step(mut self) -> StepResult<Self> {
        if self.parts.is_empty() {
            return Ok(None);
        }
        match self.portion(PORTION_BYTES).await {
            Ok(text) => Ok(Some((self, split_into_chunks(&text)))),
            Err(error) => {
                tracing::error!(%error, "a response ends early: {error}");
                Err(io::Error::other(error))
            }
        }
    }

    /// The next portion of the text: all that is left, or at least `bytes` bytes.
    async fn portion(&mut self, bytes: usize) -> Result<Bytes, feed::error::FeedError> {
        let mut text = BytesMut::new();
        while text.len() < bytes {
            match self.parts.pop_front() {
                None => break,
                Some(Part::Text(part)) => text.extend_from_slice(&part),
                Some(Part::Ids { ids, next }) => {
                    let end = ids.as_slice().len().min(next + bytes / ID_BYTES);
                    for (n, id) in (next..end).zip(&ids.as_slice()[next..end]) {
                        text.extend_from_slice(if n == 0 { b"" } else { b"," });
                        text.extend_from_slice(id.to_string().as_bytes());
                    }
                    if end < ids.as_slice().len() {
                        self.parts.push_front(Part::Ids { ids, next: end });
                    }
                }
                Some(Part::Lazy(mut parts)) => {
                    if let Some(part) = parts.next() {
                        self.parts.push_front(Part::Lazy(parts));
                        self.parts.push_front(part);
                    }
                }
                Some(Part::Latest(latest)) => {
                    let (chosen, _) = self.feed.latest(latest).await.unwrap_or_default();
                    self.parts.push_front(Part::Killmails { chosen: chosen.into(), is_open: false });
                }
                Some(Part::Killmails { mut chosen, mut is_open }) => {
                    let room = bytes.saturating_sub(text.len());
                    for kept in self.feed.load(self.take_first(&mut chosen, room)).await? {
                        text.extend_from_slice(if is_open { b"," } else { b"[" });
                        text.extend_from_slice(&delivered_json(&kept));
                        is_open = true;
                    }
                    if chosen.is_empty() {
                        text.extend_from_slice(if is_open { b"]" } else { b"[]" });
                    } else {
                        self.parts.push_front(Part::Killmails { chosen, is_open });
                    }
                }
            }
        }
        Ok(text.freeze())
    }

    /// Takes killmails until their JSON adds up to `bytes`; at least one.
    fn take_first(&self, chosen: &mut VecDeque<Chosen>, bytes: usize) -> Vec<Chosen> {
        let (mut taken, mut sum) = (Vec::new(), 0);
        while sum < bytes.max(1) {
            let Some(next) = chosen.pop_front() else { break };
            let annotated: usize = next.annotations.iter().map(|(name, json)| name.len() + json.len()).sum();
            sum += (self.store.weight_of(next.hit.seq) as usize + annotated).max(1);
            taken.push(next);
        }
        taken
    }
}

fn split_into_chunks(text: &Bytes) -> Chunks {
    let mut chunks = Chunks::default();
    (0..text.len())
        .step_by(CHUNK_BYTES)
        .for_each(|at| chunks.push(text.slice(at..text.len().min(at + CHUNK_BYTES))));
    chunks
}
