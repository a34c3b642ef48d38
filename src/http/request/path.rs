//! Normalizes paths: `//socket/websocket` and `/api/v1/killmails/` find their routes as if the extra slashes
//! were not there.
//!
//! Must not know: any route.

use std::borrow::Cow;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use tower::util::MapRequest;

/// Puts the normalization around routes. It has to happen before a router sees the path, so the outer router
/// has only a fallback.
pub fn normalize_paths(routes: Router) -> Router {
    Router::new().fallback_service(MapRequest::new(routes, normalize))
}

fn normalize(mut request: Request) -> Request {
    if let Some(uri) = normalized_uri(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// The URI without extra slashes; `None` where it has none.
fn normalized_uri(uri: &Uri) -> Option<Uri> {
    let Cow::Owned(path) = normalized_path(uri.path()) else { return None };
    let text = uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Uri::from_parts(parts).ok()
}

fn normalized_path(path: &str) -> Cow<'_, str> {
    let is_normal = path == "/" || !(path.ends_with('/') || path.contains("//"));
    if is_normal || !path.starts_with('/') {
        return Cow::Borrowed(path);
    }
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    Cow::Owned(format!("/{}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_slashes_are_removed() {
        for (given, expected) in [
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
            assert_eq!(normalized_uri(&uri).map(|uri| uri.to_string()).as_deref(), expected, "{given}");
        }
    }
}
