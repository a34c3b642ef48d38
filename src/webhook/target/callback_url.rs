//! The URL a webhook calls: `http` or `https`, a host, no user name.
//!
//! Readers of URLs disagree about backslashes, white space and missing slashes. A text in which they could see
//! different hosts is refused, and nothing but the URL read here is called.
//!
//! Must not know: which addresses may be called.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use crate::webhook::target::target_error::TargetError;

const SCHEMES: [&str; 2] = ["http://", "https://"];
const LOCALHOST: &str = "localhost";

/// A URL that a webhook may name. `Debug` shows the host only: the rest may contain a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackUrl {
    text: String,
    url: Url,
}

impl CallbackUrl {
    /// Reads a URL. Whether it may be called is not checked.
    ///
    /// # Errors
    /// It is not the URL of a web server, or contains a user name.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let rest = SCHEMES
            .iter()
            .find_map(|scheme| {
                let (start, rest) = text.split_at_checked(scheme.len())?;
                start.eq_ignore_ascii_case(scheme).then_some(rest)
            })
            .ok_or(TargetError::NotHttp)?;
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(TargetError::NotHttp);
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() {
            return Err(TargetError::NotHttp);
        }
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        let mut url = Url::parse(text).map_err(|_| TargetError::NotHttp)?;
        url.set_fragment(None);
        let is_readable = url.host_str().is_some_and(|host| !host.trim_matches('.').is_empty());
        if !is_readable || !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::NotHttp);
        }
        Ok(Self { text: text.to_owned(), url })
    }

    /// The URL as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The URL that is called: the host in ASCII, addresses in their usual form.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// The host in lower case, without a dot at the end: the same for all spellings, for limits per host.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default().trim_end_matches('.')
    }

    /// The port, given or that of the scheme.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or_default()
    }

    /// The address, if the host is one. A connection to it resolves nothing.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        // Read like the connector does, so that both agree which hosts are addresses.
        self.url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// Whether the host is `localhost` or below it: by definition a loopback address.
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        self.host().strip_suffix(LOCALHOST).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The URL with one more query parameter.
    #[must_use]
    pub fn with_parameter(&self, name: &str, value: &str) -> Self {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair(name, value);
        Self { text: url.to_string(), url }
    }
}

impl fmt::Debug for CallbackUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallbackUrl({}://{}:{}/..)", self.url.scheme(), self.host(), self.port())
    }
}
