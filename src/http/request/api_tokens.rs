//! Bearer tokens and their scopes. The token in the data folder (or `API_TOKEN`) has every scope.
//!
//! Must not know: which route needs which scope.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use parking_lot::{Mutex, MutexGuard, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::hex::hex;
use crate::http::answer::error::Error;

/// The SHA-256 digest of a token; the token itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// The digest of a token.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Reads a digest in hex; `None` if it is malformed.
    #[must_use]
    pub fn from_digest(hex: &str) -> Option<Self> {
        let bytes: Vec<u8> = hex
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok())
            .collect::<Option<_>>()?;
        bytes.try_into().ok().map(Self)
    }

    #[must_use]
    pub fn digest(&self) -> String {
        hex(&self.0)
    }

    /// Whether this text is the token. Takes the same time however much of it is right.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let other = Self::new(text);
        self.0.iter().zip(other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything, including tokens and backups.
    Admin,
    /// Upload, promote, roll back and delete plugins.
    Plugins,
    /// Add killmails, or have them fetched.
    Killmails,
    /// Manage durable subscriptions.
    Subscriptions,
    /// Read operational events.
    Events,
}

impl Scope {
    pub const ALL: [Self; 5] =
        [Self::Admin, Self::Plugins, Self::Killmails, Self::Subscriptions, Self::Events];

    /// Its name in the API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Plugins => "plugins",
            Self::Killmails => "killmails",
            Self::Subscriptions => "subscriptions",
            Self::Events => "events",
        }
    }

    /// The scope of this name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }
}

/// A token that was created over the API.
#[derive(Debug, Clone)]
pub struct ApiToken {
    /// Unique among tokens.
    pub name: String,
    /// The digest of the secret.
    pub token: Token,
    /// What it allows.
    pub scopes: Vec<Scope>,
    pub created_at: i64,
}

/// All valid tokens.
#[derive(Debug)]
pub struct ApiTokens {
    admin: Token,
    created: RwLock<Vec<ApiToken>>,
    /// Held while the list is changed, on disk and here.
    changes: Mutex<()>,
}

impl ApiTokens {
    /// The token with every scope, and those created over the API.
    #[must_use]
    pub fn new(admin: &str, created: Vec<ApiToken>) -> Self {
        Self { admin: Token::new(admin), created: RwLock::new(created), changes: Mutex::default() }
    }

    /// The tokens created over the API.
    #[must_use]
    pub fn list(&self) -> Vec<ApiToken> {
        self.created.read().clone()
    }

    /// Locks the list against other changes until the guard is dropped.
    pub fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock()
    }

    /// Makes these the tokens created over the API.
    pub fn replace(&self, created: Vec<ApiToken>) {
        *self.created.write() = created;
    }

    /// Checks that the token of a request has the scope.
    ///
    /// # Errors
    /// 401 without a token or with an unknown one, 403 if it lacks the scope.
    pub fn authorize(&self, parts: &Parts, scope: Scope) -> Result<(), Error> {
        let text = bearer_token(&parts.headers).ok_or(Error::Unauthorized)?;
        if self.admin.matches(text) {
            return Ok(());
        }
        let created = self.created.read();
        // Compares with all of them, so that the time does not tell which one it is.
        let mut matching = None;
        for one in created.iter().filter(|one| one.token.matches(text)) {
            matching = Some(one);
        }
        let token = matching.ok_or(Error::Unauthorized)?;
        let allowed = token.scopes.iter().any(|has| [Scope::Admin, scope].contains(has));
        if allowed { Ok(()) } else { Err(Error::Forbidden { scope: scope.word() }) }
    }

    /// Whether a request has a valid token, whatever its scopes.
    #[must_use]
    pub fn has_valid_token(&self, headers: &HeaderMap) -> bool {
        bearer_token(headers).is_some_and(|text| {
            self.admin.matches(text) || self.created.read().iter().any(|one| one.token.matches(text))
        })
    }
}

/// The token in the `Authorization` header.
#[must_use]
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = header
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    sent.map(|(_, token)| token.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn only_the_whole_token_matches() {
        let token = Token::new("secret");
        assert!(token.matches("secret"));
        for other in ["", "secre", "secret ", "Secret", "secretsecret"] {
            assert!(!token.matches(other), "{other}");
        }
        assert_eq!(Token::from_digest(&token.digest()), Some(token));
        for text in ["", "00", "zz", &"é".repeat(32)] {
            assert_eq!(Token::from_digest(text), None);
        }
    }

    #[test]
    fn a_token_allows_what_its_scopes_say() {
        let created = |name: &str, scopes: &[Scope]| ApiToken {
            name: name.to_owned(),
            token: Token::new(name),
            scopes: scopes.to_vec(),
            created_at: 0,
        };
        let tokens = ApiTokens::new(
            "root",
            vec![created("ci", &[Scope::Plugins, Scope::Killmails]), created("second", &[Scope::Admin])],
        );
        let check = |header: &str, scope| {
            let (parts, ()) = Request::get("/").header(AUTHORIZATION, header).body(()).unwrap().into_parts();
            tokens.authorize(&parts, scope)
        };
        for scope in Scope::ALL {
            assert_eq!((check("Bearer root", scope), check("bearer second", scope)), (Ok(()), Ok(())));
            for wrong in ["Bearer wrong", "Basic root", "Bearer", "root", "Bearer "] {
                assert_eq!(check(wrong, scope), Err(Error::Unauthorized), "{wrong}");
            }
            let allowed = matches!(scope, Scope::Plugins | Scope::Killmails);
            assert_eq!(
                check("Bearer ci", scope),
                if allowed { Ok(()) } else { Err(Error::Forbidden { scope: scope.word() }) }
            );
            assert_eq!(Scope::from_word(scope.word()), Some(scope));
        }
        let is_valid = |header: &str| {
            tokens
                .has_valid_token(Request::get("/").header(AUTHORIZATION, header).body(()).unwrap().headers())
        };
        assert!(
            is_valid("Bearer root")
                && is_valid("bearer ci")
                && !is_valid("Bearer wrong")
                && !is_valid("Basic root")
        );
        tokens.replace(Vec::new());
        assert_eq!(check("Bearer ci", Scope::Plugins), Err(Error::Unauthorized));
        assert!(!is_valid("Bearer ci"));
    }
}
