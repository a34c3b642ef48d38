//! A live source of any kind, opened and ready to be followed.
//!
//! Must not know: how a source sends requests and waits.

use crate::ingest::arrival::Arrival;
use crate::ingest::r2z2::R2z2;
use crate::ingest::redisq::Redisq;
use crate::ingest::replay::Replay;
use crate::ingest::websocket::Websocket;
use crate::telemetry::source_kind::SourceKind;

/// An open source.
#[derive(Debug)]
pub enum Source {
    R2z2(Box<R2z2>),
    Websocket(Box<Websocket>),
    Redisq(Box<Redisq>),
    Replay(Box<Replay>),
    /// Nothing arrives live.
    None,
}

impl Source {
    /// What kind of source this is.
    #[must_use]
    pub const fn kind(&self) -> SourceKind {
        match self {
            Self::R2z2(_) => SourceKind::R2z2,
            Self::Websocket(_) => SourceKind::Websocket,
            Self::Redisq(_) => SourceKind::Redisq,
            Self::Replay(_) => SourceKind::Replay,
            Self::None => SourceKind::None,
        }
    }

    /// Waits for the next arrival; `None` once the source has ended.
    pub async fn next(&mut self) -> Option<Arrival> {
        match self {
            Self::R2z2(r2z2) => Some(r2z2.next().await),
            Self::Websocket(websocket) => Some(websocket.next().await),
            Self::Redisq(redisq) => Some(redisq.next().await),
            Self::Replay(replay) => replay.next().await,
            Self::None => None,
        }
    }
}
