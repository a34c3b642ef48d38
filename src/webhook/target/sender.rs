//! Sends one request to the URL of a webhook, and tells what came of it.
//!
//! Must not know: what is sent, and what follows from the answer.

use bytes::Bytes;

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The server answered.
    Status {
        /// The status code.
        status: u16,
        /// The text of `Retry-After`.
        retry_after: Option<String>,
        /// The beginning of the body.
        body: Bytes,
    },
    /// It did not, or the URL may not be called.
    Failed {
        /// Why.
        error: String,
    },
}
