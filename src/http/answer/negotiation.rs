//! Content negotiation: a client whose `Accept` header names nothing that a route sends gets 406. No header,
//! or a wildcard, accepts everything.
//!
//! Must not know: what the routes send, beside the media type.

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::middleware::Next;
use axum::response::Response;

use crate::http::answer::error::Error;

/// For routes that send JSON.
///
/// # Errors
/// 406: the client does not accept it.
pub async fn require_json(request: Request, next: Next) -> Result<Response, Error> {
    check(request, next, &["application/json"]).await
}

/// For routes that send JSON or text.
///
/// # Errors
/// 406: the client does not accept it.
pub async fn require_json_or_text(request: Request, next: Next) -> Result<Response, Error> {
    check(request, next, &["application/json", "text/plain", "application/openmetrics-text"]).await
}

/// For routes that send HTML.
///
/// # Errors
/// 406: the client does not accept it.
pub async fn require_html(request: Request, next: Next) -> Result<Response, Error> {
    check(request, next, &["text/html"]).await
}

async fn check(request: Request, next: Next, offered: &[&str]) -> Result<Response, Error> {
    if accepts(request.headers(), offered) { Ok(next.run(request).await) } else { Err(Error::NotAcceptable) }
}

/// Whether `Accept` names this media type itself, not by a wildcard.
#[must_use]
pub fn names_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    ranges(headers).any(|range| range.eq_ignore_ascii_case(media_type))
}

fn accepts(headers: &HeaderMap, offered: &[&str]) -> bool {
    ranges(headers).next().is_none()
        || ranges(headers).any(|range| offered.iter().any(|kind| matches_range(range, kind)))
}

/// The media ranges of all `Accept` headers, without parameters. Those with `q=0` are left out: the client
/// refuses them.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let range = pieces.next().filter(|range| !range.is_empty())?;
            let refused = pieces
                .any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0)));
            (!refused).then_some(range)
        })
}

fn matches_range(range: &str, kind: &str) -> bool {
    let (Some((main, sub)), Some((kind_main, kind_sub))) = (range.split_once('/'), kind.split_once('/'))
    else {
        return range == "*";
    };
    let suffixed = sub.rsplit_once('+').is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case(kind_sub));
    main == "*"
        || (main.eq_ignore_ascii_case(kind_main)
            && (sub == "*" || sub.eq_ignore_ascii_case(kind_sub) || suffixed))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn with_accept(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))])
    }

    #[test]
    fn only_a_named_or_wild_range_is_accepted() {
        let json = &["application/json"];
        assert!(accepts(&HeaderMap::new(), json));
        for accept in [
            "",
            "*/*",
            "application/*",
            "text/html, application/json;q=0.1",
            "text/html,*/*;q=0.8",
            "application/vnd.x+json",
            "APPLICATION/JSON",
        ] {
            assert!(accepts(&with_accept(accept), json), "{accept}");
        }
        for accept in ["text/html", "text/*", "application/jsonx", "image/png, text/event-stream", "nonsense"]
        {
            assert!(!accepts(&with_accept(accept), json), "{accept}");
        }
    }

    #[test]
    fn a_wildcard_names_no_media_type() {
        assert!(names_media_type(&with_accept("text/plain;version=0.0.4"), "text/plain"));
        assert!(!names_media_type(&with_accept("*/*"), "text/plain"));
        assert!(!names_media_type(&with_accept("text/plain;q=0"), "text/plain"));
    }
}
