//! A live source of any kind, ready to be followed.
//!
//! Must not know: how a source asks and waits.

use crate::ingest::arrival::Arrival;
use crate::ingest::r2z2::R2z2;
use crate::ingest::redisq::Redisq;
use crate::ingest::replay::Replay;
use crate::ingest::websocket::Websocket;

/// Where live killmails come from.
#[derive(Debug)]
pub enum Source {
    /// zKillboard's feed of numbered files.
    R2z2(Box<R2z2>),
    /// Files, as if they happened now.
    Replay(Box<Replay>),
    /// A queue that remembers what we had.
    Redisq(Box<Redisq>),
    /// A websocket that sends killmails as they come.
    Websocket(Box<Websocket>),
    /// Nowhere.
    None,
}

impl Source {
    /// A word for reports.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::R2z2(_) => "r2z2",
            Self::Replay(_) => "replay",
            Self::Redisq(_) => "redisq",
            Self::Websocket(_) => "websocket",
            Self::None => "none",
        }
    }

    /// What arrives next; `None` when nothing more will.
    pub async fn next(&mut self) -> Option<Arrival> {
        match self {
            Self::R2z2(r2z2) => Some(r2z2.next().await),
            Self::Replay(replay) => replay.next().await,
            Self::Redisq(redisq) => Some(redisq.next().await),
            Self::Websocket(websocket) => Some(websocket.next().await),
            Self::None => None,
        }
    }
}
