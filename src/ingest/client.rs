//! The HTTP client for upstream servers: `User-Agent`, timeouts, size limits, `Retry-After`.
//!
//! Must not know: what is requested.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};

use crate::clock;
use crate::ingest::backoff::RETRY_AFTER_MAX;
use crate::tls;
use crate::wire::time::parse_retry_after;

const REDIRECTS_MAX: usize = 5;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, a timeout, or a response that broke off.
    #[error("{}", .0.to_string().trim_end())]
    Http(#[from] reqwest::Error),
    #[error("the response is longer than {0} bytes")]
    TooLong(usize),
}

impl Error {
    /// Whether the other side was too slow.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_timeout())
    }
}

/// The `User-Agent`: name, version and how to reach the operator.
#[must_use]
pub fn user_agent(contact: Option<&str>) -> String {
    let contact = contact.unwrap_or("no contact given");
    let repository = env!("CARGO_PKG_REPOSITORY");
    let repository = if repository.is_empty() { String::new() } else { format!("; +{repository}") };
    format!("{}/{} ({contact}{repository})", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

/// A client for one upstream server. It uses the proxies of the environment, except for loopback addresses.
///
/// # Errors
/// The user agent is not a valid header value, or TLS cannot be set up.
pub fn new(user_agent: &str, base_url: &str, timeout: Duration) -> Result<Client, Error> {
    tls::install_provider();
    let mut builder =
        Client::builder().user_agent(user_agent).timeout(timeout).redirect(Policy::limited(REDIRECTS_MAX));
    if is_loopback(base_url) {
        builder = builder.no_proxy();
    }
    Ok(builder.build()?)
}

/// Sends a GET request.
///
/// # Errors
/// No connection, or no response in time.
pub async fn get(client: &Client, url: &str) -> Result<Response, Error> {
    Ok(client.get(url).send().await?)
}

/// Reads the body of a response, decompressed, up to a limit.
///
/// # Errors
/// The response breaks off or is longer than `max_bytes`.
pub async fn body(mut response: Response, max_bytes: usize) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > max_bytes {
            return Err(Error::TooLong(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Sends a GET request for something large, with a timeout of its own.
///
/// # Errors
/// No connection, or no response in time.
pub async fn get_large(client: &Client, url: &str, timeout: Duration) -> Result<Response, Error> {
    Ok(client.get(url).timeout(timeout).send().await?)
}

/// Reads the next bytes of a response, decompressed; `None` at its end.
///
/// # Errors
/// The response breaks off.
pub async fn chunk(response: &mut Response) -> Result<Option<Bytes>, Error> {
    Ok(response.chunk().await?)
}

/// The wait of a `Retry-After` header (seconds or a date), at most an hour.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let wait_ms = parse_retry_after(text, clock::now_ms())?;
    Some(Duration::from_millis(wait_ms).min(RETRY_AFTER_MAX))
}

/// The host of a URL without its port; the URL may lack a scheme or be malformed.
#[must_use]
pub fn host(url: &str) -> &str {
    let authority = host_and_port(url);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The host of a URL with its port, if it names one.
#[must_use]
pub fn host_and_port(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

fn is_loopback(base_url: &str) -> bool {
    let host = reqwest::Url::parse(base_url)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_default();
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_agent_names_the_contact() {
        let agent = user_agent(Some("me@example.org"));
        assert!(agent.starts_with("killstream/"), "{agent}");
        assert!(agent.contains("(me@example.org"), "{agent}");
    }

    #[test]
    fn loopback_is_recognised() {
        for url in ["http://127.0.0.1:80", "http://localhost:4004/", "http://[::1]:1"] {
            assert!(is_loopback(url), "{url}");
        }
        assert!(!is_loopback("https://r2z2.zkillboard.com"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_an_hour() {
        let wait = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(wait(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(wait("99999"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("Sat, 01 Jan 2000 00:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("Tue, 01 Jan 2199 00:00:00 GMT"), Some(RETRY_AFTER_MAX));
        assert_eq!(wait("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
