//! The HTTP client towards the outside: who we are, how long we wait, how much we take.
//!
//! Must not know: what is asked for.

use std::sync::Once;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};

const REDIRECTS_MAX: usize = 5;

/// A request that came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, a timeout, a broken answer.
    #[error("{}", .0.to_string().trim_end())]
    Http(#[from] reqwest::Error),
    /// More than we take.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl Error {
    /// Whether the other side was too slow.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_timeout())
    }
}

/// What `User-Agent` says: name, version and how to reach whoever runs this.
#[must_use]
pub fn user_agent(contact: Option<&str>) -> String {
    let contact = contact.unwrap_or("no contact given");
    let about = env!("CARGO_PKG_REPOSITORY");
    let about = if about.is_empty() { String::new() } else { format!("; +{about}") };
    format!("{}/{} ({contact}{about})", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

/// A client for one upstream. Proxies of the environment are used, but never towards this machine itself.
///
/// # Errors
/// The user agent is no header value, or TLS cannot be set up.
pub fn new(user_agent: &str, base_url: &str, timeout: Duration) -> Result<Client, Error> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Refused only when another one is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let mut builder =
        Client::builder().user_agent(user_agent).timeout(timeout).redirect(Policy::limited(REDIRECTS_MAX));
    if is_loopback(base_url) {
        builder = builder.no_proxy();
    }
    Ok(builder.build()?)
}

/// One GET.
///
/// # Errors
/// No connection or no answer in time.
pub async fn get(client: &Client, url: &str) -> Result<Response, Error> {
    Ok(client.get(url).send().await?)
}

/// The body of an answer, decompressed, up to a limit.
///
/// # Errors
/// The answer breaks off, or is longer than `max_bytes`.
pub async fn body(mut response: Response, max_bytes: usize) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > max_bytes {
            return Err(Error::TooLong(max_bytes));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// One GET of something large, which may take so long.
///
/// # Errors
/// No connection or no answer in time.
pub async fn get_large(client: &Client, url: &str, timeout: Duration) -> Result<Response, Error> {
    Ok(client.get(url).timeout(timeout).send().await?)
}

/// The next bytes of an answer, decompressed; `None` at its end.
///
/// # Errors
/// The answer breaks off.
pub async fn chunk(response: &mut Response) -> Result<Option<Bytes>, Error> {
    Ok(response.chunk().await?)
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
}
