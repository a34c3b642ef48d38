//! Negotiation: a caller who accepts nothing that a route could send gets 406. No header, or a wildcard,
//! accepts everything.
//!
//! Must not know: what the routes send beside its kind.

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::middleware::Next;
use axum::response::Response;

use crate::http::answer::error::Error;

/// Lets through who accepts JSON.
///
/// # Errors
/// 406.
pub async fn json(request: Request, next: Next) -> Result<Response, Error> {
    check(request, next, &["application/json"]).await
}

/// Lets through who accepts JSON or text.
///
/// # Errors
/// 406.
pub async fn json_or_text(request: Request, next: Next) -> Result<Response, Error> {
    check(request, next, &["application/json", "text/plain", "application/openmetrics-text"]).await
}

/// Lets through who accepts HTML.
///
/// # Errors
/// 406.
pub async fn html(request: Request, next: Next) -> Result<Response, Error> {
    check(request, next, &["text/html"]).await
}

async fn check(request: Request, next: Next, offered: &[&str]) -> Result<Response, Error> {
    if accepts(request.headers(), offered) { Ok(next.run(request).await) } else { Err(Error::NotAcceptable) }
}

/// Whether a header names this media type itself, not by a wildcard.
#[must_use]
pub fn names(headers: &HeaderMap, media_type: &str) -> bool {
    ranges(headers).any(|range| range.eq_ignore_ascii_case(media_type))
}

fn accepts(headers: &HeaderMap, offered: &[&str]) -> bool {
    ranges(headers).next().is_none()
        || ranges(headers).any(|range| offered.iter().any(|kind| fits(range, kind)))
}

/// The media ranges of all `Accept` headers, without parameters; those with `q=0` are refusals and left out.
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

fn fits(range: &str, kind: &str) -> bool {
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

    fn sent(accept: &'static str) -> HeaderMap {
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
            assert!(accepts(&sent(accept), json), "{accept}");
        }
        for accept in ["text/html", "text/*", "application/jsonx", "image/png, text/event-stream", "nonsense"]
        {
            assert!(!accepts(&sent(accept), json), "{accept}");
        }
    }

    #[test]
    fn a_wildcard_names_nothing() {
        assert!(names(&sent("text/plain;version=0.0.4"), "text/plain"));
        assert!(!names(&sent("*/*"), "text/plain"));
        assert!(!names(&sent("text/plain;q=0"), "text/plain"));
    }
}
