//! What a conversation wants done: frames to send, readers to open, to change and to close.
//!
//! Must not know: who does it.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::subscription::Subscription;
use crate::domain::term::Term;
use crate::phoenix::join::PreloadRequest;

/// One thing to do. They are done in order.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send a frame.
    Send(Bytes),
    /// Send a frame whose middle is shared with other connections: it is not copied for this one.
    SendAround {
        /// What stands before the killmail.
        head: Bytes,
        /// The killmail.
        killmail: Bytes,
        /// What stands behind it.
        tail: Bytes,
    },
    /// Open a reader, and say what became of it.
    Open(Open),
    /// Give a reader another subscription, from where it stands on.
    Change {
        /// The channel.
        key: u64,
        /// What it gets from now on.
        subscription: Arc<Subscription>,
    },
    /// Preload the newest killmails of these terms, up to where the reader stands now.
    Preload {
        /// The channel.
        key: u64,
        /// How many, how old, how fast.
        wish: PreloadRequest,
        /// Of what.
        terms: Vec<Term>,
    },
    /// Find the count of a system, and say it.
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
    /// What it reads.
    pub subscription: Arc<Subscription>,
    /// The event id to go on after.
    pub resume_from: Option<String>,
    /// The channel it takes the place of: it is closed, and where it stood the new one begins, unless it
    /// resumes elsewhere.
    pub replaces: Option<u64>,
}
