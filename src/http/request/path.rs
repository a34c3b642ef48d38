//! Paths as people and programs write them: `//socket/websocket` and `/api/v1/killmails/` mean what they mean
//! without the slashes too many.
//!
//! Must not know: any route.

use std::borrow::Cow;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use tower::util::MapRequest;

/// Finds routes whatever slashes stand doubled or at the end of a path. The path has to be put right before a
/// router sees it, so this one has no route of its own.
pub fn found(routes: Router) -> Router {
    Router::new().fallback_service(MapRequest::new(routes, put_right))
}

fn put_right(mut request: Request) -> Request {
    if let Some(uri) = without_slashes(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// The address without needless slashes; `None` where it has none.
fn without_slashes(uri: &Uri) -> Option<Uri> {
    let Cow::Owned(path) = tidy(uri.path()) else { return None };
    let text = uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

fn tidy(path: &str) -> Cow<'_, str> {
    let is_tidy = path == "/" || !(path.ends_with('/') || path.contains("//"));
    if is_tidy || !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    Cow::Owned(format!("/{}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needless_slashes_go() {
        for (given, meant) in [
            ("/", None),
            ("/ping", None),
            ("/ping?a=//b/", None),
            ("*", None),
            ("//", Some("/")),
            ("/ping/", Some("/ping")),
            ("//socket///websocket//?vsn=2.0.0&x=/", Some("/socket/websocket?vsn=2.0.0&x=/")),
            ("http://example.org//a/?b", Some("http://example.org/a?b")),
        ] {
            let uri: Uri = given.parse().unwrap();
            assert_eq!(without_slashes(&uri).map(|uri| uri.to_string()).as_deref(), meant, "{given}");
        }
    }
}
