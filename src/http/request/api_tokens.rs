//! Bearer tokens, each with its scopes. The one of the data folder (or `API_TOKEN`) may do everything.
//!
//! Must not know: what is done with a right.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use parking_lot::{Mutex, MutexGuard, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::hex::hex;
use crate::http::answer::error::Error;

/// The digest of a token; the token itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// Of this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Of a digest written in hex; `None` if it is none.
    #[must_use]
    pub fn of_digest(hex: &str) -> Option<Self> {
        let bytes: Vec<u8> = hex
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok())
            .collect::<Option<_>>()?;
        bytes.try_into().ok().map(Self)
    }

    /// The digest in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        hex(&self.0)
    }

    /// Whether the text is the token. How long it takes tells nothing: digests are compared, and all of them.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let other = Self::new(text);
        self.0.iter().zip(other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

/// What a token lets do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything, tokens and backups among it.
    Admin,
    /// Upload, promote, roll back and delete plugins.
    Plugins,
    /// Hand in killmails, have them fetched.
    Killmails,
    /// Look after durable subscriptions.
    Subscriptions,
    /// Follow operational events.
    Events,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Admin, Self::Plugins, Self::Killmails, Self::Subscriptions, Self::Events];

    /// The word.
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

    /// The scope of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }
}

/// A token that was given out.
#[derive(Debug, Clone)]
pub struct Given {
    /// What it is called.
    pub name: String,
    /// Its digest.
    pub token: Token,
    /// What it lets do.
    pub scopes: Vec<Scope>,
    /// When it was made, unix seconds.
    pub created_at: i64,
}

/// Every token there is.
#[derive(Debug)]
pub struct Keys {
    admin: Token,
    given: RwLock<Vec<Given>>,
    /// Held by whoever changes the list.
    changing: Mutex<()>,
}

impl Keys {
    /// The one that may do everything, and those given out.
    #[must_use]
    pub fn new(admin: &str, given: Vec<Given>) -> Self {
        Self { admin: Token::new(admin), given: RwLock::new(given), changing: Mutex::default() }
    }

    /// Those given out.
    #[must_use]
    pub fn given(&self) -> Vec<Given> {
        self.given.read().clone()
    }

    /// Waits for whoever else changes them; they wait until this is dropped.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// These are given out from now on, and no others.
    pub fn replace(&self, given: Vec<Given>) {
        *self.given.write() = given;
    }

    /// Whether whoever sends these headers may do that.
    ///
    /// # Errors
    /// 401 without a token or with one nobody knows, 403 with one that lacks the scope.
    pub fn check(&self, parts: &Parts, scope: Scope) -> Result<(), Error> {
        let text = sent(&parts.headers).ok_or(Error::Unauthorized)?;
        if self.admin.is(text) {
            return Ok(());
        }
        let given = self.given.read();
        let known =
            given.iter().fold(None, |known, given| if given.token.is(text) { Some(given) } else { known });
        let known = known.ok_or(Error::Unauthorized)?;
        let may = known.scopes.iter().any(|has| [Scope::Admin, scope].contains(has));
        if may { Ok(()) } else { Err(Error::Forbidden { scope: scope.word() }) }
    }

    /// Whether the token among these headers is one of ours, whatever it lets do.
    #[must_use]
    pub fn knows(&self, headers: &HeaderMap) -> bool {
        sent(headers).is_some_and(|text| {
            self.admin.is(text) || self.given.read().iter().any(|given| given.token.is(text))
        })
    }
}

/// The token that was sent.
fn sent(headers: &HeaderMap) -> Option<&str> {
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
    fn only_the_token_is_the_token() {
        let token = Token::new("secret");
        assert!(token.is("secret"));
        for other in ["", "secre", "secret ", "Secret", "secretsecret"] {
            assert!(!token.is(other), "{other}");
        }
        assert_eq!(Token::of_digest(&token.digest()), Some(token));
        for text in ["", "00", "zz", &"é".repeat(32)] {
            assert_eq!(Token::of_digest(text), None);
        }
    }

    #[test]
    fn a_token_lets_do_what_its_scopes_say() {
        let given = |name: &str, scopes: &[Scope]| Given {
            name: name.to_owned(),
            token: Token::new(name),
            scopes: scopes.to_vec(),
            created_at: 0,
        };
        let keys = Keys::new(
            "root",
            vec![given("ci", &[Scope::Plugins, Scope::Killmails]), given("second", &[Scope::Admin])],
        );
        let check = |header: &str, scope| {
            let (parts, ()) = Request::get("/").header(AUTHORIZATION, header).body(()).unwrap().into_parts();
            keys.check(&parts, scope)
        };
        for scope in Scope::ALL {
            assert_eq!((check("Bearer root", scope), check("bearer second", scope)), (Ok(()), Ok(())));
            for wrong in ["Bearer wrong", "Basic root", "Bearer", "root", "Bearer "] {
                assert_eq!(check(wrong, scope), Err(Error::Unauthorized), "{wrong}");
            }
            let may = matches!(scope, Scope::Plugins | Scope::Killmails);
            assert_eq!(
                check("Bearer ci", scope),
                if may { Ok(()) } else { Err(Error::Forbidden { scope: scope.word() }) }
            );
            assert_eq!(Scope::of(scope.word()), Some(scope));
        }
        let knows = |header: &str| {
            keys.knows(Request::get("/").header(AUTHORIZATION, header).body(()).unwrap().headers())
        };
        assert!(knows("Bearer root") && knows("bearer ci") && !knows("Bearer wrong") && !knows("Basic root"));
        keys.replace(Vec::new());
        assert_eq!(check("Bearer ci", Scope::Plugins), Err(Error::Unauthorized));
        assert!(!knows("Bearer ci"));
    }
}
