//! The effects of a session: frames to send, readers to open, change and close. The session is a value; its
//! connection carries these out.
//!
//! Must not know: how they are carried out.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::subscription::Subscription;
use crate::domain::term::Term;
use crate::phoenix::join::PreloadRequest;

/// One effect. They are carried out in order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send a frame.
    Send(Bytes),
    /// Send a frame whose middle is shared with other connections, without copying it.
    SendShared {
        /// The bytes before the killmail.
        head: Bytes,
        /// The killmail.
        killmail: Bytes,
        /// The bytes after it.
        tail: Bytes,
    },
    /// Open a reader and report the result.
    Open(Open),
    /// Change the subscription of a reader, from its place on.
    Change {
        /// The channel.
        key: u64,
        /// The new subscription.
        subscription: Arc<Subscription>,
    },
    /// Preload the newest killmails of these terms, up to the reader's place.
    Preload {
        /// The channel.
        key: u64,
        /// How many, how old, how fast.
        request: PreloadRequest,
        /// The terms.
        terms: Vec<Term>,
    },
    /// Send the kill count of a system.
    Count {
        /// The channel.
        key: u64,
        /// The system.
        system: u32,
    },
    /// Close a reader.
    Close {
        /// The channel.
        key: u64,
    },
    /// A join was refused.
    Refused,
}

/// A reader to open.
#[derive(Debug, Clone)]
pub struct Open {
    /// The channel it is for.
    pub key: u64,
    /// Its topic.
    pub topic: String,
    /// Its subscription.
    pub subscription: Arc<Subscription>,
    /// The event id to resume after.
    pub resume_from: Option<String>,
    /// The channel it replaces: that one is closed, and the new one starts at its place unless it resumes elsewhere.
    pub replaces: Option<u64>,
}
