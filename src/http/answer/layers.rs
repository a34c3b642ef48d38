//! What every response has, whatever the route: a request id, `Cache-Control`, CORS headers, compression, and
//! a 500 after a panic.
//!
//! Must not know: any route.

use std::any::Any;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any as Anyone, CorsLayer};

use crate::http::answer::error::Error;
use crate::http::config::Config;
use crate::wire::query::origin;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Puts the layers around routes.
pub fn wrap(routes: Router, config: &Config) -> Router {
    let inner = routes.layer(CatchPanicLayer::custom(respond_to_panic));
    let compressed = if config.compression { inner.layer(CompressionLayer::new()) } else { inner };
    let with_cors = match cors(&config.cors_origins) {
        Some(cors) => compressed.layer(cors),
        None => compressed,
    };
    with_cors.layer(from_fn(add_headers))
}

async fn add_headers(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| (20..=200).contains(&id.len()))
        .cloned()
        .unwrap_or_else(new_id);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID.clone(), id);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("max-age=0, private, must-revalidate"));
    response
}

/// 32 hexadecimal digits: a random number of the process, then the number of the request.
fn new_id() -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| {
        let mut bytes = [0; 8];
        // If this fails, ids are still unique within the process.
        let _ = getrandom::fill(&mut bytes);
        u64::from_le_bytes(bytes)
    });
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let text = format!("{:016x}{:016x}", *PROCESS, NEXT.fetch_add(1, Ordering::Relaxed));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("00000000000000000000"))
}

/// `None` when no other origin may read responses.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID.clone(), ETAG])
        .max_age(Duration::from_secs(86_400));
    Some(if origins.iter().any(|origin| origin == "*") {
        layer.allow_origin(Anyone)
    } else {
        let allowed = origins.to_vec();
        layer.allow_origin(AllowOrigin::predicate(move |given, _| {
            given.to_str().is_ok_and(|given| origin::is_allowed(Some(given), &allowed))
        }))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the layer passes the box by value")]
fn respond_to_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text, "a request handler panicked: {}", text.unwrap_or("no message"));
    Error::Internal.into_response()
}
