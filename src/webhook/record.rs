//! What is stored of a subscription: the definition, the state, and attempts. Law 4 (old bytes speak): a member is added
//! with a default, never renamed or removed.
//!
//! Must not know: where records are stored.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::domain::id::EventId;
use crate::webhook::request::Members;
use crate::webhook::schedule::Failures;
use crate::webhook::signature::Secret;

/// How many attempts are kept.
pub const ATTEMPTS_MAX: u64 = 100;

/// What its owner asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredDefinition {
    /// The members of the request.
    pub members: Members,
    /// The secrets, newest first.
    pub secrets: Vec<StoredSecret>,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds.
    pub updated_at_ms: i64,
    /// The address it was created from without a token.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Whether it was created with a token.
    #[serde(default)]
    pub trusted: bool,
}

/// A secret that signs.
#[derive(Clone, Serialize, Deserialize)]
pub struct StoredSecret {
    text: String,
    /// Until when it signs, unix milliseconds; `None` for the newest one.
    pub until_ms: Option<i64>,
}

impl std::fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredSecret").field("until_ms", &self.until_ms).finish_non_exhaustive()
    }
}

impl StoredSecret {
    /// A secret that signs until it is replaced.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        Self { text: secret.text(), until_ms: None }
    }

    /// The secret, unless its time is over.
    #[must_use]
    pub fn live(&self, now_ms: i64) -> Option<Secret> {
        let is_live = self.until_ms.is_none_or(|until| now_ms < until);
        Secret::parse(&self.text).ok().filter(|_| is_live)
    }
}

/// Whether killmails are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// They are.
    #[default]
    Active,
    /// Its owner, or a fault of its plugin, paused it.
    Paused,
    /// The endpoint failed for too long, or wants nothing any more.
    Disabled,
}

/// How far a subscription was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredState {
    /// Delivery continues after it.
    pub place: EventId,
    #[serde(default)]
    pub status: Status,
    /// Why it is not active.
    #[serde(default)]
    pub reason: Option<String>,
    /// Failures in a row.
    #[serde(default)]
    pub failures: Failures,
    /// Not before this, unix milliseconds.
    #[serde(default)]
    pub next_attempt_ms: Option<i64>,
    /// The status of the last answer.
    #[serde(default)]
    pub last_status: Option<u16>,
    /// Killmails delivered.
    #[serde(default)]
    pub delivered: u64,
    /// Attempts made; the next one goes to the slot of this number.
    #[serde(default)]
    pub attempts: u64,
    /// How many times its owner moved the place back. Killmails delivered again get other ids.
    #[serde(default)]
    pub redeliveries: u32,
}

impl StoredState {
    /// The state of a new subscription that gets what follows this place.
    #[must_use]
    pub const fn new(place: EventId) -> Self {
        Self {
            place,
            status: Status::Active,
            reason: None,
            failures: Failures { count: 0, since_ms: 0 },
            next_attempt_ms: None,
            last_status: None,
            delivered: 0,
            attempts: 0,
            redeliveries: 0,
        }
    }
}

/// An attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredAttempt {
    /// Which one it is of this subscription, from 0.
    pub number: u64,
    /// Unix milliseconds.
    pub at_ms: i64,
    pub webhook_id: String,
    pub killmail_ids: Vec<u32>,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    pub error: Option<String>,
    pub duration_ms: u64,
}
