//! Who may write: the bearer token.
//!
//! Must not know: what is written.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};

use crate::http::Door;
use crate::http::error::Error;

/// The digest of a token; the token itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// Of this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Whether the text is the token. How long it takes tells nothing: digests are compared, and all of them.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let other = Self::new(text);
        self.0.iter().zip(other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

/// Proof that the caller may do everything.
#[derive(Debug, Clone, Copy)]
pub struct Admin;

impl FromRequestParts<Arc<Door>> for Admin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Error> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let sent = header.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match sent {
            Some((_, token)) if door.token.is(token.trim()) => Ok(Self),
            _ => Err(Error::Unauthorized),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_the_token() {
        let token = Token::new("secret");
        assert!(token.is("secret"));
        for other in ["", "secre", "secret ", "Secret", "secretsecret"] {
            assert!(!token.is(other), "{other}");
        }
    }
}
