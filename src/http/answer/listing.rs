//! Answers with killmails or long lists in them, made while they are taken: what is held for a client that
//! does not read is a list of numbers and one portion of text, not the whole answer. A short answer is made
//! at once and has its length.
//!
//! Must not know: what was asked, how killmails are found.

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
use crate::http::answer::lazy_body::{LazyBody, Next};
use crate::http::answer::success::json_of;
use crate::http::stream::sse::Out;

/// An answer that ends within so much JSON, about, is sent whole.
const WHOLE_BYTES: usize = 256 << 10;
/// JSON made at once of a longer one, about.
const PORTION_BYTES: usize = 256 << 10;
/// So many bytes are with the HTTP library before it has to come back for more.
const UNSENT_BYTES: usize = 256 << 10;
/// A piece handed to the HTTP library, which holds up to 16 of them for a client that does not read.
const PIECE_BYTES: usize = 32 << 10;

/// An id in a list, at most, bytes.
const ID_BYTES: usize = 11;

/// An answer to be.
pub struct Listing {
    feed: Arc<Feed>,
    parts: VecDeque<Part>,
    held: Option<FilterLease>,
}

/// A part of an answer.
pub enum Part {
    /// JSON as it is.
    Text(Bytes),
    /// Killmails in a list; `true`: it is open already.
    Killmails(VecDeque<Chosen>, bool),
    /// Ids with commas between, from the so-manieth on.
    Ids(IdSet, usize),
    /// A list that is looked for when its turn comes; where that fails it is empty.
    Sought(Latest),
    /// Parts that are made when their turn comes.
    Each(Box<dyn Iterator<Item = Self> + Send>),
}

impl Listing {
    /// Nothing yet.
    #[must_use]
    pub fn new(feed: &Arc<Feed>) -> Self {
        Self { feed: Arc::clone(feed), parts: VecDeque::new(), held: None }
    }

    /// The same, with a filter that is in use until everything is taken.
    #[must_use]
    pub fn holding(self, held: Option<FilterLease>) -> Self {
        Self { held, ..self }
    }

    /// Appends JSON as it is.
    pub fn text(&mut self, text: impl Into<Bytes>) -> &mut Self {
        self.parts.push_back(Part::Text(text.into()));
        self
    }

    /// Appends ids with commas between.
    pub fn ids(&mut self, ids: &IdSet) -> &mut Self {
        self.parts.push_back(Part::Ids(ids.clone(), 0));
        self
    }

    /// Appends parts that are made when everything before is taken.
    pub fn each(&mut self, parts: impl Iterator<Item = Part> + Send + 'static) -> &mut Self {
        self.parts.push_back(Part::Each(Box::new(parts)));
        self
    }

    /// Appends killmails as an array.
    pub fn killmails(&mut self, chosen: Vec<Chosen>) -> &mut Self {
        self.parts.push_back(Part::Killmails(chosen.into(), false));
        self
    }

    /// Appends an array of killmails that are looked for when everything before is taken.
    pub fn sought(&mut self, latest: Latest) -> &mut Self {
        self.parts.push_back(Part::Sought(latest));
        self
    }

    /// The answer. Its first portion is made here, so that a disk that cannot be read is an error and not an
    /// answer cut off.
    ///
    /// # Errors
    /// The store failed.
    pub async fn answer(&mut self) -> Result<Response, Error> {
        let mut this = Self {
            feed: Arc::clone(&self.feed),
            parts: std::mem::take(&mut self.parts),
            held: self.held.take(),
        };
        let first = this.portion(WHOLE_BYTES).await.map_err(Error::history)?;
        let body = if this.parts.is_empty() {
            Body::from(first)
        } else {
            Body::from_stream(LazyBody::new(pieces(&first), this, Self::step).with_unsent(UNSENT_BYTES))
        };
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        Ok(response)
    }

    async fn step(mut self) -> Next<Self> {
        if self.parts.is_empty() {
            return Ok(None);
        }
        match self.portion(PORTION_BYTES).await {
            Ok(text) => Ok(Some((self, pieces(&text)))),
            Err(error) => {
                tracing::error!(%error, "an answer ends early: {error}");
                Err(io::Error::other(error))
            }
        }
    }

    /// The next portion of the text: all of it, or at least so much.
    async fn portion(&mut self, bytes: usize) -> Result<Bytes, feed::error::FeedError> {
        let mut text = BytesMut::new();
        while text.len() < bytes {
            match self.parts.pop_front() {
                None => break,
                Some(Part::Text(part)) => text.extend_from_slice(&part),
                Some(Part::Ids(ids, at)) => {
                    let end = ids.as_slice().len().min(at + bytes / ID_BYTES);
                    for (n, id) in (at..end).zip(&ids.as_slice()[at..end]) {
                        text.extend_from_slice(if n == 0 { b"" } else { b"," });
                        text.extend_from_slice(id.to_string().as_bytes());
                    }
                    if end < ids.as_slice().len() {
                        self.parts.push_front(Part::Ids(ids, end));
                    }
                }
                Some(Part::Each(mut parts)) => {
                    if let Some(part) = parts.next() {
                        self.parts.push_front(Part::Each(parts));
                        self.parts.push_front(part);
                    }
                }
                Some(Part::Sought(latest)) => {
                    let (chosen, _) = self.feed.latest(latest).await.unwrap_or_default();
                    self.parts.push_front(Part::Killmails(chosen.into(), false));
                }
                Some(Part::Killmails(mut chosen, mut open)) => {
                    let room = bytes.saturating_sub(text.len());
                    for kept in self.feed.load(self.first(&mut chosen, room)).await? {
                        text.extend_from_slice(if open { b"," } else { b"[" });
                        text.extend_from_slice(&json_of(&kept));
                        open = true;
                    }
                    if chosen.is_empty() {
                        text.extend_from_slice(if open { b"]" } else { b"[]" });
                    } else {
                        self.parts.push_front(Part::Killmails(chosen, open));
                    }
                }
            }
        }
        Ok(text.freeze())
    }

    /// Takes as many as have so much text together, one at least.
    fn first(&self, chosen: &mut VecDeque<Chosen>, bytes: usize) -> Vec<Chosen> {
        let (store, mut taken, mut sum) = (self.feed.store(), Vec::new(), 0);
        while sum < bytes.max(1) {
            let Some(one) = chosen.pop_front() else { break };
            let annotated: usize = one.annotations.iter().map(|(name, said)| name.len() + said.len()).sum();
            sum += (store.weight_of(one.hit.seq) as usize + annotated).max(1);
            taken.push(one);
        }
        taken
    }
}

fn pieces(text: &Bytes) -> Out {
    let mut out = Out::default();
    (0..text.len())
        .step_by(PIECE_BYTES)
        .for_each(|at| out.piece(text.slice(at..text.len().min(at + PIECE_BYTES))));
    out
}
